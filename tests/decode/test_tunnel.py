"""Tunnels: the innermost packet in `packets`, the outermost header in `tunnels`."""

from __future__ import annotations

import struct

import pytest
from scapy.contrib.geneve import GENEVE
from scapy.layers.inet import GRE, IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.layers.ppp import PPP
from scapy.layers.vxlan import VXLAN

from pcapdiag.addresses import ip_text
from pcapdiag.decode.tunnel import MAX_TUNNELS
from pcapdiag.decode_note import DecodeNote

RAW = 101
IN4 = IP(src="10.0.0.1", dst="10.0.0.2", ttl=9) / TCP(sport=1000, dport=80) / b"abc"
IN6 = IPv6(src="fd00::1", dst="fd00::2") / TCP(sport=1000, dport=80) / b"abc"
OUT4 = IP(src="192.0.2.1", dst="192.0.2.2", id=77, ttl=60, tos=4, flags="DF")
OUT6 = IPv6(src="2001:db8::1", dst="2001:db8::2", hlim=60)


def udp(port):
    """Return the UDP header of a tunnel to `port`."""
    return UDP(sport=5555, dport=port)


def gue(proto, words=0, control=0, version=0):
    """Return a GUE header with `words` words of flags and private data."""
    return struct.pack(">BBH", version << 6 | control << 5 | words, proto, 0) + b"\0" * 4 * words


TUNNELS = {
    "ipip": (OUT4 / IN4, "ipip", 20, None),
    "6in4": (OUT4 / IN6, "6in4", 20, None),
    "4in6": (OUT6 / IN4, "4in6", 40, None),
    "6in6": (OUT6 / IN6, "6in6", 40, None),
    "behind extensions": (OUT6 / IPv6ExtHdrDestOpt() / IN4, "4in6", 48, None),
    "gre": (OUT4 / GRE() / IN4, "gre", 24, None),
    "gre over v6": (OUT6 / GRE() / IN6, "gre", 44, None),
    "gre checksum": (OUT4 / GRE(chksum_present=1) / IN4, "gre", 28, None),
    "gre key": (OUT4 / GRE(key_present=1, key=0xDEADBEEF) / IN4, "gre", 28, 0xDEADBEEF),
    "gre all": (
        OUT4
        / GRE(chksum_present=1, key_present=1, key=7, seqnum_present=1, sequence_number=9)
        / IN4,
        "gre",
        36,
        7,
    ),
    "gre ethernet": (OUT4 / GRE(proto=0x6558) / Ether() / IN4, "gre", 38, None),
    "pptp": (
        OUT4 / GRE(bytes.fromhex("3001880b") + struct.pack(">HHI", 50, 1, 2)) / PPP() / IN4,
        "gre",
        34,
        None,
    ),
    "gue": (OUT4 / udp(6080) / gue(4) / IN4, "gue", 32, None),
    "gue v6": (OUT4 / udp(6080) / gue(41) / IN6, "gue", 32, None),
    "gue private data": (OUT4 / udp(6080) / gue(4, words=2) / IN4, "gue", 40, None),
    "gue direct": (OUT4 / udp(6080) / IN4, "gue", 28, None),
    "gue direct v6": (OUT6 / udp(6080) / IN6, "gue", 48, None),
    "vxlan": (OUT4 / udp(4789) / VXLAN(vni=0xABCDE) / Ether() / IN4, "vxlan", 50, 0xABCDE),
    "vxlan vlan": (OUT4 / udp(4789) / VXLAN(vni=1) / Ether() / Dot1Q(vlan=3) / IN4, "vxlan", 54, 1),
    "geneve": (OUT4 / udp(6081) / GENEVE(vni=5) / Ether() / IN6, "geneve", 50, 5),
    "geneve direct": (OUT4 / udp(6081) / GENEVE(vni=5, proto=0x800) / IN4, "geneve", 36, 5),
    "geneve options": (
        OUT4 / udp(6081) / (b"\x02\0\x65\x58\0\0\x05\0" + b"\0" * 8) / Ether() / IN4,
        "geneve",
        58,
        5,
    ),
}


