"""Side tables beside the packets that they are about: `row` in them ascends, as it does there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from pcapdiag import spool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from pcapdiag.spool import Table


def alongside(side: Table, heights: Iterable[int], *names: str) -> Iterator[pl.DataFrame]:
    """Yield the rows about each stretch of packets in turn; `heights` are their lengths.

    Columns `names`, "row" among them, or all.
    """
    pieces = spool.frames(side, *names)
    rest = next(pieces)
    none, end = rest.clear(), 0
    for height in heights:
        end += height
        taken = [none]
        while len(rest) and rest["row"][0] < end:
            cut = int(rest["row"].search_sorted(end))
            taken.append(rest[:cut])
            rest = rest[cut:] if cut < len(rest) else next(pieces, none)
        yield pl.concat(taken, rechunk=True)


def finder(side: Table, *names: str) -> Callable[[pl.Series], pl.DataFrame]:
    """Return what takes out the rows about given packets: `row` and columns `names`, in order.

    The packets are those whose rows it is given, which are some. Of a table in files it reads
    only those in which such rows can be.
    """
    if isinstance(side, pl.DataFrame) or not len(side):
        whole = side.lazy().select("row", *names).collect()
        return lambda rows: whole.filter(pl.col("row").is_in(rows.implode()))
    firsts = side.at(np.cumsum([0, *side.heights[:-1]]), ["row"])["row"].to_numpy()

    def about(rows: pl.Series) -> pl.DataFrame:
        limits = rows.to_numpy()
        begin = int(np.searchsorted(firsts, limits.min()))
        end = int(np.searchsorted(firsts, limits.max(), "right"))
        # Of a packet that is told of first in a file the file before may tell, too.
        query = side.files(slice(max(0, begin - 1), max(1, end))).lazy()
        query = query.filter(pl.col("row").is_in(rows.implode()))
        return query.select("row", *names).collect()

    return about


def renumbered(side: pl.DataFrame, row: NDArray[np.uint32]) -> pl.DataFrame:
    """Return the rows about packets of `row`, which ascend, as `row` counts in these."""
    about = side.get_column("row").to_numpy()
    place = np.searchsorted(row, about)
    there = place < len(row)
    there[there] = row[place[there]] == about[there]
    here = np.flatnonzero(there)
    return side[here].with_columns(pl.Series("row", place[here].astype(np.uint32)))
