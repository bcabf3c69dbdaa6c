"""When a capture stood still within one file, though packets passed its vantage.

A pause alone says nothing: a cluster may be idle. It was no pause of the traffic where TCP's
sequence numbers jump over it, or where another vantage shows meanwhile frames that the capturing
host sent, or such as it must have handed on or answered: their sender went on as if answered. What
a host that is down does not get proves nothing: nobody acknowledges it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from pcapdiag import spool
from pcapdiag.protocols import IpProto, TcpFlag

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pcapdiag.cluster.clock import Clocks
    from pcapdiag.flows.vantage import VantageTables
    from pcapdiag.spool import Table

LONG_PAUSE: Final = 10
"""Mean pauses between frames from which one is looked at. Where packets come at random, one pause
in 20,000 is as long; traffic in bursts has more."""

SHORTEST_NS: Final = 100_000_000
"""What a capture misses in less time is loss, which losses.py counts."""

AT_ONCE_NS: Final = 2_000
"""Frames no further apart count once in the mean pause: they are doubles, as of a bridge and its
port, or one burst, and either would make the pauses around them look long."""

MISSED: Final = 3
"""Packets that must have passed: a capture that loses one packet in ten, and hardly any does, loses
three in a row once in a thousand times."""

_PAUSE: Final = ("capture", "pause")

_PAUSES: Final = {
    "capture": pl.UInt16,
    "pause": pl.Int64,
    "from_ns": pl.Int64,
    "until_ns": pl.Int64,
}

_CONVERSATION: Final = ("ip_proto", "orig_hi", "orig_lo", "resp_hi", "resp_lo", "resp_port")
"""Ends without the client's port: what a capture filter may leave out whole."""


def find(
    vantages: Sequence[VantageTables], own: Sequence[frozenset[int]], clocks: Clocks
) -> tuple[pl.DataFrame, ...]:
    """Return per vantage when its captures stood still: capture, from_ns, until_ns (own clock).

    `own`: per vantage the MACs of the capturing host.
    """
    pauses = [_pauses(vantage) for vantage in vantages]
    return tuple(
        _proven(vantages, index, pauses[index], own[index], clocks)
        for index in range(len(vantages))
    )


def _pauses(vantage: VantageTables) -> pl.DataFrame:
    """Return the long pauses of each capture: capture, pause (counted), from_ns, until_ns."""
    found = _paces(vantage.packets)
    if not all(pace.ascending for pace in found.values()):
        times = vantage.packets.lazy().select("capture", "time_ns").collect()
        found = _paces(times.sort("capture", "time_ns"))
    parts = []
    for capture, pace in sorted(found.items()):
        from_ns, until_ns = (np.concatenate(times) for times in (pace.from_ns, pace.until_ns))
        usual = (pace.last_ns - pace.first_ns) // max(pace.steps, 1)
        long = until_ns - from_ns > LONG_PAUSE * usual
        ends = {"from_ns": from_ns[long], "until_ns": until_ns[long]}
        parts.append(pl.DataFrame({"capture": capture, "pause": 0, **ends}, schema=_PAUSES))
    return pl.concat([pl.DataFrame(schema=_PAUSES), *parts]).with_columns(
        pl.int_range(pl.len()).over("capture").alias("pause")
    )


@dataclass
class _Pace:
    """How a capture's frames follow one another."""

    first_ns: int
    last_ns: int
    ascending: bool = True
    steps: int = 0
    """Frames that come later than AT_ONCE_NS after the one before."""
    from_ns: list[NDArray[np.int64]] = field(default_factory=list)
    until_ns: list[NDArray[np.int64]] = field(default_factory=list)
    """Of the steps that are longer than SHORTEST_NS."""


def _paces(packets: Table) -> dict[int, _Pace]:
    """Return the pace of each capture, a file of the table at a time; frames without a time go."""
    found: dict[int, _Pace] = {}
    for chunk in spool.frames(packets, "capture", "time_ns"):
        timed = chunk.drop_nulls("time_ns")
        times, captures = (timed[name].to_numpy() for name in ("time_ns", "capture"))
        for capture in timed["capture"].unique():
            mine = times if (captures == capture).all() else times[captures == capture]
            pace = found.setdefault(capture, _Pace(int(mine[0]), int(mine[0])))
            before = np.concatenate((np.array([pace.last_ns]), mine[:-1]))
            step = mine - before
            long = np.flatnonzero(step > SHORTEST_NS)
            pace.ascending &= bool((step >= 0).all())
            pace.steps += int(np.count_nonzero(step > AT_ONCE_NS))
            pace.from_ns.append(before[long])
            pace.until_ns.append(mine[long])
            pace.last_ns = int(mine[-1])
    return found


def _proven(
    vantages: Sequence[VantageTables],
    index: int,
    pauses: pl.DataFrame,
    own: frozenset[int],
    clocks: Clocks,
) -> pl.DataFrame:
    """Return those of a vantage's pauses during which packets passed it."""
    if pauses.is_empty():
        return pauses.drop("pause")
    missed = [_jumped(vantages[index], pauses)]
    if own and clocks.offset_ns[index] is not None:
        missed.append(_seen_elsewhere(vantages, index, pauses, own, clocks))
    proven = pl.concat(missed).filter(pl.col("packets") >= MISSED)
    return pauses.join(proven, on=_PAUSE, how="semi", maintain_order="left").drop("pause")


