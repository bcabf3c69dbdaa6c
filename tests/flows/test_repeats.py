"""Repeated bytes, against models that keep sets of bytes."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pcapdiag.flows import repeats
from pcapdiag.flows.sequence import lay_out

SEGMENTS = st.lists(
    st.tuples(st.integers(0, 40), st.integers(1, 12), st.integers(0, 400)), min_size=1, max_size=16
)
"""First byte, length, and milliseconds since the segment before, of one side."""


def found(segments: list[tuple[int, int, int]]) -> repeats.Repeats:
    """Return the repetitions among segments that follow a SYN at sequence number 0."""
    first, length, pause = np.array([(0, 0, 0), *segments]).T
    seq = (100 * first + 1).astype(np.uint32)
    seq[0] = 0
    payload = (100 * length).astype(np.uint32)
    flags = np.full(len(seq), 16, np.uint16)
    flags[0] = 2
    starts = np.zeros(1, np.int64)
    axis = lay_out(seq, payload + (flags == 2), payload, np.zeros(len(seq), np.bool_), starts)
    packets = repeats.Packets(
        rows=np.arange(len(seq)),
        starts=starts,
        side=np.zeros(1, np.int64),
        seq=seq,
        ack=np.zeros(len(seq), np.uint32),
        flags=flags,
        payload=payload,
        size=payload + 40,
        time=np.cumsum(pause) * 1_000_000,
    )
    return repeats.find(packets, axis, np.full(len(seq), 1000))


@settings(max_examples=400, deadline=None)
@given(SEGMENTS)
def test_retransmissions_hold_nothing_new(segments: list[tuple[int, int, int]]) -> None:
    """A segment is a retransmission exactly if every byte of it was seen before."""
    seen: set[int] = set()
    again = []
    for number, (first, length, _) in enumerate(segments, 1):
        held = set(range(first, first + length))
        if held <= seen:
            again.append(number)
        seen |= held
    result = found(segments)
    assert result.at[result.retransmitted].tolist() == again


@settings(max_examples=400, deadline=None)
@given(SEGMENTS)
def test_timeouts_are_late_repetitions_of_a_first_byte(
    segments: list[tuple[int, int, int]],
) -> None:
    """A timeout is a segment below what was sent whose first byte was last sent long ago.

    Last sent means: by a segment that begins there, or else by the first that carried it.
    """
    time, reach = 0, 0
    late = []
    began: dict[int, int] = {}
    carried: dict[int, int] = {}
    for number, (first, length, pause) in enumerate(segments, 1):
        time += pause
        known = began.get(first, carried.get(first))
        if first < reach and known is not None and time - known >= 190:
            late.append(number)
        began[first] = time
        for byte in range(max(first, reach), first + length):
            carried[byte] = time
        reach = max(reach, first + length)
    result = found(segments)
    assert result.at[result.timeout].tolist() == late


def test_reversed_segments_end() -> None:
    """Segments in reverse order, deeper than holes are followed, are no retransmissions."""
    result = found([(number, 1, 0) for number in range(200, 0, -1)])
    assert not result.retransmitted.any()


def test_no_packets_but_a_syn() -> None:
    """Without repetitions every column is empty."""
    result = found([])
    assert len(result.at) == len(result.timeout) == 0
