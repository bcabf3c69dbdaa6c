"""TCP and UDP checksums, verified on demand; scapy made them."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Raw

from pcapdiag.capture.frames import FrameBatch
from pcapdiag.decode import verify
from pcapdiag.decode.checksum import Verdict

TCP4 = Ether() / IP(src="192.0.2.1", dst="192.0.2.2") / TCP(dport=80) / Raw(b"odd")
UDP4 = Ether() / IP(src="192.0.2.1", dst="192.0.2.2") / UDP(dport=53) / Raw(b"x" * 40)
TCP6 = Ether() / IPv6(src="2001:db8::1", dst="2001:db8::2") / TCP(dport=80) / Raw(b"data")
UDP6 = Ether() / IPv6(src="2001:db8::1", dst="2001:db8::2") / UDP(dport=53) / Raw(b"data")
WRAPPED = (
    Ether() / IP(src="198.51.100.1", dst="198.51.100.2") / UDP(sport=9, dport=4789) / VXLAN() / TCP4
)


def batch(*frames: bytes, kept: int | None = None) -> FrameBatch:
    """Return frames one behind the other, cut to `kept` bytes each if asked."""
    cut = [frame[:kept] for frame in frames]
    length = np.array([len(frame) for frame in cut], np.uint32)
    count = len(frames)
    return FrameBatch(
        data=np.frombuffer(b"".join(cut), np.uint8),
        start=np.cumsum(length, dtype=np.int64) - length,
        caplen=length,
        wire_len=np.array([len(frame) for frame in frames], np.uint32),
        time_ns=np.zeros(count, np.int64),
        linktype=np.ones(count, np.uint16),
        fcs_len=np.zeros(count, np.uint8),
        interface=np.zeros(count, np.uint16),
        frame=np.arange(1, count + 1, dtype=np.uint32),
        direction=np.zeros(count, np.uint8),
        note=np.zeros(count, np.uint32),
    )


def sums(*frames, **more):
    """Return what verifying all frames says."""
    made = batch(*(bytes(frame) for frame in frames), **more)
    return verify.verify(made, np.arange(len(made)))


def changed(packet, offset, word):
    """Return a frame's bytes with 16 bits at `offset` replaced."""
    data = bytearray(bytes(packet))
    struct.pack_into("!H", data, offset, word)
    return bytes(data)


@pytest.mark.parametrize("packet", [TCP4, UDP4, TCP6, UDP6], ids=["tcp4", "udp4", "tcp6", "udp6"])
def test_right_and_wrong(packet):
    """As scapy made it, and with one payload byte changed."""
    wrong = bytes(packet)[:-1] + b"!"
    found = sums(packet, wrong)
    assert found.verdict.tolist() == [Verdict.OK, Verdict.BAD]
    assert not found.partial.any()


def test_the_residual_is_what_was_changed():
    """The destination port became 8080 and the checksum did not: stored minus expected."""
    moved = changed(TCP4, 14 + 20 + 2, 8080)
    assert sums(moved).residual.tolist() == [8080 - 80]


def test_a_sum_that_the_card_was_to_complete():
    """CHECKSUM_PARTIAL: the pseudo-header's sum, not complemented."""
    segment = bytes(TCP4[IP])[20:]
    head = bytes([192, 0, 2, 1, 192, 0, 2, 2]) + struct.pack("!HH", 6, len(segment))
    total = sum(struct.unpack("!6H", head))
    total = (total & 0xFFFF) + (total >> 16)
    found = sums(changed(TCP4, 14 + 20 + 16, total))
    assert found.verdict.tolist() == [Verdict.BAD]
    assert found.partial.tolist() == [True]


def test_what_cannot_be_verified():
    """Cut frames and first fragments are unverifiable; a UDP checksum of 0 is none."""
    assert sums(TCP4, kept=50).verdict.tolist() == [Verdict.UNVERIFIABLE]
    first = Ether() / IP(flags="MF") / UDP(dport=53, len=3000) / Raw(b"x" * 40)
    assert sums(first).verdict.tolist() == [Verdict.UNVERIFIABLE]
    assert sums(changed(UDP4, 14 + 20 + 6, 0)).verdict.tolist() == [Verdict.NONE]


def test_padding_is_no_part_of_a_packet():
    """Ethernet pads short frames; the IP length bounds what is summed."""
    assert sums(bytes(TCP4) + bytes(7)).verdict.tolist() == [Verdict.OK]


def test_inner_and_outer_sums_are_two_answers():
    """The outer UDP checksum of VXLAN is wrong, and the inner TCP one is right."""
    wrong = changed(WRAPPED, 14 + 20 + 6, 0xBD67)
    found = sums(WRAPPED, wrong)
    assert found.verdict.tolist() == [Verdict.OK, Verdict.OK]
    assert found.outer_verdict.tolist() == [Verdict.OK, Verdict.BAD]


def test_only_the_frames_asked_for():
    """Rows of the answer are those of the question."""
    made = batch(bytes(TCP4), bytes(UDP4)[:-1] + b"!", b"\0" * 3)
    assert verify.verify(made, np.array([1])).verdict.tolist() == [Verdict.BAD]
    assert verify.verify(made, np.array([2, 0])).verdict.tolist() == [Verdict.NONE, Verdict.OK]
