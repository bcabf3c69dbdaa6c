"""What ICMP errors quote: the same decoders in lax mode."""

from __future__ import annotations

import struct

import pytest
from scapy.layers.inet import GRE, ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.sctp import SCTP

from pcapdiag.addresses import ip_text
from pcapdiag.decode_note import DecodeNote

RAW = 101
SRC, DST = "203.0.113.10", "198.51.100.20"
GUE = struct.pack(">BBH", 0, 4, 0)


def ip(**more):
    """Return the IPv4 header of an offending packet."""
    return IP(src=SRC, dst=DST, **more)


def tcp(**more):
    """Return an offending packet of 1500 bytes."""
    return ip(len=1500, id=99, ttl=3, tos=8, flags="DF") / TCP(
        sport=80, dport=4000, seq=7, ack=8, flags="PA", chksum=0xABCD, **more
    )


@pytest.fixture(scope="session")
def quote(decoded):
    """Return a function: row of `icmp` and note of an error that quotes these bytes."""

    def row(quoted, kept=None, **more):
        quoted = bytes(quoted)
        about = IPv6(src="2001:db8::9") / ICMPv6PacketTooBig()
        if quoted[0] >> 4 == 4:
            about = IP(src="192.0.2.9") / ICMP(type=3, code=4)
        data = bytes(about / quoted)
        size = len(data) if kept is None else len(data) - len(quoted) + kept
        tables = decoded(data[:size], linktype=RAW, wire_len=[len(data)], **more)
        (found,) = tables.icmp.rows(named=True)
        return found, DecodeNote(tables.packets["decode_note"][0])

    return row


def address(row, name):
    """Return an address of a row in text."""
    return None if row[f"{name}_lo"] is None else ip_text(row[f"{name}_hi"], row[f"{name}_lo"])


def test_every_field(quote):
    """Lengths are those of the packet that was, not of the quote."""
    row, note = quote(bytes(tcp(options=[("MSS", 5)])) + b"x" * 500)
    assert (address(row, "quoted_src"), address(row, "quoted_dst")) == (SRC, DST)
    assert (row["quoted_version"], row["quoted_proto"], row["quoted_ip_len"]) == (4, 6, 1500)
    assert (row["quoted_ip_id"], row["quoted_ttl"], row["quoted_tos"]) == (99, 3, 8)
    assert (row["quoted_df"], row["quoted_frag_offset"]) == (True, 0)
    assert (row["quoted_src_port"], row["quoted_dst_port"]) == (80, 4000)
    assert (row["quoted_tcp_seq"], row["quoted_tcp_ack"], row["quoted_tcp_flags"]) == (7, 8, 0x18)
    assert (row["quoted_payload_len"], row["quoted_transport_checksum"]) == (1456, 0xABCD)
    assert (row["quoted_len"], row["quoted_tunnel"]) == (544, None)
    assert address(row, "quoted_outer_src") is None
    assert note == 0


def test_the_shortest_quote_that_rfc_792_allows(quote):
    """Eight bytes of transport: ports and sequence number, and no fault."""
    row, note = quote(bytes(tcp())[:28])
    assert (row["quoted_src_port"], row["quoted_tcp_seq"]) == (80, 7)
    assert row["quoted_tcp_ack"] is row["quoted_tcp_flags"] is row["quoted_payload_len"] is None
    assert (row["quoted_transport_checksum"], row["quoted_len"]) == (None, 28)
    assert note == 0


@pytest.mark.parametrize(
    ("size", "version", "ports"),
    [(0, None, False), (19, None, False), (23, 4, False), (24, 4, True)],
)
def test_quotes_that_end_too_early(quote, size, version, ports):
    """Before the ports, or before the header's end: noted, and null."""
    row, note = quote(bytes(tcp())[: max(size, 1)]) if size else quote(b"\x45")
    assert row["quoted_version"] == version
    assert (row["quoted_src_port"] is not None) == ports
    assert row["quoted_len"] == max(size, 1)
    assert note == (0 if ports else DecodeNote.QUOTE_CUT)


