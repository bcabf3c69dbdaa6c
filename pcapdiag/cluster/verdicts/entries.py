"""What speaks for or against a director that did not relay an error: each fact one function.

All take the table of relays.py and return it with columns added.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag.cluster.coverage import MARGIN_NS
from pcapdiag.cluster.visible import gaps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcapdiag.cluster.connections import Connections
    from pcapdiag.cluster.coverage import Coverage
    from pcapdiag.cluster.crossings import ErrorCrossings
    from pcapdiag.cluster.topology import Topology
    from pcapdiag.flows.vantage import VantageTables

KEY: Final = ("message", "vantage")

REISSUE_NS: Final = 1_000_000_000
"""An answer made of a tunnel error leaves within microseconds; a later one has another cause."""


def at_realservers(table: pl.DataFrame, topology: Topology, errors: ErrorCrossings) -> pl.DataFrame:
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


def known(
    table: pl.DataFrame,
    vantages: Sequence[VantageTables],
    topology: Topology,
    connections: Connections,
    directors: Sequence[int],
) -> pl.DataFrame:
    """Add what the director's connection table must have held.

    `relayed`: packets of the connection were seen to be forwarded by a director, and by this one
    if its capture shows what it forwards; `answering`: replies were seen to leave it (NAT);
    `quiet_ns`: how long the connection had been quiet before the error, `closed_by` and `ip_proto`.
    """
    legs = connections.legs.filter(pl.col("vantage").is_in(list(directors)))
    passed = topology.observed.forwarded.filter(pl.col("by_orig")).select("vantage", "flow")
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
    shows = passed.select("vantage", pl.lit(True).alias("shows")).unique()
    theirs = legs.select("vantage", "connection", pl.lit(True).alias("theirs")).unique()
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
        .join(shows, on="vantage", how="left", maintain_order="left")
        .join(theirs, on=["vantage", "connection"], how="left", maintain_order="left")
        .join(answering, on="connection", how="left", maintain_order="left")
        .join(here, on=["vantage", "connection"], how="left", maintain_order="left")
        .with_columns(
            (
                pl.col("relayed").fill_null(False)
                & (pl.col("shows").is_null() | pl.col("theirs").is_not_null())
            ).alias("relayed"),
            pl.col("answering").fill_null(False),
            pl.when(paused.fill_null(False))
            .then(error - (pl.col("idle_end_ns") - pl.col("idle_ns")))
            .otherwise((error - pl.col("flow_last_ns")).clip(0))
            .alias("quiet_ns"),
            (error > pl.col("flow_last_ns")).alias("afterwards"),
        )
        .drop("shows", "theirs")
    )


def reissued(table: pl.DataFrame, sights: pl.DataFrame, errors: ErrorCrossings) -> pl.DataFrame:
    """Add reissued_row: the director's own error that a tunnel error was made into."""
    made = sights.filter((pl.col("place") == "out") & pl.col("quoted_tunnel").is_null())
    made = made.join(
        errors.messages.select("message", "connection", "quoted_sender", "icmp_type", "icmp_code"),
        on="message",
    ).filter((pl.col("quoted_sender") == "client") & pl.col("connection").is_not_null())
    pairs = (
        table.filter(pl.col("in_quoted_tunnel").is_not_null())
        .select(*KEY, "connection", "icmp_type", "icmp_code", "in_time_ns")
        .join(
            made.select("vantage", "connection", "icmp_type", "icmp_code", "row", "time_ns"),
            on=["vantage", "connection", "icmp_type", "icmp_code"],
        )
        .filter((pl.col("time_ns") - pl.col("in_time_ns")).is_between(0, REISSUE_NS))
        .sort(*KEY, "time_ns")
        .unique(list(KEY), keep="first", maintain_order=True)
        .select(*KEY, pl.col("row").alias("reissued_row"))
    )
    return table.join(pairs, on=list(KEY), how="left", maintain_order="left")


def egress(table: pl.DataFrame, coverage: Coverage, directors: Sequence[int]) -> pl.DataFrame:
    """Add visible (the service is seen leaving), lasting (for long enough after) and intact."""
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
            parts.append(
                spans.filter(pl.col("vantage") == at).select(
                    pl.lit(index, pl.UInt16).alias("vantage"),
                    "service",
                    (pl.col("from_ns") + shift).alias("egress_from_ns"),
                    (pl.col("until_ns") + shift).alias("egress_until_ns"),
                    pl.lit(coverage.loses_little(at) and not coverage.icmp_left_out[at]).alias(
                        "intact"
                    ),
                    pl.lit(index == at).alias("here"),
                    pl.lit(at, pl.UInt16).alias("at"),
                    pl.lit(shift, pl.Int64).alias("shift"),
                )
            )
    seen = (
        pl.concat(parts)
        .sort("vantage", "service", "here", descending=[False, False, True])
        .unique(["vantage", "service"], keep="first", maintain_order=True)
    )
    time = pl.col("in_time_ns")
    pauses = seen.join(
        coverage.egress_gaps, left_on=["at", "service"], right_on=["vantage", "service"]
    ).select("vantage", "service", pl.col("gap_from_ns", "gap_until_ns") + pl.col("shift"))
    paused = gaps.follows(table, pauses, "in_time_ns", ["vantage", "service"], MARGIN_NS)
    return (
        table.with_columns(paused.alias("paused"))
        .join(
            seen.drop("at", "shift"), on=["vantage", "service"], how="left", maintain_order="left"
        )
        .with_columns(
            pl.col("egress_from_ns").is_not_null().alias("visible"),
            (
                (time >= pl.col("egress_from_ns"))
                & (time + MARGIN_NS <= pl.col("egress_until_ns"))
                & ~pl.col("paused")
            ).alias("lasting"),
            pl.col("intact").fill_null(False),
        )
        .with_columns(pl.col("lasting").fill_null(False))
        .drop("paused")
    )
