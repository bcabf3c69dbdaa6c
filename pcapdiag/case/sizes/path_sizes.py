"""Which packet sizes got through to the peers of stalled connections, packet by packet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag.case import sides

if TYPE_CHECKING:
    from pcapdiag.case.case import Case

MAX_SIZES: Final = 40
"""Sizes told apart: a figure with more bars is not read. Largest counts stay."""


def frame(case: Case, stalls: pl.DataFrame) -> pl.DataFrame:
    """Return size (IP length on the wire, bytes), delivered, lost (UInt32, packets), by size.

    Counted are the senders' data packets on the stalled flows themselves, and, on other flows to
    the same peers, the largest that was acknowledged. A packet is delivered if all before its end
    was acknowledged, lost if it was sent again, never was, and is larger than all that passed on
    its path: what is smaller was lost for another reason. What was sent once near the end of the
    capture counts as neither. Packets before segmentation count as the segments' size.
    """
    parts = [pl.DataFrame(schema={"size": pl.UInt32, "delivered": pl.UInt32, "lost": pl.UInt32})]
    for vantage in case.vantages:
        here = stalls.filter(
            pl.col("vantage") == vantage.index,
            pl.col("source") == "packets",
            pl.col("seq_first").is_not_null(),
        )
        if here.is_empty():
            continue
        begin = (pl.col("tcp_seq").cast(pl.Int64) - pl.col("seq_first").cast(pl.Int64)).mod(1 << 32)
        packets = (
            vantage.packets_of(here["flow"])
            .filter(pl.col("payload_len") > 0, pl.col("copy_of").is_null())
            .join(
                here.lazy().select(
                    "flow", "by_orig", "seq_first", "acked", "wire_limit", "path_delivered"
                ),
                on=["flow", "by_orig"],
            )
            .select(
                pl.min_horizontal("ip_len", "wire_limit").cast(pl.UInt32).alias("size"),
                (begin + pl.col("payload_len") <= pl.col("acked").fill_null(0)).alias("arrived"),
                (pl.len().over("flow", "by_orig", "tcp_seq") > 1).alias("again"),
                pl.col("path_delivered").fill_null(0).alias("passes"),
            )
            .group_by("size")
            .agg(
                pl.col("arrived").sum().cast(pl.UInt32).alias("delivered"),
                (~pl.col("arrived") & pl.col("again") & (pl.col("size") > pl.col("passes")))
                .sum()
                .cast(pl.UInt32)
                .alias("lost"),
            )
        )
        parts.append(packets.collect())
    # A SACK proves a packet beyond what was acknowledged in order.
    own = (
        pl.concat(parts)
        .join(
            stalls.group_by(pl.col("wire_largest_acked").cast(pl.UInt32).alias("size")).agg(
                pl.len().cast(pl.UInt32).alias("proven")
            ),
            on="size",
            how="full",
            coalesce=True,
        )
        .select(
            "size",
            pl.max_horizontal("delivered", "proven").alias("delivered"),
            pl.col("lost").fill_null(0),
        )
    )
    elsewhere = (
        sides.to_peers_of(case, stalls)
        .join(stalls.lazy().select("vantage", "flow"), on=["vantage", "flow"], how="anti")
        .group_by(pl.col("wire_largest_acked").cast(pl.UInt32).alias("size"))
        .agg(pl.len().cast(pl.UInt32).alias("delivered"))
        .with_columns(pl.lit(0, dtype=pl.UInt32).alias("lost"))
        .collect()
    )
    quoted = (
        stalls.filter(pl.col("source") == "quotes")
        .group_by(pl.col("wire_stuck_len").cast(pl.UInt32).alias("size"))
        .agg(pl.col("stuck_repeats").sum().cast(pl.UInt32).alias("lost"))
        .select("size", pl.lit(0, dtype=pl.UInt32).alias("delivered"), "lost")
    )
    return (
        pl.concat([own, elsewhere, quoted])
        .filter(pl.col("size") > 0)
        .group_by("size")
        .agg(pl.col("delivered").sum(), pl.col("lost").sum())
        .filter(pl.col("delivered") + pl.col("lost") > 0)
        .sort(pl.col("lost") > 0, pl.col("delivered") + pl.col("lost"), "size", descending=True)
        .head(MAX_SIZES)
        .sort("size")
    )
