"""Packets that one vantage saw twice because a host there passed them on.

The flow tables name the first sight of each packet (`copy_of`). A second sight with other MACs, a
lower TTL, or a tunnel header around it is a passage; one that is the same in all of these is
the frame captured twice and says nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag import spool
from pcapdiag.flows import side_tables
from pcapdiag.schema import TUNNELS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pcapdiag.spool import Table

_OUTER: Final = ("outer_src_hi", "outer_src_lo", "outer_dst_hi", "outer_dst_lo")

_SIGHT: Final = (
    "capture",
    "time_ns",
    "ttl",
    "eth_src",
    "eth_dst",
    "direction",
    "tunnel",
    "tunnel_depth",
)

KINDS: Final = pl.Enum(["routed", "encapsulated", "decapsulated"])


def find(packets: Table, tunnels: Table) -> Table:
    """Return the passages of packets that belong to flows, one row each, spooled where packets are.

    `packets` has the columns of PACKETS and PACKETS_IN_FLOWS. Columns: flow, by_orig, kind (KINDS),
    in_row, out_row, in_time_ns, out_time_ns, ttl_drop (Int16), in_src, in_dst, out_src, out_dst
    (MACs), out_capture, tunnel, outer_src_*, outer_dst_* (of the sight that is tunnelled). In order
    of the later row. Raises SpoolError.
    """
    found = _found(packets, tunnels)
    if isinstance(packets, spool.Spooled):
        return spool.spooled(found, packets.folder)
    return pl.concat(found)


def _found(packets: Table, tunnels: Table) -> Iterator[pl.DataFrame]:
    """Yield no passages, and then those whose later sight is in each frame of the packets."""
    yield _empty()
    outer = side_tables.finder(tunnels, *_OUTER)
    begin = 0
    for frame in spool.frames(packets, "flow", "by_orig", "copy_of", *_SIGHT):
        seen = frame.with_row_index("row", begin)
        begin += len(frame)
        seconds = seen.filter(pl.col("copy_of").is_not_null() & pl.col("flow").is_not_null())
        if len(seconds):
            firsts = spool.at(packets, seconds["copy_of"], *_SIGHT)
            rows = pl.concat([seconds["row"], seconds["copy_of"]])
            yield _of(seconds.hstack(firsts.rename(lambda name: f"{name}_1")), outer(rows).lazy())


def _of(both: pl.DataFrame, outer: pl.LazyFrame) -> pl.DataFrame:
    """Return the passages among packets beside their first sights, whose columns end in _1."""
    pairs = (
        both.lazy()
        .join(outer, on="row", how="left", maintain_order="left")
        .join(
            outer,
            left_on="copy_of",
            right_on="row",
            how="left",
            suffix="_1",
            maintain_order="left",
        )
    )
    # Captures of two interfaces merged by time may show the outgoing sight first.
    swapped = (pl.col("ttl_1") < pl.col("ttl")).fill_null(False)
    row_1 = pl.col("copy_of")

    def entry(name: str) -> pl.Expr:
        first = row_1 if name == "row" else pl.col(f"{name}_1")
        return pl.when(swapped).then(name).otherwise(first)

    def leaving(name: str) -> pl.Expr:
        first = row_1 if name == "row" else pl.col(f"{name}_1")
        return pl.when(swapped).then(first).otherwise(name)

    wrapped, bare = (
        leaving("tunnel_depth") > entry("tunnel_depth"),
        (leaving("tunnel_depth") < entry("tunnel_depth")),
    )
    drop = entry("ttl").cast(pl.Int16) - leaving("ttl").cast(pl.Int16)
    moved = (entry("eth_src").ne_missing(leaving("eth_src"))) | (
        entry("eth_dst").ne_missing(leaving("eth_dst"))
    )
    turned = (entry("direction") == "in") & (leaving("direction") == "out")
    kind = (
        pl.when(wrapped)
        .then(pl.lit("encapsulated", KINDS))
        .when(bare)
        .then(pl.lit("decapsulated", KINDS))
        .when((drop > 0) | moved | turned.fill_null(False))
        .then(pl.lit("routed", KINDS))
    )
    around = [
        pl.when(bare).then(entry(name)).otherwise(leaving(name)).alias(name)
        for name in ("tunnel", *_OUTER)
    ]
    return (
        pairs.select(
            "flow",
            "by_orig",
            kind.alias("kind"),
            entry("row").alias("in_row"),
            leaving("row").alias("out_row"),
            entry("time_ns").alias("in_time_ns"),
            leaving("time_ns").alias("out_time_ns"),
            drop.alias("ttl_drop"),
            entry("eth_src").alias("in_src"),
            entry("eth_dst").alias("in_dst"),
            leaving("eth_src").alias("out_src"),
            leaving("eth_dst").alias("out_dst"),
            leaving("capture").alias("out_capture"),
            *around,
        )
        .filter(pl.col("kind").is_not_null())
        .collect()
    )


def _empty() -> pl.DataFrame:
    """Return no passages."""
    return pl.DataFrame(
        schema={
            "flow": pl.UInt32,
            "by_orig": pl.Boolean,
            "kind": KINDS,
            "in_row": pl.UInt32,
            "out_row": pl.UInt32,
            "in_time_ns": pl.Int64,
            "out_time_ns": pl.Int64,
            "ttl_drop": pl.Int16,
            **dict.fromkeys(("in_src", "in_dst", "out_src", "out_dst"), pl.UInt64),
            "out_capture": pl.UInt16,
            "tunnel": TUNNELS,
            **dict.fromkeys(_OUTER, pl.UInt64),
        }
    )
