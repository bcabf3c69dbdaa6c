"""LVS-TUN: what fits between director and realservers, and what clients are told they may send.

How large a client's segments are is decided by the MSS in the realserver's SYN-ACK, which does not
pass the director (RFC 9293 section 3.7.1; ip_vs_xmit.c puts the tunnel header on afterwards).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag import spool
from pcapdiag.case import sides
from pcapdiag.case.sides import TCP_IP_HEADERS
from pcapdiag.kernel import encapsulations
from pcapdiag.kernel.tcp_sender import MIN_PMTU
from pcapdiag.protocols import TcpFlag

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pcapdiag.case.case import Case
    from pcapdiag.flows.vantage import VantageTables

LARGEST_FRAME: Final = 9216
"""Larger outer packets were never on a wire (jumbo frames): segmentation offload shows them."""

_SEEN: Final = {
    "service_name": pl.String,
    "overhead": pl.UInt16,
    "largest_outer": pl.UInt32,
    "tunnel_row": pl.UInt32,
    "tunnel_vantage": pl.UInt16,
}


def rooms(case: Case) -> pl.DataFrame:
    """Return one row per LVS-TUN service for TCP.

    Columns: service_name, encapsulation, overhead (bytes that its tunnel adds: as seen, else as
    the encapsulation says), largest_outer (IP length of the largest tunnel packet that was seen,
    offload artefacts left out; null: none), tunnel_vantage and tunnel_row (that packet), told_mtu
    (least MTU for inner packets that an ICMP message named; null: none), told (how many did).
    """
    listed = list(_services(case))
    parts = [pl.DataFrame(schema=_SEEN)]
    for vantage in case.vantages:
        if listed and vantage.tunnels.height:
            parts += _seen(case, vantage)
    seen = (
        pl.concat(parts)
        .sort("largest_outer", "tunnel_vantage", "tunnel_row", descending=[True, False, False])
        .group_by("service_name", maintain_order=True)
        .agg(
            pl.col("overhead").max(),
            pl.col("largest_outer", "tunnel_vantage", "tunnel_row").first(),
        )
    )
    services = pl.DataFrame(
        listed,
        schema={
            "service_name": pl.String,
            "encapsulation": pl.String,
            "usual_overhead": pl.Int64,
        },
        orient="row",
    )
    told = case.told_tunnel_clients.group_by("service_name").agg(
        pl.col("next_hop_mtu").min().alias("told_mtu"), pl.len().alias("told")
    )
    return (
        services.join(seen, on="service_name", how="left", maintain_order="left")
        .join(told, on="service_name", how="left", maintain_order="left")
        .with_columns(
            pl.coalesce(pl.col("overhead").cast(pl.Int64), "usual_overhead").alias("overhead"),
            pl.col("told").fill_null(0),
        )
        .drop("usual_overhead")
    )


def loads(case: Case) -> pl.DataFrame:
    """Return one row per connection of an LVS-TUN service.

    Columns: connection, service_name, realserver_name, ip_version, mss (of the SYN-ACK, the least
    that was seen of it; null: not seen), allowed (IP length that it lets the client send), largest
    (IP length of the client's largest packet on the wire; null: none seen, or merged on receipt
    into something larger than Ethernet carries while no MSS tells how large the parts were).
    """
    names = [row[0] for row in _services(case)]
    tunnelled = case.members.filter(
        pl.col("method").cast(pl.String) == "tun", pl.col("service_name").is_in(names)
    ).select("connection", "service_name", "realserver_name")
    headers = pl.col("ip_version").replace_strict(TCP_IP_HEADERS, default=60, return_dtype=pl.Int64)
    return (
        sides.of(case, tunnelled["connection"])
        .filter(pl.col("sender") == "client")
        .join(tunnelled.lazy(), on="connection")
        .group_by("connection")
        .agg(
            *(pl.col(name).first() for name in ("service_name", "realserver_name", "ip_version")),
            pl.col("peer_mss").min().alias("mss"),
            pl.col("wire_max_ip_len").max().alias("largest"),
        )
        .with_columns((pl.col("mss").cast(pl.Int64) + headers).alias("allowed"))
        .with_columns(
            pl.when(pl.col("allowed").is_not_null())
            .then(pl.min_horizontal("largest", "allowed"))
            .when(pl.col("largest") <= encapsulations.ETHERNET_MTU)
            .then("largest")
            .alias("largest")
        )
        .sort("connection")
        .collect()
    )


def told_clients(case: Case) -> pl.DataFrame:
    """Return the too-big messages about packets that clients sent to LVS-TUN services.

    Columns: those of ptb.with_fate and service_name. Left out are MTUs that no sender takes as they
    stand: not below the packet, or below what Linux believes.
    """
    names = case.members.select("connection", "service_name", "method")
    return (
        case.too_big.filter(
            pl.col("quoted_sender").cast(pl.String) == "client",
            pl.col("next_hop_mtu") >= MIN_PMTU,
            pl.col("next_hop_mtu") < pl.col("quoted_ip_len"),
        )
        .join(names, on="connection", maintain_order="left")
        .filter(pl.col("method").cast(pl.String) == "tun")
    )


def announcements(case: Case, connections: pl.Series) -> pl.DataFrame:
    """Return where the SYN-ACKs of some connections were seen: connection, vantage, row, mss.

    One sight a connection, the one with the least MSS: what the client was told at last.
    """
    parts = [
        pl.DataFrame(
            schema={
                "connection": pl.UInt32,
                "vantage": pl.UInt16,
                "row": pl.UInt32,
                "mss": pl.UInt16,
            }
        )
    ]
    both = int(TcpFlag.SYN | TcpFlag.ACK)
    for vantage in case.vantages:
        legs = case.connections.legs.filter(
            pl.col("vantage") == vantage.index, pl.col("connection").is_in(connections.implode())
        )
        if legs.is_empty():
            continue
        parts.append(
            vantage.packets_of(legs["flow"], row=True)
            .filter(pl.col("tcp_flags") & both == both, pl.col("tcp_mss").is_not_null())
            .join(legs.lazy().select("flow", "connection"), on="flow")
            .select(
                "connection",
                pl.lit(vantage.index, dtype=pl.UInt16).alias("vantage"),
                "row",
                pl.col("tcp_mss").alias("mss"),
            )
            .collect()
        )
    return (
        pl.concat(parts)
        .sort("connection", "mss", "vantage", "row")
        .unique("connection", keep="first", maintain_order=True)
    )


def largest(case: Case, connections: pl.Series) -> pl.DataFrame:
    """Return the largest packet that each client sent: connection, vantage, row, ip_len."""
    parts = [
        pl.DataFrame(
            schema={
                "connection": pl.UInt32,
                "vantage": pl.UInt16,
                "row": pl.UInt32,
                "ip_len": pl.UInt32,
            }
        )
    ]
    for vantage in case.vantages:
        flows = (
            sides.of(case, connections)
            .filter(pl.col("vantage") == vantage.index, pl.col("sender") == "client")
            .select("flow", "by_orig", "connection")
            .collect()
        )
        if flows.height:
            parts.append(
                vantage.packets_of(flows["flow"], row=True)
                .join(flows.lazy(), on=["flow", "by_orig"])
                .select(
                    "connection",
                    pl.lit(vantage.index, dtype=pl.UInt16).alias("vantage"),
                    "row",
                    "ip_len",
                )
                .collect()
            )
    return (
        pl.concat(parts)
        .sort("connection", "ip_len", "vantage", "row", descending=[False, True, False, False])
        .unique("connection", keep="first", maintain_order=True)
    )


def _services(case: Case) -> Iterator[tuple[str, str | None, int]]:
    """Yield name, encapsulation and usual overhead of the LVS-TUN services."""
    for name, service in zip(case.service_names, case.topology.services, strict=True):
        if service.method == "tun" and name in case.tcp_service_names:
            six = service.vip is not None and service.vip[0] != 0
            yield (
                name,
                service.encapsulation,
                encapsulations.lvs_overhead(service.encapsulation, 6 if six else 4),
            )


def _seen(case: Case, vantage: VantageTables) -> Iterator[pl.DataFrame]:
    """Yield what tunnels packets of connections were seen in at a vantage, a row a service.

    A frame tells of some of the packets.
    """
    legs = case.connections.legs.filter(pl.col("vantage") == vantage.index)
    names = case.members.select("connection", "service_name")
    flows = legs.select("flow", "connection").join(names, on="connection")
    flows = flows.unique("flow")
    largest = pl.col("outer_ip_len") == pl.col("outer_ip_len").max()
    for wrapped in spool.frames(vantage.tunnels, "row", "overhead", "outer_ip_len"):
        yield (
            wrapped.hstack(spool.at(vantage.packets, wrapped["row"], "flow"))
            .filter(pl.col("outer_ip_len") <= LARGEST_FRAME)
            .join(flows, on="flow")
            .group_by("service_name")
            .agg(
                pl.col("overhead").max(),
                pl.col("outer_ip_len").max().alias("largest_outer"),
                pl.col("row").filter(largest).min().alias("tunnel_row"),
                pl.lit(vantage.index, dtype=pl.UInt16).first().alias("tunnel_vantage"),
            )
        )
