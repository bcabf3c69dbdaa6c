"""TCP headers and their options (RFC 9293 section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from typing import TYPE_CHECKING, Final

import numpy as np

from pcapdiag.decode.columns import Columns, chosen, mark
from pcapdiag.decode_note import DecodeNote

if TYPE_CHECKING:
    from pcapdiag.decode.columns import U8, U32, Bools, Indices, Offsets, Rows
    from pcapdiag.decode.fetch import Bytes, Window
    from pcapdiag.decode.transport import Transport

HEADER_BYTES: Final = 20
_FLAG_BITS: Final = 0x0FFF  # reserved bits too, as Wireshark's tcp.flags

_USUAL_WINDOW: Final = 32
"""The header and the 12 bytes of options that nearly every segment of a modern stack carries."""
_USUAL_OPTIONS: Final = 0x0101080A
"""NOP, NOP, Timestamps (kind 8) of length 10: RFC 7323 appendix A recommends this layout."""

_USUAL_OPTION_BYTES: Final = np.intp(12)

_OPTION_BYTES: Final = 40  # data offset is at most 15 words
_OPTION_WINDOW: Final = 48
"""Wider than the options, so that an option read at the last byte stays within."""

MAX_SACK_BLOCKS: Final = 4
"""What fits into 40 bytes (RFC 2018 section 3)."""


class Option(IntFlag):
    """Options that were found, as bits in Transport.options."""

    MSS = 1
    WINDOW_SCALE = 2
    SACK_PERMITTED = 4
    TIMESTAMPS = 8
    READ = 16  # all options of the segment were seen: what is not set is not there


@dataclass(slots=True)
class Sacks(Columns):
    """SACK blocks, one row a block; `row` counts within the transport's columns."""

    row: U32
    block: U8
    left: U32
    right: U32


def decode(
    source: Bytes,
    out: Transport,
    rows: Rows,
    due: Bools,
    start: Offsets,
    kept: Offsets,
    stop: Offsets,
) -> Sacks | None:
    """Decode the headers at `start` into `rows` of `out`; see transport.Transport.

    `stop` is the packet's end by its IP length. Where no header is `due` nothing is noted and
    nothing said to be there: what is written means nothing. Returns the SACK blocks, None where
    there are none.
    """
    window = source.window(start, kept, _USUAL_WINDOW)
    held = np.minimum(window.kept, HEADER_BYTES) * due
    room = stop - start
    roomy = room >= HEADER_BYTES
    whole = held == HEADER_BYTES
    size = (window.u8(12) >> 4) * np.uint8(4)
    sized = (held > 12) & roomy
    known = sized & (size >= HEADER_BYTES) & (size <= room)
    bad = sized & ~known
    cut = due & (~whole | (known & (start + size > kept)))
    note = np.zeros(len(held), dtype=np.uint32)
    mark(note, bad, DecodeNote.TCP_BAD_HEADER)
    mark(note, cut, DecodeNote.TRANSPORT_CUT)
    out.kept[rows] = held
    out.src_port[rows] = window.u16(0)
    out.dst_port[rows] = window.u16(2)
    out.seq[rows] = window.u32(4)
    out.ack[rows] = window.u32(8)
    out.flags[rows] = window.u16(12) & _FLAG_BITS
    out.window[rows] = window.u16(14)
    out.checksum[rows] = window.u16(16)
    out.has_checksum[rows] = held >= 18
    out.payload_len[rows] = np.where(known, room - size, 0)
    out.has_payload_len[rows] = known

    usual = whole & known & (size >= _USUAL_WINDOW) & (window.kept >= _USUAL_WINDOW)
    usual &= window.u32(HEADER_BYTES) == _USUAL_OPTIONS
    options = np.where(usual, np.uint8(Option.TIMESTAMPS), np.uint8(0))
    options[whole & known & ~cut] |= np.uint8(Option.READ)
    out.options[rows] = options
    out.tsval[rows] = window.u32(24)
    out.tsecr[rows] = window.u32(28)

    others = np.flatnonzero(whole & known & (size > HEADER_BYTES) & ~(usual & (size == 32)))
    sacks = None
    if others.size:
        begin = start[others] + HEADER_BYTES
        end = np.minimum(start[others] + size[others], kept[others])
        places = chosen(rows, others)
        claimed = size[others].astype(np.int64) - HEADER_BYTES
        options_of = _Options(source.window(begin, end, _OPTION_WINDOW), claimed)
        options_of.walk(out, places, usual[others] * _USUAL_OPTION_BYTES)
        mark(note, others[options_of.bad], DecodeNote.TCP_BAD_OPTIONS)
        sacks = options_of.sacks(places)
    out.note[rows] = note
    return sacks


