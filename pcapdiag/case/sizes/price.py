"""What it costs that ICMP errors do not arrive, and errors at a director that is not theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from pcapdiag import spool
from pcapdiag.case import sides
from pcapdiag.case.sizes import reactions

if TYPE_CHECKING:
    from pcapdiag.case.case import Case


class Price(NamedTuple):
    """Of errors that were not handed on.

    repeats: packets that their senders sent again after the first error; packets: how many
    different packets the errors quote; forwarded: packets of the same connections that the director
    passed on after the first error, so that it knew them.
    """

    repeats: int
    packets: int
    forwarded: int


def of(case: Case, errors: pl.DataFrame) -> Price:
    """Return the price of some of case.arrived_errors."""
    first = errors.group_by("connection", pl.col("quoted_sender").alias("sender")).agg(
        pl.col("first_ns").min().alias("told_ns")
    )
    return Price(
        repeats=_repeats(case, first),
        packets=errors.select("connection", "quoted_tcp_seq", "quoted_ip_id").n_unique(),
        forwarded=_forwarded(case, first),
    )


def _repeats(case: Case, first: pl.DataFrame) -> int:
    told = sides.of(case, first["connection"]).collect()
    nearest = reactions.nearest_to_sender(
        case, told.join(first, on=reactions.KEYS, how="semi")
    ).join(first, on=reactions.KEYS)
    total = 0
    for vantage in case.vantages:
        here = nearest.filter(pl.col("vantage") == vantage.index)
        if here.is_empty():
            continue
        total += (
            vantage.packets_of(here["flow"])
            .filter(pl.col("payload_len") > 0, pl.col("copy_of").is_null())
            .join(
                here.lazy().select("flow", "by_orig", "told_ns"),
                on=["flow", "by_orig"],
                maintain_order="left",
            )
            .with_columns(pl.int_range(pl.len()).over("flow", "by_orig", "tcp_seq").alias("nth"))
            .filter(
                pl.col("nth") > 0,
                case.clocks.common_time(vantage.index) > pl.col("told_ns"),
            )
            .select(pl.len())
            .collect()
            .item()
        )
    return total


def _forwarded(case: Case, first: pl.DataFrame) -> int:
    told = first.group_by("connection").agg(pl.col("told_ns").min())
    total = 0
    for vantage in case.vantages:
        if case.role(vantage.index) != "director":
            continue
        legs = case.connections.legs.filter(pl.col("vantage") == vantage.index).join(
            told, on="connection"
        )
        total += (
            vantage.passages.lazy()
            .join(legs.lazy().select("flow", "told_ns"), on="flow")
            .filter(case.clocks.common_time(vantage.index, "out_time_ns") > pl.col("told_ns"))
            .select(pl.len())
            .collect(engine=spool.engine(vantage.passages))
            .item()
        )
    return total


def strangers(case: Case) -> pl.DataFrame:
    """Return those of case.arrived_errors that reached a director which never had the connection.

    Proven by packets: a realserver's or another director's capture shows the client's packets of
    that connection, this director's shows none of them, though it shows others of the service
    leaving. That happens with several directors (ECMP, failover without synchronisation), where the
    router of the error is hashed elsewhere than the client.
    """
    errors = case.arrived_errors
    found = errors.filter(
        pl.col("verdict").cast(pl.String) == "unknown",
        pl.col("reason") == "never-forwarded-here",
        pl.col("connection").is_not_null(),
    )
    if found.is_empty():
        return found
    legs = case.connections.legs
    here = legs.select("connection", pl.col("vantage").alias("director_vantage")).unique()
    found = found.join(here, on=["connection", "director_vantage"], how="anti")
    counts = pl.concat(
        [
            vantage.flows.join(
                legs.filter(pl.col("vantage") == vantage.index).select("flow", "connection"),
                on="flow",
            ).select("connection", pl.col("orig_packets").alias("client_packets"))
            for vantage in case.vantages
        ]
    )
    found = found.join(
        counts.group_by("connection").agg(pl.col("client_packets").max()), on="connection"
    )
    services = case.connections.connections.select(
        "connection", "service", pl.col("first_ns").alias("began_ns")
    )
    begins = {
        vantage.index: span[0]
        for vantage in case.vantages_of("director")
        if (span := case.coverage.span(vantage.index)) is not None
    }
    # What came before the director was captured says nothing of its way.
    found = found.join(services.drop("service"), on="connection").filter(
        pl.col("began_ns")
        >= pl.col("director_vantage").replace_strict(begins, default=None, return_dtype=pl.Int64)
    )
    services = services.drop("began_ns")
    kinds = _kinds(found.join(services, on="connection"))
    keep = [
        case.coverage.egress(row["director_vantage"], row["service"]).ok
        and case.absence_is_proof(row["director_vantage"], row["packets"], by_client=True)
        for row in kinds.iter_rows(named=True)
    ]
    return (
        found.join(services, on="connection")
        .join(
            kinds.filter(pl.Series(keep, dtype=pl.Boolean)),
            on=["director_vantage", "service"],
            how="semi",
        )
        .drop("service", "client_packets", "began_ns")
    )


def _kinds(found: pl.DataFrame) -> pl.DataFrame:
    """Return director, service and the least packets that any of the connections had elsewhere."""
    return (
        found.filter(pl.col("service").is_not_null())
        .group_by("director_vantage", "service")
        .agg(pl.col("client_packets").min().alias("packets"))
        .sort("director_vantage", "service")
    )
