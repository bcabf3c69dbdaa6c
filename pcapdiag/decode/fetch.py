"""The one place where captured bytes are indexed.

A decoder asks for a window: for each of its rows the same number of bytes from an offset of its
own, together with how many of them may be believed. What lies at or behind a row's `end` (caplen,
an IP length, the end of a quote) reads as zero, so that no decoder can see a neighbouring frame,
whatever lengths a packet claims; `Window.kept` tells real zeros from missing bytes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pcapdiag.decode.columns import U8, U16, U32, U64, Indices, Offsets


MAX_WINDOW: Final = 64
"""Widest window: the tables that clear tails take (width + 1) * width bytes each."""

SHORT_SHARE: Final = 0.25
"""Where more cells than this are cut short all are masked, which is then quicker than some."""

_CELL_BYTES: Final = MAX_WINDOW
_CELLS_AT_ONCE: Final = 1 << 14
"""What is summed at once: 1 MiB stays within the processor's cache."""


class Window(NamedTuple):
    """`width` bytes a row; n rows."""

    raw: U8
    """Shape (n, width), C order, zero where not kept."""
    kept: Offsets
    """How many of the row's bytes are really there, 0 to width."""

    def u8(self, offset: int) -> U8:
        """Return the byte at `offset` of each row."""
        return self.raw[:, offset].copy()

    def u16(self, offset: int) -> U16:
        """Return the 16 bits in network order at `offset` of each row."""
        return self.raw[:, offset : offset + 2].view(">u2")[:, 0].astype(np.uint16)

    def u32(self, offset: int) -> U32:
        """Return the 32 bits in network order at `offset` of each row."""
        return self.raw[:, offset : offset + 4].view(">u4")[:, 0].astype(np.uint32)

    def u64(self, offset: int) -> U64:
        """Return the 64 bits in network order at `offset` of each row."""
        return self.raw[:, offset : offset + 8].view(">u8")[:, 0].astype(np.uint64)

    def mac(self, offset: int) -> U64:
        """Return the 48 bits in network order at `offset` of each row; needs 2 bytes around."""
        if offset >= 2:
            return self.u64(offset - 2) & np.uint64(0xFFFF_FFFF_FFFF)
        return self.u64(offset) >> np.uint64(16)

    def at(self, rows: Indices, offset: Indices, size: int) -> Offsets:
        """Return the `size` (1 to 4) bytes at a different offset of each of `rows`, as integers.

        The caller keeps offset + size within the width.
        """
        flat = self.raw.reshape(-1)
        base = rows * self.raw.shape[1] + offset
        value: Offsets = flat.take(base).astype(np.int64)
        for index in range(1, size):
            value = value << 8 | flat.take(base + index)
        return value

    def word_sum(self, start: int, stop: int) -> U64:
        """Return the sum over bytes [start, stop) as little-endian 32-bit words, for checksums.

        stop - start must be a multiple of 4.
        """
        words = self.raw[:, start:stop].view("<u4")
        total = words[:, 0].astype(np.uint64)
        for index in range(1, words.shape[1]):
            total += words[:, index]
        return total


class Bytes:
    """A block of captured bytes."""

    __slots__ = ("_data",)

    def __init__(self, data: U8) -> None:
        """Keep a view of `data` (one dimension, any length)."""
        self._data = np.ascontiguousarray(data)

    def window(self, start: Offsets, end: Offsets, width: int) -> Window:
        """Return `width` bytes from `start` on, believed up to `end`.

        The width is a multiple of 8 and at most MAX_WINDOW.
        `start` is not negative; it may lie behind `end` or behind the block, then nothing is kept.
        `end` must not lie behind the block.
        """
        size = self._data.size
        limit = size - width
        if start.size and start.max() <= limit:
            cells = self._view(self._data, limit + 1, width)[start]
        else:
            cells = self._near_the_end(start, width)
        kept = end - start
        if kept.size and kept.min() < width:
            np.clip(kept, 0, width, out=kept)
            _clear_tails(cells, kept)
        else:
            kept = np.broadcast_to(np.int64(width), kept.shape)
        return Window(cells.view(np.uint8).reshape(-1, width), kept)

    def words_summed(self, start: Offsets, length: Offsets) -> U64:
        """Return for each row the sum over `length` bytes from `start` on, for checksums.

        Little-endian 32-bit words, a last partial word padded with zeros. All bytes must be kept.
        Memory is bounded whatever the lengths are.
        """
        total = np.zeros(len(start), dtype=np.uint64)
        cells = np.maximum(-(-length // _CELL_BYTES), 1)
        first = np.cumsum(cells) - cells
        row = 0
        while row < len(start):
            stop = int(np.searchsorted(first, first[row] + _CELLS_AT_ONCE, side="right"))
            rows = slice(row, max(stop, row + 1))
            total[rows] = self._cells_summed(start[rows], length[rows], cells[rows])
            row = rows.stop
        return total

    def _cells_summed(self, start: Offsets, length: Offsets, cells: Offsets) -> U64:
        """Return words_summed of rows that take `cells` cells each."""
        first = np.cumsum(cells) - cells
        index = np.arange(int(cells.sum())) - np.repeat(first, cells)
        at = np.repeat(start, cells) + index * _CELL_BYTES
        end = np.repeat(start + length, cells)
        summed: U64 = np.add.reduceat(
            self.window(at, end, _CELL_BYTES).word_sum(0, _CELL_BYTES), first
        )
        return summed

    def frame(self, start: int, end: int) -> bytes:
        """Return one frame's bytes, for a decoder that is not ours (scapy)."""
        return self._data[start:end].tobytes()

    @staticmethod
    def _view(data: U8, count: int, width: int) -> NDArray[np.void]:
        """Return overlapping cells of `width` bytes, one at every byte offset below `count`.

        Indexing cells copies each row in one piece, ten times faster than indexing bytes.
        """
        return np.ndarray((count,), dtype=f"V{width}", buffer=data, strides=(1,))

    def _near_the_end(self, start: Offsets, width: int) -> NDArray[np.void]:
        """Gather where some windows reach behind the block; zeros stand for what is not there."""
        size = self._data.size
        base = max(0, size - width + 1)
        tail = np.zeros(size - base + width, dtype=np.uint8)
        tail[: size - base] = self._data[base:]
        cells = np.empty(len(start), dtype=f"V{width}")
        late = start >= base
        cells[late] = self._view(tail, size - base + 1, width)[np.minimum(start[late], size) - base]
        if base and not late.all():
            early = ~late
            cells[early] = self._view(self._data, base, width)[start[early]]
        return cells


@lru_cache(maxsize=16)
def _masks(width: int) -> NDArray[np.void]:
    """Return for each count of kept bytes a cell that clears the others."""
    keep = np.arange(width)[None, :] < np.arange(width + 1)[:, None]
    return np.where(keep, np.uint8(0xFF), np.uint8(0)).view(f"V{width}")[:, 0]


def _clear_tails(cells: NDArray[np.void], kept: Offsets) -> None:
    """Zero, in place, what lies at or behind each cell's `kept` bytes."""
    masks = _masks(cells.itemsize)
    short = np.flatnonzero(kept < cells.itemsize)
    if short.size > SHORT_SHARE * kept.size:
        words = cells.view(np.uint64)
        words &= masks[kept].view(np.uint64)
    elif short.size:
        some = cells[short].view(np.uint64)
        some &= masks[kept[short]].view(np.uint64)
        cells[short] = some.view(cells.dtype)
