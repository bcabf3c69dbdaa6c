"""Transport headers, one row a packet: what `tcp`, `udp` and `sctp` write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pcapdiag.decode import sctp, tcp, udp
from pcapdiag.decode.columns import ALL_ROWS, USUAL_SHARE, Columns
from pcapdiag.protocols import IpProto

if TYPE_CHECKING:
    from pcapdiag.decode.columns import U8, U16, U32, Bools, Indices, Offsets
    from pcapdiag.decode.fetch import Bytes
    from pcapdiag.decode.network import Network


@dataclass(slots=True)
class Transport(Columns):
    """Columns of a transport header, as far as it was kept.

    `proto` is 0 where there is none; a field counts where `kept` reaches behind it.
    """

    proto: U8
    kept: U8
    """Bytes of the fixed header that are there: up to 20 (TCP), 8 (UDP), 12 (SCTP)."""
    src_port: U16
    dst_port: U16
    checksum: U16
    has_checksum: Bools
    payload_len: U32
    has_payload_len: Bools
    seq: U32
    ack: U32
    flags: U16
    window: U16
    options: U8
    """Bits of tcp.Option: which options are there."""
    mss: U16
    wscale: U8
    tsval: U32
    tsecr: U32
    note: U32

    @property
    def has_ports(self) -> Bools:
        """Where both ports are known."""
        return self.kept >= 4


def decode(source: Bytes, network: Network, out: Transport) -> tcp.Sacks:
    """Decode what stands behind readable IP headers into `out`, which is blank; return SACK blocks.

    Their rows count in `network`.
    """
    sacks = None
    segments = network.readable & (network.proto == IpProto.TCP)
    if np.count_nonzero(segments) > USUAL_SHARE * segments.size:
        out.proto[:] = segments * np.uint8(IpProto.TCP)
        bounds = network.payload, network.kept, network.stop
        sacks = tcp.decode(source, out, ALL_ROWS, segments, *bounds)
    elif segments.any():
        rows = np.flatnonzero(segments)
        out.proto[rows] = IpProto.TCP
        sacks = tcp.decode(source, out, rows, segments[rows], *_bounds(network, rows))
    for number, decoder in ((IpProto.UDP, udp.decode), (IpProto.SCTP, sctp.decode)):
        rows = np.flatnonzero(network.readable & (network.proto == number))
        if rows.size:
            out.proto[rows] = number
            decoder(source, out, rows, *_bounds(network, rows), network.mf[rows])
    return sacks or tcp.Sacks.blank(0)


def _bounds(network: Network, rows: Indices) -> tuple[Offsets, Offsets, Offsets]:
    """Return where what IP headers carry starts, where it was kept to, and where it stops."""
    return network.payload[rows], network.kept[rows], network.stop[rows]
