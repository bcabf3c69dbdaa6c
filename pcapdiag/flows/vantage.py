"""All that was captured at one vantage, as tables: its captures merged, flows and ICMP errors."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from pcapdiag import memory, schema, spool
from pcapdiag.capture.frames import NO_TIME
from pcapdiag.decode.packets import Decoded, concat
from pcapdiag.flows import flows, icmp_errors, spooled_flows
from pcapdiag.flows.arrays import Columns
from pcapdiag.spool import Spooled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pcapdiag.capture.frames import CaptureInfo
    from pcapdiag.flows.arrays import Rows
    from pcapdiag.spool import Table

MANY_FLOWS: Final = 100_000
"""Building so many leaves 40 MB behind that nobody holds."""


@dataclass(frozen=True, slots=True)
class VantageTables:
    """One vantage. Tables are as in schema.py; `row` counts in `packets` throughout."""

    index: int
    name: str
    role_given: str | None
    captures: tuple[CaptureInfo, ...]
    capture_ids: tuple[int, ...]
    """One per capture: its index within the case, as in the column `capture`."""
    packets: Table
    """PACKETS and PACKETS_IN_FLOWS side by side; by time where captures were merged."""
    tunnels: pl.DataFrame
    sacks: pl.DataFrame
    icmp: pl.DataFrame
    arp: pl.DataFrame
    vrrp: pl.DataFrame
    ipvs_sync: pl.DataFrame
    flows: pl.DataFrame
    icmp_errors: pl.DataFrame

    def packets_of(self, flows: pl.Series, *, row: bool = False) -> pl.LazyFrame:
        """Return the packets of some flows as a query, with their `row` if wanted.

        To pick them first is several times quicker than to join all packets with what is known of
        the flows.
        """
        packets = self.packets.lazy().with_row_index("row") if row else self.packets.lazy()
        return packets.filter(pl.col("flow").is_in(flows.unique().implode()))


def build(
    index: int,
    name: str,
    role_given: str | None,
    captures: Sequence[tuple[CaptureInfo, Decoded]],
    capture_ids: Sequence[int] | None = None,
) -> VantageTables:
    """Return the tables of a vantage.

    Each Decoded counts its rows from 0. One capture stays in file order, whatever its clock did.
    Several are merged by time, stably; a frame without a time stays behind the frame before it in
    its capture. `capture_ids` are the captures' indices within the case; without them a capture
    tells its own in its first packet, and one that holds none is -1.
    """
    if capture_ids is None:
        capture_ids = [_capture_id(part.packets) for _, part in captures]
    decoded = _merge([part for _, part in captures])
    packets, told = _with_flows(decoded)
    if isinstance(packets, Spooled) or len(told) > MANY_FLOWS:
        memory.give_back()
    return VantageTables(
        index=index,
        name=name,
        role_given=role_given,
        captures=tuple(info for info, _ in captures),
        capture_ids=tuple(capture_ids),
        packets=packets,
        tunnels=decoded.tunnels,
        sacks=decoded.sacks,
        icmp=decoded.icmp,
        arp=decoded.arp,
        vrrp=decoded.vrrp,
        ipvs_sync=decoded.ipvs_sync,
        flows=told,
        icmp_errors=icmp_errors.build(packets, decoded.icmp, decoded.tunnels, told),
    )


def _with_flows(decoded: Decoded) -> tuple[Table, pl.DataFrame]:
    """Return packets with the columns of PACKETS_IN_FLOWS, and flows."""
    packets = decoded.packets
    if isinstance(packets, Spooled):
        return spooled_flows.build(packets, decoded.sacks, decoded.icmp)
    found = flows.build(packets, decoded.sacks, decoded.icmp)
    return packets.hstack(found.in_flows), found.flows


def _capture_id(packets: Table) -> int:
    return int(spool.at(packets, [0], "capture").item()) if len(packets) else -1


def _merge(parts: Sequence[Decoded]) -> Decoded:
    """Return the parts as one, by time, with `row` counting in the merged packets."""
    if not parts:
        return concat([])
    if len(parts) == 1:
        return parts[0]
    begins = np.cumsum([0, *(len(part.packets) for part in parts)])
    packets = _end_to_end([part.packets for part in parts])
    based = concat(
        [
            replace(_moved(part, int(begin)), packets=schema.empty("packets"))
            for part, begin in zip(parts, begins[:-1], strict=True)
        ]
    )
    times = np.concatenate([_filled_times(part.packets) for part in parts])
    order = np.argsort(times, kind="stable")
    if (order[1:] > order[:-1]).all():
        return replace(based, packets=packets)
    place = np.empty(len(order), np.uint32)
    place[order] = np.arange(len(order), dtype=np.uint32)
    tables = {
        field.name: _placed(getattr(based, field.name), place)
        for field in fields(based)
        if field.name != "packets"
    }
    return Decoded(packets=_ordered(packets, order), **tables)


def _end_to_end(parts: Sequence[Table]) -> Table:
    """Return the packets of several captures behind one another, spooled where any are."""
    folder = next((part.folder for part in parts if isinstance(part, Spooled)), None)
    if folder is None:
        return pl.concat([frame for part in parts for frame in spool.frames(part)], rechunk=True)
    kept = [
        part if isinstance(part, Spooled) else spool.spooled([part], folder)
        for part in parts
        if len(part)
    ]
    paths = [path for part in kept for path in part.paths]
    return Spooled(tuple(paths), tuple(height for part in kept for height in part.heights))


def _ordered(packets: Table, order: Rows) -> Table:
    """Return the rows in another order; files that held them in the old one are removed."""
    if isinstance(packets, pl.DataFrame):
        return packets[order]
    columns = list(schema.dtypes("packets"))
    pieces = (
        packets.at(order[begin : begin + spool.CHUNK_ROWS], columns)
        for begin in range(0, len(order), spool.CHUNK_ROWS)
    )
    ordered = spool.spooled(pieces, packets.folder)
    spool.discard(packets)
    return ordered


def _moved(part: Decoded, base: int) -> Decoded:
    """Return the part with `base` added to every row number."""
    if not base:
        return part
    tables = {
        field.name: getattr(part, field.name).with_columns(pl.col("row") + base)
        for field in fields(part)
        if field.name != "packets"
    }
    return replace(part, **tables)


def _filled_times(packets: Table) -> Rows:
    """Return times with the last one known before where there is none."""
    times = packets.lazy().select("time_ns").collect().select(pl.col("time_ns").forward_fill())
    return Columns(times).values("time_ns", NO_TIME)


def _placed(table: pl.DataFrame, place: NDArray[np.uint32]) -> pl.DataFrame:
    """Return a side table with rows renumbered, in order of row."""
    moved = pl.Series("row", place[Columns(table).values("row")])
    return table.with_columns(moved).sort("row", maintain_order=True)
