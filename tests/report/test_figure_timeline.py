"""Counts over time: nothing is left out, nothing leaves the drawing."""

from __future__ import annotations

import math

import pytest

from pcapdiag.report import figure_timeline
from pcapdiag.result import Timeline

START = 1_714_564_800_000_000_000


def test_bins_become_bars():
    """Empty bins have no bar, the highest fills its strip."""
    figure = figure_timeline.lay_out(Timeline(start_ns=START, bin_s=5, series={"a": (0, 2, 4)}))
    (strip,) = figure.strips
    assert len(strip.bars) == 2
    assert strip.bars[1].height == 2 * strip.bars[0].height
    assert (figure.first, figure.last, figure.bin) == ("12:00:00.000", "12:00:15.000", "5 s")


def test_many_bins_are_added_up():
    """A bar stands for several bins, and says for how long."""
    series = {"a": (1,) * 1000}
    figure = figure_timeline.lay_out(Timeline(start_ns=START, bin_s=1.0, series=series))
    assert len(figure.strips[0].bars) == 125
    assert figure.strips[0].most == "8"
    assert figure.bin == "8 s"


def test_many_series_are_counted():
    """What is not drawn is said."""
    series = {f"s{n}": (1,) for n in range(9)}
    assert figure_timeline.lay_out(Timeline(series=series)).left_out == 3


@pytest.mark.parametrize("timeline", [None, Timeline(), Timeline(series={"a": (0, 0)})])
def test_nothing_to_draw(timeline):
    """No counts, no figure."""
    assert figure_timeline.lay_out(timeline) is None


@pytest.mark.parametrize("bin_s", [0, -1, math.inf, math.nan, 1e300])
def test_impossible_bins_have_no_times(bin_s):
    """A length of time that no capture has is left out instead of failing."""
    figure = figure_timeline.lay_out(Timeline(start_ns=START, bin_s=bin_s, series={"a": (1,)}))
    assert figure.bin == figure.last == ""
