"""What a director answers itself instead of forwarding: a RST or SYN-ACK of its own, ICMP errors.

A packet of a connection that IPVS has forgotten goes up the director's own stack, which resets it
from the VIP (tcp_v4_send_reset): its sequence number is the acknowledgement it answers, or it
acknowledges all that the packet held.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag.cluster.cast.macs import INITIAL_TTLS
from pcapdiag.protocols import TcpFlag

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcapdiag.cluster.crossings import ErrorCrossings
    from pcapdiag.flows.vantage import VantageTables

ANSWER_NS: Final = 1_000_000_000
"""A stack answers at once; what comes a second later answers something else."""


def find(
    table: pl.DataFrame,
    details: pl.DataFrame,
    vantages: Sequence[VantageTables],
    errors: ErrorCrossings,
    directors: Sequence[int],
) -> pl.DataFrame:
    """Add answer (reset, syn-ack, icmp-error; null: none), answer_vantage and answer_row."""
    both = pl.concat([_of_stack(table, details, directors), _errors(table, vantages, errors)])
    first = both.sort("packet", "answer_time_ns", "answer_row").unique(
        "packet", keep="first", maintain_order=True
    )
    return table.join(first.drop("answer_time_ns"), on="packet", how="left", maintain_order="left")


def _of_stack(table: pl.DataFrame, details: pl.DataFrame, directors: Sequence[int]) -> pl.DataFrame:
    """Return the TCP packets that a director sent in the server's place."""
    entered = details.filter(
        (pl.col("place") != "out") | ~pl.col("vantage").is_in(directors)
    ).filter((pl.col("place") == "in") & pl.col("vantage").is_in(directors))
    flags = pl.col("tcp_flags")
    reset, syn = (flags & int(TcpFlag.RST)) != 0, (flags & int(TcpFlag.SYN)) != 0
    own = details.filter(
        pl.col("vantage").is_in(directors)
        & (pl.col("place") == "out")
        & (pl.col("kind") == "front")
        & ~pl.col("by_client")
        & pl.col("ttl").is_in(INITIAL_TTLS)
        & (reset | syn)
        & ~pl.col("packet").is_in(entered.get_column("packet").implode())
    ).select(
        "connection",
        pl.when(reset).then(pl.lit("reset")).otherwise(pl.lit("syn-ack")).alias("answer"),
        pl.col("vantage").alias("answer_vantage"),
        pl.col("row").alias("answer_row"),
        pl.col("time_ns").alias("answer_time_ns"),
        pl.col("tcp_seq").alias("answer_seq"),
        pl.when((flags & int(TcpFlag.ACK)) != 0).then("tcp_ack").alias("answer_ack"),
    )
    control = sum(
        ((pl.col("tcp_flags") & int(flag)) != 0).cast(pl.Int64)
        for flag in (TcpFlag.SYN, TcpFlag.FIN)
    )
    after = (pl.col("tcp_seq").cast(pl.Int64) + pl.col("payload_len") + control) % 2**32
    acked = (pl.col("tcp_flags") & int(TcpFlag.ACK)) != 0
    fits = (acked & (pl.col("answer_seq") == pl.col("tcp_ack"))) | (
        pl.col("answer_ack").cast(pl.Int64) == after
    )
    waited = pl.col("answer_time_ns") - pl.col("time_ns")
    return (
        table.filter(pl.col("by_client") & ~pl.col("left"))
        .join(own, on="connection")
        .filter(fits.fill_null(False) & waited.is_between(0, ANSWER_NS))
        .select("packet", "answer", "answer_vantage", "answer_row", "answer_time_ns")
    )


def _errors(
    table: pl.DataFrame, vantages: Sequence[VantageTables], errors: ErrorCrossings
) -> pl.DataFrame:
    """Return the ICMP errors about a packet that left the director without having come to it."""
    parts = [
        pl.DataFrame(
            schema={
                "packet": table.schema["packet"],
                "answer": pl.String,
                "answer_vantage": pl.UInt16,
                "answer_row": pl.UInt32,
                "answer_time_ns": pl.Int64,
            }
        )
    ]
    came = errors.sightings.filter(pl.col("place") == "in").select("vantage", "message")
    # What leaves with an initial TTL is the director's own; others came, seen or not.
    fresh = (pl.col("place") == "out") & pl.col("ttl").is_in(INITIAL_TTLS)
    own = errors.sightings.filter(fresh).join(came, on=["vantage", "message"], how="anti")
    for index in table.get_column("vantage").unique().sort().to_list():
        quoting = vantages[index].icmp_errors.select("row", "quoted_row", "time_ns")
        parts.append(
            own.filter(pl.col("vantage") == index)
            .select("row")
            .join(quoting, on="row")
            .join(
                table.filter((pl.col("vantage") == index) & ~pl.col("left")),
                left_on="quoted_row",
                right_on="in_row",
            )
            .select(
                "packet",
                pl.lit("icmp-error").alias("answer"),
                pl.lit(index, pl.UInt16).alias("answer_vantage"),
                pl.col("row").alias("answer_row"),
                pl.col("time_ns").alias("answer_time_ns"),
            )
        )
    return pl.concat(parts)
