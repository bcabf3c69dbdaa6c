"""Structs of arrays: what a header's decoder writes, one element a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pcapdiag.decode_note import DecodeNote

    U8 = NDArray[np.uint8]
    U16 = NDArray[np.uint16]
    U32 = NDArray[np.uint32]
    U64 = NDArray[np.uint64]
    Bools = NDArray[np.bool_]
    Offsets = NDArray[np.int64]
    """Byte offsets into a block, or byte counts: wide enough for any sum of captured lengths."""
    Indices = NDArray[np.intp]
    """Row numbers, ascending."""
    Rows = Indices | slice
    """Row numbers, or ALL_ROWS, which spares every copy."""

ALL_ROWS: Final = slice(None)

USUAL_SHARE: Final = 0.5
"""Share of rows from which on it is cheaper to decode all rows alike, in whole columns, than to
pick those that are of a kind and to spread what was found: picking costs five times as much."""

_DTYPES: Final[dict[str, type[np.generic]]] = {
    "U8": np.uint8,
    "U16": np.uint16,
    "U32": np.uint32,
    "U64": np.uint64,
    "Bools": np.bool_,
    "Offsets": np.int64,
    "Indices": np.intp,
}
"""By the name of the annotation: a subclass declares its dtypes with the names above."""


@dataclass(slots=True)
class Columns:
    """Base: every field of a subclass is an array, all of one length."""

    if TYPE_CHECKING:  # no field, not even one of the class
        _dtypes: ClassVar[dict[str, type[np.generic]]]

    def __init_subclass__(cls) -> None:
        """Note the dtype of every field, in order."""
        cls._dtypes = {name: _DTYPES[kind] for name, kind in cls.__annotations__.items()}

    @classmethod
    def blank(cls, rows: int, **given: NDArray[Any]) -> Self:
        """Return `rows` rows of zeros; of the fields `given`, which are zero, in those arrays."""
        return cls(
            *[
                given[name] if name in given else np.zeros(rows, dtype)
                for name, dtype in cls._dtypes.items()
            ]
        )

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Return the rows of all parts, in order."""
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return cls.blank(0)
        return cls(
            *[np.concatenate([getattr(part, name) for part in parts]) for name in cls._dtypes]
        )

    def part(self, rows: slice) -> Self:
        """Return some rows as views: what is written to them is written here."""
        return type(self)(*[getattr(self, name)[rows] for name in self._dtypes])

    def take(self, rows: Indices) -> Self:
        """Return a copy of the given rows."""
        return type(self)(*[getattr(self, name)[rows] for name in self._dtypes])


def chosen(rows: Rows, some: Indices) -> Indices:
    """Return those of `rows` that stand at the places `some`."""
    return some if isinstance(rows, slice) else rows[some]


def rows_where(mask: Bools) -> Rows:
    """Return the rows where `mask` is true, as ALL_ROWS where it is true everywhere."""
    rows = np.flatnonzero(mask)
    return ALL_ROWS if rows.size == mask.size else rows


def mark(note: U32, rows: Rows | Bools, bit: DecodeNote) -> None:
    """Set a bit in the notes of `rows`, which are few or none."""
    if not isinstance(rows, slice) and rows.dtype == np.bool_:
        if not rows.any():
            return
        rows = np.flatnonzero(rows)
    note[rows] |= np.uint32(bit)
