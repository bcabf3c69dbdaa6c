"""Each ICMP error at a director, beside all that is known of it: what contract.py judges.

One row a message and director vantage. Nothing is decided here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag.cluster.cast.macs import INITIAL_TTLS
from pcapdiag.cluster.verdicts import entries
from pcapdiag.cluster.verdicts.entries import KEY
from pcapdiag.protocols import ICMP_ERRORS_FORWARDED_BY_IPVS, ICMPV6_ERROR_LIMIT
from pcapdiag.schema import PLACES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcapdiag.cluster.connections import Connections
    from pcapdiag.cluster.coverage import Coverage
    from pcapdiag.cluster.crossings import ErrorCrossings
    from pcapdiag.cluster.topology import Topology
    from pcapdiag.flows.vantage import VantageTables

_DETAILS: Final = (
    "src_hi",
    "src_lo",
    "dst_hi",
    "dst_lo",
    "quoted_proto",
    "quoted_src_hi",
    "quoted_src_lo",
    "quoted_src_port",
    "quoted_dst_hi",
    "quoted_dst_lo",
    "quoted_dst_port",
    "quoted_df",
    "quoted_tunnel",
    "tunnel_dst_hi",
    "tunnel_dst_lo",
    "icmp_checksum",
)


def gather(
    vantages: Sequence[VantageTables],
    topology: Topology,
    connections: Connections,
    errors: ErrorCrossings,
    coverage: Coverage,
) -> pl.DataFrame:
    """Return one row per error and director vantage that it reached or left, see below."""
    directors = [index for index, role in enumerate(topology.roles) if role.role == "director"]
    sights = _detailed(vantages, errors, directors)
    table = _passed(sights)
    table = _about(table, topology, connections, errors)
    table = entries.at_realservers(table, topology, errors)
    table = entries.known(table, vantages, topology, connections, directors)
    table = entries.reissued(table, sights, errors)
    return entries.egress(table, coverage, directors)


def _detailed(
    vantages: Sequence[VantageTables], errors: ErrorCrossings, directors: Sequence[int]
) -> pl.DataFrame:
    """Return the sightings at directors with the columns of the error itself."""
    parts = [
        errors.sightings.filter(pl.col("vantage") == index).join(
            vantages[index].icmp_errors.select("row", *_DETAILS), on="row", how="left"
        )
        for index in directors
    ]
    return pl.concat(parts).sort("message", "time_ns", "row")


def _passed(sights: pl.DataFrame) -> pl.DataFrame:
    """Return how each message came in (in_ columns) and went out (out_ columns, null: it did not).

    `stray`: it was only seen on its way to a host that is none of the director's MACs. Where one
    director was captured as several vantages, it may come in at one and leave at another.
    """
    sights = _with_unclear_exits(sights)
    kept = ("row", "time_ns", "ttl", "eth_src", "eth_dst", "translated", "tunnelled", *_DETAILS)
    keys = list(KEY)
    arrived = sights.filter(pl.col("place") == "in").unique(keys, keep="first", maintain_order=True)
    left = sights.filter(pl.col("place") == "out")
    passing = (
        sights.filter(pl.col("place") == "at")
        .unique(keys, keep="first", maintain_order=True)
        .join(pl.concat([arrived, left]), on="message", how="anti")
    )
    alone = left.unique(keys, keep="first", maintain_order=True).join(
        arrived, on="message", how="anti"
    )
    incoming = pl.concat(
        [
            arrived.with_columns(pl.lit(False).alias("stray"), pl.lit(True).alias("arrived")),
            passing.with_columns(pl.lit(True).alias("stray"), pl.lit(True).alias("arrived")),
            # What leaves with an initial TTL is the director's own message, not a relayed one.
            alone.filter(~pl.col("ttl").is_in(INITIAL_TTLS)).with_columns(
                pl.lit(False).alias("stray"), pl.lit(False).alias("arrived")
            ),
        ]
    ).select(*KEY, "stray", "arrived", *(pl.col(name).alias(f"in_{name}") for name in kept))
    outgoing = left.select(
        "message",
        pl.col("vantage").alias("out_vantage"),
        *(pl.col(name).alias(f"out_{name}") for name in kept),
    )
    both = (
        incoming.join(outgoing, on="message", how="left")
        .with_columns((pl.col("vantage") != pl.col("out_vantage")).alias("elsewhere"))
        .sort(*KEY, "elsewhere", "out_time_ns", "out_row", nulls_last=True)
        .unique(keys, keep="first", maintain_order=True)
    )
    return both.with_columns(
        pl.when(pl.col("elsewhere").not_()).then("out_row").alias("out_row_here"),
        pl.col("out_row").is_not_null().alias("left"),
    )


def _with_unclear_exits(sights: pl.DataFrame) -> pl.DataFrame:
    """Call a sight "out" that must be one, though it is not known whose MAC it left from.

    It has a lower TTL, a translated quote or a tunnel header beside the sight that came in.
    """
    came = sights.filter(pl.col("place") == "in").unique(list(KEY), keep="first")
    beside = sights.join(
        came.select(
            *KEY,
            pl.col("ttl").alias("came_ttl"),
            pl.col("translated").alias("came_translated"),
            pl.col("tunnelled").alias("came_tunnelled"),
        ),
        on=list(KEY),
        how="left",
        maintain_order="left",
    )
    changed = (
        (pl.col("ttl") < pl.col("came_ttl"))
        | (pl.col("translated") != pl.col("came_translated"))
        | (pl.col("tunnelled") & ~pl.col("came_tunnelled"))
    ).fill_null(False)
    place = pl.when((pl.col("place") == "at") & changed).then(pl.lit("out", PLACES))
    return beside.with_columns(place.otherwise("place").alias("place")).drop(
        "came_ttl", "came_translated", "came_tunnelled"
    )


def _about(
    table: pl.DataFrame, topology: Topology, connections: Connections, errors: ErrorCrossings
) -> pl.DataFrame:
    """Add what the message is about: connection, service, method, realserver, `handled`."""
    messages = errors.messages.select(
        "message", "ip_version", "icmp_type", "icmp_code", "connection", "quoted_sender", "first_ns"
    )
    known = connections.connections.select(
        "connection",
        "client_hi",
        "client_lo",
        "vip_hi",
        "vip_lo",
        "vip_port",
        "realserver_hi",
        "realserver_lo",
        "realserver_port",
        "realserver_mac",
        "realserver_name",
        "ambiguous",
        pl.col("service").alias("service_of_connection"),
    )
    table = table.join(messages, on="message").join(known, on="connection", how="left")
    named = _named_services(topology)
    for side, sender in (("src", "realserver"), ("dst", "client")):
        ends = {
            f"in_quoted_{side}_hi": "hi",
            f"in_quoted_{side}_lo": "lo",
            f"in_quoted_{side}_port": "port",
            "in_quoted_proto": "ip_proto",
        }
        table = table.join(
            named.rename({"service": f"service_of_{sender}"}),
            left_on=list(ends),
            right_on=list(ends.values()),
            how="left",
            maintain_order="left",
        )
    methods = pl.DataFrame(
        [(index, item.method) for index, item in enumerate(topology.services)],
        schema={"service": pl.UInt16, "method": pl.String},
        orient="row",
    )
    version4 = pl.col("ip_version") == 4
    return (
        table.with_columns(
            pl.when(pl.col("connection").is_not_null())
            .then("service_of_connection")
            .otherwise(pl.coalesce("service_of_realserver", "service_of_client"))
            .alias("service"),
            pl.coalesce(
                pl.col("quoted_sender").cast(pl.String),
                pl.when(pl.col("service_of_realserver").is_not_null()).then(pl.lit("realserver")),
                pl.when(pl.col("service_of_client").is_not_null()).then(pl.lit("client")),
            ).alias("sender"),
            pl.when(version4)
            .then(pl.col("icmp_type").is_in(sorted(ICMP_ERRORS_FORWARDED_BY_IPVS)))
            .otherwise(pl.col("icmp_type") < ICMPV6_ERROR_LIMIT)
            .alias("handled"),
        )
        .join(methods, on="service", how="left", maintain_order="left")
        .drop("service_of_connection", "service_of_realserver", "service_of_client")
    )


def _named_services(topology: Topology) -> pl.DataFrame:
    """Return the endpoints that name one service: its VIP and, in NAT, its realservers' ports."""
    rows = [
        (index, service.ip_proto, *address, port)
        for index, service in enumerate(topology.services)
        if service.vip is not None and service.port is not None and service.method is not None
        for address, port in [
            (service.vip, service.port),
            *(sorted(service.realserver_ports) if service.method == "nat" else ()),
        ]
    ]
    named = pl.DataFrame(
        rows,
        schema={
            "service": pl.UInt16,
            "ip_proto": pl.UInt8,
            "hi": pl.UInt64,
            "lo": pl.UInt64,
            "port": pl.UInt16,
        },
        orient="row",
    )
    return named.filter(pl.len().over("ip_proto", "hi", "lo", "port") == 1)
