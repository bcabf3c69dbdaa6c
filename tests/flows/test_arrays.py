"""Columns as arrays, and segmented operations."""

from __future__ import annotations

import numpy as np
import polars as pl

from pcapdiag.flows.arrays import (
    Columns,
    last_where,
    lengths_of,
    nullable,
    previous,
    spread,
    starts_of,
)


def test_values_and_presence() -> None:
    """Nulls are filled in the column's own dtype, and known to be null."""
    columns = Columns(pl.DataFrame({"a": pl.Series([1, None, 3], dtype=pl.UInt16)}))
    assert columns.values("a").dtype == np.uint16
    assert columns.values("a", 9).tolist() == [1, 9, 3]
    assert columns.present("a").tolist() == [True, False, True]
    assert not columns.complete("a")


def test_enum_codes() -> None:
    """An Enum is given as its codes."""
    columns = Columns(pl.DataFrame({"a": pl.Series(["in", None], dtype=pl.Enum(["out", "in"]))}))
    assert columns.values("a", 255).tolist() == [1, 255]


def test_uniform() -> None:
    """A column of one value, or of nulls only, tells nothing apart."""
    frame = pl.DataFrame({"a": [5, 5], "b": [None, 0], "c": [None, 1], "d": [None, None]})
    columns = Columns(frame.with_columns(pl.col("d").cast(pl.Int64)))
    assert [columns.uniform(name) for name in "abcd"] == [True, True, False, True]


def test_chunks_are_joined() -> None:
    """A column in chunks is one array."""
    frame = pl.concat([pl.DataFrame({"a": [1, None]}), pl.DataFrame({"a": [3]})], rechunk=False)
    assert Columns(frame).values("a").tolist() == [1, 0, 3]
    assert Columns(frame).present("a").tolist() == [True, False, True]


def test_segments() -> None:
    """Runs, their lengths, and values spread over them."""
    starts = starts_of(np.array([4, 4, 1, 1, 1, 4]))
    assert starts.tolist() == [0, 2, 5]
    assert lengths_of(starts, 6).tolist() == [2, 3, 1]
    assert spread(np.array([7, 8, 9]), starts, 6).tolist() == [7, 7, 8, 8, 8, 9]
    assert starts_of(np.empty(0)).tolist() == []


def test_what_came_before() -> None:
    """The element before, and the last one before where something held."""
    assert previous(np.array([1, 2, 3]), 9).tolist() == [9, 1, 2]
    assert previous(np.empty(0), 9).tolist() == []
    assert last_where(np.array([False, True, False, True])).tolist() == [-1, -1, 1, 1]


def test_nullable() -> None:
    """Where a value is not known there is a null."""
    assert nullable("a", np.array([1, 2]), np.array([True, False])).to_list() == [1, None]
    assert nullable("a", np.array([True]), None).to_list() == [True]
