"""pcap files, built byte by byte: every form, and what ends the reading."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pcapdiag.capture import frames as frames_module
from pcapdiag.capture.reader import CaptureReader, open_capture
from pcapdiag.errors import TruncatedHeader, UnknownFormat

if TYPE_CHECKING:
    from pathlib import Path

    from pcapdiag.capture.frames import CaptureInfo

MICRO = 0xA1B2C3D4
NANO = 0xA1B23C4D
KUZNETZOV = 0xA1B2CD34


def _header(magic=MICRO, order="<", version=(2, 4), snaplen=65535, network=1):
    return struct.pack(order + "IHHiIII", magic, *version, 0, 0, snaplen, network)


def _record(second, fraction, kept, wire=None, order="<", extra=b""):
    wire = len(kept) if wire is None else wire
    return struct.pack(order + "IIII", second, fraction, len(kept), wire) + extra + kept


def _read(path: Path, block_bytes: int = 1 << 16) -> tuple[list[tuple], CaptureInfo]:
    """Return (frame, time_ns, wire_len, bytes) of every frame, and the file's info."""
    rows = []
    with CaptureReader(str(path), block_bytes) as reader:
        for batch in reader:
            for row in range(len(batch)):
                start = batch.start[row]
                kept = batch.data[start : start + batch.caplen[row]].tobytes()
                rows.append(
                    (int(batch.frame[row]), int(batch.time_ns[row]), int(batch.wire_len[row]), kept)
                )
        return rows, reader.info


def _write(tmp_path: Path, *parts: bytes) -> Path:
    path = tmp_path / "x.pcap"
    path.write_bytes(b"".join(parts))
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("magic", "unit"), [(MICRO, 1000), (NANO, 1)])
def test_times_and_lengths_in_both_orders_and_resolutions(tmp_path, order, magic, unit):
    """Both byte orders and both resolutions give the same frames."""
    path = _write(
        tmp_path,
        _header(magic, order),
        _record(1_700_000_000, 7, b"abc", order=order),
        _record(1_700_000_001, 999_999, b"", 1500, order=order),
    )
    rows, info = _read(path)
    assert rows == [
        (1, 1_700_000_000 * 10**9 + 7 * unit, 3, b"abc"),
        (2, 1_700_000_001 * 10**9 + 999_999 * unit, 1500, b""),
    ]
    assert (info.format, info.packets, info.cut_short, info.notes) == ("pcap", 2, False, ())
    assert (info.first_ns, info.last_ns) == (rows[0][1], rows[1][1])
    assert (info.snaplen, info.link_types) == (65535, (1,))
    assert info.size == path.stat().st_size


def test_columns_have_the_dtypes_that_the_decoder_expects(tmp_path):
    """Every column of a batch has its documented dtype."""
    with open_capture(str(_write(tmp_path, _header(), _record(1, 2, b"x")))) as reader:
        (batch,) = reader
    dtypes = {
        name: getattr(batch, name).dtype for name in frames_module.FrameBatch.__dataclass_fields__
    }
    assert dtypes == {
        "data": np.uint8,
        "start": np.int64,
        "caplen": np.uint32,
        "wire_len": np.uint32,
        "time_ns": np.int64,
        "linktype": np.uint16,
        "fcs_len": np.uint8,
        "interface": np.uint16,
        "frame": np.uint32,
        "direction": np.uint8,
        "note": np.uint32,
    }


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("magic", "extra"),
    [(KUZNETZOV, 8), (KUZNETZOV, 12), (MICRO, 8), (MICRO, 4)],
    ids=["kuznetzov", "suse", "red-hat", "nokia"],
)
def test_longer_record_headers_are_told_by_the_first_records(tmp_path, order, magic, extra):
    """Headers of 20, 24 and 28 bytes are recognised, whichever magic they come with."""
    more = bytes(range(1, extra + 1))
    records = [
        _record(1_000_000_000 + n, n, b"\xaa" * 60, order=order, extra=more) for n in range(4)
    ]
    rows, info = _read(_write(tmp_path, _header(magic, order), *records))
    assert [row[3] for row in rows] == [b"\xaa" * 60] * 4
    assert not info.cut_short
    (note,) = info.notes
    assert note.startswith(
        f"its first records fit an old form of pcap, with record headers of {16 + extra} "
    )


def test_an_ixia_file_has_four_more_bytes_in_its_header(tmp_path):
    """The hardware form counts nanoseconds, the software form microseconds."""
    for magic, unit in ((0x1C0001AC, 1), (0x1C0001AB, 1000)):
        path = _write(tmp_path, _header(magic), b"\0\0\0\0", _record(5, 6, b"ab"))
        assert _read(path)[0] == [(1, 5 * 10**9 + 6 * unit, 2, b"ab")]


