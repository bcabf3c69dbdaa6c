"""TCP sequence numbers as positions on one line, so that running maxima need no loop.

Sequence numbers are 32 bits and wrap (RFC 9293 section 3.4). Each side's are unwrapped into
offsets from its lowest, and the sides are laid one behind the other on one int64 axis, each in a
lane as long as what it sent. A position names a byte of a side; a running maximum over all packets
restarts by itself at each lane.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from pcapdiag.flows.arrays import spread, starts_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pcapdiag.flows.arrays import Rows

MAX_JUMP: Final = 1 << 30
"""Bytes: the largest window there is (RFC 7323 section 2.3). No side is further ahead of itself,
unless the capture lost a gigabyte; what is further away is forged or another connection's."""

_NOWHERE: Final = int(np.iinfo(np.int64).max)


class Axis(NamedTuple):
    """Where each packet's bytes lie. Arrays per packet (side order) and per segment.

    Packets that could not be placed lie empty at their lane's begin.
    """

    left: Rows
    """Position of the packet's first byte."""
    right: Rows
    """Position behind its last; SYN and FIN count one. Equal to left: the packet holds nothing."""
    reach: Rows
    """Highest `right` of the packet's side so far, itself included."""
    before: Rows
    """Highest `right` of the packet's side before it; the lane's begin for the first."""
    base: Rows
    """Per segment: the lane's begin, the lowest sequence number the side sent."""
    end: Rows
    """Per segment: highest `right`, and the begin of the next lane."""
    first: NDArray[np.uint32]
    """Per segment: the sequence number at `base`."""
    known: NDArray[np.bool_]
    """Per segment: whether any packet told where the side is; a side of bare resets does not."""

    def highest(self) -> NDArray[np.uint32]:
        """Return, per segment, the sequence number at `end`."""
        return self.first + (self.end - self.base).astype(np.uint32)

    @property
    def long(self) -> NDArray[np.bool_]:
        """Return, per segment, whether 32 bits are too few to tell old from new."""
        return self.end - self.base > MAX_JUMP


def lay_out(
    seq: NDArray[np.uint32],
    length: NDArray[Any],
    payload: NDArray[Any],
    bare_reset: NDArray[np.bool_],
    starts: Rows,
) -> Axis:
    """Place packets on the axis.

    `length` counts payload, SYN and FIN, `payload` the bytes alone. Bare resets (RST without
    payload) are not placed: their numbers may come from anywhere (RFC 9293 section 3.10.7.1).
    """
    total = len(seq)
    left, usable = _offsets(seq, payload, bare_reset, starts)
    everywhere = bool(usable.all())
    width = length if everywhere else np.where(usable, length, 0)
    right = left + width
    low = np.minimum.reduceat(left if everywhere else np.where(usable, left, _NOWHERE), starts)
    high = np.maximum.reduceat(right if everywhere else np.where(usable, right, -_NOWHERE), starts)
    known = low != _NOWHERE
    low, high = np.where(known, low, 0), np.where(known, high, 0)
    first = _references(seq, bare_reset, starts) + low.astype(np.uint32)
    end = np.cumsum(high - low)
    base = end - (high - low)
    shift = spread(base - low, starts, total)
    left += shift
    right += shift
    if not everywhere:
        lane = spread(base, starts, total)
        left, right = np.where(usable, left, lane), np.where(usable, right, lane)
    # A lane begins where the one before ends, so that `before` holds at its first packet, too.
    line = np.empty(total + 1, np.int64)
    line[0] = 0
    np.maximum.accumulate(right, out=line[1:])
    return Axis(left, right, line[1:], line[:-1], base, end, first, known)


def _references(
    seq: NDArray[np.uint32], bare_reset: NDArray[np.bool_], starts: Rows
) -> NDArray[np.uint32]:
    """Return each segment's first sequence number that is not a bare reset's."""
    if not bare_reset[starts].any():
        return seq[starts]
    position = np.where(bare_reset, len(seq), np.arange(len(seq)))
    first = np.minimum.reduceat(position, starts)
    return seq[np.where(first < len(seq), first, starts)]


