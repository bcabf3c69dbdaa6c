"""How a packet came to a director and what became of it there: each fact one function.

`details` are the sights of packet_crossings.py. arrivals() makes a table of one row a packet and
the others add columns to it; nothing is decided here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag.cluster.coverage import MARGIN_NS
from pcapdiag.cluster.matching import sums
from pcapdiag.cluster.verdicts import entries
from pcapdiag.cluster.visible import gaps
from pcapdiag.cluster.visible.egress import common_span
from pcapdiag.protocols import IpProto

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcapdiag.cluster.connections import Connections
    from pcapdiag.cluster.coverage import Coverage
    from pcapdiag.cluster.topology import Topology
    from pcapdiag.flows.vantage import VantageTables

_SIDE: Final = ["connection", "by_client"]


def arrivals(
    details: pl.DataFrame,
    connections: Connections,
    topology: Topology,
    directors: Sequence[int],
) -> pl.DataFrame:
    """Return the packets that came to a director which owes them something, one row each.

    Columns: packet, part_of, unsure, connection, by_client, vantage, time_ns (common clock),
    in_row, in_ttl, ports and numbers, `stray` (it was only seen on its way to another host's MAC),
    and of the connection service, method, vip_port and the realserver columns.
    """
    methods = pl.DataFrame(
        [(index, item.method) for index, item in enumerate(topology.services)],
        schema={"service": pl.UInt16, "service_method": pl.String},
        orient="row",
    )
    known = connections.connections.join(methods, on="service", how="left").select(
        "connection",
        "service",
        pl.coalesce(pl.col("method").cast(pl.String), "service_method").alias("method"),
        "realserver_hi",
        "realserver_lo",
        "realserver_mac",
        "realserver_name",
    )
    came = details.filter(pl.col("vantage").is_in(directors) & ~pl.col("tunnelled")).join(
        known.filter(pl.col("method").is_not_null()), on="connection"
    )
    entering = pl.when("by_client").then(pl.lit("front")).otherwise(pl.lit("back"))
    came = came.filter(
        (pl.col("kind").cast(pl.String) == entering)
        & (pl.col("by_client") | (pl.col("method") == "nat"))
        & (pl.col("place") != "out")
    )
    inside = details.filter(pl.col("vantage").is_in(directors) & (pl.col("place") != "at"))
    stray = pl.col("place") == "at"
    return (
        came.filter(~stray | ~pl.col("packet").is_in(inside.get_column("packet").implode()))
        .sort("packet", "place", "time_ns", "vantage", "row", nulls_last=True)
        .unique("packet", keep="first", maintain_order=True)
        .with_columns(stray.alias("stray"))
        .rename({"row": "in_row", "ttl": "in_ttl"})
    )


def departures(
    table: pl.DataFrame, details: pl.DataFrame, directors: Sequence[int]
) -> pl.DataFrame:
    """Add how each packet left (out_ columns), `left`, and `none_left`: no other one did either.

    A super-segment left where its pieces did, and a piece where its super-segment did.
    """
    out = details.filter(pl.col("vantage").is_in(directors)).join(
        table.select("packet", pl.col("in_ttl").alias("came_ttl")), on="packet", how="left"
    )
    beyond = pl.when("by_client").then(pl.lit("back")).otherwise(pl.lit("front"))
    turned = (pl.col("kind").cast(pl.String) == beyond) & (pl.col("place") != "in")
    lowered = (pl.col("place") == "at") & (pl.col("ttl") < pl.col("came_ttl"))
    out = out.filter(
        (pl.col("place") == "out")
        | (turned & (pl.col("kind") == "back"))
        | (pl.col("by_client") & pl.col("tunnelled"))
        | lowered.fill_null(False)
    ).select(
        "packet",
        "part_of",
        "connection",
        "by_client",
        *(
            pl.col(name).alias(f"out_{name}")
            for name in (
                "vantage",
                "row",
                "time_ns",
                "kind",
                "eth_dst",
                "tunnelled",
                "outer_dst_hi",
                "outer_dst_lo",
                *sums.COLUMNS,
            )
        ),
    )
    any_left = out.select(_SIDE).unique().with_columns(pl.lit(False).alias("none_left"))
    seen = out.drop("part_of", *_SIDE)
    as_whole = table.select("packet", "part_of").filter(pl.col("part_of").is_not_null())
    by_pieces = out.filter(pl.col("part_of").is_not_null())
    ways = pl.concat(
        [
            seen,
            as_whole.join(seen, left_on="part_of", right_on="packet").drop("part_of"),
            by_pieces.with_columns(pl.col("part_of").alias("packet")).drop("part_of", *_SIDE),
        ],
        how="diagonal",
    )
    joined = (
        table.join(ways, on="packet", how="left", maintain_order="left")
        .with_columns((pl.col("out_vantage") != pl.col("vantage")).alias("elsewhere"))
        .sort("packet", "elsewhere", "out_time_ns", "out_row", nulls_last=True)
        .unique("packet", keep="first", maintain_order=True)
    )
    return joined.join(any_left, on=_SIDE, how="left", maintain_order="left").with_columns(
        pl.col("out_row").is_not_null().alias("left"), pl.col("none_left").fill_null(True)
    )


def receptions(table: pl.DataFrame, details: pl.DataFrame, topology: Topology) -> pl.DataFrame:
    """Add seen_right and seen_wrong (it came in at the owning realserver, or another), reached_."""
    names = {
        index: role.name for index, role in enumerate(topology.roles) if role.role == "realserver"
    }
    seen = details.filter(
        pl.col("vantage").is_in(list(names)) & pl.col("by_client") & (pl.col("place") == "in")
    ).select(
        "packet",
        "part_of",
        pl.col("vantage").alias("reached_vantage"),
        pl.col("row").alias("reached_row"),
        pl.col("vantage").replace_strict(names, default=None, return_dtype=pl.String).alias("at"),
    )
    seen = pl.concat(
        [
            seen,
            seen.filter(pl.col("part_of").is_not_null()).with_columns(
                pl.col("part_of").alias("packet")
            ),
        ]
    ).drop("part_of")
    judged = (
        seen.join(table.select("packet", "realserver_name"), on="packet")
        .filter(pl.col("realserver_name").is_not_null())
        .with_columns((pl.col("at") == pl.col("realserver_name")).alias("right"))
        .sort("packet", "right", "reached_row", descending=[False, True, False])
        .unique("packet", keep="first", maintain_order=True)
        .select("packet", "right", "reached_vantage", "reached_row")
    )
    return (
        table.join(judged, on="packet", how="left", maintain_order="left")
        .with_columns(
            pl.col("right").fill_null(False).alias("seen_right"),
            (~pl.col("right")).fill_null(False).alias("seen_wrong"),
        )
        .drop("right")
    )


def likenesses(
    table: pl.DataFrame, details: pl.DataFrame, directors: Sequence[int]
) -> pl.DataFrame:
    """Add what keeps a packet that did not leave as it was from counting as swallowed.

    left_otherwise: one with its IP ID left; regrouped: one with some of its bytes left;
    incomplete: it is a fragment, and not all of its datagram came.
    """
    came = table.get_column("packet")
    out = details.filter(
        pl.col("vantage").is_in(directors)
        & (pl.col("place") != "in")
        & ~pl.col("packet").is_in(came.implode())
    )
    ids = out.filter("named").select(*_SIDE, "ip_id").unique()
    ids = ids.with_columns(pl.lit(True).alias("left_otherwise"))
    unsettled = table.filter(~pl.col("left"))
    tcp = (pl.col("ip_proto") == int(IpProto.TCP)) & (pl.col("payload_len") > 0)
    gone = out.filter(tcp).select(*_SIDE, "tcp_seq", "payload_len")
    overlapping = _overlapping(unsettled.filter(tcp), gone)
    return (
        table.join(ids, on=[*_SIDE, "ip_id"], how="left", maintain_order="left")
        .join(overlapping, on="packet", how="left", maintain_order="left")
        .join(_incomplete(table), on="packet", how="left", maintain_order="left")
        .with_columns(pl.col("left_otherwise", "regrouped", "incomplete").fill_null(False))
    )


def _overlapping(packets: pl.DataFrame, gone: pl.DataFrame) -> pl.DataFrame:
    """Return packet and regrouped for those that share bytes with one of `gone`."""
    base = packets.group_by(_SIDE).agg(pl.col("tcp_seq").first().cast(pl.Int64).alias("base"))
    start = (pl.col("tcp_seq").cast(pl.Int64) - pl.col("base") + 2**31) % 2**32
    ranges = [
        part.join(base, on=_SIDE)
        .with_columns(start.alias("start"))
        .with_columns((pl.col("start") + pl.col("payload_len")).alias("end"))
        .sort("start")
        for part in (packets, gone)
    ]
    return (
        ranges[0]
        .join_asof(
            ranges[1]
            .with_columns(pl.col("end").cum_max().over(_SIDE))
            .select(*_SIDE, "start", pl.col("end").alias("end_before")),
            on="start",
            by=_SIDE,
            check_sortedness=False,
        )
        .join_asof(
            ranges[1].select(*_SIDE, "start", pl.col("start").alias("start_after")),
            on="start",
            by=_SIDE,
            strategy="forward",
            check_sortedness=False,
        )
        .filter(
            (pl.col("end_before") > pl.col("start")).fill_null(False)
            | (pl.col("start_after") < pl.col("end")).fill_null(False)
        )
        .select("packet", pl.lit(True).alias("regrouped"))
        .unique("packet")
    )


def _incomplete(table: pl.DataFrame) -> pl.DataFrame:
    """Return packet and incomplete of the fragments whose datagram did not come as a whole."""
    size = pl.col("ip_len").cast(pl.Int64) - pl.col("ip_header_len")
    end = pl.col("frag_offset") + size
    whole = (
        (~pl.col("mf")).any() & (pl.col("frag_offset") == 0).any() & (size.sum() >= end.max())
    ).over(*_SIDE, "ip_id")
    return (
        table.filter(pl.col("mf") | (pl.col("frag_offset") > 0))
        .with_columns((~whole).alias("incomplete"))
        .select("packet", "incomplete")
    )


def coverages(
    table: pl.DataFrame,
    vantages: Sequence[VantageTables],
    connections: Connections,
    coverage: Coverage,
    directors: Sequence[int],
) -> pl.DataFrame:
    """Add visible, lasting and intact as entries.egress does; replies of NAT have their own.

    Replies are seen to leave where any front leg of the service shows an answer. Where clients of
    NAT get data on a connection of which nothing was seen to leave, a capture filter kept some
    realserver out (host RS1): of other such connections nothing can be said to be missing.
    """
    vantage_time = pl.concat(
        [
            vantages[index]
            .packets.lazy()
            .with_row_index("in_row")
            .select(
                pl.lit(index, pl.UInt16).alias("vantage"),
                "in_row",
                pl.col("time_ns").alias("in_time_ns"),
            )
            .join(
                table.lazy().filter(pl.col("vantage") == index).select("in_row"),
                on="in_row",
                how="semi",
            )
            .collect()
            for index in directors
        ]
    )
    timed = table.join(vantage_time, on=["vantage", "in_row"], how="left", maintain_order="left")
    judged = entries.egress(timed, coverage, directors)
    fronts = connections.legs.filter(
        pl.col("vantage").is_in(directors) & (pl.col("kind") == "front")
    ).join(connections.connections.select("connection", "service"), on="connection")
    answering = pl.concat(
        [
            vantages[index].flows.select(
                pl.lit(index, pl.UInt16).alias("vantage"),
                "flow",
                pl.min_horizontal("orig_packets", "resp_packets").alias("both"),
                (pl.col("resp_payload_bytes") > 0).alias("fed"),
            )
            for index in directors
        ]
    ).filter(pl.col("both") > 0)
    services = (
        fronts.join(answering, on=["vantage", "flow"], how="semi")
        .select("service", pl.lit(True).alias("answering"))
        .unique("service")
    )
    backs = connections.legs.filter(pl.col("vantage").is_in(directors) & (pl.col("kind") == "back"))
    hidden = (
        fronts.join(answering.filter("fed"), on=["vantage", "flow"], how="semi")
        .join(backs, on="connection", how="anti")
        .select("service", pl.lit(True).alias("hidden"))
        .unique("service")
    )
    ends = pl.DataFrame(
        [
            (index, *common_span(vantages[index], frozenset(vantages[index].capture_ids)))
            for index in directors
        ],
        schema={"vantage": pl.UInt16, "whole_from_ns": pl.Int64, "whole_until_ns": pl.Int64},
        orient="row",
    )
    pauses = gaps.table([(index, 0, *gap) for index in directors for gap in coverage.pauses[index]])
    paused = gaps.follows(judged, pauses.drop("service"), "in_time_ns", ["vantage"], MARGIN_NS)
    going_on = (pl.col("in_time_ns") + MARGIN_NS <= pl.col("whole_until_ns")) & ~pl.col("paused")
    filtered = (pl.col("method") == "nat") & pl.col("hidden").fill_null(False)
    return (
        judged.with_columns(paused.alias("paused"))
        .join(services, on="service", how="left", maintain_order="left")
        .join(hidden, on="service", how="left", maintain_order="left")
        .join(ends, on="vantage", how="left", maintain_order="left")
        .with_columns(
            pl.when("by_client")
            .then(pl.col("visible") & ~(filtered & pl.col("none_left")))
            .otherwise(pl.col("answering").fill_null(False))
            .alias("visible"),
            pl.when("by_client")
            .then("lasting")
            .otherwise(going_on.fill_null(False))
            .alias("lasting"),
        )
    )
