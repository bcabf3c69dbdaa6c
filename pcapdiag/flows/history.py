"""The second tier: what a few flows under suspicion did, packet by packet.

The history word is Zeek's (https://docs.zeek.org, conn.log `history`), made of what is in tables:

    S SYN without ACK   H SYN-ACK       A ACK without data   D data        F FIN     R RST
    T data sent again   W zero window   G gap: data beyond a hole    I SYN with FIN or RST

Upper case: the originator; lower case: the responder. A letter stands where its side did such a
thing for the first time; T, W and G again at the 10th, 100th, ... time. Second sights do not count.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import polars as pl

from pcapdiag.flows.arrays import Columns
from pcapdiag.flows.sequence import MAX_JUMP, lay_out
from pcapdiag.protocols import TcpFlag

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from pcapdiag.flows.vantage import VantageTables

MAX_FLOWS: Final = 1000
"""Flows that may be asked for at once: as many as a finding names."""

_ASKED: Final = (
    "row",
    "flow",
    "by_orig",
    "copy_of",
    "time_ns",
    "ip_len",
    "payload_len",
    "tcp_seq",
    "tcp_flags",
    "tcp_window",
)
"""What is read of their packets: a spooled table has some fifty columns."""

_LOGARITHMIC: Final = frozenset("TWG")


class Send(NamedTuple):
    """One time that a byte was sent."""

    row: int
    time_ns: int | None
    ip_len: int
    after_ns: int | None
    """Since the send before; None for the first."""


class SackBlock(NamedTuple):
    """One SACK block (RFC 2018): offsets of the side whose bytes it is about, as in `flows`."""

    row: int
    left: int
    right: int


class SideHistory(NamedTuple):
    """One side of a flow; bytes are offsets from `seq_first`."""

    stuck_series: tuple[Send, ...]
    """When and how large the packets were that carried the stuck byte; empty: none is stuck."""
    sacked: tuple[SackBlock, ...]
    """What the peer SACKed of it, in order of row; a block below the ACK is a D-SACK (RFC 2883)."""


class FlowHistory(NamedTuple):
    """One flow."""

    flow: int
    word: str
    rows: tuple[int, ...]
    """All its packets, second sights included."""
    orig: SideHistory
    resp: SideHistory


def histories(tables: VantageTables, flows: Iterable[int]) -> dict[int, FlowHistory]:
    """Return the histories of the named flows of a vantage; ValueError above MAX_FLOWS.

    Numbers without a flow are left out.
    """
    wanted = sorted(set(flows))
    if len(wanted) > MAX_FLOWS:
        raise ValueError(f"{len(wanted)} flows were asked for at once, at most {MAX_FLOWS} may be")
    named = pl.Series("flow", wanted, pl.UInt32)
    packets = tables.packets_of(named, row=True).select(_ASKED).collect()
    rows = pl.col("row").is_in(packets.get_column("row").implode())
    sacks = (
        tables.sacks.lazy()
        .filter(rows)
        .collect()
        .join(packets.select("row", "flow", "by_orig"), on="row", how="inner")
    )
    parts = packets.partition_by("flow", as_dict=True)
    told = sacks.sort("row", "block").partition_by("flow", as_dict=True)
    return {
        number: _history(row, parts[number,], told.get((number,), sacks.clear()))
        for row in tables.flows.filter(pl.col("flow").is_in(named.implode())).iter_rows(named=True)
        for number in (row["flow"],)
    }


def _history(flow: dict[str, Any], packets: pl.DataFrame, sacks: pl.DataFrame) -> FlowHistory:
    first_sights = packets.filter(pl.col("copy_of").is_null())
    orig, resp = (
        _side(flow, name, first_sights.filter(pl.col("by_orig") == sent), sacks, by_orig=sent)
        for name, sent in (("orig", True), ("resp", False))
    )
    return FlowHistory(
        flow=flow["flow"],
        word=_word(first_sights),
        rows=tuple(packets.get_column("row").to_list()),
        orig=orig,
        resp=resp,
    )


def _side(
    flow: dict[str, Any], name: str, sent: pl.DataFrame, sacks: pl.DataFrame, *, by_orig: bool
) -> SideHistory:
    base = flow[f"{name}_seq_first"]
    if base is None:
        return SideHistory((), ())
    said = sacks.filter(pl.col("by_orig") != by_orig)
    near = flow[f"{name}_acked"] or 0
    return SideHistory(
        _stuck_series(sent, base, flow[f"{name}_stuck_offset"]),
        tuple(
            SackBlock(row, _offset(left, base, near), _offset(right, base, near))
            for row, left, right in said.select("row", "left", "right").iter_rows()
        ),
    )


def _offset(seq: int, base: int, near: int) -> int:
    """Return the offset of a sequence number: the one closest to `near` of all that it may be."""
    distance = (seq - base - near) & 0xFFFF_FFFF
    return near + (distance if distance < 1 << 31 else distance - (1 << 32))


def _stuck_series(sent: pl.DataFrame, base: int, stuck: int | None) -> tuple[Send, ...]:
    if stuck is None:
        return ()
    byte = np.uint32((base + stuck) & 0xFFFF_FFFF)
    columns = Columns(sent)
    into = byte - columns.values("tcp_seq")
    flags = columns.values("tcp_flags")
    length = columns.values("payload_len").astype(np.int64)
    length += (flags & TcpFlag.SYN != 0).astype(np.int64)
    length += (flags & TcpFlag.FIN != 0).astype(np.int64)
    held = sent.filter(pl.Series((into < length) & (into < MAX_JUMP)))
    rows = held.select("row", "time_ns", "ip_len").rows()
    times: list[int | None] = [None, *(time for _, time, _ in rows)]
    gaps = [
        None if before is None or now is None else now - before for before, now in pairwise(times)
    ]
    return tuple(
        Send(row, time, size, gap) for (row, time, size), gap in zip(rows, gaps, strict=True)
    )


def _word(packets: pl.DataFrame) -> str:
    """Return the history word of a flow's first sights, in row order."""
    by_orig = Columns(packets).values("by_orig", fill=False)
    found: list[tuple[int, int, str]] = []
    for sent in (True, False):
        index = np.flatnonzero(by_orig == sent)
        for rank, (letter, mask) in enumerate(_letters(Columns(packets[index])).items()):
            times = index[mask]
            wanted = [10**power for power in range(len(str(len(times))))]
            wanted = wanted if letter in _LOGARITHMIC else wanted[:1]
            key = letter if sent else letter.lower()
            found.extend((int(times[n - 1]), rank, key) for n in wanted if n <= len(times))
    return "".join(letter for _, _, letter in sorted(found))


