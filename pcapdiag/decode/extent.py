"""How much of a frame is headers: for files that must show a packet without what it carries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pcapdiag.decode import link, tags, transport, tunnel
from pcapdiag.decode.columns import Columns
from pcapdiag.decode.fetch import Bytes
from pcapdiag.decode.link import Link
from pcapdiag.decode.network import Network
from pcapdiag.decode.packets import GUE_PORTS
from pcapdiag.decode.rare_link import RareLinks
from pcapdiag.decode.transport import Transport
from pcapdiag.protocols import IpProto

if TYPE_CHECKING:
    from pcapdiag.capture.frames import FrameBatch
    from pcapdiag.decode.columns import U8, Bools, Offsets

_FIXED = {IpProto.UDP: 8, IpProto.SCTP: 12}
"""Bytes of transport headers that have no options (RFC 768; RFC 9260 section 3.1)."""

_WITHOUT_PAYLOAD = (IpProto.ICMP, IpProto.ICMPV6, IpProto.VRRP)
"""What is about the network itself: the quote of an ICMP error is the evidence."""


@dataclass(slots=True)
class Extents(Columns):
    """One row a frame, in bytes from the frame's first one."""

    headers: Offsets
    """Kept bytes up to the payload of TCP, UDP or SCTP. The whole frame for ICMP, VRRP, ARP and
    neighbour discovery; up to the end of the IP header for anything else that IP carries; of what
    is not IP, the link header."""
    inner: Offsets
    """Where the innermost IP header begins; 0 where there is none."""
    version: U8
    """4 or 6 of that header; 0 where there is none."""
    tunnelled: Bools


def of(batch: FrameBatch, *, gue_ports: frozenset[int] = GUE_PORTS) -> Extents:
    """Return the extents of each frame of a batch; never raises for its bytes."""
    source, out = Bytes(batch.data), Extents.blank(len(batch))
    length = batch.caplen.astype(np.int64)
    kept = batch.start + length
    stop = batch.start + np.maximum(batch.wire_len, batch.caplen).astype(np.int64)
    header = links(source, batch, kept)
    inner, carried = Network.blank(len(batch)), Transport.blank(len(batch))
    version = np.where(header.version >= 4, header.version, np.uint8(0))
    tunnels, _ = tunnel.innermost(
        source, inner, version, header.start, kept, stop, tunnel.Ports(gue_ports)
    )
    transport.decode(source, inner, carried)
    end = np.where(inner.version > 0, _packet_end(inner, carried, kept), header.start)
    whole = (header.version == tags.ARP) | (
        (inner.version > 0) & np.isin(inner.proto, _WITHOUT_PAYLOAD)
    )
    out.headers[:] = np.where(whole, length, np.clip(end - batch.start, 0, length))
    out.version[:] = inner.version
    out.inner[:] = np.where(inner.version > 0, inner.start - batch.start, 0)
    out.tunnelled[tunnels.row] = True
    return out


def links(source: Bytes, batch: FrameBatch, kept: Offsets) -> Link:
    """Return the link headers of a batch whose believable bytes end at `kept`."""
    out, rare = Link.blank(len(batch)), RareLinks()
    for linktype in np.unique(batch.linktype).tolist():
        rows = np.flatnonzero(batch.linktype == linktype)
        start, end = batch.start[rows], kept[rows]
        if not link.decode(source, out, linktype, rows, start, end):
            rare.decode(source, out, linktype, rows, start, end)
    return out


def _packet_end(inner: Network, carried: Transport, kept: Offsets) -> Offsets:
    """Return where the headers of each IP packet end; the IP header's end where no more is due."""
    end = inner.payload.copy()
    for proto, length in _FIXED.items():
        end += np.where(carried.proto == proto, length, 0)
    tcp = carried.proto == IpProto.TCP
    options = np.where(carried.has_payload_len, inner.stop - carried.payload_len, kept)
    return np.where(tcp, options, end)
