"""VRRP advertisements, versions 2 (RFC 3768) and 3 (RFC 9568)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from pcapdiag.addresses import V4_MAPPED
from pcapdiag.decode.columns import Columns
from pcapdiag.protocols import IpProto

if TYPE_CHECKING:
    from pcapdiag.decode.columns import U8, U64, Indices
    from pcapdiag.decode.fetch import Bytes
    from pcapdiag.decode.network import Network

_HEADER_BYTES: Final = 8
_AUTHENTICATION_BYTES: Final = 8
"""Behind the addresses of version 2. CARP, which shares the protocol number and looks like a
version 2 advertisement of 7 addresses, lacks them."""
_ADVERTISEMENT: Final = 1


@dataclass(slots=True)
class Vrrp(Columns):
    """One row an address."""

    row: Indices
    version: U8
    vrid: U8
    priority: U8
    virtual_hi: U64
    virtual_lo: U64


def decode(source: Bytes, network: Network) -> tuple[Vrrp, Indices]:
    """Decode the advertisements among the packets.

    Returns their addresses, as far as they were kept, and the rows of packets that were cut.
    """
    rows = np.flatnonzero(network.readable & (network.proto == IpProto.VRRP))
    if not rows.size:
        return Vrrp.blank(0), rows
    start, kept, stop = network.payload[rows], network.kept[rows], network.stop[rows]
    window = source.window(start, kept, _HEADER_BYTES)
    first, count = window.u8(0), window.u8(3).astype(np.int64)
    version = first >> 4
    v4 = network.version[rows] == 4
    size = np.where(v4, 4, 16)
    least = _HEADER_BYTES + count * size + np.where(version == 2, _AUTHENTICATION_BYTES, 0)
    ours = (version == 2) & v4 | (version == 3)
    ours &= (first & 15 == _ADVERTISEMENT) & (stop - start >= least)
    headed = window.kept >= _HEADER_BYTES
    held = np.clip((kept - start - _HEADER_BYTES) // size, 0, count)
    held[~(ours & headed)] = 0
    cut = rows[~headed | (ours & (held < count))]

    which = np.repeat(np.arange(rows.size), held)
    index = np.arange(which.size) - np.repeat(np.cumsum(held) - held, held)
    at = start[which] + _HEADER_BYTES + index * size[which]
    address = source.window(at, kept[which], 16)
    short = v4[which]
    out = Vrrp.blank(which.size)
    out.row = rows[which]
    out.version, out.vrid = version[which].astype(np.uint8), window.u8(1)[which]
    out.priority = window.u8(2)[which]
    out.virtual_hi = np.where(short, np.uint64(0), address.u64(0))
    out.virtual_lo = np.where(short, address.u32(0) | np.uint64(V4_MAPPED), address.u64(8))
    return out, cut
