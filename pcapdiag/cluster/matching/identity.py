"""What makes a packet the same packet at another place.

Forwarding changes MACs, TTL and IP header checksum; LVS-NAT changes the server's address and port
as well. IP ID, sequence and acknowledgement numbers, flags, lengths and timestamps stay (seen on a
6.1 kernel for all three methods; ip_vs_dr_xmit, ip_vs_nat_xmit, ip_vs_tunnel_xmit). UDP has no
sequence numbers, but its checksum less the addresses and ports is a sum over the payload, which NAT
leaves alone (RFC 1624).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from pcapdiag.protocols import IpProto, TcpFlag
from pcapdiag.schema import DIRECTIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pcapdiag.flows.vantage import VantageTables

_SEED: Final = 0x1C3
"""Any constant: hashes are compared within one run only."""

_TUPLE: Final = (
    "ip_proto",
    "orig_hi",
    "orig_lo",
    "orig_port",
    "resp_hi",
    "resp_lo",
    "resp_port",
)

_MARKS: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "node": pl.UInt32,
    "row": pl.UInt32,
    "time_ns": pl.Int64,
    "ttl": pl.UInt8,
    "by_orig": pl.Boolean,
    "eth_src": pl.UInt64,
    "eth_dst": pl.UInt64,
    "direction": DIRECTIONS,
    "direct": pl.UInt64,
    "translated": pl.UInt64,
}


def nodes(vantages: Sequence[VantageTables]) -> pl.DataFrame:
    """Return the flows of all vantages, one row a flow, columns as below.

    node (UInt32, row number), vantage (UInt16), flow, ip_version, ip_proto, orig_*, resp_*,
    originator_source, first_ns, last_ns, turned (Boolean, orientation.py); `client` and `server`
    (UInt64) are hashes of protocol and endpoint of originator and responder, `tuple` one of both,
    whichever way round they stand.
    """
    parts = [
        vantage.flows.lazy().select(
            pl.lit(index, pl.UInt16).alias("vantage"),
            "flow",
            "ip_version",
            *_TUPLE,
            "originator_source",
            "first_ns",
            "last_ns",
            (pl.col("turned") if "turned" in vantage.flows.columns else pl.lit(False)).alias(
                "turned"
            ),
        )
        for index, vantage in enumerate(vantages)
    ]
    client, server = _endpoint_hash("orig"), _endpoint_hash("resp")
    return (
        pl.concat(parts)
        .filter(pl.col("orig_port").is_not_null() & pl.col("resp_port").is_not_null())
        .with_row_index("node")
        .with_columns(client.alias("client"), server.alias("server"))
        .with_columns(
            pl.struct(
                pl.min_horizontal("client", "server").alias("low"),
                pl.max_horizontal("client", "server").alias("high"),
            )
            .hash(_SEED)
            .alias("tuple")
        )
        .collect()
    )


def marks(vantage: VantageTables, flows: pl.DataFrame, *, opening: bool = False) -> pl.DataFrame:
    """Return the packets of some flows, first sights only, with what identifies them.

    `flows` has node and flow; `opening` leaves all but SYN and SYN-ACK out. Returned: node, row,
    time_ns, ttl, by_orig, eth_src, eth_dst, direction, `direct` (UInt64, equal where addresses and
    ports stayed) and `translated` (UInt64, equal where only the responder's changed). Packets with
    too few marks are left out.
    """
    if flows.is_empty():
        return pl.DataFrame(schema=_MARKS)
    rows = vantage.packets_of(flows["flow"], row=True)
    chosen = pl.col("copy_of").is_null()
    if opening:
        chosen = chosen & ((pl.col("tcp_flags") & int(TcpFlag.SYN)) != 0)
    wanted = (
        rows.filter(chosen)
        .select(
            "row",
            "flow",
            "time_ns",
            "ttl",
            "by_orig",
            "eth_src",
            "eth_dst",
            "direction",
            "ip_proto",
            pl.when(pl.col("ip_id") != 0).then("ip_id").alias("ip_id"),
            "payload_len",
            "tcp_seq",
            "tcp_ack",
            "tcp_flags",
            "tcp_tsval",
            "tcp_tsecr",
            *_ends("src"),
            *_ends("dst"),
            payload_sum().alias("payload_sum"),
        )
        .join(flows.lazy().select("flow", "node"), on="flow")
    )
    tcp = pl.col("ip_proto") == int(IpProto.TCP)
    common = (
        "ip_proto",
        "payload_len",
        "tcp_seq",
        "tcp_ack",
        "tcp_flags",
        "tcp_tsval",
        "tcp_tsecr",
    )
    # A sending host's own capture shows checksums that its NIC has yet to fill in, so a packet
    # whose addresses stayed is known by them only where it has no IP ID.
    known = pl.when(tcp | pl.col("ip_id").is_not_null()).then(None).otherwise("payload_sum")
    originator = [
        pl.when("by_orig").then(f"src_{part}").otherwise(f"dst_{part}").alias(f"orig_{part}")
        for part in ("hi", "lo", "port")
    ]
    return (
        wanted.filter(tcp | pl.col("ip_id").is_not_null() | pl.col("payload_sum").is_not_null())
        .select(
            "node",
            "row",
            "time_ns",
            "ttl",
            "by_orig",
            "eth_src",
            "eth_dst",
            "direction",
            pl.struct(*common, "ip_id", known.alias("sum"), *_ends("src"), *_ends("dst"))
            .hash(_SEED)
            .alias("direct"),
            pl.struct(
                *common,
                "ip_id",
                "by_orig",
                pl.when(~tcp).then("payload_sum").alias("sum"),
                *originator,
            )
            .hash(_SEED)
            .alias("translated"),
        )
        .collect()
    )


def components(
    count: int, left: NDArray[np.uint32], right: NDArray[np.uint32]
) -> NDArray[np.uint32]:
    """Return for each of `count` nodes the lowest node it is joined to by edges left-right.

    Labels spread along edges and are shortened at each round, so that the rounds are about the
    logarithm of the longest chain, not its length.
    """
    label = np.arange(count, dtype=np.uint32)
    while len(left):
        low = np.minimum(label[left], label[right])
        before = label.copy()
        np.minimum.at(label, label[left], low)
        np.minimum.at(label, label[right], low)
        np.minimum.at(label, left, low)
        np.minimum.at(label, right, low)
        label = label[label]
        if np.array_equal(before, label):
            break
    return label


def _ends(side: str) -> tuple[str, str, str]:
    return f"{side}_hi", f"{side}_lo", f"{side}_port"


def _endpoint_hash(side: str) -> pl.Expr:
    """Return a hash of protocol, address and port of orig or resp, equal for equal endpoints."""
    return pl.struct(
        "ip_proto",
        pl.col(f"{side}_hi").alias("hi"),
        pl.col(f"{side}_lo").alias("lo"),
        pl.col(f"{side}_port").alias("port"),
    ).hash(_SEED)


def payload_sum() -> pl.Expr:
    """Return the UDP checksum less addresses and ports, modulo 65535; null where there is none.

    2**16 is 1 modulo 65535, so an address taken modulo 65535 is the sum of its words, and the
    mapped prefix of IPv4 (0xffff) is 0.
    """
    parts = [
        pl.col(name).cast(pl.UInt64) % 65535
        for name in ("transport_checksum", *_ends("src"), *_ends("dst"))
    ]
    return pl.when(
        (pl.col("ip_proto") == int(IpProto.UDP)) & (pl.col("transport_checksum") != 0)
    ).then(pl.sum_horizontal(parts) % 65535)
