"""scapy's words, where Wireshark has none."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from pcapdiag.dissect import MAX_LINES, Frame, by_scapy

ERROR = bytes(
    Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    / IP(src="192.0.2.1", dst="192.0.2.2")
    / ICMP(type=3, code=4, nexthopmtu=1400)
    / IP(src="192.0.2.2", dst="192.0.2.9", flags="DF")
    / TCP(sport=80, dport=4711)
    / Raw(b"secret" * 90)
)


def test_error_with_its_quote():
    """Layers are headings, fields are indented, payload is left out."""
    found = by_scapy(Frame(ERROR, 1, len(ERROR)))
    assert found[0] == "Ethernet"
    assert "    nexthopmtu: 1400" in found
    assert "TCP in ICMP" in found
    assert "secret" not in "\n".join(found)
    assert not any("ts_ori" in line for line in found)  # of a timestamp message


@pytest.mark.parametrize("linktype", [1, 101, 113, 147, 65000])
def test_hostile_bytes_give_no_error(linktype):
    """Whatever the bytes and the link type, there are lines or none."""
    for data in (b"", b"\xff" * 200, ERROR[:30], bytes(70)):
        assert len(by_scapy(Frame(data, linktype, len(data)))) <= MAX_LINES
