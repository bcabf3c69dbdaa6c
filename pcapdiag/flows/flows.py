"""The `flows` table, and what `packets` says of its flow: number, sender, first sight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import polars as pl

from pcapdiag import schema
from pcapdiag.capture.frames import NO_TIME
from pcapdiag.flows import conversations, sides, sightings, tcp
from pcapdiag.flows.arrays import Columns, nullable
from pcapdiag.flows.five_tuple import keys_of
from pcapdiag.flows.incarnations import SOURCES
from pcapdiag.flows.offload import MAX_MTU
from pcapdiag.flows.sides import Measures

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pcapdiag.flows.arrays import Rows
    from pcapdiag.flows.conversations import Conversations
    from pcapdiag.flows.five_tuple import Keys
    from pcapdiag.flows.sightings import Tally

_CLOSED_BY: Final = ("orig-fin", "resp-fin", "orig-rst", "resp-rst")
"""Index: 2 for RST, plus 1 for the responder."""


class Flows(NamedTuple):
    """What build() makes of a packets table."""

    flows: pl.DataFrame
    """Table `flows`, numbered in order of first packet."""
    in_flows: pl.DataFrame
    """Table `packets_in_flows`, one row a packet."""


class Part(NamedTuple):
    """The flows of some packets of a vantage: of all, or of all that share certain five-tuples."""

    flows: pl.DataFrame
    """Table `flows`; rows count in the part, and flows in order of first packet of the part."""
    in_flows: InFlows
    tally: Tally
    opened_by_sender: NDArray[np.bool_]
    """Per flow: whether the sender of its first packet is the originator."""


def build(packets: pl.DataFrame, sacks: pl.DataFrame, icmp: pl.DataFrame) -> Flows:
    """Return the flows of one vantage.

    `packets`, `sacks` and `icmp` are decoded tables (schema.py), `row` in the side tables being
    the row in `packets`. Times may be missing and may go backwards.
    """
    highest = packets.get_column("capture").max()
    captures = 1 + int(highest) if isinstance(highest, int) else 1
    whole = part(packets, sacks, icmp, captures)
    return Flows(whole.flows, whole.in_flows.table())


def part(
    packets: pl.DataFrame,
    sacks: pl.DataFrame,
    icmp: pl.DataFrame,
    captures: int,
    habit: NDArray[np.int64] | None = None,
) -> Part:
    """Return the flows of the packets given, who may be a part of a vantage's: see sightings.

    With `habit`, that of the whole vantage, they are a part: originators that other flows tell are
    then left to be told (`originator_source` is "first").
    """
    columns = Columns(packets)
    keys = keys_of(columns)
    copies, tally = sightings.copy_of(columns, icmp, keys, captures, habit)
    by_ports = habit is None
    found, measures, repeated = _measure(columns, sacks, keys, copies, by_ports)
    rows, originals = sightings.recut_copies(columns, *repeated)
    if len(rows):
        copies[rows] = originals
        found, measures, _ = _measure(columns, sacks, keys, copies, by_ports)
    in_flows = _in_flows(found, copies)
    table = _table(columns, found, measures, in_flows, copies)
    return Part(table, in_flows, tally, in_flows.by_orig[found.first_row])


def _measure(
    packets: Columns, sacks: pl.DataFrame, keys: Keys, copies: Rows, by_ports: bool
) -> tuple[Conversations, Measures, tcp.Repeated]:
    """Return flows, their sides' columns, and which rows repeat bytes of which."""
    found = conversations.find(packets, keys, keys.has_ports & (copies < 0), by_ports=by_ports)
    measures = Measures(2 * found.count, {})
    blocks = tcp.Sacks.of(sacks, found.side_of_row)
    tcp.handshakes(packets, found.side_of_row, measures)
    repeated = [(np.empty(0, np.int64), np.empty(0, np.int64))]
    for sides_part in found.sides.blocks():
        sides.measure(sides_part, measures)
        repeated.append(tcp.measure(sides_part, blocks, measures))
    rows, originals = (np.concatenate(columns) for columns in zip(*repeated, strict=True))
    return found, measures, (rows, originals)


