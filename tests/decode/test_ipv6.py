"""IPv6 headers and the chain of extension headers behind them."""

from __future__ import annotations

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    Jumbo,
    PadN,
)
from scapy.layers.ipsec import AH

from pcapdiag.addresses import ip_text
from pcapdiag.decode.ipv6 import MAX_EXTENSIONS
from pcapdiag.decode_note import DecodeNote

RAW = 101


def ip(**more):
    """Return an IPv6 header between the two hosts."""
    return IPv6(src="2001:db8::1", dst="2001:db8:0:1::2", **more)


def test_every_field(packet):
    """Each column holds its field; routers never fragment, so DF holds."""
    row = packet(ip(tc=0xB9, hlim=9) / TCP(sport=1, dport=2) / b"abc", linktype=RAW)
    assert (row["ip_version"], row["ip_proto"], row["ip_len"]) == (6, 6, 63)
    assert ip_text(row["src_hi"], row["src_lo"]) == "2001:db8::1"
    assert ip_text(row["dst_hi"], row["dst_lo"]) == "2001:db8:0:1::2"
    assert (row["ttl"], row["tos"], row["ip_header_len"]) == (9, 0xB9, 40)
    assert (row["df"], row["mf"], row["frag_offset"], row["ip_id"]) == (True, False, 0, None)
    assert (row["ip_checksum"], row["payload_len"], row["decode_note"]) == (None, 3, 0)


CHAINS = {
    "hop by hop": (IPv6ExtHdrHopByHop(), 8),
    "destination": (IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 12)]), 16),
    "routing": (IPv6ExtHdrRouting(addresses=["2001:db8::9"]), 24),
    "authentication": (AH(nh=17, payloadlen=4, spi=1, icv=b"\0" * 12), 24),
    "all": (IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / IPv6ExtHdrRouting(addresses=[]), 24),
}


@pytest.mark.parametrize(("chain", "size"), CHAINS.values(), ids=CHAINS)
def test_extension_headers_are_stepped_over(packet, chain, size):
    """The protocol is the one behind them; they count as header."""
    row = packet(ip() / chain / UDP(sport=1000, dport=2000) / b"abcd", linktype=RAW)
    assert (row["ip_proto"], row["ip_header_len"]) == (17, 40 + size)
    assert (row["src_port"], row["payload_len"], row["decode_note"]) == (1000, 4, 0)


def test_fragments(packet):
    """The first has the ports, a later one none; both have the identification."""
    first = ip() / IPv6ExtHdrFragment(id=0xDEADBEEF, m=1, nh=17) / UDP(sport=7) / (b"x" * 16)
    row = packet(first, linktype=RAW)
    assert (row["ip_id"], row["mf"], row["frag_offset"]) == (0xDEADBEEF, True, 0)
    assert (row["src_port"], row["ip_header_len"], row["payload_len"]) == (7, 48, 16)
    later = ip() / IPv6ExtHdrFragment(id=1, m=0, offset=185, nh=17) / (b"x" * 16)
    row = packet(later, linktype=RAW)
    assert (row["ip_id"], row["mf"], row["frag_offset"]) == (1, False, 1480)
    assert (row["ip_proto"], row["src_port"]) == (17, None)
    assert row["decode_note"] == DecodeNote.LATER_FRAGMENT


def test_the_chain_is_bounded(packet):
    """As many as are followed lead to the ports; one more, and what is behind is not known."""
    for count, note in ((MAX_EXTENSIONS, 0), (MAX_EXTENSIONS + 1, DecodeNote.EXTENSIONS_TOO_DEEP)):
        frame = ip()
        for _ in range(count):
            frame /= IPv6ExtHdrDestOpt()
        row = packet(frame / UDP(sport=7), linktype=RAW)
        assert row["decode_note"] == note
        assert row["src_port"] == (None if note else 7)
        assert row["ip_proto"] == (None if note else 17)
        assert row["dst_lo"] is not None


def test_an_extension_header_beyond_the_packet(packet):
    """Its length leaves the packet: what is behind it is not known."""
    frame = ip(nh=60, plen=8) / (b"\x11\xff" + b"\0" * 6)
    row = packet(frame, linktype=RAW)
    assert row["decode_note"] == DecodeNote.IP_CUT
    assert row["ip_proto"] is row["src_port"] is row["ip_header_len"] is None
    assert row["ttl"] == 64


def test_nothing_may_follow(packet):
    """No Next Header: a packet without payload is no fault, whatever pads its frame."""
    row = packet(bytes(ip(nh=59, plen=0)) + b"\0" * 6, linktype=RAW)
    assert (row["ip_proto"], row["ip_len"], row["decode_note"]) == (59, 40, 0)


def test_mobility_is_a_protocol(packet):
    """It is not stepped over: its next header is always none."""
    assert packet(ip(nh=135) / (b"\x3b" + b"\0" * 7), linktype=RAW)["ip_proto"] == 135


def test_jumbograms(packet):
    """The jumbo option's length counts; without one, length 0 is the frame's."""
    payload = bytes(TCP()) + b"x" * 70_000
    hop = IPv6ExtHdrHopByHop(nh=6, options=[Jumbo(jumboplen=len(payload) + 8)])
    row = packet(ip(plen=0, nh=0) / hop / payload, linktype=RAW)
    assert (row["ip_len"], row["payload_len"]) == (70_068, 70_000)
    assert row["decode_note"] == 0
    row = packet(ip(plen=0) / TCP() / (b"x" * 70_000), linktype=RAW)
    assert (row["ip_len"], row["payload_len"]) == (70_060, 70_000)
    assert row["decode_note"] == DecodeNote.IP_LENGTH_ZERO


def test_a_jumbo_length_that_no_column_holds(packet):
    """It is the largest that one does, beyond the frame and noted."""
    hop = IPv6ExtHdrHopByHop(nh=6, options=[Jumbo(jumboplen=0xFFFFFFFF)])
    row = packet(ip(plen=0, nh=0) / hop / TCP(), linktype=RAW)
    assert row["ip_len"] == 0xFFFFFFFF
    assert row["decode_note"] == DecodeNote.IP_BEYOND_FRAME


def test_an_ip_length_beyond_the_frame(packet):
    """It is believed and noted."""
    row = packet(ip(plen=100) / TCP(), linktype=RAW)
    assert (row["ip_len"], row["payload_len"]) == (140, 80)
    assert row["decode_note"] == DecodeNote.IP_BEYOND_FRAME


@pytest.mark.parametrize("kept", [1, 39])
def test_a_cut_header_is_null(packet, kept):
    """An address of which bytes are missing is no address."""
    data = bytes(ip() / TCP())
    row = packet(data[:kept], linktype=RAW, wire_len=[len(data)])
    assert row["decode_note"] == DecodeNote.IP_CUT
    assert row["ip_version"] is row["dst_lo"] is None


def test_a_cut_chain_leaves_the_header(packet):
    """Addresses are known, the protocol behind the chain is not."""
    data = bytes(ip() / IPv6ExtHdrDestOpt() / UDP())
    row = packet(data[:45], linktype=RAW, wire_len=[len(data)])
    assert row["decode_note"] == DecodeNote.IP_CUT
    assert (row["ttl"], row["ip_proto"], row["mf"]) == (64, None, None)


def test_another_version_is_no_header(packet):
    """A link that says IPv6 before something else contradicts itself."""
    row = packet(b"\x45" + bytes(ip() / TCP())[1:], linktype=229)
    assert row["decode_note"] == DecodeNote.IP_BAD_HEADER
    assert row["ip_version"] is None
