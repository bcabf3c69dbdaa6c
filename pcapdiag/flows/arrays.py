"""Polars columns as numpy arrays, and the segmented operations that flows are made of.

A segment is a run of consecutive elements: the packets of one side of one flow. `starts` holds
the index of each segment's first element; no segment is empty, and the first starts at 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from numpy.typing import NDArray

Rows = np.ndarray[Any, np.dtype[np.int64]]
"""Row numbers or positions."""

_Scalar = TypeVar("_Scalar", bound=np.generic)


def values(frame: pl.DataFrame, name: str, fill: int = 0) -> NDArray[Any]:
    """Return column `name` with `fill` for null, in the column's own dtype; may be read-only."""
    column = frame.get_column(name)
    if column.null_count():
        column = column.fill_null(fill)
    return column.to_numpy()


def present(frame: pl.DataFrame, name: str) -> NDArray[np.bool_]:
    """Return where column `name` is not null."""
    column = frame.get_column(name)
    if not column.null_count():
        return np.ones(len(column), np.bool_)
    if column.null_count() == len(column):
        return np.zeros(len(column), np.bool_)
    return column.is_not_null().to_numpy()


def flags(frame: pl.DataFrame, name: str, *, fill: bool) -> NDArray[np.bool_]:
    """Return a Boolean column with `fill` for null."""
    return frame.get_column(name).fill_null(fill).to_numpy()


def nullable(name: str, array: NDArray[Any], known: NDArray[np.bool_] | None) -> pl.Series:
    """Return a column of `array` with null where it is not known; None: known everywhere."""
    series = pl.Series(name, np.ascontiguousarray(array))
    if known is None or known.all():
        return series
    return series.set(pl.Series(~known), None)


def starts_of(ids: NDArray[Any]) -> Rows:
    """Return where each run of equal values begins."""
    if not len(ids):
        return np.empty(0, np.int64)
    changes = np.flatnonzero(ids[1:] != ids[:-1]) + 1
    return np.concatenate((np.zeros(1, np.int64), changes))


def lengths_of(starts: Rows, total: int) -> Rows:
    """Return how many elements each segment has."""
    return np.diff(starts, append=total)


def spread(per_segment: NDArray[_Scalar], starts: Rows, total: int) -> NDArray[_Scalar]:
    """Return each segment's value once per element."""
    return np.repeat(per_segment, lengths_of(starts, total))


def previous(array: NDArray[_Scalar], first: _Scalar | int) -> NDArray[_Scalar]:
    """Return the array moved one to the right, `first` in front."""
    moved = np.empty_like(array)
    if len(array):
        moved[0] = first
        moved[1:] = array[:-1]
    return moved


def last_where(mask: NDArray[np.bool_]) -> Rows:
    """Return, for each element, the index of the last one before it where `mask` holds, or -1."""
    index = np.where(mask, np.arange(len(mask), dtype=np.int64), -1)
    return previous(np.maximum.accumulate(index), -1) if len(mask) else index
