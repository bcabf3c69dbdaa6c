"""Packets grouped into flows: five-tuple, reuse of ports, originator, numbering, life."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from pcapdiag.capture.frames import NO_TIME
from pcapdiag.flows import incarnations
from pcapdiag.flows.arrays import previous, starts_of
from pcapdiag.flows.five_tuple import order_by
from pcapdiag.flows.sides import Sides, arrange
from pcapdiag.protocols import TcpFlag

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pcapdiag.flows.arrays import Columns, Rows
    from pcapdiag.flows.five_tuple import Keys

_ENDS: Final = np.uint16(TcpFlag.FIN | TcpFlag.RST)
_LAST_KEY: Final = np.uint64(np.iinfo(np.uint64).max)
_RST: Final = np.uint16(TcpFlag.RST)


@dataclass(frozen=True, slots=True)
class Conversations:
    """The flows of a vantage; arrays have one element a flow, in order of first packet."""

    count: int
    sides: Sides
    side_of_row: NDArray[np.int32]
    """Per row of the capture: 2 * flow, plus one for the responder; -1: none."""
    first_row: Rows
    source: NDArray[np.uint8]
    """Index into incarnations.SOURCES."""
    closed_by: NDArray[np.int8]
    """-1: open; 0: the originator's FIN; plus 1: the responder's; plus 2: an RST."""
    idle_ns: Rows
    """Longest gap between two packets; -1: there was one packet only."""
    idle_end_ns: Rows
    """When it ended; NO_TIME: unknown."""


def find(
    packets: Columns, keys: Keys, wanted: NDArray[np.bool_], *, by_ports: bool = True
) -> Conversations:
    """Group the packets that are `wanted`: first sights with ports.

    `by_ports` is told to incarnations.originators().
    """
    order, tuples = _by_tuple(keys.tuple_key, wanted)
    flags, by_second = packets.values("tcp_flags")[order], keys.sent_by_second[order]
    seq, ack = packets.values("tcp_seq"), packets.values("tcp_ack")
    shakes = incarnations.Handshakes.among(order, tuples, flags, by_second, seq, ack)
    reused = incarnations.new_flows(shakes, order, tuples, flags, by_second, seq)
    starts = np.union1d(tuples, reused) if len(reused) else tuples
    first = order[starts]
    opened, source = incarnations.originators(
        shakes, starts, by_second, packets, first, by_ports=by_ports
    )

    number = _numbers(first, len(packets))
    by_responder = by_second != np.repeat(opened, np.diff(starts, append=len(order)))
    idle_ns, idle_end_ns = _idle(packets.values("time_ns", NO_TIME)[order], starts)
    sides = arrange(packets, order, starts, number, by_responder)
    found = Conversations(
        len(starts),
        sides,
        sides.side_of_row(),
        np.empty_like(first),
        np.empty_like(source),
        np.full(len(starts), -1, np.int8),
        np.empty_like(idle_ns),
        np.empty_like(idle_end_ns),
    )
    found.first_row[number] = first
    found.source[number] = source
    found.idle_ns[number] = idle_ns
    found.idle_end_ns[number] = idle_end_ns
    ends = np.flatnonzero(flags & _ENDS)
    flow = np.searchsorted(starts, ends, "right") - 1
    first_end = starts_of(flow)
    at = ends[first_end]
    found.closed_by[number[flow[first_end]]] = 2 * (flags[at] & _RST != 0) + by_responder[at]
    return found


def _by_tuple(tuple_key: NDArray[np.uint64], wanted: NDArray[np.bool_]) -> tuple[Rows, Rows]:
    """Return the wanted rows by five-tuple, and where each tuple begins.

    The others are sorted to the end with the highest key and cut off.
    """
    count = int(np.count_nonzero(wanted))
    if count == len(wanted):
        return order_by(tuple_key)
    if 2 * count < len(wanted):
        rows = np.flatnonzero(wanted)
        return order_by(tuple_key[rows], rows)
    order, starts = order_by(np.where(wanted, tuple_key, _LAST_KEY))
    return order[:count], starts[starts < count]


def _numbers(first: Rows, packets: int) -> Rows:
    """Return each flow's rank by first row."""
    begins = np.zeros(packets, np.bool_)
    begins[first] = True
    return (np.cumsum(begins) - 1)[first]


def _idle(time: NDArray[np.int64], starts: Rows) -> tuple[Rows, Rows]:
    """Return each flow's longest gap in ns and its end; -1 and NO_TIME for single packets."""
    if not len(time):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    before = previous(time, NO_TIME)
    gap = time - before
    unknown = (time == NO_TIME) | (before == NO_TIME)
    gap[unknown] = 0
    gap[starts] = -1
    longest = np.maximum.reduceat(gap, starts)
    lengths = np.diff(starts, append=len(time))
    alone = lengths == 1
    longest = np.where(alone, -1, np.maximum(longest, 0))
    found = np.flatnonzero(gap == np.repeat(longest, lengths))
    flow = np.searchsorted(starts, found, "right") - 1
    heads = starts_of(flow)
    end = np.full(len(starts), NO_TIME, np.int64)
    end[flow[heads]] = time[found[heads]]
    end[alone] = NO_TIME
    return longest, end
