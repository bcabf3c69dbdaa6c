"""From one record to the next: where the records of a block of bytes start.

Finding them is sequential by nature, since each record's length says where the next one starts.
lockstep.py does it at many places at once and arrives at the same answer.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


MAX_CANDIDATES: Final = 1 << 18
"""Places that are looked at more closely in one block: some hundred near every split."""

NO_RECORD: Final = 1 << 40
"""Size of what is no record: more than any block holds, so that one comparison finds both ends."""


class Layout(Protocol):
    """How the size of a record stands in its header."""

    @property
    def header_bytes(self) -> int:
        """Bytes of a record that must be there before its size is known."""

    def size_at(self, data: memoryview, position: int) -> int:
        """Return the whole record's size; 0 where no record of this layout can start."""

    def sizes(self, data: NDArray[np.uint8], positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return size_at for many positions, each with a whole header before the end of `data`.

        Where no record can start, NO_RECORD stands instead of 0.
        """

    def candidates(
        self, data: NDArray[np.uint8], model: int, first: int, spacing: int, width: int
    ) -> NDArray[np.int64]:
        """Return where records may start, ascending: a cheap look that may be wrong both ways.

        Looked at are `width` bytes from `first` on, every `spacing` bytes, as long as that many
        are left. A record starts at `model`; others are expected to look like it.
        """

    def plausible(
        self, data: NDArray[np.uint8], model: int, positions: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Return at which positions a record may start; each has a whole header before the end."""


class Walk(NamedTuple):
    """The records that lie completely within the bytes walked over."""

    starts: NDArray[np.int64]
    """Offsets of the records, ascending."""
    end: int
    """Offset behind the last record: where the next one starts."""
    size: int | None
    """Size of the record at `end`, where it ends the walk since it does not lie completely within;
    0 where no record can start there; None where not even its header lies within, or where the
    walk ended at its limit."""


def thinned(found: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return at most MAX_CANDIDATES of `found`: bounds memory where all bytes look alike."""
    return found[:: len(found) // MAX_CANDIDATES + 1]


def walk_plainly(layout: Layout, data: NDArray[np.uint8], position: int, limit: int) -> Walk:
    """Return the records from `position` on that start before `limit`, one after the other."""
    view = data.data
    end = len(view)
    last = min(limit, end - layout.header_bytes + 1)
    size_at = layout.size_at
    starts = array("q")
    size: int | None = None
    while position < last:
        size = size_at(view, position)
        if size == 0 or size > end - position:
            break
        starts.append(position)
        position += size
        size = None
    return Walk(np.frombuffer(starts, dtype=np.int64), position, size)
