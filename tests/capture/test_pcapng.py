"""pcapng files, built block by block: what they say, what is numbered, what ends the reading."""

from __future__ import annotations

import shutil
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest

from pcapdiag.capture.frames import NO_TIME
from pcapdiag.capture.pcapng_frames import NO_LINKTYPE
from pcapdiag.capture.reader import CaptureReader, open_capture
from pcapdiag.decode_note import DecodeNote
from pcapdiag.errors import CaptureError, TruncatedHeader, UnknownFormat

if TYPE_CHECKING:
    from pathlib import Path

TICKS = 1_700_000_000_123_456
NO_PACKET = int(DecodeNote.NO_PACKET)
TIME_MISSING = int(DecodeNote.TIME_MISSING)


class _Blocks:
    """Builds blocks in one byte order."""

    def __init__(self, order: str = "<") -> None:
        self.order = order

    def pack(self, layout, *values):
        return struct.pack(self.order + layout, *values)

    def block(self, kind, body, trailer=None):
        body += bytes(-len(body) % 4)
        size = 12 + len(body)
        return self.pack("II", kind, size) + body + self.pack("I", trailer or size)

    def option(self, code, value):
        return self.pack("HH", code, len(value)) + value + bytes(-len(value) % 4)

    def section(self, *options):
        return self.block(0x0A0D0D0A, self.pack("IHHq", 0x1A2B3C4D, 1, 0, -1) + b"".join(options))

    def interface(self, *options, linktype=1, snaplen=0):
        return self.block(1, self.pack("HHI", linktype, 0, snaplen) + b"".join(options))

    def packet(self, interface, ticks, kept, *options, wire=None):
        wire = len(kept) if wire is None else wire
        fields = self.pack("IIIII", interface, ticks >> 32, ticks & 0xFFFFFFFF, len(kept), wire)
        return self.block(6, fields + kept + bytes(-len(kept) % 4) + b"".join(options))

    def obsolete(self, interface, ticks, kept, drops=0xFFFF):
        fields = (interface, drops, ticks >> 32, ticks & 0xFFFFFFFF, len(kept), len(kept))
        return self.block(2, self.pack("HHIIII", *fields) + kept)

    def simple(self, kept, wire=None):
        return self.block(3, self.pack("I", len(kept) if wire is None else wire) + kept)

    def statistics(self, interface, **counters):
        codes = {"received": 4, "if_dropped": 5, "os_dropped": 7}
        options = [self.option(codes[name], self.pack("Q", n)) for name, n in counters.items()]
        return self.block(5, self.pack("III", interface, 0, 0) + b"".join(options))

    def journal(self, text=b"__REALTIME_TIMESTAMP=1700000000000001\nMESSAGE=x\n"):
        return self.block(9, text)

    def custom(self, kind=0xBAD):
        return self.block(kind, self.pack("I", 4711) + b"contents")

    def sysdig(self):
        return self.block(0x204, self.pack("HQ", 1, 1_700_000_000 * 10**9 + 9) + bytes(24))

    def everything(self):
        """Return one section with every kind of block that is known."""
        flags = self.option(2, self.pack("I", 1))
        return b"".join(
            [
                self.section(self.option(1, b"the section")),
                self.interface(
                    self.option(2, b"eth0"),
                    self.option(3, b"first card"),
                    self.option(9, b"\x09"),
                    self.option(11, b"\0tcp port 80"),
                    self.option(13, b"\x20"),
                    self.option(1, b"the card"),
                ),
                self.interface(
                    self.option(9, bytes([0x80 | 20])),
                    self.option(14, self.pack("q", 3600)),
                    linktype=113,
                    snaplen=100,
                ),
                self.packet(0, TICKS * 1000 + 7, b"a" * 61, flags, self.option(1, b"odd")),
                self.packet(
                    1,
                    1_700_000_000 << 20 | 1 << 19,
                    b"b" * 60,
                    self.option(2, self.pack("I", 2 | 2 << 5)),
                    self.option(4, self.pack("Q", 7)),
                    self.option(0, b""),
                    wire=200,
                ),
                self.simple(b"c" * 50),
                self.obsolete(0, TICKS * 1000, b"d" * 33, drops=3),
                self.journal(),
                self.custom(),
                self.custom(0x40000BAD),
                self.sysdig(),
                self.block(0x99, b"unknown"),
                self.block(4, self.pack("HH", 1, 9) + b"\1\2\3\4host\0\0\0\0" + bytes(4)),
                self.block(10, self.pack("II", 0x544C534B, 5) + b"abcde"),
                self.packet(0, TICKS * 1000 + 5, b"e" * 70),
                self.statistics(0, received=100, if_dropped=2, os_dropped=3),
            ]
        )


