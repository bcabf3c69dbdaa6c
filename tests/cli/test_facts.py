"""`pcapdiag analyze --facts`: what hosts say themselves comes into the result."""

from __future__ import annotations

import json

import pytest

LINE = "kernel: IPVS: Incoming ICMP: failed checksum from 192.0.2.1!\n"


def test_a_kernel_log_is_counted_in_and_noted(run, place):
    """NAME=FILE; the result's notes say what was read."""
    (place / "dmesg.txt").write_text(LINE * 7)
    ended = run(
        *("analyze", "director.pcap", "--facts", "director=dmesg.txt"),
        *("--json", "r.json", "--no-html", "--quiet"),
    )
    assert (ended.code, ended.err) == (0, "")
    notes = json.loads((place / "r.json").read_text())["notes"]
    assert "dmesg.txt: 7 lines of the kernel log of director counted in" in notes


@pytest.mark.usefixtures("place")
def test_a_log_that_cannot_be_read_is_wrong_usage(run):
    """Exit code 2 and one line, before anything is read."""
    ended = run("analyze", "director.pcap", "--facts", "director=missing.txt")
    assert ended.code == 2
    assert "--facts missing.txt: cannot be read" in ended.err


def test_a_report_never_overwrites_a_log(run, place):
    """An output that names a facts file is refused, as for captures."""
    (place / "dmesg.txt").write_text(LINE)
    for given in ("dmesg.txt", "d=dmesg.txt"):
        ended = run("analyze", "director.pcap", "--facts", given, "--json", "dmesg.txt")
        assert ended.code == 2
    assert (place / "dmesg.txt").read_text() == LINE
