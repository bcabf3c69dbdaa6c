"""How connections ended, as far as legs show: state, who waits for whom, the longest pause."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag.protocols import IpProto, TcpFlag
from pcapdiag.schema import CONNECTION_STATES, WAITS_FOR

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcapdiag.cluster.clock import Clocks
    from pcapdiag.flows.vantage import VantageTables

_SIDES: Final = ("packets", "syn", "fin", "rst", "sent", "acked")

_OPENING: Final = int(TcpFlag.SYN | TcpFlag.ACK | TcpFlag.RST)

TIME_WAIT_NS: Final = 60_000_000_000
"""TCP_TIMEWAIT_LEN: ports of a closed connection are used again after so long at the earliest."""

_TUPLE: Final = (
    "ip_proto",
    "client_hi",
    "client_lo",
    "client_port",
    "vip_hi",
    "vip_lo",
    "vip_port",
)


def find(vantages: Sequence[VantageTables], legs: pl.DataFrame, clocks: Clocks) -> pl.DataFrame:
    """Return connection, state, waits_for, idle_ns and idle_end_ns (schema CONNECTIONS).

    A SYN, FIN or RST that any leg shows counts. What is outstanding is what no leg shows to be
    acknowledged, of those that show both directions. Pauses are those of the busiest leg: another
    may have lost the packets in between.
    """
    seen = pl.concat(
        [_of_vantage(vantage, index, legs, clocks) for index, vantage in enumerate(vantages)]
    )
    both = (pl.col("client_packets") > 0) & (pl.col("server_packets") > 0)
    busiest = (pl.col("client_packets") + pl.col("server_packets")).arg_max()
    ended = seen.group_by("connection").agg(
        pl.col("ip_proto").first(),
        *(
            pl.col(f"{side}_{flag}").any().alias(f"{side}_{flag}")
            for side in ("client", "server")
            for flag in ("syn", "fin", "rst")
        ),
        ((pl.col("server_packets") > 0) | pl.col("confirmed")).any().alias("answered"),
        *(
            (pl.col(f"{side}_sent") - pl.col(f"{side}_acked"))
            .filter(both)
            .min()
            .alias(f"{side}_owed")
            for side in ("client", "server")
        ),
        *(pl.col(name).get(busiest).alias(name) for name in ("idle_ns", "idle_end_ns")),
    )
    tcp = pl.col("ip_proto") == int(IpProto.TCP)
    state = (
        pl.when(~tcp)
        .then(None)
        .when(pl.col("client_fin") & pl.col("server_fin"))
        .then(pl.lit("closed"))
        .when(pl.col("client_rst") | pl.col("server_rst"))
        .then(pl.lit("reset"))
        .when(pl.col("client_fin") | pl.col("server_fin"))
        .then(pl.lit("closing"))
        .when(pl.col("answered") | ~pl.col("client_syn"))
        .then(pl.lit("open"))
        .otherwise(pl.lit("opening"))
    )
    client, server = (pl.col(f"{side}_owed").fill_null(0) > 0 for side in ("client", "server"))
    alive = pl.col("state").is_in(["open", "closing"])
    waits = (
        pl.when(pl.col("state") == "opening")
        .then(pl.lit("realserver"))
        .when(alive & client & server)
        .then(pl.lit("both"))
        .when(alive & client)
        .then(pl.lit("realserver"))
        .when(alive & server)
        .then(pl.lit("client"))
    )
    return ended.with_columns(state.cast(CONNECTION_STATES).alias("state")).select(
        "connection", "state", waits.cast(WAITS_FOR).alias("waits_for"), "idle_ns", "idle_end_ns"
    )


def _of_vantage(
    vantage: VantageTables, index: int, legs: pl.DataFrame, clocks: Clocks
) -> pl.DataFrame:
    """Return the legs at one vantage with what client and server did there."""
    flows = vantage.flows.lazy().join(legs.lazy().filter(pl.col("vantage") == index), on="flow")
    mine = pl.col("client_is_orig")
    # A client that acknowledged a SYN-ACK which this vantage cannot see (LVS-DR) was answered.
    unanswered = mine & pl.col("orig_syn") & (pl.col("resp_packets") == 0)
    quiet = flows.filter(unanswered).select("flow").collect()
    confirmed = pl.DataFrame(schema={"flow": pl.UInt32, "confirmed": pl.Boolean})
    if quiet.height:
        confirmed = (
            vantage.packets_of(quiet["flow"])
            .filter(pl.col("by_orig") & ((pl.col("tcp_flags") & _OPENING) == int(TcpFlag.ACK)))
            .select("flow", pl.lit(True).alias("confirmed"))
            .unique()
            .collect()
        )
    return (
        flows.join(confirmed.lazy(), on="flow", how="left")
        .select(
            "connection",
            "ip_proto",
            pl.col("confirmed").fill_null(False),
            "idle_ns",
            clocks.common_time(index, "idle_end_ns").alias("idle_end_ns"),
            *(
                pl.when(mine == (side == "client"))
                .then(f"orig_{name}")
                .otherwise(f"resp_{name}")
                .alias(f"{side}_{name}")
                for side in ("client", "server")
                for name in _SIDES
            ),
        )
        .collect()
    )


def earlier(connections: pl.DataFrame) -> pl.DataFrame:
    """Add `earlier`: the connection that had these endpoints before, its ports being reused."""
    # Endpoints with a hash of their own came once; to compare the few others costs little.
    again = connections.select("connection", "first_ns", *_TUPLE).filter(
        pl.struct(_TUPLE).hash().is_duplicated()
    )
    before = again.sort("first_ns", "connection", nulls_last=True).select(
        "connection", pl.col("connection").shift(1).over(_TUPLE).alias("earlier")
    )
    return connections.join(before, on="connection", how="left").sort("connection")


def bridged(vantages: Sequence[VantageTables], legs: pl.DataFrame, clocks: Clocks) -> pl.DataFrame:
    """Return the connections (column connection) that may be two, joined by one leg only.

    That leg was closed and has a long pause, and of the others some end before it and some begin
    after it: where the SYN behind the pause was not captured, ports that are used again look like
    one flow.
    """
    parts = [
        vantage.flows.select("flow", "first_ns", "last_ns", "idle_ns", "idle_end_ns", "closed_by")
        .join(legs.filter(pl.col("vantage") == index), on="flow")
        .select(
            "connection",
            "vantage",
            "flow",
            clocks.common_time(index, "first_ns").alias("first_ns"),
            clocks.common_time(index, "last_ns").alias("last_ns"),
            (clocks.common_time(index, "idle_end_ns") - pl.col("idle_ns")).alias("from_ns"),
            ((pl.col("idle_ns") >= TIME_WAIT_NS) & pl.col("closed_by").is_not_null()).alias("long"),
            pl.lit(clocks.offset_ns[index] is not None).alias("aligned"),
        )
        for index, vantage in enumerate(vantages)
    ]
    seen = pl.concat(parts).filter("aligned")
    pauses = seen.filter("long").select("connection", "flow", "vantage", "from_ns")
    if pauses.is_empty():
        return pauses.select("connection")
    half = TIME_WAIT_NS // 2
    return (
        seen.join(pauses, on="connection", suffix="_long")
        .filter(
            (pl.col("flow") != pl.col("flow_long")) | (pl.col("vantage") != pl.col("vantage_long"))
        )
        .group_by("connection", "vantage_long", "flow_long")
        .agg(
            (pl.col("last_ns") < pl.col("from_ns_long") + half).any().alias("before"),
            (pl.col("first_ns") > pl.col("from_ns_long") + half).any().alias("after"),
        )
        .filter("before", "after")
        .select("connection")
        .unique()
    )
