"""Rows of a vantage as evidence that a person can look up in Wireshark."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

import polars as pl

from pcapdiag import spool
from pcapdiag.result import Evidence
from pcapdiag.text import clean

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pcapdiag.case.case import Case


def evidence(
    case: Case, role: str, vantage: int, rows: Iterable[int], note: str
) -> tuple[Evidence, ...]:
    """Return the frames at `rows` of a vantage, in that order, as evidence with one sentence.

    Times are the capture's own, as Wireshark shows them, not the common clock's.
    """
    tables = case.vantages[vantage]
    wanted = list(rows)
    picked = spool.at(tables.packets, wanted, "capture", "frame", "time_ns", "interface")
    captures = dict(zip(tables.capture_ids, tables.captures, strict=True))
    result = []
    for capture, number, time_ns, interface in picked.iter_rows():
        info = captures[capture]
        named = {item.index: item.name for item in info.interfaces}
        name = named.get(interface) if len(info.interfaces) > 1 or named.get(interface) else None
        result.append(
            Evidence(
                role=cast("Literal['primary', 'related', 'counter']", role),
                vantage=tables.name,
                file=clean(info.path),
                interface=clean(name) if name else None,
                frame=number,
                time_ns=time_ns,
                note=note,
            )
        )
    return tuple(result)


def with_times(case: Case, rows: pl.DataFrame, name: str) -> pl.DataFrame:
    """Return `rows`, which have vantage and row, with the frames' times on the common clock."""
    parts = [pl.DataFrame(schema={"vantage": pl.UInt16, "row": pl.UInt32, name: pl.Int64})]
    seen = set(rows["vantage"].unique())
    for vantage in case.vantages:
        if vantage.index not in seen:
            continue
        mine = rows.filter(pl.col("vantage") == vantage.index).select("vantage", "row").unique()
        times = mine.hstack(spool.at(vantage.packets, mine["row"], "time_ns"))
        common = case.clocks.common_time(vantage.index, "time_ns").alias(name)
        parts.append(times.select("vantage", "row", common))
    return rows.join(pl.concat(parts), on=["vantage", "row"], how="left", maintain_order="left")


def locate(case: Case, items: Iterable[Evidence]) -> list[tuple[int, int] | None]:
    """Return (vantage, row) of each frame that evidence cites; None where that is ambiguous."""
    places: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for tables in case.vantages:
        for capture, info in zip(tables.capture_ids, tables.captures, strict=True):
            places.setdefault((tables.name, clean(info.path)), []).append((tables.index, capture))
    wanted: dict[tuple[int, int], set[int]] = {}
    cited = []
    for item in items:
        known = places.get((item.vantage, item.file), [])
        cited.append((*known[0], item.frame) if len(known) == 1 else None)
        if len(known) == 1:
            wanted.setdefault(known[0], set()).add(item.frame)
    rows: dict[tuple[int, int, int], int] = {}
    for (vantage, capture), numbers in wanted.items():
        found = (
            case.vantages[vantage]
            .packets.lazy()
            .select("capture", "frame")
            .with_row_index("row")
            .filter(pl.col("capture") == capture, pl.col("frame").is_in(list(numbers)))
            .collect()
        )
        for row, number in found.select("row", "frame").iter_rows():
            rows[vantage, capture, number] = row
    return [None if key is None or key not in rows else (key[0], rows[key]) for key in cited]
