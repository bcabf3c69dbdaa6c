"""The common header of SCTP."""

from __future__ import annotations

from scapy.layers.inet import IP
from scapy.layers.sctp import SCTP

from pcapdiag.decode_note import DecodeNote

RAW = 101
FRAME = IP(proto=132) / bytes(SCTP(sport=1000, dport=2905, chksum=1)) / b"abcdefgh"


def test_ports_and_payload(packet):
    """The ports are there; the checksum of 32 bits is not a transport checksum."""
    row = packet(FRAME, linktype=RAW)
    assert (row["src_port"], row["dst_port"], row["payload_len"]) == (1000, 2905, 8)
    assert (row["transport_checksum"], row["decode_note"]) == (None, 0)


def test_a_cut_header_keeps_the_ports(packet):
    """They are its first four bytes."""
    row = packet(bytes(FRAME)[:28], linktype=RAW, wire_len=[40])
    assert (row["src_port"], row["payload_len"]) == (1000, 8)
    assert row["decode_note"] == DecodeNote.TRANSPORT_CUT