class _Options:
    """A walk over options that are not laid out as usual, all rows in lockstep."""

    def __init__(self, window: Window, claimed: Offsets) -> None:
        """`claimed` is how many bytes of options the header says there are."""
        count = len(claimed)
        self.window = window
        self.claimed = claimed
        self.bad = np.zeros(count, dtype=np.bool_)
        self.sack_at = np.zeros(count, dtype=np.intp)
        self.sack_blocks = np.zeros(count, dtype=np.intp)

    def walk(self, out: Transport, places: Indices, cursor: Indices) -> None:
        """Read every option from `cursor` on, which is moved, into `places` of `out`.

        Of an option that is repeated the first counts, also one that was read before.
        """
        rows = np.arange(len(places))
        for _ in range(_OPTION_BYTES):
            rows = rows[cursor[rows] < np.minimum(self.claimed, self.window.kept)[rows]]
            if not rows.size:
                return
            kind = self.window.at(rows, cursor[rows], 1)
            rows, kind = rows[kind != 0], kind[kind != 0]  # end of options
            nop = kind == 1
            cursor[rows[nop]] += 1
            rest, kind = rows[~nop], kind[~nop]
            ahead = self.window.kept[rest] - cursor[rest]
            size = self.window.at(rest, cursor[rest] + 1, 1)
            seen = ahead >= 2
            wrong = seen & ((size < 2) | (cursor[rest] + size > self.claimed[rest]))
            wrong |= self.claimed[rest] - cursor[rest] < 2
            self.bad[rest[wrong]] = True
            seen &= ~wrong & (ahead >= size)
            rest, kind, size = rest[seen], kind[seen], size[seen]
            self._take(out, places, rest, cursor[rest], kind, size)
            cursor[rest] += size
            rows = np.concatenate((rows[nop], rest))

    def _take(
        self,
        out: Transport,
        places: Indices,
        rows: Indices,
        cursor: Indices,
        kind: Offsets,
        size: Offsets,
    ) -> None:
        """Take the values of one option of each of `rows`, whole and within the header."""
        for number, length, bit, targets in (
            (2, 4, Option.MSS, ((out.mss, 2, 2),)),
            (3, 3, Option.WINDOW_SCALE, ((out.wscale, 2, 1),)),
            (4, 2, Option.SACK_PERMITTED, ()),
            (8, 10, Option.TIMESTAMPS, ((out.tsval, 2, 4), (out.tsecr, 6, 4))),
        ):
            mine = kind == number
            if not mine.any():
                continue
            self.bad[rows[mine & (size != length)]] = True
            mine &= (size == length) & (out.options[places[rows]] & bit == 0)
            for target, offset, width in targets:
                target[places[rows[mine]]] = self.window.at(
                    rows[mine], cursor[mine] + offset, width
                )
            out.options[places[rows[mine]]] |= np.uint8(bit)
        mine = kind == 5
        if mine.any():
            self.bad[rows[mine & ((size - 2) % 8 != 0)]] = True
            mine &= (size > 2) & ((size - 2) % 8 == 0) & (self.sack_blocks[rows] == 0)
            self.sack_at[rows[mine]] = cursor[mine] + 2
            self.sack_blocks[rows[mine]] = (size[mine] - 2) // 8

    def sacks(self, places: Indices) -> Sacks | None:
        """Return the SACK blocks (RFC 2018 section 3), by row and block; None without any."""
        found: list[Sacks] = []
        for block in range(MAX_SACK_BLOCKS):
            rows = np.flatnonzero(self.sack_blocks > block)
            if not rows.size:
                break
            at = self.sack_at[rows] + 8 * block
            found.append(
                Sacks(
                    places[rows].astype(np.uint32),
                    np.full(rows.size, block, dtype=np.uint8),
                    self.window.at(rows, at, 4).astype(np.uint32),
                    self.window.at(rows, at + 4, 4).astype(np.uint32),
                )
            )
        if not found:
            return None
        joined = Sacks(
            *(
                np.concatenate([getattr(part, name) for part in found])
                for name in ("row", "block", "left", "right")
            )
        )
        return joined.take(np.lexsort((joined.block, joined.row)))
