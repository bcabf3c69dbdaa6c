"""ARP and neighbour discovery: who was asked for in vain, and when hosts were last heard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag import spool

if TYPE_CHECKING:
    from pcapdiag.case.case import Case
    from pcapdiag.flows.vantage import VantageTables

DOUBLE_NS: Final = 100_000_000
"""A request so soon after its like is the same, captured twice: hosts ask again after a second."""

VAIN: Final = {
    "vantage": pl.UInt16,
    "asker_mac": pl.UInt64,
    "hi": pl.UInt64,
    "lo": pl.UInt64,
    "requests": pl.UInt32,
    "first_row": pl.UInt32,
    "last_row": pl.UInt32,
    "first_ns": pl.Int64,
    "last_ns": pl.Int64,
    "answered_later": pl.Boolean,
    "answers_seen": pl.Boolean,
}


def vain(case: Case) -> pl.DataFrame:
    """Return the runs of requests for an address that nobody answered, longest first.

    Columns: vantage, asker_mac, hi, lo (whom it asked for), requests, first_row, last_row,
    first_ns, last_ns (common clock), answered_later (an answer ends the run: the last request of
    it does not count), answers_seen (an answer would have been seen: the vantage is the asker's or
    shows another host's answer to it). Requests for an own address are left out.
    """
    parts = [_told(case, vantage) for vantage in case.vantages if vantage.arp.height]
    if not parts:
        return pl.DataFrame(schema=VAIN)
    told = pl.concat(parts)
    place, key = ["vantage", "hi", "lo"], ["vantage", "asker_mac", "hi", "lo"]
    asked = told.filter("asks", pl.col("sender_mac").is_not_null())
    # In neighbour discovery the answer does not repeat the asker's MAC: any answer counts.
    replies = told.filter(~pl.col("asks"))
    heard = asked.select(key).unique().join(replies.drop("asker_mac"), on=place)
    soon = pl.col("time_ns") - pl.col("time_ns").shift(1).over(key) < DOUBLE_NS
    requests = asked.filter(~soon.fill_null(value=False))
    runs = (
        pl.concat([requests, heard.select(requests.columns)])
        .sort("vantage", "row")
        .with_columns((~pl.col("asks")).cast(pl.UInt32).cum_sum().over(key).alias("run"))
        .filter("asks")
        .group_by(*key, "run")
        .agg(
            pl.len().alias("asked"),
            pl.col("row").min().alias("first_row"),
            pl.col("row").max().alias("last_row"),
            pl.col("common_ns").min().alias("first_ns"),
            pl.col("common_ns").max().alias("last_ns"),
        )
    )
    return (
        runs.join(heard.group_by(key).len("replies"), on=key, how="left")
        .join(_would_hear(case, replies), on=["vantage", "asker_mac"], how="left")
        .with_columns((pl.col("run") < pl.col("replies").fill_null(0)).alias("answered_later"))
        .with_columns(
            (pl.col("asked") - pl.col("answered_later").cast(pl.UInt32)).alias("requests"),
            pl.col("answers_seen").fill_null(value=False),
        )
        .filter(pl.col("requests") > 0)
        .select(pl.col(name).cast(dtype) for name, dtype in VAIN.items())
        .sort("requests", "vantage", "first_row", descending=[True, False, False])
    )


def _told(case: Case, vantage: VantageTables) -> pl.DataFrame:
    """Return what requests and replies at a vantage say: who asks, and for whom.

    Columns: row, vantage, time_ns, common_ns, asks (false: a reply), asker_mac (0: a reply that
    does not tell), hi, lo, sender_mac, target_mac, own (the capturing host sent it).
    """
    told = vantage.arp.filter(~pl.col("gratuitous"))
    asks = pl.col("op").cast(pl.String).is_in(["request", "solicitation"])
    asker = pl.coalesce("target_mac", pl.lit(0, pl.UInt64))
    own = sorted(case.topology.vantage_macs[vantage.index])
    return told.hstack(spool.at(vantage.packets, told["row"], "time_ns")).select(
        "row",
        pl.lit(vantage.index, pl.UInt16).alias("vantage"),
        "time_ns",
        case.clocks.common_time(vantage.index, "time_ns").alias("common_ns"),
        asks.alias("asks"),
        pl.when(asks).then("sender_mac").otherwise(asker).alias("asker_mac"),
        pl.when(asks).then("target_hi").otherwise("sender_hi").alias("hi"),
        pl.when(asks).then("target_lo").otherwise("sender_lo").alias("lo"),
        "sender_mac",
        "target_mac",
        pl.col("sender_mac").is_in(own).alias("own"),
    )


def _would_hear(case: Case, replies: pl.DataFrame) -> pl.DataFrame:
    """Return whose answers a vantage shows: vantage, asker_mac, answers_seen (true)."""
    own = pl.DataFrame(
        [(place, mac) for place, macs in enumerate(case.topology.vantage_macs) for mac in macs],
        schema={"vantage": pl.UInt16, "asker_mac": pl.UInt64},
        orient="row",
    )
    others = replies.filter(~pl.col("own")).select(
        "vantage", pl.col("target_mac").alias("asker_mac")
    )
    return (
        pl.concat([own, others.drop_nulls()])
        .unique()
        .with_columns(pl.lit(value=True).alias("answers_seen"))
    )


def heard(case: Case) -> pl.DataFrame:
    """Return when each MAC sent a frame last: mac, last_ns (common clock), vantage, row."""
    parts = [
        vantage.packets.lazy()
        .with_row_index("row")
        .filter(pl.col("eth_src").is_not_null())
        .group_by(pl.col("eth_src").alias("mac"))
        .agg(pl.col("time_ns").max(), pl.col("row").max())
        .select(
            "mac",
            case.clocks.common_time(vantage.index, "time_ns").alias("last_ns"),
            pl.lit(vantage.index, dtype=pl.UInt16).alias("vantage"),
            "row",
        )
        for vantage in case.vantages
    ]
    return (
        pl.concat(pl.collect_all(parts))
        .sort("last_ns", nulls_last=False)
        .unique("mac", keep="last", maintain_order=True)
    )
