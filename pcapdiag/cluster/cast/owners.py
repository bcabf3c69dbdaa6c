"""Which realserver owns a connection, from everything that moved or answered its packets."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag import spool
from pcapdiag.cluster.cast import macs
from pcapdiag.cluster.cast.tunnelling import ENCAPSULATION_OF

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcapdiag.cluster.parts import Address
    from pcapdiag.cluster.topology import Topology
    from pcapdiag.flows.vantage import VantageTables

MAX_ANSWERING: Final = 4096
"""MACs outside the known cluster whose own addresses are looked up one by one."""


def find(
    vantages: Sequence[VantageTables], topology: Topology, nodes: pl.DataFrame, ends: pl.DataFrame
) -> pl.DataFrame:
    """Return per connection realserver_hi, _lo, _port, _mac, _name and whether `several` fit."""
    known = nodes.filter(~pl.col("again")).select(
        "vantage", "flow", "connection", "kind", "resp_hi", "resp_lo", "resp_port"
    )
    by_address = pl.concat(
        [
            known.filter(pl.col("kind") == "back").select(
                "connection", pl.col("resp_hi").alias("hi"), pl.col("resp_lo").alias("lo")
            ),
            _tunnel_ends(topology, known),
        ]
    )
    by_mac = pl.concat(
        [
            _sent_to(vantages, topology, known),
            _answered(topology, known),
            _arrived(vantages, topology, known),
        ]
    ).unique()
    named = _hosts_of_macs(topology, by_mac, ends)
    names = pl.DataFrame(
        [
            (*address, host.name, min(host.macs) if len(host.macs) == 1 else None)
            for host in topology.hosts
            if host.role == "realserver"
            for address in sorted(host.addresses)
            if topology.host_of_address(address) is host
        ],
        schema={"hi": pl.UInt64, "lo": pl.UInt64, "name": pl.String, "host_mac": pl.UInt64},
        orient="row",
    )
    evidence = pl.concat(
        [
            by_address.join(names, on=["hi", "lo"], how="left").select(
                "connection", "hi", "lo", pl.col("host_mac").alias("mac"), "name"
            ),
            named.select("connection", "hi", "lo", "mac", "name"),
        ]
    )
    ports = (
        known.filter(pl.col("kind") == "back")
        .group_by("connection")
        .agg(pl.col("resp_port").first().alias("realserver_port"))
    )
    address = pl.when(pl.col("lo").is_not_null()).then(pl.struct("hi", "lo").hash())
    one = (
        evidence.with_columns(address.alias("address"))
        .group_by("connection")
        .agg(
            pl.col("address").drop_nulls().n_unique().alias("addresses"),
            pl.col("mac").drop_nulls().n_unique().alias("macs"),
            pl.col("hi").drop_nulls().first().alias("realserver_hi"),
            pl.col("lo").drop_nulls().first().alias("realserver_lo"),
            pl.col("mac").drop_nulls().first().alias("realserver_mac"),
            pl.col("name").drop_nulls().first().alias("realserver_name"),
            pl.col("name").drop_nulls().n_unique().alias("names"),
        )
        .with_columns(
            (
                (pl.col("addresses") > 1)
                | (pl.col("names") > 1)
                | ((pl.col("addresses") == 0) & (pl.col("macs") > 1))
            ).alias("several"),
            pl.when(pl.col("macs") == 1).then("realserver_mac").alias("realserver_mac"),
        )
    )
    vip_ports = ends.select("connection", "vip_port")
    return (
        one.join(ports, on="connection", how="left")
        .join(vip_ports, on="connection", how="left")
        .with_columns(
            pl.when(pl.col("realserver_lo").is_not_null() | pl.col("realserver_mac").is_not_null())
            .then(pl.coalesce("realserver_port", "vip_port"))
            .alias("realserver_port")
        )
        .drop("vip_port")
    )


def _tunnel_ends(topology: Topology, known: pl.DataFrame) -> pl.DataFrame:
    """Return the outer destinations of requests: the realserver's address in LVS-TUN."""
    if topology.observed.tunnelled.is_empty():
        none = {"connection": pl.UInt32, "hi": pl.UInt64, "lo": pl.UInt64}
        return pl.DataFrame(schema=none)
    virtual = vips(topology, "tun")
    return (
        topology.observed.tunnelled.filter(
            pl.col("by_orig") & pl.col("tunnel").is_in(list(ENCAPSULATION_OF))
        )
        .join(known.join(virtual, on=["resp_hi", "resp_lo"], how="semi"), on=["vantage", "flow"])
        .select(
            "connection", pl.col("outer_dst_hi").alias("hi"), pl.col("outer_dst_lo").alias("lo")
        )
        .unique()
    )


def vips(topology: Topology, *methods: str | None) -> pl.DataFrame:
    """Return the VIPs of services with one of some methods: resp_hi, resp_lo."""
    return pl.DataFrame(
        sorted({item.vip for item in topology.services if item.vip and item.method in methods}),
        schema={"resp_hi": pl.UInt64, "resp_lo": pl.UInt64},
        orient="row",
    )


