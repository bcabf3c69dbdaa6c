"""The decoded table of one capture, side tables joined, addresses in text, as CSV or Parquet.

Columns are those of schema.py, in its order, with these differences: an address is one text column
(`src` for `src_hi` and `src_lo`), a MAC is text, `decode_note` is names with ";" between, and what
has several rows per packet (SACK blocks, VRRP addresses, synchronised connections) is joined with
",". Names that two tables share carry the table's name before them.
"""

from __future__ import annotations

import itertools
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag import schema, spool
from pcapdiag.addresses import endpoint_text, ip_texts, mac_text
from pcapdiag.decode.packets import Decoded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pcapdiag.spool import WorkDirectory

_MACS: Final = frozenset({"eth_src", "eth_dst", "sender_mac", "target_mac"})
_PREFIXED: Final = {"tunnels": "tunnel_", "arp": "arp_", "vrrp": "vrrp_"}
"""Tables whose plain names (kind, op, version) say too little in a wide table."""

ROWS_AT_ONCE: Final = 1 << 16
"""Packets of a part: with all their text some 50 MB."""

_SAYS_ITSELF: Final = ("outer_", "tunnel_")

_SIDES: Final = ("tunnels", "sacks", "icmp", "arp", "vrrp", "ipvs_sync")
"""What stands beside the packets, in this order."""


def join(decoded: Decoded, first_row: int = 0) -> pl.DataFrame:
    """Return one row a frame with everything that was decoded of it, in file order.

    `first_row` is the packets' first in what the rows of side tables count.
    """
    table = _readable(decoded.packets.lazy().collect()).with_row_index("row", first_row)
    for name in _SIDES:
        table = _beside(table, name, getattr(decoded, name).lazy().collect())
    return table.drop("row")


def _beside(table: pl.DataFrame, name: str, side: pl.DataFrame) -> pl.DataFrame:
    """Join a side table by row; one without rows, as most are, gives columns of nulls."""
    if side.is_empty():
        return table.with_columns(_nulls(name))
    return table.join(_side(name, side), on="row", how="left", maintain_order="left")


def _side(name: str, table: pl.DataFrame) -> pl.DataFrame:
    """Return a side table as it stands beside packets: a row for each that it says something of."""
    match name:
        case "sacks":
            return _sacks(table)
        case "icmp":
            return _readable(table)
        case "arp":
            return _named(table.drop("eth_src"), name)
        case "vrrp":
            return _vrrp(table)
        case "ipvs_sync":
            return _synchronised(table)
        case _:
            return _named(table, name)


@cache
def _nulls(name: str) -> list[pl.Expr]:
    """Return the columns of a side table, each null."""
    columns = _side(name, schema.empty(name)).drop("row").schema.items()
    return [pl.lit(None, dtype).alias(column) for column, dtype in columns]


def joined(parts: Iterable[Decoded]) -> Iterator[pl.DataFrame]:
    """Yield the joined table of a capture part by part; one without rows where there are none."""
    row = 0
    for part in parts:
        yield join(part, row)
        row += len(part.packets)
    if not row:
        yield join(Decoded(*(schema.empty(item.name) for item in fields(Decoded))))


def through_csv(
    frames: Iterable[pl.DataFrame], write: Callable[[bytes], object]
) -> Iterator[pl.DataFrame]:
    """Yield frames once they are written as CSV with one header line; empty is null."""
    for number, frame in enumerate(frames):
        write(frame.write_csv(include_header=not number).encode())
        yield frame


def write_parquet(frames: Iterator[pl.DataFrame], path: str, work: WorkDirectory) -> None:
    """Write frames as one Parquet file (zstd). Raises OSError, and SpoolError.

    What is more than one frame is spooled into `work` first: polars writes what it can ask for.
    """
    first = next(frames)
    second = next(frames, None)
    try:
        if second is None:
            first.write_parquet(path)
        else:
            every = itertools.chain((first, second), frames)
            pl.scan_ipc([spool.written(frame, work.path) for frame in every]).sink_parquet(path)
    except pl.exceptions.PolarsError as error:  # of what it writes to
        raise OSError(str(error).partition("\n")[0]) from error


