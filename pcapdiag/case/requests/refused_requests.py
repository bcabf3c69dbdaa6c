"""Requests for a service that were turned away: how, by whose network card, how often."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag.protocols import IpProto

if TYPE_CHECKING:
    from pcapdiag.case.case import Case

_COMMON: Final = (
    *("connection", "how", "emitter", "emitter_by", "emitter_host", "vantage", "row"),
    "answered_row",
)


def frame(case: Case) -> pl.DataFrame:
    """Return one row per connection whose request was refused, the first refusal of each.

    Connections whose tunnel was refused, not they, are left out.

    Columns: connection; how (reset | port | prohibited, see unreachables.SAYS); emitter,
    emitter_by, emitter_host; vantage and row of the refusal, first_ns (common clock); answered_row
    (the request at that vantage; null: not seen there); refusals (how many the connection got);
    ip_version, ip_proto, client_hi, client_lo, vip_hi, vip_lo, vip_port, service_name,
    realserver_name, method; in_cluster (the address is a VIP of which more is known than that
    someone connected, or a director's or realserver's capture shows the refusal); opened (how many
    other connections of the service were answered with a SYN-ACK).
    """
    tcp = pl.col("quoted_proto") == int(IpProto.TCP)
    errors = (
        case.unreachables.filter(
            pl.col("says").is_in(["port", "prohibited"]),
            pl.col("quoted_sender") == "client",
            (tcp & pl.col("quoted_syn").fill_null(value=False))
            | (~tcp & pl.col("method").is_not_null()),
        )
        .join(case.members.select("connection", "client_hi", "client_lo"), on="connection")
        # Whoever is told, it must be the client: an error may quote anything, and go anywhere.
        .filter(pl.col("dst_hi") == pl.col("client_hi"), pl.col("dst_lo") == pl.col("client_lo"))
        .select(
            "connection",
            pl.col("says").alias("how"),
            *("emitter", "emitter_by", "emitter_host"),
            pl.col("seen_vantage").alias("vantage"),
            pl.col("seen_row").alias("row"),
            "answered_row",
        )
    )
    resets = case.resets.filter("answered_syn").select(
        *(pl.lit("reset").alias(name) if name == "how" else pl.col(name) for name in _COMMON)
    )
    # A tunnel that nobody takes is refused for its own sake, and the refusal is passed on.
    tunnel = case.unreachables.filter("about_tunnel").select("connection")
    every = pl.concat([errors, resets], how="vertical_relaxed").join(
        tunnel, on="connection", how="anti"
    )
    refusals = every.group_by("connection").len("refusals")
    rows = (
        every.sort("connection", pl.col("emitter") == "unknown", "vantage", "row")
        .unique("connection", keep="first", maintain_order=True)
        .join(refusals, on="connection")
        .join(
            case.members.select(
                *("connection", "ip_version", "ip_proto", "client_hi", "client_lo"),
                *("vip_hi", "vip_lo", "vip_port", "service_name", "realserver_name", "method"),
            ),
            on="connection",
        )
    )
    virtual = pl.DataFrame(
        sorted(case.topology.virtual_addresses),
        schema={"vip_hi": pl.UInt64, "vip_lo": pl.UInt64},
        orient="row",
    ).with_columns(pl.lit(value=True).alias("virtual"))
    members = [item.index for item in case.vantages_of("director", "realserver")]
    return (
        case.with_times(rows, "first_ns")
        .join(virtual, on=["vip_hi", "vip_lo"], how="left", maintain_order="left")
        .with_columns(
            (pl.col("virtual").fill_null(value=False) | pl.col("vantage").is_in(members)).alias(
                "in_cluster"
            )
        )
        .drop("virtual")
        .join(_opened(case), on="service_name", how="left", maintain_order="left")
        .with_columns(pl.col("opened").fill_null(0))
        .sort("first_ns", "connection", nulls_last=True)
    )


def _opened(case: Case) -> pl.DataFrame:
    """Return per service how many connections were answered with a SYN-ACK somewhere."""
    parts = [
        vantage.flows.lazy()
        .filter("resp_syn")
        .select("flow")
        .join(case.connections.legs.lazy().filter(pl.col("vantage") == vantage.index), on="flow")
        .select("connection")
        for vantage in case.vantages
    ]
    return (
        pl.concat(pl.collect_all(parts))
        .unique()
        .join(case.members.select("connection", "service_name"), on="connection")
        .group_by("service_name")
        .agg(pl.len().alias("opened"))
    )
