"""All that was captured at one vantage, as tables: its captures merged, flows and ICMP errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag import memory, spool
from pcapdiag.flows import flows, icmp_errors, merging, passages, spooled_flows
from pcapdiag.spool import Spooled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcapdiag.capture.frames import CaptureInfo
    from pcapdiag.decode.packets import Decoded
    from pcapdiag.flows.partitions import Piece
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
    tunnels: Table
    sacks: Table
    icmp: pl.DataFrame
    arp: pl.DataFrame
    vrrp: pl.DataFrame
    ipvs_sync: pl.DataFrame
    flows: pl.DataFrame
    icmp_errors: pl.DataFrame
    passages: Table
    """Packets that the host passed on: see passages.find."""

    def packets_of(self, flows: pl.Series, *, row: bool = False) -> pl.LazyFrame:
        """Return the packets of some flows as a query, with their `row` if wanted.

        To pick them first is several times quicker than to join all packets with what is known of
        the flows.
        """
        packets = self.packets.lazy().with_row_index("row") if row else self.packets.lazy()
        return packets.filter(pl.col("flow").is_in(flows.unique().implode()))

    def passages_of(self, rows: pl.Series) -> pl.DataFrame:
        """Return where packets that came in were passed on: row, out_row, kind."""
        return (
            self.passages.lazy()
            .filter(pl.col("in_row").is_in(rows.implode()))
            .select(pl.col("in_row").alias("row"), "out_row", "kind")
            .collect()
        )


def build(
    index: int,
    name: str,
    role_given: str | None,
    captures: Sequence[tuple[CaptureInfo, Decoded]],
    capture_ids: Sequence[int] | None = None,
    split: tuple[Piece, ...] | None = None,
) -> VantageTables:
    """Return the tables of a vantage.

    Each Decoded counts its rows from 0. One capture stays in file order, whatever its clock did.
    Several are merged by time, stably; a frame without a time stays behind the frame before it in
    its capture. `capture_ids` are the captures' indices within the case; without them a capture
    tells its own in its first packet, and one that holds none is -1. `split` is what was made of a
    capture while it was read, if it is the only one (see partitions.Splitting).
    """
    if capture_ids is None:
        capture_ids = [_capture_id(part.packets) for _, part in captures]
    decoded = merging.merged([part for _, part in captures])
    packets, told = _with_flows(decoded, split)
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
        passages=passages.find(packets, decoded.tunnels),
    )


def _with_flows(decoded: Decoded, split: tuple[Piece, ...] | None) -> tuple[Table, pl.DataFrame]:
    """Return packets with the columns of PACKETS_IN_FLOWS, and flows."""
    packets = decoded.packets
    if isinstance(packets, Spooled):
        return spooled_flows.build(packets, decoded.sacks, decoded.icmp, split)
    found = flows.build(packets, decoded.sacks.lazy().collect(), decoded.icmp)
    return packets.hstack(found.in_flows), found.flows


def _capture_id(packets: Table) -> int:
    return int(spool.at(packets, [0], "capture").item()) if len(packets) else -1
