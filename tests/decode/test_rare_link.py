"""Link types without a decoder are asked of scapy, within bounds."""

from __future__ import annotations

import logging
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.dot11 import Dot11, Dot11Beacon, RadioTap
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, LLC, SNAP

from pcapdiag.decode import packets, rare_link
from pcapdiag.decode.rare_link import RareLinks
from pcapdiag.decode_note import DecodeNote

RADIOTAP = 127
UNKNOWN = 147  # a private number


def wlan(inner, code=0x800):
    """Return a data frame as a monitor interface captures it."""
    data = Dot11(type=2, subtype=0, FCfield=1)
    return RadioTap() / data / LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(code=code) / inner


V4 = wlan(IP(src="192.0.2.1", dst="192.0.2.2") / UDP(sport=1000, dport=2000) / b"payload")
V6 = wlan(IPv6(src="2001:db8::1", dst="2001:db8::2") / UDP(sport=1000, dport=2000), 0x86DD)


def test_scapy_finds_the_network_layer(packet):
    """What is behind it is decoded like any packet."""
    row = packet(V4, linktype=RADIOTAP)
    assert (row["src_port"], row["dst_port"], row["payload_len"]) == (1000, 2000, 7)
    assert row["decode_note"] == 0
    assert packet(V6, linktype=RADIOTAP)["ip_version"] == 6


def test_arp_behind_a_rare_link(decoded):
    """It makes a row of the neighbour table."""
    tables = decoded(wlan(ARP(psrc="192.0.2.1", pdst="192.0.2.2"), 0x806), linktype=RADIOTAP)
    assert tables.arp["op"].to_list() == ["request"]
    assert tables.packets["decode_note"].to_list() == [DecodeNote.NOT_IP]


def test_a_frame_in_which_scapy_finds_nothing(packet):
    """A beacon carries no network layer; an unknown link type might, but nobody knows."""
    beacon = RadioTap() / Dot11(type=0, subtype=8) / Dot11Beacon()
    assert packet(beacon, linktype=RADIOTAP)["decode_note"] == DecodeNote.UNKNOWN_LINKTYPE
    assert packet(bytes(V4), linktype=UNKNOWN)["decode_note"] == DecodeNote.UNKNOWN_LINKTYPE


def test_only_so_many_frames_are_asked_about(batch, monkeypatch):
    """The rest of the capture's frames are rows with a note, over all of its batches."""
    monkeypatch.setattr(packets, "RareLinks", partial(RareLinks, limit=3))
    frames = batch([V4, V4], linktype=RADIOTAP)
    found = packets.decode_capture([frames, frames], 0).packets
    assert found["decode_note"].to_list() == [0, 0, 0, DecodeNote.BEYOND_SCAPY_LIMIT]
    assert found["src_port"].to_list() == [1000, 1000, 1000, None]


def test_a_link_header_seen_before_is_not_asked_about_again(batch, monkeypatch):
    """Frames that begin alike share one answer."""
    asked = []

    def network_layer(dissector, data):
        asked.append(data)
        return real(dissector, data)

    real = rare_link._network_layer
    monkeypatch.setattr(rare_link, "_network_layer", network_layer)
    packets.decode_batch(batch([V4] * 5 + [V6], linktype=RADIOTAP), 0)
    assert len(asked) == 2


@settings(max_examples=60, deadline=None)
@given(
    st.binary(max_size=120), st.integers(0, 120), st.sampled_from([105, 127, 192, 195, 147, 166])
)
def test_scapy_never_leaks_its_exceptions(batch, data, cut, linktype):
    """Junk and cut frames are rows; offsets stay within the frame."""
    frames = batch([data, bytes(V4)[:cut]], linktype=linktype)
    table = packets.decode_batch(frames, 0).packets
    assert table.height == 2


def test_scapy_is_kept_quiet(decoded, caplog, capfd):
    """Its warnings about hostile bytes do not reach the user, nor is its logger changed."""
    level = logging.getLogger("scapy").level
    rng = np.random.default_rng(1)
    with caplog.at_level(logging.DEBUG):
        decoded(*(rng.bytes(60) for _ in range(20)), linktype=195)
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("scapy").level == level


@pytest.mark.parametrize("limit", [0, 1])
def test_the_limit_may_fall_within_a_batch(batch, limit, monkeypatch):
    """Rows up to it are decoded, in order."""
    monkeypatch.setattr(packets, "RareLinks", partial(RareLinks, limit=limit))
    frames = batch([V4, V4], linktype=RADIOTAP)
    table = packets.decode_batch(frames, 0).packets
    assert table["ip_version"].to_list() == [4] * limit + [None] * (2 - limit)
