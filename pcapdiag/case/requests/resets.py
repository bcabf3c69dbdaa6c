"""TCP resets that clients got in answer: from whose stack, and to which packet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag.protocols import IpProto, TcpFlag

if TYPE_CHECKING:
    from pcapdiag.case.case import Case

INITIAL_TTLS: Final = (64, 128, 255)
"""What hosts put on packets of their own (Linux 64); a forwarded one has less."""

_SYN, _ACK, _RST, _FIN = (
    int(flag) for flag in (TcpFlag.SYN, TcpFlag.ACK, TcpFlag.RST, TcpFlag.FIN)
)

SHAPE: Final = {
    "connection": pl.UInt32,
    "emitter": pl.String,
    "emitter_by": pl.String,
    "emitter_mac": pl.UInt64,
    "emitter_host": pl.String,
    "vantage": pl.UInt16,
    "row": pl.UInt32,
    "time_ns": pl.Int64,
    "ttl": pl.UInt8,
    "resets": pl.UInt32,
    "answered_row": pl.UInt32,
    "answered_syn": pl.Boolean,
}


def frame(case: Case) -> pl.DataFrame:
    """Return one row per connection and sender of resets: the first of its resets to the client.

    Columns: connection; emitter (director | realserver | unknown), emitter_by (mac | ttl | null),
    emitter_mac, emitter_host; vantage, row, time_ns (vantage's clock) and ttl of the reset; resets
    (how many there are at that vantage); answered_row and answered_syn: the client's packet it
    answers, and whether that asked for a connection (null: not seen there). Where several vantages
    saw it, the one that tells the sender speaks, directors first.
    """
    parts = [_at(case, vantage.index) for vantage in case.vantages]
    found = pl.concat([pl.DataFrame(schema=SHAPE), *parts])
    if found.is_empty():
        return found
    directors = [item.index for item in case.vantages_of("director")]
    return (
        found.sort(
            pl.col("emitter") == "unknown",
            ~pl.col("vantage").is_in(directors),
            pl.col("answered_row").is_null(),
            "time_ns",
            "vantage",
            "row",
            nulls_last=True,
        )
        .group_by("connection", "emitter", maintain_order=True)
        .first()
        .filter(
            # Who sent it is not unknown any more once another vantage told.
            (pl.col("emitter") != "unknown")
            | ((pl.col("emitter") != "unknown").sum().over("connection") == 0)
        )
        .select(list(SHAPE))
        .sort("connection", "emitter")
    )


def _at(case: Case, index: int) -> pl.DataFrame:
    """Return the first resets of each connection at one vantage."""
    tables = case.vantages[index]
    suspects = tables.flows.lazy().filter(
        pl.col("ip_proto") == int(IpProto.TCP), pl.col("orig_rst") | pl.col("resp_rst")
    )
    legs = (
        case.connections.legs.lazy()
        .filter(pl.col("vantage") == index)
        .join(suspects.select("flow", "orig_ttl", "resp_ttl"), on="flow")
        .join(case.connections.connections.lazy().select("connection", "method"), on="connection")
        .collect()
    )
    if legs.is_empty():
        return pl.DataFrame(schema=SHAPE)
    packets = (
        tables.packets_of(legs["flow"], row=True)
        .filter(pl.col("copy_of").is_null())
        .select(
            *("row", "flow", "by_orig", "time_ns", "eth_src", "eth_dst", "ttl"),
            *("tcp_flags", "tcp_seq", "tcp_ack", "payload_len"),
        )
        .join(legs.lazy(), on="flow")
        .with_columns((pl.col("by_orig") == pl.col("client_is_orig")).alias("by_client"))
        .sort("row")
        .collect()
    )
    resets = packets.filter(~pl.col("by_client"), (pl.col("tcp_flags") & _RST) != 0)
    if resets.is_empty():
        return pl.DataFrame(schema=SHAPE)
    told = _emitters(case, resets)
    counted = told.group_by("connection", "emitter").len("resets")
    first = told.group_by("connection", "emitter", maintain_order=True).first()
    return (
        _answered(first, packets)
        .join(counted, on=["connection", "emitter"], how="left")
        .with_columns(pl.lit(index).alias("vantage"))
        .select(pl.col(name).cast(dtype) for name, dtype in SHAPE.items())
    )


def _emitters(case: Case, resets: pl.DataFrame) -> pl.DataFrame:
    """Add emitter, emitter_by, emitter_mac and emitter_host.

    A director's MAC says that it sent the reset, and in direct routing and tunnelling that it made
    it: realservers' own do not pass it. In NAT they do, translated, with a TTL one lower; there
    only a TTL that nobody has lowered yet is the director's own.
    """
    owners = resets.select("eth_src").unique().drop_nulls()
    owners = owners.with_columns(
        pl.Series("role", [case.role_of_mac(mac) for mac in owners["eth_src"]], dtype=pl.String),
        pl.Series("host", [case.host_of_mac(mac) for mac in owners["eth_src"]], dtype=pl.String),
    )
    translated = resets.filter(pl.col("kind") == "back").select("connection").unique()
    server_ttl = pl.when("client_is_orig").then("resp_ttl").otherwise("orig_ttl")
    own = pl.col("ttl").is_in(INITIAL_TTLS) & ~pl.col("relayed").fill_null(value=False)
    return (
        resets.join(owners, on="eth_src", how="left", maintain_order="left")
        .join(
            translated.with_columns(pl.lit(value=True).alias("relayed")),
            on="connection",
            how="left",
            maintain_order="left",
        )
        .with_columns(
            pl.when(pl.col("role") == "realserver", pl.col("kind") == "back")
            .then(pl.lit("realserver"))
            .when(pl.col("role") == "realserver", pl.col("method").ne_missing("nat"))
            .then(pl.lit("realserver"))
            .when(pl.col("role") == "director", pl.col("kind") == "front", own)
            .then(pl.lit("director"))
            .when(pl.col("role") == "director", pl.col("kind") == "front", pl.col("relayed"))
            .then(pl.lit("realserver"))
            .otherwise(pl.lit("unknown"))
            .alias("emitter"),
            server_ttl.alias("server_ttl"),
        )
        .with_columns(
            pl.when(pl.col("emitter") != "unknown").then(pl.lit("mac")).alias("emitter_by")
        )
        .with_columns(
            # The director is one hop nearer than the realservers whose answers it translates.
            pl.when(
                pl.col("emitter") == "unknown",
                pl.col("method") == "nat",
                pl.col("kind") == "front",
                pl.col("ttl").cast(pl.Int16) == pl.col("server_ttl").cast(pl.Int16) + 1,
            )
            .then(pl.lit("ttl"))
            .otherwise("emitter_by")
            .alias("emitter_by")
        )
        .with_columns(
            pl.when(pl.col("emitter_by") == "ttl")
            .then(pl.lit("director"))
            .otherwise("emitter")
            .alias("emitter"),
            pl.when(pl.col("emitter_by") == "mac", pl.col("role") == pl.col("emitter"))
            .then("eth_src")
            .alias("emitter_mac"),
            pl.when(pl.col("emitter_by") == "mac", pl.col("role") == pl.col("emitter"))
            .then("host")
            .alias("emitter_host"),
        )
    )


def _answered(resets: pl.DataFrame, packets: pl.DataFrame) -> pl.DataFrame:
    """Add the client's packet that each reset answers (RFC 9293 section 3.10.7.1).

    A reset without ACK takes its sequence number from the packet's acknowledgement; one that
    answers a packet without ACK acknowledges all of it and has sequence number 0. Any other reset
    with ACK ends a connection of its sender's and answers nothing.
    """
    syn, fin = ((pl.col("tcp_flags") & flag != 0).cast(pl.UInt32) for flag in (_SYN, _FIN))
    mine = packets.filter("by_client").select(
        "flow",
        pl.col("row").alias("answered_row"),
        ((pl.col("tcp_flags") & (_SYN | _ACK)) == _SYN).alias("answered_syn"),
        pl.col("tcp_ack").cast(pl.Int64).alias("by_ack"),
        (
            (
                pl.col("tcp_seq").cast(pl.Int64)
                + pl.col("payload_len").fill_null(0).cast(pl.Int64)
                + syn
                + fin
            )
            % 2**32
        ).alias("by_end"),
        (pl.col("tcp_flags") & _ACK != 0).alias("acks"),
    )
    told = ("answered_row", "answered_syn")
    keys = pl.concat(
        [
            mine.filter("acks").select("flow", *told, pl.col("by_ack").alias("key")),
            mine.filter(~pl.col("acks")).select(
                "flow", *told, (-1 - pl.col("by_end")).alias("key")
            ),
        ]
    ).sort("answered_row")
    acks = pl.col("tcp_flags") & _ACK != 0
    wanted = resets.with_columns(
        pl.when(~acks)
        .then(pl.col("tcp_seq").cast(pl.Int64))
        .when(pl.col("tcp_seq") == 0)
        .then(-1 - pl.col("tcp_ack").cast(pl.Int64))
        .alias("key")
    ).sort("row")
    return wanted.join_asof(
        keys.with_columns(pl.col("answered_row").alias("at")),
        left_on="row",
        right_on="at",
        by=["flow", "key"],
        strategy="backward",
        check_sortedness=False,
    )
