"""A capture decoded as one: in memory, or spooled where it outgrows it."""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from pcapdiag import schema, spool
from pcapdiag.decode.packets import GUE_PORTS, SPOOLED, concat, decode_parts
from pcapdiag.spool import SpoolError

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
    along: Callable[[pl.DataFrame, int | None], None] | None = None,
    tell: Callable[[], None] | None = None,
) -> Decoded:
    """Decode a capture; with more than `limit` packets it is spooled into `work`.

    Of ICMP messages what `first_of_alike` keeps stays in memory, or all. Without `work` everything
    does. `along` is called with the packets of each file that is spooled, in order, and how many
    are expected in all by then; `tell` after every batch. Raises what the reader raises, and
    SpoolError.
    """
    batches = iter(reader) if tell is None else _told(reader, tell)
    first = list(itertools.islice(batches, 1))
    expected = reader.expected_packets
    also = None if along is None else lambda packets: along(packets, reader.expected_packets)
    fits = expected is not None and expected <= limit
    parts = decode_parts(
        itertools.chain(first, batches),
        capture,
        gue_ports=gue_ports,
        rows=limit if fits else spool.CHUNK_ROWS,
        room=ROOM * expected if fits and expected else spool.CHUNK_ROWS,
    )
    if first_of_alike is None:
        return _whole(parts, capture, limit, work, also)
    whole = _whole(first_of_alike.taken_from(parts), capture, limit, work, also)
    return replace(whole, icmp=first_of_alike.table())


def _whole(
    parts: Iterator[Decoded],
    capture: int,
    limit: int,
    work: WorkDirectory | None,
    along: Callable[[pl.DataFrame], None] | None,
) -> Decoded:
    held: deque[Decoded] = deque()
    rows = 0
    for part in parts:
        held.append(part)
        rows += len(part.packets)
        if work is not None and rows > limit:
            return _spooled(held, parts, work.folder(capture), along)
    whole = list(held)
    held.clear()
    return concat(whole)


def _told(batches: CaptureReader, tell: Callable[[], None]) -> Iterator[FrameBatch]:
    for batch in batches:
        yield batch
        tell()


def _spooled(
    held: deque[Decoded],
    parts: Iterator[Decoded],
    folder: str,
    along: Callable[[pl.DataFrame], None] | None,
) -> Decoded:
    rest: list[Decoded] = []
    none = {name: schema.empty(name) for name in SPOOLED}
    sides = {name: spool.Pile(folder) for name in SPOOLED if name != "packets"}

    def packets() -> Iterator[pl.DataFrame]:
        while held:
            part = held.popleft()
            held.extend(itertools.islice(parts, 0 if held else 1))
            rest.append(replace(part, **none))
            for name, pile in sides.items():
                pile.add(getattr(part, name))
            yield from spool.frames(part.packets)

    try:
        written: dict[str, Any] = {"packets": spool.spooled(packets(), folder, along)}
        written |= {name: pile.table() for name, pile in sides.items()}
    except SpoolError:
        spool.clear([folder])  # what others write finds room
        raise
    return replace(concat(rest), **written)


def filed(decoded: Decoded, folder: str) -> Decoded:
    """Return it spooled into a folder that holds nothing else; it is in memory.

    Raises SpoolError, and leaves nothing then.
    """
    try:
        return decoded.kept(lambda table: spool.spooled(spool.frames(table), folder))
    except SpoolError:
        spool.clear([folder])
        raise
