"""The packet that an ICMP error quotes, by the decoders of whole packets, in lax mode.

Lax: a quote is believed as far as it goes. RFC 792 asks for the IP header and 8 bytes only; the
lengths in the quoted header are those of the packet that was, and say nothing about the quote.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from pcapdiag.decode import transport, tunnel
from pcapdiag.decode.columns import mark
from pcapdiag.decode.network import Network
from pcapdiag.decode.transport import Transport
from pcapdiag.decode_note import DecodeNote
from pcapdiag.protocols import IpProto

if TYPE_CHECKING:
    from pcapdiag.decode.columns import U16, U32, Bools, Indices
    from pcapdiag.decode.fetch import Bytes
    from pcapdiag.decode.icmp import Icmp
    from pcapdiag.decode.tunnel import Outer, Ports

_LARGEST_QUOTE: Final = 0xFFFF


class Quotes(NamedTuple):
    """What the errors quote: one row for each error among the ICMP messages."""

    row: Indices
    """Of the message in the ICMP columns."""
    network: Network
    """Innermost IP headers."""
    transport: Transport
    tunnels: Outer
    """Of quotes whose packet was tunnelled; `tunnels.row` counts within this table."""
    outer: Network
    """Their outermost IP headers."""
    length: U16
    """Bytes of the packet that were quoted, from its outermost IP header on, whether or not the
    capture kept them; 0 where the capture ends before that header does."""
    length_unknown: Bools
    """The quoted IP length is 0: what the packet's length was, only its sender knew."""
    note: U32


def decode(source: Bytes, icmp: Icmp, network: Network, ports: Ports) -> Quotes:
    """Decode what the errors in `icmp` quote; `network` are the IP headers around them."""
    rows = np.flatnonzero(icmp.is_error)
    start, stop = icmp.quote[rows], icmp.quote_stop[rows]
    kept = np.minimum(network.kept[icmp.row[rows]], stop)
    version = icmp.version[rows]
    inner = Network.blank(rows.size)
    tunnels, outer = tunnel.innermost(source, inner, version, start, kept, stop, ports)
    carried = Transport.blank(rows.size)
    transport.decode(source, inner, carried)

    note = np.zeros(rows.size, dtype=np.uint32)
    bad = inner.note & DecodeNote.IP_BAD_HEADER != 0
    mark(note, bad, DecodeNote.QUOTE_BAD_HEADER)
    ported = np.isin(inner.proto, (IpProto.TCP, IpProto.UDP, IpProto.SCTP)) & inner.readable
    cut = (inner.version > 0) & (~inner.chained | (ported & ~carried.has_ports))
    mark(note, (cut | (inner.version == 0)) & ~bad, DecodeNote.QUOTE_CUT)
    packet = inner.stop.copy()
    packet[tunnels.row] = outer.stop
    headed = inner.version > 0
    headed[tunnels.row] = True
    quoted = np.where(headed, np.minimum(packet, stop), stop) - start
    quoted[~headed & ~bad & (kept < stop)] = 0
    length = np.clip(quoted, 0, _LARGEST_QUOTE).astype(np.uint16)
    unknown = inner.note & DecodeNote.IP_LENGTH_ZERO != 0
    return Quotes(rows, inner, carried, tunnels, outer, length, unknown, note)
