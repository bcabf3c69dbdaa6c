"""Files given with --facts: whose they are, what kind, and what they say."""

from __future__ import annotations

import gzip
import os
import stat
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple, cast

from pcapdiag.errors import UsageError
from pcapdiag.facts import ipvsadm, kernel_log
from pcapdiag.facts.kernel_log import MAX_LINE, LogCount
from pcapdiag.text import clean

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pcapdiag.kernel.ipvs_timeouts import Timeouts

MAX_BYTES: Final = 256 << 20
"""Read of one file, after decompression: a day of a busy syslog; more is a slip or an attack."""

MAX_FILES: Final = 1000
"""Files of a directory that are looked at; a directory of logs has some dozens."""

_NAMES: Final = ("dmesg", "messages", "syslog", "kern", "journal", "ipvsadm")
"""How the names of what is known begin, where a whole directory is given."""


class HostLog(NamedTuple):
    """What the logs of one host say. `host`: as given, or the file's stem."""

    host: str
    counts: tuple[LogCount, ...]


class HostTimeouts(NamedTuple):
    """How long ip_vs of one host remembers quiet connections, by its own ipvsadm."""

    host: str
    timeouts: Timeouts


class Facts(NamedTuple):
    """All that was given; notes say what was read and what was of no use."""

    logs: tuple[HostLog, ...] = ()
    timeouts: tuple[HostTimeouts, ...] = ()
    notes: tuple[str, ...] = ()

    def log_lines(self, kind: str, sender: str | None = None) -> dict[str, int]:
        """Return how many lines of a kind each host's log holds; `sender`: only those about it."""
        result: dict[str, int] = {}
        for log in self.logs:
            lines = sum(
                item.lines
                for item in log.counts
                if item.kind == kind and sender in (None, item.sender)
            )
            if lines:
                result[log.host] = result.get(log.host, 0) + lines
        return result

    def timeouts_of(self, host: str | None) -> Timeouts | None:
        """Return the timeouts of a host; what was given of one host alone holds for any."""
        known = {item.host: item.timeouts for item in self.timeouts}
        if host in known:
            return known[host]
        return next(iter(known.values())) if len(known) == 1 else None


def load(arguments: Sequence[str]) -> Facts:
    """Return what the files of "[NAME=]PATH" say; UsageError for one that cannot be read.

    A path that exists is a path, whatever it contains. Files whose kind is not known are noted.
    """
    logs: list[HostLog] = []
    outputs: dict[str, list[ipvsadm.Output]] = {}
    notes: list[str] = []
    for argument in arguments:
        name, path = _named(argument)
        for file in _files(path):
            host = clean(name or _stem(file))
            counts, output, cut = _read(file)
            shown = clean(str(file))
            if counts:
                logs.append(HostLog(host, counts))
                total = sum(item.lines for item in counts)
                notes.append(f"{shown}: {total} lines of the kernel log of {host} counted in")
            if output.stated or output.entries:
                outputs.setdefault(host, []).append(output)
                notes.append(f"{shown}: {_told(output)} of {host} taken into account")
            elif not counts:
                notes.append(f"{shown}: holds no line that pcapdiag knows")
            if cut:
                notes.append(f"{shown}: only its first {MAX_BYTES >> 20} MiB were read")
    timeouts = tuple(
        HostTimeouts(host, ipvsadm.together(parts)) for host, parts in sorted(outputs.items())
    )
    return Facts(tuple(logs), timeouts, tuple(notes))


def _told(output: ipvsadm.Output) -> str:
    entries = f"{output.entries} connections listed by ip_vs" if output.entries else ""
    return " and ".join(filter(None, ("the timeouts" if output.stated else "", entries)))


def _named(argument: str) -> tuple[str | None, Path]:
    if not argument or "\0" in argument:
        raise UsageError("--facts: the path is empty or holds a NUL character")
    name, equals, path = argument.partition("=")
    if not equals or Path(argument).exists():
        return None, Path(argument)
    if not name or not path:
        raise UsageError(f"--facts {clean(argument)}: write NAME=PATH")
    return name, Path(path)


def _files(path: Path) -> list[Path]:
    """Return the file, or those in the directory whose names are known."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            return [path]
        if not stat.S_ISDIR(mode):
            raise UsageError(f"--facts {clean(str(path))}: neither a file nor a directory")
        with os.scandir(path) as entries:
            names = sorted(entry.name for entry in entries if entry.is_file())
    except OSError as error:
        raise _unreadable(path, error) from error
    wanted = [name for name in names if name.lower().startswith(_NAMES)]
    if not wanted:
        raise UsageError(
            f"--facts {clean(str(path))}: no file in it has a known name "
            f"({', '.join(_NAMES)}); give the file itself"
        )
    return [path / name for name in wanted[:MAX_FILES]]


def _read(path: Path) -> tuple[tuple[LogCount, ...], ipvsadm.Output, bool]:
    """Return what a file, plain or gzip, says, and whether it was cut at MAX_BYTES."""
    output = ipvsadm.Output()
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            with gzip.open(raw) if packed else raw as file:
                bounded = _Bounded(cast("BinaryIO", file))
                counts = kernel_log.count(output.watched(bounded.lines()))
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from error
    return counts, output, bounded.cut


class _Bounded:
    """Lines of a byte stream, of bounded length, up to MAX_BYTES of it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.cut = False

    def lines(self) -> Iterator[str]:
        """Yield lines; what is longer than MAX_LINE bytes comes in pieces."""
        left = MAX_BYTES
        while left > 0:
            line = self._file.readline(MAX_LINE)
            if not line:
                return
            left -= len(line)
            yield line.decode("utf-8", "replace")
        self.cut = True


def _unreadable(path: Path, error: Exception) -> UsageError:
    reason = getattr(error, "strerror", None) or clean(str(error))
    return UsageError(f"--facts {clean(str(path))}: cannot be read: {reason}")


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").partition(".")[0] or path.name
