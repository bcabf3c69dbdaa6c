"""ICMP messages of both versions: checksums, MTUs, gateways, extensions."""

from __future__ import annotations

import struct

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_Redirect,
    ICMPv6NDOptRedirectedHdr,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import Ether
from scapy.utils import checksum

from pcapdiag.addresses import ip_text
from pcapdiag.decode_note import DecodeNote

RAW = 101
QUOTED = IP(src="192.0.2.80", dst="198.51.100.7", len=1500) / TCP(sport=80, dport=4000)
QUOTED6 = IPv6(src="2001:db8::80", dst="2001:db8:9::7", plen=1440) / TCP(sport=80, dport=4000)


def v4(message, payload=b""):
    """Return a message from a router to the quoted sender."""
    return IP(src="203.0.113.1", dst="192.0.2.80") / message / payload


def v6(message, payload=b""):
    """Return a message from a router to the quoted sender."""
    return IPv6(src="2001:db8:1::1", dst="2001:db8::80") / message / payload


@pytest.fixture(scope="session")
def icmp(decoded):
    """Return a function that decodes one frame to its row of `icmp`, None without one."""

    def row(frame, **more):
        rows = decoded(frame, **{"linktype": RAW, **more}).icmp.rows(named=True)
        return rows[0] if rows else None

    return row


@pytest.mark.parametrize("size", [0, 1, 55, 56, 57, 548, 1473, 9001])
@pytest.mark.parametrize("make", [lambda: v4(ICMP(id=5, seq=9)), lambda: v6(ICMPv6EchoRequest())])
def test_a_right_checksum_of_any_length(icmp, make, size):
    """Odd and even, over the IP length and not the padding behind it."""
    message = make() / (b"\xab" * size)
    row = icmp(bytes(Ether() / message) + b"\xcd" * 7, linktype=1)
    assert (row["icmp_checksum"], row["icmp_residual"]) == ("ok", 0)
    assert row["icmp_len"] == 8 + size


@pytest.mark.parametrize("wrong_by", [1, 8000, 0xFF00, 0xFFFE])
def test_the_residual_of_a_wrong_checksum(icmp, wrong_by):
    """What was added to the field shows, in one's complement, in both versions."""
    for frame, at in (
        (v4(ICMP(type=3, code=4), QUOTED), 22),
        (v6(ICMPv6PacketTooBig(), QUOTED6), 42),
    ):
        data = bytearray(bytes(frame))
        stored = int.from_bytes(data[at : at + 2], "big") + wrong_by
        stored = (stored & 0xFFFF) + (stored >> 16)
        data[at : at + 2] = stored.to_bytes(2, "big")
        row = icmp(bytes(data))
        assert (row["icmp_checksum"], row["icmp_residual"]) == ("bad", wrong_by)
        assert row["icmp_checksum_field"] == stored


def test_the_pseudo_header_counts(icmp):
    """An ICMPv6 message whose address changed on its way is wrong by the change."""
    data = bytearray(bytes(v6(ICMPv6EchoRequest())))
    data[39] += 3
    row = icmp(bytes(data))
    assert (row["icmp_checksum"], row["icmp_residual"]) == ("bad", 3)


def test_what_was_not_kept_cannot_be_verified(icmp):
    """One byte is enough; the residual is not known either."""
    data = bytes(v4(ICMP(), b"x" * 100))
    row = icmp(data[:-1], wire_len=[len(data)])
    assert (row["icmp_checksum"], row["icmp_residual"]) == ("unverifiable", None)
    assert (row["icmp_len"], row["icmp_ident"]) == (108, 0)


def test_fragments_cannot_be_verified(icmp, decoded):
    """The first is a message with an open checksum, a later one is none."""
    first, later = fragment(v4(ICMP(), b"x" * 1000), 600)
    assert icmp(first)["icmp_checksum"] == "unverifiable"
    tables = decoded(later, linktype=RAW)
    assert tables.icmp.height == 0
    assert tables.packets["icmp_type"].to_list() == [None]
    six = IPv6() / IPv6ExtHdrFragment(m=1, nh=58) / ICMPv6EchoRequest() / b"x"
    assert icmp(six)["icmp_checksum"] == "unverifiable"


def test_a_guessed_length_condemns_nothing(icmp):
    """IP length 0: a sum that comes out right is right, another may cover padding."""
    frame = bytes(Ether() / IP(len=0) / ICMP() / b"abcd")
    assert icmp(frame, linktype=1)["icmp_checksum"] == "ok"
    assert icmp(frame + b"\1\2", linktype=1)["icmp_checksum"] == "unverifiable"


