"""Who answers ARP or neighbour solicitations for a virtual address, and whom its frames go to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag import spool

if TYPE_CHECKING:
    from pcapdiag.case.case import Case
    from pcapdiag.flows.vantage import VantageTables

TOGETHER_NS: Final = 1_000_000_000
"""Two answers to one asker within this time answer one request: Linux asks again after a second,
and an owner that changed does not answer any more."""

_SHAPE: Final = {
    "vantage": pl.UInt16,
    "vip_hi": pl.UInt64,
    "vip_lo": pl.UInt64,
    "first_row": pl.UInt32,
    "second_row": pl.UInt32,
    "first_mac": pl.UInt64,
    "second_mac": pl.UInt64,
    "asker_mac": pl.UInt64,
    "first_ns": pl.Int64,
}


def frame(case: Case) -> pl.DataFrame:
    """Return one row per pair of answers to one question that give a VIP two MACs.

    Two answers belong to two questions where the asker asked again in between, or where the VIP
    moved to another director in between (mastership.frame).

    Columns: vantage, vip_hi, vip_lo; first_row, second_row and first_mac, second_mac of the two
    answers in their order; asker_mac (whom they told), first_ns (common clock).
    """
    vips = pl.DataFrame(
        sorted({item.vip for item in case.topology.services if item.vip}),
        schema={"sender_hi": pl.UInt64, "sender_lo": pl.UInt64},
        orient="row",
    )
    parts = [
        _at(case, vantage.index, vips)
        for vantage in case.vantages
        if vips.height and vantage.arp.height
    ]
    pairs = pl.concat([pl.DataFrame(schema=_SHAPE), *parts])
    return _without_moves(case, pairs) if pairs.height else pairs


def _without_moves(case: Case, pairs: pl.DataFrame) -> pl.DataFrame:
    """Leave out pairs between whose answers the VIP moved, whichever vantage shows it."""
    moves = case.mastership.drop_nulls("time_ns").select(
        "vip_hi", "vip_lo", pl.col("time_ns").alias("moved_ns")
    )
    timed = pairs.filter(pl.col("first_ns").is_not_null()).sort("first_ns")
    stayed = timed.join_asof(
        moves.sort("moved_ns"),
        left_on="first_ns",
        right_on="moved_ns",
        by=["vip_hi", "vip_lo"],
        strategy="forward",
        tolerance=TOGETHER_NS,
        check_sortedness=False,
    ).filter(pl.col("moved_ns").is_null())
    return pl.concat([stayed.drop("moved_ns"), pairs.filter(pl.col("first_ns").is_null())])


def _asked(tables: VantageTables, vips: pl.DataFrame) -> pl.LazyFrame:
    """Return the questions about VIPs in the form of answers to them: row, VIP, whom to tell."""
    return (
        tables.arp.lazy()
        .filter(pl.col("op").cast(pl.String).is_in(["request", "solicitation"]))
        .select(
            "row",
            pl.col("target_hi").alias("sender_hi"),
            pl.col("target_lo").alias("sender_lo"),
            pl.col("eth_src").alias("eth_dst"),
        )
        .join(vips.lazy(), on=["sender_hi", "sender_lo"], how="semi")
    )


def _at(case: Case, index: int, vips: pl.DataFrame) -> pl.DataFrame:
    tables = case.vantages[index]
    key = ["sender_hi", "sender_lo", "eth_dst"]
    answers = tables.arp.filter(
        pl.col("op").cast(pl.String).is_in(["reply", "advertisement"]),
        ~pl.col("gratuitous"),
        pl.col("sender_mac").is_not_null(),
    ).join(vips, on=["sender_hi", "sender_lo"], how="semi")
    if answers.is_empty():
        return pl.DataFrame(schema=_SHAPE)
    answers = answers.hstack(spool.at(tables.packets, answers["row"], "time_ns", "eth_dst"))
    return (
        pl.concat([answers.lazy(), _asked(tables, vips)], how="diagonal")
        .sort("row")
        .with_columns(pl.col("sender_mac").is_null().cum_sum().over(key).alias("question"))
        .filter(pl.col("sender_mac").is_not_null())
        .with_columns(
            pl.col(name).shift(1).over(*key, "question").alias(f"before_{name}")
            for name in ("row", "sender_mac", "time_ns")
        )
        .filter(
            pl.col("sender_mac") != pl.col("before_sender_mac"),
            pl.col("time_ns") - pl.col("before_time_ns") < TOGETHER_NS,
        )
        .select(
            pl.lit(index, pl.UInt16).alias("vantage"),
            pl.col("sender_hi").alias("vip_hi"),
            pl.col("sender_lo").alias("vip_lo"),
            pl.col("before_row").alias("first_row"),
            pl.col("row").alias("second_row"),
            pl.col("before_sender_mac").alias("first_mac"),
            pl.col("sender_mac").alias("second_mac"),
            pl.col("eth_dst").alias("asker_mac"),
            case.clocks.common_time(index, "before_time_ns").alias("first_ns"),
        )
        .select(pl.col(name).cast(dtype) for name, dtype in _SHAPE.items())
        .collect()
    )


def answered(case: Case) -> dict[tuple[int, int], int]:
    """Return per VIP how many answers to a question about it were captured where it was asked.

    Only the asker's own capture, or that of a mirror port, holds all answers: a host that answers
    does not see what others say to the asker.
    """
    counted = (
        pl.concat([_heard_by_asker(case, vantage.index) for vantage in case.vantages])
        .group_by("sender_hi", "sender_lo")
        .len()
    )
    return {(hi, lo): count for hi, lo, count in counted.iter_rows()}


def _heard_by_asker(case: Case, index: int) -> pl.DataFrame:
    """Return sender_hi, sender_lo of the answers that a vantage holds and would hold all of."""
    tables, own = case.vantages[index], case.topology.vantage_macs[index]
    mirrored = not own and not case.topology.observed.macs.either[index]
    to_host = (
        pl.when(pl.col("eth_dst").is_null())
        .then(pl.col("direction") == "in")
        .otherwise(pl.col("eth_dst").is_in(sorted(own)) | pl.lit(mirrored))
    )
    return (
        tables.arp.lazy()
        .filter(
            pl.col("op").cast(pl.String).is_in(["reply", "advertisement"]),
            ~pl.col("gratuitous"),
            pl.col("sender_lo").is_not_null(),
        )
        .join(tables.packets.lazy().select("eth_dst", "direction").with_row_index("row"), on="row")
        .filter(to_host)
        .select("sender_hi", "sender_lo")
        .collect()
    )


def frames_to(case: Case, vip: tuple[int, int], asker_mac: int, macs: list[int]) -> pl.DataFrame:
    """Return the frames for a VIP by whose MAC they went to.

    Columns: mac, frames (each once, however often it was captured), vantage, row (the first),
    connections (list of those they belong to).
    """
    legs = case.connections.legs.lazy()
    parts = [
        vantage.packets.lazy()
        .with_row_index("row")
        .filter(
            pl.col("dst_hi") == vip[0],
            pl.col("dst_lo") == vip[1],
            pl.col("eth_src") == asker_mac,
            pl.col("eth_dst").is_in(macs),
        )
        .join(
            legs.filter(pl.col("vantage") == vantage.index).select("flow", "connection"),
            on="flow",
            how="left",
        )
        .group_by(pl.col("eth_dst").alias("mac"))
        .agg(
            pl.coalesce("copy_of", "row").n_unique().alias("frames"),
            pl.col("row").min(),
            pl.col("connection").drop_nulls().unique().sort().alias("connections"),
        )
        .with_columns(pl.lit(vantage.index, pl.UInt16).alias("vantage"))
        for vantage in case.vantages
    ]
    return (
        pl.concat(pl.collect_all(parts))
        .sort("frames", "vantage", "row", descending=[True, False, False])
        .unique("mac", keep="first", maintain_order=True)
    )
