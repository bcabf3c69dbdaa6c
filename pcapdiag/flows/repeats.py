"""TCP bytes that were sent again: retransmissions, timeouts, probes; byte ranges, not packets.

What a vantage saw of a side's bytes grows at its highest position; a packet that begins below it
repeats bytes, or fills a hole that the vantage had not seen (lost before it, or reordered).
Segmentation offload may cut a repetition otherwise than the original, so packets are compared by
the bytes they hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from pcapdiag.capture.frames import NO_TIME
from pcapdiag.flows.arrays import previous, starts_of
from pcapdiag.protocols import TcpFlag

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pcapdiag.flows.arrays import Rows
    from pcapdiag.flows.sequence import Axis

RTO_MIN_NS: Final = 200_000_000
"""Linux TCP_RTO_MIN. RFC 6298 section 2.4 asks for a second; who keeps to that is above, too."""

RTO_TOLERANCE_NS: Final = 10_000_000
"""A timer of 200 ms may look this much shorter: one jiffy at HZ=100, and the capture's delay."""

KEEPALIVE_QUIET_NS: Final = 1_000_000_000
"""Where the peer's ACKs are not seen, one byte sent again is a keepalive only after this silence:
the shortest interval that Linux allows (TCP_KEEPINTVL, in seconds)."""

MAX_HOLES: Final = 16
"""Depth of holes within holes that is followed, and how many holes of one depth a packet may
span. Each depth is a reordering of reordered packets; what is deeper counts as new, so that it is
never called a retransmission wrongly."""

MAX_HOLE_WORK: Final = 2
"""Times that all packets are looked at, over all depths: honest captures have few packets in
holes; one in reverse order would otherwise take a depth for each."""

FEW: Final = 100_000
"""Packets that are looked at in any case: that takes milliseconds."""

_CONTROL: Final = np.uint16(TcpFlag.SYN | TcpFlag.FIN | TcpFlag.RST)


@dataclass(frozen=True, slots=True)
class Packets:
    """TCP packets in side order, columns of equal length; segments as in Sides."""

    rows: Rows
    starts: Rows
    side: Rows
    seq: NDArray[np.uint32]
    ack: NDArray[np.uint32]
    flags: NDArray[np.uint16]
    payload: NDArray[Any]
    size: NDArray[Any]
    """IP length as it was on the wire, as far as known: see offload.py. 0: tells nothing."""
    time: NDArray[np.int64]


class Repeats(NamedTuple):
    """Packets with bytes that begin below what their side had sent, in order of side and row."""

    at: Rows
    """Index of the packet among all."""
    segment: Rows
    left: Rows
    right: Rows
    carrier: Rows
    """Index of the packet that carried the first byte first; -1: it fell into a hole."""
    prior: Rows
    """Index of the packet that last carried the first byte before; -1: none was seen."""
    probe: NDArray[np.bool_]
    """Keepalive, or one byte into a closed window: says nothing about loss."""
    retransmitted: NDArray[np.bool_]
    """Holds nothing new, and is no probe."""
    timeout: NDArray[np.bool_]
    """Its first byte was last sent at least the minimum RTO ago."""


def find(packets: Packets, axis: Axis, tcp_window: NDArray[Any]) -> Repeats:
    """Return the repetitions among `packets`; `tcp_window` is by row of the capture."""
    at = np.flatnonzero((axis.left < axis.before) & (axis.right > axis.left))
    left, right = axis.left[at], axis.right[at]
    segment = np.searchsorted(packets.starts, at, "right") - 1
    carrier = np.searchsorted(axis.reach, left, "right")
    carrier = np.where(axis.left[carrier] <= left, carrier, -1) if len(at) else carrier
    prior = _prior(at, left, carrier)
    probe = _probes(packets, axis, at, segment, prior, tcp_window)
    seen = (right <= axis.before[at]) & ~_fills_hole(axis, at, left, right)
    since = _since(packets.time, at, prior)
    grown = (packets.payload[prior] == 1) & (packets.payload[at] > 1) & (prior >= 0)
    timeout = ~probe & ~grown & (since >= RTO_MIN_NS - RTO_TOLERANCE_NS)
    return Repeats(at, segment, left, right, carrier, prior, probe, seen & ~probe, timeout)


def _prior(at: Rows, left: Rows, carrier: Rows) -> Rows:
    """Return who last carried each first byte, or -1.

    That is the repetition before that began there, or else the packet that carried it first.
    """
    order = np.lexsort((at, left))
    same = left[order] == previous(left[order], -1)
    prior = np.empty(len(at), np.int64)
    prior[order] = np.where(same, previous(at[order], -1), carrier[order])
    return prior


