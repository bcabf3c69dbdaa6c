"""What all vantages together show, before anyone is given a role."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from pcapdiag import spool
from pcapdiag.cluster.cast import ends, macs
from pcapdiag.cluster.clocks import delays
from pcapdiag.cluster.matching import links

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcapdiag.flows.vantage import VantageTables

_SERVER = ("ip_proto", "resp_hi", "resp_lo", "resp_port")


@dataclass(frozen=True)
class Observed:
    """Tables about flows of all vantages; `vantage` is UInt16 everywhere.

    links: which flows carry the same packets.
    shared: those packets, a sample of them.
    macs: link layers; whose capture it is settled as far as all vantages together tell.
    forwarded: sides of flows that were passed on: vantage, flow, by_orig, packets.
    paths: passages counted by server endpoint and way: vantage, ip_proto, resp_*, by_orig, kind,
    tunnel, in_src,
        in_dst, out_src, out_dst, outer_src_*, outer_dst_*, packets, flows.
    answers: vantage, flow, mac, packets (macs.answers).
    spread, tunnel_spread: server addresses whose connections go to several hosts side by side, by
    MAC
        (vantage, out_src, resp_hi, resp_lo) and by tunnel end (resp_hi, resp_lo).
    tunnelled: flows seen inside a tunnel: vantage, flow, by_orig, tunnel, outer_src_*,
    outer_dst_*, eth_src,
        eth_dst, packets; first sights and others.
    """

    links: links.Links
    shared: delays.Shared
    macs: macs.Macs
    forwarded: pl.DataFrame
    paths: pl.DataFrame
    answers: pl.DataFrame
    tunnelled: pl.DataFrame
    spread: pl.DataFrame
    tunnel_spread: pl.DataFrame


def observe(vantages: Sequence[VantageTables]) -> Observed:
    """Return what the vantages show."""
    joined = links.find(vantages)
    shared = delays.shared(vantages, joined)
    tunnelled = pl.concat(
        [
            _tunnelled(vantage).select(pl.lit(index, pl.UInt16).alias("vantage"), pl.all())
            for index, vantage in enumerate(vantages)
            if vantage.tunnels.height or not index
        ]
    )
    outer = pl.struct("outer_dst_hi", "outer_dst_lo")
    return Observed(
        links=joined,
        shared=shared,
        macs=ends.settled(vantages, macs.find(vantages), shared),
        forwarded=pl.concat([_forwarded(vantage, index) for index, vantage in enumerate(vantages)]),
        paths=pl.concat(
            [_paths(vantage, index, joined.nodes) for index, vantage in enumerate(vantages)]
        ).sort(pl.all()),
        answers=pl.concat(
            [
                macs.answers(vantage).select(pl.lit(index, pl.UInt16).alias("vantage"), pl.all())
                for index, vantage in enumerate(vantages)
            ]
        ),
        tunnelled=tunnelled,
        spread=_spread(
            pl.concat([_routed(vantage, index) for index, vantage in enumerate(vantages)]),
            joined.nodes,
            ["vantage", "out_src"],
        ),
        tunnel_spread=_spread(
            tunnelled.filter("by_orig").select("vantage", "flow", outer.alias("target")),
            joined.nodes,
            [],
        ),
    )


def _spread(ways: pl.DataFrame, nodes: pl.DataFrame, place: list[str]) -> pl.DataFrame:
    """Return the server addresses whose connections keep to one of several targets each.

    All connections moving from one target to another is no spread: a router does that when its
    next hop fails. The times in which connections to two of the targets begin must overlap.
    """
    where = [*place, "resp_hi", "resp_lo"]
    return (
        ways.lazy()
        .filter(pl.col("target").is_not_null())
        .unique()
        .filter(pl.len().over("vantage", "flow") == 1)
        .join(
            nodes.lazy().select("vantage", "flow", "resp_hi", "resp_lo", "first_ns"),
            on=["vantage", "flow"],
        )
        .group_by(*where, "target")
        .agg(pl.col("first_ns").min().alias("first"), pl.col("first_ns").max().alias("last"))
        .sort("first")
        .group_by(where)
        .agg((pl.col("first") < pl.col("last").cum_max().shift(1)).any().alias("together"))
        .filter("together")
        .select(where)
        .collect()
    )


def _forwarded(vantage: VantageTables, index: int) -> pl.DataFrame:
    """Return how many packets of which flows a vantage passed on, see Observed.forwarded."""
    return (
        vantage.passages.lazy()
        .group_by("flow", "by_orig")
        .agg(pl.len().alias("packets"))
        .select(pl.lit(index, pl.UInt16).alias("vantage"), pl.all())
        .collect(engine=spool.engine(vantage.passages))
    )


def _routed(vantage: VantageTables, index: int) -> pl.DataFrame:
    """Return by which MACs requests were routed: vantage, flow, out_src, target (a MAC)."""
    return (
        vantage.passages.lazy()
        .filter(pl.col("by_orig") & (pl.col("kind") == "routed"))
        .select(
            pl.lit(index, pl.UInt16).alias("vantage"),
            "flow",
            "out_src",
            pl.col("out_dst").alias("target"),
        )
        .unique()
        .collect(engine=spool.engine(vantage.passages))
    )


def _paths(vantage: VantageTables, index: int, nodes: pl.DataFrame) -> pl.DataFrame:
    """Return passages at a vantage counted by server endpoint and way, see Observed.paths."""
    servers = nodes.lazy().filter(pl.col("vantage") == index).select("vantage", "flow", *_SERVER)
    return (
        vantage.passages.lazy()
        .join(servers, on="flow")
        .group_by(
            "vantage",
            *_SERVER,
            "by_orig",
            "kind",
            "tunnel",
            "in_src",
            "in_dst",
            "out_src",
            "out_dst",
            "outer_src_hi",
            "outer_src_lo",
            "outer_dst_hi",
            "outer_dst_lo",
        )
        .agg(pl.len().alias("packets"), pl.col("flow").n_unique().alias("flows"))
        .collect(engine=spool.engine(vantage.passages))
    )


def _tunnelled(vantage: VantageTables) -> pl.DataFrame:
    """Return the flows whose packets were seen inside a tunnel, see Observed.tunnelled."""
    outer = ("outer_src_hi", "outer_src_lo", "outer_dst_hi", "outer_dst_lo")
    about = ("flow", "by_orig", "eth_src", "eth_dst")
    way = ("flow", "by_orig", "tunnel", *outer, "eth_src", "eth_dst")
    counted: list[pl.DataFrame] = []
    summed = 0

    def whole() -> pl.DataFrame:
        return pl.concat(counted).group_by(way).agg(pl.col("packets").sum())

    for chunk in spool.frames(vantage.tunnels, "row", "kind", "depth", *outer):
        headers = chunk.filter(pl.col("depth") == 1)
        counted.append(
            headers.select(pl.col("kind").alias("tunnel"), *outer)
            .hstack(spool.at(vantage.packets, headers["row"], *about))
            .filter(pl.col("flow").is_not_null())
            .group_by(way)
            .agg(pl.len().alias("packets"))
        )
        if sum(map(len, counted)) > 2 * summed + spool.CHUNK_ROWS:
            counted = [whole()]
            summed = len(counted[0])
    return counted[0] if len(counted) == 1 else whole()
