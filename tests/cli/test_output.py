"""Outputs are written whole or not at all, and never over an input or each other."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pcapdiag.cli import output
from pcapdiag.cli.output import Target
from pcapdiag.cli.streams import OutputError
from pcapdiag.errors import UsageError


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _fail(*_arguments: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_new_file_gets_the_umask_and_leaves_nothing_beside_it(tmp_path):
    """A report is as readable as any file that the user makes."""
    before = os.umask(0o027)
    try:
        output.write(Target("--html", str(tmp_path / "a.html")), "ä\udcff")
    finally:
        os.umask(before)
    assert (tmp_path / "a.html").read_bytes() == "ä\\udcff".encode()
    assert stat.S_IMODE((tmp_path / "a.html").stat().st_mode) == 0o640
    assert _names(tmp_path) == ["a.html"]


def test_a_file_that_is_replaced_keeps_its_mode(tmp_path):
    """Writing again does not make a private report public."""
    report = tmp_path / "a.html"
    report.write_text("old")
    report.chmod(0o600)
    output.write(Target("--html", str(report)), "new")
    assert report.read_text() == "new"
    assert stat.S_IMODE(report.stat().st_mode) == 0o600


@pytest.mark.parametrize("step", ["write_bytes", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_no_half_one(tmp_path, monkeypatch, step):
    """A full disk costs the new report, not the old one."""
    report = tmp_path / "a.html"
    report.write_text("old")
    monkeypatch.setattr(Path, step, _fail)
    with pytest.raises(
        OutputError, match=r"--html .*: No space left on device; nothing was changed"
    ):
        output.write(Target("--html", str(report)), "new")
    assert report.read_text() == "old"
    assert _names(tmp_path) == ["a.html"]


def test_an_interrupt_while_writing_leaves_nothing_behind(tmp_path):
    """Control-C takes the half file away."""

    def interrupted():
        with output.replacing(Target("--csv", str(tmp_path / "a.csv"))) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert _names(tmp_path) == []


def test_a_symbolic_link_stays_one(tmp_path):
    """The file that it points to is replaced."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link.html").symlink_to(tmp_path / "real" / "a.html")
    output.write(Target("--html", str(tmp_path / "link.html")), "new")
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "real" / "a.html").read_text() == "new"


def test_a_device_is_written_to_and_not_replaced():
    """--html /dev/null throws the report away, not the device."""
    targets = [Target("--html", "/dev/null"), Target("--json", "/dev/null")]
    output.check(targets, ["/dev/null"])
    output.write(targets[0], "text")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_a_full_device_is_an_error():
    """The operating system's reason is passed on."""
    with pytest.raises(OutputError, match="No space left"):
        output.write(Target("--html", "/dev/full"), "text")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Make a working directory with a capture, names for it, and a folder."""
    monkeypatch.chdir(tmp_path)
    Path("a.pcap").write_text("capture")
    Path("soft.pcap").symlink_to("a.pcap")
    os.link("a.pcap", "hard.pcap")
    Path("folder").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        ([("--html", "a.pcap")], "--html a.pcap would overwrite the input a.pcap"),
        ([("--html", "./folder/../a.pcap")], "would overwrite the input"),
        ([("--html", "soft.pcap")], "would overwrite the input"),
        ([("--html", "hard.pcap")], "would overwrite the input"),
        ([("--json", "x"), ("--html", "x")], "--html x would overwrite --json x"),
        ([("--json", "x"), ("--html", "./x")], "--html ./x would overwrite --json x"),
        ([("--json", "-"), ("--markdown", "-")], "--markdown - would overwrite --json -"),
        ([("--html", "folder")], "is a directory"),
        ([("--html", "new/")], "is a directory"),
        ([("--html", "missing/x")], "there is no directory"),
        ([("--html", "a.pcap/x")], "Not a directory"),
        ([("--html", "x" * 300)], "too long"),
        ([("--html", "")], "needs the name of a file"),
        ([("--html", "-")], "needs the name of a file, not '-'"),
        ([("--html", "x\0y")], "needs the name of a file"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_the_work(place, targets, said):
    """Whatever the path is written like, an input or another output is recognized."""
    wanted = [Target(option, path, option != "--html") for option, path in targets]
    before = _names(place)
    with pytest.raises(UsageError, match=said):
        output.check(wanted, ["a.pcap"])
    assert _names(place) == before


def test_a_folder_that_may_not_be_written_to_is_refused(place, monkeypatch):
    """A missing permission is found before the captures are read."""
    monkeypatch.setattr(os, "access", lambda _path, mode: not mode & os.W_OK)
    with pytest.raises(UsageError, match=f"no permission to write in {place}"):
        output.check([Target("--html", "x")], [])


def test_what_can_be_is_not_refused(place):
    """A new file, an old report, and standard streams on both ends pass."""
    Path("old.html").write_text("old")
    targets = [Target("--html", "old.html"), Target("--json", "-", True), Target("--csv", "new")]
    output.check(targets, ["a.pcap", "-"])
    assert place.joinpath("old.html").read_text() == "old"
