"""Sequence numbers laid out on one line."""

from __future__ import annotations

import numpy as np
import pytest

from pcapdiag.flows.sequence import MAX_JUMP, Axis, lay_out


def axis(*sides: list[tuple[int, int]], resets: tuple[int, ...] = ()) -> Axis:
    """Lay out sides of (sequence number, payload); `resets` are indices of bare resets."""
    packets = [packet for side in sides for packet in side]
    seq = np.array([number % 2**32 for number, _ in packets], np.uint32)
    payload = np.array([length for _, length in packets], np.uint32)
    lengths = np.array([len(side) for side in sides])
    bare = np.zeros(len(packets), np.bool_)
    bare[list(resets)] = True
    return lay_out(seq, payload.astype(np.int64), payload, bare, np.cumsum(lengths) - lengths)


def test_lanes_follow_each_other() -> None:
    """A lane begins where the one before ends, at its side's lowest byte."""
    made = axis([(100, 10), (110, 10)], [(7, 5), (2, 5)])
    assert made.base.tolist() == [0, 20]
    assert made.end.tolist() == [20, 30]
    assert made.left.tolist() == [0, 10, 25, 20]
    assert made.first.tolist() == [100, 2]
    assert made.before.tolist() == [0, 10, 20, 30]


def test_wrap() -> None:
    """Offsets go on where numbers wrap, whatever the order of packets."""
    made = axis([(2**32 - 5, 10), (5, 10), (2**32 - 15, 10)])
    assert made.first.tolist() == [2**32 - 15]
    assert made.left.tolist() == [10, 20, 0]


def test_bare_resets_are_not_placed() -> None:
    """A reset lies empty at its lane's begin, also as the first packet."""
    made = axis([(0, 0), (5000, 10), (5010, 10)], resets=(0,))
    assert made.first.tolist() == [5000]
    assert made.left.tolist() == [0, 0, 10]
    assert made.right.tolist() == [0, 10, 20]


def test_side_of_resets_only() -> None:
    """Such a side is nowhere."""
    made = axis([(0, 0), (77, 0)], [(5, 5)], resets=(0, 1))
    assert made.known.tolist() == [False, True]
    assert made.base.tolist() == [0, 0]


@pytest.mark.parametrize("place", [1, 2, 3])
def test_forged_numbers_are_left_out(place: int) -> None:
    """A number further away than any window is not placed."""
    packets = [(1000, 10), (1010, 10), (1020, 10)]
    packets.insert(place, (1000 + MAX_JUMP + 99, 10))
    made = axis(packets)
    assert made.end.tolist() == [30]


def test_forged_first_number() -> None:
    """Where most packets are far from the first, the first is the odd one."""
    made = axis([(3_000_000_000, 10), *((1000 + 10 * n, 10) for n in range(5))])
    assert made.first.tolist() == [1000]
    assert made.end.tolist() == [50]


def test_long_sides_are_followed() -> None:
    """A side of more than 32 bits is unwrapped step by step, forged packets left out."""
    step = 2**29
    packets = [(n * step, step) for n in range(20)]
    packets.insert(10, (10 * step + 2**31, 10))
    made = axis(packets, [(5, 5)])
    assert made.end.tolist() == [20 * step, 20 * step + 5]
    assert made.long.tolist() == [True, False]
    assert made.left[11] == 10 * step


def test_hostile_lengths_do_not_overflow() -> None:
    """Many packets of the largest length stay on the line."""
    many = [(n * 977_777_777, 2**32 - 1) for n in range(5000)]
    made = axis(many, many)
    assert (made.right >= made.left).all()
    assert (made.reach >= 0).all()
    assert made.end[0] == made.base[1]
