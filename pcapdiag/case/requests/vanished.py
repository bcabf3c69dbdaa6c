"""Requests in vain and the realserver they were for: dropped, undeliverable, or unanswered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

if TYPE_CHECKING:
    from pcapdiag.case.case import Case

ARP_TRIES: Final = 3
"""Linux gives an address up after three requests (mcast_solicit); fewer in vain are mere loss."""

AROUND_NS: Final = 10_000_000_000
"""A request in vain belongs to ARP requests at most this far away: one round takes 3 s, or 6 s
where it begins with unicast probes, and a neighbour that failed is asked for again with the next
packet."""

_ARP: Final = {
    "connection": pl.UInt32,
    "vain_vantage": pl.UInt16,
    "vain_row": pl.UInt32,
    "vain_last_row": pl.UInt32,
    "vain_requests": pl.UInt32,
    "vain_hi": pl.UInt64,
    "vain_lo": pl.UInt64,
}


def frame(case: Case) -> pl.DataFrame:
    """Return case.unanswered of services whose method is known, with what became of the requests.

    With them go the connections whose client gave up at once, told that the host is unreachable.

    Further columns: fate (dropped: the director let earlier packets of the connection pass, and
    none of these; undeliverable: it asked for the realserver's MAC in vain, or said so; sent: they
    left for the realserver; unknown); realserver_text (its name or address; null: not known);
    vain_vantage, vain_row, vain_last_row, vain_requests, vain_hi, vain_lo (the ARP requests of a
    director that stayed unanswered, see neighbours.vain); heard_vantage, heard_row, heard_ns (the
    last frame of the realserver's MAC, common clock; null: none, or no MAC is known).
    """
    rows = pl.concat([case.unanswered, _told(case)], how="diagonal_relaxed").filter(
        pl.col("method").is_not_null()
    )
    rows = rows.join(_asked_in_vain(case, rows), on="connection", how="left", maintain_order="left")
    heard = case.heard.select(
        pl.col("mac").alias("realserver_mac"),
        pl.col("vantage").alias("heard_vantage"),
        pl.col("row").alias("heard_row"),
        pl.col("last_ns").alias("heard_ns"),
    )
    rows = rows.join(heard, on="realserver_mac", how="left", maintain_order="left")
    targets = rows.select("vain_hi", "vain_lo").drop_nulls().unique()
    targets = targets.with_columns(
        pl.Series(
            "vain_text",
            [case.host_of_address(*row) for row in targets.iter_rows()],
            dtype=pl.String,
        )
    )
    return (
        rows.join(targets, on=["vain_hi", "vain_lo"], how="left", maintain_order="left")
        .with_columns(
            pl.when(pl.col("error_row").is_not_null() | pl.col("vain_row").is_not_null())
            .then(pl.lit("undeliverable"))
            .when(pl.col("visible"), pl.col("passed") == 0, pl.col("passed_before"))
            .then(pl.lit("dropped"))
            .when((pl.col("passed") > 0) | (pl.col("reached") > 0))
            .then(pl.lit("sent"))
            .otherwise(pl.lit("unknown"))
            .alias("fate"),
            pl.coalesce("realserver_name", "vain_text").alias("realserver_text"),
        )
        .drop("vain_text")
    )


def _told(case: Case) -> pl.DataFrame:
    """Return connections whose director said host unreachable and that ended with that."""
    errors = case.unreachables.filter(
        pl.col("says") == "host",
        pl.col("emitter") == "director",
        pl.col("quoted_sender") == "client",
    ).join(case.unanswered.select("connection"), on="connection", how="anti")
    return (
        errors.sort("first_ns", "message", nulls_last=True)
        .unique("connection", keep="first", maintain_order=True)
        .select(
            *("connection", "service_name", "method", "vip_hi", "vip_lo", "vip_port"),
            pl.col("seen_vantage").alias("vantage"),
            pl.coalesce("answered_row", "seen_row").alias("first_row"),
            pl.coalesce("answered_row", "seen_row").alias("last_row"),
            pl.lit(1, pl.UInt32).alias("repeats"),
            pl.col("quoted_ip_len").alias("tail_ip_len"),
            pl.col("quoted_syn").alias("opening"),
            pl.lit(0, pl.UInt32).alias("passed"),
            pl.col("first_ns"),
            pl.col("first_ns").alias("last_ns"),
            pl.col("seen_vantage").alias("error_vantage"),
            pl.col("seen_row").alias("error_row"),
        )
        .join(
            case.members.select(
                *("connection", "realserver_name", "realserver_hi", "realserver_lo"),
                "realserver_mac",
            ),
            on="connection",
        )
    )


def _asked_in_vain(case: Case, rows: pl.DataFrame) -> pl.DataFrame:
    """Return, per connection, ARP requests in vain that explain why its packets got nowhere.

    Those for its realserver; where that is not known, since nothing ever left, those for the only
    address that the directors asked for in vain.
    """
    directors = [
        mac for host in case.topology.hosts if host.role == "director" for mac in host.macs
    ]
    runs = case.asked_in_vain.filter(
        pl.col("requests") >= ARP_TRIES,
        pl.col("answers_seen"),
        pl.col("asker_mac").is_in(directors),
    ).select(
        pl.col("vantage").alias("vain_vantage"),
        pl.col("first_row").alias("vain_row"),
        pl.col("last_row").alias("vain_last_row"),
        pl.col("requests").alias("vain_requests"),
        pl.col("hi").alias("vain_hi"),
        pl.col("lo").alias("vain_lo"),
        pl.col("first_ns").alias("vain_first_ns"),
        pl.col("last_ns").alias("vain_last_ns"),
    )
    if runs.is_empty() or rows.is_empty():
        return pl.DataFrame(schema=_ARP)
    known = rows.filter(pl.col("realserver_lo").is_not_null()).join(
        runs,
        left_on=["realserver_hi", "realserver_lo"],
        right_on=["vain_hi", "vain_lo"],
        coalesce=False,
    )
    found = [known]
    if runs.select("vain_hi", "vain_lo").n_unique() == 1:
        stuck = rows.filter(pl.col("realserver_lo").is_null(), pl.col("passed") == 0)
        found.append(stuck.join(runs, how="cross"))
    return (
        pl.concat(found, how="diagonal")
        .filter(
            pl.col("vain_first_ns") <= pl.col("last_ns") + AROUND_NS,
            pl.col("vain_last_ns") >= pl.col("first_ns") - AROUND_NS,
        )
        .sort(
            "connection",
            ~pl.col("vain_vantage").is_in([item.index for item in case.vantages_of("director")]),
            -pl.col("vain_requests").cast(pl.Int64),
            "vain_row",
        )
        .unique("connection", keep="first", maintain_order=True)
        .select(pl.col(name).cast(dtype) for name, dtype in _ARP.items())
    )
