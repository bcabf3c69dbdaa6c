"""How far the clocks of vantages are apart, from packets that several of them saw.

A packet cannot arrive before it left. One that goes from A to B bounds the offset of B's clock
from above (by the time it seems to need), one that goes from B to A bounds it from below; the
least delays of both directions leave an interval (Paxson, On Calibrating Measurements of Packet
Transit Times, SIGMETRICS 1998). In LVS-DR and LVS-TUN the packets shared with a realserver go one
way only. Then ARP from the other
side helps, and cause and effect: an acknowledgement at A was sent after what it acknowledges left
B.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from pcapdiag.cluster import identity, links
from pcapdiag.cluster.macs import find as find_macs
from pcapdiag.protocols import TcpFlag

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pcapdiag.cluster.links import Links
    from pcapdiag.cluster.topology import Topology
    from pcapdiag.flows.vantage import VantageTables

MAX_FLOWS: Final = 4096
"""Groups of flows, spread over the captures, whose packets are compared: the least delay of some
ten thousand packets is not made better by a million."""

TIMESTAMP_NOISE_NS: Final = 200_000
"""By how much bounds may contradict each other: frames are stamped in batches, behind the NIC's
interrupt moderation and GRO, some tens of microseconds late."""

RESOLUTION_NS: Final = 1_000
"""What classic pcap files cut off each time: no bound is tighter."""

SAME_WIRE_NS: Final = 1_000_000
"""Longest way of a frame that two captures show with one TTL: they are on one link."""

DRIFT_WINDOWS: Final = 16
"""Parts of the common span whose least delays show a drift."""

MIN_DRIFT_SPAN_NS: Final = 30_000_000_000
"""Below this a drift of 50 ppm, which is much for a PC clock, is 1.5 ms: less than delays vary."""

ARP_MATCH_NS: Final = 50_000_000
"""How near an ARP frame must be to its other sight, both clocks roughly aligned."""

ARP_ALONE_NS: Final = 1_000_000_000
"""No equal ARP frame this near, or it is not known which was seen."""


@dataclass(frozen=True)
class Clocks:
    """What to do with each vantage's times.

    offset_ns: to ADD to a vantage's time to get the common clock, at the middle of its capture;
    None: not
        known. error_ns: the true offset is within offset +- error; None: not bounded. reasons: one
        sentence a vantage. drift_ppb: parts per billion by which the vantage's clock runs fast.
        reference: index of the vantage whose clock is the common one. middle_ns: where offset_ns
        holds.
    """

    offset_ns: tuple[int | None, ...]
    error_ns: tuple[int | None, ...]
    reasons: tuple[str, ...]
    drift_ppb: tuple[int, ...] = ()
    middle_ns: tuple[int, ...] = ()
    reference: int = 0

    def common(self, vantage: int, time_ns: int) -> int | None:
        """Return a vantage's time on the common clock; None where its clock is not aligned."""
        offset = self.offset_ns[vantage]
        if offset is None:
            return None
        drift = self.drift_ppb[vantage] if self.drift_ppb else 0
        middle = self.middle_ns[vantage] if self.middle_ns else 0
        return time_ns + offset - (time_ns - middle) * drift // 1_000_000_000


@dataclass
class _Bounds:
    """Bounds on how far a vantage's clock is ahead of another's, as points (time, bound)."""

    upper: list[NDArray[np.int64]] = field(default_factory=list)
    lower: list[NDArray[np.int64]] = field(default_factory=list)
    packets: int = 0

    def add(self, *, time: pl.Series, ahead: pl.Series, upper: bool) -> None:
        """Add points; each is (time, bound)."""
        if len(time):
            points = np.stack([time.to_numpy(), ahead.to_numpy()]).astype(np.int64)
            (self.upper if upper else self.lower).append(points)

    def flipped(self) -> _Bounds:
        """Return the bounds as seen from the other vantage."""
        turned = _Bounds(packets=self.packets)
        turned.upper = [np.stack([part[0] - part[1], -part[1]]) for part in self.lower]
        turned.lower = [np.stack([part[0] - part[1], -part[1]]) for part in self.upper]
        return turned


