"""The record walk at many places at once.

A block is split at some hundred places. Near each, a plausible record is looked for, and from all
of them the walk goes on in lockstep, one numpy step for all chains. A chain may have begun amid a
packet, since captured bytes can look like records. So a chain counts only where the chain before
it, which is known to be right, lands exactly on its first record; elsewhere the stretch is walked
plainly. What comes out is what the plain walk finds, whatever the bytes are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from pcapdiag.capture.walk import Layout, Walk, walk_plainly

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PROBE_BYTES: Final = 1 << 16
"""Walked plainly first, to learn how large records are."""

_MIN_RECORDS: Final = 4096
"""Records below which the plain walk is as quick."""

CHAINS: Final = 1024
"""Chains of a block: numpy's cost per step vanishes, a block of 32 MiB gives each 32 KiB."""

_MIN_WIDTH: Final = 2048
"""Bytes looked at near a split: more than a record of an Ethernet frame and its header."""

_FOLLOWING: Final = 3
"""Records that must follow plausibly on one that is taken for a chain's first."""

_MIN_ACTIVE: Final = 16
"""Chains below which the plain walk is quicker than a numpy step."""


def walk(layout: Layout, data: NDArray[np.uint8], position: int) -> Walk:
    """Return all records from `position` on, which must be where a record starts."""
    probe = walk_plainly(layout, data, position, position + _PROBE_BYTES)
    rest = len(data) - probe.end
    count = len(probe.starts)
    if probe.size is not None or not count:
        return probe
    mean = (probe.end - position) // count
    if rest < _MIN_RECORDS * mean:
        return _join([probe.starts], walk_plainly(layout, data, probe.end, len(data)))
    heads = _heads(layout, data, probe.end, min(4 * mean, rest // CHAINS))
    tail = _walk_chains(layout, data, heads)
    return _join([probe.starts], tail)


def _join(parts: list[NDArray[np.int64]], last: Walk) -> Walk:
    return Walk(np.concatenate([*parts, last.starts]), last.end, last.size)


def _heads(layout: Layout, data: NDArray[np.uint8], first: int, width: int) -> NDArray[np.int64]:
    """Return where the chains start, ascending: `first`, then at most one for every split."""
    spacing = (len(data) - first) // CHAINS & ~3  # pcapng blocks start at multiples of 4
    width = min(max(width, _MIN_WIDTH), spacing) & ~3
    found = layout.candidates(data, first, first + spacing, spacing, width)
    reached = found
    for _ in range(_FOLLOWING):
        near = reached <= len(data) - layout.header_bytes
        found, reached = found[near], reached[near]
        good = layout.plausible(data, first, reached)
        found, reached = found[good], reached[good]
        reached = reached + layout.sizes(data, reached)
    split = (found - first) // spacing
    one_each = np.ones(len(found), dtype=np.bool_)
    one_each[1:] = split[1:] != split[:-1]
    return np.concatenate([np.array([first], dtype=np.int64), found[one_each]])


def _walk_chains(layout: Layout, data: NDArray[np.uint8], heads: NDArray[np.int64]) -> Walk:
    """Return the records from `heads[0]` on, which must be where a record starts."""
    rows, counts, ends = _step(layout, data, heads)
    # One column a chain; a chain's records are the first `counts` rows of it.
    taken = np.arange(len(rows))[:, None] < counts
    limits = np.append(heads[1:], len(data))
    lands = ends == limits
    if lands[:-1].all():
        last = walk_plainly(layout, data, int(ends[-1]), len(data))
        return _join([rows.T[taken.T]], last)
    parts: list[NDArray[np.int64]] = []
    chain = 0
    while True:
        broken = np.flatnonzero(~lands[chain:-1])
        final = chain + int(broken[0]) if len(broken) else len(heads) - 1
        chosen = slice(chain, final + 1)
        parts.append(rows.T[chosen][taken.T[chosen]])
        position = int(ends[final])
        # Plainly on to the first head that is a record's start after all.
        while True:
            # Not the same chain again: it may have been stuck at its very first record.
            chain = max(final + 1, int(np.searchsorted(heads, position)))
            if chain < len(heads) and heads[chain] == position:
                break
            limit = int(heads[chain]) if chain < len(heads) else len(data)
            stretch = walk_plainly(layout, data, position, limit)
            parts.append(stretch.starts)
            position = stretch.end
            if stretch.size is not None or chain == len(heads):
                return Walk(np.concatenate(parts), position, stretch.size)
            if position < limit:  # not even a header is left
                return Walk(np.concatenate(parts), position, None)


def _step(
    layout: Layout, data: NDArray[np.uint8], heads: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Walk from each of `heads` to the next in lockstep.

    Return records as (steps, chains), how many of a chain's column are meant, and where each chain
    ended: at or behind the next head, or before the first record that does not lie within `data`.
    """
    count = len(heads)
    counts = np.zeros(count, dtype=np.int64)
    ends = heads.copy()
    active = np.arange(count)
    position = heads
    limit = np.append(heads[1:], len(data) - layout.header_bytes + 1)
    rows: list[NDArray[np.int64]] = []
    while len(active) >= _MIN_ACTIVE:
        follows = position + layout.sizes(data, position)
        if len(active) == count:
            rows.append(position)
        else:
            row = np.zeros(count, dtype=np.int64)
            row[active] = position
            rows.append(row)
        done = follows >= limit
        if done.any():
            beyond = follows[done] > len(data)  # of this record no more than its header was seen
            ended = active[done]
            ends[ended] = np.where(beyond, position[done], follows[done])
            counts[ended] = len(rows) - beyond
            going = ~done
            active, follows, limit = active[going], follows[going], limit[going]
        position = follows
    ends[active] = position
    counts[active] = len(rows)
    return np.array(rows, dtype=np.int64).reshape(len(rows), count), counts, ends
