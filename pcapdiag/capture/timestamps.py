"""pcapng time stamps to nanoseconds (pcapng 4.2, if_tsresol and if_tsoffset)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from pcapdiag.capture.frames import NO_TIME

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GIGA: Final = 1_000_000_000
_MAX_SECONDS: Final = (1 << 63) // _GIGA - 1
"""Seconds that fit as nanoseconds into an int64: the years 1678 to 2261."""

DEFAULT_TSRESOL: Final = 6
"""Microseconds, where an interface says nothing."""


def to_ns(ticks: NDArray[np.uint64], tsresol: int, tsoffset: int) -> NDArray[np.int64]:
    """Return nanoseconds since 1970 of `ticks`, rounded down; NO_TIME beyond int64.

    `tsresol` is the option's byte: 10 to the minus its value, or with the top bit 2 to the minus
    the rest. `tsoffset` are seconds. Exact for every resolution, where Wireshark 4.0 overflows
    beyond 34 bits of fraction.
    """
    exponent = tsresol & 0x7F
    unit = 10 ** (9 - exponent) if tsresol <= 9 else 0
    if (
        unit
        and not tsoffset
        and (not len(ticks) or int(ticks.max()) < _MAX_SECONDS * _GIGA // unit)
    ):
        return ticks.astype(np.int64) * unit  # the ordinary case
    seconds, fraction = _binary(ticks, exponent) if tsresol & 0x80 else _decimal(ticks, exponent)
    far = seconds > np.uint64(3 * _MAX_SECONDS)
    # Where this sum wraps around int64, it comes out far beyond the limits, on the other side.
    whole = np.where(far, np.uint64(0), seconds).astype(np.int64) + tsoffset
    out = far | (whole > _MAX_SECONDS) | (whole < -_MAX_SECONDS)
    whole[out] = 0
    result: NDArray[np.int64] = whole * _GIGA + fraction.astype(np.int64)
    result[out] = NO_TIME
    return result


def _decimal(
    ticks: NDArray[np.uint64], exponent: int
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return whole seconds and nanoseconds of ticks of 10**-exponent seconds."""
    if exponent < 20:  # 10**20 exceeds 64 bits: then there is no whole second in any tick count
        seconds, rest = np.divmod(ticks, np.uint64(10**exponent))
    else:
        seconds, rest = np.zeros_like(ticks), ticks
    if exponent <= 9:
        return seconds, rest * np.uint64(10 ** (9 - exponent))
    if exponent - 9 < 20:
        return seconds, rest // np.uint64(10 ** (exponent - 9))
    return seconds, np.zeros_like(ticks)


def _binary(
    ticks: NDArray[np.uint64], exponent: int
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return whole seconds and nanoseconds of ticks of 2**-exponent seconds."""
    giga = np.uint64(_GIGA)
    if exponent < 64:
        seconds = ticks >> np.uint64(exponent)
        rest = ticks & np.uint64((1 << exponent) - 1)
    else:
        seconds, rest = np.zeros_like(ticks), ticks
    if exponent <= 34:  # rest * 10**9 stays below 2**64
        return seconds, rest * giga >> np.uint64(exponent)
    # rest * 10**9 >> 32, from halves that cannot overflow (the high one stays below 2**62).
    half = np.uint64(32)
    scaled = (rest >> half) * giga + ((rest & np.uint64(0xFFFFFFFF)) * giga >> half)
    shift = exponent - 32
    return seconds, scaled >> np.uint64(shift) if shift < 64 else np.zeros_like(ticks)
