"""Several captures of one vantage as one, by time; `row` counts in the merged packets."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from pcapdiag import spool
from pcapdiag.capture.frames import NO_TIME
from pcapdiag.decode.packets import Decoded, concat
from pcapdiag.flows.arrays import Columns
from pcapdiag.spool import Spooled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pcapdiag.flows.arrays import Rows
    from pcapdiag.spool import Table


def merged(parts: Sequence[Decoded]) -> Decoded:
    """Return the parts as one, stably ordered by time. Raises SpoolError.

    A frame without a time stays behind the frame before it in its part. What is spooled of any part
    is of the whole, and the parts' files become the whole's or are removed.
    """
    if not parts:
        return concat([])
    if len(parts) == 1:
        return parts[0]
    begins = np.cumsum([0, *(len(part.packets) for part in parts[:-1])])
    times = np.concatenate([_filled_times(part.packets) for part in parts])
    order: Rows = np.argsort(times, kind="stable")
    in_order = bool((order[1:] > order[:-1]).all())
    place = np.empty(len(order), np.uint32)
    place[order] = np.arange(len(order), dtype=np.uint32)
    packets = _end_to_end([part.packets for part in parts])
    tables: dict[str, Any] = {"packets": packets if in_order else _ordered(packets, order)}
    for field in fields(Decoded):
        if field.name != "packets":
            sides = [getattr(part, field.name) for part in parts]
            tables[field.name] = _placed(sides, begins, place)
    return Decoded(**tables)


def _filled_times(packets: Table) -> Rows:
    """Return times with the last one known before where there is none."""
    times = packets.lazy().select("time_ns").collect().select(pl.col("time_ns").forward_fill())
    return Columns(times).values("time_ns", NO_TIME)


def _end_to_end(parts: Sequence[Table]) -> Table:
    """Return the rows of several tables behind one another, spooled where any are."""
    folder = next((part.folder for part in parts if isinstance(part, Spooled)), None)
    if folder is None:
        return pl.concat([frame for part in parts for frame in spool.frames(part)], rechunk=True)
    filled = [part for part in parts if len(part)]
    empty = [part for part in parts if not len(part)]
    if not filled:
        filled.append(empty.pop())
    for part in empty:
        spool.discard(part)
    kept = [part if isinstance(part, Spooled) else spool.spooled([part], folder) for part in filled]
    paths = [path for part in kept for path in part.paths]
    return Spooled(tuple(paths), tuple(height for part in kept for height in part.heights))


def _placed(sides: Sequence[Table], begins: Rows, place: NDArray[np.uint32]) -> Table:
    """Return side tables as one in order of row; `place` is each packet's row in the whole."""
    row = np.concatenate(
        [place[_column(side, "row") + begin] for side, begin in zip(sides, begins, strict=True)]
    )
    return _ordered(_end_to_end(sides), np.argsort(row, kind="stable"), row)


def _column(table: Table, name: str) -> NDArray[Any]:
    return Columns(table.lazy().select(name).collect()).values(name)


def _ordered(table: Table, order: Rows, row: NDArray[np.uint32] | None = None) -> Table:
    """Return the rows in another order; files that held them in the old one are removed.

    `row`: of a side table, what its column of that name is to hold, in the old order.
    """

    def taken(rows: Rows) -> pl.DataFrame:
        found = spool.at(table, pl.Series(rows))
        return found if row is None else found.with_columns(pl.Series("row", row[rows]))

    if isinstance(table, pl.DataFrame):
        return taken(order)
    pieces = range(0, max(1, len(order)), spool.CHUNK_ROWS)
    ordered = spool.spooled(
        (taken(order[begin : begin + spool.CHUNK_ROWS]) for begin in pieces), table.folder
    )
    spool.discard(table)
    return ordered
