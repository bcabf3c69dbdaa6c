"""Arguments of the command line to vantages."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import pytest

from pcapdiag.capture import vantages
from pcapdiag.capture.vantages import VantageInput, resolve
from pcapdiag.errors import TruncatedHeader, UnknownFormat, UnreadableCapture, UsageError


def _pcap(second: int = 1) -> bytes:
    header = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    return header + struct.pack("<IIII", second, 0, 1, 1) + b"x"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _make(*names: str, second: int = 1) -> None:
    for number, name in enumerate(names):
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_pcap(second + number))


def _names(*arguments: str) -> dict[str, tuple[str, ...]]:
    """Return the paths of every vantage by its name; there are no errors."""
    found, errors = resolve(arguments)
    assert errors == ()
    assert len({vantage.name for vantage in found}) == len(found)
    return {vantage.name: vantage.paths for vantage in found}


def test_labels_name_vantages():
    """NAME=PATH says it; several files of one NAME are one vantage, in the order of time."""
    _make("b.pcap", "a.pcap", "c.pcap")
    found, errors = resolve(["director=a.pcap", "rs 1=c.pcap", "director=b.pcap"])
    assert errors == ()
    assert found == (
        VantageInput("director", "director", True, ("b.pcap", "a.pcap")),
        VantageInput("rs 1", None, True, ("c.pcap",)),
    )


def test_a_path_that_exists_is_a_path():
    """An equals sign in a file's name does not make a label."""
    _make("vip=80.pcap", "a=b.pcap")
    assert _names("vip=80.pcap", "lb=vip=80.pcap") == {"lb": ("vip=80.pcap",)}
    assert _names("x=a=b.pcap") == {"x": ("a=b.pcap",)}
    assert _names("x=y=vip=80.pcap") == {"x=y": ("vip=80.pcap",)}


def test_labels_that_cannot_be(here):
    """A missing name is a usage error, and so are two names for one file."""
    _make("a.pcap")
    for argument in ("=a.pcap", " =a.pcap"):
        with pytest.raises(UsageError, match="write NAME=PATH"):
            resolve([argument])
    (here / "link.pcap").symlink_to("a.pcap")
    for again in ("rs1=a.pcap", "rs1=./a.pcap", "rs1=link.pcap"):
        with pytest.raises(UsageError, match="is given as lb and as rs1: a capture"):
            resolve(["lb=a.pcap", again])


def test_stems_name_vantages():
    """Without a label the stem does; its first word tells the role."""
    _make("director.pcap", "rs1.pcapng.gz", "x/client-eth0.cap", "odd")
    found, errors = resolve(["director.pcap", "rs1.pcapng.gz", "x/client-eth0.cap", "odd"])
    assert errors == ()
    assert [(vantage.name, vantage.role, vantage.labelled) for vantage in found] == [
        ("director", "director", False),
        ("rs1", "realserver", False),
        ("client-eth0", "client", False),
        ("odd", None, False),
    ]


def test_rings_are_one_vantage():
    """A ring of one stem in one folder is one vantage, by time whatever the numbers say."""
    _make("lb.pcap2", "lb.pcap0", "lb.pcap1", "rs1_00002_20240101120000.pcap")
    _make("rs1_00001_20240101110000.pcap.gz")
    assert _names("lb.pcap0", "lb.pcap1", "lb.pcap2") == {
        "lb": ("lb.pcap2", "lb.pcap0", "lb.pcap1")
    }
    assert _names(".")["rs1"] == (
        "./rs1_00001_20240101110000.pcap.gz",
        "./rs1_00002_20240101120000.pcap",
    )


def test_a_ring_without_times_goes_by_number(here):
    """Where the files have no time, the ring number tells the order."""
    for name in ("lb.pcap10", "lb.pcap", "lb.pcap9"):
        (here / name).write_bytes(_pcap()[:24])
    assert _names("lb.pcap10", "lb.pcap9", "lb.pcap") == {
        "lb": ("lb.pcap", "lb.pcap9", "lb.pcap10")
    }


