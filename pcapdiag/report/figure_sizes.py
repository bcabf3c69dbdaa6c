"""Which packet lengths arrived: lost to the left, delivered to the right, one row a length.

The drawing is laid out here, in units of the viewBox; the template only draws it. Bars are
logarithmic, because a thousand delivered acknowledgements must not hide three lost segments.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcapdiag.result import SizeFate

WIDTH: Final = 720
_ROW: Final = 22
_TOP: Final = 30
_MIDDLE: Final = 300  # left edge of the column of lengths
_LABEL: Final = 100  # its width
_BAR: Final = 210  # the longest bar to the left; leaves room for its number
MAX_SIDE: Final = 12
"""Rows above and below the border; more cannot be taken in at a glance."""
_SINGLE: Final = 4
"""Lengths next to the border that keep a row of their own: they bound the path MTU."""


class Row(NamedTuple):
    """One length or range of lengths."""

    label: str
    delivered: int
    lost: int
    y: int
    lost_x: int
    lost_width: int
    delivered_width: int


class SizesFigure(NamedTuple):
    """Rows from the shortest length down, and where nothing longer arrives (None: everywhere)."""

    width: int
    height: int
    middle: int
    right: int
    row_height: int
    rows: tuple[Row, ...]
    border_y: int | None
    largest_delivered: int | None
    sentence: str


def lay_out(sizes: Sequence[SizeFate]) -> SizesFigure | None:
    """Return the drawing of `sizes`, or None where there is nothing to draw."""
    known = sorted(
        (item for item in sizes if item.delivered > 0 or item.lost > 0),
        key=lambda item: item.ip_length,
    )
    if not known:
        return None
    largest = max((item.ip_length for item in known if item.delivered > 0), default=None)
    below = [item for item in known if largest is not None and item.ip_length <= largest]
    above = known[len(below) :]
    groups = [*_grouped(below, keep_last=True), *_grouped(above, keep_last=False)]
    most = max(max(group[1], group[2]) for group in groups)
    rows = tuple(
        Row(
            label=label,
            delivered=delivered,
            lost=lost,
            y=_TOP + position * _ROW,
            lost_x=_MIDDLE - _length(lost, most),
            lost_width=_length(lost, most),
            delivered_width=_length(delivered, most),
        )
        for position, (label, delivered, lost) in enumerate(groups)
    )
    lost_from = min((item.ip_length for item in known if item.lost > 0), default=None)
    return SizesFigure(
        width=WIDTH,
        height=_TOP + len(rows) * _ROW + 8,
        middle=_MIDDLE,
        right=_MIDDLE + _LABEL,
        row_height=_ROW,
        rows=rows,
        border_y=_TOP + len(_grouped(below, keep_last=True)) * _ROW if above and below else None,
        largest_delivered=largest,
        sentence=_sentence(largest, lost_from),
    )


def _grouped(sizes: list[SizeFate], *, keep_last: bool) -> list[tuple[str, int, int]]:
    """Return (label, delivered, lost) for at most MAX_SIDE rows, exact next to the border."""
    if len(sizes) <= MAX_SIDE:
        return [(str(item.ip_length), item.delivered, item.lost) for item in sizes]
    exact = sizes[-_SINGLE:] if keep_last else sizes[:_SINGLE]
    merged = sizes[:-_SINGLE] if keep_last else sizes[_SINGLE:]
    step = math.ceil(len(merged) / (MAX_SIDE - _SINGLE))
    ranges = []
    for start in range(0, len(merged), step):
        part = merged[start : start + step]
        first, last = part[0].ip_length, part[-1].ip_length
        ranges.append(
            (
                str(first) if first == last else f"{first} to {last}",
                sum(item.delivered for item in part),
                sum(item.lost for item in part),
            )
        )
    singles = _grouped(exact, keep_last=keep_last)
    return [*ranges, *singles] if keep_last else [*singles, *ranges]


def _length(count: int, most: int) -> int:
    """Return the length of a bar: 0 for none, at least 6 where there is one."""
    if count <= 0:
        return 0
    share = math.log10(count + 1) / math.log10(most + 1)
    return max(6, round(_BAR * share))


def _sentence(largest: int | None, lost_from: int | None) -> str:
    if largest is None:
        return "No packet of any length arrived."
    if lost_from is None:
        return f"Packets of all lengths arrived, up to {largest} bytes."
    if lost_from > largest:
        bound = (
            f"{largest}" if lost_from == largest + 1 else f"between {largest} and {lost_from - 1}"
        )
        return (
            f"Up to {largest} bytes everything arrived, from {lost_from} bytes on nothing did: the "
            f"path MTU is {bound}."
        )
    return f"The longest packet that arrived has {largest} bytes; losses begin at {lost_from}."