@dataclass(frozen=True)
class _Fit:
    """How far ahead a clock is: at `middle`, with error, drift and a reason; None: not known."""

    ahead: int | None
    error: int | None
    drift_ppb: int
    middle: int
    reason: str


def align(vantages: Sequence[VantageTables], topology: Topology | None = None) -> Clocks:
    """Return the clocks of all vantages, relative to the one that shares most with the others.

    `topology` is only a saving: what it knows already is not computed again.
    """
    count = len(vantages)
    if count == 1:
        return Clocks((0,), (0,), ("the only vantage: its clock is the common one",), (0,), (0,), 0)
    found = topology.observed.links if topology is not None else links.find(vantages)
    own = topology.vantage_macs if topology is not None else find_macs(vantages).own
    seen = _shared(vantages, found)
    pairs = {
        (one, other): _pair(vantages, found, seen, own, one, other)
        for one in range(count)
        for other in range(one + 1, count)
    }
    weight = np.zeros((count, count), dtype=np.int64)
    for (one, other), bounds in pairs.items():
        weight[one, other] = weight[other, one] = bounds.packets
    reference = int(np.argmax(weight.sum(axis=1)))
    return _tree(vantages, pairs, weight, reference)


def _tree(
    vantages: Sequence[VantageTables],
    pairs: dict[tuple[int, int], _Bounds],
    weight: NDArray[np.int64],
    reference: int,
) -> Clocks:
    """Align each vantage with the aligned one it shares most packets with."""
    count = len(vantages)
    offset: list[int | None] = [None] * count
    error: list[int | None] = [None] * count
    reasons = [f"no packet was seen both here and at {vantages[reference].name}"] * count
    drift, middle = [0] * count, [0] * count
    offset[reference], error[reference] = 0, 0
    reasons[reference] = "its clock is the common one"
    done, refused = {reference}, set[int]()
    while True:
        edges = [
            (int(weight[inside, new]), -inside, -new)
            for inside in done
            for new in range(count)
            if new not in done and new not in refused and weight[inside, new] > 0
        ]
        if not edges:
            break
        _, inside, new = (abs(item) for item in max(edges))
        bounds = pairs[min(inside, new), max(inside, new)]
        fit = _fit(bounds if inside < new else bounds.flipped(), vantages[inside].name)
        reasons[new] = fit.reason
        base = offset[inside]
        if fit.ahead is None or base is None:
            refused.add(new)
            continue
        offset[new] = base - fit.ahead
        before = error[inside]
        error[new] = None if before is None or fit.error is None else before + fit.error
        drift[new] = drift[inside] + fit.drift_ppb
        middle[new] = fit.middle
        done.add(new)
    return Clocks(
        tuple(offset), tuple(error), tuple(reasons), tuple(drift), tuple(middle), reference
    )


