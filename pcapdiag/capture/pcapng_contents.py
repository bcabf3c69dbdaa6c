"""What the blocks of a pcapng file say: frames, and beside them interfaces, counters, comments."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import numpy as np

from pcapdiag.capture import pcapng_blocks as blocks
from pcapdiag.capture.frames import NO_TIME, FrameBatch, Interface
from pcapdiag.capture.options import BadBlock
from pcapdiag.capture.pcapng_frames import merge
from pcapdiag.capture.pcapng_packets import PacketColumns, read_packets

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pcapdiag.capture.block import Block
    from pcapdiag.capture.notes import Notes

MAX_INTERFACES: Final = 1 << 16
"""Interfaces of one file: frames name theirs with 16 bits, and no capture has so many."""

_FIELDS: Final = 7
"""32-bit words up to the packet in an enhanced packet block, the longest header."""

_NONE: Final = np.zeros(0, dtype=np.int64)
_PACKETS: Final = np.array(blocks.PACKETS, dtype=np.uint32)
_NUMBERED: Final = np.array(blocks.NUMBERED, dtype=np.uint32)
_LOOKED_INTO: Final = np.array(blocks.LOOKED_INTO, dtype=np.uint32)


class Contents:
    """Reads the blocks of one file in order; `read` is called for one part after the other."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._interfaces: list[blocks.InterfaceBlock] = []
        self._base = 0
        """Index of the current section's first interface."""
        self._frame = 1
        self._comments = 0
        self._late = 0
        """Frames whose time does not fit."""

    def interfaces(self) -> tuple[Interface, ...]:
        """Return the interfaces seen so far, of all sections."""
        return tuple(found.freeze() for found in self._interfaces)

    def finish(self) -> None:
        """Note what could only be counted up to now."""
        if self._late:
            self._notes.add(f"{self._late} frames have a time beyond the years 1678 to 2261")
        if self._comments > blocks.MAX_COMMENTS:
            self._notes.add(f"{self._comments} frames carry a comment; the first ones are noted")

    def read(
        self, block: Block, starts: NDArray[np.int64], big: NDArray[np.bool_]
    ) -> tuple[FrameBatch | None, str | None]:
        """Return the frames among the complete blocks at `starts`, multiples of 4.

        With the second value reading ends, at the first block whose contents cannot be: it says
        why. `big` tells the blocks of big-endian sections.
        """
        data = block.data
        words = data[: len(data) & ~3].view(np.uint32)
        fields = _fields(block.padded, starts, big)
        kinds = fields[:, 0].copy()
        sizes = (fields[:, 1].astype(np.int64) + 3) & ~3
        only_packets = bool((kinds == blocks.ENHANCED_PACKET).all())
        last, fault = self._first_bad_size(block, words, starts, big, kinds, sizes)
        changes = [(0, self._base, len(self._interfaces))]
        times: dict[int, int] = {}
        special = _NONE if only_packets else np.flatnonzero(np.isin(kinds[:last], _LOOKED_INTO))
        for row in special.tolist():
            start, end = int(starts[row]), int(starts[row] + sizes[row])
            try:
                time = self._look_into(data.data, int(kinds[row]), start, end, bool(big[row]))
            except BadBlock as error:
                last, fault = row, f"the block at byte {block.offset + start}: {error}"
                break
            if time is not None:
                times[row] = time
            if (self._base, len(self._interfaces)) != changes[-1][1:]:
                changes.append((row, self._base, len(self._interfaces)))
        rows, others = np.arange(last), _NONE
        if not only_packets:
            rows = np.flatnonzero(np.isin(kinds[:last], _PACKETS))
            others = np.flatnonzero(np.isin(kinds[:last], _NUMBERED))
        known = np.array(changes, dtype=np.int64)
        current = np.searchsorted(known[:, 0], rows, side="right") - 1
        packets = read_packets(
            data,
            words,
            fields[rows],
            starts[rows],
            sizes[rows],
            big[rows],
            self._interfaces,
            known[current, 1],
            known[current, 2] - known[current, 1],
        )
        if packets.bad is not None:
            index, text = packets.bad
            last = int(rows[index])
            fault = f"the block at byte {block.offset + int(starts[last])}: {text}"
            rows, others = rows[:index], others[others < last]
        self._count(packets, len(rows))
        for row in np.flatnonzero(packets.commented[: len(rows)]).tolist():
            self._comments += 1
            if self._comments <= blocks.MAX_COMMENTS:
                found = rows[row]
                end = int(starts[found] + sizes[found]) - 4
                at, order = int(packets.options_at[row]), bool(big[found])
                number = self._frame + row + int(np.searchsorted(others, found))
                text = blocks.packet_comment(data.data, at, end, order) or ""
                self._notes.add(f"comment on frame {number}: {text}")
        batch = merge(data, packets, rows, others, starts, times, self._frame)
        self._frame += len(rows) + len(others)
        return batch, fault

    def _first_bad_size(
        self,
        block: Block,
        words: NDArray[np.uint32],
        starts: NDArray[np.int64],
        big: NDArray[np.bool_],
        kinds: NDArray[np.uint32],
        sizes: NDArray[np.int64],
    ) -> tuple[int, str | None]:
        """Return the first block whose lengths cannot be, and why; else how many blocks are."""
        trailers = words[(starts + sizes >> 2) - 1]
        if big.any():
            trailers = np.where(big, trailers.byteswap(), trailers)
        bad = (trailers.astype(np.int64) + 3) & ~3 != sizes
        if (sizes < max(blocks.MIN_BYTES.values())).any():
            for kind, smallest in blocks.MIN_BYTES.items():
                bad |= (kinds == kind) & (sizes < smallest)
        if not bad.any():
            return len(starts), None
        row = int(bad.argmax())
        start, size, kind = int(starts[row]), int(sizes[row]), int(kinds[row])
        return row, trailer_fault(block, start, size, bool(big[row])) or (
            f"the block at byte {block.offset + start} of type {kind} has {size} bytes, at least "
            f"{blocks.MIN_BYTES[kind]} are needed"
        )

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
        found.received = counters.get(blocks.ISB_IFRECV, found.received)
        drops = [counters[code] for code in blocks.ISB_DROPS if code in counters]
        found.dropped = sum(drops) if drops else found.dropped

    def _count(self, packets: PacketColumns, count: int) -> None:
        """Add up the drop counts of the first `count` packets, and the times that do not fit."""
        late = packets.timed[:count] & (packets.time_ns[:count] == NO_TIME)
        self._late += int(np.count_nonzero(late))
        losing = np.flatnonzero(packets.dropped[:count])
        if not len(losing):
            return
        interface = packets.interface[losing]
        for number in np.unique(interface).tolist():
            # As floats: a sum beyond 53 bits is no count of packets but damage.
            lost = int(packets.dropped[losing][interface == number].astype(np.float64).sum())
            found = self._interfaces[number]
            found.lost_before_packets = (found.lost_before_packets or 0) + lost


def trailer_fault(block: Block, start: int, size: int, big: bool) -> str | None:
    """Return how the length behind the block at `start` differs from `size`; None where equal."""
    trailer = struct.unpack_from(">I" if big else "<I", block.data.data, start + size - 4)[0]
    if trailer + 3 & ~3 == size:
        return None
    at = block.offset + start
    return f"the block at byte {at} says {size} bytes at its start and {trailer} at its end"


def _fields(
    padded: NDArray[np.uint8], starts: NDArray[np.int64], big: NDArray[np.bool_]
) -> NDArray[np.uint32]:
    """Return the first _FIELDS words of the blocks at `starts`, one row a block.

    A shorter block's row ends with what follows it, which means nothing.
    """
    size = 4 * _FIELDS
    headers = np.ndarray(
        (len(padded) - size) // 4 + 1, dtype=f"V{size}", buffer=padded.data, strides=(4,)
    )
    found = headers[starts >> 2]
    fields: NDArray[np.uint32] = found.view(np.uint32).reshape(len(starts), _FIELDS)
    if big.any():
        fields[big] = fields[big].byteswap()
    return fields
