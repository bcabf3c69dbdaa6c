"""What a connection had done before a packet of its client: how long it had been quiet, above all.

Asked about the packet that somebody refused, this tells whether ip_vs may have forgotten it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag.protocols import TcpFlag

if TYPE_CHECKING:
    from pcapdiag.case.case import Case

CLOSING: Final = int(TcpFlag.FIN | TcpFlag.RST)

SHAPE: Final = {
    "vantage": pl.UInt16,
    "answered_row": pl.UInt32,
    "answered_ns": pl.Int64,
    "answered_payload": pl.UInt32,
    "passed_on": pl.Boolean,
    "before_row": pl.UInt32,
    "before_ns": pl.Int64,
    "before_count": pl.UInt32,
    "turned_to": pl.UInt64,
    "turned_from": pl.UInt64,
    "client_closed": pl.Boolean,
    "server_sent": pl.Boolean,
    "client_last_ns": pl.Int64,
}


def frame(case: Case, asked: pl.DataFrame) -> pl.DataFrame:
    """Return what came before each packet that `asked` names by vantage and answered_row.

    Columns: vantage, answered_row; answered_ns, answered_payload (bytes); passed_on (the packet was
    seen to leave a host again here); before_row, before_ns, before_count: the last packet before it
    that restarted the timer of ip_vs, and how many had (null and 0: none was seen; null alone: the
    capture pauses since, and may have missed later ones); turned_to and
    turned_from (the MAC that this packet went to, and the other one that the client's packet before
    it had gone to; null: the same);
    client_closed (the client had sent FIN or RST); server_sent (the server's side had spoken);
    client_last_ns (when the client was heard last). Times are the vantage's own. The timer is
    restarted by the client's packets; in NAT, where they pass the director, by the realserver's,
    too.
    """
    wanted = asked.select(
        pl.col("vantage").cast(pl.UInt16), pl.col("answered_row").cast(pl.UInt32)
    ).drop_nulls()
    parts = [pl.DataFrame(schema=SHAPE)]
    for vantage in case.vantages:
        here = wanted.filter(pl.col("vantage") == vantage.index).unique("answered_row")
        if here.height:
            parts.append(_at(case, vantage.index, here.select("answered_row")))
    return pl.concat(parts)


def _at(case: Case, index: int, wanted: pl.DataFrame) -> pl.DataFrame:
    packets = (
        case.vantages[index]
        .packets.lazy()
        .with_row_index("row")
        .select(
            *("row", "flow", "by_orig", "time_ns", "eth_dst", "tcp_flags", "payload_len", "copy_of")
        )
    )
    answered = (
        wanted.lazy()
        .join(packets, left_on="answered_row", right_on="row")
        .join(_legs(case, index), on="flow")
        .select(
            *("answered_row", "flow", "client_is_orig", "method"),
            pl.col("time_ns").alias("answered_ns"),
            pl.col("payload_len").alias("answered_payload"),
            pl.col("eth_dst").alias("answered_to"),
            "client_last_ns",
        )
        .collect()
    )
    by_client = pl.col("by_orig") == pl.col("client_is_orig")
    restarts = by_client | (pl.col("method") == "nat").fill_null(value=False)
    earlier = (
        packets.filter(pl.col("copy_of").is_null())
        .join(answered.lazy(), on="flow")
        .filter(pl.col("row") < pl.col("answered_row"))
        .sort("row")
        .group_by("answered_row")
        .agg(
            pl.col("row").filter(restarts).last().alias("before_row"),
            pl.col("time_ns").filter(restarts).last().alias("before_ns"),
            restarts.sum().alias("before_count"),
            pl.col("eth_dst").filter(by_client).last().alias("before_to"),
            (by_client & ((pl.col("tcp_flags") & CLOSING) != 0)).any().alias("client_closed"),
            (~by_client).any().alias("server_sent"),
        )
        .collect()
    )
    passed = case.vantages[index].passages_of(answered["answered_row"])
    known = earlier.join(answered.select("answered_row", "answered_ns"), on="answered_row")
    missed = paused_between(case, index, known, "before_ns", "answered_ns")
    earlier = earlier.with_columns(
        pl.when(~missed).then(name).alias(name) for name in ("before_row", "before_ns")
    )
    return (
        answered.join(earlier, on="answered_row", how="left")
        .with_columns(
            pl.lit(index).alias("vantage"),
            pl.col("answered_row").is_in(passed["row"].implode()).alias("passed_on"),
            pl.col("before_count").fill_null(0),
            pl.when(pl.col("answered_to") != pl.col("before_to"))
            .then("answered_to")
            .alias("turned_to"),
            pl.when(pl.col("answered_to") != pl.col("before_to"))
            .then("before_to")
            .alias("turned_from"),
            pl.col("client_closed", "server_sent").fill_null(value=False),
        )
        .select(pl.col(name).cast(dtype) for name, dtype in SHAPE.items())
    )


def paused_between(case: Case, index: int, rows: pl.DataFrame, begin: str, end: str) -> pl.Series:
    """Return per row whether a vantage's capture pauses between two columns of its own times."""
    pauses = pl.DataFrame(
        case.coverage.pauses[index],
        schema={"gap_from_ns": pl.Int64, "gap_until_ns": pl.Int64},
        orient="row",
    )
    met = (
        rows.select(begin, end)
        .with_row_index("at")
        .join(pauses, how="cross")
        .filter(pl.col("gap_from_ns") < pl.col(end), pl.col("gap_until_ns") > pl.col(begin))
    )
    return pl.int_range(rows.height, dtype=pl.UInt32, eager=True).is_in(met["at"].implode())


def _legs(case: Case, index: int) -> pl.LazyFrame:
    """Return the flows of a vantage that are legs: the client's side, its last time, the method."""
    flows = case.vantages[index].flows.lazy().select("flow", "orig_last_ns", "resp_last_ns")
    return (
        case.connections.legs.lazy()
        .filter(pl.col("vantage") == index)
        .join(case.connections.connections.lazy().select("connection", "method"), on="connection")
        .join(flows, on="flow")
        .select(
            *("flow", "client_is_orig", "method"),
            pl.when("client_is_orig")
            .then("orig_last_ns")
            .otherwise("resp_last_ns")
            .alias("client_last_ns"),
        )
    )
