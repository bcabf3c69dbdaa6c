"""The arrows of the cluster figure: who hands packets of the services to whom, by host name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from pcapdiag.cluster.parts import EdgeInfo

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pcapdiag.cluster.cast.observed import Observed
    from pcapdiag.cluster.parts import Address, HostInfo, ServiceInfo
    from pcapdiag.flows.vantage import VantageTables

_ROW = {"source": pl.UInt64, "target": pl.UInt64, "label": pl.String, "packets": pl.UInt32}


def find(
    vantages: Sequence[VantageTables],
    observed: Observed,
    hosts: Iterable[HostInfo],
    services: Iterable[ServiceInfo],
) -> tuple[EdgeInfo, ...]:
    """Return the arrows between named hosts, busiest first.

    A hop that two vantages saw counts as the one saw it that saw more.
    """
    by_mac = {mac: host.name for host in hosts for mac in host.macs}
    by_address = {address: host.name for host in hosts for address in host.addresses if host.macs}
    ends, backs = _ends(services)
    seen = pl.concat(
        [
            *(_hops(vantage, index, ends, backs) for index, vantage in enumerate(vantages)),
            observed.paths.filter(pl.col("kind") == "routed")
            .join(ends, on=list(ends.columns), how="semi")
            .select(
                "vantage",
                pl.col("out_src").alias("source"),
                pl.col("out_dst").alias("target"),
                pl.lit("forwarded").alias("label"),
                "packets",
            ),
        ]
    )
    counted = _most(seen)
    found: dict[tuple[str, str, str], int] = {}
    for source, target, label, packets in counted.iter_rows():
        one, other = by_mac.get(source), by_mac.get(target)
        if one is not None and other is not None and one != other:
            key = (one, other, label)
            found[key] = found.get(key, 0) + packets
    for source, address, packets in _tunnels(observed, ends):
        one, other = by_mac.get(source), by_address.get(address, _name_of(hosts, address))
        if one is not None and other is not None and one != other:
            key = (one, other, "tunnelled")
            found[key] = max(found.get(key, 0), packets)
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return tuple(EdgeInfo(*names, packets) for names, packets in ordered)


def _ends(services: Iterable[ServiceInfo]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the VIPs of the services, and the realservers' addresses behind a translation."""
    fronts: set[Address] = set()
    backs: set[Address] = set()
    for service in services:
        if service.vip is not None and (service.method or service.realservers):
            fronts.add(service.vip)
        if service.method == "nat":
            backs |= service.realservers
    schema = {"resp_hi": pl.UInt64, "resp_lo": pl.UInt64}
    return (
        pl.DataFrame(sorted(fronts), schema=schema, orient="row"),
        pl.DataFrame(sorted(backs), schema=schema, orient="row"),
    )


def _hops(
    vantage: VantageTables, index: int, fronts: pl.DataFrame, backs: pl.DataFrame
) -> pl.DataFrame:
    """Return the first hop of each flow's packets at a vantage, both directions."""
    parts = [pl.LazyFrame(schema={"vantage": pl.UInt16, **_ROW})]
    for ends, request in ((fronts, "requests"), (backs, "translated")):
        if ends.is_empty():
            continue
        flows = (
            vantage.flows.lazy()
            .filter(pl.col("tunnel").is_null())
            .join(ends.lazy(), on=["resp_hi", "resp_lo"], how="semi")
        )
        for side, label in (("orig", request), ("resp", "answers")):
            parts.append(
                flows.select(
                    pl.lit(index, pl.UInt16).alias("vantage"),
                    pl.col(f"{side}_eth_src").alias("source"),
                    pl.col(f"{side}_eth_dst").alias("target"),
                    pl.lit(label).alias("label"),
                    pl.col(f"{side}_packets").alias("packets"),
                )
            )
    return pl.concat(parts).collect()


def _most(seen: pl.DataFrame) -> pl.DataFrame:
    """Return source, target, label and the packets of the vantage that saw most of them."""
    known = seen.filter(pl.col("source").is_not_null() & pl.col("target").is_not_null())
    hop = ["source", "target", "label"]
    return (
        known.group_by("vantage", *hop)
        .agg(pl.col("packets").sum())
        .group_by(hop)
        .agg(pl.col("packets").max())
        .sort(hop)
        .select([*hop, "packets"])
        .cast({name: dtype for name, dtype in _ROW.items() if name != "packets"})
    )


def _tunnels(observed: Observed, ends: pl.DataFrame) -> Iterable[tuple[int, tuple[int, int], int]]:
    """Yield who wrapped packets for which tunnel end, and how many."""
    counted = (
        observed.paths.filter((pl.col("kind") == "encapsulated") & pl.col("out_src").is_not_null())
        .join(ends, on=["resp_hi", "resp_lo"], how="semi")
        .group_by("out_src", "outer_dst_hi", "outer_dst_lo")
        .agg(pl.col("packets").sum())
        .sort(pl.all())
    )
    for source, high, low, packets in counted.iter_rows():
        yield source, (high, low), packets


def _name_of(hosts: Iterable[HostInfo], address: tuple[int, int]) -> str | None:
    """Return the name of the host with an address."""
    return next((host.name for host in hosts if address in host.addresses), None)
