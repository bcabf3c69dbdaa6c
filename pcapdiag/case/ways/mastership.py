"""When a virtual address moved from one director to another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

if TYPE_CHECKING:
    from pcapdiag.case.case import Case

_CHANGES: Final = {
    "vantage": pl.UInt16,
    "row": pl.UInt32,
    "time_ns": pl.Int64,
    "by": pl.String,
    "vip_hi": pl.UInt64,
    "vip_lo": pl.UInt64,
}


def frame(case: Case) -> pl.DataFrame:
    """Return one row per sign at a vantage that a virtual address has a new owner, by time.

    Columns: vantage, row, time_ns (common clock), by (vrrp: advertisements of its virtual router
    come from another address than before; arp: another MAC speaks from it unasked than spoke for it
    before), vip_hi, vip_lo. A first advertisement is no change: nobody can say
    who was master before. What realservers claim is a conflict, not mastership.
    """
    hosts = [host for host in case.topology.hosts if host.role == "realserver"]
    realservers = [mac for host in hosts for mac in host.macs]
    parts = [pl.LazyFrame(schema=_CHANGES)]
    for vantage in case.vantages:
        packets = vantage.packets.lazy().with_row_index("row")
        adverts = (
            vantage.vrrp.lazy()
            .filter(pl.col("virtual_lo").is_not_null())
            .join(packets.select("row", "time_ns", "src_hi", "src_lo"), on="row")
            .select(
                "row",
                "time_ns",
                pl.col("virtual_hi").alias("vip_hi"),
                pl.col("virtual_lo").alias("vip_lo"),
                pl.struct("src_hi", "src_lo").hash().alias("owner"),
                pl.lit("vrrp").alias("by"),
                pl.lit(value=True).alias("unasked"),
            )
        )
        announcements = (
            vantage.arp.lazy()
            .filter(
                pl.col("sender_lo").is_not_null(),
                ~pl.col("sender_mac").is_in(realservers),
            )
            .join(packets.select("row", "time_ns"), on="row")
            .select(
                "row",
                "time_ns",
                pl.col("sender_hi").alias("vip_hi"),
                pl.col("sender_lo").alias("vip_lo"),
                pl.col("sender_mac").alias("owner"),
                pl.lit("arp").alias("by"),
                (pl.col("gratuitous") | pl.col("op").cast(pl.String).is_in(["request"])).alias(
                    "unasked"
                ),
            )
        )
        both = ((vantage.vrrp, adverts), (vantage.arp, announcements))
        told = [rows for table, rows in both if table.height]
        address = ["by", "vip_hi", "vip_lo"]
        if not told:
            continue
        parts.append(
            pl.concat(told)
            .sort("row")
            .with_columns(pl.col("owner").shift(1).over(address).alias("before"))
            .filter(pl.col("owner") != pl.col("before"), "unasked")
            .select(
                pl.lit(vantage.index, dtype=pl.UInt16).alias("vantage"),
                "row",
                case.clocks.common_time(vantage.index, "time_ns").alias("time_ns"),
                *address,
            )
        )
    return pl.concat(parts).select(list(_CHANGES)).sort("time_ns", "vantage", "row").collect()
