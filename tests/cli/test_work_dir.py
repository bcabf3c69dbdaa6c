"""A work directory that cannot take what it should costs one line and the captures that need it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pcapdiag import spool
from pcapdiag.cli import cores

SAMPLE = Path(__file__).parents[2] / "samples" / "pmtud-blackhole-dr"

LIMITED = """
import resource, sys
from pcapdiag import spool
from pcapdiag.cli import main
from pcapdiag.flows import partitions, spooled_flows
if __name__ == "__main__":
    spool.IN_MEMORY_ROWS = 0
    module, name = {
        "packets": (spool, "written"),
        "parts": (partitions, "_piece"),
        "flows": (spooled_flows, "build"),
    }[sys.argv.pop(1)]
    begun = getattr(module, name)

    def limited(*given):
        setattr(module, name, begun)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        try:
            return begun(*given)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    setattr(module, name, limited)
    main()
"""
"""pcapdiag, in which no file of one stage of the first capture becomes longer than 1000 bytes."""


@pytest.mark.parametrize("stage", ["packets", "parts", "flows"])
def test_a_full_disk_costs_one_capture(tmp_path, stage):
    """Where a write really fails the others are analysed, and nothing is left."""
    work = tmp_path / "work"
    work.mkdir()
    limited = [sys.executable, "-P", "-c", LIMITED, stage]
    arguments = ["director.pcap", "rs1.pcap", "--no-html", "--json", "-", "--work-dir", str(work)]
    ended = subprocess.run(
        [*limited, "analyze", *arguments],
        cwd=SAMPLE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 3
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"pcapdiag: error: director.pcap: the work directory {work}")
    assert "File too large" in line
    assert "--work-dir" in line
    result = json.loads(ended.stdout)
    assert [each["name"] for each in result["vantages"]] == ["rs1"]
    assert any("director.pcap could not be read and is missing" in note for note in result["notes"])
    assert not list(work.iterdir())


@pytest.mark.parametrize("jobs", [(), ("--jobs", "2")], ids=["here", "in processes"])
def test_no_work_directory_costs_what_does_not_fit(run, place, monkeypatch, jobs):
    """Captures that fit into memory are analysed; for the others the remedy is named."""

    def refused(**_):
        raise PermissionError(13, "Permission denied", "/full/pcapdiag-1")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", refused)
    monkeypatch.setattr(spool, "IN_MEMORY_ROWS", 8)  # four for each: a packet less than the first
    monkeypatch.setattr(cores, "LARGE_BYTES", 1)
    ended = run("analyze", "director.pcap", "rs1.pcap", "--no-html", "--json", "result.json", *jobs)
    assert ended.code == 3
    (line,) = ended.errors
    assert line.startswith("director.pcap: the work directory /full/pcapdiag-1 cannot")
    assert "Permission denied" in line
    assert "--work-dir" in line
    result = json.loads((place / "result.json").read_text())
    assert [each["name"] for each in result["vantages"]] == ["rs1"]


@pytest.mark.parametrize("name", ["director.pcap", "nowhere"])
def test_a_work_directory_that_is_none(run, place, name):
    """It is refused before anything is read, with what is wrong with it."""
    before = sorted(place.iterdir())
    ended = run("analyze", "director.pcap", "--work-dir", name)
    assert ended.code == 2
    (line,) = ended.errors
    assert "--work-dir" in line
    assert name in line
    assert sorted(place.iterdir()) == before
