"""Tunnels: from a packet's outermost IP header to its innermost one, step by step.

IP in IP (RFC 2003, 2473, 4213), GRE (RFC 2784, 2890; version 1: RFC 2637), GUE
(draft-ietf-intarea-gue-09, as in the kernel's fou.c), VXLAN (RFC 7348), Geneve (RFC 8926). A
packet is unwrapped where an IP packet is found inside; a fragment only where it is the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from pcapdiag.decode import ipv4, ipv6, link, network, tags
from pcapdiag.decode.columns import ALL_ROWS, Columns, mark
from pcapdiag.decode.network import Network
from pcapdiag.decode_note import DecodeNote
from pcapdiag.protocols import UDP_PORT_GENEVE, UDP_PORT_VXLAN, EtherType, IpProto
from pcapdiag.schema import TUNNELS

if TYPE_CHECKING:
    from pcapdiag.decode.columns import U8, U16, U32, Bools, Indices, Offsets, Rows
    from pcapdiag.decode.fetch import Bytes

MAX_TUNNELS: Final = 8
"""Headers that are followed: twice as many as any network is known to nest."""

_CODES: Final = {name: np.uint8(code) for code, name in enumerate(TUNNELS.categories, start=1)}
"""Kinds in arrays: the position in schema.TUNNELS plus 1, and 0 where there is no tunnel."""

_UDP_BYTES: Final = 8
_ETHER: Final = 1
"""As the version of what is due inside: an Ethernet frame. 4 and 6 are IP, 0 is nothing."""

_INSIDE: Final = {EtherType.IPV4: 4, EtherType.IPV6: 6, EtherType.TEB: _ETHER}
_GRE_PPP: Final = 0x880B
_PPP: Final = 2


@dataclass(slots=True)
class Outer(Columns):
    """The tunnel headers of tunnelled packets, one row each."""

    row: Indices
    kind: U8
    depth: U8
    src_port: U16
    dst_port: U16
    has_ports: Bools
    key: U32
    has_key: Bools


@dataclass(slots=True)
class _Step(Columns):
    """One tunnel header of each of some rows: what it is, and where what it carries begins."""

    kind: U8
    headers: U8
    inside: U8
    begin: Offsets
    cut: Bools
    """The header was not kept whole: there is a tunnel, and nothing is known of its inside."""
    bad: Bools
    src_port: U16
    dst_port: U16
    has_ports: Bools
    key: U32
    has_key: Bools

    def as_outer(self, rows: Indices) -> Outer:
        """Return the tunnels of `rows`, of depth 0 yet."""
        return Outer(
            row=rows,
            kind=self.kind,
            depth=np.zeros(rows.size, dtype=np.uint8),
            src_port=self.src_port,
            dst_port=self.dst_port,
            has_ports=self.has_ports,
            key=self.key,
            has_key=self.has_key,
        )


class Ports:
    """UDP destination ports that carry tunnels."""

    def __init__(self, gue: frozenset[int]) -> None:
        """`gue` are the ports of GUE; VXLAN and Geneve have theirs from IANA."""
        self.kind = np.zeros(1 << 16, dtype=np.uint8)
        self.kind[UDP_PORT_VXLAN] = _CODES["vxlan"]
        self.kind[UDP_PORT_GENEVE] = _CODES["geneve"]
        self.kind[[port for port in gue if 0 < port < 1 << 16]] = _CODES["gue"]


def innermost(
    source: Bytes,
    inner: Network,
    version: U8,
    start: Offsets,
    kept: Offsets,
    stop: Offsets,
    ports: Ports,
) -> tuple[Outer, Network]:
    """Decode the innermost IP headers into `inner`; return the tunnels and their outermost headers.

    `version` (0 where there is no IP header), `start`, `kept` and `stop` are of the outermost
    header, see network.decode; `inner` is blank and has as many rows. The results have a row for
    each tunnelled packet, in the order of `Outer.row`, which counts in `inner`.
    """
    network.decode(source, inner, ALL_ROWS, version, start, kept, stop)
    tunnels, headers = Outer.blank(0), Network.blank(0)
    rows = np.flatnonzero(_may_be_tunnelled(inner, ALL_ROWS))
    for level in range(MAX_TUNNELS + 1):
        rows, step = _look(source, inner, rows, ports)
        if not rows.size:
            break
        if level == MAX_TUNNELS:
            mark(inner.note, rows, DecodeNote.TUNNEL_TOO_DEEP)
            break
        if level == 0:
            headers = inner.take(rows)
            tunnels = step.as_outer(rows)
        tunnels.depth[np.searchsorted(tunnels.row, rows)] += step.headers
        inside_kept, inside_stop = inner.kept[rows], inner.stop[rows]
        network.decode(source, inner, rows, step.inside, step.begin, inside_kept, inside_stop)
        rows = rows[_may_be_tunnelled(inner, rows)]
    return tunnels, headers


_BY_PROTO: Final = np.zeros(256, dtype=np.bool_)
_BY_PROTO[[IpProto.IPIP, IpProto.IPV6, IpProto.GRE, IpProto.UDP]] = True


def _may_be_tunnelled(inner: Network, rows: Rows) -> Bools:
    return inner.readable[rows] & _BY_PROTO[inner.proto[rows]]


def _look(source: Bytes, inner: Network, rows: Indices, ports: Ports) -> tuple[Indices, _Step]:
    """Return those of `rows` that are to be unwrapped, and their tunnel headers."""
    proto, start, kept = inner.proto[rows], inner.payload[rows], inner.kept[rows]
    kind = np.zeros(rows.size, dtype=np.uint8)
    datagram = np.flatnonzero(proto == IpProto.UDP)
    window = source.window(start[datagram], kept[datagram], _UDP_BYTES)
    kind[datagram] = np.where(window.kept >= 4, ports.kind[window.u16(2)], np.uint8(0))
    kind[proto == IpProto.GRE] = _CODES["gre"]
    outer_v4 = inner.version[rows] == 4
    kind[(proto == IpProto.IPIP) & outer_v4] = _CODES["ipip"]
    kind[(proto == IpProto.IPIP) & ~outer_v4] = _CODES["4in6"]
    kind[(proto == IpProto.IPV6) & outer_v4] = _CODES["6in4"]
    kind[(proto == IpProto.IPV6) & ~outer_v4] = _CODES["6in6"]
    some = np.flatnonzero(kind)
    rows, proto, start, kept = rows[some], proto[some], start[some], kept[some]
    stop = inner.stop[rows]

    step = _Step.blank(rows.size)
    step.kind[:] = kind[some]
    step.headers[:] = 1
    step.begin[:] = start
    step.inside[proto == IpProto.IPIP] = 4
    step.inside[proto == IpProto.IPV6] = 6
    for number, reader in ((IpProto.GRE, _gre), (IpProto.UDP, _udp)):
        mine = np.flatnonzero(proto == number)
        if mine.size:
            reader(source, step, mine, start[mine], kept[mine], stop[mine])
    _open_frames(source, step, kept)
    _distrust(source, step, kept, stop)
    mark(inner.note, rows[step.bad], DecodeNote.TUNNEL_BAD_HEADER)
    good = np.flatnonzero(~step.bad & ((step.inside > 0) | step.cut))
    return rows[good], step.take(good)


def _gre(
    source: Bytes,
    step: _Step,
    which: Indices,
    start: Offsets,
    kept: Offsets,
    stop: Offsets,
) -> None:
    """Read GRE headers at `start` into the rows `which` of `step`."""
    window = source.window(start, kept, 16)
    flags = window.u16(0)
    size = np.full(which.size, 4, dtype=np.int64)
    for bit in (0x8000, 0x2000, 0x1000):  # checksum, key, sequence number
        size += np.where(flags & bit, 4, 0)
    version = flags & 7
    plain = (version == 0) & (flags & 0x4000 == 0)  # no source routing (RFC 1701)
    inside = np.zeros(which.size, dtype=np.uint8)
    for ethertype, what in _INSIDE.items():
        inside[plain & (window.u16(2) == ethertype)] = what
    enhanced = (version == 1) & (window.u16(2) == _GRE_PPP)
    size += np.where(enhanced & (flags & 0x80 != 0), 4, 0)  # acknowledgement number
    inside[enhanced & (window.u16(4) > 0)] = _PPP

    keyed = plain & (flags & 0x2000 != 0)
    rows = np.flatnonzero(keyed)
    at = np.where(flags[rows] & 0x8000, 8, 4).astype(np.intp)
    step.key[which[rows]] = window.at(rows, at, 4)
    step.has_key[which] = keyed & (window.kept >= size)
    step.inside[which] = inside
    step.begin[which] = start + size
    _bound(step, which, window.kept < 4, start + 4, stop)
    _bound(step, which, (inside > 0) & (start + size > kept), start + size, stop)


def _udp(
    source: Bytes,
    step: _Step,
    which: Indices,
    start: Offsets,
    kept: Offsets,
    stop: Offsets,
) -> None:
    """Read the tunnel header behind the UDP headers at `start` into rows `which` of `step`."""
    window = source.window(start, kept, 16)
    kind = step.kind[which]
    step.src_port[which] = window.u16(0)
    step.dst_port[which] = window.u16(2)
    step.has_ports[which] = True
    first, second = window.u8(8), window.u8(9)
    top = first >> 6
    inside = np.zeros(which.size, dtype=np.uint8)

    vxlan = kind == _CODES["vxlan"]
    inside[vxlan] = _ETHER
    bad = vxlan & (first & 0x08 == 0)  # the VNI is not valid: RFC 7348 section 5

    geneve = kind == _CODES["geneve"]
    for ethertype, what in _INSIDE.items():
        inside[geneve & (window.u16(10) == ethertype) & (second & 0x80 == 0)] = what
    bad |= geneve & (top != 0)

    gue = kind == _CODES["gue"]
    direct = gue & (top == 1)  # version 1: an IP header and nothing before it
    inside = np.where(direct, first >> 4, inside)
    bad |= direct & (inside != 4) & (inside != 6)  # dropped by gue_udp_recv() in fou_core.c
    data = gue & (top == 0) & (first & 0x20 == 0)  # no control message
    inside[data & (second == IpProto.IPIP)] = 4
    inside[data & (second == IpProto.IPV6)] = 6
    bad |= gue & (top > 1)

    words = np.where(geneve, first & 0x3F, np.where(gue, first & 0x1F, 0)).astype(np.int64)
    begin = start + _UDP_BYTES + np.where(direct, 0, np.where(gue, 4, 8) + 4 * words)
    least = _UDP_BYTES + np.where(gue, 4, 8)
    cut = window.kept < least
    step.key[which] = window.u32(12) >> np.uint32(8)
    step.has_key[which] = ~gue & ~cut
    step.inside[which] = inside
    step.begin[which] = begin
    step.bad[which] |= bad & ~cut
    _bound(step, which, cut, start + least, stop)
    _bound(step, which, ~cut & (inside > 0) & (begin > kept), begin, stop)

    gre = np.flatnonzero(data & (second == IpProto.GRE) & ~cut)
    if gre.size:
        step.headers[which[gre]] += 1
        _gre(source, step, which[gre], begin[gre], kept[gre], stop[gre])


def _bound(step: _Step, which: Indices, short: Bools, least: Offsets, stop: Offsets) -> None:
    """Sort headers that are `short`: cut by the capture, or by the packet's own length."""
    step.cut[which] |= short & (least <= stop)
    step.bad[which] |= short & (least > stop)


