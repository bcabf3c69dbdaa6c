"""Decoded captures as a file that is read back many times faster than they are decoded.

What is in it, see capture/indexed.py. Beside the tables stands N/frames.parquet: `frame` (number),
`bytes` (the first KEPT_BYTES) of the ICMP, ARP and VRRP frames, which no column holds whole. Any
Parquet reader can query the tables once the archive is unpacked; schema.py says what they mean.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import fields
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import polars as pl

from pcapdiag import schema, spool
from pcapdiag.capture import indexed
from pcapdiag.capture.reader import open_again
from pcapdiag.decode.packets import Decoded
from pcapdiag.errors import UnreadableCapture

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from typing import BinaryIO

    from pcapdiag.capture.indexed import IndexedCapture

KEPT_BYTES: Final = 256
"""Of a frame: all headers, the quote, and RFC 4884's 128 bytes of it."""

_TABLES: Final = tuple(item.name for item in fields(Decoded))
_DATE: Final = (1980, 1, 1, 0, 0, 0)  # the zip format's first: equal captures give equal bytes


class Entry(NamedTuple):
    """What is written of one capture."""

    capture: IndexedCapture
    decoded: Decoded
    frames: pl.DataFrame


def write(file: BinaryIO | Path, entries: Iterable[Entry]) -> None:
    """Write an index, one entry after the other. Raises OSError."""
    listed = []
    with zipfile.ZipFile(file, "w") as archive:
        for number, entry in enumerate(entries):
            listed.append(entry.capture)
            for name in _TABLES:
                _put(archive, f"{number}/{name}.parquet", getattr(entry.decoded, name))
            _put(archive, f"{number}/frames.parquet", entry.frames)
        archive.writestr(zipfile.ZipInfo(indexed.MANIFEST, _DATE), indexed.pack(listed))


def _put(archive: zipfile.ZipFile, name: str, table: pl.DataFrame) -> None:
    content = io.BytesIO()
    table.write_parquet(content, compression="zstd")
    archive.writestr(zipfile.ZipInfo(name, _DATE), content.getbuffer())


def read(path: str, number: int, capture: int) -> tuple[IndexedCapture, Decoded]:
    """Return capture `number` of an index, as number `capture` of the case.

    Raises UnreadableCapture where that cannot be, StaleIndex where the capture has changed.
    """
    listed = indexed.captures(path)
    if number >= len(listed):
        raise UnreadableCapture(path, f"holds {len(listed)} captures, and none is {number}")
    entry = listed[number]
    indexed.require_fresh(path, entry)
    try:
        with zipfile.ZipFile(path) as archive:
            tables = {name: _table(archive, number, name) for name in _TABLES}
        _require_rows(tables, entry.info.packets)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, pl.exceptions.PolarsError) as error:
        reason = str(error).partition("\n")[0]
        message = f"is a damaged index ({reason}); {indexed.AGAIN}"
        raise UnreadableCapture(path, message) from error
    packets = tables["packets"].with_columns(pl.lit(capture, pl.UInt16).alias("capture"))
    return entry, Decoded(**{**tables, "packets": packets})


def _table(archive: zipfile.ZipFile, number: int, name: str) -> pl.DataFrame:
    table = pl.read_parquet(io.BytesIO(archive.read(f"{number}/{name}.parquet"))).rechunk()
    wanted = schema.dtypes(name)
    if table.columns != list(wanted):
        raise ValueError(f"another version wrote the table {name}")
    return table.cast(wanted)  # type: ignore[arg-type]


def _require_rows(tables: dict[str, pl.DataFrame], packets: int) -> None:
    """Raise ValueError unless there are `packets` packets, and every row number is one of them."""
    for name, table in tables.items():
        if name == "packets":
            if len(table) != packets:
                raise ValueError(f"{len(table)} packets where there should be {packets}")
        elif len(table) and (table["row"].has_nulls() or table["row"].max() >= packets):  # type: ignore[operator]
            raise ValueError(f"the table {name} has rows that are no packets")


def kept_frames(path: str, decoded: Decoded) -> pl.DataFrame:
    """Return the first bytes of a capture's ICMP, ARP and VRRP frames: frame, bytes.

    Reads the capture again; raises as open_again does.
    """
    rows = np.unique(np.concatenate([_rows(decoded, name) for name in ("icmp", "arp", "vrrp")]))
    frames = spool.at(decoded.packets, pl.Series(rows), "frame")["frame"].to_numpy()
    kept: list[bytes] = []
    with open_again(path) as reader:
        for batch in reader if len(frames) else ():
            first = int(batch.frame[0])
            begin, end = np.searchsorted(frames, (first, first + len(batch)))
            places = frames[begin:end].astype(np.int64) - first
            starts = batch.start[places]
            ends = starts + np.minimum(batch.caplen[places], KEPT_BYTES)
            kept += [
                batch.data[start:end].tobytes()
                for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
            ]
    return pl.DataFrame(
        {"frame": frames[: len(kept)], "bytes": kept},
        schema={"frame": pl.UInt32, "bytes": pl.Binary},
    )


def _rows(decoded: Decoded, name: str) -> np.ndarray:
    table: pl.DataFrame = getattr(decoded, name)
    return table["row"].to_numpy()