def _read(path: Path, block_bytes: int = 1 << 16) -> tuple[list[dict], object]:
    """Return the frames as dictionaries, and the file's info."""
    rows = []
    with CaptureReader(str(path), block_bytes) as reader:
        for batch in reader:
            for row in range(len(batch)):
                columns = batch.__dataclass_fields__.keys() - {"data", "start"}
                found = {name: int(getattr(batch, name)[row]) for name in columns}
                start = int(batch.start[row])
                found["bytes"] = batch.data[start : start + found["caplen"]].tobytes()
                rows.append(found)
        return rows, reader.info


def _write(tmp_path: Path, *parts: bytes) -> Path:
    path = tmp_path / "x.pcapng"
    path.write_bytes(b"".join(parts))
    return path


@pytest.fixture(params=["<", ">"], ids=["little", "big"])
def build(request):
    """Build blocks in either byte order."""
    return _Blocks(request.param)


def test_every_kind_of_block(tmp_path, build):
    """One section with everything: frames, times, interfaces, counters, comments."""
    rows, info = _read(_write(tmp_path, build.everything()))
    columns = ("frame", "time_ns", "caplen", "wire_len", "interface", "linktype", "note")
    none = (0, 0, 0, NO_LINKTYPE)
    assert [tuple(row[name] for name in columns) for row in rows] == [
        (1, TICKS * 1000 + 7, 61, 61, 0, 1, 0),
        (2, 1_700_003_600 * 10**9 + 5 * 10**8, 60, 200, 1, 113, 0),
        (3, NO_TIME, 50, 50, 0, 1, TIME_MISSING),
        (4, TICKS * 1000, 33, 33, 0, 1, 0),
        (5, 1_700_000_000_000_001_000, *none, NO_PACKET),
        (6, NO_TIME, *none, NO_PACKET | TIME_MISSING),
        (7, NO_TIME, *none, NO_PACKET | TIME_MISSING),
        (8, 1_700_000_000 * 10**9 + 9, *none, NO_PACKET),
        (9, TICKS * 1000 + 5, 70, 70, 0, 1, 0),
    ]
    assert [row["bytes"][:1] for row in rows] == [
        *(b"a", b"b", b"c", b"d"),
        *(b"", b"", b"", b""),
        b"e",
    ]
    assert [row["direction"] for row in rows] == [1, 2, 0, 0, 0, 0, 0, 0, 0]
    assert [row["fcs_len"] for row in rows] == [4, 2, 4, 4, 0, 0, 0, 0, 4]
    assert info.format == "pcapng"
    assert info.link_types == (1, 113)
    assert (info.snaplen, info.dropped, info.cut_short) == (100, 12, False)
    first, second = info.interfaces
    assert (first.name, first.description, first.filter) == ("eth0", "first card", "tcp port 80")
    assert (first.snaplen, first.received, first.dropped) == (None, 100, 5)
    assert (second.name, second.received, second.dropped) == (None, None, 7)
    assert info.notes == (
        "comment on the capture: the section",
        "comment on interface eth0: the card",
        "comment on frame 1: odd",
    )


