"""What the peer acknowledged of a side's bytes, what it never did though they were repeated.

Only ACKs that this vantage saw count. A vantage may see one direction alone: a director in DR
mode sees the client's data and never the ACKs for it. Such sides stay without a verdict.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from pcapdiag.capture.frames import NO_TIME
from pcapdiag.flows.arrays import spread, starts_of
from pcapdiag.flows.sequence import MAX_JUMP, follow
from pcapdiag.protocols import TcpFlag

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pcapdiag.flows.arrays import Rows
    from pcapdiag.flows.repeats import Packets, Repeats
    from pcapdiag.flows.sequence import Axis

NOTHING: Final = int(np.iinfo(np.int64).min)

_ACK: Final = np.uint16(TcpFlag.ACK)
_RST: Final = np.uint16(TcpFlag.RST)
_LOWEST: Final = np.int32(np.iinfo(np.int32).min)


class Heard(NamedTuple):
    """What the peer said about each segment's bytes. Positions on the axis, one per segment."""

    acked: Rows
    """Highest cumulative acknowledgement; NOTHING where none was seen."""
    listening: NDArray[np.bool_]
    """Whether the peer's packets come by here at all, so that a missing ACK means something."""
    sacked: Rows
    """Highest right edge of a SACK block; NOTHING where none was seen."""
    left: Rows
    """Left edges of what was SACKed beyond `acked`, disjoint and ascending, all segments."""
    right: Rows

    def sacked_whole(self, left: Rows, right: Rows) -> NDArray[np.bool_]:
        """Return which ranges lie within SACKed bytes."""
        if not len(self.left):
            return np.zeros(len(left), np.bool_)
        found = np.searchsorted(self.left, left, "right") - 1
        return (found >= 0) & (self.right[found] >= right)


def hear(
    packets: Packets,
    axis: Axis,
    peer: Rows,
    blocks: tuple[Rows, NDArray[np.uint32], NDArray[np.uint32]],
) -> Heard:
    """Return what was acknowledged.

    `peer` is each segment's peer segment or -1; `blocks` are SACK blocks: the segment they speak
    about (not -1), left and right edge (RFC 2018 section 3).
    """
    count, total = len(packets.starts), len(packets.rows)
    about = np.where(peer >= 0, peer, 0)
    highest = axis.highest()
    ahead = (packets.ack - spread(highest[about], packets.starts, total)).view(np.int32)
    reset = (packets.flags & _RST) != 0
    valid = ((packets.flags & _ACK) != 0) & (ahead <= np.where(reset, 0, MAX_JUMP))
    best = np.maximum.reduceat(np.where(valid, ahead, _LOWEST), packets.starts)
    acking = np.logical_or.reduceat(valid, packets.starts) & (peer >= 0)
    spoken = axis.end[about] + best
    far = acking & axis.long[about]
    if far.any():
        _unwrap(packets, axis, far, about, spoken)
    acked = np.full(count, NOTHING, np.int64)
    acked[about[acking]] = spoken[acking]
    acked[~axis.known] = NOTHING

    listening = np.zeros(count, np.bool_)
    listening[about[~np.logical_and.reduceat(reset, packets.starts) & (peer >= 0)]] = True
    return Heard(acked, listening & axis.known, *_sacks(axis, acked, highest, blocks))


def _unwrap(
    packets: Packets, axis: Axis, far: NDArray[np.bool_], about: Rows, spoken: Rows
) -> None:
    """Set `spoken` where 32 bits are too few: acknowledgements are followed one by one."""
    said = np.repeat(far, np.diff(packets.starts, append=len(packets.rows)))
    said &= (packets.flags & (_ACK | _RST)) == _ACK
    chosen = np.flatnonzero(said)
    segment = np.searchsorted(packets.starts, chosen, "right") - 1
    offset, kept = follow(packets.ack[chosen], segment)
    heads = starts_of(segment)
    subject = about[segment[heads]]
    first = (packets.ack[chosen[heads]] - axis.first[subject]).view(np.int32).astype(np.int64)
    best = np.maximum.reduceat(np.where(kept, offset, 0), heads)
    spoken[segment[heads]] = axis.base[subject] + first + best


