"""Where a frame was seen: on its way into the capturing host, out of it, or neither is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from pcapdiag.schema import PLACES

if TYPE_CHECKING:
    from pcapdiag.cluster.topology import Topology


def place(topology: Topology, index: int) -> pl.Expr:
    """Return PLACES of the frames of a vantage, from its columns direction, eth_src and eth_dst.

    The capture's own word comes first, then the MACs of the capturing host. A director whose own
    MACs are not known is any of the directors.
    """
    own = list(topology.vantage_macs[index])
    if not own and topology.roles[index].role == "director":
        own = [mac for host in topology.hosts if host.role == "director" for mac in host.macs]
    direction = pl.col("direction").cast(pl.String)
    return (
        pl.when(direction.is_in(["in", "out"]))
        .then(direction)
        .when(pl.col("eth_src").is_in(own))
        .then(pl.lit("out"))
        .when(pl.col("eth_dst").is_in(own))
        .then(pl.lit("in"))
        .otherwise(pl.lit("at"))
        .cast(PLACES)
    )
