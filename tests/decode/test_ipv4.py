"""IPv4 headers: every field, and every way in which lengths contradict each other."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.l2 import Ether

from pcapdiag.addresses import ip_text
from pcapdiag.decode_note import DecodeNote

RAW = 101


def ip(**more):
    """Return an IPv4 header between the two hosts."""
    return IP(src="192.0.2.1", dst="198.51.100.2", **more)


def test_every_field(packet):
    """Each column holds its field of the header."""
    frame = Ether() / ip(id=4711, ttl=9, tos=0xB9, flags="DF") / UDP(sport=1, dport=2) / b"abc"
    row = packet(frame)
    assert (row["ip_version"], row["ip_proto"], row["ip_len"], row["ip_header_len"]) == (
        4,
        17,
        31,
        20,
    )
    assert ip_text(row["src_hi"], row["src_lo"]) == "192.0.2.1"
    assert ip_text(row["dst_hi"], row["dst_lo"]) == "198.51.100.2"
    assert (row["ip_id"], row["ttl"], row["tos"]) == (4711, 9, 0xB9)
    assert (row["df"], row["mf"], row["frag_offset"]) == (True, False, 0)
    assert (row["ip_checksum"], row["decode_note"]) == ("ok", 0)


@pytest.mark.parametrize("words", [1, 4, 10])
def test_options_are_stepped_over(packet, words):
    """The transport header stands behind them, and the checksum covers them."""
    header = ip(options=[IPOption_NOP()] * (4 * words))
    row = packet(header / TCP(sport=5, dport=6) / b"abcd", linktype=RAW)
    assert (row["ip_header_len"], row["src_port"], row["payload_len"]) == (20 + 4 * words, 5, 4)
    assert row["ip_checksum"] == "ok"


@pytest.mark.parametrize("at", [1, 4, 8, 19, 23])
def test_one_wrong_bit_fails_the_checksum(packet, at):
    """In the fixed header as in the options."""
    data = bytearray(bytes(ip(options=[IPOption_NOP()] * 4, tos=4) / UDP()))
    data[at] ^= 0x01
    row = packet(bytes(data), linktype=RAW)
    assert row["ip_checksum"] == "bad"


def test_options_that_were_not_kept_leave_the_checksum_open(packet):
    """The header is known, what it sums to is not."""
    data = bytes(ip(options=[IPOption_NOP()] * 8) / UDP(sport=7))
    row = packet(data[:24], linktype=RAW, wire_len=[len(data)])
    assert row["ip_checksum"] == "unverifiable"
    assert (row["ttl"], row["src_port"]) == (64, None)
    assert row["decode_note"] == DecodeNote.TRANSPORT_CUT


def test_fragments(packet):
    """The first has the ports, a later one none; offsets are bytes."""
    first = packet(ip(flags="MF") / UDP(sport=7, dport=8) / (b"x" * 24), linktype=RAW)
    assert (first["mf"], first["src_port"], first["payload_len"]) == (True, 7, 24)
    assert first["decode_note"] == 0
    later = packet(ip(frag=4, proto=17) / (b"y" * 40), linktype=RAW)
    assert (later["frag_offset"], later["src_port"], later["payload_len"]) == (32, None, None)
    assert later["decode_note"] == DecodeNote.LATER_FRAGMENT
    last = packet(ip(frag=0x1FFF, proto=17) / b"y", linktype=RAW)
    assert last["frag_offset"] == 65528


def test_padding_is_not_payload(packet):
    """Ethernet fills up to 60 bytes; the IP length says what counts."""
    row = packet(bytes(Ether() / ip() / TCP()) + b"\0" * 6)
    assert (row["ip_len"], row["payload_len"], row["caplen"]) == (40, 0, 60)
    icmp = packet(bytes(Ether() / ip() / ICMP(type=8)) + b"\xff" * 18)
    assert icmp["decode_note"] == 0


def test_length_zero_is_the_frame(packet):
    """A frame captured before segmentation has no IP length yet."""
    frame = Ether() / ip(len=0) / TCP() / (b"x" * 3000)
    row = packet(frame)
    assert (row["ip_len"], row["payload_len"]) == (3040, 3000)
    assert row["decode_note"] == DecodeNote.IP_LENGTH_ZERO
    cut = packet(bytes(frame)[:80], wire_len=[3054])
    assert (cut["ip_len"], cut["payload_len"]) == (3040, 3000)


def test_an_ip_length_beyond_the_frame(packet):
    """It is believed and noted: the frame is what lies, or the packet was cut on its way."""
    row = packet(ip(len=100) / TCP() / b"abc", linktype=RAW)
    assert (row["ip_len"], row["payload_len"]) == (100, 60)
    assert row["decode_note"] == DecodeNote.IP_BEYOND_FRAME


def test_an_ip_length_within_the_header(packet):
    """No transport header can be due; the header itself is shown."""
    row = packet(ip(len=19) / TCP(), linktype=RAW)
    assert row["decode_note"] == DecodeNote.IP_BAD_HEADER
    assert (row["ip_len"], row["ttl"], row["src_port"]) == (19, 64, None)


@pytest.mark.parametrize("first", [0x44, 0x40, 0x55, 0x05, 0xF5])
def test_what_is_no_header(packet, first):
    """A header length below 20 bytes or another version: nothing is believed."""
    data = bytes([first]) + bytes(ip() / TCP())[1:]
    for frame, linktype in ((data, 228), (bytes(Ether(type=0x800)) + data, 1)):
        row = packet(frame, linktype=linktype)
        assert row["decode_note"] == DecodeNote.IP_BAD_HEADER
        assert row["ip_version"] is row["src_lo"] is row["ip_checksum"] is None


@pytest.mark.parametrize("kept", [1, 10, 19])
def test_a_cut_header_is_null(packet, kept):
    """An address of which bytes are missing is no address."""
    data = bytes(ip() / TCP())
    row = packet(data[:kept], linktype=RAW, wire_len=[len(data)])
    assert row["decode_note"] == DecodeNote.IP_CUT
    assert row["ip_version"] is row["dst_lo"] is row["ttl"] is None
