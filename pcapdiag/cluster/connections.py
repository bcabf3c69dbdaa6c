"""Connections: a client and the realserver that serves it, with the flows that carry it.

Flows become legs of one connection where they share packets (links.py). The realserver follows from
what moved the packets: the translated address, the tunnel's end, the MAC a director sent to, the
MAC that answered with an untouched TTL, the capture it arrived in. Where these name two, it is
ambiguous.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag.cluster.cast import owners
from pcapdiag.cluster.joined import states
from pcapdiag.cluster.orientation import oriented
from pcapdiag.schema import LEG_KINDS, conform

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcapdiag.cluster.clock import Clocks
    from pcapdiag.cluster.topology import Topology
    from pcapdiag.flows.vantage import VantageTables

_SOURCES: Final = pl.Enum(["syn", "syn-ack", "port", "first"])
"""originator_source, best first: the leg that knows best says who the client is."""

_SERVER: Final = ("ip_proto", "resp_hi", "resp_lo", "resp_port")


@dataclass(frozen=True)
class Connections:
    """connections: schema CONNECTIONS. legs: schema LEGS. notes: one sentence each."""

    connections: pl.DataFrame
    legs: pl.DataFrame
    notes: tuple[str, ...]


def join(vantages: Sequence[VantageTables], topology: Topology, clocks: Clocks) -> Connections:
    """Return the client connections of all vantages, without directors' own (health checks)."""
    vantages = oriented(vantages)
    observed = topology.observed
    nodes = _turned(
        observed.links.nodes.with_columns(pl.Series("group", observed.links.group)), topology
    )
    own = pl.DataFrame(
        sorted(topology.director_addresses),
        schema={"orig_hi": pl.UInt64, "orig_lo": pl.UInt64},
        orient="row",
    )
    checks = nodes.join(own, on=["orig_hi", "orig_lo"], how="semi").select("group").unique()
    nodes = nodes.join(checks, on="group", how="anti")
    nodes = _kinds(nodes, topology).with_columns(
        (pl.col("group").rank("dense") - 1).cast(pl.UInt32).alias("connection")
    )
    ends = _ends(nodes, topology)
    legs = _legs(nodes, ends)
    realservers = owners.find(vantages, topology, nodes, ends)
    times = _times(nodes, clocks)
    two = states.bridged(vantages, legs, clocks).with_columns(pl.lit(True).alias("bridged"))
    table = (
        ends.join(realservers, on="connection", how="left")
        .join(times, on="connection", how="left")
        .join(states.find(vantages, legs, clocks), on="connection", how="left")
        .join(two, on="connection", how="left")
        .with_columns(
            pl.any_horizontal(pl.col("unclear", "several", "bridged").fill_null(False)).alias(
                "ambiguous"
            )
        )
    )
    hidden = [
        pl.when(pl.col("ambiguous")).then(None).otherwise(pl.col(name)).alias(name)
        for name in (
            "realserver_hi",
            "realserver_lo",
            "realserver_port",
            "realserver_mac",
            "realserver_name",
        )
    ]
    table = states.earlier(table.with_columns(hidden))
    notes = []
    ambiguous = table.get_column("ambiguous").sum()
    if ambiguous:
        notes.append(
            f"{ambiguous} connections were seen at more than one realserver; none of them"
            " was chosen"
        )
    return Connections(conform(table, "connections"), conform(legs, "legs"), tuple(notes))


def _turned(nodes: pl.DataFrame, topology: Topology) -> pl.DataFrame:
    """Turn round the flows whose guessed originator is a VIP or a realserver's translated port.

    Guessed means by ports or by who was seen first: a traceroute's probe has the higher port at
    the VIP, and many clients may come from one address. `turned` tells it.
    """
    vips = owners.vips(topology, "nat", "dr", "tun")
    backs = _translated_ports(topology, nodes.schema)
    sides = {
        side: pl.any_horizontal(
            pl.struct(f"{side}_hi", f"{side}_lo").is_in(_structs(vips, side, "hi", "lo")),
            pl.struct("ip_proto", f"{side}_hi", f"{side}_lo", f"{side}_port").is_in(
                _structs(backs, side, "hi", "lo", "port")
            ),
        )
        for side in ("orig", "resp")
    }
    guessed = pl.col("originator_source").is_in(["port", "first"])
    marked = nodes.with_columns((sides["orig"] & ~sides["resp"] & guessed).alias("again"))
    pairs = [(f"orig_{part}", f"resp_{part}") for part in ("hi", "lo", "port")]
    pairs.append(("client", "server"))
    return marked.with_columns(
        pl.col("turned") != pl.col("again"),
        *(
            pl.when("again").then(other).otherwise(one).alias(one)
            for left, right in pairs
            for one, other in ((left, right), (right, left))
        ),
    )


