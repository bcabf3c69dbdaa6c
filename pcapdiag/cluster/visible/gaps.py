"""When nothing was captured at a vantage, though capturing went on later.

A ring loses nothing where one file follows the other at once. A capture that was stopped and
started again does, and so does a ring of which a file is missing, and one file in which the capture
stood still (standstills.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag.cluster.visible.standstills import LONG_PAUSE

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pcapdiag.capture.frames import CaptureInfo
    from pcapdiag.flows.vantage import VantageTables

Span = tuple[int, int]

BRIEF_NS: Final = 10_000_000
"""No capture is stopped and started again within 10 ms, and a full ring file is followed sooner."""


def between(
    vantage: VantageTables,
    chosen: Collection[int] | None = None,
    stood_still: pl.DataFrame | None = None,
) -> list[Span]:
    """Return the gaps (from, until), on the vantage's own clock and in order.

    `stood_still` (standstills.find): when single files hold nothing; each is taken for two files.
    A pause between files is a gap from LONG_PAUSE mean pauses on; traffic in bursts has longer
    ones, which costs an answer, no more.

    With `chosen` (numbers of captures) those among these captures: of others only such as run at
    no time beside them may fill a gap, for they are files of the same ring; what runs beside them
    is another interface.
    """
    timed = [
        (*piece, _longest_usual(info), number)
        for info, number in zip(vantage.captures, vantage.capture_ids, strict=True)
        if info.first_ns is not None and info.last_ns is not None
        for piece in _pieces((info.first_ns, info.last_ns), number, stood_still)
    ]
    timed.sort()
    if chosen is not None:
        mine = [(item[0], item[1]) for item in timed if item[3] in chosen]
        timed = [item for item in timed if item[3] in chosen or not _beside(item[:2], mine)]
    gaps: list[Span] = []
    end, usual = None, 0
    for first, last, longest, _ in timed:
        if end is not None and first - end > max(BRIEF_NS, usual, longest):
            gaps.append((end, first))
        if end is None or last > end:
            end, usual = last, longest
    return gaps


def table(gaps: Sequence[tuple[int, int, int, int]]) -> pl.DataFrame:
    """Return gaps, each with the numbers of its vantage and service, as a table."""
    return pl.DataFrame(
        gaps,
        schema={
            "vantage": pl.UInt16,
            "service": pl.UInt16,
            "gap_from_ns": pl.Int64,
            "gap_until_ns": pl.Int64,
        },
        orient="row",
    )


def follows(
    packets: pl.DataFrame, gaps: pl.DataFrame, time: str, by: Sequence[str], margin_ns: int
) -> pl.Series:
    """Return per packet whether a gap lasts at its time or begins less than a margin later.

    `gaps` has the columns `by`, gap_from_ns and gap_until_ns, on the clock of the column `time`.
    """
    if gaps.is_empty() or packets.is_empty():
        return pl.repeat(value=False, n=len(packets), eager=True)
    met = (
        packets.select(*by, pl.col(time).alias("time"), pl.int_range(pl.len()).alias("place"))
        .sort("time", nulls_last=True)
        .filter(pl.col("time").is_not_null())
        .join_asof(
            gaps.sort("gap_until_ns"),
            left_on="time",
            right_on="gap_until_ns",
            by=list(by),
            strategy="forward",
            check_sortedness=False,
        )
        .filter(pl.col("gap_from_ns") < pl.col("time") + margin_ns)
    )
    return pl.int_range(len(packets), eager=True).is_in(met.get_column("place").implode())


def _pieces(span: Span, capture: int, stood_still: pl.DataFrame | None) -> list[Span]:
    """Return what is left of a capture's span without the times at which it stood still."""
    if stood_still is None:
        return [span]
    still = stood_still.filter(pl.col("capture") == capture).sort("from_ns")
    begins = [span[0], *still.get_column("until_ns").to_list()]
    ends = [*still.get_column("from_ns").to_list(), span[1]]
    return list(zip(begins, ends, strict=True))


def _longest_usual(info: CaptureInfo) -> int:
    """Return how long a pause may last in a file that no gap follows, in ns; 0: not known."""
    if info.packets < 2 or info.first_ns is None or info.last_ns is None:
        return 0
    return LONG_PAUSE * (info.last_ns - info.first_ns) // (info.packets - 1)


def _beside(span: Span, others: Sequence[Span]) -> bool:
    """Whether a span overlaps one of others."""
    return any(span[0] < last and first < span[1] for first, last in others)
