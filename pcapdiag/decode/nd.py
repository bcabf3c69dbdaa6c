"""Options of neighbour discovery messages (RFC 4861 section 4.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from pcapdiag.decode.columns import Bools, Indices, Offsets
    from pcapdiag.decode.fetch import Bytes

SOURCE_LINK_ADDRESS: Final = 1
TARGET_LINK_ADDRESS: Final = 2
REDIRECTED_HEADER: Final = 4

MAX_OPTIONS: Final = 16
"""Options that are looked at: messages carry one to three."""


def find_option(
    source: Bytes, start: Offsets, kept: Offsets, kind: int
) -> tuple[Bools, Offsets, Offsets]:
    """Find the first option of `kind` in the options at `start`: (found, its offset, its size).

    An option of length 0 ends the search (RFC 4861 section 4.6: the packet is to be discarded),
    as does one of which not even type and length were kept.
    """
    count = len(start)
    found = np.zeros(count, dtype=np.bool_)
    at = start.copy()
    size = np.zeros(count, dtype=np.int64)
    rows: Indices = np.arange(count)
    for _ in range(MAX_OPTIONS):
        window = source.window(at[rows], kept[rows], 8)
        length = window.u8(1).astype(np.int64) * 8
        valid = (window.kept >= 2) & (length > 0)
        hit = valid & (window.u8(0) == kind)
        found[rows[hit]] = True
        size[rows[hit]] = length[hit]
        on = valid & ~hit
        at[rows[on]] += length[on]
        rows = rows[on]
        if not rows.size:
            break
    return found, at, size
