"""The whole decoder: batches, tables, and nothing that is not in the bytes."""

from __future__ import annotations

import struct

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scapy.contrib.geneve import GENEVE
from scapy.layers.inet import GRE, ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_Redirect,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptRedirectedHdr,
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.layers.sctp import SCTP
from scapy.layers.vrrp import VRRP
from scapy.layers.vxlan import VXLAN

from pcapdiag import schema
from pcapdiag.capture.frames import NO_TIME
from pcapdiag.decode import packets
from pcapdiag.decode.packets import concat, decode_batch, decode_capture, decode_parts
from pcapdiag.decode_note import DecodeNote

TABLES = ("packets", "tunnels", "sacks", "icmp", "arp", "vrrp", "ipvs_sync")

E = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
V4 = IP(src="192.0.2.1", dst="192.0.2.2", id=5, flags="DF")
V6 = IPv6(src="2001:db8::1", dst="2001:db8::2")
SYN = TCP(sport=1000, dport=80, options=[("MSS", 1400), ("SAckOK", b""), ("WScale", 7)])
ACK = TCP(sport=80, dport=1000, flags="A", options=[("Timestamp", (1, 2)), ("SAck", (3, 4, 5, 6))])
DATA = (
    TCP(sport=80, options=[("NOP", None), ("NOP", None), ("Timestamp", (1, 2))]) / b"some payload"
)
GUE = struct.pack(">BBH", 0, 4, 0)
SYNC = (
    struct.pack(">BBHBBH", 0, 1, 44, 1, 1, 0)
    + struct.pack(">BBHIHHHHII", 0, 6, 36, 2, 1, 4000, 80, 8080, 0, 9)
    + bytes(range(12))
)
EXTENDED = bytes(V4 / UDP(sport=9, dport=10)).ljust(128, b"\0") + b"\x20\0\xdf\xff"

FRAMES = {
    "syn": E / V4 / SYN,
    "ack": E / V4 / ACK,
    "data": E / V4 / DATA,
    "options": E / IP(options=[IPOption_NOP()] * 8) / SYN,
    "qinq": E / Dot1AD(vlan=8) / Dot1Q(vlan=7) / V6 / DATA,
    "udp": E / V4 / UDP(sport=53, dport=54) / b"answer",
    "sctp": E / V6 / SCTP(sport=5, dport=6) / b"chunk",
    "fragment": E / IP(frag=9, proto=17) / b"rest",
    "fragment6": E / V6 / IPv6ExtHdrFragment(id=7, m=1, nh=17) / UDP(sport=5) / b"x",
    "chain": E / V6 / IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt() / SYN,
    "arp": E / ARP(psrc="192.0.2.1", pdst="192.0.2.2"),
    "na": E / V6 / ICMPv6ND_NA(tgt="fe80::1") / ICMPv6NDOptDstLLAddr(lladdr="02:00:00:00:00:07"),
    "ping": E / V4 / ICMP(id=5, seq=6) / b"ping",
    "too big": E / V4 / ICMP(type=3, code=4, nexthopmtu=1400) / V4 / DATA,
    "too big6": E / V6 / ICMPv6PacketTooBig(mtu=1400) / V6 / DATA,
    "redirect": E / V4 / ICMP(type=5, code=1, gw="192.0.2.9") / V4 / DATA,
    "redirect6": E
    / V6
    / ICMPv6ND_Redirect(tgt="fe80::9", dst="2001:db8::2")
    / ICMPv6NDOptRedirectedHdr(pkt=bytes(V6 / DATA)),
    "quoted ipip": E / V4 / ICMP(type=3, code=4, nexthopmtu=1400) / V4 / V4 / DATA,
    "extension": E / V4 / ICMP(bytes([11, 0, 0, 0, 0, 32, 0, 0]) + EXTENDED),
    "ipip": E / V4 / V4 / DATA,
    "6in4": E / V4 / V6 / DATA,
    "gre": E / V4 / GRE(key_present=1, key=7) / V4 / DATA,
    "gue": E / V4 / UDP(sport=1, dport=6080) / GUE / V4 / ACK,
    "vxlan": E / V4 / UDP(sport=1, dport=4789) / VXLAN(vni=5) / E / Dot1Q(vlan=9) / V4 / DATA,
    "geneve": E / V6 / UDP(sport=1, dport=6081) / GENEVE(vni=5) / E / V6 / DATA,
    "nested": E / V6 / V4 / GRE() / V4 / ICMP(type=3, code=1) / V4 / DATA,
    "vrrp": E / IP(proto=112) / VRRP(vrid=1, addrlist=["192.0.2.1", "192.0.2.2"]),
    "sync": E / V4 / UDP(sport=1, dport=8848) / SYNC,
}


