"""A polars table under construction, from arrays and the rows they hold for."""

from __future__ import annotations

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


class Sheet:
    """A table under construction: columns as arrays, and for which rows they hold."""

    def __init__(self, table: str, rows: int) -> None:
        """`table` is a name in schema.TABLES, `rows` how many it will have."""
        self._table = table
        self._rows = rows
        self._table = table
        self._dtypes = schema.dtypes(table)
        self._columns: dict[str, pl.Series] = {}

    def put(self, valid: Bools | None, **columns: NDArray[np.generic]) -> None:
        """Add columns that hold where `valid` is true (None: everywhere) and are null elsewhere.

        Arrays of the column's dtype become part of the table, uncopied: they must not be written
        to afterwards.
        """
        if not self._rows or (valid is not None and not valid.any()):
            return
        mask = None if valid is None or valid.all() else pl.Series(valid)
        for name, values in columns.items():
            dtype = self._dtypes[name]
            column = pl.Series(name, values.astype(_NUMPY[dtype], copy=False))
            # With null for the other side, the values stay and the mask becomes their validity.
            self._columns[name] = column if mask is None else column.zip_with(mask, _null(dtype))

    def put_codes(self, name: str, codes: U8) -> None:
        """Add a column of an Enum: 0 is null, 1 the first category."""
        if codes.any():
            self._columns[name] = _categories(self._dtypes[name])[codes].alias(name)

    def frame(self) -> pl.DataFrame:
        """Return the table: all columns of the schema, in its order and dtypes."""
        if not self._rows:
            return schema.empty(self._table)
        columns = self._columns
        return pl.DataFrame(
            [
                columns[name]
                if name in columns
                else _null(dtype).new_from_index(0, self._rows).alias(name)
                for name, dtype in self._dtypes.items()
            ]
        )


@lru_cache(maxsize=32)
def _null(dtype: Any) -> pl.Series:
    return pl.Series([None], dtype=dtype)


@lru_cache(maxsize=8)
def _categories(dtype: pl.Enum) -> pl.Series:
    """Return null and the categories, by their codes."""
    return pl.Series([None, *dtype.categories], dtype=dtype)