def _letters(sent: Columns) -> dict[str, NDArray[np.bool_]]:
    """Return which of one side's packets did what; in the order of letters of one packet."""
    said = sent.values("tcp_flags")
    data = sent.values("payload_len") > 0
    tcp = sent.present("tcp_flags")
    syn, ack, fin, rst = (said & TcpFlag[name] != 0 for name in ("SYN", "ACK", "FIN", "RST"))
    odd = syn & (fin | rst)
    again, beyond = _against_what_was_sent(sent, syn, fin, rst)
    return {
        "I": odd,
        "S": syn & ~ack & ~odd,
        "H": syn & ack & ~odd,
        "A": tcp & ~syn & ~data & ~fin & ~rst,
        "D": data & ~odd,
        "F": fin & ~odd,
        "R": rst & ~odd,
        "T": again,
        "G": beyond,
        "W": tcp & ~rst & (sent.values("tcp_window") == 0),
    }


def _against_what_was_sent(
    sent: Columns,
    syn: NDArray[np.bool_],
    fin: NDArray[np.bool_],
    rst: NDArray[np.bool_],
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which packets repeat only what was sent before, and which begin beyond it."""
    again, beyond = np.zeros(len(sent), np.bool_), np.zeros(len(sent), np.bool_)
    index = np.flatnonzero(sent.present("tcp_seq"))
    if len(index):
        payload = sent.values("payload_len")[index]
        length = payload.astype(np.int64) + syn[index] + fin[index]
        axis = lay_out(
            sent.values("tcp_seq")[index],
            length,
            payload,
            rst[index] & (payload == 0),
            np.zeros(1, np.int64),
        )
        holds = axis.right > axis.left
        again[index] = holds & (axis.right <= axis.before)
        beyond[index] = holds & (axis.left > axis.before)
        first = index[np.flatnonzero(holds)[:1]]
        beyond[first] = False
    return again, beyond
