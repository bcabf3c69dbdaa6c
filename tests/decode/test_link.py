"""Every link header leads to the same packet behind it."""

from __future__ import annotations

import pytest
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import (
    ARP,
    LLC,
    SNAP,
    CookedLinux,
    CookedLinuxV2,
    Dot1AD,
    Dot1Q,
    Dot3,
    Ether,
)
from scapy.layers.ppp import HDLC, PPP, PPPoE

from pcapdiag.addresses import mac_text
from pcapdiag.decode_note import DecodeNote

SRC, DST = "02:00:00:00:00:01", "02:00:00:00:00:02"
V4 = IP(src="192.0.2.1", dst="192.0.2.2") / UDP(sport=1000, dport=2000) / b"payload"
V6 = IPv6(src="2001:db8::1", dst="2001:db8::2") / UDP(sport=1000, dport=2000) / b"payload"


def ether(**more):
    """Return an Ethernet header between the two hosts."""
    return Ether(src=SRC, dst=DST, **more)


def label(number, bottom):
    """Return an MPLS label stack entry."""
    return MPLS(label=number, s=bottom, ttl=64)


IN_ETHERNET = {
    "plain": ether() / V4,
    "vlan": ether() / Dot1Q(vlan=7) / V4,
    "qinq": ether() / Dot1AD(vlan=8) / Dot1Q(vlan=7) / V4,
    "qinq-old": ether(type=0x9100) / Dot1Q(vlan=8) / Dot1Q(vlan=7) / V4,
    "three tags": ether() / Dot1Q(vlan=9) / Dot1Q(vlan=8) / Dot1Q(vlan=7) / V4,
    "snap": Dot3(src=SRC, dst=DST) / LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(code=0x800) / V4,
    "snap in vlan": ether(type=0x8100)
    / (b"\x00\x07" + bytes([0, 50]) + b"\xaa\xaa\x03\0\0\0\x08\0" + bytes(V4)),
    "mpls": ether(type=0x8847) / label(100, 0) / label(200, 1) / V4,
    "mpls multicast": ether(type=0x8848) / label(100, 1) / V4,
    "pppoe": ether(type=0x8864) / PPPoE(sessionid=1) / PPP(proto=0x21) / V4,
    "mpls in pppoe": ether(type=0x8864) / PPPoE(sessionid=1) / PPP(proto=0x281) / label(1, 1) / V4,
}


@pytest.mark.parametrize("frame", IN_ETHERNET.values(), ids=IN_ETHERNET)
def test_what_ethernet_may_hold_before_ip(packet, frame):
    """Tags, LLC/SNAP, labels and PPPoE are stepped over; padding behind is not payload."""
    row = packet(bytes(frame) + b"\0" * 20)
    assert (mac_text(row["eth_src"]), mac_text(row["eth_dst"])) == (SRC, DST)
    assert (row["src_port"], row["dst_port"], row["payload_len"]) == (1000, 2000, 7)
    assert row["decode_note"] == 0


def test_the_first_two_vlan_tags_are_kept(packet):
    """The outermost is `vlan`, the second `vlan_inner`, a third is stepped over."""
    tags = {name: packet(frame) for name, frame in IN_ETHERNET.items()}
    assert [tags[name]["vlan"] for name in ("plain", "vlan", "qinq", "three tags")] == [
        None,
        7,
        8,
        9,
    ]
    assert [tags[name]["vlan_inner"] for name in ("vlan", "qinq", "three tags")] == [None, 7, 8]
    assert {tags[name]["ethertype"] for name in ("vlan", "qinq", "snap")} == {0x0800}
    assert tags["mpls"]["ethertype"] == 0x8847
    assert tags["pppoe"]["ethertype"] == 0x8864


