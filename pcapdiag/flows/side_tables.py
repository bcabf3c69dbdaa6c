"""Side tables beside the packets that they are about: `row` in them ascends, as it does there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from pcapdiag import spool

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

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


def renumbered(side: pl.DataFrame, row: NDArray[np.uint32]) -> pl.DataFrame:
    """Return the rows about packets of `row`, which ascend, as `row` counts in these."""
    about = side.get_column("row").to_numpy()
    place = np.searchsorted(row, about)
    there = place < len(row)
    there[there] = row[place[there]] == about[there]
    here = np.flatnonzero(there)
    return side[here].with_columns(pl.Series("row", place[here].astype(np.uint32)))
