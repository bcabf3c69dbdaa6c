"""Opening captures: what is refused and how, streams, changes, evidence, and any bytes at all."""

from __future__ import annotations

import gzip
import os
import struct
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pcapdiag.capture.frames import NO_TIME, RawFrame
from pcapdiag.capture.reader import CaptureReader, open_capture, read_frames
from pcapdiag.errors import CaptureError, TruncatedHeader, UnknownFormat, UnreadableCapture

if TYPE_CHECKING:
    from pathlib import Path

HEADER = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)


def _record(second: int, kept: bytes) -> bytes:
    return struct.pack("<IIII", second, 0, len(kept), 100) + kept


def _pcap(count: int = 3) -> bytes:
    return HEADER + b"".join(_record(n + 1, b"%03d" % n) for n in range(count))


def _pcapng() -> bytes:
    def block(kind: int, body: bytes) -> bytes:
        size = struct.pack("<I", len(body) + 12)
        return struct.pack("<I", kind) + size + body + size

    flags = struct.pack("<HHI", 2, 4, 1) + struct.pack("<HH", 1, 4) + b"note" + bytes(4)
    return b"".join(
        [
            block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)),
            block(1, struct.pack("<HHI", 1, 0, 0) + struct.pack("<HHB3x", 9, 1, 9)),
            block(6, struct.pack("<IIIII", 0, 0, 5, 4, 4) + b"abcd" + flags),
            block(9, b"__REALTIME_TIMESTAMP=1700000000000001\n\0\0"),
            block(3, struct.pack("<I", 4) + b"efgh"),
            block(5, struct.pack("<IIIHHQ", 0, 0, 0, 5, 8, 7)),
            block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)),
            block(1, struct.pack("<HHI", 113, 0, 0)),
            block(2, struct.pack("<HHIIII", 0, 1, 0, 5, 4, 4) + b"ijkl"),
        ]
    )


def _read_all(path: Path) -> tuple[int, CaptureReader]:
    with open_capture(str(path)) as reader:
        return sum(len(batch) for batch in reader), reader


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (b"", TruncatedHeader, "0 bytes: nothing was captured, or the disk was full"),
        (b"\xd4\xc3", TruncatedHeader, "ends at byte 2, inside its file header"),
        (b"\n\r\r\n", TruncatedHeader, "ends at byte 4, inside its pcapng section header"),
        (
            b"# readme\nof a case\n",
            UnknownFormat,
            r'text \("# readme of a ca\.\.\."\), not a capture',
        ),
        (b"snoop\0\0\0" + bytes(20), UnknownFormat, "a snoop capture .* `editcap -F pcap IN OUT"),
        (b"BZh91AY" + bytes(20), UnknownFormat, "bzip2 file; decompress it with `bunzip2`"),
        (b"PK\x03\x04" + bytes(20), UnknownFormat, "a zip archive; unpack it with `unzip`"),
        (bytes(100), UnknownFormat, r"\(first bytes 00 00 00 00 00 00 00 00\). pcapdiag reads"),
        (b"\x1f\x8b\x08", TruncatedHeader, "the gzip stream holds|cut short"),
    ],
)
def test_what_is_no_capture_is_refused(tmp_path, content, error, words):
    """The message says what the file is, what was expected and what to do."""
    path = tmp_path / "x.pcap"
    path.write_bytes(content)
    with pytest.raises(CaptureError, match=words) as caught:
        open_capture(str(path))
    assert isinstance(caught.value, error) or content[:2] == b"\x1f\x8b"
    assert caught.value.path == str(path)


def test_what_the_system_refuses(tmp_path):
    """A missing path, a directory and a name that cannot be are errors that name the path."""
    for path, words in (
        (str(tmp_path / "missing"), "no such file"),
        (str(tmp_path), "is a directory"),
        ("nul\0byte", "cannot be opened"),
        (str(tmp_path / ("x" * 300)), "cannot be opened: File name too long"),
    ):
        with pytest.raises(UnreadableCapture, match=words):
            open_capture(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path):
    """A file of others is an error that says so."""
    path = tmp_path / "x.pcap"
    path.write_bytes(_pcap())
    path.chmod(0)
    with pytest.raises(UnreadableCapture, match="no permission"):
        open_capture(str(path))


