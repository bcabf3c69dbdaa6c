"""Files that a command writes: all of one, or nothing and the old one left as it was."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pcapdiag.cli.streams import OutputError, emit
from pcapdiag.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

STDOUT: Final = "-"


@dataclass(frozen=True, slots=True)
class Target:
    """Where something goes: the option that says so, and a path, or "-" where that is allowed."""

    option: str
    path: str
    may_be_stdout: bool = False

    @property
    def is_stdout(self) -> bool:
        """Return whether it goes to standard output."""
        return self.may_be_stdout and self.path == STDOUT

    def __str__(self) -> str:
        """Return it as on the command line."""
        return f"{self.option} {self.path}"


def check(targets: Sequence[Target], inputs: Sequence[str]) -> None:
    """Raise UsageError where a target cannot be, before any work is done for it.

    Two targets in one place, a target that is one of `inputs` (under whatever name), a directory,
    a folder that is missing or may not be written to, "-" where only a file will do.
    """
    taken: dict[object, str] = {}
    for path in filter(lambda each: each != STDOUT, inputs):
        for key in _identities(path):
            taken[key] = f"the input {path}"
    for target in targets:
        if not target.is_stdout:
            _check_place(target)
        for key in _identities(STDOUT if target.is_stdout else target.path):
            if key in taken:
                raise UsageError(f"{target} would overwrite {taken[key]}")
            taken[key] = str(target)


def _identities(path: str) -> Iterator[object]:
    """Yield what makes a place the same place; nothing for devices, which may be shared."""
    if path == STDOUT:
        yield STDOUT
        return
    with contextlib.suppress(OSError, ValueError):
        status = os.stat(path)  # noqa: PTH116 - a path may hold anything
        if not stat.S_ISREG(status.st_mode):
            return
        yield status.st_dev, status.st_ino
    with contextlib.suppress(OSError, ValueError):
        yield os.path.realpath(path)


def _check_place(target: Target) -> None:
    if target.path in {"", STDOUT} or "\0" in target.path:
        raise UsageError(f"{target.option} needs the name of a file, not {target.path!r}")
    place = Path(os.path.realpath(target.path))
    try:
        mode = place.stat().st_mode
    except FileNotFoundError:
        mode = 0
    except OSError as error:
        raise UsageError(f"{target}: {error.strerror}") from error
    if stat.S_ISDIR(mode) or target.path.endswith(os.sep):
        raise UsageError(f"{target} is a directory, not a file")
    if mode and not stat.S_ISREG(mode):
        return
    if not os.path.isdir(place.parent):  # noqa: PTH112 - False where Path would raise
        raise UsageError(f"{target}: there is no directory {place.parent}")
    if not os.access(place.parent, os.W_OK | os.X_OK):
        raise UsageError(f"{target}: no permission to write in {place.parent}")


def write(target: Target, text: str) -> None:
    """Write `text` as UTF-8 to a file in one step, or to standard output. Raises OutputError."""
    if target.is_stdout:
        emit(text)
        return
    with replacing(target) as temporary:
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))


@contextlib.contextmanager
def replacing(target: Target) -> Iterator[Path]:
    """Lend a file beside the target's, and put it in the target's place at the end of the block.

    An exception in the block, an interrupt included, removes it and leaves the target as it was.
    A symbolic link stays one, a file keeps its mode, a new one gets the umask's. A device or pipe
    is lent itself: it cannot be replaced. Raises OutputError where the operating system refuses.
    """
    place = Path(os.path.realpath(target.path))
    temporary = place.with_name(f".pcapdiag-{secrets.token_hex(8)}.tmp")
    try:
        mode = place.stat().st_mode if place.exists() else None
        if mode is not None and not stat.S_ISREG(mode):
            yield place
            return
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        try:
            if mode is not None:
                temporary.chmod(stat.S_IMODE(mode))
            yield temporary
            _settle(temporary)
            temporary.replace(place)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        raise OutputError(
            f"{target}: cannot be written: {error.strerror or error}; nothing was changed"
        ) from error


def _settle(path: Path) -> None:
    """Wait until the bytes are on the disk, so that a power cut leaves the old file or the new."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
