"""The reused block of bytes that records are found in."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from pcapdiag.capture.source import ByteSource

SLACK_BYTES: Final = 64
"""Bytes behind the data that may be read, so that the last header is fetched like all others."""

LEAD_BYTES: Final = 256 << 10
"""Room before what is read, for the rest of the block before: more than a record of the largest
packet takes, so that a rest rarely has to be put elsewhere together with what follows it."""

BLOCK_BYTES: Final = (32 << 20) - LEAD_BYTES - SLACK_BYTES
"""Bytes of a block: large enough that numpy's cost per call vanishes, small beside the tables."""


@dataclass(frozen=True, slots=True)
class _Read:
    """What the source gave at once: `count` bytes from LEAD_BYTES of `memory` on."""

    memory: NDArray[np.uint8]
    count: int
    at_end: bool
    failure: str | None


class Block:
    """A window that moves over a byte source: `data` holds bytes `offset`, `offset` + 1, ...

    Views of `data` are valid until `advance`, which uses the memory again. Bytes already read may
    be given as `head`. With `ahead` a thread reads what comes next meanwhile.
    """

    def __init__(
        self,
        source: ByteSource,
        head: bytes = b"",
        size: int = BLOCK_BYTES,
        *,
        ahead: bool = False,
    ) -> None:
        self._source = source
        self._size = size
        self._memory = np.frombuffer(head + bytes(SLACK_BYTES), dtype=np.uint8)
        self._begin, self._end = 0, len(head)
        self._spare: NDArray[np.uint8] | None = None
        self._reader = ThreadPoolExecutor(1) if ahead else None
        self._coming: Future[_Read] | None = None
        self.offset = 0
        """Offset in the (decompressed) capture of the first byte of `data`."""
        self.at_end = False
        """Whether the source has no more bytes than those in `data`."""
        self.failure: str | None = None
        """Why the source ended early, where it did."""

    @property
    def end(self) -> int:
        """How many bytes are there now."""
        return self._end - self._begin

    @property
    def data(self) -> NDArray[np.uint8]:
        """The bytes that are there now: a view."""
        return self._memory[self._begin : self._end]

    @property
    def padded(self) -> NDArray[np.uint8]:
        """The bytes that are there now, and SLACK_BYTES of no meaning behind them."""
        return self._memory[self._begin : self._end + SLACK_BYTES]

    def advance(self, used: int, wanted: int = 0) -> None:
        """Drop the first `used` bytes and read on, so that `wanted` bytes are there if they exist.

        The block grows for a record that is larger than it, and only as bytes arrive: a length
        field alone allocates nothing.
        """
        self.offset += used
        self._begin += used
        self._read_on()
        while self.end < wanted and not self.at_end:
            self._read_on()

    def close(self) -> None:
        """Wait for what is being read, so that the source may be closed. May be called again."""
        if self._reader is not None:
            self._reader.shutdown(cancel_futures=True)

    def _read_on(self) -> None:
        """Put the data before what the source gives next."""
        if self.at_end:
            return
        found = self._read() if self._coming is None else self._coming.result()
        rest, before = self.data, self._memory
        if len(rest) <= LEAD_BYTES:
            self._memory, self._begin = found.memory, LEAD_BYTES - len(rest)
            self._spare = before
        else:
            new = found.memory[LEAD_BYTES : LEAD_BYTES + found.count]
            self._memory, self._begin = _memory(len(rest) + self._size), 0
            self._memory[len(rest) : len(rest) + len(new)] = new
            self._spare = found.memory
        middle = self._begin + len(rest)
        self._memory[self._begin : middle] = rest
        self._end = middle + found.count
        self.at_end, self.failure = found.at_end, found.failure
        if self._reader is not None and not self.at_end:
            self._coming = self._reader.submit(self._read)

    def _read(self) -> _Read:
        """Fill the memory that is not in use from the source."""
        memory, self._spare = self._spare, None
        if memory is None or len(memory) < LEAD_BYTES + self._size + SLACK_BYTES:
            memory = _memory(LEAD_BYTES + self._size)
        view = memory.data[LEAD_BYTES : LEAD_BYTES + self._size]
        count, at_end, failure = 0, False, None
        while count < len(view) and not at_end:
            try:
                got = self._source.readinto(view[count:])
            except OSError as error:
                failure = f"reading failed: {error.strerror}" if error.strerror else str(error)
                got = 0
            count += got
            at_end = got == 0
        return _Read(memory, count, at_end, failure)


def _memory(size: int) -> NDArray[np.uint8]:
    memory = np.empty(size + SLACK_BYTES, dtype=np.uint8)
    memory[size:] = 0
    return memory
