"""The ladder in plain characters."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from pcapdiag.report import ascii_ladder
from pcapdiag.result import LadderStep


def test_columns_arrows_and_fates(incident):
    """Names stand over their columns, a lost packet ends in X, what is not visible is dots."""
    head, *rows = ascii_ladder.draw(incident.findings[1], 100)
    assert head.split() == ["client", "director", "rs1", "router"]
    assert len(rows) == 5
    lost = rows[1]
    assert "X" in lost
    assert "seq 1:1449, 1500 bytes, DF" in lost
    assert lost.startswith("+0.012 s")
    assert rows[4].endswith(".|                     |")
    assert ">" in rows[0]
    assert all(row == row.rstrip() and len(row) <= 100 for row in (head, *rows))
    assert "".join([head, *rows]).isascii()


def test_cross_is_never_covered(incident):
    """However long the label is, the mark of the loss stays."""
    steps = tuple(
        LadderStep(from_="a", to="b", label="x" * length, fate="lost", packet=length)
        for length in (1, 30, 300)
    )
    finding = replace(incident.findings[1], ladder=steps, ladder_columns=("a", "b"))
    assert [row.count("X") for row in ascii_ladder.draw(finding, 80)] == [0, 1, 1, 1]


def test_what_did_not_arrive_comes_before_what_did(incident):
    """Of a long ladder the lost packets are shown, in their order."""
    steps = tuple(
        LadderStep(
            from_="a",
            to="b",
            label=f"packet{n:02}",
            ip_length=40,
            fate="lost" if n > 15 else "seen",
            packet=n,
        )
        for n in range(20)
    )
    finding = replace(incident.findings[1], ladder=steps, ladder_columns=("a", "b"))
    rows = ascii_ladder.draw(finding, 80)[1:]
    shown = [re.search(r"packet\d\d", row)[0] for row in rows]
    assert shown == ["packet00", "packet16", "packet17", "packet18", "packet19"]


@pytest.mark.parametrize("width", [0, 20, 40])
def test_too_narrow_or_nothing_is_no_drawing(incident, width):
    """Where columns would touch there is no drawing, nor for a finding without a ladder."""
    assert ascii_ladder.draw(incident.findings[1], width) == []
    assert ascii_ladder.draw(replace(incident.findings[1], ladder=()), 80) == []


@pytest.mark.parametrize("width", range(30, 200, 7))
def test_any_width_holds_any_label(incident, rewrite, width):
    """No row is wider than the console, whatever the texts are."""
    hostile = rewrite(incident, lambda text: f"\x1b[31m{text}\u202e" * 9)
    for finding in (*incident.findings, *hostile.findings):
        for row in ascii_ladder.draw(finding, width):
            assert len(row) <= width
            assert "\x1b" not in row
            assert "\u202e" not in row