def test_a_routing_header_condemns_nothing(icmp):
    """The checksum is about the final destination, which the header may hide."""
    hop = IPv6ExtHdrRouting(addresses=["2001:db8::9"], segleft=1)
    data = bytes(IPv6(dst="2001:db8::1") / hop / ICMPv6EchoRequest(cksum=0x1234))
    assert icmp(data)["icmp_checksum"] == "unverifiable"


def test_type_code_and_echo_numbers(decoded):
    """Identifier and sequence number are an echo's only."""
    tables = decoded(
        v4(ICMP(type=8, id=5, seq=9)),
        v4(ICMP(type=0, id=6, seq=10)),
        v6(ICMPv6EchoRequest(id=7, seq=11)),
        v6(ICMPv6EchoReply(id=8, seq=12)),
        v4(ICMP(type=13, id=5, seq=9)),
        v4(ICMP(type=11, code=1), QUOTED),
        v6(ICMPv6TimeExceeded(code=1), QUOTED6),
        linktype=RAW,
    )
    assert tables.packets["icmp_type"].to_list() == [8, 0, 128, 129, 13, 11, 3]
    assert tables.packets["icmp_code"].to_list() == [0, 0, 0, 0, 0, 1, 1]
    assert tables.icmp["icmp_ident"].to_list() == [5, 6, 7, 8, None, None, None]
    assert tables.icmp["icmp_sequence"].to_list() == [9, 10, 11, 12, None, None, None]
    assert tables.packets["src_port"].null_count() == 7


def test_the_other_versions_protocol_is_no_message(decoded):
    """ICMPv6 in IPv4 and ICMP in IPv6 are not ICMP."""
    tables = decoded(IP(proto=58) / bytes(ICMP()), IPv6(nh=1) / bytes(ICMP()), linktype=RAW)
    assert tables.icmp.height == 0
    assert tables.packets["icmp_type"].null_count() == 2


def test_next_hop_mtu(icmp):
    """Of type 3 code 4 and of Packet Too Big, 0 included; of nothing else."""
    assert icmp(v4(ICMP(type=3, code=4, nexthopmtu=1400), QUOTED))["next_hop_mtu"] == 1400
    assert icmp(v4(ICMP(type=3, code=4, nexthopmtu=0), QUOTED))["next_hop_mtu"] == 0
    assert icmp(v6(ICMPv6PacketTooBig(mtu=0x12345), QUOTED6))["next_hop_mtu"] == 0x12345
    assert icmp(v4(ICMP(type=3, code=3, nexthopmtu=1400), QUOTED))["next_hop_mtu"] is None
    assert icmp(v6(ICMPv6DestUnreach(), QUOTED6))["next_hop_mtu"] is None


def test_redirects(icmp):
    """The gateway, and the destination it is for: from the quote, or from ICMPv6's own field."""
    row = icmp(v4(ICMP(type=5, code=1, gw="192.0.2.254"), QUOTED))
    assert ip_text(row["gateway_hi"], row["gateway_lo"]) == "192.0.2.254"
    assert ip_text(row["quoted_dst_hi"], row["quoted_dst_lo"]) == "198.51.100.7"
    bare = ICMPv6ND_Redirect(tgt="fe80::254", dst="2001:db8:9::7")
    row = icmp(v6(bare))
    assert ip_text(row["gateway_hi"], row["gateway_lo"]) == "fe80::254"
    assert ip_text(row["quoted_dst_hi"], row["quoted_dst_lo"]) == "2001:db8:9::7"
    assert row["quoted_version"] is row["quoted_src_lo"] is row["quoted_len"] is None
    row = icmp(v6(bare / ICMPv6NDOptRedirectedHdr(pkt=bytes(QUOTED6) + b"x" * 4)))
    assert (row["quoted_version"], row["quoted_src_port"], row["quoted_len"]) == (6, 80, 64)
    assert ip_text(row["quoted_dst_hi"], row["quoted_dst_lo"]) == "2001:db8:9::7"


def _extended(length_units: int, quote: bytes, *, right: bool = True) -> bytes:
    """Return ICMP behind its checksum field: a length, a quote, an extension with a label."""
    objects = struct.pack(">HBBI", 8, 1, 1, 0x00064140)
    blank = b"\x20\0\0\0" + objects
    total = checksum(blank) if right else checksum(blank) ^ 1
    extension = b"\x20\0" + total.to_bytes(2, "big") + objects
    return bytes([0, length_units, 0, 0]) + quote + extension


