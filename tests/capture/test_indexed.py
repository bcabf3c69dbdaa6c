"""What an index says of its captures, and when it is no longer believed."""

from __future__ import annotations

import json
import os
import zipfile

import pytest

from pcapdiag.capture import indexed
from pcapdiag.capture.frames import CaptureInfo, Interface
from pcapdiag.capture.vantages import resolve
from pcapdiag.errors import StaleIndex, UnreadableCapture


def _capture(path, vantage="rs1", **given):
    status = path.stat()
    interface = Interface(0, "eth0", None, 1, 96, "icmp", 3, None)
    info = CaptureInfo(
        str(path), "pcap", 7, (1,), 5, 9, 96, 3, False, ("note",), (interface,),
        status.st_size, status.st_mtime_ns,
    )  # fmt: skip
    digest = indexed.sample_digest(str(path))
    return indexed.IndexedCapture(
        **{"vantage": vantage, "labelled": False, "info": info, "digest": digest, "sha256": None}
        | given
    )


def _write(path, content, name=indexed.MANIFEST):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, content)
    return str(path)


@pytest.fixture
def file(tmp_path):
    """Write a file that stands for a capture, larger than what is sampled of it."""
    path = tmp_path / "rs1.pcap"
    path.write_bytes(os.urandom(3 << 20))
    return path


def test_manifest_is_read_as_it_was_written(tmp_path, file):
    """All that is known of a capture comes back."""
    captures = (_capture(file), _capture(file, "web", labelled=True, sha256="ab"))
    path = _write(tmp_path / "x.pcapidx", indexed.pack(captures))
    assert indexed.captures(path) == captures


def test_captures_of_an_index_are_vantages(tmp_path, file):
    """An index gives its captures at their vantages, under a label given now or then."""
    captures = (_capture(file, "rs1"), _capture(file, "web", labelled=True))
    path = _write(tmp_path / "x.pcapidx", indexed.pack(captures))
    inputs, failures = resolve([path])
    assert not failures
    assert [(item.name, item.role, item.labelled, item.paths) for item in inputs] == [
        ("rs1", "realserver", False, (f"{path}/0",)),
        ("web", None, True, (f"{path}/1",)),
    ]
    inputs, _ = resolve([f"director={path}"])
    assert [(item.name, item.role, item.paths) for item in inputs] == [
        ("director", "director", (f"{path}/0", f"{path}/1"))
    ]
    assert indexed.member(f"{path}/1") == (path, 1)
    assert indexed.member(f"{tmp_path}/1") is None


def _replace(file):
    file.write_bytes(os.urandom(3 << 20))


def _grow(file):
    with file.open("ab") as handle:
        handle.write(b"x")


@pytest.mark.parametrize("change", [_replace, _grow])
def test_changed_capture_makes_an_index_stale(file, change):
    """Another content under the capture's name is refused, and the remedy named."""
    capture = _capture(file)
    change(file)
    os.utime(file, ns=(0, 1))
    with pytest.raises(StaleIndex, match=r"x\.pcapidx.*stale.*rs1\.pcap.*pcapdiag index"):
        indexed.require_fresh("x.pcapidx", capture)


def _touch(file):
    os.utime(file, ns=(0, 1))


@pytest.mark.parametrize("change", [lambda _: None, _touch, lambda file: file.unlink()])
def test_same_capture_keeps_an_index_fresh(file, change):
    """A capture that was copied with a new time, or is not here at all, changes nothing."""
    capture = _capture(file)
    change(file)
    indexed.require_fresh("x.pcapidx", capture)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"layout": 99, "captures": "?"}', "layout 99, and this version reads 1"),
        (b"{", "damaged"),
        (b"[]", "damaged"),
        (b'{"layout": 1, "captures": [{"info": 5}]}', "damaged"),
        (b'{"layout": 1, "captures": [{}]}', "damaged"),
        (b"\xff", "damaged"),
    ],
)
def test_unusable_index_is_refused(tmp_path, content, words):
    """A damaged index and one of another version are named so, with the remedy."""
    path = _write(tmp_path / "x.pcapidx", content)
    with pytest.raises(UnreadableCapture, match=f"{words}.*pcapdiag index"):
        indexed.captures(path)
    assert [str(failure) for failure in resolve([path])[1]]


def test_other_archives_are_no_index(tmp_path):
    """A zip archive without a manifest, a folder and a missing file are no index."""
    assert not indexed.is_index(_write(tmp_path / "a.zip", b"{}", "other.json"))
    assert indexed.is_index(_write(tmp_path / "b.zip", json.dumps({})))
    assert not indexed.is_index(str(tmp_path))
    assert not indexed.is_index(str(tmp_path / "missing"))
