"""Packet blocks of pcapng to columns: enhanced, simple and obsolete ones (pcapng 4.3 to 4.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from pcapdiag.capture import pcapng_blocks as blocks
from pcapdiag.capture.frames import NO_TIME
from pcapdiag.capture.linktype import max_packet_bytes
from pcapdiag.capture.options import PacketOptions
from pcapdiag.capture.timestamps import to_ns
from pcapdiag.decode_note import DecodeNote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_SIMPLE_FIXED: Final = 12
_ENHANCED_FIXED: Final = 28
_NO_DROP_COUNT: Final = 0xFFFF


class PacketColumns(NamedTuple):
    """One element a packet block; where `bad` is set, only those before its index are meant."""

    start: NDArray[np.int64]
    caplen: NDArray[np.int64]
    wire_len: NDArray[np.int64]
    time_ns: NDArray[np.int64]
    timed: NDArray[np.bool_]
    """The block has a time stamp."""
    linktype: NDArray[np.int64]
    fcs_len: NDArray[np.int64]
    interface: NDArray[np.int64]
    direction: NDArray[np.uint8]
    note: NDArray[np.uint32]
    dropped: NDArray[np.uint64]
    """Packets lost before this one."""
    commented: NDArray[np.bool_]
    options_at: NDArray[np.int64]
    bad: tuple[int, str] | None
    """The first block that cannot be, and why."""


def read_packets(
    data: NDArray[np.uint8],
    words: NDArray[np.uint32],
    fields: NDArray[np.uint32],
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    big: NDArray[np.bool_],
    interfaces: Sequence[blocks.InterfaceBlock],
    first_interface: NDArray[np.int64],
    interface_count: NDArray[np.int64],
) -> PacketColumns:
    """Return the packet blocks at `starts` as columns.

    `words` is `data` as native 32-bit words, `fields` the first seven of each block in the order
    of bytes of this machine. `first_interface` and `interface_count` say which of `interfaces`
    each block's section has had so far. Sizes were held against blocks.MIN_BYTES.
    """
    simple = fields[:, 0] == blocks.SIMPLE_PACKET
    obsolete = fields[:, 0] == blocks.PACKET
    any_simple = bool(simple.any())
    number = fields[:, 2].astype(np.int64)
    caplen = fields[:, 5].astype(np.int64)
    wire = fields[:, 6].astype(np.int64)
    drops = np.zeros(len(starts), dtype=np.int64)
    if obsolete.any():
        low, high = number & 0xFFFF, number >> 16
        drops = np.where(obsolete, np.where(big, low, high), drops)
        drops[drops == _NO_DROP_COUNT] = 0
        number = np.where(obsolete, np.where(big, high, low), number)
    if any_simple:
        wire = np.where(simple, number, wire)
        number[simple] = 0
    no_interface = number >= interface_count
    interface = np.where(no_interface, 0, first_interface + number)
    table = _Table(interfaces, interface)
    if any_simple:
        limit = table.snaplen
        caplen = np.where(simple, np.where(limit > 0, np.minimum(wire, limit), wire), caplen)
    fixed = np.where(simple, _SIMPLE_FIXED, _ENHANCED_FIXED)
    options_at = starts + fixed + ((caplen + 3) & ~3)
    ends = starts + sizes - 4
    too_long = options_at > ends
    too_large = caplen > table.max_bytes
    bad = no_interface | too_long | too_large
    first_bad = int(bad.argmax()) if bad.any() else len(starts)
    fault: tuple[int, str] | None = None
    if first_bad < len(starts):
        row = first_bad
        if too_long[row]:
            text = f"{caplen[row]} bytes of packet in a block of {sizes[row]}"
        elif no_interface[row]:
            text = f"interface {number[row]} of {interface_count[row]} described ones"
        else:
            text = f"a packet of {caplen[row]} bytes, at most {table.max_bytes[row]} are possible"
        fault = (row, text)
    options = PacketOptions(len(starts))
    with_options = slice(0, first_bad)
    last = np.where(simple, options_at, ends)
    options.read(data, words, options_at[with_options], last[with_options], big[with_options])
    fault = options.bad or fault
    ticks = fields[:, 3].astype(np.uint64) << np.uint64(32) | fields[:, 4]
    time = table.time_ns(ticks)
    time[simple] = NO_TIME
    note = np.where(time == NO_TIME, int(DecodeNote.TIME_MISSING), 0).astype(np.uint32)
    direction = (options.flags & np.uint32(3)).astype(np.uint8)
    direction[direction == 3] = 0
    # epb_flags bits 5 to 8: bytes of FCS of this packet, 0 for "see the interface".
    fcs = (options.flags >> np.uint32(5) & np.uint32(0xF)).astype(np.int64)
    return PacketColumns(
        start=starts + fixed,
        caplen=caplen,
        wire_len=wire,
        time_ns=time,
        timed=~simple,
        linktype=table.linktype,
        fcs_len=np.where(fcs > 0, fcs, table.fcs_len),
        interface=interface,
        direction=direction,
        note=note,
        dropped=np.where(options.dropped > 0, options.dropped, drops.astype(np.uint64)),
        commented=options.commented,
        options_at=options_at,
        bad=fault,
    )


class _Table:
    """What the interfaces say, looked up for each packet; without any interface all is 0."""

    def __init__(
        self, interfaces: Sequence[blocks.InterfaceBlock], index: NDArray[np.int64]
    ) -> None:
        used = np.flatnonzero(np.bincount(index, minlength=1))
        rank = np.zeros(int(used[-1]) + 1 if len(used) else 1, dtype=np.int64)
        rank[used] = np.arange(len(used))
        self._where = rank[index]
        self._count = len(index)
        self._found = [
            interfaces[number] if number < len(interfaces) else blocks.InterfaceBlock(0, 0, 0)
            for number in used.tolist()
        ]
        self.linktype = self._look_up([found.linktype for found in self._found])
        self.snaplen = self._look_up([found.snaplen for found in self._found])
        self.fcs_len = self._look_up([found.fcs_len for found in self._found])
        self.max_bytes = self._look_up([max_packet_bytes(found.linktype) for found in self._found])

    def _look_up(self, values: list[int]) -> NDArray[np.int64]:
        if len(values) == 1:
            return np.full(self._count, values[0], dtype=np.int64)
        return np.array(values, dtype=np.int64)[self._where]

    def time_ns(self, ticks: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the time of each packet, by its interface's resolution and offset."""
        clocks = sorted({(found.tsresol, found.tsoffset) for found in self._found})
        if len(clocks) == 1:
            return to_ns(ticks, *clocks[0])
        which = self._look_up(
            [clocks.index((found.tsresol, found.tsoffset)) for found in self._found]
        )
        time = np.empty(len(ticks), dtype=np.int64)
        for number, clock in enumerate(clocks):
            chosen = which == number
            time[chosen] = to_ns(ticks[chosen], *clock)
        return time