def _kinds(nodes: pl.DataFrame, topology: Topology) -> pl.DataFrame:
    """Add `kind` (LEG_KINDS): a flow to a realserver's translated port is a back leg."""
    backs = _translated_ports(topology, nodes.schema)
    marked = nodes.join(
        backs.with_columns(pl.lit(True).alias("behind")),
        on=_SERVER,
        how="left",
        maintain_order="left",
    )
    kind = (
        pl.when(pl.col("behind"))
        .then(pl.lit("back", LEG_KINDS))
        .otherwise(pl.lit("front", LEG_KINDS))
    )
    return marked.with_columns(kind.alias("kind")).drop("behind")


def _translated_ports(topology: Topology, schema: pl.Schema) -> pl.DataFrame:
    """Return the realservers' ports behind the translation of NAT, as columns _SERVER."""
    return pl.DataFrame(
        [
            (service.ip_proto, *address, port)
            for service in topology.services
            if service.method == "nat"
            for address, port in sorted(service.realserver_ports)
        ],
        schema={name: schema[name] for name in _SERVER},
        orient="row",
    ).unique()


def _structs(ends: pl.DataFrame, side: str, *parts: str) -> pl.Series:
    """Return the endpoints of a table with resp_ columns as structs of a side's columns."""
    kept = [name for name in ("ip_proto",) if name in ends.columns]
    renamed = ends.rename({f"resp_{part}": f"{side}_{part}" for part in parts})
    return renamed.select(*kept, *(f"{side}_{part}" for part in parts)).to_struct().implode()


def _ends(nodes: pl.DataFrame, topology: Topology) -> pl.DataFrame:
    """Return client, VIP and service of each connection.

    The server that the client spoke to is that of the front leg. Where no front leg was seen, it
    is the VIP of the only service the realserver's port belongs to, unless a director was
    captured: it would have shown a front leg, so that the client spoke to the realserver itself.
    """
    best = (
        nodes.with_columns(pl.col("originator_source").cast(pl.String).cast(_SOURCES).to_physical())
        .sort("connection", "kind", "originator_source", "vantage", "node")
        .group_by("connection", maintain_order=True)
        .agg(
            pl.col(name).first()
            for name in (
                "ip_version",
                "ip_proto",
                "orig_hi",
                "orig_lo",
                "orig_port",
                "resp_hi",
                "resp_lo",
                "resp_port",
                "kind",
            )
        )
    )
    unclear = (
        nodes.group_by("connection")
        .agg(
            (pl.len() != pl.struct("vantage", "tuple").n_unique()).alias("twice"),
            pl.col("server").filter(pl.col("kind") == "back").n_unique().alias("backs"),
            pl.col("tuple").filter(pl.col("kind") == "front").n_unique().alias("fronts"),
        )
        .select(
            "connection",
            (pl.col("twice") | (pl.col("backs") > 1) | (pl.col("fronts") > 1)).alias("unclear"),
        )
    )
    ends = best.join(unclear, on="connection")
    if not any(role.role == "director" for role in topology.roles):
        ends = _behind(ends, topology)
    ends = ends.rename(
        {
            "orig_hi": "client_hi",
            "orig_lo": "client_lo",
            "orig_port": "client_port",
            "resp_hi": "vip_hi",
            "resp_lo": "vip_lo",
            "resp_port": "vip_port",
        }
    )
    return _with_service(ends, topology)


