"""pcapng time stamps of every resolution, held against exact fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from pcapdiag.capture.frames import NO_TIME
from pcapdiag.capture.timestamps import to_ns

INT64_MAX = 2**63 - 1


def _exact(ticks: int, tsresol: int, tsoffset: int) -> int:
    base = 2 if tsresol & 0x80 else 10
    return int(Fraction(ticks * 10**9, base ** (tsresol & 0x7F)) // 1) + tsoffset * 10**9


@pytest.mark.parametrize("tsresol", [*range(31), 127, *range(0x80, 0x80 + 70), 0xFF])
@pytest.mark.parametrize("tsoffset", [0, 3600, -5, -(10**9)])
def test_every_resolution_is_exact(tsresol, tsoffset):
    """Rounded down to nanoseconds, exactly; where that is beyond int64, there is no time."""
    base = 2 if tsresol & 0x80 else 10
    now = 1_700_000_000 * base ** (tsresol & 0x7F) + base ** (tsresol & 0x7F) // 3
    ticks = [0, 1, 999_999, 2**32 - 1, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1]
    ticks += [tick for tick in (now - 1, now, now + 1) if tick < 2**64]
    found = to_ns(np.array(ticks, dtype=np.uint64), tsresol, tsoffset).tolist()
    for tick, time in zip(ticks, found, strict=True):
        exact = _exact(tick, tsresol, tsoffset)
        if time == NO_TIME:
            assert abs(exact) > INT64_MAX - 2 * 10**9
        else:
            assert time == exact


@pytest.mark.parametrize("tsoffset", [2**63 - 1, -(2**63), 10**11])
def test_absurd_offsets_give_no_time(tsoffset):
    """An offset that leaves the calendar must not wrap around into it."""
    ticks = np.array([0, 1_700_000_000_000_000, 2**64 - 1], dtype=np.uint64)
    assert to_ns(ticks, 6, tsoffset).tolist() == [NO_TIME] * 3


def test_no_ticks_give_no_times():
    """An empty batch stays empty."""
    assert len(to_ns(np.zeros(0, dtype=np.uint64), 6, 0)) == 0
