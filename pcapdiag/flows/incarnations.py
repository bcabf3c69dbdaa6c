"""Where one use of a five-tuple ends and the next begins, and which end opened it.

A flow is bounded in time: ports are reused. A SYN begins a new flow if the tuple was closed
before, if its sender has used another initial sequence number, or if its sender was in the middle
of a stream; a repeated SYN (same number) never does, nor does the other SYN of a simultaneous
open (RFC 9293 section 3.5) or a SYN-ACK that acknowledges the peer's SYN. In captures of one
direction SYN-ACKs mark the beginning by the same rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from pcapdiag.flows.arrays import last_where, previous, starts_of
from pcapdiag.flows.five_tuple import endpoint_keys, order_by
from pcapdiag.protocols import TcpFlag

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pcapdiag.flows.arrays import Columns, Rows

_CLOSING: Final = np.uint16(TcpFlag.FIN | TcpFlag.RST)
_SYN: Final = np.uint16(TcpFlag.SYN)
_ACK: Final = np.uint16(TcpFlag.ACK)

SYSTEM_PORTS: Final = 1024
"""Ports below are services (RFC 6335 section 6): clients get theirs from far above."""

POPULAR: Final = 2
"""An endpoint with this many times more flows than the other is the service."""

SOURCES: Final = ("syn", "syn-ack", "port", "first")
"""Indices into this are `originator_source`."""


class Handshakes(NamedTuple):
    """The SYN-flagged packets of a vantage, in tuple order (five-tuple, then row)."""

    place: Rows
    """Position in the tuple order."""
    tuple_index: Rows
    by_second: NDArray[np.bool_]
    pure: NDArray[np.bool_]
    """Without ACK."""
    seq: NDArray[np.uint32]
    ack: NDArray[np.uint32]

    @classmethod
    def among(
        cls,
        order: Rows,
        starts: Rows,
        tcp_flags: NDArray[np.uint16],
        by_second: NDArray[np.bool_],
        seq: NDArray[np.uint32],
        ack: NDArray[np.uint32],
    ) -> Handshakes:
        """Gather them: flags and sides stand in tuple order, seq and ack in row order."""
        place = np.flatnonzero(tcp_flags & _SYN)
        rows = order[place]
        return cls(
            place,
            np.searchsorted(starts, place, "right") - 1,
            by_second[place],
            tcp_flags[place] & _ACK == 0,
            seq[rows],
            ack[rows],
        )


def new_flows(
    shakes: Handshakes,
    order: Rows,
    starts: Rows,
    tcp_flags: NDArray[np.uint16],
    by_second: NDArray[np.bool_],
    seq: NDArray[np.uint32],
) -> Rows:
    """Return the positions, in tuple order, at which a tuple is used anew."""
    place, index = shakes.place, shakes.tuple_index
    if not len(place) or not (place != starts[index]).any():
        return np.empty(0, np.int64)
    begin = starts_of(index)
    begin = np.repeat(begin, np.diff(begin, append=len(index)))

    def before(mask: NDArray[np.bool_]) -> Rows:
        """Return the last handshake packet before each, in its tuple, where `mask` holds; or -1."""
        found = last_where(mask)
        inside: Rows = np.where(found >= begin, found, -1)
        return inside

    first, second = before(~shakes.by_second), before(shakes.by_second)
    own = np.where(shakes.by_second, second, first)
    any_side = np.maximum(first, second)
    peer_pure = np.where(
        shakes.by_second,
        before(~shakes.by_second & shakes.pure),
        before(shakes.by_second & shakes.pure),
    )

    closings = np.cumsum((tcp_flags & _CLOSING) != 0, dtype=np.int64)
    closings = previous(closings, 0)
    since = np.where(any_side >= 0, place[any_side], starts[index])
    closed = closings[place] > closings[since]

    repeated = (own >= 0) & (shakes.seq[own] == shakes.seq)
    answers = ~shakes.pure & (peer_pure >= 0) & (shakes.ack == shakes.seq[peer_pure] + np.uint32(1))
    simultaneous = shakes.pure & ~closed & (any_side >= 0) & (any_side == peer_pure)
    midstream = (own < 0) & _sent_before(shakes, order, starts, by_second, seq)
    anew = (own >= 0) | closed | midstream
    anew = anew & ~repeated & ~answers & ~simultaneous & (place != starts[index])
    reused: Rows = place[anew]
    return reused


def _sent_before(
    shakes: Handshakes,
    order: Rows,
    starts: Rows,
    by_second: NDArray[np.bool_],
    seq: NDArray[np.uint32],
) -> NDArray[np.bool_]:
    """Return whether the sender of each had sent before in its tuple, other than right behind it.

    A capture may show the SYN behind the packet that follows it in sequence; that one does not
    count.
    """
    begin = starts[shakes.tuple_index]
    seconds = previous(np.cumsum(by_second, dtype=np.int64), 0)
    by_second_before = seconds[shakes.place] - seconds[begin]
    sent = np.where(shakes.by_second, by_second_before, shakes.place - begin - by_second_before)
    follows = (by_second[begin] == shakes.by_second) & (
        seq[order[begin]] == shakes.seq + np.uint32(1)
    )
    before: NDArray[np.bool_] = (sent > 0) & ~follows
    return before


def originators(
    shakes: Handshakes,
    starts: Rows,
    by_second: NDArray[np.bool_],
    packets: Columns,
    first_row: Rows,
    *,
    by_ports: bool = True,
) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
    """Return per flow whether its second side opened it, and an index into SOURCES.

    `starts` are the flows' first positions in tuple order, `first_row` the rows there. Without
    `by_ports` a flow without handshake is left to who sent first.
    """
    count = len(starts)
    opened = by_second[starts].copy()
    source = np.full(count, SOURCES.index("first"), np.uint8)
    flow = np.searchsorted(starts, shakes.place, "right") - 1
    for pure, name in ((False, "syn-ack"), (True, "syn")):
        chosen = np.flatnonzero(shakes.pure == pure)
        first = chosen[starts_of(flow[chosen])]
        opened[flow[first]] = shakes.by_second[first] == pure
        source[flow[first]] = SOURCES.index(name)
    undecided = np.flatnonzero(source == SOURCES.index("first"))
    if len(undecided) and by_ports:
        sender_opened = by_port(undecided, opened == by_second[starts], packets, first_row)
        told = undecided[sender_opened != 0]
        opened[told] = by_second[starts[told]] == (sender_opened[sender_opened != 0] > 0)
        source[told] = SOURCES.index("port")
    return opened, source


def by_port(
    undecided: Rows, sender_opened: NDArray[np.bool_], packets: Columns, first_row: Rows
) -> NDArray[np.int8]:
    """Return 1 where the first packet's sender opened the flow, -1 where its receiver, 0 unknown.

    `undecided` are the flows asked about, `sender_opened` says it of all others, and `first_row`
    are rows of `packets`, one a flow. One system port is the service's; else the endpoint with many
    more flows; else the lower port.
    """
    decided = np.ones(len(first_row), np.bool_)
    decided[undecided] = False
    rows = first_row[undecided]
    mine, theirs = (endpoint_keys(packets, end, rows) for end in ("src", "dst"))
    services = (
        endpoint_keys(packets, "dst", first_row[decided & sender_opened]),
        endpoint_keys(packets, "src", first_row[decided & ~sender_opened]),
    )
    flows_of = _counts(np.concatenate((mine, theirs, *services)))
    my_flows, their_flows = flows_of[: len(mine)], flows_of[len(mine) : 2 * len(mine)]

    my_port, their_port = (packets.values(f"{end}_port")[rows] for end in ("src", "dst"))
    by_number = np.sign(my_port.astype(np.int64) - their_port)
    by_count = np.where(their_flows >= POPULAR * my_flows, 1, 0) - np.where(
        my_flows >= POPULAR * their_flows, 1, 0
    )
    one_system = (my_port < SYSTEM_PORTS) != (their_port < SYSTEM_PORTS)
    result = np.where(one_system | (by_count == 0), by_number, by_count)
    return result.astype(np.int8)


def _counts(keys: NDArray[np.uint64]) -> Rows:
    """Return how often each key occurs, per element."""
    order, starts = order_by(keys)
    lengths = np.diff(starts, append=len(order))
    counts = np.empty(len(keys), np.int64)
    counts[order] = np.repeat(lengths, lengths)
    return counts
