"""A spooled packets table taken apart by five-tuple, so that flows are built part by part.

All packets of one five-tuple, in either direction, and all sights of one packet are in one part,
with their SACK blocks. A conversation is never cut: one that is larger than a part makes a larger
part.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import polars as pl

from pcapdiag import beside, spool
from pcapdiag.flows import side_tables
from pcapdiag.flows.arrays import Columns
from pcapdiag.flows.five_tuple import combine, keys_of
from pcapdiag.spool import Spooled

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from pcapdiag.flows.arrays import Rows
    from pcapdiag.spool import Table, WorkDirectory

PART_ROWS: Final = 1 << 18
"""Packets of a part, more or less: what building their flows takes stays below 0.1 GB."""

PIECES_AT_ONCE: Final = 2
"""Pieces that are put in order beside each other: of each, 50 MB."""

_MOST: Final = 0xFFFF
"""As many parts as _NUMBER can tell from one another, and from no part."""

_NUMBER: Final = np.dtype(np.uint16)

_HIGH: Final = np.uint64(32)
"""Of a key's bits the upper half tells the part."""

COLUMNS: Final = (
    *("capture", "time_ns", "interface", "direction", "eth_src", "eth_dst", "vlan", "vlan_inner"),
    *("tunnel", "tunnel_depth", "ip_version", "src_hi", "src_lo", "dst_hi", "dst_lo", "ip_proto"),
    *("ip_len", "ip_id", "ttl", "df", "frag_offset", "src_port", "dst_port", "payload_len"),
    *("transport_checksum", "tcp_seq", "tcp_ack", "tcp_flags", "tcp_window", "tcp_mss"),
    *("tcp_wscale", "tcp_sack_permitted", "tcp_tsval", "tcp_tsecr"),
)
"""What flows are made of."""

_OF_BLOCK: Final = ("row", "left", "right")
_BLOCK: Final = np.dtype([(name, "u4") for name in _OF_BLOCK])
"""A SACK block, of which a packet may have four."""


class Piece(NamedTuple):
    """The packets of one file of their table, in order of part and row."""

    path: str
    starts: Rows
    """Where each part begins in it, and the last ends."""
    numbers: str
    """A file of each packet's part, in order of row; as many as there are parts: it is in none."""


class Partitions(NamedTuple):
    """The packets that are IP, and their SACK blocks, in order of part and row."""

    pieces: tuple[Piece, ...]
    block_paths: tuple[str, ...]
    """Per piece: a file of its SACK blocks, as _BLOCK."""
    block_starts: tuple[Rows, ...]

    def parts(self) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
        """Yield the parts: COLUMNS, and `row`, ascending, none empty; and their SACK blocks.

        Of these `row`, which counts in the part, `left` and `right`.
        """
        bounds = itertools.pairwise(zip(*(each.starts for each in self.pieces), strict=True))
        block_bounds = itertools.pairwise(zip(*self.block_starts, strict=True))
        for (begins, ends), within in zip(bounds, block_bounds, strict=True):
            if begins != ends:
                packets = pl.concat(
                    pl.scan_ipc(piece.path).slice(int(begin), int(end - begin)).collect()
                    for piece, begin, end in zip(self.pieces, begins, ends, strict=True)
                ).rechunk()
                yield packets, self._blocks(packets.get_column("row").to_numpy(), *within)

    def _blocks(
        self, row: NDArray[np.uint32], begins: tuple[int, ...], ends: tuple[int, ...]
    ) -> pl.DataFrame:
        blocks = np.concatenate(
            [
                np.empty(0, _BLOCK),
                *(
                    spool.records(path, _BLOCK, begin, end)
                    for path, begin, end in zip(self.block_paths, begins, ends, strict=True)
                    if begin < end
                ),
            ]
        )
        place = np.searchsorted(row, blocks["row"]).astype(np.uint32)
        sides = {side: np.ascontiguousarray(blocks[side]) for side in ("left", "right")}
        return pl.DataFrame({"row": place} | sides)

    def discard(self) -> None:
        """Remove the files."""
        discard(self.pieces)
        spool.discard(Spooled(self.block_paths, ()))


