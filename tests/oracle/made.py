"""Packets of every kind that the decoder knows, made with scapy, where captures have few or none.

Addresses are of documentation ranges. What is wrong on purpose says so.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

C, V, R, D, G = "198.51.100.7", "203.0.113.10", "203.0.113.11", "203.0.113.2", "192.0.2.1"
"""Client, virtual address, realserver, director, router; and the same in IPv6."""
C6, V6, R6, D6, G6 = (f"2001:db8:{net}::{host}" for net, host in
                      (("c", 7), ("113", 10), ("113", 11), ("113", 2), ("ffff", 1)))  # fmt: skip

SRC, DST = "02:00:00:00:00:02", "02:00:00:00:00:11"
GUE_PORT: Final = 6080


def layers() -> Any:
    """Return scapy's names; importing them takes over a second."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scapy's own imports
        import scapy.all as everything
        from scapy.contrib import geneve, mpls
        from scapy.layers import vrrp, vxlan

    everything.GENEVE, everything.GeneveOptions = geneve.GENEVE, geneve.GeneveOptions
    everything.MPLS = mpls.MPLS
    everything.VXLAN, everything.VRRPv3 = vxlan.VXLAN, vrrp.VRRPv3
    everything.VRRP = vrrp.VRRP
    return everything


def write(path: Path, packets: list[Any]) -> Path:
    """Write a capture of `packets`, a millisecond apart."""
    s = layers()
    for index, packet in enumerate(packets):
        packet.time = 1_700_000_000 + index / 1000
    s.wrpcap(str(path), packets)
    return path


def everything() -> list[Any]:
    """Return one packet of each kind."""
    s = layers()
    frame = s.Ether(src=SRC, dst=DST)
    return [
        *(frame / packet for packet in _plain(s)),
        *(frame / packet for packet in _tunnels(s)),
        *(frame / packet for packet in _icmp(s)),
        *(frame / packet for packet in _icmpv6(s)),
        *(frame / packet for packet in _fragments(s)),
        *_links(s),
        *_neighbours(s),
    ]


def _tcp(s: Any, **more: Any) -> Any:
    fields = {"sport": 40001, "dport": 80, "seq": 0xFFFFFFF0, "ack": 0x80000001, "flags": "PA"}
    return s.TCP(**fields | more)


