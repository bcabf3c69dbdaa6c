"""Flows of a spooled packets table: the same as flows.build() makes, in bounded memory.

Two things a part cannot know by itself: whether a capture doubles packets as a habit, which is
assumed not to be and held against the tally of all parts; and how popular an endpoint is, so that
flows whose originator only that tells are turned around at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from pcapdiag import beside, memory, schema, spool
from pcapdiag.flows import flows, incarnations, partitions
from pcapdiag.flows.arrays import Columns
from pcapdiag.flows.flows import InFlows
from pcapdiag.flows.incarnations import SOURCES
from pcapdiag.flows.side_tables import renumbered
from pcapdiag.spool import Spooled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pcapdiag.flows.arrays import Rows
    from pcapdiag.flows.partitions import Partitions, Piece
    from pcapdiag.flows.sightings import Tally
    from pcapdiag.spool import Table

PARTS_AT_ONCE: Final = 2
"""As many as take what one of twice PART_ROWS would, 0.2 GB."""

_SWAPPED = {
    "orig-fin": "resp-fin",
    "resp-fin": "orig-fin",
    "orig-rst": "resp-rst",
    "resp-rst": "orig-rst",
}


def build(
    packets: Spooled, sacks: Table, icmp: pl.DataFrame, pieces: tuple[Piece, ...] | None = None
) -> tuple[Spooled, pl.DataFrame]:
    """Return the packets with the columns of `packets_in_flows`, and the table `flows`.

    Arguments as for flows.build(), and the pieces of the packets if they are made. Raises
    SpoolError.
    """
    highest = packets.lazy().select(pl.col("capture").max()).collect().item()
    captures = int(highest or 0) + 1
    split = partitions.partitions(packets, sacks, pieces or partitions.split(packets))
    habit = np.ones(captures, np.int64)
    parts, tally = _parts(packets, split, icmp, habit)
    if tally is not None and (tally.habit() != 1).any():
        _discard(parts)
        parts, _ = _parts(packets, split, icmp, tally.habit())
    split.discard()
    table, turned = _joined(parts)
    told = spool.filed(_in_flows(packets, parts, turned), packets.folder)
    _discard(parts)
    return packets.hstack(told), table


@dataclass(slots=True)
class _Part:
    """What is kept of a part."""

    path: str
    """A file of _PLACED: what is known of its packets, by row."""
    bounds: Rows
    """Per chunk of the packets table: where its rows begin in the file, and the end of the last."""
    flows: pl.DataFrame
    opened_by_sender: NDArray[np.bool_]
    number: NDArray[np.int64]
    """Of each of its flows, in the vantage."""


def _parts(
    packets: Spooled,
    split: Partitions,
    icmp: pl.DataFrame,
    habit: NDArray[np.int64],
) -> tuple[list[_Part], Tally | None]:
    ends = np.cumsum([0, *packets.heights])

    def build(part: tuple[pl.DataFrame, pl.DataFrame]) -> tuple[_Part, Tally]:
        part_packets, sacks = part
        row = part_packets.get_column("row").to_numpy()
        found = flows.part(part_packets, sacks, renumbered(icmp, row), len(habit), habit)
        first = row[found.flows.get_column("first_row").to_numpy()]
        return _Part(
            spool.recorded(_placed(found.in_flows, row), packets.folder),
            np.searchsorted(row, ends),
            found.flows.with_columns(pl.Series("first_row", first, pl.UInt32)),
            found.opened_by_sender,
            np.empty(0, np.int64),
        ), found.tally

    built: list[_Part] = []
    whole: Tally | None = None
    for part, tally in beside.mapped(build, split.parts(), PARTS_AT_ONCE):
        built.append(part)
        whole = tally if whole is None else whole + tally
        memory.give_back()
    return built, whole


def _discard(parts: list[_Part]) -> None:
    spool.discard(Spooled(tuple(part.path for part in parts), ()))


_PLACED: Final = np.dtype([("row", "u4"), ("flow", "i4"), ("by_orig", "?"), ("copy_of", "i8")])
"""A packet's row, its flow in the part or -1, whether the originator sent it, and the row of its
first sight or -1."""


def _placed(found: InFlows, row: NDArray[np.uint32]) -> NDArray[np.void]:
    placed = np.empty(len(row), _PLACED)
    placed["row"], placed["flow"], placed["by_orig"] = row, found.flow, found.by_orig
    placed["copy_of"] = np.where(found.copies >= 0, row[found.copies], np.int64(-1))
    return placed


def _joined(parts: list[_Part]) -> tuple[pl.DataFrame, NDArray[np.bool_]]:
    """Return the flows of all parts, numbered by first row, and which of them were turned."""
    if not parts:
        return schema.empty("flows"), np.empty(0, np.bool_)
    table = pl.concat([part.flows for part in parts])
    opened = np.concatenate([part.opened_by_sender for part in parts])
    order = np.argsort(table.get_column("first_row").to_numpy(), kind="stable")
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order))
    begin = 0
    for part in parts:
        part.number = number[begin : begin + len(part.flows)]
        begin += len(part.flows)
        part.flows = part.flows.clear()
    table = table[order].with_columns(pl.int_range(pl.len(), dtype=pl.UInt32).alias("flow"))
    return _turned(table, opened[order])


def _turned(
    table: pl.DataFrame, opened_by_sender: NDArray[np.bool_]
) -> tuple[pl.DataFrame, NDArray[np.bool_]]:
    """Decide who opened what no handshake tells, now that all flows are known."""
    source = table.get_column("originator_source").cast(pl.String)
    undecided = np.flatnonzero((source == SOURCES[-1]).to_numpy())
    turned = np.zeros(len(table), np.bool_)
    if not len(undecided):
        return table, turned
    opened = pl.lit(pl.Series(opened_by_sender))
    ends = table.select(
        pl.when(opened).then(f"{one}_{part}").otherwise(f"{other}_{part}").alias(f"{end}_{part}")
        for end, one, other in (("src", "orig", "resp"), ("dst", "resp", "orig"))
        for part in ("hi", "lo", "port")
    )
    rows = np.arange(len(table), dtype=np.int64)
    told = incarnations.by_port(undecided, opened_by_sender, Columns(ends), rows)
    turned[undecided[told < 0]] = True
    by_port = np.zeros(len(table), np.bool_)
    by_port[undecided[told != 0]] = True
    names = [name.removeprefix("orig_") for name in table.columns if name.startswith("orig_")]
    turn = pl.lit(pl.Series(turned))
    closed = pl.col("closed_by").cast(pl.String)
    table = table.with_columns(
        *(
            pl.when(turn)
            .then(f"{other}_{name}")
            .otherwise(f"{side}_{name}")
            .alias(f"{side}_{name}")
            for name in names
            for side, other in (("orig", "resp"), ("resp", "orig"))
        ),
        pl.when(turn).then(closed.replace(_SWAPPED)).otherwise(closed).alias("closed_by"),
        pl.when(pl.lit(pl.Series(by_port)))
        .then(pl.lit("port"))
        .otherwise(pl.col("originator_source").cast(pl.String))
        .alias("originator_source"),
    )
    return schema.conform(table, "flows"), turned


def _in_flows(
    packets: Spooled, parts: list[_Part], turned: NDArray[np.bool_]
) -> Iterator[pl.DataFrame]:
    """Yield the table packets_in_flows, for each chunk of the packets."""
    begin = 0
    for number, height in enumerate(packets.heights):
        found = InFlows(
            np.full(height, -1, np.int32), np.zeros(height, np.bool_), np.full(height, -1, np.int64)
        )
        for part in parts:
            told = spool.records(part.path, _PLACED, *part.bounds[number : number + 2])
            place = told["row"] - np.uint32(begin)
            in_flow = told["flow"] >= 0
            numbers = np.full(len(told), -1, np.int32)
            numbers[in_flow] = part.number[told["flow"][in_flow]]
            by_orig = told["by_orig"].copy()
            by_orig[in_flow] ^= turned[numbers[in_flow]]
            found.flow[place], found.by_orig[place] = numbers, by_orig
            found.copies[place] = told["copy_of"]
        yield found.table()
        begin += height