def _since(time: NDArray[np.int64], at: Rows, prior: Rows) -> Rows:
    """Return how long ago `prior` was sent, in ns; 0 where unknown."""
    if not len(at):
        return np.empty(0, np.int64)
    now, then = time[at], time[prior]
    known = (prior >= 0) & (now != NO_TIME) & (then != NO_TIME)
    return np.where(known, now - np.where(known, then, now), 0)


def _probes(
    packets: Packets,
    axis: Axis,
    at: Rows,
    segment: Rows,
    prior: Rows,
    tcp_window: NDArray[Any],
) -> NDArray[np.bool_]:
    """Return which repetitions are keepalives (RFC 9293 section 3.8.4) or zero-window probes.

    Both are one byte. A keepalive's byte was acknowledged before; a zero-window probe (section
    3.8.6.1) follows a closed window. Linux sends neither with a byte, other stacks do.
    """
    probe = np.zeros(len(at), np.bool_)
    one = np.flatnonzero((packets.payload[at] == 1) & (packets.flags[at] & _CONTROL == 0))
    if not len(one):
        return probe
    index = at[one]
    heard = _heard_before(packets, segment[one], packets.rows[index])
    told = heard >= 0
    beyond = (packets.ack[heard] - packets.seq[index] - np.uint32(1)).view(np.int32)
    acknowledged = told & (beyond >= 0) & (packets.flags[heard] & TcpFlag.ACK != 0)
    closed = told & (tcp_window[packets.rows[heard]] == 0)
    quiet = _since(packets.time, index, index - 1) >= KEEPALIVE_QUIET_NS
    last_byte = axis.right[index] == axis.before[index]
    longer = (prior[one] >= 0) & (packets.payload[prior[one]] > 1)
    probe[one] = acknowledged | closed | (~told & quiet & last_byte & longer)
    return probe


def _heard_before(packets: Packets, segment: Rows, row: Rows) -> Rows:
    """Return the index of the peer's last packet before each row, or -1."""
    shift = np.int64(33)
    lengths = np.diff(packets.starts, append=len(packets.rows))
    where = (np.repeat(packets.side, lengths) << shift) + packets.rows
    peer = packets.side[segment] ^ 1
    found = np.searchsorted(where, (peer << shift) + row) - 1
    return np.where((found >= 0) & (where[found] >> shift == peer), found, -1)


def _fills_hole(axis: Axis, at: Rows, left: Rows, right: Rows) -> NDArray[np.bool_]:
    """Return which of the packets `at` hold a byte that had not been seen before.

    Holes come up where a packet begins above what was sent so far: they are disjoint and in
    order. Within a hole the same question is asked again, with the hole as the lane.
    """
    fills = np.zeros(len(at), np.bool_)
    jumps = np.flatnonzero(axis.left > axis.before)
    low, high = axis.before[jumps], axis.left[jumps]
    asked = np.arange(len(at))
    work = 0
    for _ in range(MAX_HOLES):
        asked, hole = _into_holes(asked, left, right, low, high)
        if not len(asked):
            return fills
        work += len(asked)
        if work > MAX_HOLE_WORK * len(at) + FEW:
            break
        begin = np.maximum(left[asked], low[hole])
        end = np.minimum(right[asked], high[hole])
        heads = starts_of(hole)
        before = previous(np.maximum.accumulate(end), 0)
        before[heads] = low[hole[heads]]
        fills[asked[end > before]] = True
        jumped = begin > before
        low, high = before[jumped], begin[jumped]
        deeper = np.zeros(len(at), np.bool_)
        deeper[asked[begin < before]] = True
        asked = np.flatnonzero(deeper)
    fills[asked] = True
    return fills


def _into_holes(asked: Rows, left: Rows, right: Rows, low: Rows, high: Rows) -> tuple[Rows, Rows]:
    """Return pairs of packet and hole that overlap, by hole and then in order of packet."""
    if not len(low) or not len(asked):
        return asked[:0], asked[:0]
    first = np.searchsorted(high, left[asked], "right")
    count = np.searchsorted(low, right[asked], "left") - first
    count = np.clip(count, 0, MAX_HOLES)
    if int(count.sum()) > MAX_HOLES * len(left):
        count = np.minimum(count, 1)
    asked, first = np.repeat(asked, count), np.repeat(first, count)
    begin = np.cumsum(count) - count
    hole = first + np.arange(len(asked)) - np.repeat(begin, count)
    order = np.argsort(hole, kind="stable")
    return asked[order], hole[order]