def _offsets(
    seq: NDArray[np.uint32],
    payload: NDArray[Any],
    bare_reset: NDArray[np.bool_],
    starts: Rows,
) -> tuple[Rows, NDArray[np.bool_]]:
    """Return offsets from each segment's reference, and where they mean something."""
    total = len(seq)
    reference = _references(seq, bare_reset, starts)
    near = (seq - spread(reference, starts, total)).view(np.int32)
    usable = ~bare_reset
    offset = near.astype(np.int64)
    if near.max() > MAX_JUMP or near.min() < -MAX_JUMP:
        far = (near > MAX_JUMP) | (near < -MAX_JUMP)
        sent = np.add.reduceat(payload, starts, dtype=np.int64)
        long = sent > MAX_JUMP
        if long.any():
            _unwrap(offset, usable, seq, np.flatnonzero(spread(long, starts, total)), starts)
        usable &= ~far | spread(long, starts, total)
        _follow_majority(offset, usable, seq, bare_reset, starts, long)
    return offset, usable


def _unwrap(
    offset: Rows,
    usable: NDArray[np.bool_],
    seq: NDArray[np.uint32],
    chosen: Rows,
    starts: Rows,
) -> None:
    """Place the `chosen` packets, of sides that sent more than 32 bits tell apart."""
    chosen = chosen[usable[chosen]]
    run, kept = follow(seq[chosen], np.searchsorted(starts, chosen, "right") - 1)
    usable[chosen[~kept]] = False
    offset[chosen[kept]] = run[kept]


def follow(number: NDArray[np.uint32], segment: Rows) -> tuple[Rows, NDArray[np.bool_]]:
    """Unwrap numbers from packet to packet.

    `segment` says to which segment each belongs, segments one behind the other. Returns offsets
    from the segment's first number, and which numbers mean something: one that jumps while its
    neighbours agree with each other, or as the last of its segment, does not.
    """
    total = len(number)
    head = np.ones(total, np.bool_)
    head[1:] = segment[1:] != segment[:-1]
    jumped = np.zeros(total, np.bool_)
    jumped[1:] = np.abs(_step(number[:-1], number[1:])) > MAX_JUMP
    jumped &= ~head
    agree = np.zeros(total, np.bool_)  # the neighbours of each
    agree[1:-1] = np.abs(_step(number[:-2], number[2:])) <= MAX_JUMP
    last = np.append(head[1:], np.ones(1, np.bool_))
    kept = ~(jumped & (agree | last))

    chosen = np.flatnonzero(kept)
    heads = starts_of(segment[chosen])
    step = np.zeros(len(chosen), np.int64)
    step[1:] = _step(number[chosen][:-1], number[chosen][1:])
    step[heads] = 0
    run = np.cumsum(step)
    offset = np.zeros(total, np.int64)
    offset[chosen] = run - np.repeat(run[heads], np.diff(heads, append=len(chosen)))
    return offset, kept


def _step(before: NDArray[np.uint32], after: NDArray[np.uint32]) -> Rows:
    """Return how far it is from one number to the other, modulo 2^32, the shorter way."""
    return (after - before).view(np.int32).astype(np.int64)


def _follow_majority(
    offset: Rows,
    usable: NDArray[np.bool_],
    seq: NDArray[np.uint32],
    bare_reset: NDArray[np.bool_],
    starts: Rows,
    long: NDArray[np.bool_],
) -> None:
    """Take the middle packet as reference where most packets are far from the first."""
    total = len(seq)
    lengths = np.diff(starts, append=total)
    placed = np.add.reduceat(usable, starts, dtype=np.int64)
    resets = np.add.reduceat(bare_reset, starts, dtype=np.int64)
    lost = np.flatnonzero(~long & (2 * placed < lengths - resets))
    if not len(lost):
        return
    wanted = np.zeros(len(starts), np.bool_)
    wanted[lost] = True
    chosen = np.flatnonzero(np.repeat(wanted, lengths))
    middle = starts + lengths // 2
    near = (seq - np.repeat(seq[middle], lengths))[chosen].view(np.int32).astype(np.int64)
    first = _references(seq, bare_reset, starts)
    shift = (seq[middle] - first).view(np.int32).astype(np.int64)
    offset[chosen] = near + np.repeat(shift, lengths)[chosen]
    usable[chosen] = ~bare_reset[chosen] & (np.abs(near) <= MAX_JUMP)
