"""ICMP messages whose checksum fails, without those that only look so where they were captured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from pcapdiag.kernel import residual

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pcapdiag.case.case import Case


def frame(case: Case) -> pl.DataFrame:
    """Return one row per bad ICMP or ICMPv6 message and vantage, second sights left out.

    Columns: vantage, row, time_ns, ip_version, src_hi, src_lo, dst_hi, dst_lo, ttl, eth_src,
    icmp_type, icmp_code, icmp_residual, quoted addresses and ports, connection.

    Left out are messages that the capturing host itself sends and leaves to its network card to
    sum (ICMPv6 and translated messages may; ICMPv4 errors are summed in software), and messages
    that another vantage saw with a good checksum.
    """
    good = _seen_good(case)
    parts = []
    for vantage in case.vantages:
        bad = vantage.icmp.lazy().filter(pl.col("icmp_checksum") == "bad")
        packets = (
            vantage.packets.lazy()
            .with_row_index("row")
            .select(
                "row",
                "time_ns",
                "ip_version",
                "src_hi",
                "src_lo",
                "dst_hi",
                "dst_lo",
                "ttl",
                "eth_src",
                "direction",
                "icmp_type",
                "icmp_code",
                "copy_of",
            )
        )
        links = vantage.icmp_errors.lazy().select(
            "row", "flow", pl.col("copy_of").alias("error_copy_of")
        )
        legs = (
            case.connections.legs.lazy()
            .filter(pl.col("vantage") == vantage.index)
            .select("flow", "connection")
        )
        parts.append(
            bad.select(
                "row",
                "icmp_residual",
                "quoted_version",
                "quoted_src_hi",
                "quoted_src_lo",
                "quoted_dst_hi",
                "quoted_dst_lo",
                "quoted_src_port",
                "quoted_dst_port",
            )
            .join(packets, on="row")
            .join(links, on="row", how="left")
            .join(legs, on="flow", how="left")
            .filter(
                pl.col("copy_of").is_null(),
                pl.col("error_copy_of").is_null(),
                ~((pl.col("ip_version") == 6) & (pl.col("direction") == "out").fill_null(False)),
            )
            .with_columns(pl.lit(vantage.index, dtype=pl.UInt16).alias("vantage"))
            .join(good.lazy(), on=["vantage", "row"], how="anti")
            .drop("flow", "copy_of", "error_copy_of", "direction")
        )
    return pl.concat(pl.collect_all(parts)).sort("vantage", "row")


def rewrites(case: Case) -> Iterator[residual.Rewrite]:
    """Yield the port and address rewrites that this cluster is known to make, both ways round."""
    members = case.connections.connections.filter(
        pl.col("realserver_port").is_not_null(), pl.col("vip_port") != pl.col("realserver_port")
    )
    for vip_port, real_port in (
        members.select("vip_port", "realserver_port")
        .unique()
        .sort("vip_port", "realserver_port")
        .iter_rows()
    ):
        for old, new in ((vip_port, real_port), (real_port, vip_port)):
            yield residual.Rewrite(
                old,
                new,
                f"the quoted port was rewritten from {old} to {new} and the ICMP checksum was not",
            )


def _seen_good(case: Case) -> pl.DataFrame:
    """Return vantage and row of bad sights whose message another sight shows with a good sum."""
    verdicts = pl.concat(
        [
            vantage.icmp_errors.select(
                pl.lit(vantage.index, dtype=pl.UInt16).alias("vantage"), "row", "icmp_checksum"
            )
            for vantage in case.vantages
        ]
    )
    sights = case.errors.sightings.select("message", "vantage", "row").join(
        verdicts, on=["vantage", "row"]
    )
    mixed = sights.filter(pl.col("icmp_checksum") == "ok").select("message").unique()
    return sights.join(mixed, on="message", how="semi").select("vantage", "row")
