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

from pcapdiag import spool
from pcapdiag.flows import side_tables
from pcapdiag.flows.arrays import Columns
from pcapdiag.flows.five_tuple import combine, keys_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pcapdiag.flows.arrays import Rows
    from pcapdiag.spool import Spooled, Table

PART_ROWS: Final = 1 << 18
"""Packets of a part, more or less: what building their flows takes stays below 0.1 GB."""

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


class Partitions(NamedTuple):
    """The packets that are IP, in one file for each chunk of the table, ordered by part and row."""

    paths: tuple[str, ...]
    starts: tuple[Rows, ...]
    """Per file: where each part begins in it, and the end of the last."""
    block_paths: tuple[str, ...]
    """Files of their SACK blocks, as _BLOCK, in the same order."""
    block_starts: tuple[Rows, ...]

    def parts(self) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
        """Yield the parts: COLUMNS, and `row`, ascending, none empty; and their SACK blocks.

        Of these `row`, which counts in the part, `left` and `right`.
        """
        bounds = itertools.pairwise(zip(*self.starts, strict=True))
        block_bounds = itertools.pairwise(zip(*self.block_starts, strict=True))
        for (begins, ends), within in zip(bounds, block_bounds, strict=True):
            if begins != ends:
                packets = pl.concat(
                    pl.scan_ipc(path).slice(int(begin), int(end - begin)).collect()
                    for path, begin, end in zip(self.paths, begins, ends, strict=True)
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
        spool.discard(spool.Spooled(self.paths, (), self.block_paths))


def split(packets: Spooled, sacks: Table) -> Partitions:
    """Write the packets and their blocks ordered by part, chunk by chunk. Raises SpoolError."""
    count = max(1, -(-len(packets) // PART_ROWS))
    starts: list[Rows] = []
    block_starts: list[Rows] = []
    block_paths: list[str] = []

    def ordered() -> Iterator[pl.DataFrame]:
        begin = 0
        blocks = side_tables.alongside(sacks, packets.heights, *_OF_BLOCK)
        for chunk, told in zip(packets.chunks(*COLUMNS), blocks, strict=True):
            part = _part(Columns(chunk), count)
            order, start = _by_part(part, count)
            starts.append(start)
            here = pl.Series("row", order.astype(np.uint32))
            yield chunk[here].with_columns(here + begin)
            order, start = _by_part(part[told.get_column("row").to_numpy() - begin], count)
            block_starts.append(start)
            block_paths.append(spool.recorded(_blocks(told, order), packets.folder))
            begin += len(chunk)

    files = spool.filed(ordered(), packets.folder)
    return Partitions(files.paths, tuple(starts), tuple(block_paths), tuple(block_starts))


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
