"""Where and when packets of a service are seen to leave a director towards its realservers."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import polars as pl

from pcapdiag import spool

if TYPE_CHECKING:
    from pcapdiag.cluster.topology import Topology
    from pcapdiag.flows.vantage import VantageTables


def leaving(vantage: VantageTables, topology: Topology) -> list[tuple[int, int, frozenset[int]]]:
    """Return (service, packets, captures) of what leaves a director towards realservers.

    In NAT that is what goes to a realserver's translated port, else what was passed on.
    """
    flows = vantage.flows.select("flow", "ip_proto", "resp_hi", "resp_lo", "resp_port")
    ends = _ends(topology, flows.schema)
    address = ["ip_proto", "resp_hi", "resp_lo"]
    counted = [
        pl.DataFrame(
            schema={
                "service": pl.UInt16,
                "capture": pl.UInt16,
                "packets": pl.UInt32,
            }
        )
    ]
    for nat in (True, False):
        mine = ends.filter(pl.col("nat") == nat)
        if mine.is_empty():
            continue
        rows = _sent(vantage) if nat else _passed_on(vantage)
        exact = flows.join(mine, on=[*address, "resp_port"])
        whole = flows.join(mine.filter(pl.col("resp_port").is_null()), on=address)
        counted += [
            part.select("flow", "service").join(rows, on="flow").select(counted[0].columns)
            for part in (exact, whole)
            if part.height
        ]
    seen = (
        pl.concat(counted)
        .group_by("service")
        .agg(pl.col("packets").sum(), pl.col("capture").unique())
        .sort("service")
    )
    return [(service, packets, frozenset(used)) for service, packets, used in seen.iter_rows()]


def _sent(vantage: VantageTables) -> pl.DataFrame:
    """Return how many packets of each flow's originator a vantage holds: flow, capture, packets."""
    return (
        vantage.packets.lazy()
        .filter(pl.col("flow").is_not_null() & pl.col("by_orig"))
        .group_by("flow", "capture")
        .agg(pl.len().alias("packets"))
        .collect(engine=spool.engine(vantage.packets))
    )


def _passed_on(vantage: VantageTables) -> pl.DataFrame:
    """Return how many of them left the host again: flow, capture, packets."""
    return (
        vantage.passages.lazy()
        .filter(pl.col("by_orig") & pl.col("kind").is_in(["routed", "encapsulated"]))
        .group_by("flow", pl.col("out_capture").alias("capture"))
        .agg(pl.len().alias("packets"))
        .collect(engine=spool.engine(vantage.passages))
    )


def _ends(topology: Topology, schema: pl.Schema) -> pl.DataFrame:
    """Return the server endpoints by which each service's packets leave a director."""
    rows: list[tuple[int, int, int, int, int | None, bool]] = []
    for number, service in enumerate(topology.services):
        if service.method == "nat":
            rows += [
                (number, service.ip_proto, *rip, port, True)
                for rip, port in sorted(service.realserver_ports)
            ]
        elif service.method is not None and service.vip is not None:
            rows.append((number, service.ip_proto, *service.vip, service.port, False))
    return pl.DataFrame(
        rows,
        schema={
            "service": pl.UInt16,
            **{name: schema[name] for name in ("ip_proto", "resp_hi", "resp_lo", "resp_port")},
            "nat": pl.Boolean,
        },
        orient="row",
    )


def common_span(vantage: VantageTables, captures: frozenset[int]) -> tuple[int | None, int | None]:
    """Return from when until when all of some captures of a vantage were running."""
    spans = [
        (info.first_ns, info.last_ns)
        for info, capture in zip(vantage.captures, vantage.capture_ids, strict=True)
        if capture in captures and info.first_ns is not None and info.last_ns is not None
    ]
    if not spans:
        return None, None
    if _one_after_another(spans):
        return min(item[0] for item in spans), max(item[1] for item in spans)
    return max(item[0] for item in spans), min(item[1] for item in spans)


def _one_after_another(spans: list[tuple[int, int]]) -> bool:
    """Whether captures follow each other as the files of one ring do."""
    ordered = sorted(spans)
    return len(ordered) > 1 and all(
        before[1] <= after[0] for before, after in itertools.pairwise(ordered)
    )
