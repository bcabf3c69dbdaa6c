"""What a capture lost, by its own account and by what TCP shows to have existed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

import polars as pl

from pcapdiag.protocols import IpProto

if TYPE_CHECKING:
    from pcapdiag.flows.vantage import VantageTables

ELSEWHERE: Final = 10_000
"""Missing packets per packet held from which numbers are not of a flow's stream, but of a forged
segment, say: no capture that is of any use keeps less of a flow, samplers of switches included."""


class Loss(NamedTuple):
    """What a capture lost: `missing` of `expected` packets; `upper` bounds the share.

    `dropped` is what the capturing program counted; None where it did not say.
    """

    missing: int
    expected: int
    upper: float
    dropped: int | None

    @property
    def share(self) -> float:
        """The share that is missing; 0.0 where nothing was to be expected."""
        return self.missing / self.expected if self.expected else 0.0


class Losses(NamedTuple):
    """What a capture lost of what clients sent, of what servers sent, and of both together."""

    of_clients: Loss
    of_servers: Loss
    all: Loss


def measure(vantage: VantageTables, forwarded: pl.DataFrame, own: frozenset[int]) -> Losses:
    """Return the losses that TCP sequence numbers, acknowledgements and counters show.

    What was acknowledged existed. Where no acknowledgements pass (LVS-DR and LVS-TUN), what a side
    sent before its FIN did: what the network lost before the vantage came again, a hole that stays
    is the capture's. A forwarded packet exists twice: one that left and was not seen to come was
    lost, and as many that came must have left unseen. `forwarded`: of Observed, what is of this
    vantage.
    """
    counted = [info.dropped for info in vantage.captures if info.dropped is not None]
    dropped = sum(counted) if counted else None
    missing = {side: _unseen_bytes(vantage, side) for side in ("orig", "resp")}
    for side in ("orig", "resp"):
        by_orig = side == "orig"
        of_side = forwarded.filter(pl.col("by_orig") == by_orig)
        left = 2 * _left_only(vantage, of_side["flow"], own, by_orig=by_orig)
        both = 2 * int(of_side["packets"].sum())
        missing[side] = (missing[side][0] + left, missing[side][1] + both + left)
    (lost, held), (lost_back, held_back) = missing["orig"], missing["resp"]
    return Losses(
        of_clients=_bounded(vantage, lost, held, dropped),
        of_servers=_bounded(vantage, lost_back, held_back, dropped),
        all=_bounded(vantage, lost + lost_back, held + held_back, dropped),
    )


def _bounded(vantage: VantageTables, missing: int, expected: int, dropped: int | None) -> Loss:
    """Return a loss with the bound that counts and counters leave."""
    # Poisson, 95 % from above: 3 for none, about two standard deviations and the same for more.
    upper = 1.0 if expected == 0 else min(1.0, (missing + 3 + 2 * math.sqrt(missing)) / expected)
    if dropped:
        upper = max(upper, min(1.0, 3 * dropped / (dropped + len(vantage.packets))))
    return Loss(missing, expected, upper, dropped)


def _unseen_bytes(vantage: VantageTables, side: str) -> tuple[int, int]:
    """Return how many packets with data of one side of TCP flows are missing, of how many."""
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
    sums = (
        vantage.flows.lazy()
        .filter(
            (pl.col("ip_proto") == int(IpProto.TCP))
            & (pl.col(f"{side}_data_packets") > 0)
            & exists.is_not_null()
        )
        .select(
            ((exists - control - held).clip(0) / size).ceil().cast(pl.Int64).alias("missing"),
            whole.cast(pl.Int64).alias("held"),
        )
        .filter(pl.col("missing") <= ELSEWHERE * pl.col("held").clip(1))
        .sum()
    )
    lost, kept = sums.collect().row(0)
    return lost, lost + kept


def _left_only(
    vantage: VantageTables, flows: pl.Series, own: frozenset[int], *, by_orig: bool
) -> int:
    """Return how many packets of forwarded `flows` left a host without having been seen to come.

    A side of a flow whose other packets pass: what a host sends itself comes from nowhere. A
    segment whose first byte came in another, merged or cut otherwise by offload, did come.
    """
    if not len(flows) or not own:
        return 0
    firsts = (
        vantage.packets.lazy()
        .select(pl.col("copy_of").drop_nulls().unique())
        .collect()
        .get_column("copy_of")
    )
    sent = pl.col("eth_src").is_in(sorted(own))
    packets = (
        vantage.packets.lazy()
        .with_row_index("row")
        .filter(pl.col("flow").is_in(flows.implode()) & (pl.col("by_orig") == by_orig))
    )
    left = packets.filter(
        sent & pl.col("copy_of").is_null() & ~pl.col("row").is_in(firsts.implode())
    ).select("flow", "tcp_seq", "payload_len", "row")
    if (alone := left.collect()).is_empty():
        return 0
    return len(alone) - _came_otherwise(alone, packets.filter(~sent))


def _came_otherwise(left: pl.DataFrame, came: pl.LazyFrame) -> int:
    """Return of how many TCP segments the first byte is in one of other segments of its flow."""
    start = (pl.col("tcp_seq").cast(pl.Int64) - pl.col("base") + 2**31) % 2**32
    segments = [
        part.filter(pl.col("payload_len") > 0, pl.col("tcp_seq").is_not_null())
        for part in (left.lazy(), came)
    ]
    base = segments[0].group_by("flow").agg(pl.col("tcp_seq").first().cast(pl.Int64).alias("base"))
    gone, arrived = (
        part.join(base, on="flow").with_columns(start.alias("start")).sort("start")
        for part in segments
    )
    ends = arrived.select(
        "flow",
        "start",
        (pl.col("start") + pl.col("payload_len")).cum_max().over("flow").alias("end"),
    )
    met = gone.join_asof(ends, on="start", by="flow", check_sortedness=False)
    return int(met.select((pl.col("end") > pl.col("start")).sum()).collect().item() or 0)