def _sacks(
    axis: Axis,
    acked: Rows,
    highest: NDArray[np.uint32],
    blocks: tuple[Rows, NDArray[np.uint32], NDArray[np.uint32]],
) -> tuple[Rows, Rows, Rows]:
    """Return per segment the highest right edge, and the union of blocks beyond `acked`."""
    sacked = np.full(len(acked), NOTHING, np.int64)
    about, left_edge, right_edge = blocks
    width = (right_edge - left_edge).astype(np.int64)
    ahead = (right_edge - highest[about]).view(np.int32).astype(np.int64)
    plausible = (
        axis.known[about]
        & (width > 0)
        & (width <= MAX_JUMP)
        & (ahead <= np.where(axis.long[about], 0, MAX_JUMP))
        & (axis.end[about] + ahead > axis.base[about])
    )
    about, width, ahead = about[plausible], width[plausible], ahead[plausible]
    right = axis.end[about] + ahead
    np.maximum.at(sacked, about, right)
    open_ = right > acked[about]
    about, right, width = about[open_], right[open_], width[open_]
    left = np.clip(right - width, axis.base[about], axis.end[about])
    right = np.minimum(right, axis.end[about])
    keep = right > left
    about, left, right = about[keep], left[keep], right[keep]
    if not len(left):
        return sacked, left, right
    order = np.argsort(left, kind="stable")
    about, left, right = about[order], left[order], right[order]
    reach = np.maximum.accumulate(right)
    apart = (left[1:] > reach[:-1]) | (about[1:] != about[:-1])
    heads = np.flatnonzero(np.append(True, apart))
    return sacked, left[heads], np.maximum.reduceat(right, heads)


class Fate(NamedTuple):
    """Per segment: proof of what got through, and of what never did though repeated."""

    largest_acked: Rows
    """IP length; 0: no proof."""
    smallest_lost: Rows
    """IP length; 0: none."""
    stuck: Rows
    """Position of the first byte never acknowledged though repeated; NOTHING: none."""
    stuck_sends: Rows
    stuck_first_ns: Rows
    """NO_TIME where unknown, as below."""
    stuck_last_ns: Rows
    stuck_size: Rows
    """Largest IP length with which that byte was sent."""


def judge(packets: Packets, axis: Axis, repeats: Repeats, heard: Heard) -> Fate:
    """Return what became of each segment's bytes; only meaningful where `heard.listening`."""
    count = len(packets.starts)
    limit = np.where(heard.acked == NOTHING, axis.base, np.minimum(heard.acked, axis.end))
    fate = Fate(
        _largest_acked(packets, axis, repeats, heard, limit),
        np.zeros(count, np.int64),
        np.full(count, NOTHING, np.int64),
        np.zeros(count, np.int64),
        np.full(count, NO_TIME, np.int64),
        np.full(count, NO_TIME, np.int64),
        np.zeros(count, np.int64),
    )
    lost = np.flatnonzero(
        (repeats.right > limit[repeats.segment])
        & ~repeats.probe
        & heard.listening[repeats.segment]
        & (repeats.prior >= 0)
    )
    begin = np.maximum(repeats.left[lost], limit[repeats.segment[lost]])
    open_ = ~heard.sacked_whole(begin, repeats.right[lost])
    lost, begin = lost[open_], begin[open_]
    if len(lost):
        _stuck(packets, axis, repeats, limit, lost, begin, fate)
    return fate


