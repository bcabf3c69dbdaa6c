"""What each side of a TCP flow sent, repeated, and got acknowledged: columns of `flows`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple, Self

import numpy as np
import polars as pl

from pcapdiag.capture.frames import NO_TIME
from pcapdiag.flows import acknowledged, offload, repeats, sequence
from pcapdiag.flows.acknowledged import NOTHING
from pcapdiag.flows.arrays import Columns, starts_of
from pcapdiag.flows.repeats import Packets
from pcapdiag.protocols import TcpFlag

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pcapdiag.flows.acknowledged import Fate, Heard
    from pcapdiag.flows.arrays import Rows
    from pcapdiag.flows.repeats import Repeats
    from pcapdiag.flows.sequence import Axis
    from pcapdiag.flows.sides import Measures, Sides

_SYN: Final = np.uint16(TcpFlag.SYN)
_RST: Final = np.uint16(TcpFlag.RST)
_MAX_U16: Final = int(np.iinfo(np.uint16).max)

_COUNTS: Final = {
    "retransmitted": np.uint32,
    "retransmitted_bytes": np.uint64,
    "timeouts": np.uint16,
    "offload": np.bool_,
}
"""0 where there is nothing to count: at sides of other protocols, or that sent nothing."""

Repeated = tuple["Rows", "Rows"]
"""Rows of repetitions, and for each the row of the packet that carried its first byte first."""


class Sacks(NamedTuple):
    """SACK blocks of first sights, by side."""

    about: NDArray[np.int32]
    """The side whose bytes the block is about. Ascending."""
    left: NDArray[np.uint32]
    right: NDArray[np.uint32]

    @classmethod
    def of(cls, sacks: pl.DataFrame, side_of_row: NDArray[np.int32]) -> Self:
        """Return the blocks of packets that have a side."""
        columns = Columns(sacks)
        sender = side_of_row[columns.values("row")]
        chosen = np.flatnonzero(sender >= 0)
        chosen = chosen[np.argsort(sender[chosen] ^ 1, kind="stable")]
        return cls(
            sender[chosen] ^ 1, columns.values("left")[chosen], columns.values("right")[chosen]
        )

    def within(self, side: Rows) -> tuple[Rows, NDArray[np.uint32], NDArray[np.uint32]]:
        """Return those about the given sides (ascending): index of the side, left and right."""
        chosen = slice(
            np.searchsorted(self.about, side[0]), np.searchsorted(self.about, side[-1], "right")
        )
        index = np.searchsorted(side, self.about[chosen])
        there = side[np.minimum(index, len(side) - 1)] == self.about[chosen]
        return index[there], self.left[chosen][there], self.right[chosen][there]


def handshakes(packets: Columns, side_of_row: NDArray[np.int32], measures: Measures) -> None:
    """Fill in the options of each side's first SYN that has any; begin the counts at 0."""
    for name, dtype in _COUNTS.items():
        measures.put(name, np.empty(0, np.int64), np.empty(0, dtype), otherwise=0)
    syn = (packets.values("tcp_flags") & _SYN != 0) & (side_of_row >= 0)
    rows = np.flatnonzero(syn)
    names = ("mss", "wscale", "sack_permitted")
    said = Columns(packets.frame.select(f"tcp_{name}" for name in names).filter(pl.Series(syn)))
    order = np.argsort(side_of_row[rows], kind="stable")
    side = side_of_row[rows[order]].astype(np.int64)
    for name in names:
        known = order[said.present(f"tcp_{name}")[order]]
        by_side = side[said.present(f"tcp_{name}")[order]]
        first = starts_of(by_side)
        told = said.values(f"tcp_{name}", fill=False)[known[first]]
        measures.put(name, by_side[first], told)


def measure(sides: Sides, sacks: Sacks, measures: Measures) -> Repeated:
    """Fill in the TCP columns of these sides; return which rows repeat bytes of which.

    Null at sides of other protocols, and where a side's sequence numbers were never seen. What
    depends on ACKs is null where the peer's packets do not come by. handshakes() comes first.
    """
    index = _tcp(sides)
    if index is None:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    length = index.payload.astype(np.int64)
    length += (index.flags >> 1) & 1
    length += index.flags & 1
    bare_reset = ((index.flags & _RST) != 0) & (index.payload == 0)
    axis = sequence.lay_out(index.seq, length, index.payload, bare_reset, index.starts)

    index = _as_on_the_wire(index, sides.packets, measures)
    found = repeats.find(index, axis, sides.packets.values("tcp_window"))
    heard = acknowledged.hear(index, axis, _peers(index.side), sacks.within(index.side))
    fate = acknowledged.judge(index, axis, found, heard)
    _put_sent(measures, index.side, axis, heard)
    _put_repeated(measures, index, found)
    _put_fate(measures, index.side, axis, heard, fate)
    carried = np.flatnonzero(found.carrier >= 0)
    return index.rows[found.at[carried]], index.rows[found.carrier[carried]]