@pytest.mark.parametrize(("frame", "kind", "overhead", "key"), TUNNELS.values(), ids=TUNNELS)
def test_the_innermost_packet_and_the_outermost_header(decoded, frame, kind, overhead, key):
    """Both are known, with the distance between them."""
    tables = decoded(Ether() / frame)
    row = tables.packets.row(0, named=True)
    assert (row["tunnel"], row["tunnel_depth"], row["decode_note"]) == (kind, 1, 0)
    assert ip_text(row["src_hi"], row["src_lo"]) in {"10.0.0.1", "fd00::1"}
    assert (row["src_port"], row["dst_port"], row["payload_len"]) == (1000, 80, 3)
    (outer,) = tables.tunnels.rows(named=True)
    assert (outer["row"], outer["kind"], outer["depth"]) == (0, kind, 1)
    assert (outer["overhead"], outer["tunnel_key"]) == (overhead, key)
    assert ip_text(outer["outer_dst_hi"], outer["outer_dst_lo"]) in {"192.0.2.2", "2001:db8::2"}
    assert outer["outer_ttl"] == 60
    v4 = outer["outer_ip_version"] == 4
    assert (outer["outer_ip_id"], outer["outer_tos"]) == ((77, 4) if v4 else (None, 0))
    assert outer["outer_ip_len"] == len(bytes(frame))
    ports = (5555, None) if kind in {"gue", "vxlan", "geneve"} else (None, None)
    assert outer["outer_src_port"] == ports[0]
    assert (outer["outer_dst_port"] is None) == (ports[0] is None)


def test_tunnels_in_tunnels(decoded):
    """The innermost packet, the outermost header, and how many lie between."""
    tables = decoded(
        OUT4 / OUT6 / GRE() / IN4,
        IN4,
        OUT4 / udp(6080) / gue(47) / GRE(key_present=1, key=9) / IN4,
        linktype=RAW,
    )
    assert tables.packets["tunnel"].to_list() == ["6in4", None, "gue"]
    assert tables.packets["tunnel_depth"].to_list() == [2, 0, 2]
    assert tables.packets["src_port"].to_list() == [1000] * 3
    assert tables.tunnels["row"].to_list() == [0, 2]
    assert tables.tunnels["depth"].to_list() == [2, 2]
    assert tables.tunnels["overhead"].to_list() == [20 + 40 + 4, 20 + 8 + 4 + 8]
    assert tables.tunnels["tunnel_key"].to_list() == [None, 9]


def test_the_depth_is_bounded(packet):
    """As many headers as are followed lead to the packet; one more is noted."""
    deepest = IN4
    for _ in range(MAX_TUNNELS):
        deepest = OUT4 / deepest
    row = packet(deepest, linktype=RAW)
    assert (row["tunnel_depth"], row["src_port"], row["decode_note"]) == (MAX_TUNNELS, 1000, 0)
    row = packet(OUT4 / deepest, linktype=RAW)
    assert (row["tunnel_depth"], row["src_port"]) == (MAX_TUNNELS, None)
    assert row["decode_note"] == DecodeNote.TUNNEL_TOO_DEEP


def test_gue_is_where_the_caller_says(packet):
    """By destination port; 6080 is only the usual one."""
    frame = OUT4 / udp(7000) / gue(4) / IN4
    assert packet(frame, linktype=RAW)["tunnel"] is None
    assert packet(frame, linktype=RAW, gue_ports=frozenset({7000}))["tunnel"] == "gue"
    usual = OUT4 / udp(6080) / gue(4) / IN4
    assert packet(usual, linktype=RAW, gue_ports=frozenset())["tunnel"] is None
    answer = OUT4 / UDP(sport=6080, dport=5555) / gue(4) / IN4
    assert packet(answer, linktype=RAW)["tunnel"] is None


@pytest.mark.parametrize(
    "frame",
    [
        OUT4 / udp(6080) / gue(4, control=1) / IN4,
        OUT4 / udp(6080) / gue(17) / UDP() / b"abc",
        OUT4 / udp(6081) / GENEVE(proto=0x6558, critical=1, oam=1) / Ether() / IN4,
        OUT4 / udp(4789) / VXLAN() / Ether() / ARP(),
        OUT4 / GRE(proto=0x880B) / b"abcdefgh",
        OUT4 / GRE(proto=0x88BE) / Ether() / IN4,
        OUT4 / GRE(bytes.fromhex("3001880b") + struct.pack(">HHI", 0, 1, 2)),
        OUT4 / UDP(sport=4789, dport=999) / VXLAN() / Ether() / IN4,
    ],
    ids=["control", "udp", "oam", "arp", "ppp in version 0", "erspan", "pptp ack", "source port"],
)
def test_what_holds_no_ip_packet_is_the_packet_itself(packet, frame):
    """It is not unwrapped, and that is no fault."""
    row = packet(frame, linktype=RAW)
    assert (row["tunnel"], row["tunnel_depth"], row["decode_note"]) == (None, 0, 0)
    assert ip_text(row["src_hi"], row["src_lo"]) == "192.0.2.1"


