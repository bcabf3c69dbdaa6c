"""UDP headers."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, UDP

from pcapdiag.decode_note import DecodeNote

RAW = 101


def datagram(**more):
    """Return a datagram with three bytes of payload."""
    return IP() / UDP(sport=1000, dport=53, **more) / b"abc"


def test_every_field(packet):
    """Each column holds its field; what TCP has is null."""
    row = packet(datagram(chksum=0xBEEF), linktype=RAW)
    assert (row["src_port"], row["dst_port"], row["payload_len"]) == (1000, 53, 3)
    assert (row["transport_checksum"], row["tcp_seq"], row["tcp_flags"]) == (0xBEEF, None, None)
    assert (row["decode_note"], row["tcp_sack_permitted"]) == (0, None)


@pytest.mark.parametrize("length", [1, 7, 12, 0xFFFF])
def test_a_length_that_cannot_be(packet, length):
    """Below the header or beyond the packet; the payload is what the IP length says."""
    row = packet(datagram(len=length), linktype=RAW)
    assert row["decode_note"] == DecodeNote.UDP_BAD_LENGTH
    assert row["payload_len"] == 3


@pytest.mark.parametrize("length", [0, 8, 10])
def test_lengths_that_are_no_fault(packet, length):
    """0 is a jumbogram's; less than the IP length leaves bytes unused."""
    assert packet(datagram(len=length), linktype=RAW)["decode_note"] == 0


def test_a_first_fragment_has_the_whole_datagrams_length(packet):
    """Which is more than the packet's own and no fault."""
    row = packet(IP(flags="MF") / UDP(len=4000) / (b"x" * 1472), linktype=RAW)
    assert (row["decode_note"], row["payload_len"]) == (0, 1472)


@pytest.mark.parametrize(
    ("kept", "port", "checksum"), [(3, None, None), (4, 53, None), (7, 53, None)]
)
def test_a_cut_header_keeps_what_was_kept(packet, kept, port, checksum):
    """A field counts where all of its bytes are there."""
    data = bytes(datagram())
    row = packet(data[: 20 + kept], linktype=RAW, wire_len=[len(data)])
    assert (row["dst_port"], row["transport_checksum"], row["payload_len"]) == (port, checksum, 3)
    assert row["decode_note"] == DecodeNote.TRANSPORT_CUT


def test_an_ip_length_within_the_header(packet):
    """What is behind the packet's end is not the datagram's."""
    row = packet(IP(len=24, proto=17) / bytes(UDP(sport=1000, dport=53)), linktype=RAW)
    assert (row["src_port"], row["transport_checksum"], row["payload_len"]) == (1000, None, None)
    assert row["decode_note"] == DecodeNote.TRANSPORT_CUT
