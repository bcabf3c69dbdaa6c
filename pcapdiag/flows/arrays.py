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


class Columns:
    """A frame's columns as numpy arrays, each made once; arrays may be read-only."""

    def __init__(self, frame: pl.DataFrame) -> None:
        """Take columns from `frame` as they are asked for."""
        self.frame = frame
        self._made: dict[tuple[str, object], NDArray[Any]] = {}

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.frame)

    def _column(self, name: str) -> pl.Series:
        column = self.frame.get_column(name)
        return column if column.n_chunks() == 1 else column.rechunk()

    def values(self, name: str, fill: int | bool = 0) -> NDArray[Any]:
        """Return a column with `fill` for null, in its own dtype; an Enum as its codes."""
        key = (name, fill)
        if key not in self._made:
            column = self._column(name)
            if isinstance(column.dtype, pl.Enum):
                column = column.to_physical()
            filled = column.fill_null(fill) if column.null_count() else column
            self._made[key] = filled.to_numpy()
        return self._made[key]

    def present(self, name: str) -> NDArray[np.bool_]:
        """Return where a column is not null."""
        key = (name, "present")
        if key not in self._made:
            column = self._column(name)
            if not column.null_count():
                mask = np.ones(len(column), np.bool_)
            elif column.null_count() == len(column):
                mask = np.zeros(len(column), np.bool_)
            else:
                mask = column.is_not_null().to_numpy()
            self._made[key] = mask
        return self._made[key]

    def complete(self, name: str) -> bool:
        """Return whether a column has no null."""
        return not self.frame.get_column(name).null_count()

    def uniform(self, name: str) -> bool:
        """Return whether a column holds one value only, null counting as 0."""
        if self.frame.get_column(name).null_count() == len(self):
            return True
        held = self.values(name)
        return bool((held == held[0]).all())


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
    ends = np.empty_like(starts)
    ends[:-1] = starts[1:]
    ends[-1:] = total
    return ends - starts


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
