"""Each ICMP error at a director, beside all that is known of it: what contract.py judges.

One row a message and director vantage. Nothing is decided here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag.cluster.coverage import MARGIN_NS
from pcapdiag.cluster.macs import INITIAL_TTLS
from pcapdiag.protocols import ICMP_ERRORS_FORWARDED_BY_IPVS, ICMPV6_ERROR_LIMIT
from pcapdiag.schema import PLACES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcapdiag.cluster.connections import Connections
    from pcapdiag.cluster.coverage import Coverage
    from pcapdiag.cluster.crossings import ErrorCrossings
    from pcapdiag.cluster.topology import Topology
    from pcapdiag.flows.vantage import VantageTables

REISSUE_NS: Final = 1_000_000_000
"""An answer made of a tunnel error leaves within microseconds; a later one has another cause."""

NOTABLE_LOSS: Final = 0.01
"""Share of missing packets from which a capture counts as one that drops, whatever it counted."""

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

_KEY: Final = ("message", "vantage")


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
    table = _at_realservers(table, topology, errors)
    table = _entries(table, vantages, topology, connections, directors)
    table = _reissued(table, sights, errors)
    return _egress(table, coverage, directors)


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
    keys = list(_KEY)
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
    ).select(*_KEY, "stray", "arrived", *(pl.col(name).alias(f"in_{name}") for name in kept))
    outgoing = left.select(
        "message",
        pl.col("vantage").alias("out_vantage"),
        *(pl.col(name).alias(f"out_{name}") for name in kept),
    )
    both = (
        incoming.join(outgoing, on="message", how="left")
        .with_columns((pl.col("vantage") != pl.col("out_vantage")).alias("elsewhere"))
        .sort(*_KEY, "elsewhere", "out_time_ns", "out_row", nulls_last=True)
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
    came = sights.filter(pl.col("place") == "in").unique(list(_KEY), keep="first")
    beside = sights.join(
        came.select(
            *_KEY,
            pl.col("ttl").alias("came_ttl"),
            pl.col("translated").alias("came_translated"),
            pl.col("tunnelled").alias("came_tunnelled"),
        ),
        on=list(_KEY),
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


def _at_realservers(
    table: pl.DataFrame, topology: Topology, errors: ErrorCrossings
) -> pl.DataFrame:
    """Add seen_right and seen_wrong: it came in at the owning realserver, or at another one."""
    names = {
        index: role.name for index, role in enumerate(topology.roles) if role.role == "realserver"
    }
    seen = errors.sightings.filter(
        pl.col("vantage").is_in(list(names)) & (pl.col("place") == "in")
    ).select(
        "message",
        pl.col("vantage").replace_strict(names, return_dtype=pl.String).alias("seen_at")
        if names
        else pl.lit(None, pl.String).alias("seen_at"),
    )
    owner = table.select("message", "realserver_name").unique("message")
    judged = (
        seen.join(owner, on="message")
        .group_by("message")
        .agg(
            (pl.col("seen_at") == pl.col("realserver_name")).any().alias("seen_right"),
            (pl.col("seen_at") != pl.col("realserver_name")).any().alias("seen_wrong"),
        )
    )
    return table.join(judged, on="message", how="left", maintain_order="left").with_columns(
        pl.col("seen_right", "seen_wrong").fill_null(False)
    )


def _entries(
    table: pl.DataFrame,
    vantages: Sequence[VantageTables],
    topology: Topology,
    connections: Connections,
    directors: Sequence[int],
) -> pl.DataFrame:
    """Add what the director's connection table must have held.

    `relayed`: packets of the connection were seen to be forwarded by a director; `answering`:
    replies were seen to
    leave it (NAT); `quiet_ns`: how long the connection had been quiet before the error,
    `closed_by` and `ip_proto`.
    """
    legs = connections.legs.filter(pl.col("vantage").is_in(list(directors)))
    passed = topology.observed.passages.filter(pl.col("by_orig")).select("vantage", "flow").unique()
    moved = legs.join(passed, on=["vantage", "flow"], how="semi").select("connection")
    behind = legs.filter(pl.col("kind") == "back").select("connection")
    # One director captured as two vantages shows a forwarded connection at both of them.
    twice = (
        legs.group_by("connection")
        .agg(pl.col("vantage").n_unique().alias("seen"))
        .filter(pl.col("seen") > 1)
        .select("connection")
    )
    relayed = pl.concat([moved, behind, twice]).unique().with_columns(pl.lit(True).alias("relayed"))
    flows = [
        vantages[index].flows.select(
            pl.lit(index, pl.UInt16).alias("vantage"),
            "flow",
            "ip_proto",
            pl.col("first_ns").alias("flow_first_ns"),
            pl.col("last_ns").alias("flow_last_ns"),
            "idle_ns",
            "idle_end_ns",
            "closed_by",
            "resp_packets",
        )
        for index in directors
    ]
    fronts = legs.filter(pl.col("kind") == "front").join(pl.concat(flows), on=["vantage", "flow"])
    answering = fronts.group_by("connection").agg(
        (pl.col("resp_packets") > 0).any().alias("answering")
    )
    here = fronts.unique(["vantage", "connection"], keep="last", maintain_order=True).drop(
        "flow", "kind", "client_is_orig", "resp_packets"
    )
    error = pl.col("in_time_ns")
    paused = (error < pl.col("idle_end_ns")) & (error > pl.col("idle_end_ns") - pl.col("idle_ns"))
    return (
        table.join(relayed, on="connection", how="left", maintain_order="left")
        .join(answering, on="connection", how="left", maintain_order="left")
        .join(here, on=["vantage", "connection"], how="left", maintain_order="left")
        .with_columns(
            pl.col("relayed", "answering").fill_null(False),
            pl.when(paused.fill_null(False))
            .then(error - (pl.col("idle_end_ns") - pl.col("idle_ns")))
            .otherwise((error - pl.col("flow_last_ns")).clip(0))
            .alias("quiet_ns"),
            (error > pl.col("flow_last_ns")).alias("afterwards"),
        )
    )


def _reissued(table: pl.DataFrame, sights: pl.DataFrame, errors: ErrorCrossings) -> pl.DataFrame:
    """Add reissued_row: the director's own error that a tunnel error was made into."""
    made = sights.filter((pl.col("place") == "out") & pl.col("quoted_tunnel").is_null())
    made = made.join(
        errors.messages.select("message", "connection", "quoted_sender", "icmp_type", "icmp_code"),
        on="message",
    ).filter((pl.col("quoted_sender") == "client") & pl.col("connection").is_not_null())
    pairs = (
        table.filter(pl.col("in_quoted_tunnel").is_not_null())
        .select(*_KEY, "connection", "icmp_type", "icmp_code", "in_time_ns")
        .join(
            made.select("vantage", "connection", "icmp_type", "icmp_code", "row", "time_ns"),
            on=["vantage", "connection", "icmp_type", "icmp_code"],
        )
        .filter((pl.col("time_ns") - pl.col("in_time_ns")).is_between(0, REISSUE_NS))
        .sort(*_KEY, "time_ns")
        .unique(list(_KEY), keep="first", maintain_order=True)
        .select(*_KEY, pl.col("row").alias("reissued_row"))
    )
    return table.join(pairs, on=list(_KEY), how="left", maintain_order="left")


