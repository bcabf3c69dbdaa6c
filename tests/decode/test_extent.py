"""Where headers end: scapy builds the packets, so it knows."""

from __future__ import annotations

import numpy as np
import pytest
from scapy.layers.inet import GRE, ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6ND_NS, IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.layers.sctp import SCTP
from scapy.packet import Raw

from pcapdiag.capture.frames import FrameBatch
from pcapdiag.decode import extent

ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")  # else scapy asks by ARP
ETHER_LLDP = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02", type=0x88CC)
SECRET = Raw(b"secret" * 20)
TIMESTAMP = [("NOP", None), ("NOP", None), ("Timestamp", (1, 2))]
V4 = IP(src="192.0.2.1", dst="192.0.2.2")
V6 = IPv6(src="2001:db8::1", dst="2001:db8::2")
GUE = V4 / UDP(sport=5000, dport=6080) / Raw(bytes([0, 4, 0, 0]))


def _extents(frames, linktype=1, kept=None):
    kept = kept or frames
    lengths = np.array([len(frame) for frame in kept])
    zero = np.zeros(len(frames))
    return extent.of(
        FrameBatch(
            data=np.frombuffer(b"".join(kept), np.uint8),
            start=(np.cumsum(lengths) - lengths).astype(np.int64),
            caplen=lengths.astype(np.uint32),
            wire_len=np.array([len(frame) for frame in frames], np.uint32),
            time_ns=zero.astype(np.int64),
            linktype=(zero + linktype).astype(np.uint16),
            fcs_len=zero.astype(np.uint8),
            interface=zero.astype(np.uint16),
            frame=np.arange(1, len(frames) + 1, dtype=np.uint32),
            direction=zero.astype(np.uint8),
            note=zero.astype(np.uint32),
        )
    )


@pytest.mark.parametrize(
    ("headers", "payload"),
    [
        (ETHER / V4 / TCP(options=TIMESTAMP), SECRET),
        (ETHER / Dot1Q(vlan=7) / V4 / TCP(), SECRET),
        (ETHER / V4 / UDP(), SECRET),
        (ETHER / V4 / SCTP(), SECRET),
        (ETHER / V6 / IPv6ExtHdrDestOpt() / TCP(), SECRET),
        (ETHER / V4 / IP(src="10.0.0.1", dst="10.0.0.2") / TCP(), SECRET),
        (ETHER / V4 / GRE() / IP(src="10.0.0.1", dst="10.0.0.2") / TCP(), SECRET),
        (ETHER / GUE / IP(src="10.0.0.1", dst="10.0.0.2") / TCP(), SECRET),
        (ETHER / IP(proto=50), SECRET),  # ESP: nothing known behind IP
        (ETHER / IP(frag=100, proto=6), SECRET),  # a later fragment
        (ETHER_LLDP, SECRET),  # LLDP
    ],
    ids=lambda layers: layers.summary()[:40],
)
def test_headers_end_where_the_payload_begins(headers, payload):
    """What is behind the last header is no header, tunnelled or not."""
    found = _extents([bytes(headers / payload)])
    assert found.headers.tolist() == [len(bytes(headers))]


@pytest.mark.parametrize(
    "frame",
    [
        ETHER / V4 / ICMP(type=3, code=4) / IP(src="192.0.2.2", dst="192.0.2.9") / TCP() / SECRET,
        ETHER / V4 / ICMP(type=8) / SECRET,
        ETHER / V6 / ICMPv6ND_NS(tgt="2001:db8::1"),
        ETHER / ARP(psrc="192.0.2.1", pdst="192.0.2.2"),
    ],
    ids=lambda layers: layers.summary()[:40],
)
def test_messages_about_the_network_are_whole(frame):
    """ICMP, neighbour discovery and ARP carry nobody's data."""
    found = _extents([bytes(frame)])
    assert found.headers.tolist() == [len(bytes(frame))]


def test_inner_header_is_found_behind_a_tunnel():
    """`inner` is where the innermost IP header begins; `tunnelled`: another lies outside."""
    inside = IP(src="10.0.0.1", dst="10.0.0.2") / TCP()
    frames = [bytes(ETHER / GUE / inside), bytes(ETHER / V4 / TCP()), bytes(ETHER_LLDP)]
    found = _extents(frames)
    assert found.inner.tolist() == [14 + 20 + 8 + 4, 14, 0]
    assert found.tunnelled.tolist() == [True, False, False]
    assert found.version.tolist() == [4, 4, 0]


@pytest.mark.parametrize("linktype", [1, 113, 147])
def test_cut_frames_have_no_more_headers_than_bytes(linktype):
    """Whatever is missing, no extent reaches beyond what was kept, and nothing is raised."""
    whole = bytes(ETHER / GUE / V4 / TCP(options=TIMESTAMP) / SECRET)
    cuts = range(len(whole))
    found = _extents([whole] * len(whole), linktype, [whole[:cut] for cut in cuts])
    assert (found.headers >= 0).all()
    assert (found.headers <= np.array(cuts)).all()
    assert (found.inner <= np.array(cuts)).all()
