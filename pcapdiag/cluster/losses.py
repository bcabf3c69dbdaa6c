"""What a capture lost, by its own account and by what TCP shows to have existed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from pcapdiag.protocols import IpProto

if TYPE_CHECKING:
    from pcapdiag.flows.vantage import VantageTables


@dataclass(frozen=True, slots=True)
class Loss:
    """What a capture lost: `missing` of `expected` packets; `upper` bounds the share.

    `dropped` is what the capturing program counted; None where it did not say.
    """

    missing: int
    expected: int
    upper: float
    dropped: int | None


def measure(vantage: VantageTables, passages: pl.DataFrame, own: frozenset[int]) -> Loss:
    """Return the loss that TCP sequence numbers, acknowledgements and counters show.

    What was acknowledged existed. Where no acknowledgements pass (LVS-DR and LVS-TUN), what a side
    sent before its FIN did: what the network lost before the vantage came again, a hole that stays
    is the capture's. A forwarded packet exists twice: one that left and was not seen to come was
    lost, and as many that came must have left unseen.
    """
    missing = 2 * _left_only(vantage, passages, own)
    expected = 2 * len(passages) + missing
    for side in ("orig", "resp"):
        finished = pl.col("closed_by").cast(pl.String) == f"{side}-fin"
        exists = pl.coalesce(f"{side}_acked", pl.when(finished).then(f"{side}_sent"))
        control = pl.col(f"{side}_syn").cast(pl.Int64) + pl.col(f"{side}_fin").cast(pl.Int64)
        held = pl.col(f"{side}_payload_bytes").cast(pl.Int64) - pl.col(
            f"{side}_retransmitted_bytes"
        ).cast(pl.Int64)
        # A last packet that is not acknowledged yet is no part of what was; a longer tail may
        # have holes of its own, which are the network's.
        tail = (pl.col(f"{side}_sent") - pl.col(f"{side}_acked")).fill_null(0).clip(0)
        held = held - pl.when(tail <= pl.col(f"{side}_max_ip_len")).then(tail).otherwise(0)
        size = pl.col(f"{side}_payload_bytes") / pl.col(f"{side}_data_packets")
        whole = pl.col(f"{side}_data_packets") - pl.col(f"{side}_retransmitted")
        rows = vantage.flows.filter(
            (pl.col("ip_proto") == int(IpProto.TCP))
            & (pl.col(f"{side}_data_packets") > 0)
            & exists.is_not_null()
        ).select(
            ((exists - control - held).clip(0) / size).ceil().cast(pl.Int64).alias("missing"),
            whole.cast(pl.Int64).alias("held"),
        )
        lost, kept = rows.sum().row(0)
        missing += lost or 0
        expected += (lost or 0) + (kept or 0)
    counted = [info.dropped for info in vantage.captures if info.dropped is not None]
    dropped = sum(counted) if counted else None
    # Poisson, 95 % from above: 3 for none, about two standard deviations and the same for more.
    upper = 1.0 if expected == 0 else min(1.0, (missing + 3 + 2 * math.sqrt(missing)) / expected)
    if dropped:
        upper = max(upper, min(1.0, 3 * dropped / (dropped + len(vantage.packets))))
    return Loss(missing, expected, upper, dropped)


def _left_only(vantage: VantageTables, passages: pl.DataFrame, own: frozenset[int]) -> int:
    """Return how many packets of forwarded flows left a host without having been seen to come."""
    flows = passages.filter("by_orig").get_column("flow").unique()
    if not len(flows) or not own:
        return 0
    packets = vantage.packets.lazy().with_row_index("row")
    firsts = vantage.packets.get_column("copy_of").drop_nulls().unique()
    return int(
        packets.filter(
            pl.col("flow").is_in(flows.implode())
            & pl.col("by_orig")
            & pl.col("copy_of").is_null()
            & pl.col("eth_src").is_in(list(own))
            & ~pl.col("row").is_in(firsts.implode())
        )
        .select(pl.len())
        .collect()
        .item()
    )
