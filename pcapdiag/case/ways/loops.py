"""Packets that come by again and again with a falling TTL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

if TYPE_CHECKING:
    from pcapdiag.case.case import Case
    from pcapdiag.flows.vantage import VantageTables

LOOP_TTLS: Final = 5
"""TTLs that one packet must be seen with. A forwarding host sees two, a packet that goes through a
second box on the same LAN and back four (in, out, in, out): the fifth is the third time round."""

MAX_MACS: Final = 8
"""MACs listed of a loop; two are the rule."""

_SHAPE: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "vantage": pl.UInt16,
    "row": pl.UInt32,
    "last_row": pl.UInt32,
    "flow": pl.UInt32,
    "sights": pl.UInt32,
    "ttl_first": pl.UInt8,
    "ttl_last": pl.UInt8,
    "macs": pl.List(pl.UInt64),
    "dst_hi": pl.UInt64,
    "dst_lo": pl.UInt64,
}


def frame(case: Case) -> pl.DataFrame:
    """Return one row per looping packet and vantage; what was captured twice is one sight.

    Columns: vantage, row and last_row (first and last sight), sights, ttl_first, ttl_last, macs
    (that sent it while it looped, sorted), dst_hi, dst_lo, first_ns (common clock), connection and
    service_name (null: none), expired_row (a time exceeded at this vantage that quotes a packet of
    its flow; null: none was seen).
    """
    parts = [_at(case, vantage.index) for vantage in case.vantages if _goes_round(vantage)]
    found = pl.concat([pl.DataFrame(schema={**_SHAPE, "expired_row": pl.UInt32}), *parts])
    legs = case.connections.legs.select("vantage", "flow", "connection")
    named = case.members.select("connection", "service_name")
    return (
        case.with_times(found, "first_ns")
        .join(legs, on=["vantage", "flow"], how="left", maintain_order="left")
        .join(named, on="connection", how="left", maintain_order="left")
        .sort("first_ns", "vantage", "row", nulls_last=True)
    )


def _goes_round(vantage: VantageTables) -> bool:
    """Return whether a vantage has any packet often enough: few have, and this is soon told."""
    firsts = vantage.packets.lazy().select(pl.col("copy_of").drop_nulls()).collect()["copy_of"]
    firsts = firsts.sort()  # to count them would take ten times the memory
    return bool((firsts == firsts.shift(LOOP_TTLS - 2)).any())


def _at(case: Case, index: int) -> pl.DataFrame:
    tables = case.vantages[index]
    packets = tables.packets.lazy().with_row_index("row")
    often = (
        packets.filter(pl.col("copy_of").is_not_null())
        .group_by("copy_of")
        .len()
        .filter(pl.col("len") >= LOOP_TTLS - 1)
        .select(pl.col("copy_of").alias("first"))
    )
    falling = (pl.col("ttl").cast(pl.Int16).diff().fill_null(0) <= 0).all()
    found = (
        packets.with_columns(pl.coalesce("copy_of", "row").alias("first"))
        .join(often, on="first", how="semi")
        .sort("row")
        # Twice at one hop is captured twice: going round costs some of the TTL.
        .unique(["first", "ttl", "eth_src", "eth_dst"], keep="first", maintain_order=True)
        .group_by("first", maintain_order=True)
        .agg(
            pl.col("row").last().alias("last_row"),
            pl.col("flow").first(),
            pl.len().alias("sights"),
            pl.col("ttl").first().alias("ttl_first"),
            pl.col("ttl").last().alias("ttl_last"),
            pl.col("ttl").n_unique().alias("ttls"),
            falling.alias("falling"),
            pl.col("eth_src").slice(1).unique().sort().head(MAX_MACS).alias("macs"),
            pl.col("dst_hi").first(),
            pl.col("dst_lo").first(),
        )
        .filter(pl.col("ttls") >= LOOP_TTLS, "falling")
        .with_columns(pl.col("first").alias("row"), pl.lit(index).alias("vantage"))
        .select(pl.col(name).cast(dtype) for name, dtype in _SHAPE.items())
        .collect()
    )
    expired = (
        tables.icmp_errors.filter(
            ((pl.col("ip_version") == 4) & (pl.col("icmp_type") == 11))
            | ((pl.col("ip_version") == 6) & (pl.col("icmp_type") == 3)),
            pl.col("icmp_code") == 0,
            pl.col("flow").is_not_null(),
        )
        .group_by("flow")
        .agg(pl.col("row").first().cast(pl.UInt32).alias("expired_row"))
    )
    return found.join(expired, on="flow", how="left", maintain_order="left")
