"""When a clock was stepped, from bounds that no single offset satisfies."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def moment(
    upper: NDArray[np.int64], lower: NDArray[np.int64], noise_ns: int
) -> tuple[int, int] | None:
    """Return from when until when a clock may have been stepped once; None: once is not enough.

    Bounds are (times, offsets) one above the other, both in ns. What comes before the moment
    leaves an offset, and what comes after it leaves another.
    """
    until = _contradiction(upper, lower, noise_ns)
    mirrored = [np.stack([-part[0], part[1]]) for part in (upper, lower)]
    back = _contradiction(mirrored[0], mirrored[1], noise_ns)
    if until is None or back is None or -back > until:
        return None
    return -back, until


def _contradiction(upper: NDArray[np.int64], lower: NDArray[np.int64], noise_ns: int) -> int | None:
    """Return the time of the first bound, in order of time, that contradicts one before it."""
    count = upper.shape[1]
    time = np.concatenate([upper[0], lower[0]])
    order = np.argsort(time, kind="stable")
    ceiling = np.full(time.size, np.iinfo(np.int64).max // 2)
    floor = np.full(time.size, np.iinfo(np.int64).min // 2)
    ceiling[:count], floor[count:] = upper[1], lower[1]
    highest = np.minimum.accumulate(ceiling[order])
    lowest = np.maximum.accumulate(floor[order])
    # Offsets of clocks in use differ by less than half of what 64 bits hold.
    wrong = np.flatnonzero(lowest // 2 - highest // 2 > noise_ns // 2)
    return int(time[order[wrong[0]]]) if wrong.size else None


def sentence(step: tuple[int, int] | None, name: str) -> str:
    """Return what happened to a clock, by the clock of the vantage named."""
    if step is None:
        return "a clock was stepped more than once or runs unevenly"
    first, last = (_time(item) for item in step)
    return f"a clock was stepped between {first} and {last} by the clock of {name}"


def _time(time_ns: int) -> str:
    whole, rest = divmod(time_ns, 1_000_000_000)
    try:
        day = datetime.fromtimestamp(whole, UTC)
    except (OverflowError, ValueError, OSError):
        return f"{time_ns} ns"
    return f"{day:%Y-%m-%d %H:%M:%S}.{rest // 1_000_000:03} UTC"