def test_a_message_that_quotes_nothing(decoded):
    """Eight bytes of ICMP and no more."""
    tables = decoded(IP() / ICMP(type=3, code=1), linktype=RAW)
    assert tables.icmp["quoted_len"].to_list() == [None]
    assert tables.packets["decode_note"].to_list() == [DecodeNote.QUOTE_CUT]


@pytest.mark.parametrize("kept", [0, 19, 23, 28, 40, 60])
def test_a_cut_capture_is_not_a_short_quote(quote, kept):
    """How much was quoted is known from the message's length, where the header says whose."""
    row, note = quote(bytes(tcp()) + b"x" * 500, kept=kept)
    assert row["quoted_len"] == (540 if kept >= 20 else None)
    assert (row["quoted_src_port"] is not None) == (kept >= 24)
    assert (row["quoted_tcp_flags"] is not None) == (kept >= 34)
    assert row["icmp_checksum"] == "unverifiable"
    assert note == (0 if kept >= 24 else DecodeNote.QUOTE_CUT)


def test_padding_behind_the_quoted_packet_is_no_quote(quote):
    """A packet shorter than the quote ends where its own length says."""
    row, _ = quote(bytes(ip(len=33) / UDP(sport=1, dport=2) / b"abcde") + b"\0" * 95)
    assert (row["quoted_len"], row["quoted_payload_len"]) == (33, 5)


@pytest.mark.parametrize(
    ("transport", "ports", "payload"),
    [
        (UDP(sport=5, dport=6), (5, 6), 1472),
        (SCTP(sport=5, dport=6), (5, 6), 1468),
        (ICMP(type=8, id=5), (None, None), None),
    ],
)
def test_other_transports(quote, transport, ports, payload):
    """Where there are no ports none are missing."""
    row, note = quote(ip(len=1500) / transport)
    assert (row["quoted_src_port"], row["quoted_dst_port"]) == ports
    assert row["quoted_payload_len"] == payload
    assert (row["quoted_tcp_seq"], row["quoted_tcp_flags"], note) == (None, None, 0)


def test_quoted_options_and_fragments(quote):
    """Options are stepped over; a later fragment has no ports and lacks none."""
    row, _ = quote(ip(options=[IPOption_NOP()] * 8, len=100) / UDP(sport=5, dport=6))
    assert (row["quoted_src_port"], row["quoted_payload_len"]) == (5, 64)
    row, note = quote(ip(frag=10, len=100, proto=6) / (b"x" * 20))
    assert (row["quoted_frag_offset"], row["quoted_src_port"], note) == (80, None, 0)


def test_the_quoted_header_checksum(quote):
    """A bad one is said, and does not touch the verdict on the message."""
    row, _ = quote(tcp())
    assert (row["quoted_ip_checksum"], row["icmp_checksum"]) == ("ok", "ok")
    data = bytearray(bytes(tcp()))
    data[8] -= 1
    row, _ = quote(data)
    assert (row["quoted_ip_checksum"], row["icmp_checksum"]) == ("bad", "ok")
    row, _ = quote(bytes(ip(options=[IPOption_NOP()] * 8) / UDP())[:24])
    assert row["quoted_ip_checksum"] == "unverifiable"


def test_a_quoted_length_of_zero_says_nothing(quote):
    """Only its sender knew how long the packet was."""
    row, note = quote(ip(len=0) / TCP(sport=80) / b"x")
    assert row["quoted_ip_len"] is row["quoted_payload_len"] is None
    assert (row["quoted_src_port"], note) == (80, 0)


@pytest.mark.parametrize("first", [0x44, 0x65, 0x05])
def test_what_is_no_header(decoded, first):
    """The message stands, and says that its quote is none."""
    quoted = bytes([first]) + bytes(tcp())[1:]
    tables = decoded(IP() / ICMP(type=3, code=1) / quoted, linktype=RAW)
    (row,) = tables.icmp.rows(named=True)
    assert row["quoted_version"] is row["quoted_src_lo"] is row["quoted_src_port"] is None
    assert (row["quoted_len"], row["icmp_checksum"]) == (40, "ok")
    assert tables.packets["decode_note"].to_list() == [DecodeNote.QUOTE_BAD_HEADER]
    assert tables.packets["ip_version"].to_list() == [4]


