"""Which flows carry the same packets: across vantages, and across the director's translation.

Two flows are linked where they share a packet (identity.py), never because they are close in time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag.cluster.matching import identity
from pcapdiag.flows import five_tuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from pcapdiag.flows.vantage import VantageTables

_SERVER: Final = ("resp_hi", "resp_lo", "resp_port")

_TRANSLATION: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "vantages": pl.List(pl.UInt16),
    "packets": pl.UInt32,
    "connections": pl.UInt32,
    "ip_proto": pl.UInt8,
    "front_hi": pl.UInt64,
    "front_lo": pl.UInt64,
    "front_port": pl.UInt16,
    "back_hi": pl.UInt64,
    "back_lo": pl.UInt64,
    "back_port": pl.UInt16,
}

AT_ONE_TIME_NS: Final = 1_000_000_000
"""No host holds a packet for longer than a second before it passes it on."""


@dataclass(frozen=True)
class Links:
    """What the packets say belongs together.

    nodes: identity.nodes.
    group: per node the lowest node of its group; flows of one group share packets, directly or
        through others, with addresses unchanged or translated.
    translations: server endpoints that stand for each other behind the same client endpoints:
        ip_proto, front_hi, front_lo, front_port, back_hi, back_lo, back_port, vantages (list of
        UInt16: those that saw both), packets, connections.
    refused: number of keys or pairs that could have been joined in more than one way.
    """

    nodes: pl.DataFrame
    group: NDArray[np.uint32]
    translations: pl.DataFrame
    refused: int


def find(vantages: Sequence[VantageTables]) -> Links:
    """Return the links between the flows of all vantages."""
    nodes = identity.nodes(vantages)
    shared = _shared_tuples(nodes)
    changed = _several_servers(nodes)
    wanted = pl.concat([shared, changed]).unique()
    if wanted.is_empty():
        alone = nodes.get_column("node").to_numpy()
        return Links(nodes, alone, pl.DataFrame(schema=_TRANSLATION), 0)
    # Openings first: they are few, and one shared SYN is proof enough.
    openings = _sights(vantages, nodes, wanted, opening=True)
    rest = _unsettled(nodes, shared, changed, openings)
    sights = pl.concat(
        [openings.join(rest, on="node", how="anti"), _sights(vantages, nodes, rest, opening=False)]
    )
    direct, refused = _direct_edges(sights.join(shared, on="node", how="semi"))
    between = sights.join(changed, on="node", how="semi")
    translated, translations, unclear = _translated_edges(between, nodes)
    edges = pl.concat([direct, translated])
    group = identity.components(
        len(nodes), edges.get_column("a").to_numpy(), edges.get_column("b").to_numpy()
    )
    return Links(nodes, group, translations, refused + unclear)


def _unsettled(
    nodes: pl.DataFrame, shared: pl.DataFrame, changed: pl.DataFrame, openings: pl.DataFrame
) -> pl.DataFrame:
    """Return the nodes whose openings do not tell all that belongs to them.

    With each comes every node of its client endpoint: one of them may be its other half.
    """
    direct, _ = _direct_edges(openings.join(shared, on="node", how="semi"))
    joined = pl.concat([direct.get_column("a"), direct.get_column("b")]).unique()
    turned = (
        openings.join(changed, on="node", how="semi")
        .join(nodes.select("node", "server"), on="node")
        .filter(pl.col("server").n_unique().over("translated") > 1)
        .get_column("node")
        .unique()
    )
    alone = pl.concat(
        [
            shared.filter(~pl.col("node").is_in(joined.implode())),
            changed.filter(~pl.col("node").is_in(turned.implode())),
        ]
    )
    ends = nodes.join(alone, on="node", how="semi").select("client", "server")
    both = pl.concat([ends.get_column("client"), ends.get_column("server")]).unique().implode()
    near = pl.col("client").is_in(both) | pl.col("server").is_in(both)
    wanted = pl.concat([shared, changed]).unique()
    return nodes.filter(near).join(wanted, on="node", how="semi").select("node")


def _shared_tuples(nodes: pl.DataFrame) -> pl.DataFrame:
    """Return the nodes whose five-tuple another vantage has, too."""
    return nodes.filter(pl.col("vantage").n_unique().over("tuple") > 1).select("node")


def _several_servers(nodes: pl.DataFrame) -> pl.DataFrame:
    """Return the nodes whose client endpoint speaks to more than one server endpoint.

    One vantage alone sees both halves of a translated connection at one time: ports that are used
    again later are left out, and with them most of a large capture.
    """
    several = nodes.filter(pl.col("server").n_unique().over("client") > 1)
    first, last = pl.col("first_ns") - AT_ONE_TIME_NS, pl.col("last_ns")
    before = last.cum_max().shift(1).over("client")
    behind = first.shift(-1).over("client")
    apart = (
        (first > before).fill_null(True) & (behind > last).fill_null(True)
    ) & first.is_not_null()
    elsewhere = pl.col("vantage").n_unique().over("client") > 1
    return several.sort("client", "first_ns").filter(elsewhere | ~apart).select("node").sort("node")


def _sights(
    vantages: Sequence[VantageTables],
    nodes: pl.DataFrame,
    wanted: pl.DataFrame,
    *,
    opening: bool,
) -> pl.DataFrame:
    """Return identity.marks of the wanted nodes of all vantages, with vantage."""
    some = nodes.join(wanted, on="node", how="semi").select("vantage", "flow", "node")
    parts = [
        identity.marks(
            vantage, some.filter(pl.col("vantage") == index), opening=opening
        ).with_columns(pl.lit(index, pl.UInt16).alias("vantage"))
        for index, vantage in enumerate(vantages)
    ]
    return pl.concat(parts)


def _direct_edges(sights: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Return edges (a, b) between nodes that share a packet, and how many keys were ambiguous.

    A key that two flows of one vantage have could belong to either: it joins nothing.
    """
    groups = (
        _repeated(sights, "direct")
        .lazy()
        .select("direct", "node", "vantage")
        .unique()
        .group_by("direct")
        .agg(
            pl.len().alias("nodes"),
            pl.col("vantage").n_unique().alias("vantages"),
            pl.col("node"),
        )
        .filter(pl.col("vantages") > 1)
        .collect()
    )
    clear = groups.filter(pl.col("nodes") == pl.col("vantages"))
    return _edges(clear), len(groups) - len(clear)


