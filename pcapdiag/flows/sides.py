"""Packets in order of flow and side, and what can be counted of each side whatever the protocol."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pcapdiag.capture.frames import NO_TIME
from pcapdiag.flows.arrays import lengths_of, starts_of
from pcapdiag.protocols import TcpFlag

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pcapdiag.flows.arrays import Columns, Rows

BLOCK: Final = 1 << 16
"""Packets measured at once: some twenty columns of so many stay in the outer cache, and what is
needed beside the capture's own columns does not grow with the capture."""

LAST_TIME: Final = int(np.iinfo(np.int64).max)


@dataclass(slots=True)
class Measures:
    """Columns with one element per side: side 2 f is flow f's originator, 2 f + 1 its responder.

    A column is values and where they are known (None: everywhere).
    """

    sides: int
    columns: dict[str, tuple[NDArray[Any], NDArray[np.bool_] | None]]

    def put(
        self,
        name: str,
        side: Rows,
        per_side: NDArray[Any],
        *,
        known: NDArray[np.bool_] | None = None,
        otherwise: Any = None,
    ) -> None:
        """Set column `name` at the given sides; elsewhere `otherwise`, or unknown where None."""
        if name not in self.columns:
            full = np.zeros(self.sides, per_side.dtype)
            valid: NDArray[np.bool_] | None = None
            if otherwise is None:
                valid = np.zeros(self.sides, np.bool_)
            else:
                full[:] = otherwise
            self.columns[name] = (full, valid)
        full, valid = self.columns[name]
        full[side] = per_side
        if valid is not None:
            valid[side] = True if known is None else known


@dataclass(frozen=True, slots=True)
class Sides:
    """First sights in order (flow, originator before responder, row); segments are sides."""

    packets: Columns
    rows: Rows
    starts: Rows
    side: Rows
    """Per segment: 2 * flow, plus one for the responder. Ascending."""
    _taken: dict[str, NDArray[Any]] = field(default_factory=dict)

    def values(self, name: str, fill: int | bool = 0) -> NDArray[Any]:
        """Return a column of the packets in this order, with `fill` for null."""
        if name not in self._taken:
            self._taken[name] = self.packets.values(name, fill)[self.rows]
        return self._taken[name]

    @property
    def lengths(self) -> Rows:
        """Return the packets of each segment."""
        return lengths_of(self.starts, len(self.rows))

    def side_of_row(self) -> NDArray[np.int32]:
        """Return, per row of the capture, the packet's side, or -1."""
        found = np.full(len(self.packets), -1, np.int32)
        found[self.rows] = np.repeat(self.side.astype(np.int32), self.lengths)
        return found

    def blocks(self) -> Iterator[Sides]:
        """Yield the same in parts of whole flows, of about BLOCK packets or of one flow."""
        flow_starts = np.append(self.starts[starts_of(self.side >> 1)], len(self.rows))
        begin = 0
        while begin < len(self.rows):
            last = np.searchsorted(flow_starts, begin + BLOCK, "right") - 1
            end = int(max(flow_starts[last], flow_starts[np.searchsorted(flow_starts, begin) + 1]))
            chosen = slice(*np.searchsorted(self.starts, (begin, end)))
            yield Sides(
                self.packets,
                self.rows[begin:end],
                self.starts[chosen] - begin,
                self.side[chosen],
            )
            begin = end