def _plain(s: Any) -> Iterator[Any]:
    """Transport headers and their options, IP options, lengths and checksums."""
    ip, ip6 = s.IP(src=C, dst=V, ttl=57, id=0xBEEF, tos=0xB9, flags="DF"), s.IPv6(src=C6, dst=V6)
    edges = (1, 100, 200, 300, 0xFFFFFF00, 16, 400, 500)
    for options in (
        [],
        [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 0)), ("NOP", None), ("WScale", 7)],
        [("NOP", None), ("NOP", None), ("Timestamp", (0xFFFFFFFF, 0x80000000))],
        [("Timestamp", (5, 6)), ("EOL", None)],
        [("NOP", None), ("NOP", None), ("SAck", edges[:2])],
        [("SAck", edges)],
        [("NOP", None), ("NOP", None), ("Timestamp", (5, 6)), ("SAck", edges[:6])],
        [("MSS", 536), ("MSS", 9000)],
        [(30, b"\x00" * 10), ("MSS", 8960)],
        [("EOL", None), ("MSS", 1460)],
    ):
        yield ip / _tcp(s, options=options) / b"data"
    yield ip6 / _tcp(s, flags="S", options=[("MSS", 1440), ("WScale", 14)])
    yield ip / _tcp(s, flags=0x1FF, reserved=5, window=0)
    yield ip / _tcp(s, chksum=0xDEAD) / b"wrong checksum"
    yield ip / s.UDP(sport=1024, dport=53) / (b"x" * 30)
    yield ip / s.UDP(sport=1024, dport=53, chksum=0) / b"no checksum"
    yield ip6 / s.UDP(sport=1024, dport=53) / b""
    yield ip / s.SCTP(sport=5000, dport=5001, tag=7) / s.SCTPChunkInit()
    yield s.IP(src=C, dst=V, options=[s.IPOption_Router_Alert(), s.IPOption_NOP()]) / _tcp(s)
    yield s.IP(src=C, dst=V, options=[s.IPOption_RR(length=39)]) / s.UDP(sport=7, dport=9)
    yield s.IP(src=C, dst=V, chksum=0x1234) / s.UDP(sport=7, dport=9)
    yield s.IP(src=C, dst=V, len=0) / _tcp(s) / b"offload leaves the length 0"
    yield s.IP(src=C, dst=V, len=44) / s.UDP(sport=7, dport=9) / b"longer than IP says, padded"
    yield s.IP(src=C, dst=V, proto=50) / b"\x00\x00\x00\x01\x00\x00\x00\x02sealed"
    yield ip6 / s.IPv6ExtHdrHopByHop(options=[s.RouterAlert()]) / _tcp(s)
    yield ip6 / s.IPv6ExtHdrDestOpt(options=[s.PadN(optdata=b"\x00" * 4)]) / s.UDP(dport=9)
    yield (
        ip6
        / s.IPv6ExtHdrHopByHop()
        / s.IPv6ExtHdrDestOpt()
        / s.IPv6ExtHdrRouting(type=0, addresses=[R6])
        / _tcp(s)
    )
    yield s.IPv6(src=C6, dst=V6, tc=0xB9, fl=0xABCDE, hlim=1, nh=59)
    for header in (s.VRRP(vrid=51, priority=150, addrlist=[V, R]), s.VRRPv3(vrid=52, addrlist=[V])):
        yield s.IP(src=D, dst="224.0.0.18", ttl=255, proto=112) / header
    yield s.IPv6(src=D6, dst="ff02::12", hlim=255) / s.VRRPv3(vrid=53, priority=99, addrlist=[V6])


def _tunnels(s: Any) -> Iterator[Any]:
    """IP in IP, GRE, VXLAN, Geneve, and some inside each other."""
    outer = s.IP(src=D, dst=R, ttl=61, id=0x0102, tos=3)
    outer6 = s.IPv6(src=D6, dst=R6, hlim=61, tc=3)
    inner = s.IP(src=C, dst=V, ttl=60, flags="DF") / _tcp(s) / b"inside"
    inner6 = s.IPv6(src=C6, dst=V6, hlim=60) / s.UDP(sport=1, dport=2) / b"inside"
    ether = s.Ether(src=DST, dst=SRC)
    for over in (outer, outer6):
        for carried in (inner, inner6):
            yield over / carried
            yield over / s.GRE() / carried
    yield outer / outer6 / inner
    yield outer / outer / outer / inner
    yield outer / s.GRE(key_present=1, key=0xCAFEBABE) / inner
    yield outer / s.GRE(chksum_present=1, seqnum_present=1, sequence_number=9) / inner
    yield outer / s.GRE(chksum_present=1, key_present=1, key=7, seqnum_present=1) / inner6
    yield outer / s.GRE(proto=0x6558) / ether / s.Dot1Q(vlan=12) / inner
    yield outer / s.GRE() / outer / s.GRE(key_present=1, key=5) / inner
    yield outer / s.GRE(proto=0x0806) / s.ARP(pdst=V)
    yield outer / s.GRE(proto=0x88BE) / b"mirrored"
    for over in (outer, outer6):
        yield over / s.UDP(sport=49152, dport=4789) / s.VXLAN(vni=0xABCDEF, flags=8) / ether / inner
        yield over / s.UDP(sport=49153, dport=6081) / s.GENEVE(vni=77) / ether / inner6
    vxlan = s.UDP(sport=49152, dport=4789) / s.VXLAN(vni=5, flags=8)
    yield outer / vxlan / ether / s.Dot1Q(vlan=3) / inner6
    yield outer / vxlan / ether / s.ARP(pdst=V)
    yield outer / vxlan / ether / outer / inner
    option = s.GeneveOptions(classid=0x102, type=1, data=b"\x00" * 8)
    yield outer / s.UDP(sport=1, dport=6081) / s.GENEVE(vni=1, options=[option]) / ether / inner
    yield outer / s.UDP(sport=1, dport=6081) / s.GENEVE(vni=1, proto=0x0800) / inner
    yield outer / s.IP(src=G, dst=V) / s.ICMP(type=3, code=4, nexthopmtu=1400) / s.raw(inner)[:28]


