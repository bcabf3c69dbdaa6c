"""Which side of a UDP conversation is the client, the same at every vantage.

TCP says it with a SYN. UDP does not, and a guess by ports that differs between the two sides of a
translation, or between two vantages, would hide that they carry the same packets.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag.protocols import IpProto

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcapdiag.flows.vantage import VantageTables

WELL_KNOWN_PORTS: Final = 1024
"""Ports below this belong to servers (RFC 6335 section 6, system ports)."""


def oriented(vantages: Sequence[VantageTables]) -> tuple[VantageTables, ...]:
    """Return the vantages with UDP and SCTP flows turned so that the originator is the client.

    That is the side without a well-known port where the other has one, else the side that was seen
    first. `flows` gets a column `turned` where any flow was; the `by_orig` of packets and passages
    follows.
    """
    return tuple(oriented_one(vantage) for vantage in vantages)


def oriented_one(vantage: VantageTables) -> VantageTables:
    """Return one vantage as `oriented` does."""
    if (vantage.flows.get_column("ip_proto") == int(IpProto.TCP)).all():
        return vantage
    low = {side: pl.col(f"{side}_port") < WELL_KNOWN_PORTS for side in ("orig", "resp")}
    first = pl.coalesce("orig_first_ns", "last_ns") <= pl.coalesce("resp_first_ns", "last_ns")
    turned = (
        (pl.col("ip_proto") != int(IpProto.TCP))
        & pl.col("orig_port").is_not_null()
        & pl.when(low["orig"] != low["resp"]).then(low["orig"]).otherwise(~first)
    ).fill_null(False)
    flows = vantage.flows.with_columns(turned.alias("turned"))
    numbers = flows.filter("turned").get_column("flow")
    if not len(numbers):
        return vantage
    names = [name.removeprefix("orig_") for name in flows.columns if name.startswith("orig_")]
    swapped = [
        pl.when("turned")
        .then(f"{other}_{name}")
        .otherwise(f"{side}_{name}")
        .alias(f"{side}_{name}")
        for name in names
        for side, other in (("orig", "resp"), ("resp", "orig"))
    ]
    by_orig = pl.col("by_orig") != pl.col("flow").is_in(numbers.implode())
    return replace(
        vantage,
        flows=flows.with_columns(swapped),
        packets=vantage.packets.with_columns(
            pl.when(pl.col("flow").is_not_null()).then(by_orig).alias("by_orig")
        ),
        passages=vantage.passages.with_columns(by_orig.alias("by_orig")),
    )
