"""Who has which address: ARP (RFC 826) and neighbour discovery (RFC 4861)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from pcapdiag.addresses import V4_MAPPED
from pcapdiag.decode import nd
from pcapdiag.decode.columns import Columns
from pcapdiag.decode_note import DecodeNote
from pcapdiag.protocols import Icmpv6Type
from pcapdiag.schema import NEIGHBOUR_OPS

if TYPE_CHECKING:
    from pcapdiag.decode.columns import U8, U32, U64, Bools, Indices, Offsets
    from pcapdiag.decode.fetch import Bytes
    from pcapdiag.decode.icmp import Icmp
    from pcapdiag.decode.network import Network

_ARP_BYTES: Final = 28
_MAC_IPV4: Final = (0x0001_0800_0604, 0x0006_0800_0604)
"""Hardware type (Ethernet, IEEE 802), protocol type, address lengths: MACs for IPv4 addresses."""
_ND_BYTES: Final = 24
_OPS: Final = {name: code for code, name in enumerate(NEIGHBOUR_OPS.categories, start=1)}
_SOLICITED: Final = 0x40  # RFC 4861 section 4.4: an answer; clear where unsolicited


@dataclass(slots=True)
class Neighbours(Columns):
    """ARP and neighbour discovery messages, one row each."""

    row: Indices
    op: U8
    """Position in schema.NEIGHBOUR_OPS plus 1."""
    sender_mac: U64
    has_sender_mac: Bools
    sender_hi: U64
    sender_lo: U64
    target_mac: U64
    has_target_mac: Bools
    target_hi: U64
    target_lo: U64
    gratuitous: Bools


def decode_arp(
    source: Bytes, rows: Indices, start: Offsets, kept: Offsets
) -> tuple[Neighbours, U32]:
    """Decode ARP requests and replies at `start`; also return a note for each of `rows`.

    A row is made of each that maps IPv4 to 48-bit addresses and was kept whole.
    """
    if not rows.size:
        return Neighbours.blank(0), np.zeros(0, dtype=np.uint32)
    window = source.window(start, kept, 32)
    cut = window.kept < _ARP_BYTES
    note = np.where(cut, np.uint32(DecodeNote.LINK_CUT), np.uint32(0))
    op = window.u16(6)
    usual = np.isin(window.mac(0), _MAC_IPV4)
    good = np.flatnonzero(~cut & usual & ((op == 1) | (op == 2)))
    out = Neighbours.blank(good.size)
    out.row = rows[good]
    out.op = np.where(op == 1, _OPS["request"], _OPS["reply"]).astype(np.uint8)[good]
    out.sender_mac, out.target_mac = window.mac(8)[good], window.mac(18)[good]
    out.has_sender_mac[:] = out.has_target_mac[:] = True
    out.sender_lo = (window.u32(14) | np.uint64(V4_MAPPED))[good]
    out.target_lo = (window.u32(24) | np.uint64(V4_MAPPED))[good]
    out.gratuitous = out.sender_lo == out.target_lo
    return out, note


def decode_nd(source: Bytes, icmp: Icmp, network: Network) -> Neighbours:
    """Decode neighbour solicitations and advertisements among the ICMPv6 messages.

    Of a solicitation the sender is the packet's source, the target whom it asks for; of an
    advertisement the sender is the address it is about, the target the packet's destination. The
    sender's MAC is the link-layer address option's, null where there is none.
    """
    asks = icmp.type == Icmpv6Type.NEIGHBOR_SOLICITATION
    some = np.flatnonzero(
        (icmp.version == 6) & (asks | (icmp.type == Icmpv6Type.NEIGHBOR_ADVERTISEMENT))
    )
    if not some.size:
        return Neighbours.blank(0)
    rows = icmp.row[some]
    start, kept = network.payload[rows], network.kept[rows]
    window = source.window(start, kept, _ND_BYTES)
    whole = window.kept >= _ND_BYTES
    some, rows, start, kept = some[whole], rows[whole], start[whole], kept[whole]
    target_hi, target_lo = window.u64(8)[whole], window.u64(16)[whole]
    solicited = window.u8(4)[whole] & _SOLICITED != 0
    asks = asks[some]

    out = Neighbours.blank(rows.size)
    out.row = rows
    out.op = np.where(asks, _OPS["solicitation"], _OPS["advertisement"]).astype(np.uint8)
    out.sender_hi = np.where(asks, network.src_hi[rows], target_hi)
    out.sender_lo = np.where(asks, network.src_lo[rows], target_lo)
    out.target_hi = np.where(asks, target_hi, network.dst_hi[rows])
    out.target_lo = np.where(asks, target_lo, network.dst_lo[rows])
    out.gratuitous = ~asks & ~solicited
    for mine, kind in ((asks, nd.SOURCE_LINK_ADDRESS), (~asks, nd.TARGET_LINK_ADDRESS)):
        which = np.flatnonzero(mine)
        found, at, _ = nd.find_option(source, start[which] + _ND_BYTES, kept[which], kind)
        option = source.window(at, kept[which], 8)
        out.sender_mac[which] = option.mac(2)
        out.has_sender_mac[which] = found & (option.kept >= 8)
    return out