def test_every_table_has_the_schemas_columns(decoded):
    """Names, order and dtypes, with and without rows."""
    for tables in (decoded(*FRAMES.values()), decoded(), decoded(b"")):
        for name in TABLES:
            assert dict(getattr(tables, name).schema) == schema.dtypes(name)
    full = decoded(*FRAMES.values())
    assert all(getattr(full, name).height for name in TABLES)
    assert full.packets.height == len(FRAMES)
    assert full.packets["decode_note"].to_list().count(0) >= len(FRAMES) - 3


def test_what_the_capture_says_of_each_frame(batch):
    """Time, numbers and lengths are taken as they are; a time that is missing is null."""
    frames = batch([FRAMES["syn"], FRAMES["udp"]], wire_len=[1000, 2000])
    frames.time_ns[1] = NO_TIME
    table = decode_batch(frames, 7).packets
    assert table["capture"].to_list() == [7, 7]
    assert table["frame"].to_list() == [1, 2]
    assert table["time_ns"].to_list() == [0, None]
    assert table["wire_len"].to_list() == [1000, 2000]
    assert table["linktype"].to_list() == [1, 1]


def test_nothing_of_a_batch_is_kept(batch):
    """The reader may write over it once it was decoded."""
    frames = batch(FRAMES.values())
    frames = type(frames)(
        *(np.array(getattr(frames, name)) for name in frames.__dataclass_fields__)
    )
    tables = decode_batch(frames, 0)
    before = {name: getattr(tables, name).clone() for name in TABLES}
    copies = {name: table.rechunk().to_dicts() for name, table in before.items()}
    for name in frames.__dataclass_fields__:
        getattr(frames, name)[:] = 1
    for name in TABLES:
        assert getattr(tables, name).to_dicts() == copies[name]


