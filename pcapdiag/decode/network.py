"""IP headers, one row a packet: what `ipv4` and `ipv6` write and everything above reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pcapdiag.decode import ipv4, ipv6
from pcapdiag.decode.columns import USUAL_SHARE, Columns, chosen

if TYPE_CHECKING:
    from pcapdiag.decode.columns import U8, U16, U32, U64, Bools, Offsets, Rows
    from pcapdiag.decode.fetch import Bytes


@dataclass(slots=True)
class Network(Columns):
    """The columns of an IP header and the bounds of what it carries.

    Bounds are offsets into the block of bytes. `stop` is where the packet ends by its IP length,
    `kept` where its believable bytes end: the smaller of `stop` and the end of the capture.
    """

    version: U8
    """4 or 6; 0 where there is no (whole, consistent) IP header, and nothing else holds."""
    src_hi: U64
    src_lo: U64
    dst_hi: U64
    dst_lo: U64
    chained: Bools
    """The chain of IPv6 extension headers was seen to its end; always so for IPv4. Elsewhere
    `proto`, `header_len` and the fragment columns are not known."""
    proto: U8
    length: U32
    header_len: U16
    ident: U32
    has_ident: Bools
    ttl: U8
    tos: U8
    df: Bools
    mf: Bools
    frag_offset: U16
    checksum: U8
    """checksum.Verdict codes; NONE for IPv6."""
    routed: Bools
    """IPv6 with a Routing header: the destination may not be the final one."""
    readable: Bools
    """A transport header is due at `payload`: a sound header, and no later fragment."""
    note: U32
    start: Offsets
    payload: Offsets
    stop: Offsets
    kept: Offsets


def decode(
    source: Bytes,
    out: Network,
    rows: Rows,
    version: U8,
    start: Offsets,
    kept: Offsets,
    stop: Offsets,
) -> None:
    """Decode the IP headers at `start` into `rows` of `out`; notes are added to, the rest is set.

    `version` says for each row whether an IPv4 (4) or IPv6 (6) header is due. Believable bytes end
    at `kept`; `stop` is where the enclosing frame or tunnel ends on the wire.
    """
    v4, v6 = version == 4, version == 6
    if np.count_nonzero(v4) > USUAL_SHARE * v4.size:
        ipv4.decode(source, out, rows, v4, start, kept, stop)
    elif v4.any():
        some = np.flatnonzero(v4)
        due = v4[some]
        ipv4.decode(source, out, chosen(rows, some), due, start[some], kept[some], stop[some])
    if v6.any():
        some = np.flatnonzero(v6)
        ipv6.decode(source, out, chosen(rows, some), start[some], kept[some], stop[some])