def _sent_to(
    vantages: Sequence[VantageTables], topology: Topology, known: pl.DataFrame
) -> pl.DataFrame:
    """Return the MACs that directors sent a connection's requests to, in LVS-DR."""
    realservers = [mac for mac, _ in topology.realserver_of_mac.items()]
    virtual = vips(topology, "dr")
    sent = [
        vantage.passages.lazy()
        .filter(
            (pl.col("kind") == "routed") & pl.col("by_orig") & pl.col("out_dst").is_in(realservers)
        )
        .select(pl.lit(index, pl.UInt16).alias("vantage"), "flow", pl.col("out_dst").alias("mac"))
        .unique()
        .collect(engine=spool.engine(vantage.passages))
        for index, vantage in enumerate(vantages)
    ]
    return (
        pl.concat(sent)
        .join(known.join(virtual, on=["resp_hi", "resp_lo"], how="semi"), on=["vantage", "flow"])
        .select("connection", "mac")
    )


def _answered(topology: Topology, known: pl.DataFrame) -> pl.DataFrame:
    """Return the MACs that answered a connection with an untouched TTL, directors' left out."""
    others = [
        mac for host in topology.hosts if host.role in {"director", "router"} for mac in host.macs
    ]
    return (
        topology.observed.answers.filter(~pl.col("mac").is_in(others))
        .join(known, on=["vantage", "flow"])
        .select("connection", "mac")
    )


def _arrived(
    vantages: Sequence[VantageTables], topology: Topology, known: pl.DataFrame
) -> pl.DataFrame:
    """Return the realservers in whose own captures a connection's requests arrived.

    One that only answers with RST to what never began there got packets of another's connection.
    """
    foreign = (
        ~pl.col("orig_syn").fill_null(False)
        & pl.col("resp_rst").fill_null(False)
        & ~pl.col("resp_syn").fill_null(False)
        & (pl.col("resp_data_packets").fill_null(0) == 0)
    )
    parts = [pl.DataFrame(schema={"connection": pl.UInt32, "mac": pl.UInt64})]
    for index, (vantage, role) in enumerate(zip(vantages, topology.roles, strict=True)):
        own = topology.vantage_macs[index]
        if role.role != "realserver" or not own:
            continue
        arriving = vantage.flows.filter(
            (pl.col("orig_packets") > 0)
            & ~foreign
            & ~pl.col("orig_eth_src").is_in(list(own)).fill_null(False)
            & (pl.col("orig_eth_dst").is_null() | pl.col("orig_eth_dst").is_in(list(own)))
        ).select(pl.lit(index, pl.UInt16).alias("vantage"), "flow")
        parts.append(
            arriving.join(known, on=["vantage", "flow"]).select(
                "connection", pl.lit(min(own), pl.UInt64).alias("mac")
            )
        )
    return pl.concat(parts)


def _hosts_of_macs(topology: Topology, by_mac: pl.DataFrame, ends: pl.DataFrame) -> pl.DataFrame:
    """Return connection, hi, lo, mac, name of the hosts behind MACs.

    A MAC outside the known cluster is a host of its own: the address spoken to, if that is its own
    and no other host answers for it, else its only other one.
    """
    spoken = by_mac.join(ends.select("connection", "vip_hi", "vip_lo"), on="connection")
    pairs = spoken.select("mac", "vip_hi", "vip_lo").unique().sort(pl.all()).head(MAX_ANSWERING)
    rows: list[tuple[int, int, int, int | None, int | None, str | None]] = []
    answering = Counter((high, low) for _, high, low in pairs.iter_rows())
    shared = frozenset(address for address, hosts in answering.items() if hosts > 1)
    for mac, high, low in pairs.iter_rows():
        address, name = _host_of_mac(topology, mac, (high, low), shared)
        rows.append((mac, high, low, *(address or (None, None)), name))
    hosts = pl.DataFrame(
        rows,
        schema={
            "mac": pl.UInt64,
            "vip_hi": pl.UInt64,
            "vip_lo": pl.UInt64,
            "hi": pl.UInt64,
            "lo": pl.UInt64,
            "name": pl.String,
        },
        orient="row",
    )
    return spoken.join(hosts, on=["mac", "vip_hi", "vip_lo"], how="left")


def _host_of_mac(
    topology: Topology, mac: int, spoken: Address, shared: frozenset[Address]
) -> tuple[Address | None, str | None]:
    """Return address and name of the host behind a MAC that serves `spoken`."""
    found = topology.realserver_of_mac.get(mac)
    if found is not None and (found[0] is None or macs.is_v4(found[0]) == macs.is_v4(spoken)):
        return found
    others = macs.claimed_by(topology.observed.macs, mac, spoken) - topology.virtual_addresses
    others -= shared
    name = None if found is None else found[1]
    if spoken in others:
        return spoken, name
    return (next(iter(others)) if len(others) == 1 else None), name
