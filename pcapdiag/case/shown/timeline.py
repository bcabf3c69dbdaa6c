"""What happened when: the connections that a finding hit, counted per bin on the common clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from pcapdiag.protocols import icmp_name
from pcapdiag.result import Timeline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pcapdiag.case.case import Case

BINS: Final = 60
"""Bars that can still be told apart across a page."""

STEPS_NS: Final = tuple(factor * 10**power for power in range(6, 15) for factor in (1, 2, 5))
"""Widths of a bin: round numbers from a millisecond to a few days."""

MAX_KINDS: Final = 4
"""Kinds of ICMP errors shown, the most frequent ones."""

STALLED_AFTER: Final = 3
"""Sends of the same byte from which a connection counts as stalled, see case/sizes/stalls.py."""


def timeline(case: Case, connections: Sequence[int]) -> Timeline | None:
    """Return retransmissions, stalled connections and ICMP errors of connections over time.

    None where these show none of them.
    """
    wanted = pl.DataFrame({"connection": connections}, schema={"connection": pl.UInt32}).unique()
    errors = case.errors.messages.join(wanted, on="connection", how="semi").drop_nulls("first_ns")
    repeats = _repeats(case, wanted)
    span = case.connections.connections.join(wanted, on="connection", how="semi")
    times = [*span["first_ns"].drop_nulls(), *span["last_ns"].drop_nulls()]
    if not times or (errors.is_empty() and repeats.is_empty()):
        return None
    first, last = min(times), max(times)
    width = next((step for step in STEPS_NS if last - first <= step * BINS), STEPS_NS[-1])
    first -= first % width
    bins = min(BINS + 1, (last - first) // width + 1)

    def counted(times: pl.Series) -> tuple[int, ...]:
        places = np.clip((times.to_numpy() - first) // width, 0, bins - 1)
        return tuple(np.bincount(places, minlength=bins).tolist())

    series: dict[str, tuple[int, ...]] = {}
    kinds = errors.group_by("ip_version", "icmp_type", "icmp_code").len()
    for version, kind, code, _ in (
        kinds.sort(-pl.col("len").cast(pl.Int64), "icmp_type", "icmp_code")
        .head(MAX_KINDS)
        .iter_rows()
    ):
        alike = errors.filter(pl.col("icmp_type") == kind, pl.col("icmp_code") == code)
        series[f"ICMP {icmp_name(version, kind, code)}"] = counted(alike["first_ns"])
    if not repeats.is_empty():
        series["retransmissions"] = counted(repeats["time_ns"])
        stalled = _stalled(repeats, first, width, bins)
        if stalled.any():
            series["connections stalled"] = tuple(stalled.tolist())
    return Timeline(start_ns=first, bin_s=width / 1e9, series=series)


def _repeats(case: Case, wanted: pl.DataFrame) -> pl.DataFrame:
    """Return each time that a data segment was sent again: connection, key, time_ns, nth, sent_ns.

    Counted at the one vantage that saw most repeats of the connection; `nth` is 2 for the second
    send, `sent_ns` the time of the first.
    """
    parts = []
    for vantage in case.vantages:
        legs = case.connections.legs.join(wanted, on="connection", how="semi").filter(
            pl.col("vantage") == vantage.index
        )
        segment = ["flow", "by_orig", "tcp_seq"]
        parts.append(
            vantage.packets_of(legs["flow"])
            .select(*segment, "payload_len", "copy_of", "time_ns")
            .with_columns(
                case.clocks.common_time(vantage.index).fill_null(pl.col("time_ns")).alias("time_ns")
            )
            .join(legs.lazy().select("flow", "connection"), on="flow")
            .filter(
                pl.col("copy_of").is_null(),
                pl.col("payload_len") > 0,
                pl.col("tcp_seq").is_not_null(),
            )
            .drop_nulls("time_ns")
            .sort("time_ns")
            .with_columns(
                pl.int_range(1, pl.len() + 1).over(segment).alias("nth"),
                pl.col("time_ns").first().over(segment).alias("sent_ns"),
                pl.lit(vantage.index, pl.UInt16).alias("vantage"),
            )
            .filter(pl.col("nth") > 1)
            .select("connection", "vantage", "time_ns", "nth", "sent_ns")
            .collect()
        )
    every = pl.concat(parts)
    best = (
        every.group_by("connection", "vantage")
        .len()
        .sort("connection", -pl.col("len").cast(pl.Int64), "vantage")
        .unique("connection", keep="first", maintain_order=True)
    )
    return every.join(best, on=["connection", "vantage"], how="semi")


def _stalled(repeats: pl.DataFrame, first: int, width: int, bins: int) -> NDArray[np.int64]:
    """Return how many connections are between the first and the last send of a stuck segment."""
    stalls = (
        repeats.filter(pl.col("nth") >= STALLED_AFTER)
        .group_by("connection")
        .agg(pl.col("sent_ns").min(), pl.col("time_ns").max())
    )
    change = np.zeros(bins + 1, dtype=np.int64)
    begins = np.clip((stalls["sent_ns"].to_numpy() - first) // width, 0, bins - 1)
    ends = np.clip((stalls["time_ns"].to_numpy() - first) // width, 0, bins - 1)
    np.add.at(change, begins, 1)
    np.add.at(change, ends + 1, -1)
    return np.cumsum(change)[:bins]
