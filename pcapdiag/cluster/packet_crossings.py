"""Packets of chosen connections, each once, with every sight of it at all vantages.

What one vantage saw twice of a packet, the flow tables have joined already (`copy_of`). Here sights
are joined across a translation and across vantages: equal marks (packet_sights.py), one sight a
place, near each other on the common clock. Where a place saw two that are equal, and pauses do not
tell which belongs to which, nothing is joined and the refusal is counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag.cluster.joined import packet_sights
from pcapdiag.cluster.matching import pieces
from pcapdiag.flows.sightings import NAMED_FORWARD_NS, UNNAMED_FORWARD_NS
from pcapdiag.protocols import IpProto
from pcapdiag.schema import conform

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pcapdiag.cluster.clock import Clocks
    from pcapdiag.cluster.connections import Connections
    from pcapdiag.cluster.topology import Topology
    from pcapdiag.flows.vantage import VantageTables

_SEED: Final = 0x9A1

_UNIT: Final = ("vantage", "first", "payload_len", "frag_offset")
"""A packet at one vantage. A segment that was cut again where it left counts its pieces apart."""

_STAGE: Final = ("vantage", "kind")
"""Where a packet passes once: a vantage, or one side of the translation at a vantage."""


@dataclass(frozen=True)
class Crossings:
    """sights: schema CROSSINGS. refused: groups of equal sights that were not joined.

    details: the sights with all columns of packet_sights.find beside packet, part_of and `unsure`
    (equal to another that it may be).
    """

    sights: pl.DataFrame
    refused: int
    details: pl.DataFrame


def find(
    vantages: Sequence[VantageTables],
    topology: Topology,
    connections: Connections,
    clocks: Clocks,
    wanted: Iterable[int],
) -> Crossings:
    """Return the packets of some connections, numbered in order of their first sight."""
    chosen = pl.DataFrame({"connection": sorted(set(wanted))}, schema={"connection": pl.UInt32})
    seen = packet_sights.find(vantages, topology, connections, clocks, chosen)
    units = _units(seen)
    error = max((item for item in clocks.error_ns if item is not None), default=0)
    joined, refused = _joined(units, error)
    joined, unclear = _shifted(joined, error)
    joined = pieces.find(_numbered(joined), vantages, connections, error)
    details = seen.join(
        joined.select(*_UNIT, "packet", "part_of", "unsure"),
        on=list(_UNIT),
        nulls_equal=True,
        maintain_order="left",
    ).sort("packet", "time_ns", "vantage", "row", nulls_last=True)
    return Crossings(conform(details, "crossings"), refused + unclear, details)


def _units(seen: pl.DataFrame) -> pl.DataFrame:
    """Return one row a packet and vantage: its first sight there."""
    return (
        seen.sort("vantage", "row")
        .unique(_UNIT, keep="first", maintain_order=True)
        .with_row_index("unit")
    )


def _joined(units: pl.DataFrame, error: int) -> tuple[pl.DataFrame, int]:
    """Add `group`, equal for units that are one packet, and count what was refused.

    A pause on the common clock begins another packet with the same marks. Off the common clock
    the marks alone must do: of the telling kind, and at no stage twice.
    """
    limit = pl.when("named").then(NAMED_FORWARD_NS).otherwise(UNNAMED_FORWARD_NS) + error
    stage = pl.struct(_STAGE)
    pause = pl.col("time_ns") - pl.col("time_ns").shift(1).over("key", "aligned")
    bunched = units.sort("key", "aligned", "time_ns", "unit", nulls_last=True).with_columns(
        (pause.fill_null(0) > limit).cum_sum().over("key", "aligned").alias("bunch")
    )
    bunches = pl.col("bunch").filter(pl.col("aligned")).n_unique().over("key")
    by_marks = (pl.col("told") & (bunches <= 1) & (stage.n_unique() == pl.len()).over("key")).alias(
        "by_marks"
    )
    lone = ~pl.col("aligned") & ~pl.col("by_marks")
    marked = bunched.with_columns(by_marks).with_columns(
        pl.when("by_marks").then(0).otherwise("bunch").alias("bunch"),
        pl.when(lone).then("unit").alias("apart"),
    )
    part = ("key", "bunch", "apart")
    sure = (stage.n_unique() == pl.len()).over(part)
    judged = marked.with_columns(sure.alias("sure"))
    unsure = judged.filter(~pl.col("sure")).select(part).n_unique()
    unplaced = judged.filter(pl.col("apart").is_not_null() & (pl.len().over("key") > 1))
    alone = pl.when("sure").then("apart").otherwise("unit")
    grouped = judged.with_columns(pl.struct("key", "bunch", alone).hash(_SEED).alias("group"))
    refused = unsure + unplaced.get_column("key").n_unique()
    grouped = grouped.with_columns((~pl.col("sure")).alias("unsure"))
    return grouped.drop("bunch", "by_marks", "apart", "sure"), refused


def _shifted(units: pl.DataFrame, error: int) -> tuple[pl.DataFrame, int]:
    """Join what NAT gave other sequence numbers: an application helper changed the payload before.

    ip_vs_ftp.c shifts all that follows by one number (ip_vs_seq), so that a shift counts only if
    two packets show it. Such packets keep IP ID, flags and length.
    """
    same = ["connection", "by_client", "ip_id", "tcp_flags", "payload_len"]
    one_side = (pl.col("kind").n_unique() == 1).over("group")
    plain = pl.col("named") & pl.col("aligned") & (pl.col("ip_proto") == int(IpProto.TCP))
    lone = (
        units.filter(one_side & plain.all().over("group"))
        .sort("time_ns")
        .unique("group", keep="first", maintain_order=True)
        .select("group", "kind", "time_ns", "tcp_seq", *same)
    )
    front, back = (lone.filter(pl.col("kind") == kind) for kind in ("front", "back"))
    shift = (pl.col("tcp_seq_back").cast(pl.Int64) - pl.col("tcp_seq").cast(pl.Int64)) % 2**32
    near = (pl.col("time_ns_back") - pl.col("time_ns")).abs() <= NAMED_FORWARD_NS + error
    pairs = front.join(back, on=same, suffix="_back").filter(near)
    once = (pl.len().over("group") == 1) & (pl.len().over("group_back") == 1)
    shown = pl.len().over("connection", "by_client", "shift") > 1
    clear = pairs.filter(once).with_columns(shift.alias("shift")).filter(shown)
    other = clear.select(pl.col("group_back").alias("group"), pl.col("group").alias("front"))
    joined = units.join(other, on="group", how="left", maintain_order="left")
    refused = len(pairs.filter(~once))
    return joined.with_columns(pl.coalesce("front", "group").alias("group")).drop("front"), refused


def _numbered(units: pl.DataFrame) -> pl.DataFrame:
    """Replace `group` by `packet`, numbered in order of the first sight."""
    order = (
        units.sort("time_ns", "vantage", "first", nulls_last=True)
        .unique("group", keep="first", maintain_order=True)
        .select("group")
        .with_row_index("packet")
    )
    return units.join(order, on="group", maintain_order="left").drop("group")
