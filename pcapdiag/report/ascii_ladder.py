"""The sequence diagram in plain characters: the telling packets of a ladder, one line each.

`---->` was seen, `- - X` was lost there, `....` lies where no capture looks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pcapdiag.report import figure_ladder
from pcapdiag.report.plain import line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcapdiag.result import Finding, LadderStep

MAX_ROWS: Final = 5
"""Lines of a screen that has thirty and other things to say."""
MIN_COLUMN: Final = 9
"""Characters between two columns that leave an arrow visible."""
_TIME: Final = 10


def draw(finding: Finding, width: int) -> list[str]:
    """Return the names of the columns and at most MAX_ROWS packets; none where it does not fit."""
    ways = _telling(figure_ladder.packets(finding.ladder))
    used = [name for way in ways for step in way for name in (step.from_, step.to)]
    names = list(dict.fromkeys([*(name for name in finding.ladder_columns if name in used), *used]))
    if not ways or len(names) < 2:
        return []
    gap = (width - _TIME - 2) // len(names)
    if gap < MIN_COLUMN:
        return []
    place = {name: _TIME + gap // 2 + index * gap for index, name in enumerate(names)}
    times = [step.time_ns for step in finding.ladder if step.time_ns is not None]
    start = min(times, default=0)
    head = [" "] * width
    for name in names:
        shown = line(name, gap - 1)
        _write(head, place[name] - len(shown) // 2, shown)
    return [_joined(head), *(_row(way, place, start, width) for way in ways)]


def _telling(ways: list[list[LadderStep]]) -> list[list[LadderStep]]:
    """Return first the packets that were lost and the errors, then repeats, in their order."""

    def weight(way: list[LadderStep]) -> int:
        is_error = way[0].ip_length is None
        if way[-1].fate == "lost" or is_error:
            return 0
        if way[0].repeats > 1:
            return 1
        return 3 if "SYN" in way[0].label else 2

    ranked = sorted(range(len(ways)), key=lambda index: (weight(ways[index]), index))
    return [ways[index] for index in sorted(ranked[:MAX_ROWS])]


def _row(way: list[LadderStep], place: dict[str, int], start: int, width: int) -> str:
    cells = [" "] * width
    for column in place.values():
        cells[column] = "|"
    first = way[0]
    if first.time_ns is not None:
        _write(cells, 0, f"+{(first.time_ns - start) / 1e9:.3f} s"[:_TIME])
    ends = [place[name] for step in way for name in (step.from_, step.to)]
    for step in way:
        _arrow(cells, place[step.from_], place[step.to], step.fate)
    _label(cells, min(ends), max(ends), line(figure_ladder.words(first), width))
    return _joined(cells)


def _label(cells: list[str], left: int, right: int, text: str) -> None:
    """Write a label into its arrow, beside the mark of a loss; outside where it fits only there."""
    inner = (left, right)
    if "X" in cells[left : right + 1]:
        cross = cells.index("X", left)
        inner = (cross, right) if cross - left < right - cross else (left, cross)
    room, width = inner[1] - inner[0] - 5, len(cells)
    after, before = width - right - 2, left - _TIME - 3
    if len(text) <= max(room, 0) or room >= max(after, before):
        shown = f" {line(text, max(1, room))} "
        _write(cells, inner[0] + 1 + (inner[1] - inner[0] - len(shown)) // 2, shown)
    elif after >= before:
        _write(cells, right + 2, line(text, max(1, after)))
    else:
        shown = line(text, max(1, before))
        _write(cells, left - 1 - len(shown), shown)


def _arrow(cells: list[str], start: int, end: int, fate: str) -> None:
    toward = 1 if end > start else -1
    stop = round(start + (end - start) * 0.72) if fate == "lost" else end
    for at in range(start + toward, stop, toward):
        dash = "-" if fate == "seen" or at % 2 else " "
        cells[at] = "." if fate == "not-visible" else dash
    if fate == "lost":
        cells[stop] = "X"
    elif abs(stop - start) > 1:
        cells[stop - toward] = ">" if toward > 0 else "<"


def _write(cells: list[str], at: int, text: Sequence[str]) -> None:
    for offset, char in enumerate(text):
        if 0 <= at + offset < len(cells):
            cells[at + offset] = char


def _joined(cells: list[str]) -> str:
    return "".join(cells).rstrip().replace("\N{HORIZONTAL ELLIPSIS}", "~")
