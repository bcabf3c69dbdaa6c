"""Keys of five-tuples and the order that they put packets in."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from traces import trace

from pcapdiag.flows.arrays import Columns
from pcapdiag.flows.five_tuple import Keys, keys_of, order_by, repeated

NEAR = st.lists(st.integers(0, 3).map(lambda n: (n & 1) << 63 | n >> 1), max_size=40)
"""Keys of which some share their upper bits and differ in the lowest."""


def keys(text: str) -> Keys:
    """Return the keys of a trace."""
    return keys_of(Columns(trace(text).decoded().packets))


def test_both_directions_have_one_key() -> None:
    """The key is symmetric; the side and the directed key are not."""
    made = keys("0 c>s S seq=0\n1 s>c SA seq=0 ack=1\n2 c>s A seq=1 ack=1")
    assert len(set(made.tuple_key.tolist())) == 1
    assert made.sent_by_second[0] == made.sent_by_second[2] != made.sent_by_second[1]
    assert made.directed[0] == made.directed[2] != made.directed[1]


def test_every_part_counts() -> None:
    """Another address, port or protocol makes another key."""
    made = keys(
        """
        0 c>s S seq=0
        1 c2>s S seq=0
        2 c>s2 S seq=0
        3 c:40001>s S seq=0
        4 c>s:81 S seq=0
        5 c:80>s:40000 S seq=0
        6 c>s udp
        7 c6>s6 S seq=0
        """
    )
    assert len(set(made.tuple_key.tolist())) == 8


def test_tunnels_are_looked_through() -> None:
    """A packet has the key of the innermost addresses."""
    made = keys("0 c>s S seq=0\n1 copy 1 tun=ipip:d>rs")
    assert made.tuple_key[0] == made.tuple_key[1]


def test_what_has_no_ports() -> None:
    """ICMP and later fragments have addresses and no ports."""
    made = keys("0 c>s udp\n1 c>s icmp 8/0\n2 c>s udp len=9 frag=8")
    assert made.has_ports.tolist() == [True, False, False]
    assert made.has_addresses.all()


@given(NEAR)
def test_order(numbers: list[int]) -> None:
    """Runs hold one key each, in row order, though keys share their upper bits."""
    array = np.array(numbers, np.uint64)
    order, starts = order_by(array)
    assert order.tolist() == sorted(range(len(numbers)), key=lambda row: (numbers[row], row))
    begins = [0] + [n for n in range(1, len(numbers)) if array[order[n]] != array[order[n - 1]]]
    assert starts.tolist() == (begins if numbers else [])


@given(NEAR)
def test_repeated(numbers: list[int]) -> None:
    """Only keys that occur again are left, and rows are translated."""
    rows = np.arange(len(numbers)) + 100
    order, starts = repeated(np.array(numbers, np.uint64), rows)
    wanted = [row for row in range(len(numbers)) if numbers.count(numbers[row]) > 1]
    assert order.tolist() == [100 + n for n in sorted(wanted, key=lambda n: (numbers[n], n))]
    assert len(starts) == len({numbers[row] for row in wanted})
