"""How many cores a run takes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from pcapdiag.capture.vantages import VantageInput
from pcapdiag.cli import cores

DIRECTOR = Path(__file__).parents[2] / "samples" / "pmtud-blackhole-dr" / "director.pcap"


@pytest.fixture
def unset(monkeypatch):
    """Take threads and engine out of the environment, and put them back afterwards."""
    for name in (cores.VARIABLE, cores.ENGINE):
        monkeypatch.setenv(name, "0")  # so that it is restored whatever the test does
        monkeypatch.delenv(name)


def _inputs(*paths):
    return (VantageInput("here", None, False, tuple(map(str, paths))),)


@pytest.mark.usefixtures("unset")
def test_small_captures_take_one_core(tmp_path):
    """Captures within the bound take one core and the engine for it; one byte more takes all."""
    small, rest = tmp_path / "small.pcap", tmp_path / "rest.pcap"
    small.write_bytes(b"\0")
    with rest.open("wb") as file:
        file.truncate(cores.SMALL_BYTES)
    cores.bound(_inputs(rest, small))
    assert {cores.VARIABLE, cores.ENGINE}.isdisjoint(os.environ)
    cores.bound(_inputs(rest))
    assert os.environ[cores.VARIABLE] == "1"
    assert pl.Config.state()["POLARS_ENGINE_AFFINITY"] == "in-memory"


@pytest.mark.usefixtures("unset")
@pytest.mark.parametrize("path", ["-", "/nowhere/to/be.pcap"])
def test_unknown_sizes_take_all_cores(path):
    """What comes through a pipe may be large, and a missing file decides nothing."""
    cores.bound(_inputs(path))
    assert {cores.VARIABLE, cores.ENGINE}.isdisjoint(os.environ)


def test_users_number_stands(monkeypatch):
    """A number in the environment stands, unless --jobs gives another; so does an engine."""
    monkeypatch.setenv(cores.VARIABLE, "3")
    monkeypatch.setenv(cores.ENGINE, "streaming")
    cores.bound(_inputs())
    assert os.environ[cores.VARIABLE] == "3"
    assert os.environ[cores.ENGINE] == "streaming"
    cores.bound(_inputs(), jobs=2)
    assert os.environ[cores.VARIABLE] == "2"


@pytest.mark.parametrize(
    ("command", "options", "threads"),
    [
        ("analyze", ["--no-html", "--quiet"], 1),
        ("analyze", ["--no-html", "--quiet", "--jobs", "3"], 3),
        ("inspect", [], 1),
        ("index", ["-o", "x.pcapidx"], 1),
    ],
)
def test_polars_starts_as_many_threads_as_it_may(tmp_path, command, options, threads):
    """The bound is told before the import that starts them; a small capture needs one."""
    script = (
        "import sys\nfrom pcapdiag.cli.program import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "import os, polars as pl\n"
        "print(pl.thread_pool_size(), os.environ['OPENBLAS_NUM_THREADS'], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, command, str(DIRECTOR), *options],
        check=True,
        cwd=tmp_path,
        env={
            key: value
            for key, value in os.environ.items()
            if key not in (cores.VARIABLE, "OPENBLAS_NUM_THREADS")
        },
        capture_output=True,
        text=True,
    )
    assert done.stderr.split()[-2:] == [str(threads), "1"]
