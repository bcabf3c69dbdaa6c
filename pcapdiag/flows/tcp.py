"""What each side of a TCP flow sent, repeated, and got acknowledged: columns of `flows`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from pcapdiag.capture.frames import NO_TIME
from pcapdiag.flows import acknowledged, offload, repeats, sequence
from pcapdiag.flows.acknowledged import NOTHING
from pcapdiag.flows.arrays import Columns, starts_of
from pcapdiag.flows.repeats import Packets
from pcapdiag.protocols import TcpFlag

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

    from pcapdiag.flows.acknowledged import Fate, Heard
    from pcapdiag.flows.arrays import Rows
    from pcapdiag.flows.repeats import Repeats
    from pcapdiag.flows.sequence import Axis
    from pcapdiag.flows.sides import Measures, Sides

_SYN: Final = np.uint16(TcpFlag.SYN)
_RST: Final = np.uint16(TcpFlag.RST)
_MAX_U16: Final = int(np.iinfo(np.uint16).max)

Repeated = tuple["Rows", "Rows"]
"""Rows of repetitions, and for each the row of the packet that carried its first byte first."""


def measure(sides: Sides, sacks: pl.DataFrame, measures: Measures) -> Repeated:
    """Fill in the TCP columns; return which rows repeat bytes of which.

    Null at sides of other protocols, and where a side's sequence numbers were never seen. What
    depends on ACKs is null where the peer's packets do not come by.
    """
    packets = sides.packets
    _handshake(sides, measures)
    index = _tcp(sides)
    if index is None:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    length = index.payload.astype(np.int64)
    length += (index.flags >> 1) & 1
    length += index.flags & 1
    bare_reset = ((index.flags & _RST) != 0) & (index.payload == 0)
    axis = sequence.lay_out(index.seq, length, index.payload, bare_reset, index.starts)
    segment_of = np.full(2 * sides.flow_count, -1, np.int64)
    segment_of[index.side] = np.arange(len(index.side))
    peer = segment_of[index.side ^ 1]

    index = _as_on_the_wire(index, packets, measures)
    found = repeats.find(index, axis, packets.values("tcp_window"))
    heard = acknowledged.hear(index, axis, peer, _blocks(sacks, len(packets), index, peer))
    fate = acknowledged.judge(index, axis, found, heard)
    _put_sent(measures, index.side, axis, heard)
    _put_repeated(measures, index, found)
    _put_fate(measures, index.side, axis, heard, fate)
    carried = np.flatnonzero(found.carrier >= 0)
    return index.rows[found.at[carried]], index.rows[found.carrier[carried]]


def _handshake(sides: Sides, measures: Measures) -> None:
    """Options of each side's first SYN that has any."""
    packets = sides.packets
    index = np.flatnonzero(sides.values("tcp_flags") & _SYN)
    rows = sides.rows[index]
    segment = np.searchsorted(sides.starts, index, "right") - 1
    for name in ("mss", "wscale", "sack_permitted"):
        known = packets.present(f"tcp_{name}")[rows]
        first = starts_of(segment[known])
        told = packets.values(f"tcp_{name}", fill=False)[rows[known][first]]
        measures.put(name, sides.side[segment[known][first]], told)


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
    if not sides.packets.complete("tcp_flags"):
        wanted = sides.packets.present("tcp_flags")[rows]
        segment = np.repeat(np.arange(len(side)), sides.lengths)[wanted]
        rows, starts = rows[wanted], starts_of(segment)
        side = side[segment[starts]]
        columns = [column[wanted] for column in columns]
    if not len(rows):
        return None
    return Packets(rows, starts, side, *columns)


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


def _blocks(
    sacks: pl.DataFrame, rows: int, index: Packets, peer: Rows
) -> tuple[Rows, NDArray[np.uint32], NDArray[np.uint32]]:
    """Return SACK blocks of the packets: the segment they are about, left and right edge."""
    columns = Columns(sacks)
    row, left, right = (columns.values(name) for name in ("row", "left", "right"))
    if not len(row):
        return np.empty(0, np.int64), left, right
    about = np.full(rows, -1, np.int64)
    about[index.rows] = np.repeat(peer, np.diff(index.starts, append=len(index.rows)))
    subject = about[row]
    told = subject >= 0
    return subject[told], left[told], right[told]


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
