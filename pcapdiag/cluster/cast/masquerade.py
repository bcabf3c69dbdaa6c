"""Connections that a translation gives another client as well: they are named, not joined.

kube-proxy in IPVS mode, or an SNAT rule behind ip_vs, rewrites both ends at once: realservers then
see the node's address and a port of its choice. A SYN keeps its sequence number, timestamps and IP
ID, so that the two halves can be told to be one; but nothing else of a connection's name is left,
and no later packet without these marks could be given to its client. So the halves stay apart, each
a connection of its own, and are said to be so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag.addresses import endpoint_text, ip_text
from pcapdiag.protocols import IpProto, TcpFlag

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcapdiag.cluster.matching.links import Links
    from pcapdiag.flows.vantage import VantageTables

ENOUGH: Final = 3
"""SYNs of one service that must agree: one alone may be alike by chance, or forged."""

MAX_NAMED: Final = 8
"""Pairs of endpoints that are named in notes, busiest first."""

_OPENING: Final = int(TcpFlag.SYN | TcpFlag.ACK)
_MARKS: Final = ("tcp_seq", "ip_id", "tcp_tsval", "tcp_mss", "tcp_wscale", "payload_len")
_FRONT: Final = ("resp_hi", "resp_lo", "resp_port", "orig_hi_away", "orig_lo_away")
_ENDS: Final = ("orig_hi", "orig_lo", "orig_port", "resp_hi", "resp_lo", "resp_port")


def notes(vantages: Sequence[VantageTables], links: Links) -> list[str]:
    """Return a sentence for each service whose packets continue with both ends rewritten."""
    found = pairs(vantages, links)
    named = [
        f"{row['syns']} connections to"
        f" {endpoint_text(row['resp_hi'], row['resp_lo'], row['resp_port'])} go on from"
        f" {ip_text(row['orig_hi_away'], row['orig_lo_away'])} to"
        f" {endpoint_text(row['resp_hi_away'], row['resp_lo_away'], row['resp_port_away'])}:"
        " both ends are rewritten (masquerading), so the two halves of each are not joined"
        for row in found.head(MAX_NAMED).iter_rows(named=True)
    ]
    more = found.height - len(named)
    return named + ([f"both ends are rewritten between {more} more endpoints"] if more > 0 else [])


def pairs(vantages: Sequence[VantageTables], links: Links) -> pl.DataFrame:
    """Return server endpoints (resp_*), and what their SYNs become (orig_*_away, resp_*_away).

    `syns` counts them. The half with the higher TTL was there first. A SYN that is alike with
    several others tells nothing.
    """
    syns = pl.concat(
        [
            vantage.packets.lazy()
            .filter(
                (pl.col("ip_proto") == int(IpProto.TCP))
                & ((pl.col("tcp_flags") & _OPENING) == int(TcpFlag.SYN))
                & pl.col("flow").is_not_null()
                & (pl.col("tcp_tsval").is_not_null() | (pl.col("ip_id") != 0))
            )
            .select(pl.lit(index, pl.UInt16).alias("vantage"), "flow", "ttl", *_MARKS)
            for index, vantage in enumerate(vantages)
        ]
    )
    nodes = links.nodes.lazy().select("vantage", "flow", "node", *_ENDS)
    groups = pl.LazyFrame({"node": links.nodes["node"], "group": pl.Series(links.group)})
    halves = (
        syns.join(nodes, on=["vantage", "flow"])
        .join(groups, on="node")
        .group_by("group", *_MARKS, *_ENDS)
        .agg(pl.col("ttl").max())
        .filter(pl.len().over(_MARKS) == 2)
    )
    other_ends = (pl.col("orig_lo") != pl.col("orig_lo_away")) & (
        pl.col("resp_lo") != pl.col("resp_lo_away")
    )
    return (
        halves.join(halves, on=_MARKS, suffix="_away", nulls_equal=True)
        .filter((pl.col("group") != pl.col("group_away")) & other_ends)
        .filter(pl.col("ttl") > pl.col("ttl_away"))
        .group_by(*_FRONT, "resp_hi_away", "resp_lo_away", "resp_port_away")
        .agg(pl.len().alias("syns"))
        .filter(pl.col("syns").sum().over(_FRONT) >= ENOUGH)
        .sort("syns", pl.all().exclude("syns"), descending=True)
        .collect()
    )
