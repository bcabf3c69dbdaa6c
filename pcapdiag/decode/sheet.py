"""A polars table under construction, from arrays and the rows they hold for."""

from __future__ import annotations

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
_MASK: Final = "valid {}"
"""Names of helper columns; no schema column has a space in its name."""


class Sheet:
    """A table under construction: columns as arrays, and for which rows they hold."""

    def __init__(self, table: str, rows: int) -> None:
        """`table` is a name in schema.TABLES, `rows` how many it will have."""
        self._rows = rows
        self._dtypes = schema.dtypes(table)
        self._columns: dict[str, NDArray[np.generic]] = {}
        self._masks: dict[str, str] = {}

    def put(self, valid: Bools | None, **columns: NDArray[np.generic]) -> None:
        """Add columns that hold where `valid` is true (None: everywhere) and are null elsewhere.

        Arrays of the column's dtype are kept, not copied: they must not be written to afterwards.
        """
        if valid is not None and valid.all():
            valid = None
        if valid is not None and not valid.any():
            return
        for name, values in columns.items():
            dtype = _NUMPY.get(self._dtypes[name], np.uint8)  # else an Enum, see put_codes
            self._columns[name] = values.astype(dtype, copy=False)
        if valid is not None:
            mask = _MASK.format(len(self._columns))
            self._columns[mask] = valid
            self._masks.update(dict.fromkeys(columns, mask))

    def put_codes(self, name: str, codes: U8) -> None:
        """Add a column of an Enum: 0 is null, 1 the first category.

        What stands under a null is a category, too: polars reads no other back from bytes.
        """
        self.put(codes > 0, **{name: np.maximum(codes, np.uint8(1)) - np.uint8(1)})

    def frame(self) -> pl.DataFrame:
        """Return the table: all columns of the schema, in its order and dtypes."""
        if not self._rows:
            return pl.DataFrame(schema=self._dtypes)
        whole = pl.DataFrame(self._columns)
        odd = whole.select(
            expression
            for name in self._dtypes
            if (expression := self._expression(name)) is not None
        )
        made = {column.name: column for column in (*whole.get_columns(), *odd.get_columns())}
        return pl.DataFrame([made[name] for name in self._dtypes])

    def _expression(self, name: str) -> pl.Expr | None:
        """Return what makes the column of its array; None where that is the column."""
        dtype = self._dtypes[name]
        if name not in self._columns:
            return pl.repeat(None, self._rows, dtype=dtype).alias(name)
        column = pl.col(name)
        if name in self._masks:
            column = pl.when(pl.col(self._masks[name])).then(column)
        elif dtype in _NUMPY:
            return None
        return (column if dtype in _NUMPY else column.cat.to(dtype)).alias(name)