def _icmp(s: Any) -> Iterator[Any]:
    """Errors and what they quote, echoes, checksums (RFC 792, RFC 1191, RFC 4884)."""
    error = s.IP(src=G, dst=V, tos=0xC0)
    sent = s.IP(src=V, dst=C, ttl=9, id=77, flags="DF") / _tcp(s, sport=80, dport=40001)
    big = s.raw(sent / (b"x" * 1400))
    datagram = s.raw(s.IP(src=V, dst=C) / s.UDP(sport=53, dport=999) / (b"y" * 100))
    tunnelled = s.raw(s.IP(src=D, dst=R, id=3) / s.IP(src=C, dst=V) / _tcp(s) / (b"z" * 90))
    keyed = s.raw(s.IP(src=D, dst=R) / s.GRE(key_present=1, key=1) / s.IP(src=C, dst=V) / _tcp(s))
    options = s.raw(s.IP(src=V, dst=C, options=[s.IPOption_NOP()] * 4) / s.UDP(sport=1, dport=2))
    later = s.raw(s.IP(src=V, dst=C, frag=185, flags="MF", proto=17) / (b"w" * 64))
    fragments = s.ICMP(type=3, code=4, nexthopmtu=1400)
    for quote in (big[:28], big[:548], big[:40], datagram, datagram[:28], options, later):
        yield error / fragments / quote
    yield error / fragments / tunnelled
    yield error / fragments / tunnelled[:48]
    yield error / fragments / keyed
    yield error / s.ICMP(type=3, code=4, nexthopmtu=1400, chksum=0x0BAD) / big[:28]
    for kind, code in ((3, 0), (3, 1), (3, 3), (3, 10), (3, 13), (4, 0), (11, 0), (11, 1), (12, 0)):
        yield error / s.ICMP(type=kind, code=code) / big[:36]
    yield error / s.ICMP(type=5, code=1, gw=R) / big[:48]
    yield s.IP(src=C, dst=V) / s.ICMP(type=8, id=0x1234, seq=0xFFFF) / b"ping"
    yield s.IP(src=V, dst=C) / s.ICMP(type=0, id=0x1234, seq=0xFFFF) / b"ping"
    yield s.IP(src=V, dst=C) / s.ICMP(type=13, id=1, seq=2)
    label = bytes.fromhex("20000000 0008 0101 00064a01")  # RFC 4950, checksum not set
    yield error / s.ICMP(type=11, length=32) / (big[:128] + label)


def _icmpv6(s: Any) -> Iterator[Any]:
    """Errors of RFC 4443 and redirects of RFC 4861."""
    error = s.IPv6(src=G6, dst=V6)
    sent = s.IPv6(src=V6, dst=C6, tc=0xB8, hlim=9)
    big = s.raw(sent / _tcp(s, sport=80) / (b"x" * 1300))
    extended = s.raw(sent / s.IPv6ExtHdrDestOpt() / s.UDP(sport=53, dport=999) / b"y")
    first = s.raw(sent / s.IPv6ExtHdrFragment(id=9, m=1) / s.UDP(sport=53, dport=999) / (b"y" * 8))
    tunnelled = s.raw(s.IPv6(src=D6, dst=R6) / s.IPv6(src=C6, dst=V6) / _tcp(s) / (b"z" * 90))
    for quote in (big[:1232], big[:48], extended, first, tunnelled):
        yield error / s.ICMPv6PacketTooBig(mtu=1400) / quote
    for kind in (s.ICMPv6DestUnreach(code=1), s.ICMPv6TimeExceeded(), s.ICMPv6ParamProblem(ptr=6)):
        yield error / kind / big[:100]
    yield error / s.ICMPv6PacketTooBig(mtu=1280, cksum=1) / big[:100]
    yield s.IPv6(src=C6, dst=V6) / s.ICMPv6EchoRequest(id=1, seq=2, data=b"ping")
    yield s.IPv6(src=V6, dst=C6) / s.ICMPv6EchoReply(id=1, seq=2, data=b"ping")
    redirect = s.ICMPv6ND_Redirect(tgt=R6, dst=C6)
    yield s.IPv6(src="fe80::1", dst=V6, hlim=255) / redirect
    header = s.ICMPv6NDOptRedirectedHdr(pkt=s.IPv6(big[:104]))
    yield s.IPv6(src="fe80::1", dst=V6, hlim=255) / redirect / header