def _egress(table: pl.DataFrame, coverage: Coverage, directors: Sequence[int]) -> pl.DataFrame:
    """Add visible (the service is seen leaving), lasting (long enough after) and intact."""
    spans = coverage.egress_spans
    clocks = coverage.clocks
    parts = []
    for index in directors:
        for at in directors:
            offsets = clocks.offset_ns[index], clocks.offset_ns[at]
            if index == at:
                shift = 0
            elif offsets[0] is None or offsets[1] is None:
                continue
            else:
                shift = offsets[1] - offsets[0]
            loss = coverage.loss(at)
            share = loss.missing / loss.expected if loss.expected else 0.0
            parts.append(
                spans.filter(pl.col("vantage") == at).select(
                    pl.lit(index, pl.UInt16).alias("vantage"),
                    "service",
                    (pl.col("from_ns") + shift).alias("egress_from_ns"),
                    (pl.col("until_ns") + shift).alias("egress_until_ns"),
                    pl.lit(not loss.dropped and share < NOTABLE_LOSS).alias("intact"),
                    pl.lit(index == at).alias("here"),
                )
            )
    seen = (
        pl.concat(parts)
        .sort("vantage", "service", "here", descending=[False, False, True])
        .unique(["vantage", "service"], keep="first", maintain_order=True)
    )
    time = pl.col("in_time_ns")
    return (
        table.join(seen, on=["vantage", "service"], how="left", maintain_order="left")
        .with_columns(
            pl.col("egress_from_ns").is_not_null().alias("visible"),
            (
                (time >= pl.col("egress_from_ns")) & (time + MARGIN_NS <= pl.col("egress_until_ns"))
            ).alias("lasting"),
            pl.col("intact").fill_null(False),
        )
        .with_columns(pl.col("lasting").fill_null(False))
    )
