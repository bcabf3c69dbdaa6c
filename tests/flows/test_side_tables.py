"""Rows of side tables go where the packets go that they are about."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from pcapdiag import spool
from pcapdiag.flows import side_tables

ABOUT = [0, 0, 3, 4, 4, 4, 9, 20]


def _side(rows=ABOUT):
    columns = {"row": rows, "told": range(len(rows))}
    return pl.DataFrame(columns, schema={"row": pl.UInt32, "told": pl.Int64})


@pytest.fixture(params=[None, 1, 3, 100], ids=lambda rows: f"{rows} a file" if rows else "memory")
def side(request, tmp_path):
    """Return the table in memory, or in files of some rows."""
    if request.param is None:
        return _side()
    return spool.filed(_side().iter_slices(request.param), str(tmp_path))


@pytest.mark.parametrize("heights", [[21], [1, 3, 1, 16], [4, 0, 5, 1, 30], [2] * 11])
def test_alongside(side, heights):
    """Each stretch of packets comes with the rows that are about it, all of them, in order."""
    ends = np.cumsum(heights)
    for end, height, found in zip(
        ends, heights, side_tables.alongside(side, heights, "row", "told"), strict=True
    ):
        wanted = [(row, n) for n, row in enumerate(ABOUT) if end - height <= row < end]
        assert found.rows() == wanted


def test_alongside_nothing(tmp_path):
    """A table without rows has a frame without rows for each stretch."""
    none = spool.spooled([_side([])], str(tmp_path))
    assert [found.height for found in side_tables.alongside(none, [3, 3])] == [0, 0]


@pytest.mark.parametrize("asked", [[0], [3, 4], [20], [9, 1, 0], [1, 2], [21, 30], [5, 0, 20]])
def test_finder(side, asked):
    """Rows are found by packet, wherever in the table they are, and in its order."""
    found = side_tables.finder(side, "told")(pl.Series("row", asked, pl.UInt32))
    assert found.rows() == [(row, n) for n, row in enumerate(ABOUT) if row in asked]


@pytest.mark.parametrize("kept", [[], [0], [3, 4, 5, 9], range(21), [1, 2, 21, 22]])
def test_renumbered(kept):
    """Rows about packets that stay count in these; the others go."""
    found = side_tables.renumbered(_side(), np.array(kept, np.uint32))
    place = {row: number for number, row in enumerate(kept)}
    assert found.rows() == [(place[row], n) for n, row in enumerate(ABOUT) if row in place]
