"""Every sight of the packets of chosen connections, with what names a packet wherever it is seen.

Within a connection addresses and ports name nothing: NAT rewrites them. What is left is IP ID,
sequence and acknowledgement numbers, flags, lengths and timestamps, and of UDP without an IP ID the
sum of its payload (identity.py). Later fragments have no ports; they belong to the first fragment
with their IP ID.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag.cluster.joined.places import place
from pcapdiag.cluster.matching.identity import payload_sum
from pcapdiag.protocols import IpProto

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcapdiag.cluster.clock import Clocks
    from pcapdiag.cluster.connections import Connections
    from pcapdiag.cluster.topology import Topology
    from pcapdiag.flows.vantage import VantageTables

REASSEMBLY_NS: Final = 30_000_000_000
"""How long a host waits for fragments (net.ipv4.ipfrag_time); later ones are another datagram's."""

_SEED: Final = 0x5E6

_DATAGRAM: Final = ("src_hi", "src_lo", "dst_hi", "dst_lo", "ip_proto", "ip_id")

_PLACE: Final = (
    "ttl",
    "eth_src",
    "eth_dst",
    "direction",
    "vlan",
    "interface",
    "capture",
    "tunnel_depth",
)

_KEPT: Final = (
    "ip_proto",
    "ip_id",
    "ip_len",
    "ip_header_len",
    "frag_offset",
    "mf",
    "payload_len",
    "tcp_seq",
    "tcp_ack",
    "tcp_flags",
    "transport_checksum",
    "src_hi",
    "src_lo",
    "src_port",
    "dst_hi",
    "dst_lo",
    "dst_port",
    *_PLACE,
)


def find(
    vantages: Sequence[VantageTables],
    topology: Topology,
    connections: Connections,
    clocks: Clocks,
    wanted: pl.DataFrame,
) -> pl.DataFrame:
    """Return the sights of the connections in the column connection, one row a sight.

    Beside columns of `packets` and `legs`: vantage (UInt16), row, first (row of the packet's first
    sight at this vantage), time_ns (on the common clock, if `aligned`), place, by_client,
    tunnelled, outer_dst_*, key (UInt64, equal for sights of one packet), named (an IP ID is in the
    key), told (something is that no retransmission would share), doubled (see schema CROSSINGS).
    """
    legs = connections.legs.join(wanted, on="connection", how="semi")
    parts = [
        _of_vantage(vantage, index, legs.filter(pl.col("vantage") == index), topology, clocks)
        for index, vantage in enumerate(vantages)
    ]
    return pl.concat(parts)


def _of_vantage(
    vantage: VantageTables, index: int, legs: pl.DataFrame, topology: Topology, clocks: Clocks
) -> pl.DataFrame:
    """Return the sights at one vantage."""
    rows = vantage.packets.lazy().with_row_index("row")
    own = rows.join(
        legs.lazy().select("flow", "connection", "kind", "client_is_orig"), on="flow"
    ).with_columns((pl.col("by_orig") == pl.col("client_is_orig")).alias("by_client"))
    outer = vantage.tunnels.lazy().select("row", "outer_dst_hi", "outer_dst_lo")
    both = pl.concat([own, _later_fragments(rows, own)], how="diagonal")
    sights = both.join(outer, on="row", how="left").select(
        pl.lit(index, pl.UInt16).alias("vantage"),
        "connection",
        "kind",
        "by_client",
        "row",
        pl.coalesce("copy_of", "row").alias("first"),
        clocks.common_time(index).alias("time_ns"),
        (pl.col("time_ns").is_not_null() & (clocks.offset_ns[index] is not None)).alias("aligned"),
        place(topology, index).alias("place"),
        "tcp_tsval",
        "tcp_tsecr",
        payload_sum().alias("sum"),
        (pl.col("tunnel_depth") > 0).alias("tunnelled"),
        "outer_dst_hi",
        "outer_dst_lo",
        *_KEPT,
    )
    tcp = pl.col("ip_proto") == int(IpProto.TCP)
    named = pl.col("ip_id").fill_null(0) != 0
    total = pl.when(tcp | named).then(None).otherwise("sum")
    key = pl.struct(
        "connection",
        "by_client",
        "ip_proto",
        pl.when(named).then("ip_id").alias("ip_id"),
        "ip_len",
        "frag_offset",
        "payload_len",
        "tcp_seq",
        "tcp_ack",
        "tcp_flags",
        "tcp_tsval",
        "tcp_tsecr",
        total.alias("sum"),
    ).hash(_SEED)
    again = pl.int_range(pl.len()).over("first", *_PLACE) > 0
    return (
        sights.sort("row")
        .with_columns(
            key.alias("key"),
            named.alias("named"),
            (named | pl.col("tcp_tsval").is_not_null()).alias("told"),
            again.alias("doubled"),
        )
        # A datagram without IP ID and checksum has nothing of its own.
        .filter(tcp | named | pl.col("sum").is_not_null())
        .drop("sum", "tcp_tsval", "tcp_tsecr")
        .collect()
    )


def _later_fragments(rows: pl.LazyFrame, own: pl.LazyFrame) -> pl.LazyFrame:
    """Return the fragments without ports whose first fragment is among `own`, with its columns."""
    firsts = (
        own.filter(pl.col("mf") & (pl.col("frag_offset") == 0))
        .select(
            *_DATAGRAM,
            "connection",
            "kind",
            "by_client",
            pl.col("time_ns").alias("first_ns"),
        )
        .unique([*_DATAGRAM, "connection"], keep="first", maintain_order=True)
    )
    near = (pl.col("time_ns") - pl.col("first_ns")).abs() <= REASSEMBLY_NS
    return (
        rows.filter(pl.col("flow").is_null() & (pl.col("frag_offset") > 0))
        .join(firsts, on=list(_DATAGRAM))
        .filter(near.fill_null(True))
        .unique("row", keep="first", maintain_order=True)
        .drop("first_ns")
    )
