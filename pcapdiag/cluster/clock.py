"""How far the clocks of vantages are apart, from packets that several of them saw.

A packet cannot arrive before it left. One that goes from A to B bounds the offset of B's clock
from above (by the time it seems to need), one that goes from B to A bounds it from below; the
least delays of both directions leave an interval (Paxson, On Calibrating Measurements of Packet
Transit Times, SIGMETRICS 1998). In LVS-DR and LVS-TUN the packets shared with a realserver go one
way only; delays.py says what helps there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from pcapdiag.cluster.cast.macs import find as find_macs
from pcapdiag.cluster.clocks import delays, steps
from pcapdiag.cluster.matching import links
from pcapdiag.cluster.orientation import oriented

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pcapdiag.cluster.clocks.delays import Bounds
    from pcapdiag.cluster.topology import Topology
    from pcapdiag.flows.vantage import VantageTables

TIMESTAMP_NOISE_NS: Final = 200_000
"""By how much bounds may contradict each other: frames are stamped in batches, behind the NIC's
interrupt moderation and GRO, some tens of microseconds late."""

RESOLUTION_NS: Final = 1_000
"""What classic pcap files cut off each time: no bound is tighter."""

DRIFT_WINDOWS: Final = 16
"""Parts of the common span whose least delays show a drift."""

MIN_DRIFT_SPAN_NS: Final = 30_000_000_000
"""Below this a drift of 50 ppm, which is much for a PC clock, is 1.5 ms: less than delays vary."""

UNKNOWN_DRIFT: Final = 100e-6
"""What two such clocks may drift apart where too little was shared to show it."""

DRIFT_STEPS: Final = 30
"""Thirds left out in search of a drift: MAX_DRIFT to a part in 100,000."""

MAX_DRIFT: Final = 2 * UNKNOWN_DRIFT
"""What two crystals, each as bad as is sold, may drift apart: more is a clock that was set."""


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

    def common_time(self, vantage: int, column: str = "time_ns") -> pl.Expr:
        """Return a vantage's times in a column as times on the common clock.

        Where its clock is not aligned they stay as they are: nothing better is known.
        """
        time, offset = pl.col(column), self.offset_ns[vantage]
        drift = self.drift_ppb[vantage] if self.drift_ppb else 0
        if offset is None:
            return time
        if not drift:
            return time + offset
        return time + offset - (time - self.middle_ns[vantage]) * drift // 1_000_000_000


@dataclass(frozen=True)
class _Fit:
    """How far ahead a clock is: at `middle`, with error, drift and a reason; None: not known.

    `middle` is a time of the other clock.
    """

    ahead: int | None
    error: int | None
    drift_ppb: int
    middle: int
    reason: str


def align(vantages: Sequence[VantageTables], topology: Topology | None = None) -> Clocks:
    """Return the clocks of all vantages, relative to the one that shares most with the others.

    `topology` saves work, and knows whose MACs are whose where frames alone leave two candidates:
    which way a frame went on a link that both captures are of.
    """
    count = len(vantages)
    if count == 1:
        return Clocks((0,), (0,), ("the only vantage: its clock is the common one",), (0,), (0,), 0)
    vantages = oriented(vantages)
    if topology is not None:
        own, seen = topology.vantage_macs, topology.observed.shared
    else:
        own, seen = find_macs(vantages).own, delays.shared(vantages, links.find(vantages))
    pairs = {
        (one, other): delays.between(vantages, seen, own, one, other)
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
    pairs: dict[tuple[int, int], Bounds],
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
        base -= (fit.middle - middle[inside]) * drift[inside] // 1_000_000_000
        offset[new] = base - fit.ahead
        before = error[inside]
        error[new] = None if before is None or fit.error is None else before + fit.error
        drift[new] = drift[inside] + fit.drift_ppb
        # Both vantages' times count from the moment that the fit is about, each on its own clock.
        middle[new] = fit.middle + fit.ahead
        done.add(new)
    return Clocks(
        tuple(offset), tuple(error), tuple(reasons), tuple(drift), tuple(middle), reference
    )


def _fit(bounds: Bounds, name: str) -> _Fit:
    """Return how far ahead a clock is, from bounds; refused where they contradict each other."""
    upper = np.concatenate(bounds.upper, axis=1) if bounds.upper else np.empty((2, 0), np.int64)
    lower = np.concatenate(bounds.lower, axis=1) if bounds.lower else np.empty((2, 0), np.int64)
    times = np.concatenate([upper[0], lower[0]])
    begin, end = int(times.min()), int(times.max())
    middle = (begin + end) // 2
    slope, doubt = _slope(upper, lower, begin, end)
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
        slope = _reconciling(upper, lower, middle)
        least, most = _interval(upper, lower, middle, slope)
        if least is not None and most is not None and least <= most + TIMESTAMP_NOISE_NS:
            low, high, drift, doubt = least, most, round(slope * 1e9), UNKNOWN_DRIFT
    if low > high + TIMESTAMP_NOISE_NS:
        reason = (
            f"{shared} contradict each other by {(low - high) / 1e6:.3f} ms:"
            f" {steps.sentence(steps.moment(upper, lower, TIMESTAMP_NOISE_NS), name)}"
        )
        return _Fit(None, None, 0, middle, reason)
    error = max((high - low + 1) // 2, (low - high), RESOLUTION_NS)
    error += round((end - begin) / 2 * doubt)
    if drift:
        # Read off the same bounds, the drift leaves as much again open at both ends.
        error += max((high - low + 1) // 2, 0)
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


def _reconciling(upper: NDArray[np.int64], lower: NDArray[np.int64], middle: int) -> float:
    """Return the drift, MAX_DRIFT at most, at which bounds contradict each other least.

    By how much they do is a convex function of the drift, so that thirds can be left out.
    """

    def contradiction(slope: float) -> int:
        low, high = _interval(upper, lower, middle, slope)
        return 0 if low is None or high is None else low - high

    least, most = -MAX_DRIFT, MAX_DRIFT
    for _ in range(DRIFT_STEPS):
        third = (most - least) / 3
        if contradiction(least + third) <= contradiction(most - third):
            most -= third
        else:
            least += third
    return (least + most) / 2


def _slope(
    upper: NDArray[np.int64], lower: NDArray[np.int64], begin: int, end: int
) -> tuple[float, float]:
    """Return the drift that the least delays of equal windows suggest, and how far it may be off.

    They tell nothing in a short span.
    """
    if end - begin < MIN_DRIFT_SPAN_NS:
        return 0.0, UNKNOWN_DRIFT
    edges = np.linspace(begin, end + 1, DRIFT_WINDOWS + 1)
    slopes: list[float] = []
    for points, best in ((upper, np.argmin), (lower, np.argmax)):
        where = np.digitize(points[0], edges) - 1
        inside = [points[:, where == window] for window in range(DRIFT_WINDOWS)]
        extremes = [part[:, best(part[1])] for part in inside if part.shape[1]]
        spot = np.array(extremes, dtype=np.float64).reshape(-1, 2)
        first, second = np.triu_indices(len(spot), 1)
        run = spot[second, 0] - spot[first, 0]
        # What lies near together says little about a slope.
        far = (run >= MIN_DRIFT_SPAN_NS) & (run >= run.max(initial=0) / 2)
        if far.any():
            rise = spot[second, 1] - spot[first, 1]
            slopes.append(float(np.median(rise[far] / run[far])))
    if not slopes:
        return 0.0, UNKNOWN_DRIFT
    return float(np.mean(slopes)), (max(slopes) - min(slopes)) / 2