def _repeated(sights: pl.DataFrame, key: str) -> pl.DataFrame:
    """Return the sights whose key another has, too: of captures that share little, few."""
    rows, _ = five_tuple.repeated(sights.get_column(key).to_numpy())
    return sights[rows]


def _edges(groups: pl.DataFrame) -> pl.DataFrame:
    """Return each node of the list column `node` joined to the lowest of its list, once."""
    return (
        groups.select(pl.col("node").list.min().alias("a"), pl.col("node").alias("b"))
        .explode("b")
        .filter(pl.col("a") != pl.col("b"))
        .unique()
    )


def _translated_edges(
    sights: pl.DataFrame, nodes: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame, int]:
    """Return edges, translations and the number refused, see Links.

    Which of two server endpoints is the front follows from TTLs: what goes to the server was at the
    front first, what comes from it was at the back first. Where the TTL tells nothing (kernels
    before 4.10 did not count it down), the MACs of one vantage do: what arrives for the MAC that
    then sends is the front.
    """
    seen = _repeated(sights, "translated").join(
        nodes.select("node", "server", "originator_source"), on="node"
    )
    groups = (
        seen.lazy()
        .group_by("translated", "server")
        .agg(
            pl.col("node").unique(),
            pl.col("ttl").max(),
            pl.col("by_orig").first(),
            pl.col("node").n_unique().alias("nodes"),
            pl.col("vantage").n_unique().alias("vantages"),
            pl.col("vantage").unique().alias("where"),
            pl.col("eth_src").first(),
            pl.col("eth_dst").first(),
            pl.col("direction").first(),
            pl.col("originator_source").is_in(["syn", "syn-ack"]).any().alias("opened"),
        )
        .filter(pl.len().over("translated") > 1)
        .collect()
    )
    if groups.is_empty():
        return _edges(groups), pl.DataFrame(schema=_TRANSLATION), 0
    clear = groups.filter(
        (pl.col("nodes") == pl.col("vantages")).all().over("translated")
        & (pl.len().over("translated") == 2)
    )
    refused = groups.get_column("translated").n_unique() - clear.get_column("translated").n_unique()
    pairs = clear.join(clear, on="translated", suffix="_b").filter(
        pl.col("server") < pl.col("server_b")
    )
    votes = (
        pairs.with_columns(_front_vote().alias("vote"))
        .group_by("server", "server_b")
        .agg(
            pl.col("vote").sum(),
            pl.len().alias("packets"),
            pl.col("node").list.min().n_unique().alias("connections"),
            pl.col("where").list.set_intersection("where_b").explode().unique().alias("where"),
            (pl.col("opened") | pl.col("opened_b")).any().alias("opened"),
        )
    )
    decided = votes.filter(pl.col("vote") != 0)
    refused += len(votes) - len(decided)
    named = decided.select(
        pl.when(pl.col("vote") > 0).then("server").otherwise("server_b").alias("front"),
        pl.when(pl.col("vote") > 0).then("server_b").otherwise("server").alias("back"),
        pl.col("where").list.drop_nulls().list.sort().alias("vantages"),
        "packets",
        "connections",
        "opened",
    )
    # Masquerading rewrites the originator, and looks like this only where originator and responder
    # were told apart by nothing better than their ports. An opening or a second back settles it,
    # and so does another service's opening between the same two hosts.
    hosts = nodes.unique("server").select("server", pl.struct("resp_hi", "resp_lo").alias("host"))
    placed = named.join(hosts.rename({"server": "front", "host": "front_host"}), on="front").join(
        hosts.rename({"server": "back", "host": "back_host"}), on="back"
    )
    settled = pl.col("opened").any().over("front_host", "back_host")
    named = placed.filter(settled | (pl.len().over("front") > 1)).drop(
        "opened", "front_host", "back_host"
    )
    # An endpoint that is the back of one and the front of another (a translation behind the
    # translation) would chain strangers: only the outermost translation is kept.
    named = named.join(named.select("back"), left_on="front", right_on="back", how="anti")
    kept = pairs.join(
        pl.concat(
            [
                named.select(pl.col("front").alias("server"), pl.col("back").alias("server_b")),
                named.select(pl.col("back").alias("server"), pl.col("front").alias("server_b")),
            ]
        ),
        on=["server", "server_b"],
        how="semi",
    )
    edges = _edges(kept.select(pl.concat_list("node", "node_b").alias("node")))
    endpoints = nodes.unique("server").select("server", "ip_proto", *_SERVER)
    translations = (
        named.join(endpoints.rename({"server": "front"} | _renamed("front")), on="front")
        .join(endpoints.drop("ip_proto").rename({"server": "back"} | _renamed("back")), on="back")
        .drop("front", "back")
        .sort("ip_proto", "front_hi", "front_lo", "front_port", "back_hi", "back_lo", "back_port")
    )
    return edges, translations, refused


def _renamed(side: str) -> dict[str, str]:
    return {name: name.replace("resp", side) for name in _SERVER}


def _front_vote() -> pl.Expr:
    """Return +1 where a packet shows `server` as the front, -1 for `server_b`, 0 for neither."""
    first, second = pl.col("ttl").cast(pl.Int16), pl.col("ttl_b").cast(pl.Int16)
    by_ttl = (first - second).sign()
    one_place = (
        (pl.col("vantages") == 1)
        & (pl.col("vantages_b") == 1)
        & (pl.col("where") == pl.col("where_b"))
    )
    relayed = (pl.col("eth_dst") == pl.col("eth_src_b")) | (
        (pl.col("direction") == "in") & (pl.col("direction_b") == "out")
    )
    backwards = (pl.col("eth_dst_b") == pl.col("eth_src")) | (
        (pl.col("direction") == "out") & (pl.col("direction_b") == "in")
    )
    by_link = (one_place & relayed.fill_null(False)).cast(pl.Int16) - (
        one_place & backwards.fill_null(False)
    ).cast(pl.Int16)
    vote = pl.when(by_ttl != 0).then(by_ttl).otherwise(by_link)
    return pl.when("by_orig").then(vote).otherwise(-vote).fill_null(0)
