"""The decoded table as a file."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import polars as pl
import pytest

from pcapdiag.capture import reader
from pcapdiag.export import packets

SAMPLES = Path(__file__).parents[2] / "samples"


def test_csv_has_one_row_a_frame_with_addresses_as_text(run, place):
    """Frame numbers, times and addresses are those of the capture."""
    assert run("packets", "director.pcap", "--csv", "packets.csv").code == 0
    with (place / "packets.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["frame"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert {row["src"] for row in rows} == {"198.51.100.7", "192.0.2.254"}
    assert rows[0]["time_ns"] == "1714557600000000000"


def test_csv_on_standard_output_is_the_file(run, place):
    """--csv - gives the same bytes as a file."""
    run("packets", "director.pcap", "--csv", "packets.csv")
    ended = run("packets", "director.pcap", "--csv", "-")
    assert ended.code == 0
    assert ended.out.encode() == (place / "packets.csv").read_bytes()
    assert ended.err == ""


def test_parquet_is_the_same_table(run, place):
    """Both forms may be asked for at once and hold the same rows."""
    arguments = ["--csv", "packets.csv", "--parquet", "packets.parquet"]
    assert run("packets", "director.pcap", *arguments).code == 0
    table = pl.read_parquet(place / "packets.parquet")
    rows = list(csv.reader(io.StringIO((place / "packets.csv").read_text())))
    assert rows[0] == table.columns
    assert table["dst"].to_list() == [row[rows[0].index("dst")] for row in rows[1:]]


@pytest.mark.parametrize(
    "name",
    ["lab-failover-synced-dr/director.pcap.gz", "lab-pmtud-upload-silent-gre-tun/rs1.pcap.gz"],
)
def test_a_capture_in_parts_is_the_same_table(run, place, monkeypatch, name):
    """What is decoded and written a few packets at a time is what is written at once."""
    capture = SAMPLES / name
    targets = ("--csv", "{}.csv", "--parquet", "{}.parquet")
    assert run("packets", capture, *(each.format("whole") for each in targets)).code == 0
    parts = []
    join = packets.join
    monkeypatch.setattr(packets, "join", lambda *given: parts.append(given) or join(*given))
    monkeypatch.setattr(packets, "ROWS_AT_ONCE", 1)
    monkeypatch.setattr(reader, "open_capture", lambda path: reader.CaptureReader(path, 1 << 12))
    arguments = [each.format("parts") for each in targets]
    assert run("packets", capture, *arguments, "--work-dir", place).code == 0
    assert len(parts) > 2
    assert (place / "parts.csv").read_bytes() == (place / "whole.csv").read_bytes()
    whole, parted = (pl.read_parquet(place / f"{each}.parquet") for each in ("whole", "parts"))
    assert parted.equals(whole)
    assert {path.suffix for path in place.iterdir()} == {".pcap", ".csv", ".parquet"}


def test_a_full_disk_is_named(run, place):
    """The form that could not be written is, and the other one is not to blame."""
    arguments = ["--csv", "/dev/full", "--parquet", "packets.parquet"]
    ended = run("packets", "director.pcap", *arguments)
    assert ended.code == 2
    assert ended.errors[0].startswith("--csv /dev/full: cannot be written: No space left")
    ended = run("packets", "director.pcap", "--parquet", "/dev/full")
    assert ended.code == 2
    assert ended.errors[0].startswith("--parquet /dev/full: cannot be written: ")
    assert "No space left" in ended.errors[0]
    assert sorted(path.name for path in place.iterdir()) == ["director.pcap", "rs1.pcap"]


def test_a_capture_from_standard_input(execute, place):
    """- reads the capture from a pipe."""
    with (place / "director.pcap").open("rb") as capture:
        ended = execute("packets", "-", "--csv", "-", stdin=capture)
    assert ended.code == 0
    assert len(ended.out.splitlines()) == 6


def test_what_was_wrong_with_the_file_is_told(run, place, captures):
    """A cut file is a warning on standard error beside the table."""
    (place / "cut.pcap").write_bytes(captures.pcap[:-3])
    ended = run("packets", "cut.pcap", "--csv", "-")
    assert ended.code == 0
    assert len(ended.out.splitlines()) == 5
    assert ended.err.startswith("pcapdiag: warning: cut.pcap: ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--csv or --parquet must say where"),
        (["--csv", "director.pcap"], "would overwrite the input director.pcap"),
        (["--csv", "x", "--parquet", "x"], "would overwrite --csv x"),
        (["--parquet", "-"], "--parquet needs the name of a file"),
        (["--csv", "/dev/full"], "/dev/full"),
    ],
)
def test_a_place_that_cannot_be_is_a_usage_error(run, place, captures, arguments, said):
    """Nothing is written, the capture least of all."""
    ended = run("packets", "director.pcap", *arguments)
    assert ended.code == 2
    assert len(ended.errors) == 1
    assert said in ended.errors[0]
    assert (place / "director.pcap").read_bytes() == captures.pcap
    assert sorted(path.name for path in place.iterdir()) == ["director.pcap", "rs1.pcap"]
