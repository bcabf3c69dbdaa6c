"""Each degradation does to a set of captures what its name says, and nothing else."""

from __future__ import annotations

import gzip
from dataclasses import replace

import captures
import degradations
import pytest
from captures import Capture, Frame

ETHERNET = bytes(12)
ICMP = ETHERNET + b"\x08\x00\x45" + bytes(8) + b"\x01" + bytes(80)
TCP = ETHERNET + b"\x08\x00\x45" + bytes(8) + b"\x06" + bytes(80)
ICMPV6 = ETHERNET + b"\x86\xdd\x60" + bytes(5) + b"\x3a" + bytes(80)
ARP = ETHERNET + b"\x08\x06" + bytes(46)
SECOND = 10**9


def frames(*data, step_ns=SECOND):
    """Return frames of some bytes, `step_ns` apart."""
    return tuple(
        Frame(number, number * step_ns, item, len(item)) for number, item in enumerate(data, 1)
    )


def capture(file, host, data=(TCP,) * 10):
    """Return a capture taken at a host."""
    stem = file.split(".")[0]
    return Capture(file, host, host, stem, 1, 65_535, None, frames(*data), pcapng=False)


WHOLE = [
    capture("director-eth0.pcap", "director"),
    capture("director-eth1.pcap", "director"),
    capture("rs1.pcap", "rs1"),
]


def changed(name):
    """Return the sample set after the degradation whose name begins so."""
    (found,) = [item for item in degradations.of("x", WHOLE) if item.name.startswith(name)]
    return list(found.change(WHOLE))


def test_names_are_unique_and_none_is_forgotten():
    """Every degradation that was asked for is there, one removal a capture."""
    all_of_them = list(degradations.of("x", WHOLE))
    assert len({item.name for item in all_of_them}) == len(all_of_them) == 10 + 3 + 7
    assert sum(item.lossless for item in all_of_them) == 10


@pytest.mark.parametrize(
    ("name", "by_ns"), [("clock+0.5s", SECOND // 2), ("clock-3600s", -3600 * SECOND)]
)
def test_a_clock_is_set_on_all_captures_of_one_host(name, by_ns):
    """All frames of the host move alike, those of the others stay."""
    (found,) = [item for item in degradations.of("x", WHOLE) if item.name.startswith(name)]
    host = found.name.split("@")[1]
    for before, after in zip(WHOLE, found.change(WHOLE), strict=True):
        moved = [
            new.time_ns - old.time_ns for old, new in zip(before.frames, after.frames, strict=True)
        ]
        assert set(moved) == {by_ns if before.host == host else 0}


def test_a_clock_drifts():
    """100 ppm are 900 microseconds over nine seconds."""
    after = degradations.drift(WHOLE, host="rs1")
    assert after[:2] == WHOLE[:2]
    moved = [
        new.time_ns - old.time_ns for old, new in zip(WHOLE[2].frames, after[2].frames, strict=True)
    ]
    assert moved == [number * 100_000 for number in range(10)]


def test_doubled_frames_follow_at_once():
    """Each frame is there twice, in the order of time, with the number it had."""
    after = changed("doubled-frames")[2].frames
    assert [frame.number for frame in after] == [n for n in range(1, 11) for _ in range(2)]
    assert [frame.data for frame in after[::2]] == [frame.data for frame in WHOLE[2].frames]
    assert {b.time_ns - a.time_ns for a, b in zip(after[::2], after[1::2], strict=True)} == {1000}


def test_doubles_of_a_burst_stay_in_the_order_of_time():
    """Where frames come faster than their doubles, these come later."""
    fast = replace(WHOLE[2], frames=frames(TCP, ICMP, step_ns=100))
    assert [frame.number for frame in degradations.double([fast])[0].frames] == [1, 2, 1, 2]


def test_labels_that_tell_nothing_keep_the_captures_of_a_host_together():
    """Neither label nor file name holds a role."""
    after = changed("labels-removed")
    assert [item.label for item in after] == ["place-00", "place-00", "place-01"]
    assert [item.stem for item in after] == ["taken-0", "taken-1", "taken-2"]


def test_swapped_labels_lie():
    """The director's captures bear a realserver's label, and the other way round."""
    assert [item.label for item in changed("labels-swapped")] == ["rs1", "rs1", "director"]


def test_files_come_in_another_order():
    """The last one comes first."""
    assert changed("file-order") == WHOLE[::-1]


def test_one_capture_is_missing():
    """That of the file named, others of its host stay."""
    assert changed("without-director-eth0") == WHOLE[1:]


@pytest.mark.parametrize("snaplen", [96, 68])
def test_frames_are_cut(snaplen):
    """What was on the wire is still known."""
    for item in changed(f"snaplen{snaplen}"):
        assert item.snaplen == snaplen
        assert {(len(frame.data), frame.wire_len) for frame in item.frames} == {(snaplen, len(TCP))}


def test_five_of_a_hundred_frames_are_lost_always_the_same():
    """The share is right, and the choice does not change."""
    long = [capture("rs1.pcap", "rs1", (TCP,) * 4000)]
    once, again = (degradations.drop(long, seed="x")[0].frames for _ in range(2))
    assert once == again
    assert 150 < 4000 - len(once) < 250


def test_only_icmp_is_kept():
    """What `tcpdump icmp or icmp6` keeps of four kinds of frames."""
    mixed = [capture("rs1.pcap", "rs1", (ICMP, TCP, ARP, ICMPV6, b"\x00"))]
    assert [frame.number for frame in degradations.only_icmp(mixed)[0].frames] == [1, 4]


@pytest.mark.parametrize(
    ("name", "kept"), [("first-half", [1, 2, 3, 4, 5]), ("last-half", [6, 7, 8, 9, 10])]
)
def test_half_is_kept(name, kept):
    """The first or the last half of each capture's frames."""
    for item in changed(name):
        assert [frame.number for frame in item.frames] == kept


@pytest.mark.parametrize("change", [list, degradations.other_format, degradations.compress])
def test_written_captures_are_read_back(tmp_path, change):
    """Frames, times and lengths are those that were written, in every format."""
    cut = degradations.cut(WHOLE[2:], snaplen=60)
    counted = [replace(item, dropped=3, pcapng=True) for item in cut]
    arguments, paths = captures.write(change(counted), tmp_path)
    (path,) = paths
    assert arguments == [f"rs1={path}"]
    read = captures.read_file(tmp_path / path, host="rs1", label="rs1")
    assert read.frames == cut[0].frames
    assert read.snaplen == 60
    assert read.pcapng == (change is not degradations.other_format)
    assert read.dropped == (3 if read.pcapng else None)


def test_compressed_captures_are_gzip(tmp_path):
    """The bytes are compressed, and the name says so."""
    _, (path,) = captures.write(degradations.compress(WHOLE[2:]), tmp_path)
    assert path.endswith("rs1.pcap.gz")
    assert gzip.decompress((tmp_path / path).read_bytes()).startswith(b"\x4d\x3c\xb2\xa1")
