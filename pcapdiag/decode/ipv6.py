"""IPv6 headers and their extension headers (RFC 8200)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from pcapdiag.decode.columns import mark
from pcapdiag.decode_note import DecodeNote
from pcapdiag.protocols import IpProto

if TYPE_CHECKING:
    from pcapdiag.decode.columns import U8, U16, U32, Bools, Indices, Offsets, Rows
    from pcapdiag.decode.fetch import Bytes
    from pcapdiag.decode.network import Network

HEADER_BYTES: Final = 40

MAX_EXTENSIONS: Final = 8
"""Extension headers that are followed: RFC 8200 section 4.1 lets each of its six stand once, and
Destination Options twice; tunnels start a new chain."""

_FOLLOWED: Final = np.zeros(256, dtype=np.bool_)
_FOLLOWED[
    [
        IpProto.HOP_BY_HOP,
        IpProto.ROUTING,
        IpProto.FRAGMENT,
        IpProto.AH,
        IpProto.DEST_OPTIONS,
    ]
] = True
"""What the kernel's ipv6_ext_hdr() walks. Mobility, HIP and Shim6 carry nothing behind them that
could be followed, so they count as the packet's protocol."""

_JUMBO_OPTION: Final = 0xC204
"""Option type 0xC2 of length 4 (RFC 2675 section 2), as the first of a Hop-by-Hop header: the
only place where stacks put it."""

_LARGEST_LENGTH: Final = 0xFFFF_FFFF
"""What the length column holds: a jumbo option may say 40 more."""


def decode(
    source: Bytes, out: Network, rows: Rows, start: Offsets, kept: Offsets, stop: Offsets
) -> None:
    """Decode the headers at `start` into `rows` of `out`; see network.decode."""
    window = source.window(start, kept, HEADER_BYTES)
    first = window.u16(0)
    whole = window.kept >= HEADER_BYTES
    sound = whole & (first >> 12 == 6)
    note = np.zeros(len(first), dtype=np.uint32)
    if not sound.all():
        mark(note, ~whole, DecodeNote.IP_CUT)
        mark(note, (window.kept > 0) & (first >> 12 != 6), DecodeNote.IP_BAD_HEADER)
    proto = window.u8(6)
    plain = window.u16(4).astype(np.int64)
    room = stop - start
    length = np.where(sound, plain + HEADER_BYTES, 0)
    empty = sound & (plain == 0) & (proto != IpProto.NO_NEXT)
    if empty.any():
        _replace_length_zero(source, empty, start, kept, room, proto, length, note)
    mark(note, length > room, DecodeNote.IP_BEYOND_FRAME)
    end = start + length
    believed = np.minimum(end, kept)

    out.version[rows] = sound * np.uint8(6)
    out.src_hi[rows] = window.u64(8)
    out.src_lo[rows] = window.u64(16)
    out.dst_hi[rows] = window.u64(24)
    out.dst_lo[rows] = window.u64(32)
    out.length[rows] = length
    out.ttl[rows] = window.u8(7)
    out.tos[rows] = first >> 4 & 0xFF
    out.df[rows] = sound
    out.checksum[rows] = 0
    out.start[rows] = start
    out.stop[rows] = end
    out.kept[rows] = believed

    chain = _Chain(proto, start + HEADER_BYTES, sound, note)
    if _FOLLOWED[proto[sound]].any():
        chain.walk(source, believed, end)
    out.chained[rows] = chain.chained
    out.proto[rows] = chain.proto
    out.header_len[rows] = chain.payload - start
    out.ident[rows] = chain.ident
    out.has_ident[rows] = chain.has_ident
    out.mf[rows] = chain.mf
    out.frag_offset[rows] = chain.frag_offset
    out.routed[rows] = chain.routed
    out.readable[rows] = chain.readable
    out.payload[rows] = chain.payload
    out.note[rows] |= note