def _tcp(sides: Sides) -> Packets | None:
    """Return the TCP packets whose header was kept, or None where there are none."""
    rows, starts, side = sides.rows, sides.starts, sides.side
    columns = [
        sides.values("tcp_seq"),
        sides.values("tcp_ack"),
        sides.values("tcp_flags"),
        sides.values("payload_len"),
        sides.values("ip_len"),
        sides.values("time_ns", NO_TIME),
    ]
    wanted = sides.packets.present("tcp_flags")[rows]
    if not wanted.all():
        segment = np.repeat(np.arange(len(side)), sides.lengths)[wanted]
        rows, starts = rows[wanted], starts_of(segment)
        side = side[segment[starts]]
        columns = [column[wanted] for column in columns]
    if not len(rows):
        return None
    return Packets(rows, starts, side, *columns)


def _peers(side: Rows) -> Rows:
    """Return, per segment, the index of the other side of its flow, or -1; `side` ascends."""
    peer = np.full(len(side), -1, np.int64)
    first = np.flatnonzero(side[1:] >> 1 == side[:-1] >> 1)
    peer[first] = first + 1
    peer[first + 1] = first
    return peer


def _as_on_the_wire(index: Packets, packets: Columns, measures: Measures) -> Packets:
    """Return the packets with sizes as on the wire; puts `offload`."""
    mss, known = measures.columns["mss"]
    peer = index.side ^ 1
    version = packets.values("ip_version")[index.rows[index.starts]]
    limit = offload.limits(
        mss[peer], known[peer] if known is not None else np.ones(len(peer), np.bool_), version
    )
    largest = np.maximum.reduceat(index.size, index.starts)
    size, merged = offload.wire_sizes(index.size, index.payload, index.starts, largest, limit)
    measures.put("offload", index.side, merged, otherwise=False)
    return replace(index, size=size)


def _put_sent(measures: Measures, side: Rows, axis: Axis, heard: Heard) -> None:
    measures.put("seq_first", side, axis.first, known=axis.known)
    measures.put("sent", side, axis.end - axis.base, known=axis.known)
    for name, position in (("acked", heard.acked), ("sacked", heard.sacked)):
        measures.put(name, side, position - axis.base, known=position != NOTHING)


def _put_repeated(measures: Measures, index: Packets, found: Repeats) -> None:
    count, side = len(index.starts), index.side
    segment = found.segment[found.retransmitted]
    payload = index.payload[found.at[found.retransmitted]]
    repeated = np.bincount(segment, minlength=count).astype(np.uint32)
    measures.put("retransmitted", side, repeated, otherwise=0)
    again = np.zeros(count, np.uint64)
    np.add.at(again, segment, payload.astype(np.uint64))
    measures.put("retransmitted_bytes", side, again, otherwise=0)
    timeouts = np.bincount(found.segment[found.timeout], minlength=count)
    measures.put("timeouts", side, _u16(timeouts), otherwise=0)


def _put_fate(measures: Measures, side: Rows, axis: Axis, heard: Heard, fate: Fate) -> None:
    heard_of = heard.listening
    stuck = heard_of & (fate.stuck != NOTHING)
    for name, size in (
        ("largest_acked", fate.largest_acked),
        ("smallest_unacked", fate.smallest_lost),
    ):
        measures.put(name, side, size.astype(np.uint32), known=heard_of & (size > 0))
    measures.put("stuck_offset", side, fate.stuck - np.where(stuck, axis.base, 0), known=stuck)
    measures.put("stuck_repeats", side, _u16(fate.stuck_sends), known=stuck)
    measures.put(
        "stuck_len", side, fate.stuck_size.astype(np.uint32), known=stuck & (fate.stuck_size > 0)
    )
    for name, time in (
        ("stuck_first_ns", fate.stuck_first_ns),
        ("stuck_last_ns", fate.stuck_last_ns),
    ):
        measures.put(name, side, time, known=stuck & (time != NO_TIME))


def _u16(counts: Rows) -> NDArray[np.uint16]:
    """Return counts as the column holds them; 65535 stands for more."""
    return np.minimum(counts, _MAX_U16).astype(np.uint16)