def _stuck(
    packets: Packets,
    axis: Axis,
    repeats: Repeats,
    limit: Rows,
    lost: Rows,
    begin: Rows,
    fate: Fate,
) -> None:
    """Fill in what is stuck: `lost` are unacknowledged repetitions, `begin` their open bytes."""
    segment = repeats.segment[lost]
    heads = starts_of(segment)
    where = segment[heads]
    first = np.minimum.reduceat(begin, heads)
    fate.stuck[where] = first

    # A packet was lost at its size if its first open byte was sent once more.
    prior = repeats.prior[lost]
    size = packets.size[prior].astype(np.int64)
    told = size > 0
    smallest = np.full(len(packets.starts), np.iinfo(np.int64).max)
    np.minimum.at(smallest, segment[told], size[told])
    fate.smallest_lost[:] = np.where(smallest == np.iinfo(np.int64).max, 0, smallest)

    # All that carried the stuck byte as their first open byte: repetitions, and the original.
    open_at = np.maximum(repeats.left, limit[repeats.segment])
    mine = (open_at == fate.stuck[repeats.segment]) & (repeats.right > open_at) & ~repeats.probe
    original = np.searchsorted(axis.reach, first, "right")
    carried = np.maximum(axis.left[original], limit[where]) == first
    index = np.concatenate((repeats.at[mine], original[carried]))
    owner = np.concatenate((repeats.segment[mine], where[carried]))
    np.add.at(fate.stuck_sends, owner, 1)
    np.maximum.at(fate.stuck_size, owner, packets.size[index].astype(np.int64))
    time = packets.time[index]
    np.maximum.at(fate.stuck_last_ns, owner, time)
    known = time != NO_TIME
    earliest = np.full(len(packets.starts), np.iinfo(np.int64).max)
    np.minimum.at(earliest, owner[known], time[known])
    told = earliest != np.iinfo(np.int64).max
    fate.stuck_first_ns[told] = earliest[told]


def _largest_acked(
    packets: Packets, axis: Axis, repeats: Repeats, heard: Heard, limit: Rows
) -> NDArray[np.int64]:
    """Return the largest IP length that provably arrived.

    A packet arrived if a byte of it was acknowledged that no other packet carried. Where a byte
    was sent several times, one of them arrived: the smallest size is proven.
    """
    total = len(packets.rows)
    sizes = np.where(axis.right > axis.left, packets.size, 0)
    if len(repeats.at):
        sizes[repeats.at] = 0
        low, high = _beginning_in(axis, repeats.left, repeats.right)
        again = np.bincount(low, minlength=total + 1) - np.bincount(high, minlength=total + 1)
        sizes[np.cumsum(again[:-1]) > 0] = 0
    arrived = np.where(axis.left < spread(limit, packets.starts, total), sizes, 0)
    largest = np.maximum.reduceat(arrived, packets.starts).astype(np.int64)
    if len(repeats.at):
        _proven_by_repeats(packets, repeats, heard, limit, largest)
    if len(heard.left):
        low, high = _beginning_in(axis, heard.left, heard.right)
        best = np.maximum.reduceat(np.append(sizes, 0), np.stack((low, high), axis=1).ravel())
        np.maximum.at(largest, np.searchsorted(packets.starts, low, "right") - 1, best[::2])
    return largest


def _beginning_in(axis: Axis, left: Rows, right: Rows) -> tuple[Rows, Rows]:
    """Return, per range of bytes that were sent, which packets carried them first.

    As half-open ranges of packets: among them those that went beyond all before and begin in the
    range. Ranges without any are left out.
    """
    low = np.searchsorted(axis.reach, left, "right")
    low += axis.left[low] < left
    high = np.searchsorted(axis.reach, right - 1, "right")
    high += axis.left[high] < right
    some = high > low
    return low[some], high[some]


def _proven_by_repeats(
    packets: Packets,
    repeats: Repeats,
    heard: Heard,
    limit: Rows,
    largest: Rows,
) -> None:
    """Raise `largest` by the smallest size with which an arrived first byte was sent.

    A first byte that lies inside a repetition that begins earlier proves nothing here.
    """
    order = np.lexsort((repeats.at, repeats.left))
    left, right = repeats.left[order], repeats.right[order]
    heads = starts_of(left)
    reach = np.maximum.accumulate(right)
    inside = np.append(False, reach[heads[1:] - 1] > left[heads[1:]])
    size = packets.size[repeats.at[order]].astype(np.int64)
    smallest = np.minimum.reduceat(size, heads)
    carrier = repeats.carrier[order][heads]
    original = packets.size[carrier].astype(np.int64)
    smallest = np.where(carrier >= 0, np.minimum(smallest, original), smallest)
    segment = repeats.segment[order][heads]
    begin = left[heads]
    arrived = (begin < limit[segment]) | heard.sacked_whole(begin, begin + 1)
    proven = ~inside & arrived
    np.maximum.at(largest, segment[proven], smallest[proven])