def arrange(
    packets: Columns,
    order: Rows,
    starts: Rows,
    number: Rows,
    by_responder: NDArray[np.bool_],
) -> Sides:
    """Put packets that stand in order (flow, row) into order (flow, side, row), flows renumbered.

    `order` are rows, `starts` the flows' first positions, `number` each flow's number, and
    `by_responder` says of each position who sent.
    """
    total, count = len(order), len(starts)
    lengths = lengths_of(starts, total)
    responder_before = np.cumsum(by_responder, dtype=np.int64)
    ends = responder_before[starts + lengths - 1]
    at_start = responder_before[starts] - by_responder[starts]
    by_orig = lengths - (ends - at_start)

    lengths_by_number = np.zeros(count, np.int64)
    lengths_by_number[number] = lengths
    begin = (np.cumsum(lengths_by_number) - lengths_by_number)[number]

    # Within its side a packet's rank is how many of that side came before it.
    to_responder = np.repeat(begin + by_orig - at_start - 1, lengths) + responder_before
    position = np.arange(total, dtype=np.int64)
    to_orig = np.repeat(begin - starts + at_start, lengths) + position - responder_before
    place = np.where(by_responder, to_responder, to_orig)
    rows = np.empty(total, np.int64)
    rows[place] = order

    per_side = np.zeros(2 * count, np.int64)
    per_side[2 * number] = by_orig
    per_side[2 * number + 1] = lengths - by_orig
    side = np.flatnonzero(per_side)
    sent = per_side[side]
    return Sides(packets, rows, np.cumsum(sent) - sent, side)


def measure(sides: Sides, measures: Measures) -> None:
    """Count, per side, what any protocol has: packets, bytes, times, TTL, MACs, flags."""
    packets, starts, side = sides.packets, sides.starts, sides.side
    measures.put("packets", side, sides.lengths.astype(np.uint32), otherwise=0)
    ip_len = sides.values("ip_len")
    measures.put("ip_bytes", side, np.add.reduceat(ip_len, starts, dtype=np.uint64), otherwise=0)
    measures.put("max_ip_len", side, np.maximum.reduceat(ip_len, starts))
    payload = sides.values("payload_len")
    measures.put(
        "payload_bytes", side, np.add.reduceat(payload, starts, dtype=np.uint64), otherwise=0
    )
    has_data = payload > 0
    data = np.add.reduceat(has_data, starts, dtype=np.uint32)
    measures.put("data_packets", side, data, otherwise=0)
    df = sides.values("df", fill=False)
    every = np.logical_and.reduceat(df | ~has_data, starts)
    measures.put("df", side, every, known=data > 0)

    seen = np.bitwise_or.reduceat(sides.values("tcp_flags"), starts)
    for name in ("syn", "fin", "rst"):
        measures.put(name, side, seen & np.uint16(TcpFlag[name.upper()]) != 0, otherwise=False)

    time = sides.values("time_ns", NO_TIME)
    last = np.maximum.reduceat(time, starts)
    timed = last != NO_TIME
    if not packets.complete("time_ns"):
        first = np.minimum.reduceat(np.where(time == NO_TIME, LAST_TIME, time), starts)
    else:
        first = np.minimum.reduceat(time, starts)
    measures.put("first_ns", side, first, known=timed)
    measures.put("last_ns", side, last, known=timed)

    measures.put("ttl", side, _most_common(sides.values("ttl"), starts))
    for name in ("eth_src", "eth_dst"):
        at_first = sides.rows[starts]
        measures.put(
            name, side, packets.values(name)[at_first], known=packets.present(name)[at_first]
        )


def _most_common(small: NDArray[np.uint8], starts: Rows) -> NDArray[np.uint8]:
    """Return each segment's most common value, the smallest of several."""
    common = np.minimum.reduceat(small, starts)
    varied = np.flatnonzero(common != np.maximum.reduceat(small, starts))
    if not len(varied):
        return common
    lengths = np.diff(starts, append=len(small))
    wanted = np.zeros(len(starts), np.bool_)
    wanted[varied] = True
    chosen = np.repeat(wanted, lengths)
    segment = np.repeat(np.arange(len(starts)), lengths)[chosen]
    pairs = np.sort(segment * 256 + small[chosen])
    runs = starts_of(pairs)
    count = np.diff(runs, append=len(pairs))
    best = np.lexsort((-(pairs[runs] % 256), count, pairs[runs] // 256))
    segment = (pairs[runs] // 256)[best]
    last = np.append(starts_of(segment)[1:], len(segment)) - 1
    common[segment[last]] = (pairs[runs] % 256)[best[last]]
    return common
