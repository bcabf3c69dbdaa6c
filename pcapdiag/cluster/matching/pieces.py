"""Super-segments and the segments they became: offload merges on receipt and cuts on sending.

A packet larger than its receiver's MSS was on no wire. Where another vantage, or the other side of
the director, shows segments that together are exactly its bytes, they are its pieces.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag.flows.sightings import UNNAMED_FORWARD_NS
from pcapdiag.protocols import IpProto

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcapdiag.cluster.connections import Connections
    from pcapdiag.flows.vantage import VantageTables

ETHERNET_MTU: Final = 1500
"""Largest IP length of a segment where nobody was seen to advertise an MSS."""

HEADERS: Final = {4: 40, 6: 60}
"""IP and TCP headers without options, which come out of the MSS (RFC 6691 section 2)."""

_SPACE: Final = ["connection", "by_client"]


def find(
    units: pl.DataFrame,
    vantages: Sequence[VantageTables],
    connections: Connections,
    error: int,
) -> pl.DataFrame:
    """Add `part_of`: the packet of which a packet is a piece, null for all others."""
    data = units.filter((pl.col("ip_proto") == int(IpProto.TCP)) & (pl.col("payload_len") > 0))
    chosen = data.select("connection").unique()
    limits = _limits(vantages, connections, chosen)
    base = pl.col("tcp_seq").first().over(_SPACE).cast(pl.Int64)
    ahead = (pl.col("tcp_seq").cast(pl.Int64) - base + 2**31) % 2**32
    ranges = (
        data.join(limits, on=_SPACE, how="left", maintain_order="left")
        .with_columns(ahead.alias("start"))
        .select(
            "packet",
            *_SPACE,
            "vantage",
            "kind",
            "time_ns",
            "aligned",
            "start",
            (pl.col("start") + pl.col("payload_len")).alias("end"),
            (pl.col("ip_len") > pl.col("limit").fill_null(ETHERNET_MTU)).alias("large"),
        )
    )
    merged = (
        ranges.filter("large")
        .unique("packet", keep="first", maintain_order=True)
        # One range sent twice as a super-segment: whose pieces are whose is not known.
        .filter(pl.len().over(*_SPACE, "start") == 1)
        .sort("start")
    )
    pairs = (
        ranges.filter(~pl.col("large"))
        .sort("start")
        .join_asof(merged, on="start", by=_SPACE, coalesce=False, check_sortedness=False)
        .filter(
            (pl.col("end") <= pl.col("end_right"))
            & (~pl.col("aligned") | ~pl.col("aligned_right") | _near(error))
        )
    )
    stage = ["packet_right", "vantage", "kind"]
    seen_whole = ranges.filter("large").select(
        pl.col("packet").alias("packet_right"), "vantage", "kind"
    )
    size = pl.col("end") - pl.col("start")
    whole = pl.col("end_right").first() - pl.col("start_right").first()
    tiles = (
        pairs.join(seen_whole, on=stage, how="anti")
        .group_by(stage)
        .agg(((size.sum() == whole) & (pl.col("start").n_unique() == pl.len())).alias("exact"))
        .filter("exact")
    )
    found = (
        pairs.join(tiles, on=stage, how="semi")
        .select("packet", pl.col("packet_right").alias("part_of"))
        .unique("packet", keep="any")
    )
    return units.join(found, on="packet", how="left", maintain_order="left")


def _near(error: int) -> pl.Expr:
    gap = (pl.col("time_ns") - pl.col("time_ns_right")).abs()
    return gap <= UNNAMED_FORWARD_NS + error


def _limits(
    vantages: Sequence[VantageTables], connections: Connections, chosen: pl.DataFrame
) -> pl.DataFrame:
    """Return the largest IP length of a segment per connection and direction, where known."""
    parts = []
    for index, vantage in enumerate(vantages):
        flows = vantage.flows.select("flow", "ip_version", "orig_mss", "resp_mss").join(
            connections.legs.filter(pl.col("vantage") == index).join(
                chosen, on="connection", how="semi"
            ),
            on="flow",
        )
        for side, by_client in (("resp", True), ("orig", False)):
            other = "orig" if side == "resp" else "resp"
            mss = pl.when("client_is_orig").then(f"{side}_mss").otherwise(f"{other}_mss")
            parts.append(
                flows.select(
                    "connection",
                    pl.lit(by_client).alias("by_client"),
                    (
                        mss.cast(pl.UInt32)
                        + pl.col("ip_version").replace_strict(
                            HEADERS, default=60, return_dtype=pl.UInt32
                        )
                    ).alias("limit"),
                )
            )
    return pl.concat(parts).group_by(_SPACE).agg(pl.col("limit").max())