@pytest.mark.parametrize(
    "frame",
    [
        Dot3(src=SRC, dst=DST) / LLC(dsap=0x42, ssap=0x42, ctrl=3) / (b"\0" * 40),
        Dot3(src=SRC, dst=DST) / LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(OUI=0xC, code=0x2000),
        ether(type=0x88CC) / (b"\0" * 60),
        ether(type=0x8863) / (b"\x11\x09" + b"\0" * 40),
        ether(type=0x8864) / PPPoE(sessionid=1) / PPP(proto=0xC021) / (b"\0" * 8),
        ether(type=0x8847) / label(1, 1) / (b"\0" * 40),
    ],
    ids=["stp", "cdp", "lldp", "pppoe discovery", "lcp", "pseudowire"],
)
def test_another_protocol_is_no_fault(packet, frame):
    """It is noted as not IP, and all that IP has is null."""
    row = packet(frame)
    assert row["decode_note"] == DecodeNote.NOT_IP
    assert row["ip_version"] is row["src_lo"] is row["payload_len"] is None
    assert mac_text(row["eth_src"]) == SRC


def test_more_tags_than_are_followed_end_in_no_packet(packet):
    """A hostile stack of labels is given up, without a hang."""
    row = packet(ether(type=0x8847) / (b"\0\x01\0\x40" * 400))
    assert row["decode_note"] == DecodeNote.NOT_IP
    assert row["ip_version"] is None


@pytest.mark.parametrize(
    ("linktype", "frame"),
    [
        (0, b"\x02\0\0\0" + bytes(V4)),
        (0, b"\0\0\0\x02" + bytes(V4)),
        (0, b"\x1e\0\0\0" + bytes(V6)),
        (0, b"\x0a\0\0\0" + bytes(V6)),
        (108, b"\0\0\0\x18" + bytes(V6)),
        (9, PPP(proto=0x21) / V4),
        (9, b"\x21" + bytes(V4)),
        (9, HDLC() / PPP(proto=0x57) / V6),
        (50, HDLC() / PPP(proto=0x21) / V4),
        (50, b"\x0f\0\x86\xdd" + bytes(V6)),
        (104, b"\x8f\0\x08\0" + bytes(V4)),
        (51, PPPoE(sessionid=1) / PPP(proto=0x57) / V6),
        (12, V4),
        (14, V6),
        (101, V4),
        (101, V6),
        (228, V4),
        (229, V6),
    ],
)
def test_links_without_addresses(packet, linktype, frame):
    """Both byte orders of the loopback family, PPP in all its shapes, raw IP by every number."""
    row = packet(frame, linktype=linktype)
    assert (row["src_port"], row["dst_port"], row["payload_len"]) == (1000, 2000, 7)
    assert row["decode_note"] == 0
    assert row["eth_src"] is row["eth_dst"] is None


@pytest.mark.parametrize(
    ("packet_type", "direction"),
    [(0, "in"), (1, "in"), (2, "in"), (3, "other"), (4, "out"), (5, None), (999, None)],
)
def test_cooked_captures_tell_the_direction(packet, packet_type, direction):
    """By packet type, in both versions; the one address is the sender's."""
    address = bytes.fromhex("020000000001") + b"\xff\xff"
    first = CookedLinux(pkttype=packet_type, lladdrlen=6, src=address, proto=0x800) / V4
    row = packet(first, linktype=113)
    assert row["direction"] == direction
    assert mac_text(row["eth_src"]) == SRC
    assert row["eth_dst"] is None
    assert (row["src_port"], row["ethertype"], row["decode_note"]) == (1000, 0x800, 0)
    if packet_type < 256:
        second = CookedLinuxV2(pkttype=packet_type, lladdrlen=6, src=address, proto=0x86DD) / V6
        row = packet(second, linktype=276)
        assert row["direction"] == direction
        assert mac_text(row["eth_src"]) == SRC
        assert (row["src_port"], row["ethertype"], row["decode_note"]) == (1000, 0x86DD, 0)


def test_a_cooked_frame_may_hold_tags_and_no_address(packet):
    """A tunnel interface has no link address; a tag may stand behind the header."""
    frame = CookedLinux(pkttype=4, lladdrlen=0, proto=0x8100) / Dot1Q(vlan=7) / V4
    row = packet(frame, linktype=113)
    assert row["eth_src"] is None
    assert (row["vlan"], row["src_port"]) == (7, 1000)


