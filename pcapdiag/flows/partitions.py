"""A spooled packets table taken apart by five-tuple, so that flows are built part by part.

All packets of one five-tuple, in either direction, and all sights of one packet are in one part.
A conversation is never cut: one that is larger than a part makes a larger part.
"""

from __future__ import annotations

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

PART_ROWS: Final = 1 << 19
"""Packets of a part: what building their flows takes stays below 0.2 GB."""

_BUCKETS: Final = 256
"""As many parts as there may be at most; neighbours are taken together up to PART_ROWS."""

_SHIFT: Final = np.uint64(56)

COLUMNS: Final = (
    *("capture", "time_ns", "interface", "direction", "eth_src", "eth_dst", "vlan", "vlan_inner"),
    *("tunnel", "tunnel_depth", "ip_version", "src_hi", "src_lo", "dst_hi", "dst_lo", "ip_proto"),
    *("ip_len", "ip_id", "ttl", "df", "frag_offset", "src_port", "dst_port", "payload_len"),
    *("transport_checksum", "tcp_seq", "tcp_ack", "tcp_flags", "tcp_window", "tcp_mss"),
    *("tcp_wscale", "tcp_sack_permitted", "tcp_tsval", "tcp_tsecr"),
)
"""What flows are made of."""

_TOLD_BY: Final = (
    *("src_hi", "src_lo", "src_port", "dst_hi", "dst_lo", "dst_port"),
    *("ip_proto", "ip_id"),
)
"""What a packet's part depends on."""


class Partitions(NamedTuple):
    """The packets that are IP, in one file for each chunk of the table, ordered by part and row."""

    paths: tuple[str, ...]
    starts: tuple[Rows, ...]
    """Per file: where each part begins in it, and the end of the last."""

    def parts(self) -> Iterator[pl.DataFrame]:
        """Yield the parts: COLUMNS, and `row`, ascending."""
        for part in range(len(self.starts[0]) - 1):
            yield pl.concat(
                pl.scan_ipc(path)
                .slice(int(starts[part]), int(starts[part + 1] - starts[part]))
                .collect()
                for path, starts in zip(self.paths, self.starts, strict=True)
            )

    def discard(self) -> None:
        """Remove the files."""
        spool.discard(spool.Spooled(self.paths, ()))


def split(packets: Spooled) -> Partitions:
    """Write the packets ordered by part, chunk by chunk. Raises SpoolError."""
    buckets = [_bucket(Columns(chunk)) for chunk in packets.chunks(*_TOLD_BY)]
    sizes = np.sum([np.bincount(each, minlength=_BUCKETS + 1) for each in buckets], axis=0)
    part_of = _parts_of(sizes[:_BUCKETS])
    count = int(part_of[_BUCKETS])
    paths, starts = [], []
    begin = 0
    for bucket, chunk in zip(buckets, packets.chunks(*COLUMNS), strict=True):
        part = part_of[bucket]
        order = np.argsort(part, kind="stable")
        starts.append(np.searchsorted(part[order], np.arange(count + 1)))
        order = order[: starts[-1][-1]]
        rows = pl.Series("row", (order + begin).astype(np.uint32))
        paths.append(spool.written(chunk[order].with_columns(rows), packets.folder))
        begin += len(chunk)
    return Partitions(tuple(paths), tuple(starts))


def _parts_of(sizes: Rows) -> NDArray[np.uint16]:
    """Return the part of each bucket, and of what is in none: the number of parts.

    Neighbours are taken together up to PART_ROWS; buckets without packets are in none.
    """
    part_of = np.zeros(_BUCKETS + 1, np.uint16)
    part, held = -1, PART_ROWS
    for bucket, size in enumerate(sizes.tolist()):
        if size and held + size > PART_ROWS:
            part, held = part + 1, 0
        held += size
        part_of[bucket] = max(part, 0)
    part_of[_BUCKETS] = part + 1
    return part_of


def _bucket(packets: Columns) -> NDArray[np.uint16]:
    """Return each packet's bucket; _BUCKETS: it is not IP.

    What has no ports is in no flow and may be spread by IP ID: all sights of a packet have one.
    """
    keys = keys_of(packets)
    spread = combine(keys.tuple_key, packets.values("ip_id"))
    word = np.where(keys.has_ports, keys.tuple_key, spread)
    bucket = (word >> _SHIFT).astype(np.uint16)
    bucket[~keys.has_addresses] = _BUCKETS
    return bucket
