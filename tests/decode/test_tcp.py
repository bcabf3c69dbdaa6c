"""TCP headers, their options, and what is left of both when they are cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

from pcapdiag.decode_note import DecodeNote

RAW = 101
TIMES = [("NOP", None), ("NOP", None), ("Timestamp", (111, 222))]


def segment(payload=b"", **more):
    """Return a packet with a TCP segment."""
    return IP(src="192.0.2.1", dst="192.0.2.2") / TCP(sport=1000, dport=80, **more) / payload


def sacks(tables):
    """Return the blocks as (row, block, left, right)."""
    return tables.sacks.rows()


def test_every_field(packet):
    """Each column holds its field; the window is unscaled."""
    frame = segment(b"abc", seq=0xFFFFFFFF, ack=5, flags="SAEC", window=500, chksum=0xBEEF)
    row = packet(frame, linktype=RAW)
    assert (row["tcp_seq"], row["tcp_ack"], row["tcp_flags"]) == (0xFFFFFFFF, 5, 0xD2)
    assert (row["tcp_window"], row["transport_checksum"], row["payload_len"]) == (500, 0xBEEF, 3)
    assert (row["tcp_sack_permitted"], row["tcp_mss"], row["tcp_tsval"]) == (False, None, None)


@pytest.mark.parametrize("bits", [0x100, 0x800])
def test_flags_beyond_eight(packet, bits):
    """Accurate ECN and reserved bits are in the flags, as in Wireshark's."""
    data = bytearray(bytes(segment()))
    data[20 + 12] |= bits >> 8
    assert packet(bytes(data), linktype=RAW)["tcp_flags"] == 0x02 | bits


OPTIONS = {
    "usual": (TIMES, {"tsval": 111, "tsecr": 222}),
    "syn": (
        [("MSS", 1400), ("SAckOK", b""), ("Timestamp", (1, 0)), ("NOP", None), ("WScale", 7)],
        {"mss": 1400, "sack_permitted": True, "tsval": 1, "tsecr": 0, "wscale": 7},
    ),
    "mss only": ([("MSS", 536)], {"mss": 536}),
    "odd order": (
        [("WScale", 14), ("NOP", None), ("NOP", None), ("NOP", None), ("MSS", 1)],
        {"wscale": 14, "mss": 1},
    ),
    "unknown kinds": ([(30, b"\1\2\3\4"), (254, b"xy"), ("MSS", 9)], {"mss": 9}),
    "behind the end": ([("MSS", 9), ("EOL", None), ("WScale", 3)], {"mss": 9}),
    "usual and more": (
        [*TIMES, ("NOP", None), ("NOP", None), ("MSS", 7)],
        {"tsval": 111, "tsecr": 222, "mss": 7},
    ),
    "repeated": ([("MSS", 5), ("MSS", 6)], {"mss": 5}),
}