def test_no_permission_as_the_system_says_it(tmp_path, monkeypatch):
    """What the system answers for a file of others becomes an error that says so."""

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UnreadableCapture, match="no permission to read it"):
        open_capture(str(tmp_path / "x.pcap"))


def test_standard_input_is_read_as_a_stream():
    """A dash is standard input, of any format, arriving in pieces of any size."""
    program = (
        "from pcapdiag.capture.reader import open_capture\n"
        "with open_capture('-') as reader:\n"
        "    print(sum(len(batch) for batch in reader), reader.info.format, reader.info.size)\n"
    )
    for content, expected in ((_pcap(50), "50 pcap None"), (_pcapng(), "4 pcapng None")):
        with subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            for place in range(0, len(content), 7):
                process.stdin.write(content[place : place + 7])
                process.stdin.flush()
            answer, _ = process.communicate()
        assert answer.decode().strip() == expected


def test_a_pipe_is_read_like_a_file(tmp_path):
    """A named pipe has no size; it is read once, forward."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(_pcap(4),))
    writer.start()
    count, reader = _read_all(path)
    writer.join()
    assert (count, reader.info.size, reader.info.notes) == (4, None, ())


def test_a_change_while_reading_is_a_note(tmp_path):
    """A file that grows or is written to while it is read is told."""
    path = tmp_path / "x.pcap"
    path.write_bytes(_pcap())
    with open_capture(str(path)) as reader:
        for _ in reader:
            with path.open("ab") as more:
                more.write(b"xyz")
    assert (
        "the file changed while it was read: its size went from 81 to 84" in reader.info.notes[-1]
    )
    with open_capture(str(path)) as reader:
        for _ in reader:
            os.utime(path, ns=(1, 1))
    assert any("changed while it was read: it was written to" in note for note in reader.info.notes)


def test_a_replacement_while_reading_is_a_note(tmp_path):
    """What was opened is read to its end, and told to be no longer what stands there."""
    path = tmp_path / "x.pcap"
    path.write_bytes(_pcap())
    (tmp_path / "y.pcap").write_bytes(_pcap())
    with open_capture(str(path)) as reader:
        for _ in reader:
            (tmp_path / "y.pcap").replace(path)
    assert "another file has taken its place" in reader.info.notes[-1]
    with open_capture(str(path)) as reader:
        for _ in reader:
            path.unlink()
    assert reader.info.notes == ()


def test_a_failing_disk_is_a_note(tmp_path, monkeypatch):
    """What was read before the failure stays."""
    path = tmp_path / "x.pcap"
    path.write_bytes(_pcap(20_000))
    read = os.readv
    calls = []

    def fail(handle, buffers):
        calls.append(handle)
        if len(calls) > 1:
            raise OSError(5, "Input/output error")
        return read(handle, buffers)

    monkeypatch.setattr(os, "readv", fail)
    count, reader = _read_all(path)
    assert 3000 < count < 20_000
    assert reader.info.cut_short
    assert reader.info.notes[-1] == "reading failed: Input/output error"


def test_info_grows_and_batches_come_once(tmp_path):
    """Before reading nothing is counted; a second iteration goes on where the first ended."""
    path = tmp_path / "x.pcap"
    path.write_bytes(_pcap())
    with open_capture(str(path)) as reader:
        assert (reader.info.packets, reader.info.first_ns, reader.info.link_types) == (0, None, ())
        assert sum(len(batch) for batch in reader) == 3
        assert list(reader) == []
        assert (reader.info.first_ns, reader.info.last_ns) == (10**9, 3 * 10**9)


def test_batches_are_bounded(tmp_path):
    """No batch has more than 2**17 frames, and numbers go on over batches."""
    path = tmp_path / "x.pcap"
    path.write_bytes(HEADER + bytes(16 * 300_000))
    with open_capture(str(path)) as reader:
        spans = [(int(batch.frame[0]), int(batch.frame[-1])) for batch in reader]
    assert spans == [(1, 131_072), (131_073, 262_144), (262_145, 300_000)]
    assert list(read_frames(str(path), [200_000, 2])) == [2, 200_000]


USB_HEADER = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 1 << 20, 249)


@pytest.mark.parametrize(
    "content",
    [
        _pcap(3_000),
        _pcap(3_000)[:-2],
        _pcapng() * 250,
        gzip.compress(_pcap(3_000))[:-9],
        USB_HEADER + b"".join(_record(n, bytes([n]) * (n * 100_000)) for n in range(7)),
    ],
    ids=["pcap", "cut", "pcapng", "broken gzip", "packets larger than what two reads share"],
)
@pytest.mark.parametrize("block_bytes", [100, 300_000])
def test_reading_ahead_changes_nothing(tmp_path, content, block_bytes):
    """A thread that reads on while frames are worked on gives the same frames and notes."""
    path = tmp_path / "a"
    path.write_bytes(content)

    def read(*, ahead):
        frames = []
        with CaptureReader(str(path), block_bytes, ahead=ahead) as reader:
            for batch in reader:
                ends = zip(batch.start.tolist(), batch.caplen.tolist(), strict=True)
                frames += [batch.data[start : start + length].tobytes() for start, length in ends]
        return frames, reader.info, reader.bytes_read

    frames, info, bytes_read = read(ahead=True)
    assert (frames, info, bytes_read) == read(ahead=False)
    assert info.packets == len(frames) > 6


def test_a_reader_that_is_left_early_can_be_closed(tmp_path):
    """What a thread is still reading is waited for, so that nobody reads from a closed file."""
    path = tmp_path / "a"
    path.write_bytes(_pcap(30_000))
    for _ in range(20):
        with CaptureReader(str(path), 100, ahead=True) as reader:
            next(iter(reader))
            before = threading.active_count()
        assert threading.active_count() == before - 1


def test_frames_for_evidence(tmp_path):
    """Named frames come with their bytes; numbers that are not there are left out."""
    path = tmp_path / "x.pcap"
    path.write_bytes(_pcap(5))
    found = read_frames(str(path), [4, 2, 2, 99, 0, -1])
    assert found == {
        2: RawFrame(2, 2 * 10**9, 1, 100, b"001", 0),
        4: RawFrame(4, 4 * 10**9, 1, 100, b"003", 0),
    }
    assert read_frames(str(path), []) == {}
    path.write_bytes(_pcapng())
    found = read_frames(str(path), range(1, 10))
    assert found == {
        1: RawFrame(1, 5, 1, 4, b"abcd", 0),
        3: RawFrame(3, NO_TIME, 1, 4, b"efgh", 0),
        4: RawFrame(4, 5000, 113, 4, b"ijkl", 1),
    }
    with pytest.raises(UnreadableCapture, match="cannot be read a second time"):
        read_frames("-", [1])


def _consistent(path: Path) -> None:
    """Read whatever stands at `path`: a CaptureError, or batches that keep their promises."""
    try:
        with CaptureReader(str(path), 4096) as reader:
            frame = 0
            for batch in reader:
                assert (batch.frame == range(frame + 1, frame + len(batch) + 1)).all()
                frame += len(batch)
                assert (batch.start >= 0).all()
                assert (batch.start + batch.caplen <= len(batch.data)).all()
            info = reader.info
    except CaptureError:
        return
    assert info.packets == frame
    assert info.cut_short <= bool(info.notes)


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sampled_from([_pcap(), _pcapng(), _pcap() * 2]), st.data())
def test_damaged_captures_never_raise_anything_else(tmp_path, content, data):
    """Random bytes in a capture end in a CaptureError or in frames that lie within the data."""
    content = bytearray(content)
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.sampled_from([0, 1, 2, 3, 6, 9, 10, 127, 128, 255]))
    path = tmp_path / "fuzz"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    _consistent(path)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sampled_from(
        [b"", HEADER, _pcapng()[:28], _pcapng()[:60], b"\x1f\x8b", b"\x28\xb5\x2f\xfd"]
    ),
    st.binary(max_size=300),
)
def test_noise_never_raises_anything_else(tmp_path, head, noise):
    """Noise behind any beginning is answered, never a traceback."""
    path = tmp_path / "fuzz"
    path.write_bytes(head + noise)
    _consistent(path)


def test_every_prefix_of_a_stream_of_formats(tmp_path):
    """Every prefix of either format is answered."""
    path = tmp_path / "x"
    for content in (_pcap(), _pcapng()):
        for length in range(len(content) + 1):
            path.write_bytes(content[:length])
            _consistent(path)