class InFlows(NamedTuple):
    """The packets_in_flows table as arrays, one element a packet."""

    flow: NDArray[np.int32]
    """-1: none."""
    by_orig: NDArray[np.bool_]
    copies: Rows
    """-1: a first sight."""

    def table(self) -> pl.DataFrame:
        """Return it with nulls."""
        columns = [
            nullable("flow", self.flow.astype(np.uint32), self.flow >= 0),
            nullable("by_orig", self.by_orig, self.flow >= 0),
            nullable("copy_of", self.copies.astype(np.uint32), self.copies >= 0),
        ]
        return schema.conform(pl.DataFrame(columns), "packets_in_flows")


def _in_flows(found: Conversations, copies: Rows) -> InFlows:
    side = found.side_of_row
    later = np.flatnonzero(copies >= 0)
    if len(later):
        side = side.copy()
        side[later] = side[copies[later]]
    return InFlows(side >> 1, side & 1 == 0, copies)


def _table(
    packets: Columns,
    found: Conversations,
    measures: Measures,
    in_flows: InFlows,
    copies: Rows,
) -> pl.DataFrame:
    if not found.count:
        return schema.empty("flows")
    first = found.first_row
    sent_by_orig = in_flows.by_orig[first]
    columns = [
        pl.Series("flow", np.arange(found.count, dtype=np.uint32)),
        *(pl.Series(name, packets.values(name)[first]) for name in ("ip_version", "ip_proto")),
        pl.Series("first_row", first.astype(np.uint32)),
        pl.Series("originator_source", found.source)
        .cast(pl.Int64)
        .replace_strict(dict(enumerate(SOURCES)), return_dtype=schema.ORIGINATOR_SOURCES),
    ]
    for part in ("hi", "lo", "port"):
        source, target = (packets.values(f"{end}_{part}")[first] for end in ("src", "dst"))
        columns.append(pl.Series(f"orig_{part}", np.where(sent_by_orig, source, target)))
        columns.append(pl.Series(f"resp_{part}", np.where(sent_by_orig, target, source)))
    columns += _life(found, measures)
    columns.append(_tunnel(packets, in_flows, found.count))
    later = in_flows.flow[copies >= 0]
    counted = np.bincount(later[later >= 0], minlength=found.count)
    columns.append(pl.Series("copies", counted.astype(np.uint32)))
    _unsegmented(measures)
    for name in list(measures.columns):
        column, known = measures.columns.pop(name)  # to be freed: floods have millions of flows
        for offset, prefix in enumerate(("orig", "resp")):
            part_known = None if known is None else known[offset::2]
            columns.append(nullable(f"{prefix}_{name}", column[offset::2], part_known))
    return schema.conform(pl.DataFrame(columns), "flows")


def _life(found: Conversations, measures: Measures) -> list[pl.Series]:
    """First and last time, longest pause, and who closed."""
    first, timed = measures.columns["first_ns"]
    last, _ = measures.columns["last_ns"]
    seen = np.ones(len(first), np.bool_) if timed is None else timed
    some = seen[0::2] | seen[1::2]
    begin = np.where(seen, first, sides.LAST_TIME).reshape(-1, 2).min(axis=1)
    end = np.where(seen, last, NO_TIME).reshape(-1, 2).max(axis=1)
    closed = pl.Series("closed_by", found.closed_by).replace_strict(
        {-1: None, **dict(enumerate(_CLOSED_BY))}, return_dtype=pl.Enum(_CLOSED_BY)
    )
    return [
        nullable("first_ns", begin, some),
        nullable("last_ns", end, some),
        nullable("idle_ns", found.idle_ns, found.idle_ns >= 0),
        nullable("idle_end_ns", found.idle_end_ns, found.idle_end_ns != NO_TIME),
        closed,
    ]


def _tunnel(packets: Columns, in_flows: InFlows, count: int) -> pl.Series:
    """Return per flow the encapsulation of its first tunnelled packet, second sights included."""
    rows = np.flatnonzero(packets.present("tunnel") & (in_flows.flow >= 0))[::-1]
    kinds = packets.frame.get_column("tunnel")
    where = np.full(count, -1, np.int64)
    where[in_flows.flow[rows]] = rows
    return kinds.gather(pl.Series(where).replace(-1, None)).alias("tunnel").cast(schema.TUNNELS)


def _unsegmented(measures: Measures) -> None:
    """Flag what no wire carries, whatever the protocol."""
    largest, known = measures.columns["max_ip_len"]
    sent = np.ones(len(largest), np.bool_) if known is None else known
    every = np.flatnonzero(sent & (largest > MAX_MTU))
    measures.put("offload", every, np.ones(len(every), np.bool_), otherwise=False)
