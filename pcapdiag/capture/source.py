"""Bytes of a file or stream, read forward into buffers that the caller owns."""

from __future__ import annotations

import contextlib
import os
import select
import stat
from typing import TYPE_CHECKING, Final, Protocol

from pcapdiag.errors import UnreadableCapture

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

STDIN: Final = "-"
"""The path that means standard input."""

HEARD_MS: Final = 200
"""A signal that comes just as a wait for bytes begins does not end it, and is heard when this is
over; nobody who presses Control-C notices."""


class ByteSource(Protocol):
    """Where bytes come from: a file, a stream, or a decompressor over either."""

    def readinto(self, buffer: memoryview) -> int:
        """Fill the start of `buffer`; return how many bytes, 0 only at the end."""


class FileSource:
    """A file or standard input. Not mapped: touched pages of a mapping count as memory.

    Raises UnreadableCapture where the operating system refuses to open; a failing read raises
    OSError.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.bytes_read = 0
        self._owned = path != STDIN
        self._ready: select.poll | None = None
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC) if self._owned else 0
            self._status = os.fstat(self._fd)
        except FileNotFoundError:
            raise UnreadableCapture(path, "no such file; check the path") from None
        except PermissionError:
            message = "no permission to read it; copy it or run `chmod +r` on it"
            raise UnreadableCapture(path, message) from None
        except (OSError, ValueError) as error:
            raise UnreadableCapture(path, f"cannot be opened: {_reason(error)}") from None
        if stat.S_ISDIR(self._status.st_mode):
            self.close()
            raise UnreadableCapture(path, "is a directory, not a capture file")
        if self.size is None:
            self._ready = select.poll()
            self._ready.register(self._fd, select.POLLIN)

    def readinto(self, buffer: memoryview) -> int:
        """Fill the start of `buffer`; return how many bytes, 0 only at the end."""
        while self._ready is not None and not self._ready.poll(HEARD_MS):
            pass
        count = os.readv(self._fd, [buffer])
        self.bytes_read += count
        return count

    @property
    def size(self) -> int | None:
        """Bytes when opened; None for a stream."""
        return self._status.st_size if stat.S_ISREG(self._status.st_mode) else None

    @property
    def mtime_ns(self) -> int | None:
        """Time of the last change when opened; None for a stream."""
        return self._status.st_mtime_ns if stat.S_ISREG(self._status.st_mode) else None

    def change(self) -> str | None:
        """Return what became of it since it was opened; None where it is as it was."""
        if self.size is None:
            return None
        now = os.fstat(self._fd)
        if now.st_size != self._status.st_size:
            return f"its size went from {self._status.st_size} to {now.st_size} bytes"
        if now.st_mtime_ns != self._status.st_mtime_ns:
            return "it was written to"
        with contextlib.suppress(OSError):  # removed: what was read is all there was
            if self._owned and not os.path.samestat(now, os.stat(self.path)):  # noqa: PTH116
                return "another file has taken its place"
        return None

    def close(self) -> None:
        """Close the file; standard input stays open. May be called again."""
        if self._owned and self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        """Return itself; leaving the `with` block closes the file."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the file."""
        self.close()


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