def _fragments(s: Any) -> Iterator[Any]:
    """First, middle and last fragments of either version, and an atomic one (RFC 6946)."""
    for flags, offset in (("MF", 0), ("MF", 10), (0, 20)):
        yield s.IP(src=C, dst=V, id=5, flags=flags, frag=offset, proto=17) / (b"\x04\x00\x005" * 20)
        header = s.IPv6ExtHdrFragment(nh=17, id=6, m=int(flags == "MF"), offset=offset)
        yield s.IPv6(src=C6, dst=V6) / header / (b"\x04\x00\x005" * 20)
    yield s.IPv6(src=C6, dst=V6) / s.IPv6ExtHdrFragment(id=8) / s.UDP(sport=1, dport=2) / b"atom"
    yield s.IP(src=C, dst=V, flags="MF", proto=1) / (b"\x08\x00\xf7\xff\x00\x00\x00\x00" * 4)


def _links(s: Any) -> Iterator[Any]:
    """VLAN tags, LLC/SNAP, MPLS, PPPoE (IEEE 802, RFC 3032, RFC 2516)."""
    ip = s.IP(src=C, dst=V) / s.UDP(sport=1, dport=2) / b"data"
    frame = s.Ether(src=SRC, dst=DST)
    yield frame / s.Dot1Q(vlan=4095) / ip
    yield frame / s.Dot1AD(vlan=100) / s.Dot1Q(vlan=0) / ip
    yield frame / s.Dot1Q(vlan=1) / s.Dot1Q(vlan=2) / s.Dot1Q(vlan=3) / ip
    yield frame / s.MPLS(label=16, s=0) / s.MPLS(label=17, s=1) / ip
    yield frame / s.PPPoE(sessionid=3) / s.PPP() / ip
    yield s.Dot3(src=SRC, dst=DST) / s.LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / s.SNAP(code=0x800) / ip
    yield frame / s.Dot1Q(vlan=9) / s.ARP(psrc=D, pdst=V)
    yield s.Ether(src=SRC, dst=DST, type=0x88CC) / (b"\x00" * 46)


def _neighbours(s: Any) -> Iterator[Any]:
    """ARP and neighbour discovery."""
    frame = s.Ether(src=SRC, dst="ff:ff:ff:ff:ff:ff")
    for op in (1, 2, 3, 8):
        yield frame / s.ARP(op=op, hwsrc=SRC, psrc=D, hwdst=DST, pdst=V)
    yield frame / s.ARP(op=1, hwsrc=SRC, psrc=V, pdst=V)
    frame = s.Ether(src=SRC, dst=DST)
    ask = s.IPv6(src=D6, dst="ff02::1:ff00:10", hlim=255) / s.ICMPv6ND_NS(tgt=V6)
    tell = s.IPv6(src=V6, dst=D6, hlim=255)
    yield frame / ask / s.ICMPv6NDOptSrcLLAddr(lladdr=SRC)
    yield frame / ask
    yield frame / tell / s.ICMPv6ND_NA(tgt=V6, S=1) / s.ICMPv6NDOptDstLLAddr(lladdr=DST)
    yield frame / tell / s.ICMPv6ND_NA(tgt=V6, S=0, O=1)
    yield frame / s.IPv6(src=G6, dst="ff02::1", hlim=255) / s.ICMPv6ND_RA()
