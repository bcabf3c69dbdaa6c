"""A spooled packets table taken apart by five-tuple, so that flows are built part by part.

All packets of one five-tuple, in either direction, and all sights of one packet are in one part.
A conversation is never cut: one that is larger than a part makes a larger part.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import polars as pl

from pcapdiag import spool
from pcapdiag.flows.arrays import Columns
from pcapdiag.flows.five_tuple import combine, keys_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pcapdiag.flows.arrays import Rows
    from pcapdiag.spool import Spooled

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


class Partitions(NamedTuple):
    """The packets that are IP, in one file for each chunk of the table, ordered by part and row."""

    paths: tuple[str, ...]
    starts: tuple[Rows, ...]
    """Per file: where each part begins in it, and the end of the last."""

    def parts(self) -> Iterator[pl.DataFrame]:
        """Yield the parts: COLUMNS, and `row`, ascending. None is empty."""
        for begins, ends in itertools.pairwise(zip(*self.starts, strict=True)):
            if begins != ends:
                yield pl.concat(
                    pl.scan_ipc(path).slice(int(begin), int(end - begin)).collect()
                    for path, begin, end in zip(self.paths, begins, ends, strict=True)
                ).rechunk()

    def discard(self) -> None:
        """Remove the files."""
        spool.discard(spool.Spooled(self.paths, ()))


def split(packets: Spooled) -> Partitions:
    """Write the packets ordered by part, chunk by chunk. Raises SpoolError."""
    starts: list[Rows] = []
    files = spool.filed(_ordered(packets, starts), packets.folder)
    return Partitions(files.paths, tuple(starts))


def _ordered(packets: Spooled, starts: list[Rows]) -> Iterator[pl.DataFrame]:
    """Yield each chunk ordered by part and row; add where in it each begins, and the last ends."""
    count = max(1, -(-len(packets) // PART_ROWS))
    begin = 0
    for chunk in packets.chunks(*COLUMNS):
        part = _part(Columns(chunk), count)
        order = np.argsort(part, kind="stable")
        starts.append(np.searchsorted(part[order], np.arange(count + 1)))
        here = pl.Series("row", order[: starts[-1][-1]].astype(np.uint32))
        yield chunk[here].with_columns(here + begin)
        begin += len(chunk)


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
