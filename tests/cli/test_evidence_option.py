"""--evidence and --dissect: what the command line adds to the library."""

from __future__ import annotations

from pathlib import Path

import pytest

from pcapdiag.capture.reader import open_capture

SAMPLE = Path(__file__).parents[2] / "samples" / "pmtud-blackhole-dr"


def _packets(path):
    with open_capture(str(path)) as reader:
        for _ in reader:
            pass
        return reader.info


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--evidence-payload",), "--evidence FILE"),
        (("--evidence", "e.pcapng", "--redact"), "--redact"),
        (("--dissect", "--redact"), "--redact"),
        (("--evidence", "-"), "--evidence needs the name of a file"),
        (("--evidence", "director.pcap"), "would overwrite"),
    ],
)
def test_what_cannot_be(run, place, options, words):
    """Contradictions are told before anything is read."""
    ended = run("analyze", place / "director.pcap", "--no-html", *options)
    assert ended.code == 2
    assert words in ended.err


def test_evidence_beside_the_report(run, tmp_path):
    """The file holds the cited frames of each vantage, and the verdict is that of the run alone."""
    captures = [SAMPLE / f"{name}.pcap" for name in ("director", "rs1", "rs2")]
    plain = run("analyze", *captures, "--no-html")
    ended = run("analyze", *captures, "--no-html", "--evidence", "e.pcapng")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines()[0] == plain.out.splitlines()[0]
    info = _packets(tmp_path / "e.pcapng")
    assert {item.name for item in info.interfaces} == {"director", "rs1", "rs2"}
    assert ended.out.splitlines()[-1] == "Evidence: e.pcapng"


def test_standard_input_cannot_be_read_again(execute, tmp_path):
    """Frames that came by standard input are missing from the file, and that is told."""
    ended = execute(
        *("analyze", "director=-", SAMPLE / "rs1.pcap", SAMPLE / "rs2.pcap"),
        *("--no-html", "--evidence", "e.pcapng"),
        input=(SAMPLE / "director.pcap").read_bytes(),
        text=False,
    )
    assert ended.code == 0
    assert b"standard input cannot be read a second time" in ended.err
    assert {item.name for item in _packets(tmp_path / "e.pcapng").interfaces} == {"rs1", "rs2"}


def test_unwritable_evidence_leaves_the_old_one(run, place, monkeypatch):
    """A failure half-way leaves the old file, no temporary one, and the report is written."""
    from pcapdiag.export import evidence

    def fail(file, *_arguments, **_options):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(evidence, "write", fail)
    (place / "e.pcapng").write_bytes(b"old")
    before = {path.name for path in place.iterdir()}
    ended = run("analyze", "director.pcap", "--evidence", "e.pcapng")
    assert ended.code == 2
    assert "No space left on device; nothing was changed" in ended.err
    assert (place / "e.pcapng").read_bytes() == b"old"
    assert {path.name for path in place.iterdir()} - before == {"pcapdiag-report.html"}
