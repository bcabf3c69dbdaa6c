"""Bounds on how far two vantages' clocks are apart, from what both of them saw.

A packet that goes from A to B bounds the offset of B's clock from above, by the time it seems to
need; one that goes from B to A bounds it from below. Where none does, ARP frames help, and cause
and effect: an acknowledgement was sent after what it acknowledges.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from pcapdiag import spool
from pcapdiag.cluster.matching import identity
from pcapdiag.protocols import TcpFlag

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pcapdiag.cluster.matching.links import Links
    from pcapdiag.flows.vantage import VantageTables

MAX_FLOWS: Final = 4096
"""Groups of flows, spread over the captures, whose packets are compared: the least delay of some
ten thousand packets is not made better by a million."""

SAME_WIRE_NS: Final = 1_000_000
"""Longest way of a frame that two captures show with one TTL: they are on one link."""

ARP_MATCH_NS: Final = 50_000_000
"""How near an ARP frame must be to its other sight, both clocks roughly aligned."""

ARP_ALONE_NS: Final = 1_000_000_000
"""No equal ARP frame this near, or it is not known which was seen."""

ARP_DOUBLE_NS: Final = 1_000_000
"""An equal ARP frame this soon is the same one, captured twice: nobody asks again before 1 s."""


@dataclass
class Bounds:
    """Bounds on how far a vantage's clock is ahead of another's, as points (time, bound).

    The times are the other one's.
    """

    upper: list[NDArray[np.int64]] = field(default_factory=list)
    lower: list[NDArray[np.int64]] = field(default_factory=list)
    packets: int = 0

    def add(self, *, time: pl.Series, ahead: pl.Series, upper: bool) -> None:
        """Add points; each is (time, bound)."""
        if len(time):
            points = np.stack([time.to_numpy(), ahead.to_numpy()]).astype(np.int64)
            (self.upper if upper else self.lower).append(points)

    def flipped(self) -> Bounds:
        """Return the bounds as seen from the other vantage."""
        turned = Bounds(packets=self.packets)
        turned.upper = [np.stack([part[0] + part[1], -part[1]]) for part in self.lower]
        turned.lower = [np.stack([part[0] + part[1], -part[1]]) for part in self.upper]
        return turned


@dataclass(frozen=True)
class Shared:
    """What several vantages saw of the same flows.

    flows: a sample of the flows that several vantages saw: vantage, flow, node, group, tuple.
    sights: their
        packets, first sights only: same (equal where the addresses stayed), changed (equal where
        the server's may have been translated), vantage, time_ns, ttl, eth_src, eth_dst.
    neighbours: per vantage its ARP and neighbour discovery frames, see _arp_frames.
    handshakes: by vantage, once some pair needs them: _synacks and _confirmations.
    """

    flows: pl.DataFrame
    sights: pl.DataFrame
    neighbours: tuple[pl.DataFrame, ...]
    handshakes: dict[int, tuple[pl.DataFrame, pl.DataFrame]] = field(default_factory=dict)

    @cached_property
    def once(self) -> dict[str, dict[int, pl.DataFrame]]:
        """Return by same and changed, and by vantage, the packets that it saw exactly once."""
        result = {}
        for key in ("same", "changed"):
            single = self.sights.filter(pl.len().over("vantage", key) == 1)
            parts = single.partition_by("vantage", as_dict=True)
            result[key] = {index: parts.get((index,), single.clear()) for index in self.indices}
        return result

    @property
    def indices(self) -> range:
        """Return the vantages' indices."""
        return range(len(self.neighbours))


def shared(vantages: Sequence[VantageTables], found: Links) -> Shared:
    """Return a sample, spread over the captures, of what several vantages saw."""
    nodes = found.nodes.with_columns(pl.Series("group", found.group))
    several = nodes.filter(pl.col("vantage").n_unique().over("group") > 1)
    groups = several.group_by("group").agg(pl.col("first_ns").min()).sort("first_ns", "group")
    step = max(1, len(groups) // MAX_FLOWS)
    chosen = several.join(groups.gather_every(step), on="group", how="semi").select(
        "vantage", "flow", "node", "group", "tuple"
    )
    parts = [
        identity.marks(vantage, chosen.filter(pl.col("vantage") == index).select("node", "flow"))
        .filter(pl.col("time_ns").is_not_null())
        .select(pl.lit(index, pl.UInt16).alias("vantage"), pl.all())
        for index, vantage in enumerate(vantages)
    ]
    sights = pl.concat(parts).join(
        chosen.select("node", "group", "tuple"), on="node", maintain_order="left"
    )
    # A translated packet keeps its originator only; within one group that is mark enough.
    timed = sights.select(
        pl.struct("group", "tuple", "translated").hash().alias("same"),
        pl.struct("group", "translated").hash().alias("changed"),
        "vantage",
        "time_ns",
        "ttl",
        "eth_src",
        "eth_dst",
    )
    return Shared(chosen, timed, tuple(_arp_frames(vantage) for vantage in vantages))


def _seen_at_both(seen: Shared, one: int, other: int) -> pl.DataFrame:
    """Return the packets that two vantages saw exactly once each, side by side."""
    found = pl.DataFrame()
    for key in ("same", "changed"):
        found = seen.once[key][one].join(seen.once[key][other], on=key, suffix="_2")
        if not found.is_empty():
            break
    return found


def between(
    vantages: Sequence[VantageTables],
    seen: Shared,
    own: Sequence[frozenset[int]],
    one: int,
    other: int,
) -> Bounds:
    """Return the bounds on how far the clock of `other` is ahead of that of `one`."""
    both = _seen_at_both(seen, one, other)
    bounds = Bounds(packets=len(both))
    if both.is_empty():
        return bounds
    sent = pl.col("eth_src").is_in(list(own[one])) | pl.col("eth_dst").is_in(list(own[other]))
    taken = pl.col("eth_src").is_in(list(own[other])) | pl.col("eth_dst").is_in(list(own[one]))
    hops = pl.col("ttl").cast(pl.Int16) - pl.col("ttl_2").cast(pl.Int16)
    by_mac = sent.fill_null(False).cast(pl.Int16) - taken.fill_null(False).cast(pl.Int16)
    ways = both.select(
        "time_ns",
        "eth_src",
        (pl.col("time_ns_2") - pl.col("time_ns")).alias("ahead"),
        pl.when(hops == 0).then(by_mac).otherwise(hops.sign()).fill_null(0).alias("way"),
    )
    for way, upper in ((1, True), (-1, False)):
        rows = ways.filter(pl.col("way") == way)
        bounds.add(time=rows["time_ns"], ahead=rows["ahead"], upper=upper)
    _add_open(bounds, ways.filter(pl.col("way") == 0))
    if not (bounds.upper and bounds.lower):
        _add_causes(vantages, seen, bounds, one, other)
    _add_arp(seen, own, bounds, one, other)
    return bounds


def _add_open(bounds: Bounds, rows: pl.DataFrame) -> None:
    """Add what packets of one link say of which it is not known who sent them.

    Between two hosts only one way round fits; else it is only known that the way is short.
    """
    if rows.is_empty():
        return
    senders = rows.get_column("eth_src").drop_nulls().unique().sort().head(3)
    ways = [rows.filter(pl.col("eth_src") == mac) for mac in senders]
    least = [way.select(pl.col("ahead").min()).item() for way in ways]
    most = [way.select(pl.col("ahead").max()).item() for way in ways]
    first = next((one for one in (0, 1) if len(ways) == 2 and least[one] >= most[1 - one]), None)
    if first is not None:
        for way, upper in ((ways[first], True), (ways[1 - first], False)):
            bounds.add(time=way["time_ns"], ahead=way["ahead"], upper=upper)
        return
    bounds.add(time=rows["time_ns"], ahead=rows["ahead"] + SAME_WIRE_NS, upper=True)
    bounds.add(time=rows["time_ns"], ahead=rows["ahead"] - SAME_WIRE_NS, upper=False)


def _add_causes(
    vantages: Sequence[VantageTables], seen: Shared, bounds: Bounds, one: int, other: int
) -> None:
    """Add what handshakes say: a SYN-ACK left before the acknowledgement of it was sent."""
    for index in (one, other):
        if index not in seen.handshakes:
            vantage = vantages[index]
            answers, confirmed = (
                _synacks(vantage, seen, index),
                _confirmations(vantage, seen, index),
            )
            seen.handshakes[index] = answers, confirmed
    for answer, confirmation, upper in (
        (seen.handshakes[one][0], seen.handshakes[other][1], True),
        (seen.handshakes[other][0], seen.handshakes[one][1], False),
    ):
        rows = answer.join(confirmation, on=["group", "number"], suffix="_ack")
        ahead = (
            rows["time_ns_ack"] - rows["time_ns"]
            if upper
            else rows["time_ns"] - rows["time_ns_ack"]
        )
        bounds.add(time=rows["time_ns"] if upper else rows["time_ns_ack"], ahead=ahead, upper=upper)


def _synacks(vantage: VantageTables, seen: Shared, index: int) -> pl.DataFrame:
    """Return the first SYN-ACK of each flow: group, number (its sequence number + 1), time_ns."""
    flags = int(TcpFlag.SYN | TcpFlag.ACK)
    return _of_groups(
        vantage.packets.lazy()
        .filter(
            ((pl.col("tcp_flags") & flags) == flags)
            & ~pl.col("by_orig")
            & pl.col("copy_of").is_null()
        )
        .select(
            "flow", ((pl.col("tcp_seq").cast(pl.UInt64) + 1) % 2**32).alias("number"), "time_ns"
        ),
        seen,
        index,
    )


def _confirmations(vantage: VantageTables, seen: Shared, index: int) -> pl.DataFrame:
    """Return per flow and acknowledgement number the first packet of the originator with it."""
    return _of_groups(
        vantage.packets.lazy()
        .filter(
            ((pl.col("tcp_flags") & int(TcpFlag.ACK | TcpFlag.SYN)) == int(TcpFlag.ACK))
            & pl.col("by_orig")
            & pl.col("copy_of").is_null()
        )
        .select("flow", pl.col("tcp_ack").cast(pl.UInt64).alias("number"), "time_ns"),
        seen,
        index,
    )


def _of_groups(rows: pl.LazyFrame, seen: Shared, index: int) -> pl.DataFrame:
    """Return the earliest row of each group of flows and number."""
    here = seen.flows.lazy().filter(pl.col("vantage") == index).select("flow", "group")
    return (
        rows.join(here, on="flow")
        .group_by("group", "number")
        .agg(pl.col("time_ns").drop_nulls().min())
        .drop_nulls("time_ns")
        .collect()
    )


def _add_arp(
    seen: Shared, own: Sequence[frozenset[int]], bounds: Bounds, one: int, other: int
) -> None:
    """Add ARP and neighbour discovery frames that one of the two hosts sent and the other got.

    They are alike every time, so that they count only where no equal one is near.
    """
    rough = _rough(bounds)
    if rough is None:
        return
    for sender, receiver, upper in ((one, other, True), (other, one, False)):
        shift = rough if upper else -rough
        heard = seen.neighbours[receiver]
        mine = sorted(own[sender] - own[receiver])
        if not mine or heard.is_empty() or seen.neighbours[sender].is_empty():
            continue
        frames = seen.neighbours[sender].filter(
            pl.col("eth_src").is_in(mine) & pl.col("key").is_in(heard.get_column("key").implode())
        )
        if frames.is_empty():
            continue
        both = (
            frames.lazy()
            .select("key", "time_ns", (pl.col("time_ns") + shift).alias("expected"))
            .join_asof(
                heard.lazy().select("key", pl.col("time_ns").alias("arrived")),
                left_on="expected",
                right_on="arrived",
                by="key",
                strategy="nearest",
                tolerance=ARP_MATCH_NS,
                check_sortedness=False,
            )
            .drop_nulls("arrived")
            .collect()
        )
        ahead = both["arrived"] - both["time_ns"] if upper else both["time_ns"] - both["arrived"]
        time = both["time_ns"] if upper else both["arrived"]
        bounds.add(time=time, ahead=ahead, upper=upper)


def _rough(bounds: Bounds) -> int | None:
    """Return the offset within some milliseconds, or None: the least delay that was seen."""
    if bounds.upper:
        return min(int(part[1].min()) for part in bounds.upper)
    if bounds.lower:
        return max(int(part[1].max()) for part in bounds.lower)
    return None


def _arp_frames(vantage: VantageTables) -> pl.DataFrame:
    """Return the ARP and ND frames without an equal within ARP_ALONE_NS, by time.

    Columns: key, eth_src, time_ns.
    """
    if vantage.arp.is_empty():
        return pl.DataFrame(schema={"key": pl.UInt64, "eth_src": pl.UInt64, "time_ns": pl.Int64})
    times = spool.at(vantage.packets, vantage.arp.get_column("row"), "time_ns", "copy_of")
    rows = (
        vantage.arp.hstack(times)
        .lazy()
        .filter(pl.col("time_ns").is_not_null() & pl.col("copy_of").is_null())
    )
    keyed = rows.select(
        pl.struct("op", "sender_mac", "sender_hi", "sender_lo", "target_hi", "target_lo", "eth_src")
        .hash()
        .alias("key"),
        "eth_src",
        "time_ns",
    ).sort("key", "time_ns")
    before = pl.col("time_ns") - pl.col("time_ns").shift(1).over("key")
    keyed = keyed.filter(before.fill_null(ARP_ALONE_NS) >= ARP_DOUBLE_NS)
    after = pl.col("time_ns").shift(-1).over("key") - pl.col("time_ns")
    alone = (before.fill_null(ARP_ALONE_NS) >= ARP_ALONE_NS) & (
        after.fill_null(ARP_ALONE_NS) >= ARP_ALONE_NS
    )
    return keyed.filter(alone).sort("time_ns").collect()