def test_equal_stems_in_different_folders_get_the_folder():
    """The folder comes in front, and may tell the role."""
    _make("director/eth0.pcap", "rs1/eth0.pcap", "rs1/eth1.pcap")
    found, _ = resolve(["director/eth0.pcap", "rs1/eth0.pcap", "rs1/eth1.pcap"])
    assert [(vantage.name, vantage.role) for vantage in found] == [
        ("director-eth0", "director"),
        ("rs1-eth0", "realserver"),
        ("eth1", None),
    ]
    _make("a/x/lb.pcap", "b/x/lb.pcap")
    found, _ = resolve(["a/x/lb.pcap", "b/x/lb.pcap"])
    assert [(vantage.name, vantage.role) for vantage in found] == [
        ("a-x-lb", "director"),
        ("b-x-lb", "director"),
    ]


def test_a_stem_that_is_a_label_joins_it():
    """A file called like a label was taken there."""
    _make("rs1.pcap", "foo.pcap")
    assert _names("rs1=foo.pcap", "rs1.pcap") == {"rs1": ("rs1.pcap", "foo.pcap")}


def test_a_directory(here):
    """First-level folders are vantages, files at the top go by stem, others are passed over."""
    _make("case/lb.pcap", "case/lb.pcap1", "case/rs1/eth0.pcap", "case/rs1/deep/er/eth1.pcap")
    _make("case/rs2/any", "case/.hidden/x.pcap", "case/rs1/.x.pcap")
    for name in ("README.md", "truth.json", "state.txt", "rs1/notes", "empty/readme", "zero"):
        path = here / "case" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"" if name == "zero" else b"words\n")
    (here / "case" / "logs.tar.gz").write_bytes(gzip.compress(b"no capture"))
    assert _names("case") == {
        "lb": ("case/lb.pcap", "case/lb.pcap1"),
        "rs1": ("case/rs1/eth0.pcap", "case/rs1/deep/er/eth1.pcap"),
        "rs2": ("case/rs2/any",),
    }
    assert list(_names("site=case")) == ["site"]
    assert len(_names("site=case")["site"]) == 5


def test_a_directory_without_captures_is_an_error(here):
    """So is one that holds far too many files; the other inputs are kept."""
    _make("a.pcap")
    (here / "none").mkdir()
    (here / "none" / "README.md").write_text("words")
    found, (error,) = resolve(["none", "a.pcap"])
    assert [vantage.name for vantage in found] == ["a"]
    assert isinstance(error, UnreadableCapture)
    assert (error.path, error.message.split(";")[0]) == (
        "none",
        "there is no capture in this directory",
    )


def test_a_directory_of_too_many_files_is_an_error(monkeypatch):
    """The root directory given by a slip does not make the program look at everything."""
    monkeypatch.setattr(vantages, "MAX_FILES", 3)
    _make("d/1.pcap", "d/2.pcap", "d/3.pcap", "d/4.pcap")
    found, (error,) = resolve(["d"])
    assert found == ()
    assert "more than 3 files" in error.message


def test_loops_of_links_are_not_followed(here):
    """A link to its own folder and a link to itself end nothing."""
    _make("d/lb.pcap")
    (here / "d" / "again").symlink_to(here / "d", target_is_directory=True)
    (here / "d" / "self.pcap").symlink_to("self.pcap")
    assert _names("d") == {"lb": ("d/lb.pcap",)}


def test_what_should_be_a_capture_in_a_directory_is_told(here):
    """A file that is called a capture and is none is an error; the others are kept."""
    _make("d/lb.pcap")
    (here / "d" / "rs1.pcap").write_bytes(b"")
    (here / "d" / "rs2.pcap.gz").write_bytes(gzip.compress(b"no capture"))
    found, errors = resolve(["d"])
    assert [vantage.name for vantage in found] == ["lb"]
    assert [error.path for error in errors] == ["d/rs1.pcap", "d/rs2.pcap.gz"]


