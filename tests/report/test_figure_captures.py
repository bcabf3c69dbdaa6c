"""Captures on one time axis: common clock, gaps, what is said of each."""

from __future__ import annotations

from pcapdiag.report import figure_captures
from pcapdiag.result import CaptureFile, Vantage

S = 1_000_000_000


def _point(name, *spans, offset=0, **more):
    files = tuple(
        CaptureFile(path="x", format="pcap", packets=10, first_ns=first * S, last_ns=last * S)
        for first, last in spans
    )
    return Vantage(
        name=name,
        role="unknown",
        role_source="unknown",
        files=files,
        clock_offset_ns=offset,
        **more,
    )


def test_bars_lie_on_the_common_clock():
    """A vantage whose clock is 10 s behind is drawn 10 s later; two files leave a gap."""
    figure = figure_captures.lay_out(
        [_point("a", (0, 100)), _point("b", (-10, 20), (50, 90), offset=10 * S)]
    )
    (whole,), (first, second) = [row.bars for row in figure.rows]
    scale = whole.width / 100
    assert first.x == whole.x
    assert first.width == round(30 * scale, 1)
    assert second.x == round(whole.x + 60 * scale, 1)
    assert second.x + second.width == whole.x + whole.width


def test_unknown_clocks_are_hollow_and_said(incident):
    """What cannot be compared is not drawn as if it were."""
    figure = figure_captures.lay_out([_point("a", (0, 100)), _point("b", (0, 50), offset=None)])
    assert [row.aligned for row in figure.rows] == [True, False]
    assert figure.rows[1].clock == "clock unknown"
    told = [row.told for row in figure_captures.lay_out(incident.vantages).rows]
    assert any("17 dropped" in text for text in told)


def test_clock_errors_are_whiskers():
    """The half width of the uncertainty has the scale of the axis."""
    figure = figure_captures.lay_out([_point("a", (0, 100), clock_error_ns=5 * S)])
    bar = figure.rows[0].bars[0]
    assert bar.error == round(bar.width / 20, 1)


def test_nothing_to_draw():
    """Captures without times make no figure; one instant makes a bar that can be seen."""
    assert figure_captures.lay_out([]) is None
    assert figure_captures.lay_out([_point("a")]) is None
    assert figure_captures.lay_out([_point("a", (5, 5))]).rows[0].bars[0].width == 2.0


def test_many_vantages_are_counted():
    """What is not drawn is said."""
    figure = figure_captures.lay_out([_point(str(n), (0, 1)) for n in range(40)])
    assert (len(figure.rows), figure.left_out) == (24, 16)
