"""The sequence diagram: who sent what to whom, over which places, and where it was lost.

One column a place, one row a packet: its arrows from place to place share the row. A fate is told
by the line's form and by words, never by colour alone.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Final, NamedTuple

from pcapdiag.report import instants
from pcapdiag.report.plain import line

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pcapdiag.result import LadderStep

WIDTH: Final = 760
MAX_COLUMNS: Final = 8
"""Columns that leave room for a name; a ladder of more places is shown as its table."""
MAX_ROWS: Final = 24
"""Rows of one screen and a half; the table has the rest."""
_LEFT: Final = 128  # numbers, times, and the ties of errors to what they quote
_TIE: Final = 118  # where the ties run
_HEAD: Final = 34
_ROW: Final = 46
_CHARACTER: Final = 6.4  # width of a character at 12 px, generous
_MAX_LABEL: Final = 90


class Column(NamedTuple):
    """A place."""

    name: str
    x: int


class Arrow(NamedTuple):
    """One way of a packet; a lost one ends before it arrives, with a cross at `cross`."""

    x1: int
    x2: int
    head: str
    cross: int | None
    fate: str


class Row(NamedTuple):
    """One packet, or one kind of packet that was repeated."""

    number: int
    y: int
    time: str
    label: str
    label_x: int
    arrows: tuple[Arrow, ...]
    frames: tuple[tuple[int, str], ...]
    """(x, frame numbers) of the columns that saw it."""
    tie: str
    """Path to the row of the packet that this error quotes; empty without."""


class LadderFigure(NamedTuple):
    """Columns, rows and the instant that times count from."""

    width: int
    height: int
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    start: str
    sentence: str


def packets(steps: Iterable[LadderStep]) -> list[list[LadderStep]]:
    """Return the steps of one packet each; a step without a packet's number is its own."""
    numbered = enumerate(steps)
    return [
        [step for _, step in group]
        for _, group in groupby(
            numbered,
            key=lambda item: ("step", item[0]) if item[1].packet is None else item[1].packet,
        )
    ]


def words(step: LadderStep) -> str:
    """Return what a packet was: "data 1:1449, 1500 bytes, DF"."""
    parts = [step.label]
    if step.ip_length is not None:
        parts.append(f"{step.ip_length} bytes")
    if step.df:
        parts.append("DF")
    return ", ".join(parts)


def fate(way: Sequence[LadderStep]) -> str:
    """Return what became of a packet: "lost before client", "" where it arrived."""
    last = way[-1]
    return {
        "lost": f"lost before {last.to}",
        "not-visible": f"not captured at {last.to}",
    }.get(last.fate, "")


def lay_out(steps: Sequence[LadderStep], columns: Sequence[str] = ()) -> LadderFigure | None:
    """Return the drawing of `steps`, or None where there is nothing or too much to draw.

    `columns` are in the order of the path; places that they lack follow by appearance.
    """
    ways = packets(steps)[:MAX_ROWS]
    used = [name for way in ways for step in way for name in (step.from_, step.to)]
    names = list(dict.fromkeys([*(name for name in columns if name in used), *used]))
    if not ways or len(names) > MAX_COLUMNS:
        return None
    gap = (WIDTH - _LEFT) / len(names)
    place = {name: round(_LEFT + gap * (index + 0.5)) for index, name in enumerate(names)}
    times = [step.time_ns for way in ways for step in way if step.time_ns is not None]
    start = min(times, default=0)
    row_of = {way[0].packet: row for row, way in enumerate(ways) if way[0].packet is not None}
    return LadderFigure(
        width=WIDTH,
        height=_HEAD + len(ways) * _ROW + 12,
        columns=tuple(Column(line(name, max(8, int(gap / 7))), place[name]) for name in names),
        rows=tuple(_row(way, row, place, start, row_of) for row, way in enumerate(ways)),
        start=instants.readable(start) if times else "",
        sentence=_sentence(ways, names),
    )


def _row(
    way: list[LadderStep], row: int, place: dict[str, int], start: int, row_of: dict[int, int]
) -> Row:
    first, y = way[0], _height(row)
    quoted = None if first.quotes is None else row_of.get(first.quotes)
    label = words(first)
    if quoted is not None and quoted < row:
        label += f", quotes {quoted + 1}"
    outcome = fate(way)
    if outcome:
        label += f" ({outcome})"
    label = line(label, _MAX_LABEL)
    ends = [place[name] for step in way for name in (step.from_, step.to)]
    half = len(label) * _CHARACTER / 2
    middle = (min(ends) + max(ends)) / 2
    return Row(
        number=row + 1,
        y=y,
        time="" if first.time_ns is None else f"+{(first.time_ns - start) / 1e9:.6f} s",
        label=label,
        label_x=round(min(max(middle, _LEFT + half), WIDTH - half)),
        arrows=tuple(_arrow(step, place, y) for step in way),
        frames=_frames(way, place),
        tie="" if quoted is None or quoted >= row else _tie(_height(quoted), y),
    )


def _height(row: int) -> int:
    return _HEAD + row * _ROW + 24


def _tie(upper: int, lower: int) -> str:
    return f"M{_TIE + 8},{lower} H{_TIE} V{upper} H{_TIE + 8}"


def _arrow(step: LadderStep, place: dict[str, int], y: int) -> Arrow:
    x1, x2 = place[step.from_], place[step.to]
    if x1 == x2:
        x2 = x1 + 24
    toward = 1 if x2 > x1 else -1
    end = round(x1 + (x2 - x1) * 0.72) if step.fate == "lost" else x2 - 2 * toward
    return Arrow(
        x1=x1,
        x2=end,
        head=f"{end},{y} {end - 8 * toward},{y - 4} {end - 8 * toward},{y + 4}",
        cross=end + 6 * toward if step.fate == "lost" else None,
        fate=step.fate,
    )


def _frames(way: list[LadderStep], place: dict[str, int]) -> tuple[tuple[int, str], ...]:
    """Return the frame numbers under the columns of the vantages that saw them."""
    found: dict[int, list[str]] = {}
    for step in way:
        for frame in step.frames:
            vantage, _, number = frame.rpartition(":")
            near = [
                name
                for name in (step.to, step.from_)
                if name == vantage or name.startswith(f"{vantage} ")
            ]
            text = f"#{number}" if near else frame
            found.setdefault(place[near[0] if near else step.to], []).append(line(text, 16))
    return tuple(
        (x, " … ".join(texts[:2]) + (" …" if len(texts) > 2 else "")) for x, texts in found.items()
    )


def _sentence(ways: list[list[LadderStep]], names: list[str]) -> str:
    lost = sum(way[-1].fate == "lost" for way in ways)
    return (
        f"{len(ways)} packets between {line(names[0], 40)} and {line(names[-1], 40)}, {lost} of "
        "them lost; the table below has the same steps."
    )
