"""The reused block of bytes that records are found in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pcapdiag.capture.source import ByteSource

SLACK_BYTES: Final = 64
"""Bytes behind the data that may be read, so that the last header is fetched like all others."""

BLOCK_BYTES: Final = (32 << 20) - SLACK_BYTES
"""Bytes of a block: large enough that numpy's cost per call vanishes, small beside the tables."""


class Block:
    """A window that moves over a byte source: `data[:end]` holds bytes `offset`, `offset` + 1, ...

    The same memory is used again after `advance`, or after `ahead` times more: views of `data` are
    valid until then. Bytes already read may be given as `head`.
    """

    def __init__(
        self, source: ByteSource, head: bytes = b"", size: int = BLOCK_BYTES, ahead: int = 0
    ) -> None:
        self._source = source
        self._array = _memory(max(size, len(head)))
        self._others: list[NDArray[np.uint8] | None] = [None] * ahead
        self._array[: len(head)] = np.frombuffer(head, dtype=np.uint8)
        self.end = len(head)
        self.offset = 0
        """Offset in the (decompressed) capture of the first byte of `data`."""
        self.at_end = False
        """Whether the source has no more bytes than those in `data`."""
        self.failure: str | None = None
        """Why the source ended early, where it did."""

    @property
    def data(self) -> NDArray[np.uint8]:
        """The bytes that are there now: a view."""
        return self._array[: self.end]

    @property
    def padded(self) -> NDArray[np.uint8]:
        """The bytes that are there now, and SLACK_BYTES of no meaning behind them."""
        return self._array[: self.end + SLACK_BYTES]

    @property
    def _room(self) -> int:
        return len(self._array) - SLACK_BYTES

    def advance(self, used: int, wanted: int = 0) -> None:
        """Drop the first `used` bytes and read on, so that `wanted` bytes are there if they exist.

        The block grows for a record that is larger than it, by doubling and only as bytes arrive:
        a length field alone allocates nothing.
        """
        rest = self.end - used
        if used:
            before = self._array
            self._array = self._next()
            self._array[:rest] = before[used : self.end]
        self.offset += used
        self.end = rest
        self._fill()
        while self.end == self._room < wanted and not self.at_end:
            grown = _memory(min(2 * self._room, wanted))
            grown[: self.end] = self._array[: self.end]
            self._array = grown
            self._fill()

    def _next(self) -> NDArray[np.uint8]:
        """Return the memory that was in use longest ago, and queue the one that is in use now."""
        self._others.append(self._array)
        oldest = self._others.pop(0)
        if oldest is None or len(oldest) < len(self._array):
            return _memory(self._room)
        return oldest

    def _fill(self) -> None:
        view = self._array.data[: self._room]
        while self.end < len(view) and not self.at_end:
            try:
                count = self._source.readinto(view[self.end :])
            except OSError as error:
                reason = f"reading failed: {error.strerror}" if error.strerror else str(error)
                self.failure = reason
                count = 0
            self.end += count
            self.at_end = count == 0


def _memory(size: int) -> NDArray[np.uint8]:
    array = np.empty(size + SLACK_BYTES, dtype=np.uint8)
    array[size:] = 0
    return array
