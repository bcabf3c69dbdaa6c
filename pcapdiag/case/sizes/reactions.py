"""What senders did once they were told of a smaller path MTU, and what they find out untold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag.case import sides, sights
from pcapdiag.kernel.tcp_sender import PMTU_LIFETIME_NS, RTO_MIN_NS
from pcapdiag.schema import QUOTED_SENDERS

if TYPE_CHECKING:
    from pcapdiag.case.case import Case

KEYS: Final = ("connection", "sender")

MIN_LARGE: Final = 2
"""Times that a large packet must have been sent before its smaller repetition means recovery: one
loss and a repetition cut otherwise are ordinary."""


def frame(case: Case) -> pl.DataFrame:
    """Return one row per connection and sender about whose packets a usable message was seen.

    Columns: connection, sender, told_mtu (the least that was named), reaction:

    - shrank: from one RTO after the message on nothing larger was sent
    - df-cleared: later packets have no DF; below 552 bytes Linux gives it up (min_pmtu)
    - kept: larger packets went out later than one RTO after it, before a path MTU expires
    - null: nothing was sent afterwards, or nothing was seen of it

    A packet before segmentation (larger than the peer's MSS allows) says nothing of its size.
    """
    told = (
        case.too_big.filter(
            pl.col("next_hop_mtu") > 0,
            pl.col("next_hop_mtu") < pl.col("quoted_ip_len"),
            pl.col("icmp_checksum") != "bad",
        )
        .sort("next_hop_mtu", "first_ns", nulls_last=True)
        .group_by("connection", pl.col("quoted_sender").alias("sender"))
        .agg(
            pl.col("next_hop_mtu").first().alias("told_mtu"),
            pl.col("first_ns").first().alias("told_ns"),
        )
    )
    unseen = told.select(*KEYS, "told_mtu", pl.lit(None, dtype=pl.String).alias("reaction"))
    if told.is_empty():
        return unseen
    nearest = nearest_to_sender(
        case, sides.of(case, told["connection"]).collect().join(told, on=KEYS, how="semi")
    )
    parts = [
        pl.DataFrame(schema={"connection": pl.UInt32, "sender": QUOTED_SENDERS, "late": pl.UInt32})
    ]
    for vantage in case.vantages:
        here = nearest.filter(pl.col("vantage") == vantage.index).join(told, on=KEYS)
        if here.is_empty():
            continue
        since = case.clocks.common_time(vantage.index, "time_ns") - pl.col("told_ns")
        late = (since >= RTO_MIN_NS) & (since < PMTU_LIFETIME_NS)
        large = pl.col("ip_len") > pl.col("told_mtu")
        parts.append(
            vantage.packets_of(here["flow"])
            .filter(pl.col("payload_len") > 0, pl.col("copy_of").is_null())
            .join(
                here.lazy().select("flow", "by_orig", *KEYS, "told_mtu", "told_ns", "wire_limit"),
                on=["flow", "by_orig"],
            )
            .filter(
                since > 0,
                (pl.col("ip_len") <= pl.col("wire_limit")).fill_null(value=True),
            )
            .group_by(KEYS)
            .agg(
                (late & large).sum().alias("late"),
                pl.len().alias("after"),
                (~pl.col("df")).any().alias("without_df"),
            )
            .collect()
        )
    seen = pl.concat(parts, how="diagonal_relaxed")
    if "after" not in seen.columns:
        return unseen
    reaction = (
        pl.when(pl.col("without_df"))
        .then(pl.lit("df-cleared"))
        .when(pl.col("late") > 0)
        .then(pl.lit("kept"))
        .when(pl.col("after") > 0)
        .then(pl.lit("shrank"))
    )
    return (
        told.join(seen, on=KEYS, how="left", maintain_order="left")
        .select(*KEYS, "told_mtu", reaction.alias("reaction"))
        .sort(KEYS)
    )


def recovered(case: Case, suspects: pl.DataFrame) -> pl.DataFrame:
    """Return those of `suspects` (rows of sides.frame) that went on by sending smaller packets.

    Adds stuck_seq (UInt32), stuck_repeats (times the large packet was sent), stuck_first_ns,
    stuck_last_ns (when the first smaller packet began at the same byte), wire_stuck_len and
    recovered_len (IP length of that), recovered_payload (bytes), stuck_row and recovered_row (the
    first large packet and that smaller one).
    """
    parts = [
        suspects.head(0).with_columns(
            pl.lit(0, dtype=pl.UInt32).alias("recovered_len"),
            pl.lit(0, dtype=pl.UInt32).alias("recovered_payload"),
            pl.lit(0, dtype=pl.UInt32).alias("stuck_seq"),
            pl.lit(0, dtype=pl.UInt32).alias("stuck_row"),
            pl.lit(0, dtype=pl.UInt32).alias("recovered_row"),
        )
    ]
    for vantage in case.vantages:
        here = suspects.filter(pl.col("vantage") == vantage.index)
        if here.is_empty():
            continue
        wire = pl.min_horizontal("ip_len", "wire_limit")
        sends = (
            vantage.packets_of(here["flow"], row=True)
            .filter(pl.col("payload_len") > 0, pl.col("copy_of").is_null())
            .join(here.lazy().select("flow", "by_orig", "wire_limit"), on=["flow", "by_orig"])
            .sort("row")
            .group_by("flow", "by_orig", "tcp_seq", maintain_order=True)
            .agg(
                wire.max().alias("large"),
                wire.last().alias("recovered_len"),
                pl.col("payload_len").last().alias("recovered_payload"),
                pl.col("row").first().alias("stuck_row"),
                pl.col("row").last().alias("recovered_row"),
                (wire == wire.max()).sum().alias("stuck_repeats"),
                pl.col("time_ns").min().alias("stuck_first_ns"),
                pl.col("time_ns").max().alias("stuck_last_ns"),
            )
            .filter(
                pl.col("recovered_len") < pl.col("large"),
                pl.col("stuck_repeats") >= MIN_LARGE,
                pl.col("stuck_last_ns") - pl.col("stuck_first_ns") >= 3 * RTO_MIN_NS,
            )
            .group_by("flow", "by_orig", maintain_order=True)
            .first()
            .rename({"large": "wire_stuck_len", "tcp_seq": "stuck_seq"})
        )
        told = ("wire_stuck_len", "stuck_repeats", "stuck_first_ns", "stuck_last_ns")
        parts.append(
            here.drop(told).join(sends.collect(), on=["flow", "by_orig"], maintain_order="left")
        )
    return pl.concat(parts, how="diagonal_relaxed")


def nearest_to_sender(case: Case, senders: pl.DataFrame) -> pl.DataFrame:
    """Return a row of `senders` per connection and sender: of the vantage nearest to the sender."""
    if senders.is_empty():
        return senders
    return (
        senders.filter(pl.col("data_packets") > 0)
        .join(sights.roles(case), on="vantage", how="left", maintain_order="left")
        .sort(
            pl.col("role") != pl.col("sender").cast(pl.String),
            -pl.col("data_packets").cast(pl.Int64),
            "vantage",
            "flow",
        )
        .group_by(*KEYS, maintain_order=True)
        .first()
        .drop("role")
    )
