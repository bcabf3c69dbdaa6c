"""Which packet sizes were acknowledged and which never were, towards the peers that were hit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag.result import SizeFate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcapdiag.case.case import Case

MAX_SIZES: Final = 200
"""Sizes told apart; a sender of streams uses a handful, a chatty one a few dozen."""

_WRAP: Final = 1 << 32


def size_fates(case: Case, connections: Sequence[int], direction: str) -> tuple[SizeFate, ...]:
    """Return counts by IP length of the data that one direction of the connections' clients had.

    All connections of these clients to the same services count, for the path is the same. Lost is
    what was sent again and never acknowledged; what was sent once and not acknowledged is not
    counted. Flows that a network card segments or merges are left out: their sizes are not the
    wire's.
    """
    alike = _same_path(case, connections)
    data = pl.concat(
        [
            _data(case, index, alike, direction == "to-realserver")
            for index in range(len(case.vantages))
        ]
    )
    best = (
        data.group_by("connection", "vantage")
        .len()
        .sort("connection", -pl.col("len").cast(pl.Int64), "vantage")
        .unique("connection", keep="first", maintain_order=True)
    )
    segment = ["connection", "vantage", "tcp_seq"]
    counted = (
        data.join(best, on=["connection", "vantage"], how="semi")
        .with_columns(pl.len().over(segment).alias("sends"))
        .group_by("ip_len")
        .agg(
            pl.col("delivered").sum().alias("delivered"),
            (~pl.col("delivered") & (pl.col("sends") > 1)).sum().alias("lost"),
        )
        .filter((pl.col("delivered") > 0) | (pl.col("lost") > 0))
        .sort(-(pl.col("delivered") + pl.col("lost")).cast(pl.Int64), "ip_len")
        .head(MAX_SIZES)
        .sort("ip_len")
    )
    return tuple(
        SizeFate(ip_length=length, delivered=delivered, lost=lost)
        for length, delivered, lost in counted.iter_rows()
    )


def _same_path(case: Case, connections: Sequence[int]) -> pl.DataFrame:
    path = ["client_hi", "client_lo", "service_name"]
    hit = case.members.filter(pl.col("connection").is_in(list(connections))).select(path).unique()
    return case.members.join(hit, on=path, how="semi").select("connection")


def _data(case: Case, index: int, wanted: pl.DataFrame, by_client: bool) -> pl.DataFrame:
    """Return the data packets of one direction at a vantage: ip_len, tcp_seq, delivered."""
    vantage = case.vantages[index]
    legs = (
        case.connections.legs.lazy()
        .filter(pl.col("vantage") == index)
        .join(wanted.lazy(), on="connection", how="semi")
    )
    sender = (pl.col("client_is_orig") == by_client).alias("sent_by_orig")
    flows = (
        legs.join(vantage.flows.lazy(), on="flow")
        .select(
            "connection",
            "flow",
            sender,
            *(
                pl.when(pl.col("client_is_orig") == by_client)
                .then(pl.col(f"orig_{name}"))
                .otherwise(pl.col(f"resp_{name}"))
                .alias(name)
                for name in ("acked", "seq_first", "offload")
            ),
        )
        .filter(~pl.col("offload").fill_null(value=False))
        .collect()
    )
    offset = (pl.col("tcp_seq").cast(pl.Int64) - pl.col("seq_first").cast(pl.Int64)) % _WRAP
    return (
        vantage.packets_of(flows["flow"])
        .filter(pl.col("payload_len") > 0, pl.col("copy_of").is_null())
        .join(flows.lazy(), on="flow")
        .filter(pl.col("by_orig") == pl.col("sent_by_orig"), pl.col("tcp_seq").is_not_null())
        .select(
            "connection",
            pl.lit(index, pl.UInt16).alias("vantage"),
            "ip_len",
            "tcp_seq",
            (offset + pl.col("payload_len") <= pl.col("acked"))
            .fill_null(value=False)
            .alias("delivered"),
        )
        .collect()
    )
