"""The decoded batches of a capture as one: in memory, or spooled where they outgrow it."""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from pcapdiag import schema, spool
from pcapdiag.decode.packets import concat

if TYPE_CHECKING:
    from collections.abc import Iterator

    import polars as pl

    from pcapdiag.decode.packets import Decoded
    from pcapdiag.spool import WorkDirectory


def gather(parts: Iterator[Decoded], limit: int, work: WorkDirectory | None) -> Decoded:
    """Return the parts as one; with more than `limit` packets, `packets` is spooled into `work`.

    Side tables stay in memory. Without `work` everything does. Raises SpoolError.
    """
    held: deque[Decoded] = deque()
    rows = 0
    for part in parts:
        held.append(part)
        rows += len(part.packets)
        if work is not None and rows > limit:
            return _spooled(held, parts, work)
    whole = list(held)
    held.clear()
    return concat(whole)


def _spooled(held: deque[Decoded], parts: Iterator[Decoded], work: WorkDirectory) -> Decoded:
    sides: list[Decoded] = []
    none = schema.empty("packets")

    def packets() -> Iterator[pl.DataFrame]:
        while held:
            part = held.popleft()
            held.extend(itertools.islice(parts, 0 if held else 1))
            sides.append(replace(part, packets=none))
            yield from spool.frames(part.packets)

    written = spool.spooled(packets(), work.path)
    return replace(concat(sides), packets=written)