def _readable(table: pl.DataFrame) -> pl.DataFrame:
    """Return a table with addresses, MACs and notes in text."""
    columns: list[pl.Series] = []
    for name in table.columns:
        series = table[name]
        if name.endswith("_hi"):
            columns.append(_addresses(name.removesuffix("_hi"), series, table[f"{name[:-3]}_lo"]))
        elif name.endswith("_lo"):
            continue
        elif name in _MACS:
            columns.append(_distinct(series, mac_text))
        elif name == "decode_note":
            columns.append(_distinct(series.replace(0, None), schema.note_names))
        else:
            columns.append(series)
    return pl.DataFrame(columns)


def _addresses(name: str, hi: pl.Series, lo: pl.Series) -> pl.Series:
    if hi.null_count() == len(hi):  # of most side tables, and most of their columns
        return pl.Series(name, dtype=pl.String).clear(len(hi))
    pairs = pl.DataFrame({"hi": hi, "lo": lo})
    known = pairs.unique(maintain_order=True).drop_nulls()
    texts = ip_texts(known["hi"].to_numpy(), known["lo"].to_numpy())
    known = known.with_columns(pl.Series(name, texts, dtype=pl.String))
    return pairs.join(known, on=["hi", "lo"], how="left", maintain_order="left")[name]


def _distinct(series: pl.Series, text: Callable[[int], str]) -> pl.Series:
    """Return each distinct value in text; a column has few of them."""
    values = series.unique().drop_nulls()
    if values.is_empty():
        return pl.Series(series.name, dtype=pl.String).clear(len(series))
    texts = pl.Series([text(int(value)) for value in values], dtype=pl.String)
    return series.replace_strict(values, texts, default=None, return_dtype=pl.String)


def _named(table: pl.DataFrame, name: str) -> pl.DataFrame:
    prefix = _PREFIXED[name]
    readable = _readable(table)
    return readable.rename(
        {
            column: f"{prefix}{column}"
            for column in readable.columns
            if column not in {"row", "overhead"} and not column.startswith(_SAYS_ITSELF)
        }
    ).drop("tunnel_kind", "tunnel_depth", strict=False)


def _sacks(sacks: pl.DataFrame) -> pl.DataFrame:
    return (
        sacks.sort("row", "block")
        .group_by("row", maintain_order=True)
        .agg(
            pl.col("left").cast(pl.String).str.join(",").alias("tcp_sack_left"),
            pl.col("right").cast(pl.String).str.join(",").alias("tcp_sack_right"),
        )
    )


def _vrrp(vrrp: pl.DataFrame) -> pl.DataFrame:
    readable = _named(vrrp, "vrrp")
    return readable.group_by("row", maintain_order=True).agg(
        pl.col("vrrp_version", "vrrp_vrid", "vrrp_priority").first(),
        pl.col("vrrp_virtual").drop_nulls().str.join(",").alias("vrrp_addresses"),
    )


def _synchronised(sync: pl.DataFrame) -> pl.DataFrame:
    """Return per datagram its connections: "tcp-number client virtual real method", "," between."""
    texts = [
        " ".join(
            (
                str(row["proto"]),
                *(
                    endpoint_text(row[f"{end}_hi"], row[f"{end}_lo"], row[f"{end}_port"])
                    for end in ("client", "virtual", "real")
                    if row[f"{end}_hi"] is not None
                ),
                row["method"] or "",
            )
        )
        for row in sync.iter_rows(named=True)
    ]
    return (
        sync.select("row", "sync_id")
        .with_columns(pl.Series("ipvs_sync", texts, dtype=pl.String))
        .group_by("row", maintain_order=True)
        .agg(pl.col("sync_id").first(), pl.col("ipvs_sync").str.join(","))
    )
