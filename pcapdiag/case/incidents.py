"""Suspects told apart into incidents: what a rule judges one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_INCIDENTS: Final = 1000
"""Incidents of a kind that a rule judges: far more than a person reads."""


def incidents(suspects: pl.DataFrame, *keys: str) -> Iterator[pl.DataFrame]:
    """Yield the suspects of each incident, in their order, the incident with most of them first.

    `keys` are the columns that tell incidents apart, null being a value like any other, and whose
    order decides between incidents of one size. Beyond MAX_INCIDENTS nothing is yielded.
    """
    if suspects.is_empty():
        return
    rank = pl.int_range(pl.len(), dtype=pl.UInt32).alias("_rank")
    ranked = (
        suspects.group_by(keys)
        .len("_suspects")
        .sort("_suspects", *keys, descending=[True, *[False] * len(keys)])
        .head(MAX_INCIDENTS)
        .select(*keys, rank)
    )
    parts = suspects.join(ranked, on=keys, nulls_equal=True, maintain_order="left").partition_by(
        "_rank", maintain_order=True, include_key=False, as_dict=True
    )
    for number in range(ranked.height):
        yield parts[(number,)]