class Splitting:
    """Pieces of a packets table in the making."""

    def __init__(self, work: WorkDirectory, capture: int) -> None:
        """Write where all goes that is made of a capture; nothing yet."""
        self._work, self._capture = work, capture
        self._count = 0
        self._rows = 0
        self._pieces: list[Piece] = []

    def add(self, packets: pl.DataFrame, expected: int | None) -> None:
        """Add the next packets; at first `expected`, all there will be, tells how many parts.

        Where that is not known nothing is done. Raises SpoolError.
        """
        if not self._rows:
            self._count = _parts_for(expected) if expected is not None else 0
        if self._count:
            folder = self._work.folder(self._capture)
            self._pieces.append(_piece(packets, self._count, self._rows, folder))
        self._rows += len(packets)

    def made(self) -> tuple[Piece, ...] | None:
        """Return them; None where parts are half as many as they should be, twice, or worse."""
        wanted = _parts_for(self._rows)
        if wanted / 2 < self._count < wanted * 2:
            return tuple(self._pieces)
        discard(self._pieces)
        return None


def split(packets: Spooled) -> tuple[Piece, ...]:
    """Write the packets in order of part, file by file. Raises SpoolError."""
    count = _parts_for(len(packets))
    begins = itertools.accumulate(packets.heights, initial=0)

    def piece(one: tuple[pl.DataFrame, int]) -> Piece:
        chunk, begin = one
        return _piece(chunk, count, begin, packets.folder)

    chunks = zip(packets.chunks(*COLUMNS), begins, strict=False)
    return tuple(beside.mapped(piece, chunks, PIECES_AT_ONCE))


def discard(pieces: Iterable[Piece]) -> None:
    """Remove their files."""
    spool.discard(Spooled(tuple(path for each in pieces for path in (each.path, each.numbers)), ()))


def partitions(packets: Spooled, sacks: Table, pieces: Sequence[Piece]) -> Partitions:
    """Add the SACK blocks to all pieces of a table. Raises SpoolError."""
    block_paths: list[str] = []
    block_starts: list[Rows] = []
    begin = 0
    told = side_tables.alongside(sacks, packets.heights, *_OF_BLOCK)
    for piece, blocks, height in zip(pieces, told, packets.heights, strict=True):
        part = spool.records(piece.numbers, _NUMBER, 0, height)
        sent = part[blocks.get_column("row").to_numpy() - begin]
        order, starts = _by_part(sent, len(piece.starts) - 1)
        block_paths.append(spool.recorded(_blocks(blocks, order), packets.folder))
        block_starts.append(starts)
        begin += height
    return Partitions(tuple(pieces), tuple(block_paths), tuple(block_starts))


def _parts_for(rows: int) -> int:
    return min(max(1, -(-rows // PART_ROWS)), _MOST)


def _piece(packets: pl.DataFrame, count: int, begin: int, folder: str) -> Piece:
    """Write some packets, the first of which is row `begin`."""
    chosen = packets.select(COLUMNS)
    part = _part(Columns(chosen), count)
    order, starts = _by_part(part, count)
    here = pl.Series("row", order.astype(np.uint32))
    path = spool.written(chosen[here].with_columns(here + begin), folder)
    return Piece(path, starts, spool.recorded(part, folder))


def _by_part(part: NDArray[np.uint16], count: int) -> tuple[Rows, Rows]:
    """Return the order by part and row, and where in it each part begins, and the last ends."""
    order = np.argsort(part, kind="stable")
    starts = np.searchsorted(part[order], np.arange(count + 1))
    return order[: starts[-1]], starts


def _blocks(sacks: pl.DataFrame, order: Rows) -> NDArray[np.void]:
    blocks = np.empty(len(order), _BLOCK)
    for name in _OF_BLOCK:
        blocks[name] = sacks.get_column(name).to_numpy()[order]
    return blocks


def _part(packets: Columns, count: int) -> NDArray[np.uint16]:
    """Return each packet's part, of `count`; `count` itself: it is not IP.

    What has no ports is in no flow and may be spread by IP ID: all sights of a packet have one.
    """
    keys = keys_of(packets)
    spread = combine(keys.tuple_key, packets.values("ip_id"))
    word = np.where(keys.has_ports, keys.tuple_key, spread)
    part = ((word >> _HIGH) * np.uint64(count) >> _HIGH).astype(np.uint16)
    part[~keys.has_addresses] = count
    return part
