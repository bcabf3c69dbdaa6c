"""Cited frames in the decoder's words."""

from __future__ import annotations

from stories import case

from pcapdiag.case.shown.words import described
from pcapdiag.result import Cause, Confidence, Dissection, Evidence, Finding, Severity

STORY = """
    0.000 s>c A seq=1 ack=81 len=1448 id=50 ttl=63 mac=rs>d
    0.001 r>s icmp 3/4 mtu=1400 quote=1 mac=x>d
    0.002 c>s udp len=100 vlan=7
    0.003 c>s S seq=0 mss=1460 tun=ipip:d>rs
    0.004 r>s icmp 5/1 gw=x quote=1
"""


def _lines(frame, **more):
    finding = Finding(
        title="t",
        summary="s",
        cause=Cause(code="c", text="c"),
        severity=Severity.HIGH,
        confidence=Confidence.HIGH,
        evidence=(
            Evidence(
                role="primary",
                vantage="director",
                file="director.pcap",
                frame=frame,
                note="n",
                **more,
            ),
        ),
    )
    words = described(case(director=STORY), finding).evidence[0].dissection
    return words if words is None else words.lines


def test_segment():
    """Addresses, sizes, DF and sequence numbers are those of the packet."""
    _, _, network, transport = _lines(1)
    assert network.startswith("IPv4: 203.0.113.10 > 198.51.100.20, length 1488, ID 0x0032, TTL 63")
    assert ", DF" in network
    assert transport.startswith("TCP: 80 > 40000, seq 1001, ack 1081, flags ACK, window ")
    assert transport.endswith("1448 bytes of data")


def test_error_with_its_quote():
    """Code, MTU and checksum, and the packet that it is about."""
    lines = _lines(2)
    assert lines[3] == "ICMP: fragmentation needed (3/4), checksum ok, next-hop MTU 1400"
    assert lines[4].startswith("    quotes IPv4: 203.0.113.10 > 198.51.100.20, length 1488")
    assert lines[5] == "    quotes TCP: 203.0.113.10:80 > 198.51.100.20:40000, seq 1001"


def test_rarer_headers():
    """VLAN, tunnel, MSS and a redirect's gateway are named."""
    assert any("VLAN 7" in line for line in _lines(3)) or any("UDP" in line for line in _lines(3))
    assert "Tunnel: ipip; what follows is inside" in _lines(4)
    assert any("MSS 1460" in line for line in _lines(4))
    assert any("gateway 203.0.113.1" in line for line in _lines(5))


def test_what_a_dissector_said_stays():
    """Other words are kept; a frame that is not there has none."""
    assert _lines(1, dissection=Dissection(tool="Wireshark", lines=("x",))) == ("x",)
    assert _lines(99) is None
