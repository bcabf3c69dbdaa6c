"""The pcapng format: sections of blocks, each with its length before and behind its contents.

Format: draft-ietf-opsawg-pcapng. Blocks are numbered, and reading ends, as in wiretap/pcapng.c.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from pcapdiag.capture import pcapng_blocks as blocks
from pcapdiag.capture.frames import MAX_BATCH_FRAMES, NO_TIME, FrameBatch, Interface
from pcapdiag.capture.options import BadBlock
from pcapdiag.capture.pcapng_packets import NO_LINKTYPE, PacketColumns, read_packets
from pcapdiag.capture.walk import walk
from pcapdiag.errors import TruncatedHeader, UnknownFormat
from pcapdiag.schema import DecodeNote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pcapdiag.capture.block import Block
    from pcapdiag.capture.notes import Notes

MAGIC: Final = blocks.SECTION.to_bytes(4, "big")

MAX_INTERFACES: Final = 1 << 16
"""Interfaces of one file: frames name theirs with 16 bits, and no capture has so many."""

_MAX_COMMENTS: Final = 10
"""Packet comments that are kept as notes."""

_NUMBERED: Final = np.array(blocks.NUMBERED, dtype=np.uint32)
_PACKETS: Final = np.array(blocks.PACKETS, dtype=np.uint32)
_LOOKED_INTO: Final = np.array(
    [
        blocks.SECTION,
        blocks.INTERFACE,
        blocks.NAMES,
        blocks.STATISTICS,
        blocks.SECRETS,
        *blocks.NUMBERED,
    ],
    dtype=np.uint32,
)


@dataclass(frozen=True, slots=True)
class PcapngLayout:
    """How blocks of one byte order are laid out; a walk.Layout."""

    big_endian: bool
    header_bytes: int = 8

    def size_at(self, data: memoryview, position: int) -> int:
        """Return the block's size; 0 for one that cannot be and for a section header."""
        kind, length = struct.unpack_from(">II" if self.big_endian else "<II", data, position)
        size: int = length + 3 & ~3  # some programs leave the padding out
        if kind == blocks.SECTION:
            return 0
        return size if blocks.MIN_BLOCK_BYTES <= size <= blocks.MAX_BLOCK_BYTES else 0