def _behind(ends: pl.DataFrame, topology: Topology) -> pl.DataFrame:
    """Replace a realserver's port by the VIP of the only NAT service it belongs to."""
    rows = [
        (service.ip_proto, *address, port, *service.vip, service.port)
        for service in topology.services
        if service.method == "nat" and service.vip and service.port is not None
        for address, port in sorted(service.realserver_ports)
    ]
    fronts = pl.DataFrame(
        rows,
        schema={name: ends.schema[name] for name in _SERVER}
        | {"front_hi": pl.UInt64, "front_lo": pl.UInt64, "front_port": pl.UInt16},
        orient="row",
    )
    single = fronts.filter(pl.len().over(_SERVER) == 1)
    found = ends.join(single, on=_SERVER, how="left", maintain_order="left")
    return found.with_columns(
        pl.coalesce("front_hi", "resp_hi").alias("resp_hi"),
        pl.coalesce("front_lo", "resp_lo").alias("resp_lo"),
        pl.coalesce("front_port", "resp_port").alias("resp_port"),
    ).drop("front_hi", "front_lo", "front_port")


def _with_service(ends: pl.DataFrame, topology: Topology) -> pl.DataFrame:
    """Add service, method and encapsulation: by protocol, VIP and port, then by VIP alone."""
    listed = pl.DataFrame(
        [
            (index, item.ip_proto, *item.vip, item.port, item.method, item.encapsulation)
            for index, item in enumerate(topology.services)
            if item.vip is not None
        ],
        schema={
            "service": pl.UInt16,
            "ip_proto": pl.UInt8,
            "vip_hi": pl.UInt64,
            "vip_lo": pl.UInt64,
            "vip_port": pl.UInt16,
            "method": pl.String,
            "encapsulation": pl.String,
        },
        orient="row",
    )
    facts = ("service", "method", "encapsulation")
    exact = listed.filter(pl.col("vip_port").is_not_null())
    whole = listed.filter(pl.col("vip_port").is_null()).drop("vip_port")
    whole = whole.rename({name: f"any_{name}" for name in facts})
    return (
        ends.join(
            exact.unique(["ip_proto", "vip_hi", "vip_lo", "vip_port"], keep="first"),
            on=["ip_proto", "vip_hi", "vip_lo", "vip_port"],
            how="left",
            maintain_order="left",
        )
        .join(
            whole.unique(["ip_proto", "vip_hi", "vip_lo"], keep="first"),
            on=["ip_proto", "vip_hi", "vip_lo"],
            how="left",
            maintain_order="left",
        )
        .with_columns(
            pl.when(pl.col("service").is_null()).then(f"any_{name}").otherwise(name).alias(name)
            for name in facts
        )
    )


def _legs(nodes: pl.DataFrame, ends: pl.DataFrame) -> pl.DataFrame:
    """Return the legs; `client_is_orig` is false where a vantage took the server for the client."""
    return (
        nodes.join(
            ends.select("connection", "client_hi", "client_lo", "client_port"), on="connection"
        )
        .select(
            "connection",
            "vantage",
            "flow",
            "kind",
            (
                pl.col("turned")
                != (
                    (pl.col("orig_hi") == pl.col("client_hi"))
                    & (pl.col("orig_lo") == pl.col("client_lo"))
                    & (pl.col("orig_port") == pl.col("client_port"))
                )
            ).alias("client_is_orig"),
        )
        .sort("connection", "vantage", "flow")
    )


def _times(nodes: pl.DataFrame, clocks: Clocks) -> pl.DataFrame:
    """Return first_ns and last_ns on the common clock, of the vantages that are on it."""
    parts = [
        nodes.filter(pl.col("vantage") == index).select(
            "connection",
            clocks.common_time(index, "first_ns").alias("first_ns"),
            clocks.common_time(index, "last_ns").alias("last_ns"),
            pl.lit(offset is not None).alias("aligned"),
        )
        for index, offset in enumerate(clocks.offset_ns)
    ]
    first, last = pl.col("first_ns"), pl.col("last_ns")
    return (
        pl.concat(parts)
        .group_by("connection")
        .agg(
            pl.coalesce(first.filter("aligned").min(), first.min()).alias("first_ns"),
            pl.coalesce(last.filter("aligned").max(), last.max()).alias("last_ns"),
        )
    )
