"""What all vantages together show, before anyone is given a role."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from pcapdiag import spool
from pcapdiag.cluster.cast import ends, macs
from pcapdiag.cluster.clocks import delays
from pcapdiag.cluster.matching import links, passages

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
    passages: vantage and the columns of passages.find.
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
    passages: pl.DataFrame
    paths: pl.DataFrame
    answers: pl.DataFrame
    tunnelled: pl.DataFrame
    spread: pl.DataFrame
    tunnel_spread: pl.DataFrame


def observe(vantages: Sequence[VantageTables]) -> Observed:
    """Return what the vantages show."""
    found = [
        passages.find(vantage).select(pl.lit(index, pl.UInt16).alias("vantage"), pl.all())
        for index, vantage in enumerate(vantages)
    ]
    joined = links.find(vantages)
    passed = pl.concat(found)
    shared = delays.shared(vantages, joined)
    tunnelled = pl.concat(
        [
            _tunnelled(vantage).select(pl.lit(index, pl.UInt16).alias("vantage"), pl.all())
            for index, vantage in enumerate(vantages)
            if vantage.tunnels.height or not index
        ]
    )
    routed = passed.filter(pl.col("by_orig") & (pl.col("kind") == "routed"))
    outer = pl.struct("outer_dst_hi", "outer_dst_lo")
    return Observed(
        links=joined,
        shared=shared,
        macs=ends.settled(vantages, macs.find(vantages), passed, shared),
        passages=passed,
        paths=_paths(passed, joined.nodes),
        answers=pl.concat(
            [
                macs.answers(vantage).select(pl.lit(index, pl.UInt16).alias("vantage"), pl.all())
                for index, vantage in enumerate(vantages)
            ]
        ),
        tunnelled=tunnelled,
        spread=_spread(
            routed.select("vantage", "flow", "out_src", pl.col("out_dst").alias("target")),
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


def _paths(passed: pl.DataFrame, nodes: pl.DataFrame) -> pl.DataFrame:
    """Return passages counted by server endpoint and way, see Observed.paths."""
    return (
        passed.lazy()
        .join(nodes.lazy().select("vantage", "flow", *_SERVER), on=["vantage", "flow"])
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
        .sort(pl.all())
        .collect()
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
