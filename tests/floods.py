"""One packet many times: what a rule must judge within seconds and bounded memory."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import polars as pl
from traces import trace

from pcapdiag import schema
from pcapdiag.case import Case
from pcapdiag.flows import vantage

if TYPE_CHECKING:
    from pcapdiag.decode.packets import Decoded

COUNT = int(os.environ.get("PCAPDIAG_SUSPECTS", "50000"))
"""Half a million where there is time: a rule that is not linear shows at a tenth of it, too."""

EVERY_NS = 20_000


def case(
    text: str,
    *,
    role: str = "director",
    name: str = "director",
    count: int = COUNT,
    **changed: pl.Expr,
) -> Case:
    """Return a case of one vantage: the trace `text`, its last packet `count` times in all.

    The copies come EVERY_NS apart with IP IDs of their own. `changed` are columns of `packets`, or
    with `icmp_` and `quoted_` in front of the side table, over the column `n`, 0 to count - 1.
    """
    packets = trace(text)
    info = packets.info()
    info = replace(
        info,
        path=f"{name}.pcap",
        packets=len(packets.packets) + count,
        last_ns=(info.last_ns or 0) + (count - 1) * EVERY_NS,
    )
    decoded = packets.decoded(0)
    tables = vantage.build(0, name, role, [(info, _flooded(decoded, count, changed))])
    return Case((tables,))


def repeated(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of a measurement over and over: COUNT in one piece, as a join gives them."""
    return rows[pl.arange(COUNT, eager=True) % rows.height]


def _flooded(decoded: Decoded, count: int, changed: dict[str, pl.Expr]) -> Decoded:
    last = decoded.packets.height - 1
    number = pl.DataFrame({"n": pl.arange(count, eager=True, dtype=pl.Int64)})
    told = decoded.icmp.filter(pl.col("row") == last)
    moved = {
        "time_ns": pl.col("time_ns") + pl.col("n") * EVERY_NS,
        "ip_id": pl.col("n") % 65535 + 1,
        "frame": pl.col("frame") + pl.col("n"),
        **changed,
    }

    def grown(table: pl.DataFrame, one: pl.DataFrame, exprs: dict[str, pl.Expr]) -> pl.DataFrame:
        kept = {name: expr for name, expr in exprs.items() if name in one.columns}
        many = number.join(one, how="cross").with_columns(**kept).select(table.columns)
        return pl.concat(
            [table, many.cast(dict(table.schema.items()), strict=True)]  # type: ignore[arg-type]
        )

    packets = grown(decoded.packets[:last], decoded.packets[last:], moved)
    icmp = decoded.icmp
    if told.height:
        rows = {"row": pl.col("row") + pl.col("n"), **changed}
        icmp = grown(icmp.filter(pl.col("row") != last), told, rows)
    return replace(
        decoded, packets=schema.conform(packets, "packets"), icmp=schema.conform(icmp, "icmp")
    )