def test_interfaces_are_numbered_over_all_sections(tmp_path):
    """Each section counts from 0 again and may turn the byte order; the index goes on."""
    parts = [_Blocks(order).everything() for order in ("<", ">", ">", "<")]
    rows, info = _read(_write(tmp_path, *parts))
    assert [row["frame"] for row in rows] == list(range(1, 37))
    assert [row["interface"] for row in rows if row["bytes"][:1] == b"b"] == [1, 3, 5, 7]
    assert [found.index for found in info.interfaces] == list(range(8))
    assert [found.dropped for found in info.interfaces] == [5, 7] * 4


def test_a_snaplen_cuts_simple_packets(tmp_path, build):
    """A simple packet has no captured length: it is the snaplen, if that is smaller."""
    content = build.section() + build.interface(snaplen=40) + build.simple(b"x" * 40, wire=1000)
    (row,), _ = _read(_write(tmp_path, content))
    assert (row["caplen"], row["wire_len"]) == (40, 1000)


def test_unpadded_total_lengths_are_read(tmp_path, build):
    """Some programs leave the padding out of the length field; Wireshark reads them."""
    body = build.pack("IIIII", 0, 0, 1, 3, 3) + b"abc\0"
    odd = build.pack("II", 6, 35) + body + build.pack("I", 35)
    content = build.section() + build.interface() + odd + build.packet(0, 2, b"de")
    rows, info = _read(_write(tmp_path, content))
    assert [row["bytes"] for row in rows] == [b"abc", b"de"]
    assert not info.cut_short


def _damaged(build: _Blocks) -> dict[str, tuple[bytes, str]]:
    """Return blocks that end the reading, and what the note says."""
    pack, block, option = build.pack, build.block, build.option
    return {
        "trailer": (build.block(6, bytes(20), trailer=99), "32 bytes at its start and 99 at"),
        "short": (block(6, b""), "has 12 bytes, at least 32"),
        "zero": (pack("III", 6, 0, 0), "length field says 0"),
        "huge": (pack("III", 6, 0xF0000000, 0), "length field says 4026531840"),
        "caplen": (block(6, pack("IIIII", 0, 0, 0, 9, 9) + bytes(8)), "9 bytes of packet in a"),
        "interface": (build.packet(2, 0, b"x"), "interface 2 of 2"),
        "large": (build.packet(0, 0, bytes(262_145)), "a packet of 262145 bytes, at most 262144"),
        "option": (build.packet(0, 0, b"x", pack("HH", 1, 9)), "an option of 9 bytes has 0"),
        "flags": (build.packet(0, 0, b"x", option(2, b"123")), "option 2 has 3 bytes, expected 4"),
        "custom": (build.packet(0, 0, b"x", option(2988, b"12")), "custom option has 2 bytes"),
        "verdict": (build.packet(0, 0, b"x", option(7, b"\1ab")), "verdict option has 3 bytes"),
        "names": (block(4, pack("HH", 1, 90)), "name record of 90 bytes"),
        "secrets": (block(10, pack("II", 1, 99)), "secrets of 99 bytes"),
        "filter": (build.interface(option(11, b"")), "filter option is empty"),
        "journal": (block(9, bytes(40)), "journal entry of 0 bytes"),
        "netflix": (block(0xBAD, pack("I", 10949) + struct.pack("<I", 9)), "unknown type 9"),
        "version": (
            block(0x0A0D0D0A, pack("IHHq", 0x1A2B3C4D, 2, 0, -1)),
            "pcapng version 2.0, expected",
        ),
        "magic": (block(0x0A0D0D0A, pack("IHHq", 7, 1, 0, -1)), "unknown byte-order magic"),
    }


@pytest.mark.parametrize("fault", sorted(_damaged(_Blocks())))
def test_damage_ends_the_reading(tmp_path, build, fault):
    """The frames before the damaged block stay, those behind it are not read, a note says why."""
    start = build.section() + build.interface() + build.interface() + build.packet(0, 1, b"good")
    block, words = _damaged(build)[fault]
    rows, info = _read(_write(tmp_path, start, block, build.packet(0, 2, b"lost")), 1 << 20)
    assert [row["bytes"] for row in rows] == [b"good"]
    assert info.cut_short
    assert words in info.notes[-1]
    assert f"at byte {len(start)}" in info.notes[-1]