def _replace_length_zero(
    source: Bytes,
    empty: Bools,
    start: Offsets,
    kept: Offsets,
    room: Offsets,
    proto: U8,
    length: Offsets,
    note: U32,
) -> None:
    """Set `length` where the payload length is 0: the jumbo option's, or else the frame's."""
    rows = np.flatnonzero(empty)
    window = source.window(start[rows] + HEADER_BYTES, kept[rows], 8)
    jumbo = (
        (proto[rows] == IpProto.HOP_BY_HOP) & (window.kept >= 8) & (window.u16(2) == _JUMBO_OPTION)
    )
    whole = np.minimum(window.u32(4).astype(np.int64) + HEADER_BYTES, _LARGEST_LENGTH)
    length[rows] = np.where(jumbo, whole, room[rows])
    mark(note, rows[~jumbo], DecodeNote.IP_LENGTH_ZERO)


class _Chain:
    """A walk along extension headers, all rows in lockstep."""

    def __init__(
        self,
        proto: U8,
        payload: Offsets,
        sound: Bools,
        note: U32,
    ) -> None:
        """Start behind the fixed header; `note` is written to."""
        count = len(proto)
        self.proto = proto
        self.payload = payload
        self.note = note
        self.readable = sound.copy()
        self.chained = sound.copy()
        self.ident = np.zeros(count, dtype=np.uint32)
        self.has_ident = np.zeros(count, dtype=np.bool_)
        self.mf = np.zeros(count, dtype=np.bool_)
        self.frag_offset = np.zeros(count, dtype=np.uint16)
        self.routed = np.zeros(count, dtype=np.bool_)

    def walk(self, source: Bytes, kept: Offsets, end: Offsets) -> None:
        """Follow the chain to what is no extension header; `kept` and `end` bound it."""
        rows = np.flatnonzero(self.readable & _FOLLOWED[self.proto])
        for _ in range(MAX_EXTENSIONS):
            rows = self._step(source, rows, kept, end)
            if not rows.size:
                return
        mark(self.note, rows, DecodeNote.EXTENSIONS_TOO_DEEP)
        self.readable[rows] = False
        self.chained[rows] = False

    def _step(self, source: Bytes, rows: Indices, kept: Offsets, end: Offsets) -> Indices:
        """Step over one extension header of each of `rows`; return those with another."""
        kind = self.proto[rows]
        window = source.window(self.payload[rows], kept[rows], 8)
        second = window.u8(1).astype(np.int64)
        size = np.where(kind == IpProto.AH, (second + 2) * 4, (second + 1) * 8)  # RFC 4302 2.2
        size[kind == IpProto.FRAGMENT] = 8
        cut = window.kept < 8
        beyond = ~cut & (self.payload[rows] + size > end[rows])
        lost = rows[cut | beyond]
        mark(self.note, lost, DecodeNote.IP_CUT)
        self.readable[lost] = False
        self.chained[lost] = False
        good = ~(cut | beyond)

        fragment = good & (kind == IpProto.FRAGMENT)
        if fragment.any():
            self._fragment(rows[fragment], window.u16(2)[fragment], window.u32(4)[fragment])
        self.routed[rows[good & (kind == IpProto.ROUTING)]] = True
        rows, following, size = rows[good], window.u8(0)[good], size[good]
        self.proto[rows] = following
        self.payload[rows] += size
        return rows[self.readable[rows] & _FOLLOWED[following]]

    def _fragment(self, rows: Indices, field: U16, ident: U32) -> None:
        """Take what a Fragment header (RFC 8200 section 4.5) says."""
        self.ident[rows] = ident
        self.has_ident[rows] = True
        self.mf[rows] = field & 1 != 0
        self.frag_offset[rows] = field & 0xFFF8
        later = rows[field & 0xFFF8 != 0]
        mark(self.note, later, DecodeNote.LATER_FRAGMENT)
        self.readable[later] = False
