"""IPv4 headers (RFC 791)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from pcapdiag.addresses import V4_MAPPED
from pcapdiag.decode import checksum
from pcapdiag.decode.columns import mark
from pcapdiag.decode_note import DecodeNote

if TYPE_CHECKING:
    from pcapdiag.decode.columns import U8, Bools, Offsets, Rows
    from pcapdiag.decode.fetch import Bytes, Window
    from pcapdiag.decode.network import Network

HEADER_BYTES: Final = 20
_WINDOW: Final = 24
_LONGEST_HEADER_WINDOW: Final = 64  # 60 bytes with options

_DONT_FRAGMENT: Final = 0x4000
_MORE_FRAGMENTS: Final = 0x2000
_OFFSET: Final = 0x1FFF  # in units of 8 bytes


def decode(
    source: Bytes,
    out: Network,
    rows: Rows,
    due: Bools,
    start: Offsets,
    kept: Offsets,
    stop: Offsets,
) -> None:
    """Decode the headers at `start` into `rows` of `out`; see network.decode.

    Where no header is `due` nothing is noted and the version is 0: what is written means nothing.
    """
    window = source.window(start, kept, _WINDOW)
    first = window.u8(0)
    header_len = (first & 15).astype(np.int64) * 4
    whole = window.kept >= HEADER_BYTES
    right = (first >> 4 == 4) & (header_len >= HEADER_BYTES)
    sound = due & whole & right
    note = np.zeros(len(first), dtype=np.uint32)
    if not np.array_equal(sound, due):
        mark(note, due & ~whole, DecodeNote.IP_CUT)
        mark(note, due & ~right & (window.kept > 0), DecodeNote.IP_BAD_HEADER)

    length = window.u16(2).astype(np.int64)
    room = stop - start
    zero = sound & (length == 0)
    if zero.any():
        length = np.where(zero, room, length)
        mark(note, zero, DecodeNote.IP_LENGTH_ZERO)
    short = sound & (length < header_len)
    mark(note, short, DecodeNote.IP_BAD_HEADER)
    mark(note, sound & (length > room), DecodeNote.IP_BEYOND_FRAME)
    fragment = window.u16(6)
    offset = (fragment & _OFFSET) * np.uint16(8)
    later = sound & (offset > 0)
    mark(note, later, DecodeNote.LATER_FRAGMENT)
    out.version[rows] = sound * np.uint8(4)
    out.src_hi[rows] = 0
    out.src_lo[rows] = window.u32(12) | np.uint64(V4_MAPPED)
    out.dst_hi[rows] = 0
    out.dst_lo[rows] = window.u32(16) | np.uint64(V4_MAPPED)
    out.chained[rows] = sound
    out.proto[rows] = window.u8(9)
    out.length[rows] = length
    out.header_len[rows] = header_len
    out.ident[rows] = window.u16(4)
    out.has_ident[rows] = sound
    out.ttl[rows] = window.u8(8)
    out.tos[rows] = window.u8(1)
    out.df[rows] = fragment & _DONT_FRAGMENT != 0
    out.mf[rows] = fragment & _MORE_FRAGMENTS != 0
    out.frag_offset[rows] = offset
    out.checksum[rows] = _header_checksum(source, window, start, kept, header_len, sound)
    out.routed[rows] = False
    out.readable[rows] = sound & ~short & ~later
    out.note[rows] |= note
    out.start[rows] = start
    out.payload[rows] = start + header_len
    end = start + length
    out.stop[rows] = end
    out.kept[rows] = np.minimum(end, kept)


def _header_checksum(
    source: Bytes,
    window: Window,
    start: Offsets,
    kept: Offsets,
    header_len: Offsets,
    sound: Bools,
) -> U8:
    """Return Verdict codes; unverifiable where options were not kept."""
    total = window.word_sum(0, HEADER_BYTES)
    verifiable = sound
    long = np.flatnonzero(sound & (header_len > HEADER_BYTES))
    if long.size:
        end = start[long] + header_len[long]
        whole = source.window(start[long], np.minimum(end, kept[long]), _LONGEST_HEADER_WINDOW)
        total[long] = whole.word_sum(0, _LONGEST_HEADER_WINDOW)
        verifiable = sound.copy()
        verifiable[long] = end <= kept[long]
    return checksum.verdicts(total, verifiable)
