"""Counts over time, one strip a series, all on one time axis but each on its own scale."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from pcapdiag.report import instants
from pcapdiag.report.plain import line, number

if TYPE_CHECKING:
    from pcapdiag.result import Timeline

WIDTH: Final = 760
MAX_SERIES: Final = 6
MAX_BINS: Final = 140
"""Bars of 4 units; more bins are added up, so that a bar can be told from its neighbour."""
_LEFT: Final = 205
_STRIP: Final = 44
_GAP: Final = 14
_MAX_SPAN_S: Final = 1e9  # thirty years


class Bar(NamedTuple):
    """One bin that is not empty."""

    x: float
    y: float
    height: float


class Strip(NamedTuple):
    """One series."""

    name: str
    most: str
    base: int
    bars: tuple[Bar, ...]


class TimelineFigure(NamedTuple):
    """Strips above one axis from `first` to `last`; `bin` is the length of time of one bar."""

    width: int
    height: int
    left: int
    bar_width: float
    strips: tuple[Strip, ...]
    first: str
    last: str
    bin: str
    left_out: int


def lay_out(timeline: Timeline | None) -> TimelineFigure | None:
    """Return the drawing of `timeline`, or None where it counts nothing."""
    if timeline is None or not timeline.series:
        return None
    bins = max(len(values) for values in timeline.series.values())
    if not any(value > 0 for values in timeline.series.values() for value in values):
        return None
    factor = math.ceil(bins / MAX_BINS)
    columns = math.ceil(bins / factor)
    width = (WIDTH - _LEFT) / columns
    names = sorted(timeline.series)
    strips = []
    for position, name in enumerate(names[:MAX_SERIES]):
        values = timeline.series[name]
        sums = [max(0, sum(values[at : at + factor])) for at in range(0, len(values), factor)]
        most = max(sums, default=0)
        base = position * (_STRIP + _GAP) + _GAP + _STRIP
        strips.append(
            Strip(
                name=line(name, 33),
                most=number(most),
                base=base,
                bars=tuple(
                    Bar(
                        x=round(_LEFT + column * width, 1),
                        y=round(base - max(2.0, value / most * _STRIP), 1),
                        height=round(max(2.0, value / most * _STRIP), 1),
                    )
                    for column, value in enumerate(sums)
                    if value
                ),
            )
        )
    step_ns = _nanoseconds(timeline.bin_s, bins)
    start = timeline.start_ns
    end = None if start is None or step_ns is None else start + bins * step_ns
    return TimelineFigure(
        width=WIDTH,
        height=len(strips) * (_STRIP + _GAP) + _GAP + 18,
        left=_LEFT,
        bar_width=round(max(1.0, width - 1), 1),
        strips=tuple(strips),
        first="" if start is None else instants.clock(start)[:12],
        last="" if end is None else instants.clock(end)[:12],
        bin="" if step_ns is None else instants.duration(step_ns * factor),
        left_out=len(names) - len(strips),
    )


def _nanoseconds(bin_s: float, bins: int) -> int | None:
    """Return a bin's length, or None where the bins make no length of time a capture can have."""
    if not 0 < bin_s * bins < _MAX_SPAN_S:  # false for infinity and for no number, too
        return None
    return round(bin_s * 1e9)
