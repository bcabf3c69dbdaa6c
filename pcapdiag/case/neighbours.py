"""ARP and neighbour discovery: who was asked for in vain, and when hosts were last heard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

if TYPE_CHECKING:
    from pcapdiag.case.case import Case

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
    parts = [_vain_at(case, vantage.index) for vantage in case.vantages]
    return pl.concat([pl.DataFrame(schema=VAIN), *parts]).sort(
        "requests", "vantage", "first_row", descending=[True, False, False]
    )


def _vain_at(case: Case, index: int) -> pl.DataFrame:
    tables = case.vantages[index]
    times = tables.packets.select("time_ns").with_row_index("row")
    told = tables.arp.filter(~pl.col("gratuitous")).join(times, on="row", maintain_order="left")
    asks = pl.col("op").cast(pl.String).is_in(["request", "solicitation"])
    requests = told.filter(asks, pl.col("sender_mac").is_not_null()).select(
        *("row", "time_ns"),
        pl.col("sender_mac").alias("asker_mac"),
        pl.col("target_hi").alias("hi"),
        pl.col("target_lo").alias("lo"),
        pl.lit(value=False).alias("reply"),
    )
    replies = told.filter(~asks).select(
        *("row", "time_ns"),
        pl.coalesce("target_mac", pl.lit(0, pl.UInt64)).alias("asker_mac"),
        pl.col("sender_hi").alias("hi"),
        pl.col("sender_lo").alias("lo"),
        pl.lit(value=True).alias("reply"),
    )
    # In neighbour discovery the answer does not repeat the asker's MAC: any answer counts.
    heard = (
        requests.select("asker_mac", "hi", "lo")
        .unique()
        .join(replies.drop("asker_mac"), on=["hi", "lo"])
    )
    key = ["asker_mac", "hi", "lo"]
    soon = pl.col("time_ns") - pl.col("time_ns").shift(1).over(key) < DOUBLE_NS
    requests = requests.filter(~soon.fill_null(value=False))
    runs = (
        pl.concat([requests, heard.select(requests.columns)])
        .sort("row")
        .with_columns(
            pl.col("reply").cast(pl.UInt32).cum_sum().over(key).alias("run"),
        )
        .filter(~pl.col("reply"))
        .group_by(*key, "run")
        .agg(
            pl.len().alias("asked"),
            pl.col("row").min().alias("first_row"),
            pl.col("row").max().alias("last_row"),
            pl.col("time_ns").min().alias("first_time"),
            pl.col("time_ns").max().alias("last_time"),
        )
    )
    last = heard.group_by(key).len("replies")
    own = case.topology.vantage_macs[index]
    others = told.filter(~asks, ~pl.col("sender_mac").is_in(sorted(own)))
    seen = set(others["target_mac"].drop_nulls().unique()) | own
    return (
        runs.join(last, on=key, how="left")
        .with_columns((pl.col("run") < pl.col("replies").fill_null(0)).alias("answered_later"))
        .with_columns(
            (pl.col("asked") - pl.col("answered_later").cast(pl.UInt32)).alias("requests"),
            pl.col("asker_mac").is_in(sorted(seen)).alias("answers_seen"),
            pl.lit(index).alias("vantage"),
            case.clocks.common_time(index, "first_time").alias("first_ns"),
            case.clocks.common_time(index, "last_time").alias("last_ns"),
        )
        .filter(pl.col("requests") > 0)
        .select(pl.col(name).cast(dtype) for name, dtype in VAIN.items())
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
