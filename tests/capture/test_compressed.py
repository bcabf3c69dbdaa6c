"""Compressed captures: every kind, members, truncation, damage, bombs."""

from __future__ import annotations

import gzip
import itertools
import lzma
import struct
import tracemalloc

import lz4.frame
import numpy as np
import pytest
import zstandard

from pcapdiag.capture import compressed
from pcapdiag.capture.reader import CaptureReader, open_capture
from pcapdiag.errors import CaptureError, UnknownFormat

KINDS = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "lz4": lz4.frame.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}


def _capture(count=3000, seed=1):
    rng = np.random.default_rng(seed)
    parts = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)]
    for number in range(count):
        kept = rng.bytes(int(rng.integers(20, 200)))
        parts.append(struct.pack("<IIII", 1_700_000_000, number, len(kept), len(kept)) + kept)
    return b"".join(parts)


def _read(path):
    """Return the frames' bytes in one row, how many there are, and the info."""
    found = []
    with CaptureReader(str(path), 1 << 16) as reader:
        for batch in reader:
            for start, length in zip(batch.start.tolist(), batch.caplen.tolist(), strict=True):
                found.append(batch.data[start : start + length].tobytes())
        return found, reader.info


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Return a capture's bytes and its frames."""
    content = _capture()
    path = tmp_path_factory.mktemp("plain") / "x.pcap"
    path.write_bytes(content)
    return content, _read(path)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_found_by_its_magic(tmp_path, plain, kind):
    """The name does not matter; the frames are those of the plain file."""
    content, frames = plain
    path = tmp_path / "name-says-nothing"
    path.write_bytes(KINDS[kind](content))
    found, info = _read(path)
    assert found == frames
    assert (info.format, info.cut_short, info.notes) == (f"pcap+{kind}", False, ())
    assert info.size == path.stat().st_size


@pytest.mark.parametrize("kind", KINDS)
def test_members_one_behind_the_other(tmp_path, plain, kind):
    """Streams that were appended to each other are one capture, with padding between or not."""
    content, frames = plain
    cuts = [0, 10, 10, 5000, len(content)]
    members = [KINDS[kind](content[first:last]) for first, last in itertools.pairwise(cuts)]
    path = tmp_path / "x"
    for padding in (b"", bytes(512), bytes(200_000)):
        path.write_bytes(padding.join(members) + padding)
        found, info = _read(path)
        assert found == frames
        assert info.notes == ()


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_stream_is_cut_short(tmp_path, plain, kind):
    """What can be decompressed is read, the rest is a note."""
    content, frames = plain
    packed = KINDS[kind](content)
    path = tmp_path / "x"
    path.write_bytes(packed[: len(packed) * 2 // 3])
    found, info = _read(path)
    assert found == frames[: len(found)]
    assert len(found) > len(frames) // 3
    assert info.cut_short
    assert info.notes[-1].startswith(f"the {kind} stream is cut short: it ends at its byte ")


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_a_note(tmp_path, plain, kind):
    """Damage in the stream never leaves the reader as anything but a note or a CaptureError."""
    content, frames = plain
    packed = bytearray(KINDS[kind](content))
    packed[len(packed) // 2] ^= 0xFF
    packed[-3] ^= 0xFF
    path = tmp_path / "x"
    path.write_bytes(packed)
    try:
        found, info = _read(path)
    except CaptureError:
        return
    same = sum(one == other for one, other in zip(found, frames, strict=False))
    assert same >= len(found) - 1
    assert info.cut_short or kind in {"lz4", "zstd"}  # which may come without a checksum


def test_gzip_gives_all_bytes_before_the_damage(tmp_path, plain):
    """A wrong checksum at the very end loses no frame."""
    content, frames = plain
    packed = bytearray(gzip.compress(content))
    packed[-6] ^= 1
    path = tmp_path / "x"
    path.write_bytes(packed)
    found, info = _read(path)
    assert found == frames
    assert info.cut_short
    assert "stream is damaged before its byte" in info.notes[-1]


def test_every_prefix_of_a_compressed_capture_has_a_clear_answer(tmp_path):
    """Cut anywhere, a compressed capture is a CaptureError or cut short."""
    content = _capture(4)
    path = tmp_path / "x"
    for compress in KINDS.values():
        packed = compress(content)
        for length in range(len(packed)):
            path.write_bytes(packed[:length])
            try:
                found, info = _read(path)
            except CaptureError:
                continue
            assert info.cut_short or (compress is gzip.compress and length > len(packed) - 9)
            assert len(found) <= 4


def test_what_follows_a_stream_is_left_out_with_a_note(tmp_path, plain):
    """Other bytes behind the stream are named, as gzip(1) does."""
    content, frames = plain
    path = tmp_path / "x"
    path.write_bytes(gzip.compress(content) + b"and other things")
    found, info = _read(path)
    assert found == frames
    assert info.notes == ("what follows the gzip stream is none and was left out",)


def test_a_stream_within_a_stream_is_named(tmp_path):
    """One layer is opened, the second is an error that says what to do."""
    path = tmp_path / "x.pcap.gz.xz"
    path.write_bytes(lzma.compress(gzip.compress(_capture(1))))
    with pytest.raises(UnknownFormat, match="the xz stream holds another compressed stream"):
        open_capture(str(path))


@pytest.mark.parametrize("kind", KINDS)
def test_a_bomb_stays_in_bounded_memory(tmp_path, monkeypatch, kind):
    """A stream that grows a thousandfold is read in small pieces, and given up in the end."""
    monkeypatch.setattr(compressed, "_BOMB_BYTES", 4 << 20)
    zeros = _capture(1) + bytes(48 << 20)
    path = tmp_path / "x"
    path.write_bytes(KINDS[kind](zeros))
    del zeros
    tracemalloc.start()
    with CaptureReader(str(path), 1 << 20) as reader:
        frames = sum(len(batch) for batch in reader)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 1 << 18 <= frames < 3 << 20
    assert "grows to more than 200 times its size" in reader.info.notes[-1]
    assert peak < 40 << 20
