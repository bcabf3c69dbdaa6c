"""What was acknowledged and what is stuck, against models that keep sets of bytes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pcapdiag.flows import acknowledged, repeats
from pcapdiag.flows.acknowledged import NOTHING
from pcapdiag.flows.sequence import lay_out

SEGMENTS = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 8)), min_size=1, max_size=14)
"""First byte and length, doubled when sent: single bytes could be probes."""
ACKS = st.lists(st.integers(0, 38), max_size=4)
BLOCKS = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 8)), max_size=4)


class Judged(NamedTuple):
    """One side's verdict, offsets from its first byte."""

    fate: acknowledged.Fate
    heard: acknowledged.Heard
    base: int
    end: int
    found: repeats.Repeats


def judged(
    segments: list[tuple[int, int]],
    acks: list[int],
    blocks: list[tuple[int, int]] = [],  # noqa: B006 - never changed
) -> Judged:
    """Judge a side that sends segments, a second apart, to a peer that answers at the end."""
    first, length = np.array(segments).T
    data = len(segments)
    seq = np.concatenate((2 * first, np.zeros(len(acks) + 1))).astype(np.uint32)
    payload = np.concatenate((2 * length, np.zeros(len(acks) + 1))).astype(np.uint32)
    flags = np.full(len(seq), 16, np.uint16)
    flags[data] = 2  # the peer's SYN: it is heard, and acknowledges nothing
    starts = np.array([0, data])
    axis = lay_out(seq, payload.astype(np.int64), payload, np.zeros(len(seq), np.bool_), starts)
    packets = repeats.Packets(
        rows=np.arange(len(seq)),
        starts=starts,
        side=np.array([0, 1]),
        seq=seq,
        ack=np.concatenate((np.zeros(data + 1), 2 * np.array(acks))).astype(np.uint32),
        flags=flags,
        payload=payload,
        size=payload // 2 + 40,
        time=np.arange(len(seq)) * 1_000_000_000,
    )
    found = repeats.find(packets, axis, np.full(len(seq), 1000))
    left, width = np.array(blocks, np.int64).reshape(-1, 2).T
    about = np.zeros(len(blocks), np.int64)
    heard = acknowledged.hear(
        packets,
        axis,
        np.array([1, 0]),
        (about, (2 * left).astype(np.uint32), (2 * (left + width)).astype(np.uint32)),
    )
    fate = acknowledged.judge(packets, axis, found, heard)
    shift = int(axis.base[0]) - int(axis.first[0])
    return Judged(fate, heard, shift, int(axis.end[0]) - shift, found)


@settings(max_examples=300, deadline=None)
@given(SEGMENTS, ACKS, BLOCKS)
def test_edges(
    segments: list[tuple[int, int]], acks: list[int], blocks: list[tuple[int, int]]
) -> None:
    """The highest ACK and the highest SACK edge are kept as they were said."""
    result = judged(segments, acks, blocks)
    said = 2 * max(acks) + result.base if acks else NOTHING
    assert result.heard.acked[0] == said
    lowest = min(first for first, _ in segments)
    edges = [left + width for left, width in blocks if left + width > lowest]
    assert result.heard.sacked[0] == (2 * max(edges) + result.base if edges else NOTHING)


@settings(max_examples=400, deadline=None)
@given(SEGMENTS, ACKS, BLOCKS)
def test_largest_acked_is_proven(
    segments: list[tuple[int, int]], acks: list[int], blocks: list[tuple[int, int]]
) -> None:
    """No size is claimed that some delivered byte does not force; all are, if sent once."""
    result = judged(segments, acks, blocks)
    arrived = set(range(max(acks, default=0)))
    for left, width in blocks:
        arrived |= set(range(left, left + width))
    sizes: dict[int, list[int]] = {}
    for first, length in segments:
        for byte in range(first, first + length):
            sizes.setdefault(byte, []).append(length + 40)
    proofs = [min(sizes[byte]) for byte in arrived & set(sizes)]
    claimed = result.fate.largest_acked[0]
    assert claimed <= max(proofs, default=0)
    if all(len(held) == 1 for held in sizes.values()) and not blocks:
        assert claimed == max(proofs, default=0)


@settings(max_examples=400, deadline=None)
@given(SEGMENTS, ACKS, BLOCKS)
def test_stuck_byte(
    segments: list[tuple[int, int]], acks: list[int], blocks: list[tuple[int, int]]
) -> None:
    """The stuck byte is the first open byte of a repetition of which a part was never covered."""
    result = judged(segments, acks, blocks)
    lowest = min(first for first, _ in segments)
    acked = max(acks, default=lowest) if acks else lowest
    sacked = set()
    for left, width in blocks:
        sacked |= set(range(left, left + width))
    seen: set[int] = set()
    reach, open_bytes = lowest, []
    for number, (first, length) in enumerate(segments):
        carriers = [
            earlier
            for earlier, (start, width) in enumerate(segments[:number])
            if start <= first < start + width
        ]
        carried_first = [e for e in carriers if first not in _before(segments, e)]
        began_here = any(start == first for start, _ in segments[:number])
        known = began_here or bool(carried_first and _raised(segments, carried_first[0], first))
        begin = max(first, acked)
        if first < reach and known and first + length > acked:
            held = set(range(begin, first + length))
            if not held <= sacked:
                open_bytes.append(begin)
        seen |= set(range(first, first + length))
        reach = max(reach, first + length)
    stuck = result.fate.stuck[0]
    if open_bytes:
        assert stuck - result.base == 2 * min(open_bytes)
        assert result.fate.stuck_sends[0] >= 1
    else:
        assert stuck == NOTHING


def _before(segments: list[tuple[int, int]], number: int) -> set[int]:
    """Return the bytes seen before a segment."""
    held: set[int] = set()
    for first, length in segments[:number]:
        held |= set(range(first, first + length))
    return held


def _raised(segments: list[tuple[int, int]], number: int, byte: int) -> bool:
    """Return whether the segment was the first to go beyond `byte` at all."""
    return all(first + length <= byte for first, length in segments[:number])


def test_sends_of_the_stuck_byte() -> None:
    """Sends are counted from the original on, and their sizes and times kept."""
    result = judged([(0, 5), (5, 7), (5, 7), (5, 3)], [5])
    fate = result.fate
    assert fate.stuck[0] - result.base == 10
    assert fate.stuck_sends[0] == 3
    assert fate.stuck_size[0] == 47
    assert fate.smallest_lost[0] == 47
    assert (fate.stuck_first_ns[0], fate.stuck_last_ns[0]) == (10**9, 3 * 10**9)


def test_stuck_byte_inside_a_hole() -> None:
    """A byte that was first seen in a hole, and then again, is stuck like any other."""
    result = judged([(9, 2), (0, 5), (0, 5)], [0])
    assert result.fate.stuck_sends[0] == 2


def test_sacked_ranges_join() -> None:
    """Adjacent and overlapping blocks cover what lies across their borders."""
    result = judged([(0, 5), (5, 5), (10, 5), (5, 8)], [5], [(5, 4), (9, 6)])
    assert result.fate.stuck[0] == NOTHING
    assert result.fate.largest_acked[0] == 45