@pytest.mark.needs("tshark")
@pytest.mark.parametrize("fault", [*sorted(_damaged(_Blocks())), "none", "sections"])
def test_the_same_frames_as_tshark(tmp_path, fault):
    """This reader stops where tshark stops, and numbers what tshark numbers."""
    build = _Blocks()
    content = build.everything()
    if fault == "sections":
        content += _Blocks(">").everything() + content
    elif fault != "none":
        content += _damaged(build)[fault][0]
    content += build.packet(0, 2, b"behind")
    path = _write(tmp_path, content)
    fields = ("frame.number", "frame.time_epoch", "frame.len", "frame.cap_len")
    command = [shutil.which("tshark"), "-n", "-r", str(path), "-T", "fields"]
    command += [word for name in fields for word in ("-e", name)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    theirs = [line.split("\t") for line in answer.stdout.splitlines()]
    rows, info = _read(path)
    assert len(rows) == len(theirs)
    assert bool(answer.returncode) == info.cut_short or fault == "netflix"  # which tshark hides
    for row, (number, time, wire, kept) in zip(rows, theirs, strict=True):
        assert row["frame"] == int(number)
        whole, _, fraction = time.partition(".")
        assert row["time_ns"] == (int(whole + fraction) if time else NO_TIME)
        if not row["note"] & NO_PACKET:
            assert (row["wire_len"], row["caplen"]) == (int(wire), int(kept))


def test_every_prefix_has_a_clear_answer(tmp_path):
    """A file cut anywhere gives a CaptureError, or its complete frames and a note."""
    content = _Blocks(">").everything()
    whole, _ = _read(_write(tmp_path, content))
    seen = set()
    for length in range(len(content)):
        path = _write(tmp_path, content[:length])
        if length < 44:  # the section header with its comment
            with pytest.raises(TruncatedHeader):
                open_capture(str(path))
            continue
        rows, info = _read(path)
        assert rows == whole[: len(rows)]
        assert info.cut_short == bool(info.notes and "cut short" in info.notes[-1])
        seen.add((len(rows), info.cut_short))
    assert {count for count, cut in seen if cut} == set(range(10))


def test_small_blocks_give_the_same_frames(tmp_path, build):
    """Where a block of memory ends makes no difference."""
    path = _write(tmp_path, build.everything(), _Blocks("<").everything(), build.everything())
    whole = _read(path)
    assert len(whole[0]) == 27
    for size in (64, 100, 128, 1000):
        assert _read(path, size) == whole


def test_a_first_section_that_cannot_be_used_is_refused(tmp_path, build):
    """Without a section header nothing is known of the file."""
    for fault in ("version", "magic"):
        with pytest.raises(UnknownFormat):
            open_capture(str(_write(tmp_path, _damaged(build)[fault][0])))
    wrong = build.block(0x0A0D0D0A, build.pack("IHHq", 0x1A2B3C4D, 1, 0, -1), trailer=99)
    with pytest.raises(UnknownFormat, match="28 bytes at its start and 99 at its end"):
        open_capture(str(_write(tmp_path, wrong)))
    tiny = build.pack("III", 0x0A0D0D0A, 12, 0x1A2B3C4D)
    with pytest.raises(UnknownFormat, match="says 12 bytes"):
        open_capture(str(_write(tmp_path, tiny)))


def test_times_beyond_int64_are_missing(tmp_path, build):
    """A time that does not fit is no time, and the frames are counted in a note."""
    content = build.section() + build.interface() + build.packet(0, (1 << 64) - 1, b"x")
    (row,), info = _read(_write(tmp_path, content))
    assert (row["time_ns"], row["note"]) == (NO_TIME, TIME_MISSING)
    assert info.first_ns is None
    assert info.notes == ("1 frames have a time beyond the years 1678 to 2261",)


def test_many_comments_are_counted(tmp_path, build):
    """Ten comments are noted, the others counted."""
    packets = [build.packet(0, n, b"x", build.option(1, b"c%d" % n)) for n in range(25)]
    _, info = _read(_write(tmp_path, build.section(), build.interface(), *packets))
    assert len(info.notes) == 11
    assert info.notes[9:] == (
        "comment on frame 10: c9",
        "25 frames carry a comment; the first ones are noted",
    )


def test_directions_and_fcs_of_single_packets(tmp_path, build):
    """Of epb_flags the direction counts where it is one, and an FCS length where it is not 0."""
    flags = [0, 1, 2, 3, 4 << 5, 1 | 2 << 5]
    packets = [build.packet(0, 1, b"x", build.option(2, build.pack("I", flag))) for flag in flags]
    card = build.interface(build.option(13, b"\x20"))
    rows, _ = _read(_write(tmp_path, build.section(), card, *packets))
    assert [(row["direction"], row["fcs_len"]) for row in rows] == [
        *((0, 4), (1, 4), (2, 4), (0, 4)),
        *((0, 4), (1, 2)),
    ]
    small = build.interface(build.option(13, b"\x04"))  # meant as bytes, as Wireshark takes it
    (row,), _ = _read(_write(tmp_path, build.section(), small, build.packet(0, 1, b"x")))
    assert row["fcs_len"] == 4


def test_a_section_of_nothing_but_comments(tmp_path, build):
    """Ten comments of a section are kept, empty ones are none."""
    options = [build.option(1, b""), *(build.option(1, b"c%d" % n) for n in range(30))]
    _, info = _read(_write(tmp_path, build.section(*options)))
    assert info.notes == tuple(f"comment on the capture: c{n}" for n in range(10))


def test_text_of_strangers_is_cleaned(tmp_path, build):
    """Escapes and overrides in names and comments do not leave the reader."""
    name = "\x1b[31meth\u202e0\nx".encode()
    content = build.section(build.option(1, name)) + build.interface(build.option(2, name))
    _, info = _read(_write(tmp_path, content))
    assert info.interfaces[0].name == "eth\N{REPLACEMENT CHARACTER}0 x"
    assert info.notes == ("comment on the capture: eth\N{REPLACEMENT CHARACTER}0 x",)


def test_too_many_interfaces_end_the_reading(tmp_path, monkeypatch):
    """Frames name their interface with 16 bits: more interfaces than that are not followed."""
    monkeypatch.setattr("pcapdiag.capture.pcapng_contents.MAX_INTERFACES", 5)
    build = _Blocks()
    content = build.section() + build.interface() * 6 + build.packet(0, 1, b"x")
    rows, info = _read(_write(tmp_path, content))
    assert rows == []
    assert "more than 5 interfaces" in info.notes[-1]


def test_endless_turns_of_the_byte_order_are_followed(tmp_path, monkeypatch):
    """Sections of alternating byte order are read in bounded pieces, none is lost."""
    monkeypatch.setattr("pcapdiag.capture.pcapng._MAX_TURNS", 3)
    parts = []
    for number in range(20):
        build = _Blocks("<>"[number % 2])
        parts += [build.section(), build.interface(), build.packet(0, number, b"x")]
    rows, info = _read(_write(tmp_path, *parts))
    assert [row["interface"] for row in rows] == list(range(20))
    assert not info.cut_short


def test_a_file_of_nothing_but_a_section(tmp_path, build):
    """A file without interfaces and frames is read: it has none."""
    rows, info = _read(_write(tmp_path, build.section()))
    assert rows == []
    assert (info.packets, info.link_types, info.interfaces) == (0, (), ())
    assert not info.cut_short


def test_a_packet_before_any_interface_is_damage(tmp_path, build):
    """A packet block needs a described interface in its own section."""
    start = build.section() + build.interface() + build.packet(0, 1, b"x")
    rows, info = _read(_write(tmp_path, start, build.section(), build.simple(b"y")))
    assert len(rows) == 1
    assert "interface 0 of 0 described ones" in info.notes[-1]
    with pytest.raises(CaptureError):
        open_capture(str(tmp_path / "missing.pcapng"))
