"""The pcapng format: sections of blocks, each with its length before and behind its contents.

Format: draft-ietf-opsawg-pcapng. Blocks are numbered, and reading ends, as in wiretap/pcapng.c.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from pcapdiag.capture import pcapng_blocks as blocks
from pcapdiag.capture.frames import MAX_BATCH_FRAMES, FrameBatch, Interface
from pcapdiag.capture.lockstep import walk
from pcapdiag.capture.options import BadBlock
from pcapdiag.capture.pcapng_contents import Contents, trailer_fault
from pcapdiag.capture.pcapng_layout import PcapngLayout
from pcapdiag.errors import TruncatedHeader, UnknownFormat

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pcapdiag.capture.block import Block
    from pcapdiag.capture.notes import Notes

MAGIC: Final = blocks.SECTION.to_bytes(4, "big")
"""First four bytes of a file, the same in either byte order."""

_MAX_TURNS: Final = 2048
"""Changes of byte order that are followed in one go: bounds what hostile files can pile up."""


class _Found(NamedTuple):
    """The complete blocks in the data, and what comes behind them."""

    starts: NDArray[np.int64]
    big: NDArray[np.bool_]
    end: int
    """Where the next block starts."""
    wanted: int
    """Bytes needed from there on."""
    stop: str | None
    """Why reading ends there, if it does."""
    turned: bool
    """The walk ended since the byte order changed too often: there may be more in the data."""


class PcapngFile:
    """Frames of one pcapng file; `block` stands at the start of the file.

    Raises UnknownFormat and TruncatedHeader for a first section header that cannot be used.
    """

    format: Final = "pcapng"

    def __init__(self, path: str, block: Block, notes: Notes) -> None:
        self._block = block
        self._notes = notes
        self._contents = Contents(notes)
        self._big = False
        self._check_first(path)

    def interfaces(self) -> tuple[Interface, ...]:
        """Return the interfaces seen so far, of all sections."""
        return self._contents.interfaces()

    def batches(self) -> Iterator[FrameBatch]:
        """Yield the frames in file order; ends early, with a note, where a block cannot be."""
        stop = None
        while stop is None:
            found = self._walk()
            for first in range(0, len(found.starts), MAX_BATCH_FRAMES):
                part = slice(first, first + MAX_BATCH_FRAMES)
                batch, stop = self._contents.read(self._block, found.starts[part], found.big[part])
                if batch is not None:
                    yield batch
                if stop is not None:
                    break
            else:
                stop = found.stop
                if self._block.at_end and not found.turned:
                    if stop is None and found.end < self._block.end:
                        stop = self._incomplete(found.end)
                    break
                self._block.advance(found.end, found.wanted)
        if stop is not None:
            self._notes.cut(stop)
        self._contents.finish()

    def _incomplete(self, position: int) -> str:
        block = self._block
        return (
            f"cut short: a block starts at byte {block.offset + position}, but the file ends "
            f"{block.end - position} bytes later, inside it; the capture was copied while it ran, "
            "or the disk was full"
        )

    def _check_first(self, path: str) -> None:
        """Raise where the file's first section header cannot be used."""
        block = self._block
        size, big = self._section(0)
        if size is not None and block.end < size <= blocks.MAX_BLOCK_BYTES:
            block.advance(0, size)
        if block.end < blocks.MIN_BLOCK_BYTES or (size is not None and block.end < size):
            raise TruncatedHeader(
                path,
                f"ends at byte {block.end}, inside its pcapng section header: "
                "nothing was captured, or the copy is incomplete",
            )
        if size is None:
            magic = bytes(block.data[8:12]).hex(" ")
            raise UnknownFormat(
                path,
                f"the byte-order magic at byte 8 is {magic}, expected 1a 2b 3c 4d or the reverse: "
                "not pcapng, or damaged",
            )
        if not blocks.MIN_BYTES[blocks.SECTION] <= size <= blocks.MAX_BLOCK_BYTES:
            message = f"the section header at byte 0 says {size} bytes, which cannot be: damaged"
            raise UnknownFormat(path, message)
        fault = trailer_fault(block, 0, size, big)
        try:
            blocks.section(block.data.data, 0, size, big)
        except BadBlock as error:
            fault = fault or f"the section header at byte 0: {error}"
        if fault is not None:
            raise UnknownFormat(path, f"{fault}; damaged, or written by an unknown program")
        self._big = big

    def _section(self, start: int) -> tuple[int | None, bool]:
        """Return size and byte order of the section header at `start`.

        The size is None where the byte-order magic is not there or is none.
        """
        data = self._block.data
        magic = bytes(data[start + 8 : start + 12])
        if magic not in (blocks.BIG_ENDIAN, blocks.LITTLE_ENDIAN):
            return None, False
        big = magic == blocks.BIG_ENDIAN
        length = struct.unpack_from(">I" if big else "<I", data.data, start + 4)[0]
        return length + 3 & ~3, big

    def _walk(self) -> _Found:
        """Find the complete blocks in the data, across sections of either byte order."""
        data = self._block.data
        parts: list[NDArray[np.int64]] = []
        orders: list[bool] = []
        position = 0
        wanted = blocks.MIN_BLOCK_BYTES
        stop: str | None = None
        turned = False
        while not turned:
            found = walk(PcapngLayout(self._big), data, position)
            parts.append(found.starts)
            orders.append(self._big)
            position = found.end
            wanted = found.size or blocks.MIN_BLOCK_BYTES
            if found.size != 0:
                break
            if bytes(data[position : position + 4]) != MAGIC:
                stop = self._impossible(position)
                break
            size, big = self._section(position)
            if size is None or big == self._big:
                stop = self._impossible(position)
                break
            self._big = big
            turned = len(parts) == _MAX_TURNS
        lengths = [len(part) for part in parts]
        return _Found(
            starts=np.concatenate(parts),
            big=np.repeat(np.array(orders, dtype=np.bool_), lengths),
            end=position,
            wanted=wanted,
            stop=stop,
            turned=turned,
        )

    def _impossible(self, position: int) -> str:
        order = ">II" if self._big else "<II"
        kind, length = struct.unpack_from(order, self._block.data.data, position)
        what = f"its length field says {length}"
        if kind == blocks.SECTION and self._section(position)[0] is None:
            what = "it is a section header with an unknown byte-order magic"
        return (
            f"the block at byte {self._block.offset + position} cannot be: {what}; the file is "
            "damaged there and was read up to that byte"
        )
