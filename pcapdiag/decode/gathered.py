"""A capture decoded as one: in memory, or spooled where it outgrows it."""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from pcapdiag import schema, spool
from pcapdiag.decode.packets import GUE_PORTS, concat, decode_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import polars as pl

    from pcapdiag.capture.frames import FrameBatch
    from pcapdiag.capture.reader import CaptureReader
    from pcapdiag.decode.alike_errors import FirstOfAlike
    from pcapdiag.decode.packets import Decoded
    from pcapdiag.spool import WorkDirectory

ROOM: Final = 2
"""Rows that columns have room for, for each one expected: what is not filled takes no memory, while
too little room means to copy."""


def gather(
    reader: CaptureReader,
    capture: int,
    *,
    gue_ports: frozenset[int] = GUE_PORTS,
    limit: int = spool.IN_MEMORY_ROWS,
    work: WorkDirectory | None = None,
    first_of_alike: FirstOfAlike | None = None,
    tell: Callable[[], None] | None = None,
) -> Decoded:
    """Decode a capture; with more than `limit` packets, `packets` is spooled into `work`.

    Side tables stay in memory, of ICMP messages what `first_of_alike` keeps, or all. Without `work`
    everything does. `tell` is called after every batch. Raises what the reader raises, and
    SpoolError.
    """
    batches = iter(reader) if tell is None else _told(reader, tell)
    first = list(itertools.islice(batches, 1))
    expected = reader.expected_packets
    fits = expected is not None and expected <= limit
    parts = decode_parts(
        itertools.chain(first, batches),
        capture,
        gue_ports=gue_ports,
        rows=limit if fits else spool.CHUNK_ROWS,
        room=ROOM * expected if fits and expected else spool.CHUNK_ROWS,
    )
    if first_of_alike is None:
        return _whole(parts, capture, limit, work)
    whole = _whole(first_of_alike.taken_from(parts), capture, limit, work)
    return replace(whole, icmp=first_of_alike.table())


def _whole(
    parts: Iterator[Decoded], capture: int, limit: int, work: WorkDirectory | None
) -> Decoded:
    held: deque[Decoded] = deque()
    rows = 0
    for part in parts:
        held.append(part)
        rows += len(part.packets)
        if work is not None and rows > limit:
            return _spooled(held, parts, work.folder(capture))
    whole = list(held)
    held.clear()
    return concat(whole)


def _told(batches: CaptureReader, tell: Callable[[], None]) -> Iterator[FrameBatch]:
    for batch in batches:
        yield batch
        tell()


def _spooled(held: deque[Decoded], parts: Iterator[Decoded], folder: str) -> Decoded:
    sides: list[Decoded] = []
    none = schema.empty("packets")

    def packets() -> Iterator[pl.DataFrame]:
        while held:
            part = held.popleft()
            held.extend(itertools.islice(parts, 0 if held else 1))
            sides.append(replace(part, packets=none))
            yield from spool.frames(part.packets)

    written = spool.spooled(packets(), folder)
    return replace(concat(sides), packets=written)