def _open_frames(source: Bytes, step: _Step, kept: Offsets) -> None:
    """Step over Ethernet and PPP headers inside tunnels to the IP header behind them."""
    for what, opener in ((_ETHER, link.ethernet_inside), (_PPP, tags.ppp_inside)):
        rows = np.flatnonzero((step.inside == what) & ~step.cut & ~step.bad)
        if not rows.size:
            continue
        begin, version, cut = opener(source, step.begin[rows], kept[rows])
        step.begin[rows] = begin
        step.inside[rows] = version
        step.cut[rows] |= cut
    step.inside[step.cut] = 4
    step.begin[step.cut] = kept[step.cut]


def _distrust(source: Bytes, step: _Step, kept: Offsets, stop: Offsets) -> None:
    """Mark what cannot be: no room for an IP header, or another version than was promised.

    A header that ends with its packet, not with the capture, was never whole.
    """
    step.bad |= step.cut & (kept >= stop)
    rows = np.flatnonzero((step.inside > 0) & ~step.cut & ~step.bad)
    if not rows.size:
        return
    begin, inside = step.begin[rows], step.inside[rows]
    found = source.window(begin, kept[rows], 8)
    wrong = (found.kept > 0) & (found.u8(0) >> 4 != inside)
    least = np.where(inside == 4, ipv4.HEADER_BYTES, ipv6.HEADER_BYTES)
    step.bad[rows] |= wrong | (begin + least > stop[rows])
