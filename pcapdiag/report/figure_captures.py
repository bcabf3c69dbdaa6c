"""When each vantage was capturing, on one time axis: what no bar covers, nothing proves.

Bars lie on the common clock: each vantage's times with its correction. One whose clock is not
known is drawn at its own times, hollow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from pcapdiag.report import instants, wording
from pcapdiag.report.plain import counted, line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcapdiag.result import Vantage

WIDTH: Final = 760
MAX_ROWS: Final = 24
"""Vantages drawn; the tables have the rest."""
MAX_BARS: Final = 60
"""Files of one vantage drawn: a ring of captures."""
_LEFT: Final = 130
_RIGHT: Final = 190  # what is said of each vantage
_ROW: Final = 36
_TOP: Final = 8


class Bar(NamedTuple):
    """One capture file; `error` is the half width of the clock's uncertainty."""

    x: float
    width: float
    error: float


class Row(NamedTuple):
    """One vantage."""

    name: str
    y: int
    bars: tuple[Bar, ...]
    aligned: bool
    told: str
    clock: str


class CapturesFigure(NamedTuple):
    """Rows above one axis from `first` to `last`."""

    width: int
    height: int
    left: int
    right: int
    bar_height: int
    rows: tuple[Row, ...]
    first: str
    last: str
    sentence: str
    left_out: int


def lay_out(vantages: Sequence[Vantage]) -> CapturesFigure | None:
    """Return the drawing, or None where no capture has times."""
    spans = [(point, _spans(point)) for point in vantages]
    ends = [time for _, files in spans for file in files for time in file]
    if not ends:
        return None
    first, last = min(ends), max(ends)
    scale = (WIDTH - _LEFT - _RIGHT) / max(1, last - first)
    rows = tuple(
        _row(point, files, _TOP + index * _ROW, first, scale)
        for index, (point, files) in enumerate(spans[:MAX_ROWS])
    )
    return CapturesFigure(
        width=WIDTH,
        height=_TOP + len(rows) * _ROW + 24,
        left=_LEFT,
        right=WIDTH - _RIGHT,
        bar_height=16,
        rows=rows,
        first=instants.clock(first)[:12],
        last=instants.clock(last)[:12],
        sentence=(
            f"{counted(len(vantages), 'vantage')} between {instants.seconds(first)} and "
            f"{instants.seconds(last)}; the tables below have the same."
        ),
        left_out=len(spans) - len(rows),
    )


def _spans(point: Vantage) -> list[tuple[int, int]]:
    offset = point.clock_offset_ns or 0
    return [
        (file.first_ns + offset, file.last_ns + offset)
        for file in point.files
        if file.first_ns is not None and file.last_ns is not None
    ]


def _row(point: Vantage, spans: Sequence[tuple[int, int]], y: int, first: int, scale: float) -> Row:
    packets = sum(file.packets for file in point.files)
    dropped = sum(file.dropped or 0 for file in point.files)
    told = counted(packets, "packet")
    if dropped:
        told += f", {dropped:,} dropped"
    if any(file.cut_short for file in point.files):
        told += ", cut short"
    error = (point.clock_error_ns or 0) * scale
    return Row(
        name=line(point.name, 17),
        y=y,
        bars=tuple(
            Bar(
                x=round(_LEFT + (begin - first) * scale, 1),
                width=round(max(2.0, (end - begin) * scale), 1),
                error=round(min(error, WIDTH), 1),
            )
            for begin, end in spans[:MAX_BARS]
        ),
        aligned=point.clock_offset_ns is not None,
        told=line(told, 34),
        clock=line(f"clock {wording.clock_offset(point)}", 34),
    )