def test_inputs_that_cannot_be_read_are_errors_of_their_own(here):
    """Missing, empty and text files are told one by one, and the rest is kept."""
    _make("a.pcap")
    (here / "empty.pcap").write_bytes(b"")
    (here / "notes.txt").write_text("some words\n")
    arguments = ["missing.pcap", "lb=gone.pcap", "empty.pcap", "a.pcap", "notes.txt", "nul\0"]
    found, errors = resolve(arguments)
    assert [vantage.name for vantage in found] == ["a"]
    assert [(type(error), error.path) for error in errors] == [
        (UnreadableCapture, "missing.pcap"),
        (UnreadableCapture, "gone.pcap"),
        (TruncatedHeader, "empty.pcap"),
        (UnknownFormat, "notes.txt"),
        (UnreadableCapture, "nul\0"),
    ]


def test_a_file_given_twice_is_read_once(here):
    """By path, by link or through its directory: one capture, and a note; a label wins."""
    _make("d/lb.pcap")
    os.link(here / "d" / "lb.pcap", here / "hard.pcap")
    found, errors = resolve(["d/lb.pcap", "./d/lb.pcap", "d", "hard.pcap"])
    assert errors == ()
    assert found == (
        VantageInput(
            name="lb",
            role="director",
            labelled=False,
            paths=("d/lb.pcap",),
            notes=(
                "d/lb.pcap was given more than once, also as ./d/lb.pcap; it was read once",
                "d/lb.pcap was given more than once; it was read once",
                "d/lb.pcap was given more than once, also as hard.pcap; it was read once",
            ),
        ),
    )
    (only,), _ = resolve(["d", "rs1=hard.pcap"])
    assert (only.name, only.paths, len(only.notes)) == ("rs1", ("hard.pcap",), 1)


def test_a_compressed_copy_beside_its_original_is_left_out(here):
    """Same name and same first packet: a copy. Another first packet: an older file of a ring."""
    _make("lb.pcap", "rs1.pcap0")
    (here / "lb.pcap.gz").write_bytes(gzip.compress(_pcap(1)))
    (here / "rs1.pcap0.gz").write_bytes(gzip.compress(_pcap(99)))
    (here / "zero.pcap").write_bytes(_pcap()[:24])  # without a packet nothing tells
    (here / "zero.pcap.gz").write_bytes(gzip.compress(_pcap()[:24]))
    found, _ = resolve(["."])
    assert [(vantage.paths, vantage.notes) for vantage in found] == [
        (
            ("./lb.pcap",),
            ("./lb.pcap.gz was left out as a compressed copy of ./lb.pcap",),
        ),
        (("./rs1.pcap0", "./rs1.pcap0.gz"), ()),
        (("./zero.pcap", "./zero.pcap.gz"), ()),
    ]


def test_streams_are_not_touched(here):
    """Standard input and pipes can be read only once: they are left for the reader."""
    os.mkfifo(here / "pipe")
    found, errors = resolve(["-", "lb=pipe"])
    assert errors == ()
    assert [(vantage.name, vantage.paths) for vantage in found] == [
        ("stdin", ("-",)),
        ("lb", ("pipe",)),
    ]
    assert _names("lb=-") == {"lb": ("-",)}
    with pytest.raises(UsageError):
        resolve(["lb=-", "rs1=-"])


def test_names_are_unique_whatever_is_given():
    """Labels, stems and folders that meet in one name are told apart."""
    _make("case-lb.pcap", "case/lb.pcap", "other/lb.pcap")
    found = _names("case-lb.pcap", "case/lb.pcap", "other/lb.pcap")
    assert list(found) == ["case-lb", "case-lb-2", "other-lb"]


def test_nothing_given_is_nothing_found():
    """No argument, no vantage."""
    assert resolve([]) == ((), ())
