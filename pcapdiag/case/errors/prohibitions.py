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
    """Return one row per message about a TCP packet of a known connection, sent to its sender.

    Columns: those of ERROR_MESSAGES, of sights.first (seen_vantage, seen_row, the quote in full),
    emitter (director | realserver | other | unknown), emitter_mac, emitter_host, emitter_by (mac |
    ttl | connection: that of its other messages | null), hops, established (Boolean: the connection
    was, before the quoted packet), quoted_syn (the quoted packet asks for a connection; null: the
    quote ends before the flags), idle_ns (the longest gap of the connection's flow), service_name,
    realserver_name, method, vip_hi, vip_lo, vip_port, and the columns of `_aftermath`.
    """
    messages = case.errors.messages.filter(
        IS_PROHIBITED,
        pl.col("quoted_proto") == int(IpProto.TCP),
        pl.col("connection").is_not_null(),
    ).join(_to_senders(case), on="message", how="semi", maintain_order="left")
    rows = sights.with_first(case, messages)
    rows = rows.join(
        sights.emitters(case, messages), on="message", how="left", maintain_order="left"
    )
    rows = _same_emitter(rows)
    names = case.members.select(
        "connection", "service_name", "realserver_name", "method", "vip_hi", "vip_lo", "vip_port"
    )
    rows = rows.join(names, on="connection", how="left", maintain_order="left")
    rows = rows.join(_aftermath(case, rows), on="connection", how="left", maintain_order="left")
    return rows.join(
        _connections(case, messages), on="connection", how="left", maintain_order="left"
    ).with_columns(
        pl.coalesce(
            (pl.col("quoted_tcp_flags") & int(TcpFlag.SYN)) != 0,
            pl.col("quoted_tcp_seq") == pl.col("client_isn"),
        ).alias("quoted_syn"),
    )


def _to_senders(case: Case) -> pl.DataFrame:
    """Return the messages that went, where one capture shows them, to whom they quote as sender.

    An error may quote anything and go anywhere; a host that rejects a packet tells whoever sent it
    (RFC 792), of a packet in a tunnel the tunnel's other end.
    """
    told = pl.any_horizontal(
        (pl.col("dst_hi") == pl.col(f"quoted_{sender}_hi"))
        & (pl.col("dst_lo") == pl.col(f"quoted_{sender}_lo"))
        for sender in ("src", "outer_src")
    )
    parts = [
        vantage.icmp_errors.filter(told).select(
            pl.lit(vantage.index, pl.UInt16).alias("vantage"), "row"
        )
        for vantage in case.vantages
    ]
    seen = case.errors.sightings.join(pl.concat(parts), on=["vantage", "row"], how="semi")
    return seen.select("message").unique()


def cut(case: Case) -> int:
    """Return how many prohibitions end, as captured, before the numbers of what they quote."""
    return case.errors.messages.filter(
        IS_PROHIBITED,
        pl.col("connection").is_null(),
        pl.col("icmp_checksum") == "unverifiable",
        pl.col("quoted_tcp_seq").is_null(),
        pl.col("quoted_proto").is_null() | (pl.col("quoted_proto") == int(IpProto.TCP)),
    ).height


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


def _same_emitter(rows: pl.DataFrame) -> pl.DataFrame:
    """Give messages of an unknown emitter that of the connection's others, if these have one.

    A message that the client alone captured shows no MAC of the cluster.
    """
    known = pl.col("emitter").filter(pl.col("emitter") != "unknown")
    single = known.n_unique().over("connection") == 1
    take = (pl.col("emitter") == "unknown") & single
    return rows.with_columns(
        pl.when(take).then(known.first().over("connection")).otherwise("emitter").alias("emitter"),
        pl.when(take).then(pl.lit("connection")).otherwise("emitter_by").alias("emitter_by"),
    )


def _aftermath(case: Case, rows: pl.DataFrame) -> pl.DataFrame:
    """Return per connection what its client did after the first message, where that was seen.

    Columns: connection, after_data (UInt32: packets with data), after_last_ns (its last packet at
    all; null: none), after_until_ns (end of that capture), after_answered (the other side
    acknowledged data past the first rejected packet; null: nothing of it was seen).
    """
    first = (
        rows.sort("seen_row")
        .group_by("connection", "seen_vantage", maintain_order=True)
        .agg(pl.col("seen_row").first(), pl.col("quoted_tcp_seq").first())
        .unique("connection", keep="first", maintain_order=True)
    )
    parts = [_NOTHING_AFTER]
    for vantage in case.vantages:
        here = first.filter(pl.col("seen_vantage") == vantage.index)
        if here.is_empty():
            continue
        legs = case.connections.legs.lazy().filter(pl.col("vantage") == vantage.index)
        ahead = (pl.col("tcp_ack").cast(pl.Int64) - pl.col("quoted_tcp_seq").cast(pl.Int64)).mod(
            1 << 32
        )
        by_client = pl.col("by_orig") == pl.col("client_is_orig")
        answers = ~by_client & ((pl.col("tcp_flags") & int(TcpFlag.ACK)) != 0)
        parts.append(
            vantage.packets.lazy()
            .with_row_index("row")
            .filter(pl.col("copy_of").is_null())
            .join(legs.select("flow", "connection", "client_is_orig"), on="flow")
            .join(here.lazy(), on="connection")
            .filter(pl.col("row") > pl.col("seen_row"))
            .group_by("connection")
            .agg(
                (by_client & (pl.col("payload_len") > 0)).sum().cast(pl.UInt32).alias("after_data"),
                pl.col("time_ns").filter(by_client).max().alias("after_last_ns"),
                pl.lit(
                    vantage.packets.lazy().select(pl.col("time_ns").max()).collect().item(),
                    dtype=pl.Int64,
                )
                .first()
                .alias("after_until_ns"),
                ((ahead > 0) & (ahead < 1 << 31)).filter(answers).any().alias("after_answered"),
                answers.any().alias("heard"),
            )
            .with_columns(pl.when("heard").then("after_answered").alias("after_answered"))
            .drop("heard")
            .collect()
        )
    return pl.concat(parts)


_NOTHING_AFTER = pl.DataFrame(
    schema={
        "connection": pl.UInt32,
        "after_data": pl.UInt32,
        "after_last_ns": pl.Int64,
        "after_until_ns": pl.Int64,
        "after_answered": pl.Boolean,
    }
)