@pytest.mark.parametrize(
    "frame",
    [
        IP(proto=4, src="192.0.2.1") / bytes(IN6),
        IP(proto=41, src="192.0.2.1") / bytes(IN4),
        IP(proto=4, src="192.0.2.1") / b"\x45\0\0",
        IP(proto=47, src="192.0.2.1") / b"\0\0",
        OUT4 / GRE(proto=0x800) / bytes(IN6),
        OUT4 / udp(6080) / gue(4) / bytes(IN6),
        OUT4 / udp(6080) / gue(4, version=2) / IN4,
        OUT4 / udp(6080) / gue(4, words=31),
        OUT4 / udp(6080) / (b"\x57" + bytes(60)),
        OUT4 / udp(6080) / (b"\x77" + bytes(60)),
        OUT4 / udp(6080) / b"\0",
        OUT4 / udp(4789) / (b"\0" * 8) / Ether() / IN4,
        OUT4 / udp(4789) / VXLAN() / b"short",
        OUT4 / udp(6081) / (b"\x80\0\x65\x58\0\0\0\0") / Ether() / IN4,
    ],
)
def test_a_header_that_contradicts_itself_is_not_followed(packet, frame):
    """It is noted, and the packet is the one around it."""
    row = packet(frame, linktype=RAW)
    assert row["decode_note"] == DecodeNote.TUNNEL_BAD_HEADER
    assert (row["tunnel"], row["ip_version"]) == (None, 4)
    assert ip_text(row["src_hi"], row["src_lo"]) == "192.0.2.1"


@pytest.mark.parametrize(("frame", "kind", "overhead", "key"), TUNNELS.values(), ids=TUNNELS)
def test_a_cut_tunnel_hides_what_is_inside(decoded, frame, kind, overhead, key):
    """It is known that there is a tunnel; nothing outer stands where the inner packet belongs."""
    data = bytes(frame)
    tables = decoded(data[: overhead + 8], linktype=RAW, wire_len=[len(data)])
    row = tables.packets.row(0, named=True)
    assert row["tunnel"] == kind
    assert row["decode_note"] == DecodeNote.IP_CUT
    assert row["ip_version"] is row["src_lo"] is row["src_port"] is None
    (outer,) = tables.tunnels.rows(named=True)
    assert (outer["outer_ttl"], outer["overhead"], outer["tunnel_key"]) == (60, None, key)


def test_fragments_of_tunnelled_packets(packet):
    """The first is unwrapped; a later one is a packet of the tunnel's."""
    data = bytes(IN4.copy() / (b"x" * 100))
    first = packet(IP(src="192.0.2.1", proto=4, flags="MF") / data[:64], linktype=RAW)
    assert (first["tunnel"], first["src_port"]) == ("ipip", 1000)
    later = packet(IP(src="192.0.2.1", proto=4, frag=8) / data[64:], linktype=RAW)
    assert (later["tunnel"], later["ip_proto"], later["src_port"]) == (None, 4, None)
    assert later["decode_note"] == DecodeNote.LATER_FRAGMENT


def test_the_inner_packet_is_bounded_by_the_outer_one(packet):
    """Padding behind the outer packet is not the inner one's, whose length lies."""
    inner = IP(len=200) / TCP(sport=1000, options=[("MSS", 1)]) / b"abc"
    outer = IP(proto=4) / bytes(inner)[:30]
    row = packet(bytes(Ether() / outer) + b"\xff" * 40)
    assert row["decode_note"] == DecodeNote.IP_BEYOND_FRAME | DecodeNote.TRANSPORT_CUT
    assert (row["src_port"], row["tcp_seq"], row["tcp_ack"]) == (1000, 0, None)
