"""The walk in lockstep finds what the plain walk finds, on everything."""

from __future__ import annotations

import struct
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcapdiag.capture import lockstep
from pcapdiag.capture.pcap_layout import PcapLayout
from pcapdiag.capture.pcapng_layout import PcapngLayout
from pcapdiag.capture.walk import NO_RECORD, Walk, walk_plainly

SECOND = 1_700_000_000


def _pcap(*, big: bool = False, **changes) -> PcapLayout:
    settings = {
        "big_endian": big,
        "nanoseconds": False,
        "header_bytes": 16,
        "linktype": 1,
        "fcs_len": 0,
        "snaplen": 65535,
        "file_header_bytes": 24,
    }
    return PcapLayout(**(settings | changes))


def _records(lengths, payload=b"", *, big: bool = False, header_bytes: int = 16) -> bytes:
    order = ">IIII" if big else "<IIII"
    parts = []
    for number, length in enumerate(lengths):
        parts.append(struct.pack(order, SECOND + number // 100, number % 1_000_000, length, length))
        parts.append(bytes(header_bytes - 16))
        parts.append((payload * (length // max(1, len(payload)) + 1))[:length].ljust(length, b"\0"))
    return b"".join(parts)


def _blocks(lengths, payload=b"", *, big: bool = False) -> bytes:
    order = ">" if big else "<"
    parts = []
    for number, length in enumerate(lengths):
        body = (payload * (length // max(1, len(payload)) + 1))[:length].ljust(length, b"\0")
        body = struct.pack(order + "IIIII", 0, 0, number, length, length) + body
        body += bytes(-len(body) % 4)
        size = struct.pack(order + "I", 12 + len(body))
        parts.append(struct.pack(order + "I", 6) + size + body + size)
    return b"".join(parts)


def _by_struct(layout, content: bytes) -> Walk:
    """Walk in the plainest way there is, without any of the code under test but the sizes."""
    starts = []
    position = 0
    while True:
        if len(content) - position < layout.header_bytes:
            return Walk(np.array(starts, dtype=np.int64), position, None)
        size = layout.size_at(memoryview(content), position)
        if size == 0 or position + size > len(content):
            return Walk(np.array(starts, dtype=np.int64), position, size)
        starts.append(position)
        position += size


def _same(layout, content: bytes, *, chains: int = 16) -> int:
    """Hold the walk in lockstep against the plain ones; return how many chains it started."""
    data = np.frombuffer(content, dtype=np.uint8).copy()
    wanted = _by_struct(layout, content)
    started = []
    walk_chains = lockstep._walk_chains

    def counting(layout, data, heads):
        started.append(len(heads))
        return walk_chains(layout, data, heads)

    with (
        mock.patch.object(lockstep, "CHAINS", chains),
        mock.patch.object(lockstep, "_PROBE_BYTES", 256),
        mock.patch.object(lockstep, "_MIN_RECORDS", 8),
        mock.patch.object(lockstep, "_MIN_ACTIVE", 2),
        mock.patch.object(lockstep, "_MIN_WIDTH", 64),
        mock.patch.object(lockstep, "_walk_chains", counting),
    ):
        found = lockstep.walk(layout, data, 0)
    plain = walk_plainly(layout, data, 0, len(data))
    for result in (found, plain):
        assert result.starts.tolist() == wanted.starts.tolist()
        assert (result.end, result.size) == (wanted.end, wanted.size)
    return sum(started)


@pytest.mark.parametrize("big", [False, True])
def test_ordinary_records_are_walked_by_many_chains(big):
    """Chains are found near most splits, and their records are those of the plain walk."""
    lengths = np.random.default_rng(1).integers(40, 200, size=2000).tolist()
    assert _same(_pcap(big=big), _records(lengths, b"payload", big=big), chains=64) > 50
    assert _same(PcapngLayout(big), _blocks(lengths, b"payload", big=big), chains=64) > 50


@pytest.mark.parametrize("big", [False, True])
def test_packets_that_hold_records_do_not_lead_astray(big):
    """A transferred capture looks like records; chains that begin in it are thrown away."""
    rng = np.random.default_rng(2)
    inner = _records(rng.integers(0, 40, size=300).tolist(), b"\1\2\3", big=big)
    lengths = rng.integers(100, 3000, size=300).tolist()
    assert _same(_pcap(big=big), _records(lengths, inner, big=big), chains=64) > 30
    inner = _blocks(rng.integers(0, 40, size=300).tolist(), b"\1\2\3", big=big)
    assert _same(PcapngLayout(big), _blocks(lengths, inner, big=big), chains=64) > 30


def test_damage_in_the_middle_ends_the_walk_there():
    """Chains behind the damage are plausible and must not count."""
    lengths = [90] * 500
    for content, layout, place in (
        (bytearray(_records(lengths)), _pcap(), 250 * 106 + 8),
        (bytearray(_blocks(lengths)), PcapngLayout(big_endian=False), 250 * 124 + 4),
    ):
        content[place : place + 4] = b"\xff\xff\xff\xff"
        assert _same(layout, bytes(content)) > 4
        assert len(_by_struct(layout, bytes(content)).starts) == 250


def test_damage_at_any_record_ends_the_walk_there():
    """Also where a chain is stuck at its very first record, the walk comes to its end."""
    whole = _records([90] * 120)
    for number in range(120):
        place = number * 106 + 8
        _same(_pcap(), whole[:place] + b"\xff\xff\xff\xff" + whole[place + 4 :], chains=40)


def test_records_without_length_are_walked():
    """A file of zeros is a file of empty records, as many as there are headers."""
    assert len(_by_struct(_pcap(), bytes(160_001)).starts) == 10_000
    _same(_pcap(), bytes(160_001))


def test_records_larger_than_the_distance_of_the_splits():
    """Where most splits fall into one packet, few chains start."""
    lengths = [60_000, 50, 50, 60_000] * 20
    _same(_pcap(), _records([10] * 30 + lengths))
    _same(PcapngLayout(big_endian=True), _blocks([10] * 30 + lengths, big=True))


def test_old_forms_are_walked_alike():
    """Longer headers, swapped and unsure lengths, padding: all give the plain walk's answer."""
    lengths = np.random.default_rng(3).integers(3, 200, size=1000).tolist()
    assert _same(_pcap(header_bytes=24), _records(lengths, header_bytes=24)) > 8
    for changes in ({"length_swapped": True}, {"length_unsure": True}, {"fddi_padding": 3}):
        assert _same(_pcap(**changes), _records(lengths)) > 8


def test_a_section_in_the_other_byte_order_ends_a_walk():
    """A section header of the same order is a block like others, of the other order it is not."""
    header = struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)
    turned = struct.pack(">IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)
    layout = PcapngLayout(big_endian=False)
    blocks = _blocks([90] * 300)
    _same(layout, blocks + header + blocks)
    assert len(_by_struct(layout, blocks + header + blocks).starts) == 601
    _same(layout, blocks + turned + blocks)
    assert _by_struct(layout, blocks + turned + blocks).size == 0


def test_sizes_of_many_are_the_sizes_of_each():
    """The vectorised size is size_at, NO_RECORD for 0, on random bytes too."""
    data = np.random.default_rng(4).integers(0, 256, size=4096, dtype=np.uint8)
    data[1::2] = 0
    for layout in (
        _pcap(),
        _pcap(big=True),
        _pcap(length_swapped=True),
        _pcap(length_unsure=True),
        PcapngLayout(big_endian=False),
        PcapngLayout(big_endian=True),
    ):
        positions = np.arange(0, len(data) - layout.header_bytes, 4)
        each = [layout.size_at(data.data, position) or NO_RECORD for position in positions.tolist()]
        assert layout.sizes(data, positions).tolist() == each


def _content(draw, make, big: bool) -> bytes:
    lengths = draw(st.lists(st.integers(0, 120), min_size=30, max_size=200))
    inner = make(draw(st.lists(st.integers(0, 60), max_size=20)), big=big)
    content = bytearray(make(lengths, draw(st.sampled_from([b"", b"\1\2\3", inner])), big=big))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(content) - 4))
        if draw(st.booleans()):
            place &= ~3
        content[place : place + 4] = draw(
            st.sampled_from(
                [
                    b"\0\0\0\0",
                    b"\xff\xff\xff\xff",
                    b"\x10\0\0\0",
                    b"\0\0\0\x20",
                    b"\n\r\r\n",
                    b"\6\0\0\0",
                ]
            )
        )
    return bytes(content[: draw(st.integers(len(content) // 2, len(content)))])


@settings(max_examples=150, deadline=None)
@given(st.data(), st.booleans(), st.integers(2, 40))
def test_pcap_walks_agree_on_anything(data, big, chains):
    """Records within records, damage and truncation give one answer."""
    _same(_pcap(big=big), _content(data.draw, _records, big), chains=chains)


@settings(max_examples=150, deadline=None)
@given(st.data(), st.booleans(), st.integers(2, 40))
def test_pcapng_walks_agree_on_anything(data, big, chains):
    """Blocks within blocks, damage and truncation give one answer."""
    content = _content(data.draw, _blocks, big)
    _same(PcapngLayout(big), content, chains=chains)
