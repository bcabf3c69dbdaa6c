"""Whichever road a capture takes to its verdict, the verdict is the same to the last word."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from pcapdiag import spool
from pcapdiag.case import sides
from pcapdiag.cli import cores, main
from pcapdiag.flows import partitions

SAMPLE = Path(__file__).parents[1] / "samples" / "pmtud-blackhole-dr"

STREAMING = """
from pcapdiag import spool
from pcapdiag.cli import main
from pcapdiag.flows import partitions
if __name__ == "__main__":
    spool.IN_MEMORY_ROWS = 0
    spool.CHUNK_ROWS = partitions.PART_ROWS = 50
    main()
"""
"""pcapdiag with bounds so low that tables take several files and parts."""

CAPTURES = ["director.pcap", "rs1.pcap", "rs2.pcap"]


def _run(*arguments):
    ended = CliRunner().invoke(main, [*map(str, arguments)])
    assert (ended.exit_code, ended.stderr) == (0, "")
    return ended.stdout


def _verdict(*arguments):
    """Return the result but for when it was made, of which files, and other tools' words."""
    return _timeless(json.loads(_run("analyze", *arguments, "--no-html", "--json", "-")))


def _timeless(result):
    del result["generated_at"]
    for vantage in result["vantages"]:
        del vantage["files"]
    for finding in result["findings"]:
        for evidence in finding["evidence"]:
            del evidence["dissection"]
    return result


@pytest.fixture(scope="module")
def plain():
    """Return the verdict of one process that holds everything in memory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(SAMPLE)
        verdict = _verdict(*CAPTURES)
    assert verdict["findings"]
    assert verdict["clean"]
    assert verdict["not_examined"]
    assert not verdict["failed_rules"]
    return verdict


@pytest.fixture(autouse=True)
def _in_their_folder(monkeypatch):
    monkeypatch.chdir(SAMPLE)
    monkeypatch.setenv(cores.VARIABLE, "1")


@pytest.fixture
def spooling(monkeypatch):
    """Let nothing fit into memory, and a table take several files and parts."""
    monkeypatch.setattr(spool, "IN_MEMORY_ROWS", 0)
    monkeypatch.setattr(spool, "CHUNK_ROWS", 150)
    monkeypatch.setattr(partitions, "PART_ROWS", 150)
    made = []
    write = spool.written
    monkeypatch.setattr(spool, "written", lambda *given: made.append(write(*given)) or made[-1])
    yield
    assert len(made) > 2 * len(CAPTURES)


@pytest.mark.usefixtures("spooling")
def test_spooled(plain):
    """Files in the place of memory change nothing."""
    assert _verdict(*CAPTURES) == plain


def test_flood(plain, monkeypatch):
    """Nor does it whether TCP's senders are held, or made of flows when they are asked for."""
    monkeypatch.setattr(sides, "MANY_FLOWS", 0)
    assert _verdict(*CAPTURES) == plain


@pytest.mark.parametrize(
    "sample",
    [
        "icmp-unreachable-not-forwarded-nat",
        "redirect-to-router-onearm",
        "tunnel-mss-too-large-ipip",
    ],
)
def test_spooled_where_order_counts(sample, monkeypatch):
    """What counts repetitions, or names the first of several, finds rows in order in files, too.

    Polars keeps the order of rows by itself where it has one thread, or holds them in memory.
    """
    monkeypatch.chdir(SAMPLE.parent / sample)
    captures = [path.name for path in sorted(Path().glob("*.pcap*"))]
    plain = _verdict(*captures)
    assert plain["findings"]
    ended = subprocess.run(
        [sys.executable, "-P", "-c", STREAMING, "analyze", *captures, "--no-html", "--json", "-"],
        env=os.environ | {cores.VARIABLE: "4", cores.ENGINE: "streaming"},
        capture_output=True,
        check=True,
    )
    assert _timeless(json.loads(ended.stdout)) == plain


@pytest.mark.parametrize("spooled", [False, True], ids=["in memory", "spooled"])
def test_processes(plain, monkeypatch, spooled):
    """Neither does who read which capture, nor whether it came back as tables or as files."""
    monkeypatch.setattr(cores, "LARGE_BYTES", 1)
    if spooled:
        monkeypatch.setattr(spool, "IN_MEMORY_ROWS", 0)
    made = []
    pool = cores.pool
    monkeypatch.setattr(cores, "pool", lambda count: made.append(count) or pool(count))
    assert _verdict(*CAPTURES, "--jobs", "2") == plain
    assert made == [2]


def test_index(plain, tmp_path):
    """An index stands for its captures."""
    place = tmp_path / "case.pcapidx"
    _run("index", *CAPTURES, "-o", place)
    assert _verdict(place) == plain


def test_spooled_index(plain, tmp_path, request):
    """So it does where neither who made it nor who reads it could hold its tables."""
    request.getfixturevalue("spooling")
    place = tmp_path / "case.pcapidx"
    _run("index", *CAPTURES, "-o", place)
    assert _verdict(place) == plain


@pytest.mark.xdist_group("cluster")
@pytest.mark.filterwarnings("ignore")
def test_cluster(plain, cluster):
    """A cluster sends what would have been read here."""
    assert _verdict(*CAPTURES, "--scheduler", cluster.scheduler_address) == plain
