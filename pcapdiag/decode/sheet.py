"""A polars table under construction, from arrays and the rows they hold for.

Rows are added batch by batch into columns that have room for all of them, which become the table as
they are: what is decoded is written once.
"""

from __future__ import annotations

import mmap
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from pcapdiag import schema

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pcapdiag.decode.columns import U8, Bools

_NUMPY: Final[dict[Any, type[np.generic]]] = {
    pl.UInt8: np.uint8,
    pl.UInt16: np.uint16,
    pl.UInt32: np.uint32,
    pl.UInt64: np.uint64,
    pl.Int64: np.int64,
    pl.Boolean: np.bool_,
}

_MAPPED_BYTES: Final = 1 << 20
"""Columns from this size on are mapped, with room to spare: of a mapping only what is written to
becomes memory."""


_HUGE: Final[int | None] = getattr(mmap, "MADV_HUGEPAGE", None)
"""Linux maps 2 MB at once where it is asked to: touching pages of 4 kB took a tenth of decoding."""


class Sheet:
    """A table under construction: columns as arrays, and for which rows they hold."""

    def __init__(self, table: str, rows: int, room: int = 0) -> None:
        """Begin with a batch of `rows`; `table` is a name in schema.TABLES.

        `room`: how many rows are expected in all.
        """
        self._table = table
        self._dtypes = schema.dtypes(table)
        self._room = room
        self._batches = [slice(0, rows)]
        self._values: dict[str, NDArray[Any]] = {}
        self._holds: dict[str, dict[int, Bools | None]] = {}
        """By column and number of batch: where it holds; None: everywhere."""

    def __len__(self) -> int:
        """Return the number of rows so far."""
        return int(self._batches[-1].stop)

    def go_on(self, rows: int) -> None:
        """Begin another batch of `rows`, behind what is there."""
        self._batches.append(slice(len(self), len(self) + rows))

    def column(self, name: str) -> NDArray[Any]:
        """Return the batch's part of a column, zeros yet: to be written to, and then `put`.

        Of an Enum, the codes. It must not be written to once another batch has begun.
        """
        return self._column(name)[self._batches[-1]]

    def put(self, valid: Bools | None, **columns: NDArray[np.generic]) -> None:
        """Add columns of the batch that hold where `valid` is true and are null elsewhere.

        None: everywhere. `valid` becomes part of the sheet: it must not be written to afterwards.
        """
        if not len(self) or (valid is not None and not valid.any()):
            return
        mask = None if valid is None or valid.all() else valid
        for name, values in columns.items():
            self._write(name, values)
            self._holds.setdefault(name, {})[len(self._batches)] = mask

    def put_codes(self, name: str, codes: U8) -> None:
        """Add a column of an Enum: 0 is null, 1 the first category."""
        if codes.any():
            self._write(name, codes)
            self._holds.setdefault(name, {})[len(self._batches)] = None

    def frame(self) -> pl.DataFrame:
        """Return the table: all columns of the schema, in its order and dtypes.

        It takes the sheet's arrays: nothing can be added afterwards.
        """
        if not len(self):
            return schema.empty(self._table)
        masks: dict[tuple[int, ...], pl.Series] = {}
        for column in self._values.values():
            _trim(column, len(self))
        return pl.DataFrame([self._series(name, masks) for name in self._dtypes])

    def _write(self, name: str, values: NDArray[np.generic]) -> None:
        column = self.column(name)
        if not np.may_share_memory(column, values):
            column[:] = values

    def _column(self, name: str) -> NDArray[Any]:
        """Return a column's array with room for the batch; zero where nothing was put."""
        held = self._values.get(name)
        if held is None or len(held) < len(self):
            room = max(len(self), self._room if held is None else 2 * len(held))
            found = _zeros(room, _NUMPY.get(self._dtypes[name], np.uint8))
            if held is not None:
                found[: len(held)] = held
            self._values[name] = held = found
        return held

    def _series(self, name: str, masks: dict[tuple[int, ...], pl.Series]) -> pl.Series:
        """Return a column; `masks` are those that were already made."""
        dtype = self._dtypes[name]
        if name not in self._holds:
            return _null(dtype).new_from_index(0, len(self)).alias(name)
        values = self._column(name)[: len(self)]
        if isinstance(dtype, pl.Enum):
            return _categories(dtype)[values].alias(name)
        # The values are not copied: where there is a mask it becomes their validity.
        column = pl.Series(name, values)
        holds = self._holds[name]
        if len(holds) == len(self._batches) and not any(
            mask is not None for mask in holds.values()
        ):
            return column
        key = tuple(id(holds.get(number, self)) for number in range(1, len(self._batches) + 1))
        if key not in masks:
            masks[key] = pl.Series(self._mask(holds))
        return column.zip_with(masks[key], _null(dtype))

    def _mask(self, holds: dict[int, Bools | None]) -> Bools:
        whole = np.zeros(len(self), dtype=np.bool_)
        for number, rows in enumerate(self._batches, 1):
            if number in holds:
                mask = holds[number]
                whole[rows] = True if mask is None else mask
        return whole


def _zeros(rows: int, dtype: type[np.generic]) -> NDArray[Any]:
    size = rows * np.dtype(dtype).itemsize
    if size < _MAPPED_BYTES:
        return np.zeros(rows, dtype)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    memory = mmap.mmap(-1, size, flags=flags)
    if _HUGE is not None:
        memory.madvise(_HUGE)
    return np.ndarray((rows,), dtype, memory)


def _trim(column: NDArray[Any], rows: int) -> None:
    """Give back what the last huge page holds beyond `rows`, up to 2 MB a column."""
    memory: object = column.base
    if _HUGE is not None and isinstance(memory, mmap.mmap):
        begin = -(-rows * column.itemsize // mmap.PAGESIZE) * mmap.PAGESIZE
        if begin < len(memory):
            memory.madvise(mmap.MADV_DONTNEED, begin, len(memory) - begin)


@lru_cache(maxsize=32)
def _null(dtype: Any) -> pl.Series:
    return pl.Series([None], dtype=dtype)


@lru_cache(maxsize=8)
def _categories(dtype: pl.Enum) -> pl.Series:
    """Return null and the categories, by their codes."""
    return pl.Series([None, *dtype.categories], dtype=dtype)
