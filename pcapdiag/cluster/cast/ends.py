"""At which end of a link a capture was taken, where its frames run between two hosts only.

Either of the two may have captured. Two things settle it without a label. A host that takes a
packet at one interface and sends it on at another shows which MACs are its own. And a frame is seen
first where it is sent: of two captures of one link, each sees what its own host sends before the
other does.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag import spool

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcapdiag.cluster.cast.macs import Macs
    from pcapdiag.cluster.clocks.delays import Shared
    from pcapdiag.flows.vantage import VantageTables

APART_NS: Final = 10_000
"""What frames need there and back between two captures at least, or they are of one place: two
captures of one interface stamp a frame within a microsecond or two, a link and two network cards
take more."""

NEAR_NS: Final = 100_000_000
"""How near in time a frame of each way must be: two clocks that drift 100 ppm apart come 10
microseconds nearer or further in this."""

EXCEPTIONS: Final = 0.02
"""Share of frames that may say otherwise: some are stamped late, behind interrupt moderation."""

MAX_PASSAGES: Final = 4096
"""Passages looked at, spread over the capture: a host has the same MACs all the time."""


def settled(vantages: Sequence[VantageTables], found: Macs, seen: Shared) -> Macs:
    """Return `found` with `own` known, and `either` empty, where something tells."""
    own, either = list(found.own), list(found.either)
    for index, vantage in enumerate(vantages):
        if either[index]:
            mine = _forwarding(vantage, either[index]) or _nearer(seen.sights, index, either[index])
            if mine:
                own[index] |= mine
                either[index] = frozenset()
    return replace(found, own=tuple(own), either=tuple(either))


def _forwarding(vantage: VantageTables, either: frozenset[int]) -> frozenset[int]:
    """Return the MACs at which packets come in by one interface and go out by another.

    Nothing where that leaves one of `either` undecided, or says two things.
    """
    passages = vantage.passages
    if not len(passages):
        return frozenset()
    spread = range(0, len(passages), max(1, len(passages) // MAX_PASSAGES))
    names = ("in_row", "out_row", "in_src", "in_dst", "out_src", "out_dst")
    some = spool.at(passages, spread, *names)
    rows = pl.concat([some["in_row"], some["out_row"]]).unique()
    places = (
        vantage.packets.lazy()
        .with_row_index("row")
        .filter(pl.col("row").is_in(rows.implode()))
        .select("row", pl.struct("capture", "interface").alias("place"))
        .collect()
    )
    across = (
        some.join(places, left_on="in_row", right_on="row")
        .join(places, left_on="out_row", right_on="row", suffix="_out")
        .filter(pl.col("place") != pl.col("place_out"))
    )
    near = {*across["in_dst"].drop_nulls(), *across["out_src"].drop_nulls()}
    far = {*across["in_src"].drop_nulls(), *across["out_dst"].drop_nulls()}
    return frozenset(near & either) if not near & far and either <= near | far else frozenset()


def _nearer(sights: pl.DataFrame, index: int, either: frozenset[int]) -> frozenset[int]:
    """Return the one of two MACs whose frames a vantage sees before another sees them.

    Nothing where no other vantage saw frames of both ways, or they say two things.
    """
    if len(either) != 2:
        return frozenset()
    one, two = sorted(either)
    both = _at_two_places(sights, index, one, two)
    if both.is_empty():
        return frozenset()
    ways = [
        both.filter(pl.col("eth_src") == mac).select("other", "time_ns", "ahead").sort("time_ns")
        for mac in (one, two)
    ]
    # What the host itself sends comes later to the other place, what it gets was there earlier.
    trips = (
        ways[0]
        .join_asof(
            ways[1],
            on="time_ns",
            by="other",
            strategy="nearest",
            tolerance=NEAR_NS,
            suffix="_back",
            check_sortedness=False,
        )
        .select("other", trip=pl.col("ahead") - pl.col("ahead_back"))
        .drop_nulls()
    )
    limits = trips.group_by("other").agg(
        pl.col("trip").quantile(EXCEPTIONS).alias("least"),
        pl.col("trip").quantile(1 - EXCEPTIONS).alias("most"),
    )
    found = {
        one if least > 0 else two
        for least, most in limits.select("least", "most").iter_rows()
        if least >= APART_NS or most <= -APART_NS
    }
    return frozenset(found) if len(found) == 1 else frozenset()


def _at_two_places(sights: pl.DataFrame, index: int, one: int, two: int) -> pl.DataFrame:
    """Return the frames between two MACs that a vantage and another saw: eth_src, other, ..."""
    ends = pl.col("eth_src").is_in([one, two]) & pl.col("eth_dst").is_in([one, two])
    once = sights.filter(ends).filter(pl.len().over("vantage", "same") == 1)
    return (
        once.filter(pl.col("vantage") == index)
        .join(once.filter(pl.col("vantage") != index), on=["same", "eth_src", "ttl"], suffix="_2")
        .select(
            "eth_src",
            pl.col("vantage_2").alias("other"),
            "time_ns",
            (pl.col("time_ns_2") - pl.col("time_ns")).alias("ahead"),
        )
    )
