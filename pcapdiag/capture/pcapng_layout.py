"""How the blocks of a pcapng section are laid out: type, length, contents, length again."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pcapdiag.capture import pcapng_blocks as blocks
from pcapdiag.capture.walk import NO_RECORD, thinned

if TYPE_CHECKING:
    from numpy.typing import NDArray


class PcapngLayout(NamedTuple):
    """How blocks of one byte order are laid out; a walk.Layout.

    A section header in the other byte order is no block of this layout.
    """

    big_endian: bool
    header_bytes: int = blocks.MIN_BLOCK_BYTES

    def size_at(self, data: memoryview, position: int) -> int:
        """Return the block's size; 0 for one that cannot be."""
        order = ">III" if self.big_endian else "<III"
        kind, length, magic = struct.unpack_from(order, data, position)
        size: int = length + 3 & ~3  # some programs leave the padding out
        if kind == blocks.SECTION and (
            magic != blocks.BYTE_ORDER_MAGIC or size < blocks.MIN_BYTES[blocks.SECTION]
        ):
            return 0
        return size if blocks.MIN_BLOCK_BYTES <= size <= blocks.MAX_BLOCK_BYTES else 0

    def sizes(self, data: NDArray[np.uint8], positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return size_at for many positions, NO_RECORD instead of 0."""
        words = self._words(data)
        at = positions >> 2
        size: NDArray[np.int64] = (words[at + 1].astype(np.int64) + 3) & ~3
        impossible = (size < blocks.MIN_BLOCK_BYTES) | (size > blocks.MAX_BLOCK_BYTES)
        section = words[at] == blocks.SECTION
        if section.any():
            impossible |= section & (words[at + 2] != blocks.BYTE_ORDER_MAGIC)
            impossible |= section & (size < blocks.MIN_BYTES[blocks.SECTION])
        if impossible.any():
            size[impossible] = NO_RECORD
        return size

    def candidates(
        self, data: NDArray[np.uint8], model: int, first: int, spacing: int, width: int
    ) -> NDArray[np.int64]:
        """Return where the model's block type stands, or an enhanced packet's if it is no packet.

        All of `model`, `first`, `spacing` and `width` are multiples of 4.
        """
        count = max(0, (len(data) - first - width) // spacing + 1)
        if not count:
            return np.zeros(0, dtype=np.int64)
        windows = np.ndarray(
            (count, width >> 2),
            dtype=np.uint32,
            buffer=data.data,
            offset=first,
            strides=(spacing, 4),
        )
        kind = int(self._words(data)[model >> 2])
        if kind not in blocks.PACKETS:
            kind = blocks.ENHANCED_PACKET
        wanted = np.array([kind], dtype=self._dtype).view(np.uint32)[0]
        split, offset = np.divmod(thinned(np.flatnonzero(windows == wanted)), width >> 2)
        found: NDArray[np.int64] = first + split * spacing + (offset << 2)
        return found

    def plausible(
        self, data: NDArray[np.uint8], model: int, positions: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Return where a block's length stands in front of it and behind it."""
        del model  # the two lengths are proof enough
        words = self._words(data)
        trailer = (positions + self.sizes(data, positions) >> 2) - 1
        within = trailer < len(words)
        length = words[(positions >> 2) + 1]
        good: NDArray[np.bool_] = within & (words[np.where(within, trailer, 0)] == length)
        return good

    @property
    def _dtype(self) -> str:
        return ">u4" if self.big_endian else "<u4"

    def _words(self, data: NDArray[np.uint8]) -> NDArray[np.uint32]:
        return data[: len(data) & ~3].view(self._dtype)
