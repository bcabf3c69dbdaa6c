"""ICMP errors held against what was sent: a forger has to guess sequence numbers (RFC 5927)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag.case import sights
from pcapdiag.case.ways import redirects
from pcapdiag.kernel import address_scope
from pcapdiag.protocols import IpProto

if TYPE_CHECKING:
    from pcapdiag.case.case import Case

MAX_SENT: Final = 1 << 31
"""Bytes of a side from which its sequence numbers say nothing: they have come round."""


def frame(case: Case) -> pl.DataFrame:
    """Return one row per ICMP error about a TCP packet of a known connection, checksum not bad.

    Columns: those of ERROR_MESSAGES and sights.with_first, service_name, realserver_name, covered
    (some capture holds the quoted direction from its SYN on, and runs when the error is first
    seen), outside (bytes by which the quoted
    sequence number misses all that the side sent in any such capture; 0: inside, or the quoted
    packet was captured, whoever sent it; null: not covered), below (it lies before the SYN).
    """
    messages = case.errors.messages.filter(
        ~redirects.IS_REDIRECT,
        pl.col("quoted_proto") == int(IpProto.TCP),
        pl.col("quoted_tcp_seq").is_not_null(),
        pl.col("connection").is_not_null(),
        pl.col("icmp_checksum") != "bad",
    )
    ahead = (pl.col("quoted_tcp_seq").cast(pl.Int64) - pl.col("seq_first").cast(pl.Int64)).mod(
        1 << 32
    )
    after, before = ahead - pl.col("sent"), (1 << 32) - ahead
    held = messages.select(
        "message", "connection", "quoted_sender", "quoted_tcp_seq", "first_ns"
    ).join(_covered(case, messages), on=["connection", "quoted_sender"])
    missed = (
        held.filter(case.coverage.capturing(held, "first_ns"))
        .select(
            "message",
            pl.when(after <= 0)
            .then(0)
            .otherwise(pl.min_horizontal(after, before))
            .alias("outside"),
            ((after > 0) & (before < after)).alias("below"),
        )
        .sort("outside")
        .group_by("message", maintain_order=True)
        .first()
    )
    known = _about_captured(case).with_columns(pl.lit(0, pl.Int64).alias("captured"))
    missed = missed.join(known, on="message", how="left", maintain_order="left").select(
        "message", pl.coalesce("captured", "outside").alias("outside"), "below"
    )
    names = case.members.select("connection", "service_name", "realserver_name")
    return (
        sights.with_first(case, messages)
        .join(missed, on="message", how="left", maintain_order="left")
        .join(names, on="connection", how="left", maintain_order="left")
        .with_columns(pl.col("outside").is_not_null().alias("covered"))
        .sort("first_ns", "message", nulls_last=True)
    )


def _about_captured(case: Case) -> pl.DataFrame:
    """Return the messages that some capture shows together with the packet they quote."""
    quoting = pl.concat(
        vantage.icmp_errors.filter(pl.col("quoted_row").is_not_null()).select(
            pl.lit(vantage.index, pl.UInt16).alias("vantage"), "row"
        )
        for vantage in case.vantages
    )
    seen = case.errors.sightings.join(quoting, on=["vantage", "row"], how="semi")
    return seen.select("message").unique()


def forged_redirects(case: Case) -> pl.DataFrame:
    """Return the redirects of redirects.frame with gateway_scope (address_scope.scope) added."""
    return case.redirects.with_columns(address_scope.scope("gateway").alias("gateway_scope"))


def _covered(case: Case, messages: pl.DataFrame) -> pl.DataFrame:
    """Return what sides that were captured from their SYN on sent.

    Columns: connection (one of `messages`), quoted_sender, vantage, seq_first, sent.
    """
    sender = messages.schema["quoted_sender"]
    clients = case.members.select("connection", "client_hi", "client_lo", "client_port").join(
        messages, on="connection", how="semi"
    )
    parts = [
        pl.LazyFrame(
            schema={
                "connection": pl.UInt32,
                "quoted_sender": sender,
                "vantage": pl.UInt16,
                "seq_first": pl.UInt32,
                "sent": pl.Int64,
            }
        )
    ]
    for vantage in case.vantages if clients.height else ():
        legs = case.connections.legs.lazy().filter(pl.col("vantage") == vantage.index)
        flows = (
            vantage.flows.lazy()
            .filter(pl.col("ip_proto") == int(IpProto.TCP))
            .join(legs.select("flow", "connection"), on="flow", maintain_order="left")
            .join(clients.lazy(), on="connection", maintain_order="left")
        )
        for side in ("orig", "resp"):
            is_client = (
                (pl.col(f"{side}_hi") == pl.col("client_hi"))
                & (pl.col(f"{side}_lo") == pl.col("client_lo"))
                & (pl.col(f"{side}_port") == pl.col("client_port"))
            )
            parts.append(
                flows.filter(pl.col(f"{side}_syn"), pl.col(f"{side}_sent") < MAX_SENT).select(
                    "connection",
                    pl.when(is_client)
                    .then(pl.lit("client"))
                    .otherwise(pl.lit("realserver"))
                    .cast(sender)
                    .alias("quoted_sender"),
                    pl.lit(vantage.index, pl.UInt16).alias("vantage"),
                    pl.col(f"{side}_seq_first").alias("seq_first"),
                    pl.col(f"{side}_sent").alias("sent"),
                )
            )
    return pl.concat(parts).collect()