def _jumped(vantage: VantageTables, pauses: pl.DataFrame) -> pl.DataFrame:
    """Return how many packets TCP shows to have passed in pauses: capture, pause, packets.

    Sequence numbers that no frame before or after a pause holds, of flows with frames on both
    sides of it.
    """
    sides = ("capture", "flow", "by_orig")
    flags = pl.col("tcp_flags").cast(pl.Int64)
    control = sum(((flags & int(bit)) != 0).cast(pl.Int64) for bit in (TcpFlag.SYN, TcpFlag.FIN))
    first = pl.col("tcp_seq").first().over(sides).cast(pl.Int64)
    offset = (pl.col("tcp_seq").cast(pl.Int64) - first + 2**31) % 2**32 - 2**31
    return (
        vantage.packets.lazy()
        .filter(
            pl.col("flow").is_not_null()
            & (pl.col("ip_proto") == int(IpProto.TCP))
            & pl.col("tcp_seq").is_not_null()
            & pl.col("payload_len").is_not_null()
            & pl.col("time_ns").is_not_null()
        )
        .select(*sides, "time_ns", "tcp_seq", "tcp_flags", "payload_len")
        .sort("time_ns", maintain_order=True)
        .join_asof(
            pauses.lazy().sort("until_ns").select(*_PAUSE, "until_ns"),
            left_on="time_ns",
            right_on="until_ns",
            by="capture",
            check_sortedness=False,
        )
        .with_columns(pl.col("pause").fill_null(-1))
        .filter((pl.col("pause").min() < pl.col("pause").max()).over("capture", "flow"))
        .with_columns(offset.alias("low"))
        .with_columns((pl.col("low") + pl.col("payload_len") + control).alias("high"))
        .group_by(*sides, "pause")
        .agg(pl.col("low").min(), pl.col("high").max(), pl.col("payload_len").max().alias("size"))
        .sort(*sides, "pause")
        .with_columns(
            pl.col("pause").shift(1).over(sides).alias("earlier"),
            pl.col("high").cum_max().shift(1).over(sides),
            pl.col("low").cum_min(reverse=True).over(sides),
            pl.col("size").max().over(sides).clip(1),
        )
        .filter((pl.col("pause") == pl.col("earlier") + 1) & (pl.col("low") > pl.col("high")))
        .group_by(_PAUSE)
        .agg(
            ((pl.col("low") - pl.col("high")) / pl.col("size"))
            .ceil()
            .sum()
            .cast(pl.Int64)
            .alias("packets")
        )
        .collect()
    )


def _conversations(vantage: VantageTables) -> pl.LazyFrame:
    """Return what each capture keeps: capture and the ends of its flows."""
    return (
        vantage.packets.lazy()
        .filter(pl.col("flow").is_not_null())
        .select("capture", "flow")
        .unique()
        .join(vantage.flows.lazy().select("flow", *_CONVERSATION), on="flow")
        .select("capture", *_CONVERSATION)
        .unique()
    )


def _seen_elsewhere(
    vantages: Sequence[VantageTables],
    index: int,
    pauses: pl.DataFrame,
    own: frozenset[int],
    clocks: Clocks,
) -> pl.DataFrame:
    """Return how many packets of a host other vantages have in its pauses: as _jumped.

    Those that it sent, and those sent to it that were answered: in one pause their sender
    acknowledged more than one thing.
    """
    sent, taken = (
        pl.col(f"eth_{end}").is_in(sorted(own)).fill_null(value=False) for end in ("src", "dst")
    )
    frames = [
        vantage.packets.lazy()
        .filter(pl.col("flow").is_not_null() & pl.col("time_ns").is_not_null() & (sent | taken))
        .select(
            *("flow", "ip_id", "tcp_seq", "tcp_ack", "payload_len"),
            sent.alias("sent"),
            clocks.common_time(number).alias("time_ns"),
        )
        .join(vantage.flows.lazy().select("flow", *_CONVERSATION), on="flow")
        .with_columns(
            pl.lit(number).alias("vantage"),
            pl.lit((clocks.error_ns[number] or 0) + (clocks.error_ns[index] or 0), pl.Int64).alias(
                "error"
            ),
        )
        for number, vantage in enumerate(vantages)
        if number != index and clocks.offset_ns[number] is not None
    ]
    if not frames:
        return pl.DataFrame(schema={**pauses.select(_PAUSE).schema, "packets": pl.Int64})
    answered = pl.col("tcp_ack").filter(~pl.col("sent")).drop_nulls().n_unique() > 1
    packet = pl.struct("sent", "ip_id", "tcp_seq", "tcp_ack", "payload_len")
    time = pl.col("time_ns")
    from_ns, until_ns = (clocks.common_time(index, edge) for edge in ("from_ns", "until_ns"))
    return (
        pl.concat(frames)
        .join(_conversations(vantages[index]), on=_CONVERSATION)
        .sort("time_ns")
        .join_asof(
            pauses.lazy().select(*_PAUSE, from_ns, until_ns).sort("from_ns"),
            left_on="time_ns",
            right_on="from_ns",
            by="capture",
            check_sortedness=False,
        )
        .filter(
            time > pl.col("from_ns") + pl.col("error"), time < pl.col("until_ns") - pl.col("error")
        )
        .group_by(*_PAUSE, "vantage", "flow")
        .agg(
            pl.when(answered)
            .then(packet.n_unique())
            .otherwise(packet.filter("sent").n_unique())
            .alias("packets")
        )
        .group_by(*_PAUSE, "vantage")
        .agg(pl.col("packets").sum().cast(pl.Int64))
        .drop("vantage")
        .collect()
    )
