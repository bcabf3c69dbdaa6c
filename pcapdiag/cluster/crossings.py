"""ICMP errors as messages, each with every sight of it, at one vantage and over all of them.

A message is one emitted packet. On its way it keeps type, code, MTU, IP ID and what it quotes;
LVS-NAT changes its destination and the quoted server (or, towards the client, its source), which
the connection it is about makes up for. Two errors about two retransmissions quote different IP
IDs and are two messages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag.cluster.joined.places import place
from pcapdiag.cluster.joined.quotes import about
from pcapdiag.schema import VERDICTS, conform, empty

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcapdiag.cluster.clock import Clocks
    from pcapdiag.cluster.connections import Connections
    from pcapdiag.cluster.topology import Topology
    from pcapdiag.flows.vantage import VantageTables

NEXT_MESSAGE_NS: Final = 10_000_000
"""Gap after which the same content with the same TTL is another message: a frame captured twice
follows within microseconds, a retransmission draws its error after 200 ms (TCP_RTO_MIN)."""

TRANSIT_NS: Final = 1_000_000_000
"""Longest way of one message through the vantages; the smallest gap of two alike is far shorter
only where IP IDs tell them apart anyway."""

MAX_ALIKE: Final = 1 << 32
"""More sights of one bunch than there can be rows: keeps the numbers of bunches apart."""

_SEED: Final = 0x2D7

_QUOTED: Final = (
    "quoted_proto",
    "quoted_src_hi",
    "quoted_src_lo",
    "quoted_src_port",
    "quoted_dst_hi",
    "quoted_dst_lo",
    "quoted_dst_port",
)


@dataclass(frozen=True)
class ErrorCrossings:
    """messages: schema ERROR_MESSAGES. sightings: schema ERROR_SIGHTINGS."""

    messages: pl.DataFrame
    sightings: pl.DataFrame


def errors(
    vantages: Sequence[VantageTables],
    topology: Topology,
    connections: Connections,
    clocks: Clocks,
) -> ErrorCrossings:
    """Return each ICMP error of all vantages once, with its sightings."""
    seen = _seen(vantages, topology, clocks)
    if seen.is_empty():
        return ErrorCrossings(empty("error_messages"), empty("error_sightings"))
    seen = about(seen, topology, connections, clocks)
    seen = _numbered(_keyed(seen), clocks)
    sightings = seen.select(
        "message",
        "vantage",
        "row",
        "capture",
        "frame",
        "time_ns",
        "place",
        "eth_src",
        "eth_dst",
        "translated",
        pl.col("tunnel").is_not_null().alias("tunnelled"),
        "ttl",
    )
    return ErrorCrossings(_messages(seen), conform(sightings, "error_sightings"))


def _seen(vantages: Sequence[VantageTables], topology: Topology, clocks: Clocks) -> pl.DataFrame:
    """Return the errors of all vantages with vantage, place and their time on the common clock."""
    parts = []
    for index, vantage in enumerate(vantages):
        parts.append(
            vantage.icmp_errors.select(
                pl.lit(index, pl.UInt16).alias("vantage"),
                pl.all(),
                clocks.common_time(index).alias("common_ns"),
                pl.lit(clocks.offset_ns[index] is not None).alias("aligned"),
                place(topology, index).alias("place"),
            )
        )
    return pl.concat(parts)


def _keyed(seen: pl.DataFrame) -> pl.DataFrame:
    """Add `key`: equal for all sights of what may be one message."""
    inbound = pl.col("quoted_sender") == "realserver"
    known = pl.col("connection").is_not_null()
    quoted_id = pl.when(pl.col("quoted_ip_id") != 0).then("quoted_ip_id")

    def kept(name: str, unchanged: pl.Expr) -> pl.Expr:
        # Translation changes one end of the error and one of the quote: the other stays.
        return pl.when(unchanged | ~known).then(name).alias(name)

    kept_whole: list[str | pl.Expr] = [
        "ip_version",
        "icmp_type",
        "icmp_code",
        "next_hop_mtu",
        "gateway_hi",
        "gateway_lo",
        "icmp_len",
        pl.when(pl.col("ip_id") != 0).then("ip_id").alias("ip_id"),
        "quoted_ip_len",
        "quoted_ip_id",
        "connection",
        "quoted_sender",
        kept("src_hi", inbound),
        kept("src_lo", inbound),
        kept("dst_hi", ~inbound),
        kept("dst_lo", ~inbound),
        *(pl.when(~known).then(name).alias(name) for name in _QUOTED),
    ]
    # A capture may have cut the quote before the sequence number: then it is the only one that
    # others saw. Behind that comes a checksum, which only a quote without either needs.
    marked = seen.with_columns(pl.struct(kept_whole).hash(_SEED).alias("whole"))
    numbers = pl.col("quoted_tcp_seq").drop_nulls()
    only = pl.when((numbers.n_unique() == 1).over("whole")).then(numbers.first().over("whole"))
    total = pl.when(quoted_id.is_null() & pl.col("quoted_tcp_seq").is_null())
    return marked.with_columns(
        pl.struct(
            "whole",
            pl.coalesce("quoted_tcp_seq", only),
            pl.when(only.is_null()).then(total.then("quoted_transport_checksum")).alias("sum"),
        )
        .hash(_SEED)
        .alias("key")
    ).drop("whole")


def _numbered(seen: pl.DataFrame, clocks: Clocks) -> pl.DataFrame:
    """Add `message`. What one vantage saw again with a TTL no lower, later, is another message.

    Across vantages the n-th at one is the n-th at the other where they saw equally many; where
    not, only those whose times on the common clock name exactly one partner are joined.
    """
    ordered = seen.sort("key", "vantage", "time_ns", "ttl", descending=[False, False, False, True])
    new = (
        (pl.col("key") != pl.col("key").shift(1))
        | (pl.col("vantage") != pl.col("vantage").shift(1))
    ).fill_null(True)
    gap = pl.col("time_ns") - pl.col("time_ns").shift(1)
    # What nothing names is another message at once, unless it is the same frame to the last bit.
    nameless = (
        (pl.col("ip_id").fill_null(0) == 0)
        & (pl.col("quoted_ip_id").fill_null(0) == 0)
        & pl.col("quoted_tcp_seq").is_null()
        & pl.col("copy_of").is_null()
    )
    apart = (gap >= NEXT_MESSAGE_NS) | nameless
    again = (
        new
        | gap.is_null()
        | (gap > TRANSIT_NS)
        | ((pl.col("ttl") >= pl.col("ttl").shift(1)) & apart)
    )
    runs = ordered.with_columns(new.cum_sum().alias("run"), again.cum_sum().alias("nth"))
    counts = runs.group_by("run").agg(
        pl.col("key").first(),
        pl.col("nth").min().alias("before"),
        (pl.col("nth").max() - pl.col("nth").min()).alias("times"),
    )
    uneven = counts.group_by("key").agg((pl.col("times").n_unique() > 1).alias("uneven"))
    counted = runs.join(
        counts.join(uneven, on="key").select("run", "before", "uneven"), on="run"
    ).with_columns((pl.col("nth") - pl.col("before")).cast(pl.Int64).alias("part"))
    firm = counted.filter(~pl.col("uneven"))
    loose = _bunched(counted.filter("uneven"), clocks)
    both = pl.concat([firm, loose])
    begins = both.group_by("key", "part").agg(
        pl.col("common_ns").min().alias("begin"),
        pl.struct("vantage", "row").min().alias("first"),
    )
    numbered = begins.sort("begin", "first").with_row_index("message")
    return both.join(numbered.drop("first"), on=["key", "part"]).sort(
        "message", "common_ns", "vantage", "row"
    )


def _bunched(sights: pl.DataFrame, clocks: Clocks) -> pl.DataFrame:
    """Give sights of equal content, that vantages saw unequally often, a `part` by their times.

    A pause on the common clock begins another message. Where a vantage is not on it, or saw two
    within one bunch, nothing is joined across vantages.
    """
    error = sum(item or 0 for item in clocks.error_ns)
    pause = pl.col("common_ns") - pl.col("common_ns").shift(1).over("key")
    bunched = sights.sort("key", "common_ns").with_columns(
        (pause.fill_null(0) > NEXT_MESSAGE_NS + error).cum_sum().over("key").alias("bunch")
    )
    each = pl.struct("vantage", "part")
    sure = (
        bunched.group_by("key", "bunch")
        .agg(
            pl.col("aligned").all().alias("aligned_all"),
            (each.n_unique() == pl.col("vantage").n_unique()).alias("single"),
        )
        .select("key", "bunch", (pl.col("aligned_all") & pl.col("single")).alias("sure"))
    )
    apart = each.rank("dense").over("key", "bunch").cast(pl.Int64)
    part = pl.col("bunch").cast(pl.Int64) * MAX_ALIKE + pl.when("sure").then(0).otherwise(apart)
    return (
        bunched.join(sure, on=["key", "bunch"])
        .with_columns(part.alias("part"))
        .select(sights.columns)
    )


def _messages(seen: pl.DataFrame) -> pl.DataFrame:
    """Return one row a message, as its first sight (the highest TTL) shows it."""
    checksum = pl.col("icmp_checksum").cast(pl.String)
    verdict = (
        pl.when((checksum == "bad").any())
        .then(pl.lit("bad"))
        .when((checksum == "ok").any())
        .then(pl.lit("ok"))
        .otherwise(pl.lit("unverifiable"))
    )
    first = seen.sort(
        "message", "translated", "ttl", "common_ns", descending=[False, False, True, False]
    )
    names = (
        "ip_version",
        "icmp_type",
        "icmp_code",
        "next_hop_mtu",
        "gateway_hi",
        "gateway_lo",
        "src_hi",
        "src_lo",
        "dst_hi",
        "dst_lo",
        "quoted_proto",
        "quoted_ip_len",
        "quoted_ip_id",
        "connection",
        "quoted_sender",
    )
    table = (
        first.group_by("message", maintain_order=True)
        .agg(
            *(pl.col(name).first() for name in names),
            pl.col("quoted_tcp_seq").drop_nulls().first(),
            pl.col("quoted_len").max(),
            verdict.alias("icmp_checksum"),
            pl.col("common_ns").min().alias("first_ns"),
        )
        .with_columns(pl.col("icmp_checksum").cast(VERDICTS))
        .sort("message")
    )
    return conform(table, "error_messages")