@pytest.mark.parametrize(("size", "rows"), [(1, 1000), (3, 1000), (10, 1000), (1, 1), (3, 7)])
def test_batches_do_not_matter(batch, size, rows):
    """A capture in pieces gives the tables of the whole, rows counted through."""
    frames = list(FRAMES.values())
    whole = decode_batch(batch(frames), 0)
    pieces = [batch(frames[at : at + size]) for at in range(0, len(frames), size)]
    for number, piece in enumerate(pieces):
        piece.frame[:] += number * size
        piece.time_ns[:] += number * size
    parts = list(decode_parts(pieces, 0, rows=rows))
    assert len(parts) == -(-len(frames) // (-(-rows // size) * size))
    joined = concat(parts)
    for name in TABLES:
        assert getattr(joined, name).equals(getattr(whole, name)), name


@pytest.mark.parametrize("size", [1, 5])
def test_passes_do_not_matter(batch, monkeypatch, size):
    """However many frames' headers are decoded at once, the tables are the same."""
    frames = batch(list(FRAMES.values()) * 2)
    whole = decode_batch(frames, 0)
    monkeypatch.setattr(packets, "HEADERS_AT_ONCE", size)
    again = decode_batch(frames, 0)
    for name in TABLES:
        assert getattr(again, name).equals(getattr(whole, name)), name


@pytest.mark.parametrize("others", ["data", "qinq", "arp", "udp"])
def test_what_the_other_frames_are_does_not_matter(batch, others):
    """A frame decodes alike among its own kind, which is decoded in whole columns, and alone."""
    frames = list(FRAMES.values())
    among = decode_batch(batch(frames + [FRAMES[others]] * 2 * len(frames)), 0)
    alone = decode_capture([batch([frame]) for frame in frames], 0)
    of_each = {"capture", "frame", "time_ns"}
    for name in TABLES:
        mine = getattr(among, name)
        mine = mine.filter(pl.col("row") < len(frames)) if "row" in mine else mine[: len(frames)]
        expected = getattr(alone, name)
        assert mine.drop(of_each, strict=False).equals(expected.drop(of_each, strict=False)), name


def test_no_parts_are_an_empty_capture():
    """A capture without frames has tables without rows."""
    empty = concat([])
    assert {name: getattr(empty, name).height for name in TABLES} == dict.fromkeys(TABLES, 0)


LESS_IS_KNOWN = {"caplen", "decode_note", "tunnel_depth", "depth", "overhead"}
"""Columns that say how much was seen, which a cut changes without being wrong."""
VERDICTS = {"ip_checksum", "icmp_checksum", "quoted_ip_checksum"}


def _agrees(name: str, cut: object, full: object) -> bool:
    return (
        cut is None
        or cut == full
        or name in LESS_IS_KNOWN
        or (name in VERDICTS and cut == "unverifiable")
    )


def _wrong(row: dict[str, object], full: list[dict[str, object]]) -> list[str]:
    """Return the columns in which a row is none of the whole frame's, cut."""
    wrong = [[name for name in row if not _agrees(name, row[name], other[name])] for other in full]
    return min(wrong, key=len, default=["a row too many"])


def _is_the_tunnels_own(row: dict[str, object], full: dict[str, object]) -> bool:
    """Whether the cut hides the very port that tells a tunnel: then the packet is the outer one."""
    hidden = row["ip_proto"] == 17 and row["dst_port"] is None and row["tunnel"] is None
    return hidden and full["tunnel"] in {"gue", "vxlan", "geneve"}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_no_cut_frame_shows_what_was_cut(decoded, frame):
    """Cut anywhere, every column is the whole frame's or null, and what is missing is noted."""
    data = bytes(frame)
    whole = decoded(data)
    full = {name: getattr(whole, name).rows(named=True) for name in TABLES}
    (packet,) = full["packets"]
    pieces = [data[:kept] for kept in range(len(data))]
    cut = decoded(*pieces, wire_len=[len(data)] * len(data))
    outer = set()
    for kept, row in enumerate(cut.packets.rows(named=True)):
        row |= {"frame": 1, "time_ns": 0}
        if _is_the_tunnels_own(row, packet):
            assert row["decode_note"] & DecodeNote.TRANSPORT_CUT
            outer.add(kept)
            continue
        assert _wrong(row, [packet]) == [], kept
        lost = [name for name, value in row.items() if value is None and packet[name] is not None]
        assert not lost or row["decode_note"], (kept, lost)
    for name in TABLES[1:]:
        for row in getattr(cut, name).rows(named=True):
            kept, row["row"] = row["row"], 0
            assert kept in outer or _wrong(row, full[name]) == [], (name, kept)


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_what_lies_behind_a_frame_does_not_matter(batch, frame):
    """Whole or cut, with zeros, ones or nothing behind it, a frame decodes alike."""
    data = bytes(frame)
    pieces = [data[:kept] for kept in range(len(data) + 1)]
    tables = [
        decode_batch(batch(pieces, wire_len=[len(data)] * len(pieces), garbage=garbage), 0)
        for garbage in (b"", b"\0" * 90, b"\xff" * 90, bytes(range(256)))
    ]
    for name in TABLES:
        first = getattr(tables[0], name)
        assert all(getattr(other, name).equals(first) for other in tables[1:]), name


MUTATED = st.tuples(
    st.sampled_from(sorted(FRAMES)),
    st.lists(st.tuples(st.integers(0, 250), st.integers(0, 255)), max_size=6),
    st.integers(0, 250),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(MUTATED, max_size=8), st.integers(0, 0xFFFFFFFF))
@example([("too big", [(16, 0), (17, 0)], 250)], 0)
def test_hostile_frames_are_rows(batch, mutated, wire_len):
    """Whatever bytes a frame holds and whatever lengths the file claims, it is one row."""
    frames = []
    for name, changes, kept in mutated:
        data = bytearray(bytes(FRAMES[name]))
        for at, value in changes:
            data[at % len(data)] = value
        frames.append(bytes(data[:kept]))
    hostile = batch(frames, wire_len=[wire_len] * len(frames))
    tables = decode_batch(hostile, 0)
    assert tables.packets.height == len(frames)
    for name in TABLES:
        assert dict(getattr(tables, name).schema) == schema.dtypes(name)
    rows = tables.icmp["row"].to_list()
    assert rows == sorted(rows)
    assert len(rows) == len(set(rows))


LINKTYPES = [0, 1, 9, 12, 50, 51, 101, 104, 108, 113, 204, 228, 229, 276, 65535]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=200), st.sampled_from(LINKTYPES)), max_size=10))
def test_random_bytes_are_rows(batch, frames):
    """Of any link type."""
    made = batch([data for data, _ in frames], linktype=[number for _, number in frames])
    assert decode_batch(made, 0).packets.height == len(frames)