def v4_extended(kind, units, quote, **more):
    """Return an ICMP error that an extension follows."""
    return (
        IP()
        / ICMP(bytes([kind, 0, 0, 0]) + _extended(units, quote, **more)[:4])
        / (_extended(units, quote, **more)[4:])
    )


@pytest.mark.parametrize("kind", [3, 11, 12])
def test_extensions_end_the_quote(icmp, kind):
    """RFC 4884: the length says where the extension begins, padding is not the quoted packet."""
    quote = bytes(IP(len=60) / UDP(sport=1, dport=2)).ljust(128, b"\0")
    row = icmp(v4_extended(kind, 32, quote))
    assert (row["extension_offset"], row["quoted_len"], row["quoted_src_port"]) == (136, 60, 1)
    longer = icmp(v4_extended(kind, 40, bytes(QUOTED).ljust(160, b"x")))
    assert (longer["extension_offset"], longer["quoted_len"]) == (168, 160)


def test_extensions_of_icmpv6_count_in_eight_bytes(icmp):
    """And stand in the first byte behind the checksum; Packet Too Big has none."""
    quote = bytes(QUOTED6).ljust(128, b"x")
    body = bytearray(_extended(0, quote))
    body[0] = 16
    row = icmp(IPv6() / ICMPv6TimeExceeded(bytes([3, 0, 0, 0]) + bytes(body[:4])) / bytes(body[4:]))
    assert (row["extension_offset"], row["quoted_len"]) == (136, 128)
    row = icmp(IPv6() / ICMPv6PacketTooBig(bytes([2, 0, 0, 0]) + bytes(body[:4])) / bytes(body[4:]))
    assert (row["extension_offset"], row["quoted_len"]) == (None, 140)


def test_extensions_without_a_length_need_a_checksum(icmp):
    """Senders from before the RFC put them behind 128 bytes; quoted bytes may look like one."""
    quote = bytes(QUOTED).ljust(128, b"x")
    assert icmp(v4_extended(11, 0, quote))["extension_offset"] == 136
    other = icmp(v4_extended(11, 0, quote, right=False))
    assert (other["extension_offset"], other["quoted_len"]) == (None, 140)
    echo = icmp(v4_extended(8, 32, quote))
    assert echo["extension_offset"] is None


def test_a_length_without_an_extension_is_not_believed(icmp):
    """A byte that once was unused: what stands there is quote."""
    body = bytearray(_extended(32, bytes(QUOTED).ljust(128, b"x")))
    body[132] = 0x40
    row = icmp(IP() / ICMP(bytes([3, 1, 0, 0]) + bytes(body[:4])) / bytes(body[4:]))
    assert (row["extension_offset"], row["quoted_len"]) == (None, 140)


def test_a_cut_capture_ends_the_quote_where_the_message_says(icmp):
    """Whether an extension follows is not known, how long the quote was is."""
    data = bytes(v4_extended(3, 32, bytes(QUOTED).ljust(128, b"x")))
    row = icmp(data[:90], wire_len=[len(data)])
    assert (row["extension_offset"], row["quoted_len"], row["quoted_src_port"]) == (None, 128, 80)


@pytest.mark.parametrize("kept", range(1, 8))
def test_a_cut_header_keeps_what_was_kept(decoded, kept):
    """The type is one byte, the checksum field needs four."""
    data = bytes(v4(ICMP(type=3, code=4, nexthopmtu=1400), QUOTED))
    tables = decoded(data[: 20 + kept], linktype=RAW, wire_len=[len(data)])
    (row,) = tables.icmp.rows(named=True)
    packet = tables.packets.row(0, named=True)
    assert packet["icmp_type"] == 3
    assert packet["icmp_code"] == (4 if kept >= 2 else None)
    assert (row["icmp_checksum_field"] is None) == (kept < 4)
    assert row["next_hop_mtu"] is row["quoted_version"] is row["quoted_len"] is None
    assert packet["decode_note"] == DecodeNote.TRANSPORT_CUT | DecodeNote.QUOTE_CUT


def test_behind_extension_headers(icmp):
    """An ICMPv6 message may follow a Destination Options header."""
    row = icmp(IPv6(dst="2001:db8::1") / IPv6ExtHdrDestOpt() / ICMPv6EchoRequest(id=3))
    assert (row["icmp_ident"], row["icmp_checksum"]) == (3, "ok")