@pytest.mark.parametrize(("options", "expected"), OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("over", [IP(), IPv6()], ids=["v4", "v6"])
def test_options(packet, over, options, expected):
    """Of any layout; of one that is repeated the first counts."""
    row = packet(over / TCP(options=options) / b"x", linktype=RAW)
    values = {name: row[f"tcp_{name}"] for name in ("mss", "wscale", "tsval", "tsecr")}
    assert {name: value for name, value in values.items() if value is not None} == {
        name: value for name, value in expected.items() if name != "sack_permitted"
    }
    assert row["tcp_sack_permitted"] is expected.get("sack_permitted", False)
    assert (row["payload_len"], row["decode_note"]) == (1, 0)


def test_sack_blocks(decoded):
    """All blocks of all packets, in order, beside timestamps or not."""
    tables = decoded(
        segment(options=[*TIMES, ("NOP", None), ("NOP", None), ("SAck", (1, 2, 3, 4, 5, 6))]),
        segment(options=TIMES),
        segment(options=[("NOP", None), ("NOP", None), ("SAck", (7, 8))]),
        segment(options=[("SAck", (1, 2, 3, 4, 5, 6, 7, 0xFFFFFFFF)), ("NOP", None)]),
        linktype=RAW,
    )
    assert sacks(tables) == [
        (0, 0, 1, 2),
        (0, 1, 3, 4),
        (0, 2, 5, 6),
        (2, 0, 7, 8),
        (3, 0, 1, 2),
        (3, 1, 3, 4),
        (3, 2, 5, 6),
        (3, 3, 7, 0xFFFFFFFF),
    ]
    assert tables.packets["tcp_tsval"].to_list() == [111, 111, None, None]


def _with_options(raw: bytes) -> bytes:
    """Return a segment whose option bytes are `raw`, padded to whole words with zeros."""
    raw = raw.ljust(-(-len(raw) // 4) * 4, b"\0")
    header = bytearray(bytes(TCP(sport=1000, dport=80)))
    header[12] = (5 + len(raw) // 4) << 4
    return bytes(IP(proto=6) / (bytes(header) + raw + b"payload"))


@pytest.mark.parametrize(
    "raw",
    [
        b"\x02\x00\x05\xb4",  # a length of 0 would never end
        b"\x02\x01\x05\xb4",
        b"\x02\x09\x05\xb4",  # beyond the header
        b"\x01\x01\x01\x02",  # a kind and no length
        b"\x02\x03\x05\x00",  # an MSS of one byte
        b"\x05\x05\x00\x00\x00\x00\x00\x00",  # half a block
        b"\x08\x08" + b"\0" * 6,
    ],
)
def test_options_that_contradict_themselves(packet, raw):
    """They are noted; nothing is taken from them, and the segment itself stands."""
    row = packet(_with_options(raw), linktype=RAW)
    assert row["decode_note"] == DecodeNote.TCP_BAD_OPTIONS
    assert row["tcp_mss"] is row["tcp_wscale"] is row["tcp_tsval"] is None
    assert (row["src_port"], row["payload_len"]) == (1000, 7)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=40), min_size=1, max_size=30))
def test_any_option_bytes_are_survived(decoded, raws):
    """Whatever they are, ports and payload are known and the walk ends."""
    table = decoded(*map(_with_options, raws), linktype=RAW).packets
    assert set(table["src_port"]) == {1000}
    assert set(table["payload_len"]) == {7}
    assert set(table["decode_note"]) <= {0, DecodeNote.TCP_BAD_OPTIONS}


@pytest.mark.parametrize("words", [0, 4, 15])
def test_a_header_length_that_cannot_be(packet, words):
    """Below five words or beyond the segment: fields stand, where the payload begins does not."""
    row = packet(segment(b"abc", dataofs=words), linktype=RAW)
    assert row["decode_note"] == DecodeNote.TCP_BAD_HEADER
    assert (row["tcp_flags"], row["payload_len"]) == (2, None)


def test_a_segment_that_ends_in_its_header(packet):
    """By its IP length, so that nothing behind it is taken for a field, padding neither."""
    data = bytes(IP(len=28, proto=6) / bytes(TCP(sport=1000, dport=80, seq=9, ack=7)))
    row = packet(data, linktype=RAW)
    assert row["decode_note"] == DecodeNote.TRANSPORT_CUT
    assert (row["src_port"], row["tcp_seq"], row["tcp_ack"]) == (1000, 9, None)
    assert row["payload_len"] is None


@pytest.mark.parametrize(
    ("kept", "known"),
    [
        (3, set()),
        (4, {"src_port", "dst_port"}),
        (8, {"src_port", "dst_port", "tcp_seq"}),
        (12, {"src_port", "dst_port", "tcp_seq", "tcp_ack"}),
        (14, {"src_port", "dst_port", "tcp_seq", "tcp_ack", "tcp_flags", "payload_len"}),
    ],
)
def test_a_cut_header_keeps_what_was_kept(packet, kept, known):
    """A field counts where all of its bytes are there; lengths are the packet's own."""
    data = bytes(segment(b"abc", options=TIMES))
    row = packet(data[: 20 + kept], linktype=RAW, wire_len=[len(data)])
    columns = ["src_port", "dst_port", "payload_len", "transport_checksum"]
    columns += [name for name in row if name.startswith("tcp_")]
    assert {name for name in columns if row[name] is not None} == known
    assert row["decode_note"] == DecodeNote.TRANSPORT_CUT
    if kept >= 14:
        assert row["payload_len"] == 3


def test_cut_options_are_not_absent_ones(packet):
    """Whether SACK was permitted is not known where the options were not kept."""
    data = bytes(segment(options=[("MSS", 1400), *TIMES, ("SAckOK", b"")]))
    row = packet(data[:45], linktype=RAW, wire_len=[len(data)])
    assert (row["tcp_mss"], row["tcp_tsval"], row["tcp_sack_permitted"]) == (1400, None, None)
    assert row["decode_note"] == DecodeNote.TRANSPORT_CUT
