"""Sizes as they were on the wire."""

from __future__ import annotations

import numpy as np
import pytest

from pcapdiag.flows.offload import MAX_MTU, NO_LIMIT, limits, wire_sizes


def sizes(packets: list[tuple[int, int]], limit: int = NO_LIMIT) -> tuple[list[int], bool]:
    """Return the wire sizes of one side's packets (IP length, payload), and its flag."""
    size, payload = np.array(packets, np.uint32).T
    made, offload = wire_sizes(
        size, payload, np.zeros(1, np.int64), np.array([size.max()]), np.array([limit])
    )
    return made.tolist(), bool(offload[0])


def test_limits() -> None:
    """The MSS leaves out the headers of its IP version."""
    made = limits(np.array([1460, 1440, 0]), np.array([True, True, False]), np.array([4, 6, 4]))
    assert made.tolist() == [1500, 1500, NO_LIMIT]


def test_cut_to_the_mss() -> None:
    """What is larger than the peer's MSS allows was cut to it."""
    assert sizes([(1500, 1460), (4420, 4380)], 1500) == ([1500, 1500], True)
    assert sizes([(1500, 1460), (600, 560)], 1500) == ([1500, 600], False)


@pytest.mark.parametrize(("size", "wire"), [(MAX_MTU, MAX_MTU), (MAX_MTU + 1, 0)])
def test_larger_than_any_mtu(size: int, wire: int) -> None:
    """Without an MSS a size tells nothing once it is beyond every MTU."""
    assert sizes([(size, size - 40)]) == ([wire], wire == 0)


def test_multiples_of_a_full_segment() -> None:
    """Without an MSS merged segments are multiples of a full one."""
    assert sizes([(1500, 1448), (2948, 2896), (4396, 4344)]) == ([1500, 1500, 1500], True)


def test_jumbo_frames_beside_small_ones() -> None:
    """A size that is no multiple was on the wire; small segments have multiples by chance."""
    assert sizes([(1500, 1448), (8000, 7948)]) == ([1500, 8000], False)
    assert sizes([(152, 100), (4052, 4000)]) == ([152, 4052], False)