class PcapngFile:
    """Frames of one pcapng file; `block` stands at the start of the file.

    Raises UnknownFormat and TruncatedHeader for a first section header that cannot be used.
    """

    format: Final = "pcapng"

    def __init__(self, path: str, block: Block, notes: Notes) -> None:
        self._block = block
        self._notes = notes
        self._interfaces: list[blocks.InterfaceBlock] = []
        self._base = 0
        """Index of the current section's first interface."""
        self._big = False
        self._comments = 0
        self._late = 0
        """Frames whose time does not fit."""
        self._frame = 1
        self._check_first(path)

    def interfaces(self) -> tuple[Interface, ...]:
        """Return the interfaces seen so far, of all sections."""
        return tuple(found.freeze() for found in self._interfaces)

    def batches(self) -> Iterator[FrameBatch]:
        """Yield the frames in file order; ends early, with a note, where a block cannot be."""
        block = self._block
        while True:
            starts, big, end, wanted, stop = self._walk()
            for first in range(0, len(starts), MAX_BATCH_FRAMES):
                part = slice(first, first + MAX_BATCH_FRAMES)
                batch, fault = self._read(starts[part], big[part])
                if batch is not None:
                    yield batch
                if fault is not None:
                    self._notes.cut(fault)
                    return self._finish()
            if stop is not None:
                self._notes.cut(stop)
                return self._finish()
            if block.at_end:
                if end < block.end:
                    self._notes.cut(
                        f"cut short: a block starts at byte {block.offset + end}, but the file "
                        f"ends {block.end - end} bytes later, inside it; the capture was copied "
                        "while it ran, or the disk was full"
                    )
                return self._finish()
            block.advance(end, wanted)

    def _finish(self) -> None:
        if self._late:
            self._notes.add(f"{self._late} frames have a time beyond the years 1678 to 2261")
        if self._comments > _MAX_COMMENTS:
            self._notes.add(f"{self._comments} frames carry a comment; the first ones are noted")

    def _check_first(self, path: str) -> None:
        """Raise where the file's first section header cannot be used."""
        data = self._block.data
        size, order = self._section_size(0)
        if len(data) < 12 or (size is not None and len(data) < size <= blocks.MAX_BLOCK_BYTES):
            self._block.advance(0, size or 12)
            data = self._block.data
            size, order = self._section_size(0)
        if size is None:
            raise UnknownFormat(
                path,
                f"pcapng byte-order magic {bytes(data[8:12]).hex(' ')} at byte 8 is neither "
                "1a 2b 3c 4d nor 4d 3c 2b 1a: not a capture, or damaged",
            )
        if not blocks.MIN_BYTES[blocks.SECTION] <= size <= blocks.MAX_BLOCK_BYTES:
            message = f"pcapng section header of {size} bytes at byte 0 cannot be: file damaged"
            raise UnknownFormat(path, message)
        if len(data) < size:
            raise TruncatedHeader(
                path,
                f"ends at byte {len(data)}, inside its pcapng section header: "
                "nothing was captured, or the copy is incomplete",
            )
        fault = self._trailer_fault(0, size, order)
        if fault is None:
            try:
                blocks.section(data.data, 0, size, order)
            except BadBlock as error:
                fault = f"pcapng section header at byte 0: {error}"
        if fault is not None:
            raise UnknownFormat(path, f"{fault}; not a capture that can be read")

    def _section_size(self, start: int) -> tuple[int | None, bool]:
        """Return size and byte order of the section header at `start`; None with a wrong magic.

        The size is 12, too small for any, where the data end before the magic.
        """
        data = self._block.data
        magic = bytes(data[start + 8 : start + 12])
        if len(magic) < 4:
            return blocks.MIN_BLOCK_BYTES, False
        if magic not in (blocks.BIG_ENDIAN_MAGIC, blocks.LITTLE_ENDIAN_MAGIC):
            return None, False
        big = magic == blocks.BIG_ENDIAN_MAGIC
        length = struct.unpack_from(">I" if big else "<I", data, start + 4)[0]
        return length + 3 & ~3, big

    def _trailer_fault(self, start: int, size: int, big: bool) -> str | None:
        data = self._block.data
        trailer = struct.unpack_from(">I" if big else "<I", data, start + size - 4)[0]
        if trailer + 3 & ~3 == size:
            return None
        return (
            f"the block at byte {self._block.offset + start} says {size} bytes at its start and "
            f"{trailer} at its end"
        )

    def _walk(
        self,
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_], int, int, str | None]:
        """Return the complete blocks in the data and what comes behind them.

        That is: their offsets, whether each is big-endian, where the next one starts, bytes wanted
        from there on, and why reading ends there, if it does.
        """
        data = self._block.data
        parts: list[NDArray[np.int64]] = []
        orders: list[bool] = []
        position = 0
        stop: str | None = None
        while True:
            found = walk(PcapngLayout(self._big), data, position)
            parts.append(found.starts)
            orders.append(self._big)
            position = found.end
            wanted = found.size or 12
            if found.size != 0:
                break
            at = self._block.offset + position
            if bytes(data[position : position + 4]) != MAGIC:
                length = struct.unpack_from(">I" if self._big else "<I", data, position + 4)[0]
                stop = f"the block at byte {at} cannot be: its length field says {length}"
                break
            size, big = self._section_size(position)
            wanted = size or 12
            if size is None:
                stop = f"the section header at byte {at} has a byte-order magic that cannot be"
            elif len(data) - position < 12:
                break
            elif not blocks.MIN_BYTES[blocks.SECTION] <= size <= blocks.MAX_BLOCK_BYTES:
                stop = f"the section header at byte {at} cannot be: its length says {size}"
            if stop is not None or size is None or size > len(data) - position:
                break
            parts.append(np.array([position], dtype=np.int64))
            orders.append(big)
            self._big = big
            position += size
        starts = np.concatenate(parts)
        big_endian = np.repeat(np.array(orders), [len(part) for part in parts])
        return starts, big_endian, position, wanted, stop

    def _read(
        self, starts: NDArray[np.int64], big: NDArray[np.bool_]
    ) -> tuple[FrameBatch | None, str | None]:
        """Return the frames among the blocks at `starts`, and why reading ends, if it does."""
        data = self._block.data
        words = data[: len(data) & ~3].view(np.uint32)
        kinds = _word(words, starts, big)
        sizes = (_word(words, starts + 4, big).astype(np.int64) + 3) & ~3
        last, fault = self._first_bad_size(words, starts, big, kinds, sizes)
        special = np.flatnonzero(np.isin(kinds[:last], _LOOKED_INTO))
        base_changes = [(0, self._base, len(self._interfaces))]
        times: dict[int, int] = {}
        view = data.data
        for row in special.tolist():
            start, size, order = int(starts[row]), int(sizes[row]), bool(big[row])
            try:
                time = self._look_into(view, int(kinds[row]), start, start + size, order)
            except BadBlock as error:
                last, fault = row, f"the block at byte {self._block.offset + start}: {error}"
                break
            if time is not None:
                times[row] = time
            if (self._base, len(self._interfaces)) != base_changes[-1][1:]:
                base_changes.append((row, self._base, len(self._interfaces)))
        rows = np.flatnonzero(np.isin(kinds[:last], _PACKETS))
        changes = np.array(base_changes, dtype=np.int64)
        current = np.searchsorted(changes[:, 0], rows, side="right") - 1
        packets = read_packets(
            data,
            words,
            kinds[rows],
            starts[rows],
            sizes[rows],
            big[rows],
            self._interfaces,
            changes[current, 1],
            changes[current, 2] - changes[current, 1],
        )
        if packets.bad is not None:
            index, text = packets.bad
            last = int(rows[index])
            fault = f"the block at byte {self._block.offset + int(starts[last])}: {text}"
            rows = rows[:index]
        self._count(packets, rows, starts, sizes, big)
        numbered = np.flatnonzero(np.isin(kinds[:last], _NUMBERED))
        return self._batch(packets, rows, numbered, starts, times), fault

    def _first_bad_size(
        self,
        words: NDArray[np.uint32],
        starts: NDArray[np.int64],
        big: NDArray[np.bool_],
        kinds: NDArray[np.uint32],
        sizes: NDArray[np.int64],
    ) -> tuple[int, str | None]:
        """Return the first block whose lengths cannot be, and why; else how many blocks are."""
        bad = (_word(words, starts + sizes - 4, big).astype(np.int64) + 3) & ~3 != sizes
        for kind, smallest in blocks.MIN_BYTES.items():
            bad |= (kinds == kind) & (sizes < smallest)
        if not bad.any():
            return len(starts), None
        row = int(bad.argmax())
        start, size = int(starts[row]), int(sizes[row])
        fault = self._trailer_fault(start, size, bool(big[row])) or (
            f"the block at byte {self._block.offset + start} of type {int(kinds[row])} has "
            f"{size} bytes, at least {blocks.MIN_BYTES[int(kinds[row])]} are needed"
        )
        return row, fault

    def _look_into(
        self, data: memoryview, kind: int, start: int, end: int, big: bool
    ) -> int | None:
        """Keep what a block without a packet says; return its time where it is a frame."""
        if kind == blocks.SECTION:
            for comment in blocks.section(data, start, end, big):
                self._notes.add(f"comment on the capture: {comment}")
            self._base = len(self._interfaces)
        elif kind == blocks.INTERFACE:
            self._add_interface(data, start, end, big)
        elif kind == blocks.STATISTICS:
            self._add_statistics(*blocks.statistics(data, start, end, big))
        elif kind == blocks.NAMES:
            blocks.names(data, start, end, big)
        elif kind == blocks.SECRETS:
            blocks.secrets(data, start, end, big)
        elif kind == blocks.JOURNAL:
            return blocks.journal(data, start, end)
        elif kind in (blocks.CUSTOM, blocks.CUSTOM_NO_COPY):
            blocks.custom(data, start, end, big)
        else:
            return blocks.sysdig(data, start, big)
        return None

    def _add_interface(self, data: memoryview, start: int, end: int, big: bool) -> None:
        index = len(self._interfaces)
        if index == MAX_INTERFACES:
            raise BadBlock(f"more than {MAX_INTERFACES} interfaces in one file")
        found = blocks.interface(data, start, end, big, index)
        if found.comment:
            self._notes.add(f"comment on interface {found.name or index}: {found.comment}")
        self._interfaces.append(found)

    def _add_statistics(self, number: int, counters: dict[int, int]) -> None:
        """Keep the counters of the section's interface `number`; the last report counts."""
        if number >= len(self._interfaces) - self._base:
            return
        found = self._interfaces[self._base + number]
        if 4 in counters:  # isb_ifrecv
            found.received = counters[4]
        drops = [counters[code] for code in (5, 7) if code in counters]  # isb_ifdrop, isb_osdrop
        if drops:
            found.dropped = sum(drops)

    def _count(
        self,
        packets: PacketColumns,
        rows: NDArray[np.int64],
        starts: NDArray[np.int64],
        sizes: NDArray[np.int64],
        big: NDArray[np.bool_],
    ) -> None:
        """Keep drop counts and comments of packets; count times that do not fit."""
        count = len(rows)
        for row in np.flatnonzero(packets.dropped[:count]).tolist():
            found = self._interfaces[int(packets.interface[row])]
            lost = found.lost_before_packets or 0
            found.lost_before_packets = lost + int(packets.dropped[row])
        timed = packets.timed[:count]
        self._late += int(np.count_nonzero(timed & (packets.time_ns[:count] == NO_TIME)))
        data = self._block.data.data
        for row in np.flatnonzero(packets.commented[:count]).tolist():
            self._comments += 1
            if self._comments <= _MAX_COMMENTS:
                block = rows[row]
                end = int(starts[block] + sizes[block]) - 4
                begin = int(packets.options_at[row])
                text = blocks.packet_comment(data, begin, end, bool(big[block]))
                self._notes.add(f"comment on a frame: {text}")

    def _batch(
        self,
        packets: PacketColumns,
        rows: NDArray[np.int64],
        numbered: NDArray[np.int64],
        starts: NDArray[np.int64],
        times: dict[int, int],
    ) -> FrameBatch | None:
        """Return packets and other numbered blocks as frames, in the order of their rows."""
        count = len(rows)
        total = count + len(numbered)
        if not total:
            return None
        order = np.argsort(np.concatenate([rows, numbered]), kind="stable")
        packet_at = np.empty(total, dtype=np.int64)
        packet_at[order] = np.arange(total)
        slots, others = packet_at[:count], packet_at[count:]

        def column(values: NDArray[np.generic], dtype: type[np.generic], other: int) -> NDArray:
            if not len(others):
                return values[:count].astype(dtype, copy=False)
            out = np.full(total, other, dtype=dtype)
            out[slots] = values[:count]
            return out

        start = column(packets.start, np.int64, 0)
        time = column(packets.time_ns, np.int64, NO_TIME)
        note = column(packets.note, np.uint32, int(DecodeNote.NO_PACKET | DecodeNote.TIME_MISSING))
        if len(others):
            start[others] = starts[numbered]
            for slot, row in zip(others.tolist(), numbered.tolist(), strict=True):
                if row in times:
                    time[slot] = times[row]
                    note[slot] = DecodeNote.NO_PACKET
        frame = self._frame
        self._frame += total
        return FrameBatch(
            data=self._block.data,
            start=start,
            caplen=column(packets.caplen, np.uint32, 0),
            wire_len=column(packets.wire_len, np.uint32, 0),
            time_ns=time,
            linktype=column(packets.linktype, np.uint16, NO_LINKTYPE),
            fcs_len=column(packets.fcs_len, np.uint8, 0),
            interface=column(packets.interface, np.uint16, 0),
            frame=np.arange(frame, frame + total, dtype=np.uint32),
            direction=column(packets.direction, np.uint8, 0),
            note=note,
        )


def _word(
    words: NDArray[np.uint32], at: NDArray[np.int64], big: NDArray[np.bool_]
) -> NDArray[np.uint32]:
    """Return the 32-bit numbers at the byte offsets `at`, multiples of 4."""
    found = words[at >> 2]
    return np.where(big, found.byteswap(), found)
