"""UDP headers (RFC 768)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from pcapdiag.decode.columns import mark
from pcapdiag.decode_note import DecodeNote

if TYPE_CHECKING:
    from pcapdiag.decode.columns import Bools, Offsets, Rows
    from pcapdiag.decode.fetch import Bytes
    from pcapdiag.decode.transport import Transport

HEADER_BYTES: Final = 8


def decode(
    source: Bytes,
    out: Transport,
    rows: Rows,
    start: Offsets,
    kept: Offsets,
    stop: Offsets,
    more: Bools,
) -> None:
    """Decode the headers at `start` into `rows` of `out`; see transport.Transport.

    `stop` is the packet's end by its IP length. `more` marks first fragments, whose UDP length is
    that of the whole datagram. A UDP length of 0 is the jumbogram's (RFC 2675 section 4).
    """
    window = source.window(start, kept, HEADER_BYTES)
    room = stop - start
    length = window.u16(4)
    whole = window.kept >= HEADER_BYTES
    wrong = whole & ~more & (length != 0) & ((length < HEADER_BYTES) | (length > room))
    note = np.where(wrong, np.uint32(DecodeNote.UDP_BAD_LENGTH), np.uint32(0))
    mark(note, ~whole, DecodeNote.TRANSPORT_CUT)
    out.kept[rows] = window.kept
    out.src_port[rows] = window.u16(0)
    out.dst_port[rows] = window.u16(2)
    out.checksum[rows] = window.u16(6)
    out.has_checksum[rows] = whole
    out.payload_len[rows] = np.maximum(room - HEADER_BYTES, 0)
    out.has_payload_len[rows] = room >= HEADER_BYTES
    out.note[rows] = note
