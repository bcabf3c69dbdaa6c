"""The common header of SCTP (RFC 9260 section 3.1); chunks are not followed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from pcapdiag.decode_note import DecodeNote

if TYPE_CHECKING:
    from pcapdiag.decode.columns import Bools, Offsets, Rows
    from pcapdiag.decode.fetch import Bytes
    from pcapdiag.decode.transport import Transport

HEADER_BYTES: Final = 12
_WINDOW: Final = 16


def decode(
    source: Bytes,
    out: Transport,
    rows: Rows,
    start: Offsets,
    kept: Offsets,
    stop: Offsets,
    _more: Bools,
) -> None:
    """Decode the headers at `start` into `rows` of `out`; see transport.Transport.

    `stop` is the packet's end by its IP length. The checksum is a CRC of 32 bits and not taken.
    """
    window = source.window(start, kept, _WINDOW)
    room = stop - start
    held = np.minimum(window.kept, HEADER_BYTES)
    out.kept[rows] = held
    out.src_port[rows] = window.u16(0)
    out.dst_port[rows] = window.u16(2)
    out.payload_len[rows] = np.maximum(room - HEADER_BYTES, 0)
    out.has_payload_len[rows] = room >= HEADER_BYTES
    cut = np.uint32(DecodeNote.TRANSPORT_CUT)
    out.note[rows] = np.where(held < HEADER_BYTES, cut, np.uint32(0))