def test_quotes_of_ipv6(quote):
    """Extension headers are stepped over, fragments known."""
    about = IPv6(src="2001:db8::1", dst="2001:db8::2", plen=1460, hlim=7, tc=8)
    row, note = quote(about / IPv6ExtHdrDestOpt() / TCP(sport=80, dport=4000))
    assert (address(row, "quoted_src"), row["quoted_ip_len"]) == ("2001:db8::1", 1500)
    assert (row["quoted_proto"], row["quoted_ttl"], row["quoted_tos"]) == (6, 7, 8)
    assert (row["quoted_src_port"], row["quoted_payload_len"], note) == (80, 1432, 0)
    assert (row["quoted_ip_checksum"], row["quoted_ip_id"], row["quoted_df"]) == (None, None, True)
    row, note = quote(about / IPv6ExtHdrFragment(id=9, offset=10, nh=6) / (b"x" * 20))
    assert (row["quoted_ip_id"], row["quoted_frag_offset"], note) == (9, 80, 0)
    row, note = quote(bytes(about / IPv6ExtHdrDestOpt() / TCP())[:44])
    assert (row["quoted_version"], row["quoted_proto"], note) == (6, None, DecodeNote.QUOTE_CUT)


OUTER = IP(src="10.0.0.1", dst="10.0.0.2", len=1520)
TUNNELLED = {
    "ipip": OUTER / tcp(),
    "gre": OUTER / GRE() / tcp(),
    "gue": OUTER / UDP(sport=1, dport=6080) / GUE / tcp(),
}


@pytest.mark.parametrize(("kind", "quoted"), TUNNELLED.items(), ids=TUNNELLED)
def test_quoted_tunnels(quote, kind, quoted):
    """The quoted_ columns are the innermost packet's, the outer addresses stand beside."""
    row, note = quote(bytes(quoted) + b"x" * 8)
    assert (row["quoted_tunnel"], address(row, "quoted_src")) == (kind, SRC)
    assert address(row, "quoted_outer_src") == "10.0.0.1"
    assert address(row, "quoted_outer_dst") == "10.0.0.2"
    assert (row["quoted_src_port"], row["quoted_tcp_seq"], row["quoted_ip_len"]) == (80, 7, 1500)
    assert row["quoted_len"] == len(bytes(quoted)) + 8
    assert note == 0


@pytest.mark.parametrize(("kind", "quoted"), TUNNELLED.items(), ids=TUNNELLED)
def test_a_quote_of_28_bytes_hides_a_tunnelled_packet(quote, kind, quoted):
    """Eight bytes behind the outer header do not hold the inner addresses."""
    row, note = quote(bytes(quoted)[:28])
    if kind == "gue":  # not even the GUE header: whether there is one is not known
        assert row["quoted_tunnel"] == "gue"
    assert row["quoted_tunnel"] == kind
    assert row["quoted_version"] is row["quoted_src_lo"] is row["quoted_src_port"] is None
    assert address(row, "quoted_outer_dst") == "10.0.0.2"
    assert (row["quoted_len"], note) == (28, DecodeNote.QUOTE_CUT)


def test_errors_inside_tunnels(decoded):
    """The error is the innermost packet; its quote is read like any other."""
    error = IP(src="192.0.2.9") / ICMP(type=3, code=4) / tcp()
    tables = decoded(OUTER.copy() / error, linktype=RAW)
    assert tables.packets["tunnel"].to_list() == ["ipip"]
    assert tables.packets["icmp_type"].to_list() == [3]
    assert tables.icmp["quoted_src_port"].to_list() == [80]
    assert tables.icmp["quoted_tunnel"].to_list() == [None]
