"""From one record to the next: where the records of a block of bytes start.

Finding them is sequential by nature, since each record's length says where the next one starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Layout(Protocol):
    """How the size of a record stands in its header."""

    @property
    def header_bytes(self) -> int:
        """Bytes of a record that must be there before its size is known."""

    def size_at(self, data: memoryview, position: int) -> int:
        """Return the whole record's size; 0 where no record of this layout can start."""


@dataclass(frozen=True, slots=True)
class Walk:
    """The records that lie completely within the bytes walked over."""

    starts: NDArray[np.int64]
    """Offsets of the records, ascending."""
    end: int
    """Offset behind the last record: where the next one starts."""
    size: int | None
    """Size of the record at `end`, which does not lie completely within; None where its header
    does not either; 0 where no record can start there."""


def walk_plainly(layout: Layout, data: NDArray[np.uint8], position: int, limit: int) -> Walk:
    """Return the records from `position` on that start before `limit`, one after the other."""
    view = data.data
    end = len(view)
    header = layout.header_bytes
    size_at = layout.size_at
    starts: list[int] = []
    size: int | None = None
    while position < limit:
        if end - position < header:
            break
        size = size_at(view, position)
        if size == 0 or size > end - position:
            break
        starts.append(position)
        position += size
        size = None
    return Walk(np.array(starts, dtype=np.int64), position, size)


def walk(layout: Layout, data: NDArray[np.uint8], position: int) -> Walk:
    """Return all records from `position` on, which must be where a record starts."""
    return walk_plainly(layout, data, position, len(data))
