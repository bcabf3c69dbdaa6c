"""Decoded captures as a file that is read back many times faster than they are decoded.

What is in it, see capture/indexed.py. Beside the tables stands N/frames.parquet: `frame` (number),
`bytes` (the first KEPT_BYTES) of the ICMP, ARP and VRRP frames, which no column holds whole. Any
Parquet reader can query the tables once the archive is unpacked; schema.py says what they mean.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import polars as pl

from pcapdiag import schema, spool
from pcapdiag.capture import indexed
from pcapdiag.capture.reader import open_again
from pcapdiag.decode.packets import SPOOLED, Decoded
from pcapdiag.errors import UnreadableCapture
from pcapdiag.spool import SpoolError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

    from pcapdiag.capture.indexed import IndexedCapture
    from pcapdiag.spool import Spooled, Table, WorkDirectory

KEPT_BYTES: Final = 256
"""Of a frame: all headers, the quote, and RFC 4884's 128 bytes of it."""

_TABLES: Final = tuple(item.name for item in fields(Decoded))
_SIDE_TABLES: Final = tuple(name for name in _TABLES if name != "packets")
_DATE: Final = (1980, 1, 1, 0, 0, 0)  # the zip format's first: equal captures give equal bytes


class Entry(NamedTuple):
    """What is written of one capture."""

    capture: IndexedCapture
    decoded: Decoded
    frames: Table


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


def _put(archive: zipfile.ZipFile, name: str, table: Table) -> None:
    entry = zipfile.ZipInfo(name, _DATE)
    if isinstance(table, pl.DataFrame):
        content = io.BytesIO()
        table.write_parquet(content, compression="zstd")
        archive.writestr(entry, content.getbuffer())
        return
    try:
        with archive.open(entry, "w", force_zip64=True) as file:
            table.lazy().sink_parquet(file, compression="zstd", row_group_size=spool.CHUNK_ROWS)
    except pl.exceptions.PolarsError as error:  # of what it writes to
        raise OSError(str(error).partition("\n")[0]) from error


def read(
    path: str,
    number: int,
    capture: int,
    *,
    limit: int = spool.IN_MEMORY_ROWS,
    work: WorkDirectory | None = None,
) -> tuple[IndexedCapture, Decoded]:
    """Return capture `number` of an index, as number `capture` of the case.

    With more than `limit` packets it is spooled into `work`, if there is one. Raises
    UnreadableCapture where that cannot be, StaleIndex where the capture has changed, SpoolError.
    """
    listed = indexed.captures(path)
    if number >= len(listed):
        raise UnreadableCapture(path, f"holds {len(listed)} captures, and none is {number}")
    entry = listed[number]
    indexed.require_fresh(path, entry)
    folder = work.folder(capture) if work and entry.info.packets > limit else None
    renumbered = {"packets": [pl.lit(capture, pl.UInt16).alias("capture")]}
    tables: dict[str, Table] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in _TABLES:
                told = renumbered.get(name, [])
                if folder is not None and name in SPOOLED:
                    tables[name] = _spooled(archive, number, name, folder, told)
                else:
                    tables[name] = _table(archive, number, name).with_columns(told)
        _require_rows(tables, entry.info.packets)
    except SpoolError:
        spool.clear([folder] if folder else [])  # what others write finds room
        raise
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, pl.exceptions.PolarsError) as error:
        reason = str(error).partition("\n")[0]
        message = f"is a damaged index ({reason}); {indexed.AGAIN}"
        raise UnreadableCapture(path, message) from error
    return entry, Decoded(**tables)  # type: ignore[arg-type]


def _spooled(
    archive: zipfile.ZipFile, number: int, name: str, folder: str, told: list[pl.Expr]
) -> Spooled:
    """Return a table in files, of which some rows at a time are held. Raises SpoolError."""
    place = Path(folder) / f"{name}.parquet"
    with archive.open(f"{number}/{name}.parquet") as member:
        spool.copied(member, place)
    try:
        table = pl.scan_parquet(place)
        wanted = _same_columns(name, table.collect_schema().names())
        table = table.cast(wanted).with_columns(told)  # type: ignore[arg-type]
        height = table.select(pl.len()).collect().item()
        begins = range(0, max(1, height), spool.CHUNK_ROWS)
        return spool.spooled(
            (table.slice(begin, spool.CHUNK_ROWS).collect() for begin in begins), folder
        )
    finally:
        place.unlink()


def _table(archive: zipfile.ZipFile, number: int, name: str) -> pl.DataFrame:
    table = pl.read_parquet(io.BytesIO(archive.read(f"{number}/{name}.parquet"))).rechunk()
    return table.cast(_same_columns(name, table.columns))  # type: ignore[arg-type]


def _same_columns(name: str, columns: list[str]) -> dict[str, pl.DataType | type[pl.DataType]]:
    wanted = schema.dtypes(name)
    if columns != list(wanted):
        raise ValueError(f"another version wrote the table {name}")
    return wanted


def _require_rows(tables: dict[str, Table], count: int) -> None:
    """Raise ValueError unless there are `count` packets, and every row number is one of them.

    What is read beside the packets, chunk by chunk, must be in their order.
    """
    if len(tables["packets"]) != count:
        raise ValueError(f"{len(tables['packets'])} packets where there should be {count}")
    for name in _SIDE_TABLES:
        last = 0
        for frame in spool.frames(tables[name], "row"):
            rows = frame["row"]
            if len(rows) and (rows.has_nulls() or rows.max() >= count):  # type: ignore[operator]
                raise ValueError(f"the table {name} has rows that are no packets")
            if len(rows) and name in SPOOLED:
                if rows[0] < last or not rows.is_sorted():
                    raise ValueError(f"the table {name} is not in order of its packets")
                last = rows[-1]


def kept_frames(path: str, decoded: Decoded) -> Table:
    """Return the first bytes of a capture's ICMP, ARP and VRRP frames: frame, bytes.

    Spooled where the packets are. Reads the capture again; raises as open_again does, and
    SpoolError.
    """
    rows = np.unique(np.concatenate([_rows(decoded, name) for name in ("icmp", "arp", "vrrp")]))
    frames = spool.at(decoded.packets, pl.Series(rows), "frame")["frame"].to_numpy()
    kept = _kept(path, frames)
    if isinstance(decoded.packets, pl.DataFrame):
        return pl.concat(kept)
    return spool.spooled(kept, decoded.packets.folder)


def _kept(path: str, frames: np.ndarray) -> Iterator[pl.DataFrame]:
    """Yield the bytes of frames, given in order of their numbers, batch by batch."""
    names = {"frame": pl.UInt32, "bytes": pl.Binary}
    yield pl.DataFrame(schema=names)
    with open_again(path) as reader:
        for batch in reader if len(frames) else ():
            first = int(batch.frame[0])
            begin, end = np.searchsorted(frames, (first, first + len(batch)))
            places = frames[begin:end].astype(np.int64) - first
            starts = batch.start[places]
            ends = starts + np.minimum(batch.caplen[places], KEPT_BYTES)
            kept = [
                batch.data[start:end].tobytes()
                for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
            ]
            yield pl.DataFrame({"frame": frames[begin:end], "bytes": kept}, schema=names)


def _rows(decoded: Decoded, name: str) -> np.ndarray:
    table: pl.DataFrame = getattr(decoded, name)
    return table["row"].to_numpy()
