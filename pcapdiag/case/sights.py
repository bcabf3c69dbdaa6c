"""Sights of ICMP errors put together: the quote in full, and whose network card sent them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag.schema import dtypes

if TYPE_CHECKING:
    from pcapdiag.case.case import Case

_QUOTE: Final = (
    "ttl",
    "quoted_src_hi",
    "quoted_src_lo",
    "quoted_dst_hi",
    "quoted_dst_lo",
    "quoted_src_port",
    "quoted_dst_port",
    "quoted_tcp_flags",
    "quoted_ttl",
    "icmp_residual",
)

_FIRST: Final = {
    "seen_vantage": pl.UInt16,
    "seen_row": pl.UInt32,
    "seen_eth_src": pl.UInt64,
    "seen_eth_dst": pl.UInt64,
    **{name: dtype for name, dtype in dtypes("icmp_errors").items() if name in _QUOTE},
}

_EMITTER: Final = {
    "message": pl.UInt32,
    "emitter": pl.String,
    "emitter_by": pl.String,
    "hops": pl.Int16,
    "emitter_mac": pl.UInt64,
    "emitter_host": pl.String,
}

_NEAREST: Final = {"realserver": 0, "director": 1, "router": 2, "client": 3}


def with_first(case: Case, messages: pl.DataFrame) -> pl.DataFrame:
    """Return `messages` with seen_vantage, seen_row, seen_eth_src, seen_eth_dst and the quote.

    The first sight is one in a director's capture where there is one, since rules speak of what the
    director saw; otherwise any. Of several, that with the highest TTL, and at one link that of the
    host nearer to the realserver: clocks are not good enough to tell who of two neighbours saw a
    frame first.
    """
    if messages.is_empty():
        return messages.with_columns(pl.lit(None, dtype).alias(n) for n, dtype in _FIRST.items())
    named = roles(case).with_columns(
        pl.col("role").replace_strict(_NEAREST, default=len(_NEAREST)).alias("distance")
    )
    first = (
        case.errors.sightings.join(messages.select("message"), on="message", how="semi")
        .join(named, on="vantage", how="left")
        .sort(
            pl.col("role") != "director",
            -pl.col("ttl").cast(pl.Int16),
            "distance",
            "time_ns",
            "vantage",
            "row",
            nulls_last=True,
        )
        .group_by("message", maintain_order=True)
        .agg(
            pl.col("vantage").first().alias("seen_vantage"),
            pl.col("row").first().alias("seen_row"),
            pl.col("eth_src").first().alias("seen_eth_src"),
            pl.col("eth_dst").first().alias("seen_eth_dst"),
        )
    )
    seen = set(first["seen_vantage"].unique())
    quotes = pl.concat(
        [
            vantage.icmp_errors.select(
                pl.lit(vantage.index, dtype=pl.UInt16).alias("seen_vantage"),
                pl.col("row").alias("seen_row"),
                *_QUOTE,
            )
            for vantage in case.vantages
            if vantage.index in seen
        ]
    )
    return messages.join(first, on="message", how="left", maintain_order="left").join(
        quotes, on=["seen_vantage", "seen_row"], how="left", maintain_order="left"
    )


def emitters(case: Case, messages: pl.DataFrame) -> pl.DataFrame:
    """Return per message whose network card sent it first.

    Columns: message, emitter (director | realserver | other | unknown), emitter_mac, emitter_host,
    emitter_by (mac | ttl | null), hops (as in _hops). Source addresses prove nothing here: a
    realserver's own error about a packet to the VIP has the VIP as its source (icmp.c,
    __icmp_send). A realserver's MAC wins over the director's, which may only have passed the
    message on; a director's MAC alone is checked against the quoted TTL, which is one lower where
    the packet had gone through IPVS.
    Other: the quoted TTL says that it was a host in front of the director, or behind another hop.
    """
    if messages.is_empty():
        return pl.DataFrame(schema=_EMITTER)
    sights = case.errors.sightings.join(messages.select("message"), on="message", how="semi")
    owners = sights.select("eth_src").unique().drop_nulls()
    owners = owners.with_columns(
        pl.Series(
            "role",
            [case.role_of_mac(mac) for mac in owners["eth_src"]],
            dtype=pl.String,
        ),
        pl.Series(
            "host",
            [case.host_of_mac(mac) for mac in owners["eth_src"]],
            dtype=pl.String,
        ),
    )
    best = (
        sights.join(owners, on="eth_src", how="left", maintain_order="left")
        .with_columns(
            pl.col("role")
            .replace_strict({"realserver": 0, "director": 1}, default=2, return_dtype=pl.UInt8)
            .fill_null(3)
            .alias("rank")
        )
        .sort("rank", "time_ns", "vantage", "row", nulls_last=True)
        .group_by("message", maintain_order=True)
        .first()
        .select("message", "role", "host", "eth_src")
    )
    return (
        best.join(_hops(case, messages), on="message", how="left", maintain_order="left")
        .with_columns(
            pl.when(pl.col("role").is_in(["director", "realserver"]))
            .then(
                pl.when((pl.col("role") == "director") & (pl.col("hops") >= 1))
                .then(pl.lit("realserver"))
                .otherwise(pl.col("role"))
            )
            .when(pl.col("hops") == 0)
            .then(pl.lit("director"))
            .when(pl.col("hops") == 1)
            .then(pl.lit("realserver"))
            .when((pl.col("hops") < 0) | (pl.col("hops") > 1))
            .then(pl.lit("other"))
            .otherwise(pl.lit("unknown"))
            .alias("emitter"),
        )
        .with_columns(
            pl.when(pl.col("emitter") == pl.col("role"))
            .then(pl.lit("mac"))
            .when(pl.col("emitter") != "unknown")
            .then(pl.lit("ttl"))
            .alias("emitter_by"),
        )
        .select(
            "message",
            "emitter",
            "emitter_by",
            "hops",
            pl.when(pl.col("emitter_by") == "mac").then(pl.col("eth_src")).alias("emitter_mac"),
            pl.when(pl.col("emitter_by") == "mac").then(pl.col("host")).alias("emitter_host"),
        )
    )


def _hops(case: Case, messages: pl.DataFrame) -> pl.DataFrame:
    """Return per message how many hops behind the director's entrance its quote was taken.

    That is the TTL of the quoted packet as it came in at a director, less the quoted TTL; negative
    in front of the director. The packet is found by IP ID and sequence number on any of the
    connection's legs there, so that the message itself may have been seen elsewhere.
    """
    parts = [pl.DataFrame(schema={"message": pl.UInt32, "hops": pl.Int16})]
    quotes = (
        messages.lazy()
        .select("message", "connection", "quoted_ip_id", "quoted_tcp_seq")
        .join(with_first(case, messages).lazy().select("message", "quoted_ttl"), on="message")
        .filter(pl.col("quoted_ip_id") != 0, pl.col("quoted_ttl").is_not_null())
    )
    for vantage in case.vantages:
        if case.role(vantage.index) != "director":
            continue
        legs = (
            case.connections.legs.lazy()
            .filter(pl.col("vantage") == vantage.index)
            .select("flow", "connection")
        )
        parts.append(
            vantage.packets.lazy()
            .filter(pl.col("copy_of").is_null())
            .join(legs, on="flow")
            .join(
                quotes,
                left_on=["connection", "ip_id", "tcp_seq"],
                right_on=["connection", "quoted_ip_id", "quoted_tcp_seq"],
            )
            .select(
                "message",
                (pl.col("ttl").cast(pl.Int16) - pl.col("quoted_ttl").cast(pl.Int16)).alias("hops"),
            )
            .collect()
        )
    return pl.concat(parts).group_by("message").agg(pl.col("hops").min())


def roles(case: Case) -> pl.DataFrame:
    """Return vantage (index) and role (String)."""
    return pl.DataFrame(
        {
            "vantage": [item.index for item in case.vantages],
            "role": [case.role(item.index) for item in case.vantages],
        },
        schema={"vantage": pl.UInt16, "role": pl.String},
    )
