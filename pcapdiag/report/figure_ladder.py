"""The sequence diagram: who sent what to whom, and where it was lost.

One column a host in the order of appearance, one row an arrow. A fate is told by the line's form
and by words, never by colour alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pcapdiag.report import instants
from pcapdiag.report.plain import line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcapdiag.result import LadderStep

WIDTH: Final = 720
MAX_ACTORS: Final = 6
"""Columns that leave room for a name; a ladder of more hosts is shown as its table."""
MAX_STEPS: Final = 30
"""Rows of one screen and a half; the table has the rest."""
_LEFT: Final = 112  # the column of times
_HEAD: Final = 34
_ROW: Final = 46
_CHARACTER: Final = 6.4  # width of a character at 12 px, generous
_MAX_LABEL: Final = 84
_WORDS: Final = {"seen": "", "lost": " (lost)", "not-visible": " (not visible in the captures)"}


@dataclass(frozen=True, slots=True)
class Actor:
    """A column."""

    name: str
    x: int


@dataclass(frozen=True, slots=True)
class Arrow:
    """A row; a lost arrow ends before it reaches its host."""

    x1: int
    x2: int
    y: int
    head: str
    cross: int | None
    fate: str
    label: str
    label_x: int
    frames: str
    time: str


@dataclass(frozen=True, slots=True)
class LadderFigure:
    """Columns, rows and the instant that times count from."""

    width: int
    height: int
    actors: tuple[Actor, ...]
    arrows: tuple[Arrow, ...]
    start: str


def lay_out(steps: Sequence[LadderStep]) -> LadderFigure | None:
    """Return the drawing of `steps`, or None where there is nothing or too much to draw."""
    shown = steps[:MAX_STEPS]
    names = list(dict.fromkeys(name for step in shown for name in (step.from_, step.to)))
    if not shown or len(names) > MAX_ACTORS:
        return None
    gap = (WIDTH - _LEFT) / len(names)
    column = {name: round(_LEFT + gap * (index + 0.5)) for index, name in enumerate(names)}
    times = [step.time_ns for step in shown if step.time_ns is not None]
    start = min(times, default=0)
    most = max(8, int(gap / 7))
    return LadderFigure(
        width=WIDTH,
        height=_HEAD + len(shown) * _ROW + 12,
        actors=tuple(Actor(name=line(name, most), x=column[name]) for name in names),
        arrows=tuple(
            _arrow(step, column, _HEAD + index * _ROW + 24, start)
            for index, step in enumerate(shown)
        ),
        start=instants.readable(start) if times else "",
    )


def _arrow(step: LadderStep, column: dict[str, int], y: int, start: int) -> Arrow:
    x1, x2 = column[step.from_], column[step.to]
    if x1 == x2:
        x2 = x1 + 24
    toward = 1 if x2 > x1 else -1
    end = round(x1 + (x2 - x1) * 0.72) if step.fate == "lost" else x2 - 2 * toward
    label = line(step.label, _MAX_LABEL) + _WORDS[step.fate]
    half = len(label) * _CHARACTER / 2
    label_x = min(max((x1 + x2) / 2, _LEFT + half), WIDTH - half)
    frames = ", ".join(step.frames[:4]) + (" ..." if len(step.frames) > 4 else "")
    return Arrow(
        x1=x1,
        x2=end,
        y=y,
        head=f"{end},{y} {end - 8 * toward},{y - 4} {end - 8 * toward},{y + 4}",
        cross=end + 6 * toward if step.fate == "lost" else None,
        fate=step.fate,
        label=label,
        label_x=round(label_x),
        frames=line(frames, _MAX_LABEL),
        time="" if step.time_ns is None else f"+{(step.time_ns - start) / 1e9:.6f} s",
    )