def test_before_version_2_3_the_wire_length_comes_first(tmp_path):
    """Version 2.2 swaps the lengths always, 2.3 where that makes sense, 543.0 always."""
    swapped = struct.pack("<IIII", 1, 0, 100, 3) + b"abc"
    for version in ((2, 2), (2, 3), (543, 0)):
        path = _write(tmp_path, _header(version=version), swapped)
        assert _read(path)[0] == [(1, 10**9, 100, b"abc")], version
    path = _write(tmp_path, _header(version=(2, 3)), _record(1, 0, b"abc", 100))
    assert _read(path)[0] == [(1, 10**9, 100, b"abc")]


def test_aix_writes_an_iftype_and_nanoseconds(tmp_path):
    """Version 2.2 with ifType 6 is Ethernet from AIX; FDDI frames come behind three bytes."""
    swapped = struct.pack("<IIII", 1, 5, 4, 4) + b"abcd"
    rows, info = _read(_write(tmp_path, _header(version=(2, 2), network=6), swapped))
    assert rows == [(1, 10**9 + 5, 4, b"abcd")]
    assert info.interfaces[0].linktype == 1
    rows, info = _read(_write(tmp_path, _header(version=(2, 2), network=15), swapped))
    assert rows == [(1, 10**9 + 5, 1, b"d")]
    assert info.link_types == (10,)


def test_fcs_bits_and_reserved_bits_of_the_link_type_field(tmp_path):
    """The FCS length counts where its presence bit is set; reserved bits make it unreadable."""
    for network, fcs in ((0x24000001, 4), (0x14000001, 2), (0x20000001, 0), (0x08000001, 0)):
        with open_capture(
            str(_write(tmp_path, _header(network=network), _record(1, 2, b"x")))
        ) as it:
            (batch,) = it
        assert (batch.fcs_len[0], batch.linktype[0]) == (fcs, 1)
    with pytest.raises(UnknownFormat, match="0x00010001: with its reserved bits"):
        open_capture(str(_write(tmp_path, _header(network=0x00010001))))


def test_a_version_below_2_is_refused(tmp_path):
    """Wireshark reads version 2.0 and later."""
    with pytest.raises(UnknownFormat, match=r"pcap version 1\.9 at byte 4"):
        open_capture(str(_write(tmp_path, _header(version=(1, 9)))))


def test_an_impossible_length_ends_the_reading(tmp_path):
    """A record of more than 256 KiB is damage: what was read before stays."""
    bad = struct.pack("<IIII", 1, 0, 262_145, 262_145) + bytes(300_000)
    good = [_record(1, 0, b"abc"), _record(1, 1, b"de"), _record(1, 2, b"f")]
    rows, info = _read(_write(tmp_path, _header(snaplen=1 << 20), *good, bad))
    assert [row[3] for row in rows] == [b"abc", b"de", b"f"]
    assert info.cut_short
    (note,) = info.notes
    assert note == (
        "frame 4 at byte 78 cannot be: its header says 262145 bytes kept of 262145, at most "
        "262144 are possible; the file is damaged there and was read up to that byte"
    )


def test_a_record_larger_than_the_block_is_read_whole(tmp_path):
    """The block grows for one record, up to the largest packet of the link type."""
    large = bytes(range(256)) * 1024
    rows, info = _read(
        _write(tmp_path, _header(), _record(1, 0, b"a"), _record(2, 0, large), _record(3, 0, b"b")),
        block_bytes=4096,
    )
    assert [row[3] for row in rows] == [b"a", large, b"b"]
    assert not info.cut_short
    usb = bytes(1_000_000)  # a USB transfer may be larger than any packet
    rows, _ = _read(_write(tmp_path, _header(network=249), _record(1, 0, usb), _record(2, 0, b"b")))
    assert [len(row[3]) for row in rows] == [1_000_000, 1]


def test_small_blocks_give_the_same_frames(tmp_path):
    """Where a block ends makes no difference, be it amid a header or amid a packet."""
    rng = np.random.default_rng(1)
    parts = [_record(100 + n, n, rng.bytes(int(rng.integers(0, 90)))) for n in range(200)]
    path = _write(tmp_path, _header(), *parts)
    whole = _read(path)
    assert len(whole[0]) == 200
    for size in (64, 100, 117, 1000):
        assert _read(path, size) == whole


def test_every_prefix_has_a_clear_answer(tmp_path):
    """A file cut anywhere gives its complete frames and says that it is cut."""
    records = [_record(1, 0, b"abc"), _record(2, 0, b""), _record(3, 0, b"defgh")]
    content = _header() + b"".join(records)
    ends = [24, 43, 59, 80]
    assert ends[-1] == len(content)
    for length in range(len(content) + 1):
        path = _write(tmp_path, content[:length])
        if length < 24:
            with pytest.raises(TruncatedHeader):
                open_capture(str(path))
            continue
        rows, info = _read(path)
        assert len(rows) == sum(end <= length for end in ends[1:])
        assert info.cut_short == (length not in ends)
        assert info.packets == len(rows)
        if info.cut_short:
            (note,) = info.notes
            assert f"starts at byte {max(end for end in ends if end <= length)}," in note
