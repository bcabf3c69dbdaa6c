"""What a director did with the requests for a connection (SYNs) that reached it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag.cluster.coverage import MARGIN_NS
from pcapdiag.cluster.visible import gaps
from pcapdiag.protocols import IpProto, TcpFlag

if TYPE_CHECKING:
    from pcapdiag.case.case import Case

_SYN: Final = int(TcpFlag.SYN)
_KIND: Final = int(TcpFlag.SYN | TcpFlag.ACK | TcpFlag.RST | TcpFlag.FIN)

_TUPLE: Final = ("client_hi", "client_lo", "client_port", "vip_hi", "vip_lo", "vip_port")

SHAPE: Final = {
    "vantage": pl.UInt16,
    "row": pl.UInt32,
    "time_ns": pl.Int64,
    "connection": pl.UInt32,
    "attempt": pl.UInt32,
    "out_row": pl.UInt32,
    "visible": pl.Boolean,
    "closed_ns": pl.Int64,
    "next_row": pl.UInt32,
    "next_ns": pl.Int64,
    "next_out": pl.UInt32,
}


def frame(case: Case) -> pl.DataFrame:
    """Return one row per SYN of a client that came in at a director.

    Columns: vantage, row, time_ns (vantage's clock), connection; attempt (0: the first of this
    connection, 1: its first repetition, ...); out_row (where it left again; null: not seen);
    visible (had it left, this vantage would have shown it); closed_ns (when the connection that had
    used the same addresses and ports before was heard last; null: none, or it was not closed);
    next_row, next_ns, next_out (the next repetition, and where that left).
    """
    parts = [_at(case, vantage.index) for vantage in case.vantages_of("director")]
    return pl.concat([pl.DataFrame(schema=SHAPE), *parts])


def _at(case: Case, index: int) -> pl.DataFrame:
    tables = case.vantages[index]
    ends = case.connections.connections.lazy().select("connection", "service", "method", *_TUPLE)
    legs = (
        case.connections.legs.lazy().filter(pl.col("vantage") == index).join(ends, on="connection")
    )
    asking = (
        tables.packets.lazy()
        .with_row_index("row")
        .filter((pl.col("tcp_flags") & _KIND) == _SYN, pl.col("copy_of").is_null())
        .select("row", "flow", "time_ns", "tcp_seq", "ip_id")
    )
    seen = asking.join(legs, on="flow").collect()
    front, back = (seen.filter(pl.col("kind") == kind) for kind in ("front", "back"))
    passages = (
        tables.passages_of(front["row"])
        .select("row", pl.col("out_row").alias("passed_row"))
        .unique("row", keep="first")
    )
    translated = back.select(
        "connection", "tcp_seq", "ip_id", pl.col("row").alias("translated_row")
    ).unique(["connection", "tcp_seq", "ip_id"], keep="first")
    spans = case.coverage.egress_spans.filter(pl.col("vantage") == index)
    pauses = case.coverage.egress_gaps.filter(pl.col("vantage") == index).drop("vantage")
    paused = gaps.follows(front, pauses, "time_ns", ["service"], MARGIN_NS)
    time = pl.col("time_ns")
    return (
        front.with_columns(paused.alias("paused"))
        .join(passages, on="row", how="left")
        .join(translated, on=["connection", "tcp_seq", "ip_id"], how="left", nulls_equal=True)
        .join(spans.select("service", "from_ns", "until_ns"), on="service", how="left")
        .join(_closed(case, index), on="flow", how="left")
        .sort("row")
        .with_columns(
            pl.when(pl.col("method") == "nat")
            .then("translated_row")
            .otherwise("passed_row")
            .alias("out_row"),
            pl.int_range(pl.len(), dtype=pl.UInt32).over("connection").alias("attempt"),
            (
                (time >= pl.col("from_ns"))
                & (time + MARGIN_NS <= pl.col("until_ns"))
                & ~pl.col("paused")
            )
            .fill_null(value=False)
            .alias("visible"),
            pl.lit(index).alias("vantage"),
        )
        .with_columns(
            pl.col(name).shift(-1).over("connection").alias(after)
            for name, after in (
                ("row", "next_row"),
                ("time_ns", "next_ns"),
                ("out_row", "next_out"),
            )
        )
        .select(pl.col(name).cast(dtype) for name, dtype in SHAPE.items())
    )


def _closed(case: Case, index: int) -> pl.DataFrame:
    """Return per flow when the one before it with the same ends was heard last, if it closed."""
    ends = ("ip_proto", "orig_hi", "orig_lo", "orig_port", "resp_hi", "resp_lo", "resp_port")
    return (
        case.vantages[index]
        .flows.lazy()
        .filter(pl.col("ip_proto") == int(IpProto.TCP))
        .select("flow", *ends, "first_ns", "last_ns", "closed_by")
        .filter(pl.len().over(ends) > 1)
        .sort("first_ns", "flow")
        .with_columns(
            pl.when(pl.col("closed_by").is_not_null())
            .then("last_ns")
            .shift(1)
            .over(ends)
            .alias("closed_ns")
        )
        .select("flow", "closed_ns")
        .collect()
    )