def _shared(vantages: Sequence[VantageTables], found: Links) -> pl.DataFrame:
    """Return the packets of flows that several vantages saw, one row a first sight.

    Columns: same (equal where the addresses stayed), changed (equal where the server's may have
    been translated), vantage, time_ns, ttl, eth_src, eth_dst.
    """
    nodes = found.nodes.with_columns(pl.Series("group", found.group))
    several = nodes.filter(pl.col("vantage").n_unique().over("group") > 1)
    groups = several.group_by("group").agg(pl.col("first_ns").min()).sort("first_ns", "group")
    step = max(1, len(groups) // MAX_FLOWS)
    chosen = several.join(groups.gather_every(step), on="group", how="semi")
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
    return sights.select(
        pl.struct("group", "tuple", "translated").hash().alias("same"),
        pl.struct("group", "translated").hash().alias("changed"),
        "vantage",
        "time_ns",
        "ttl",
        "eth_src",
        "eth_dst",
    )


def _seen_at_both(seen: pl.DataFrame, one: int, other: int) -> pl.DataFrame:
    """Return the packets that two vantages saw exactly once each, side by side."""
    found = pl.DataFrame()
    for key in ("same", "changed"):
        sides = [
            seen.filter(pl.col("vantage") == index).filter(pl.len().over(key) == 1)
            for index in (one, other)
        ]
        found = sides[0].join(sides[1], on=key, suffix="_2")
        if not found.is_empty():
            break
    return found


def _pair(
    vantages: Sequence[VantageTables],
    found: Links,
    seen: pl.DataFrame,
    own: Sequence[frozenset[int]],
    one: int,
    other: int,
) -> _Bounds:
    """Return the bounds on how far the clock of `other` is ahead of that of `one`."""
    both = _seen_at_both(seen, one, other).with_columns(
        (pl.col("time_ns_2") - pl.col("time_ns")).alias("ahead"),
        (pl.col("ttl").cast(pl.Int16) - pl.col("ttl_2").cast(pl.Int16)).alias("hops"),
    )
    bounds = _Bounds(packets=len(both))
    if both.is_empty():
        return bounds
    sent = pl.col("eth_src").is_in(list(own[one])) | pl.col("eth_dst").is_in(list(own[other]))
    taken = pl.col("eth_src").is_in(list(own[other])) | pl.col("eth_dst").is_in(list(own[one]))
    same = pl.col("hops") == 0
    there = (pl.col("hops") > 0) | (same & sent.fill_null(False) & ~taken.fill_null(False))
    back = (pl.col("hops") < 0) | (same & taken.fill_null(False) & ~sent.fill_null(False))
    for condition, upper in ((there, True), (back, False)):
        rows = both.filter(condition.fill_null(False))
        bounds.add(time=rows["time_ns"], ahead=rows["ahead"], upper=upper)
    open_ = both.filter(~(there.fill_null(False) | back.fill_null(False)))
    # Which of two captures on one link was first is not known, only that the way is short.
    bounds.add(time=open_["time_ns"], ahead=open_["ahead"] + SAME_WIRE_NS, upper=True)
    bounds.add(time=open_["time_ns"], ahead=open_["ahead"] - SAME_WIRE_NS, upper=False)
    _add_causes(vantages, found, bounds, one, other)
    _add_arp(vantages, own, bounds, one, other)
    return bounds


def _add_causes(
    vantages: Sequence[VantageTables], found: Links, bounds: _Bounds, one: int, other: int
) -> None:
    """Add what handshakes say: a SYN-ACK left before the acknowledgement of it was sent."""
    answers = [_synacks(vantages[index], found, index) for index in (one, other)]
    confirmed = [_confirmations(vantages[index], found, index) for index in (one, other)]
    for answer, confirmation, upper in (
        (answers[0], confirmed[1], True),
        (answers[1], confirmed[0], False),
    ):
        rows = answer.join(confirmation, on=["group", "number"], suffix="_ack")
        ahead = (
            rows["time_ns_ack"] - rows["time_ns"]
            if upper
            else rows["time_ns"] - rows["time_ns_ack"]
        )
        bounds.add(time=rows["time_ns"] if upper else rows["time_ns_ack"], ahead=ahead, upper=upper)


def _synacks(vantage: VantageTables, found: Links, index: int) -> pl.DataFrame:
    """Return the first SYN-ACK of each flow: group, number (its sequence number + 1), time_ns."""
    flags = int(TcpFlag.SYN | TcpFlag.ACK)
    return _of_groups(
        vantage.packets.filter(
            ((pl.col("tcp_flags") & flags) == flags)
            & ~pl.col("by_orig")
            & pl.col("copy_of").is_null()
        ).select(
            "flow", ((pl.col("tcp_seq").cast(pl.UInt64) + 1) % 2**32).alias("number"), "time_ns"
        ),
        found,
        index,
    )


def _confirmations(vantage: VantageTables, found: Links, index: int) -> pl.DataFrame:
    """Return per flow and acknowledgement number the first packet of the originator with it."""
    opening = pl.col("time_ns").rank("ordinal").over("flow") <= 4
    return _of_groups(
        vantage.packets.filter(
            ((pl.col("tcp_flags") & int(TcpFlag.ACK | TcpFlag.SYN)) == int(TcpFlag.ACK))
            & pl.col("by_orig")
            & pl.col("copy_of").is_null()
        )
        .filter(opening)
        .select("flow", pl.col("tcp_ack").cast(pl.UInt64).alias("number"), "time_ns"),
        found,
        index,
    )


def _of_groups(rows: pl.DataFrame, found: Links, index: int) -> pl.DataFrame:
    """Return the earliest row of each group of flows and number."""
    nodes = found.nodes.with_columns(pl.Series("group", found.group))
    here = nodes.filter(pl.col("vantage") == index).select("flow", "group")
    return (
        rows.join(here, on="flow")
        .group_by("group", "number")
        .agg(pl.col("time_ns").drop_nulls().min())
    ).drop_nulls("time_ns")


def _add_arp(
    vantages: Sequence[VantageTables],
    own: Sequence[frozenset[int]],
    bounds: _Bounds,
    one: int,
    other: int,
) -> None:
    """Add ARP and neighbour discovery frames that one of the two hosts sent and the other got.

    They are alike every time, so that they count only where no equal one is near.
    """
    rough = _rough(bounds)
    if rough is None:
        return
    for sender, receiver, upper in ((one, other, True), (other, one, False)):
        shift = rough if upper else -rough
        frames = _arp_frames(vantages[sender]).filter(
            pl.col("eth_src").is_in(list(own[sender]))
            & ~pl.col("eth_src").is_in(list(own[receiver]))
        )
        heard = _arp_frames(vantages[receiver])
        if frames.is_empty() or heard.is_empty():
            continue
        both = (
            frames.with_columns((pl.col("time_ns") + shift).alias("expected"))
            .sort("expected")
            .join_asof(
                heard.with_columns(pl.col("time_ns").alias("arrived")).sort("arrived"),
                left_on="expected",
                right_on="arrived",
                by="key",
                strategy="nearest",
                tolerance=ARP_MATCH_NS,
                check_sortedness=False,
            )
        )
        both = both.drop_nulls("arrived")
        ahead = both["arrived"] - both["time_ns"] if upper else both["time_ns"] - both["arrived"]
        time = both["time_ns"] if upper else both["arrived"]
        bounds.add(time=time, ahead=ahead, upper=upper)


def _rough(bounds: _Bounds) -> int | None:
    """Return the offset within some milliseconds, or None: the least delay that was seen."""
    if bounds.upper:
        return min(int(part[1].min()) for part in bounds.upper)
    if bounds.lower:
        return max(int(part[1].max()) for part in bounds.lower)
    return None


def _arp_frames(vantage: VantageTables) -> pl.DataFrame:
    """Return the ARP and ND frames without an equal within ARP_ALONE_NS: key, eth_src, time_ns."""
    times = vantage.packets.select("time_ns", "copy_of").with_row_index("row")
    rows = vantage.arp.join(times, on="row").filter(
        pl.col("time_ns").is_not_null() & pl.col("copy_of").is_null()
    )
    keyed = rows.select(
        pl.struct("op", "sender_mac", "sender_hi", "sender_lo", "target_hi", "target_lo", "eth_src")
        .hash()
        .alias("key"),
        "eth_src",
        "time_ns",
    ).sort("key", "time_ns")
    before = pl.col("time_ns") - pl.col("time_ns").shift(1).over("key")
    after = pl.col("time_ns").shift(-1).over("key") - pl.col("time_ns")
    alone = (before.fill_null(ARP_ALONE_NS) >= ARP_ALONE_NS) & (
        after.fill_null(ARP_ALONE_NS) >= ARP_ALONE_NS
    )
    return keyed.filter(alone)


def _fit(bounds: _Bounds, name: str) -> _Fit:
    """Return how far ahead a clock is, from bounds; refused where they contradict each other."""
    upper = np.concatenate(bounds.upper, axis=1) if bounds.upper else np.empty((2, 0), np.int64)
    lower = np.concatenate(bounds.lower, axis=1) if bounds.lower else np.empty((2, 0), np.int64)
    times = np.concatenate([upper[0], lower[0]])
    begin, end = int(times.min()), int(times.max())
    middle = (begin + end) // 2
    slope = _slope(upper, lower, begin, end)
    fits = [_interval(upper, lower, middle, item) for item in ((slope, 0.0) if slope else (0.0,))]
    widths = [None if low is None or high is None else high - low for low, high in fits]
    chosen = 0
    if len(fits) == 2 and (widths[0] is None or (widths[1] is not None and widths[1] >= 0)):
        # The constant clock explains everything: a drift is claimed only if it explains more.
        better = widths[0] is not None and widths[1] is not None and widths[0] >= 0
        chosen = 0 if better and abs(slope) * (end - begin) > 2 * TIMESTAMP_NOISE_NS else 1
    low, high = fits[chosen]
    drift = round((slope, 0.0)[chosen] * 1e9) if len(fits) == 2 else 0
    shared = f"{bounds.packets} packets shared with {name}"
    if low is None or high is None:
        ahead = high if high is not None else low
        reason = f"{shared}, all in one direction: the offset is bounded from one side only"
        return _Fit(ahead, None, drift, middle, reason)
    if low > high + TIMESTAMP_NOISE_NS:
        reason = (
            f"{shared} contradict each other by {(low - high) / 1e6:.3f} ms: a clock was stepped or"
            " runs unevenly"
        )
        return _Fit(None, None, 0, middle, reason)
    error = max((high - low + 1) // 2, (low - high), RESOLUTION_NS)
    reason = f"{shared}, offset within {error / 1e6:.3f} ms"
    if drift:
        reason += f", drift {drift / 1000:.1f} ppm"
    return _Fit((low + high) // 2, error, drift, middle, reason)


def _interval(
    upper: NDArray[np.int64], lower: NDArray[np.int64], middle: int, slope: float
) -> tuple[int | None, int | None]:
    """Return the lowest and highest offset at `middle` that the bounds leave at a given drift."""

    def level(points: NDArray[np.int64]) -> NDArray[np.int64]:
        drifted = np.rint((points[0] - middle) * slope).astype(np.int64)
        result: NDArray[np.int64] = points[1] - drifted
        return result

    return (
        int(level(lower).max()) if lower.shape[1] else None,
        int(level(upper).min()) if upper.shape[1] else None,
    )


def _slope(upper: NDArray[np.int64], lower: NDArray[np.int64], begin: int, end: int) -> float:
    """Return the drift that the least delays of equal windows suggest, 0.0 in a short span."""
    if end - begin < MIN_DRIFT_SPAN_NS:
        return 0.0
    edges = np.linspace(begin, end + 1, DRIFT_WINDOWS + 1)
    slopes: list[float] = []
    for points, best in ((upper, np.min), (lower, np.max)):
        where = np.digitize(points[0], edges) - 1
        levels = [
            (float(edges[window]), float(best(points[1][where == window])))
            for window in range(DRIFT_WINDOWS)
            if np.any(where == window)
        ]
        if len(levels) < 4:
            continue
        spot = np.array(levels)
        first, second = np.triu_indices(len(spot), 1)
        run = spot[second, 0] - spot[first, 0]
        slopes.append(float(np.median((spot[second, 1] - spot[first, 1]) / run)))
    return float(np.mean(slopes)) if slopes else 0.0
