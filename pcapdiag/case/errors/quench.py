"""Source quench (ICMP type 4): who asked for less, and whether the sender sent less."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag.case import sides
from pcapdiag.case.errors import ptb
from pcapdiag.protocols import IcmpType

if TYPE_CHECKING:
    from pcapdiag.case.case import Case

WINDOW_NS: Final = 1_000_000_000
"""Before and after the first message, in which packets with data are counted: several round trips
of most paths, so that a congestion window that was cut shows."""

LATER_NS: Final = 4_000_000_000
"""Long enough for a sender that was throttled, and had data, to have sent some of it."""

IS_QUENCH: Final = (pl.col("ip_version") == 4) & (
    pl.col("icmp_type") == int(IcmpType.SOURCE_QUENCH)
)
"""ICMPv6 has none: its type 4 is the parameter problem (RFC 4443 section 3.4)."""


def frame(case: Case) -> pl.DataFrame:
    """Return one row per source quench about a known connection, checksum not bad.

    Columns: those of ptb.with_fate, and service_name, realserver_name, before and after (packets
    with data that the sender of the quoted packet sent within WINDOW_NS before the first message
    of its connection, and after; null: no capture of that direction goes on long enough), later
    (the same from then on for another LATER_NS: whether it had more to send).
    """
    messages = case.errors.messages.filter(
        IS_QUENCH, pl.col("icmp_checksum") != "bad", pl.col("connection").is_not_null()
    )
    names = case.members.select("connection", "service_name", "realserver_name")
    return (
        ptb.with_fate(case, messages)
        .join(names, on="connection", how="left", maintain_order="left")
        .join(
            _pace(case, messages),
            on=["connection", "quoted_sender"],
            how="left",
            maintain_order="left",
        )
        .sort("first_ns", "message", nulls_last=True)
    )


def strange(case: Case) -> int:
    """Return how many source quenches are about no connection that a capture shows."""
    return case.errors.messages.filter(
        IS_QUENCH, pl.col("icmp_checksum") != "bad", pl.col("connection").is_null()
    ).height


def _pace(case: Case, messages: pl.DataFrame) -> pl.DataFrame:
    """Return before and after per connection and quoted_sender, where most was captured."""
    first = messages.group_by("connection", "quoted_sender").agg(
        pl.col("first_ns").min().alias("told_ns")
    )
    parts = [
        pl.DataFrame(
            schema={
                "connection": pl.UInt32,
                "quoted_sender": messages.schema["quoted_sender"],
                "before": pl.UInt32,
                "after": pl.UInt32,
                "later": pl.UInt32,
            }
        )
    ]
    for vantage in case.vantages if messages.height else ():
        told = (
            sides.of(case, first["connection"])
            .filter(pl.col("vantage") == vantage.index)
            .select(
                "vantage", "flow", "by_orig", "connection", pl.col("sender").alias("quoted_sender")
            )
            .collect()
            .join(first, on=["connection", "quoted_sender"])
        )
        around = case.coverage.capturing(told, "told_ns", before_ns=WINDOW_NS, after_ns=WINDOW_NS)
        told = told.filter(around)
        if told.is_empty():
            continue
        time = case.clocks.common_time(vantage.index).alias("common_ns")
        since = pl.col("common_ns") - pl.col("told_ns")
        parts.append(
            vantage.packets_of(told["flow"])
            .filter(pl.col("payload_len") > 0, pl.col("copy_of").is_null())
            .select("flow", "by_orig", time)
            .join(told.lazy(), on=["flow", "by_orig"])
            .filter(since.is_between(-WINDOW_NS, WINDOW_NS + LATER_NS))
            .group_by("connection", "quoted_sender")
            .agg(
                (since <= 0).sum().alias("before"),
                ((since > 0) & (since <= WINDOW_NS)).sum().alias("after"),
                (since > WINDOW_NS).sum().alias("later"),
            )
            .collect()
        )
    return (
        pl.concat(parts, how="vertical_relaxed")
        .sort("before", "after", "later", descending=True)
        .unique(["connection", "quoted_sender"], keep="first", maintain_order=True)
    )
