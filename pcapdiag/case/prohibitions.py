"""ICMP "administratively prohibited" about TCP: who sent it, and about what kind of connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from pcapdiag.case import sights
from pcapdiag.protocols import (
    ICMPV6_PROHIBITED_CODE,
    PROHIBITED_CODES,
    IcmpType,
    Icmpv6Type,
    IpProto,
    TcpFlag,
)

if TYPE_CHECKING:
    from pcapdiag.case.case import Case

IS_PROHIBITED = (
    (pl.col("ip_version") == 4)
    & (pl.col("icmp_type") == int(IcmpType.UNREACHABLE))
    & pl.col("icmp_code").is_in(sorted(PROHIBITED_CODES))
) | (
    (pl.col("ip_version") == 6)
    & (pl.col("icmp_type") == int(Icmpv6Type.UNREACHABLE))
    & (pl.col("icmp_code") == ICMPV6_PROHIBITED_CODE)
)


def frame(case: Case) -> pl.DataFrame:
    """Return one row per message about a TCP packet of a known connection.

    Columns: those of ERROR_MESSAGES, of sights.first (seen_vantage, seen_row, the quote in full),
    emitter (director | realserver | other | unknown), emitter_mac, emitter_host, emitter_by (mac |
    ttl | null), established (Boolean: the connection was, before the quoted packet), quoted_syn
    (the quoted packet asks for a connection; null: the quote ends before the flags), idle_ns (the
    longest gap of the connection's flow), service_name, vip_hi, vip_lo, vip_port.
    """
    messages = case.errors.messages.filter(
        IS_PROHIBITED,
        pl.col("quoted_proto") == int(IpProto.TCP),
        pl.col("connection").is_not_null(),
    )
    rows = sights.with_first(case, messages)
    rows = rows.join(
        sights.emitters(case, messages), on="message", how="left", maintain_order="left"
    )
    names = case.members.select("connection", "service_name", "vip_hi", "vip_lo", "vip_port")
    rows = rows.join(names, on="connection", how="left", maintain_order="left")
    return rows.join(
        _connections(case, messages), on="connection", how="left", maintain_order="left"
    ).with_columns(
        pl.coalesce(
            (pl.col("quoted_tcp_flags") & int(TcpFlag.SYN)) != 0,
            pl.col("quoted_tcp_seq") == pl.col("client_isn"),
        ).alias("quoted_syn"),
    )


def _connections(case: Case, messages: pl.DataFrame) -> pl.DataFrame:
    """Return per connection what its flows say of its life, over all vantages."""
    parts = [
        vantage.flows.lazy()
        .join(
            case.connections.legs.lazy()
            .filter(pl.col("vantage") == vantage.index)
            .join(messages.lazy().select("connection"), on="connection", how="semi")
            .select("flow", "connection"),
            on="flow",
        )
        .select(
            "connection",
            # Either side's data or SYN was acknowledged, or, where one direction is all there
            # is to see, the client went on after its SYN: a SYN-ACK had reached it.
            (
                (pl.col("orig_acked") > 0)
                | (pl.col("resp_acked") > 0)
                | ((pl.col("orig_packets") >= 3) & (pl.col("orig_data_packets") >= 1))
            )
            .fill_null(False)
            .alias("established"),
            pl.when(pl.col("orig_syn")).then(pl.col("orig_seq_first")).alias("client_isn"),
            "idle_ns",
            "idle_end_ns",
        )
        for vantage in case.vantages
    ]
    return (
        pl.concat(pl.collect_all(parts))
        .group_by("connection")
        .agg(
            pl.col("established").any(),
            pl.col("client_isn").drop_nulls().first(),
            pl.col("idle_ns").max(),
            pl.col("idle_end_ns").sort_by("idle_ns").last(),
        )
    )
