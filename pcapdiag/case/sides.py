"""Every TCP flow as two senders, each told whether it is the client or the realserver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag.protocols import IpProto

if TYPE_CHECKING:
    from pcapdiag.case.case import Case

TCP_IP_HEADERS: Final = {4: 40, 6: 60}
"""IP and TCP headers without options: an MSS plus this is the largest packet it allows
(RFC 6691: options come out of the segment, not on top of it)."""

_PER_SIDE: Final = (
    "data_packets",
    "max_ip_len",
    "df",
    "acked",
    "sacked",
    "timeouts",
    "largest_acked",
    "stuck_offset",
    "stuck_repeats",
    "stuck_first_ns",
    "stuck_last_ns",
    "stuck_len",
    "seq_first",
    "offload",
    "last_ns",
    "sent",
    "fin",
)


def frame(case: Case) -> pl.DataFrame:
    """Return one row per TCP flow and side, over all vantages.

    Columns: vantage, flow, by_orig, connection, sender (client | realserver), service_name,
    realserver_name, method, ip_version, client_hi, client_lo, peer_hi, peer_lo, peer_mss,
    peer_last_ns, peer_fin, wire_limit (the largest IP length that the peer's MSS allows; null where
    it is not known), and `_PER_SIDE` of the sender with `wire_*` sizes added: the IP lengths that
    were on the wire, where segmentation offload made the captured ones larger (bytes).
    """
    members = case.members.select(
        "connection",
        "service_name",
        "realserver_name",
        "method",
        "client_hi",
        "client_lo",
        "client_port",
    )
    parts: list[pl.LazyFrame] = []
    for vantage in case.vantages:
        legs = case.connections.legs.filter(pl.col("vantage") == vantage.index)
        flows = (
            vantage.flows.lazy()
            .filter(pl.col("ip_proto") == int(IpProto.TCP))
            .join(legs.lazy().select("flow", "connection"), on="flow", how="inner")
            .join(members.lazy(), on="connection", how="inner")
        )
        parts.extend(_side(flows, vantage.index, side) for side in ("orig", "resp"))
    if not parts:
        raise ValueError("a case has at least one vantage")
    return pl.concat(pl.collect_all(parts))


def _side(flows: pl.LazyFrame, vantage: int, side: str) -> pl.LazyFrame:
    peer = "resp" if side == "orig" else "orig"
    is_client = (
        (pl.col(f"{side}_hi") == pl.col("client_hi"))
        & (pl.col(f"{side}_lo") == pl.col("client_lo"))
        & (pl.col(f"{side}_port") == pl.col("client_port"))
    )
    limit = pl.col(f"{peer}_mss").cast(pl.UInt32) + pl.col("ip_version").replace_strict(
        TCP_IP_HEADERS, default=60, return_dtype=pl.UInt32
    )

    def wire(column: str) -> pl.Expr:
        length = pl.col(f"{side}_{column}")
        return (
            pl.when(pl.col(f"{side}_offload") & limit.is_not_null())
            .then(pl.min_horizontal(length, limit))
            .otherwise(length)
            .alias(f"wire_{column}")
        )

    return flows.select(
        pl.lit(vantage, dtype=pl.UInt16).alias("vantage"),
        "flow",
        pl.lit(side == "orig").alias("by_orig"),
        "connection",
        pl.when(is_client).then(pl.lit("client")).otherwise(pl.lit("realserver")).alias("sender"),
        "service_name",
        "realserver_name",
        "method",
        "ip_version",
        "client_hi",
        "client_lo",
        pl.col(f"{peer}_hi").alias("peer_hi"),
        pl.col(f"{peer}_lo").alias("peer_lo"),
        pl.col(f"{peer}_mss").alias("peer_mss"),
        pl.col(f"{peer}_last_ns").alias("peer_last_ns"),
        pl.col(f"{peer}_fin").alias("peer_fin"),
        limit.alias("wire_limit"),
        *(pl.col(f"{side}_{name}").alias(name) for name in _PER_SIDE),
        wire("max_ip_len"),
        wire("largest_acked"),
        wire("stuck_len"),
    )