def test_the_direction_byte_of_ppp(packet):
    """LINKTYPE_PPP_WITH_DIR: 0 is received, anything else sent."""
    inner = bytes(PPP(proto=0x21) / V4)
    received = packet(b"\0" + inner, linktype=204)
    sent = packet(b"\x01" + inner, linktype=204)
    assert (received["direction"], sent["direction"]) == ("in", "out")
    assert received["src_port"] == sent["src_port"] == 1000


def test_the_direction_of_the_capture_file(packet):
    """epb_flags speak for links that say nothing themselves."""
    assert packet(ether() / V4, direction=2)["direction"] == "out"
    assert packet(ether() / V4, direction=1)["direction"] == "in"
    assert packet(ether() / V4)["direction"] is None


@pytest.mark.parametrize(
    ("linktype", "frame", "shortest"),
    [
        (1, ether() / V4, 14),
        (1, ether() / Dot1Q(vlan=7) / V4, 18),
        (1, IN_ETHERNET["snap"], 22),
        (1, IN_ETHERNET["mpls"], 23),
        (1, IN_ETHERNET["pppoe"], 22),
        (113, CookedLinux() / V4, 16),
        (276, CookedLinuxV2() / V4, 20),
        (0, b"\x02\0\0\0" + bytes(V4), 4),
        (50, HDLC() / PPP(proto=0x21) / V4, 4),
        (101, V4, 1),
    ],
)
def test_a_cut_link_header_is_noted(packet, linktype, frame, shortest):
    """One byte short of the network layer nothing of it is guessed; with it, IP is what is cut."""
    data = bytes(frame)
    cut = packet(data[: shortest - 1], linktype=linktype, wire_len=[len(data)])
    assert cut["decode_note"] == DecodeNote.LINK_CUT
    assert cut["ip_version"] is None
    cut = packet(data[:shortest], linktype=linktype, wire_len=[len(data)])
    assert cut["decode_note"] == DecodeNote.IP_CUT


def test_a_cut_tag_hides_the_ethertype(packet):
    """The ethertype behind a tag that was not kept is not the tag's own."""
    data = bytes(ether() / Dot1Q(vlan=7) / V4)
    row = packet(data[:16], wire_len=[len(data)])
    assert (row["ethertype"], row["vlan"]) == (None, None)
    assert mac_text(row["eth_src"]) == SRC


def test_link_types_may_mix(decoded):
    """Several interfaces in one batch decode each by its own link type."""
    frames = (ether() / V4, V6, CookedLinux(pkttype=4) / V4, ether() / ARP())
    table = decoded(*frames, linktype=[1, 101, 113, 1]).packets
    assert table["ip_version"].to_list() == [4, 6, 4, None]
    assert table["direction"].to_list() == [None, None, "out", None]


def test_the_frame_check_sequence_is_no_payload(packet):
    """Its bytes are known to be there where the capture says so."""
    data = bytes(ether() / V4)
    row = packet(data + b"\x01\x02\x03\x04", fcs_len=4)
    assert (row["payload_len"], row["caplen"]) == (7, len(data) + 4)
    jumbo = bytes(ether() / IP(src="192.0.2.1", dst="192.0.2.2", len=0) / UDP() / b"payload")
    assert packet(jumbo + b"\x01\x02\x03\x04", fcs_len=4)["payload_len"] == 7
    assert packet(jumbo + b"\x01\x02\x03\x04")["payload_len"] == 11


def test_a_block_without_a_packet_is_a_row(packet):
    """Wireshark numbers it, nothing is decoded, nothing else is noted."""
    row = packet(b"", note=DecodeNote.NO_PACKET)
    assert row["decode_note"] == DecodeNote.NO_PACKET
    assert row["frame"] == 1
    assert row["eth_src"] is row["ip_version"] is None
