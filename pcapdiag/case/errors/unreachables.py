"""ICMP "unreachable" about packets of known connections: what it says, and whose card sent it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag.case import sights
from pcapdiag.protocols import (
    ICMPV6_PROHIBITED_CODE,
    PROHIBITED_CODES,
    IcmpType,
    Icmpv6Type,
    IpProto,
    TcpFlag,
)

if TYPE_CHECKING:
    from pcapdiag.case.case import Case

_V4: Final = (pl.col("ip_version") == 4) & (pl.col("icmp_type") == int(IcmpType.UNREACHABLE))
_V6: Final = (pl.col("ip_version") == 6) & (pl.col("icmp_type") == int(Icmpv6Type.UNREACHABLE))
_CODE: Final = pl.col("icmp_code")

SAYS: Final = (
    pl.when(_V4 & (_CODE == 3) | _V6 & (_CODE == 4))
    .then(pl.lit("port"))
    .when(_V4 & _CODE.is_in(sorted(PROHIBITED_CODES)) | _V6 & (_CODE == ICMPV6_PROHIBITED_CODE))
    .then(pl.lit("prohibited"))
    .when(_V4 & _CODE.is_in([0, 1, 6, 7]) | _V6 & _CODE.is_in([0, 3]))
    .then(pl.lit("host"))
)
"""What is unreachable: the port, by order of a firewall, the host (or the way to it). Null: other,
fragmentation needed among them."""


def frame(case: Case) -> pl.DataFrame:
    """Return one row per message about a TCP or UDP packet of a known connection.

    Columns: those of ERROR_MESSAGES and of sights.with_first; says (port | prohibited | host);
    emitter, emitter_by, emitter_mac, emitter_host (sights.emitters, but see _corrected);
    answered_row (the quoted packet at the vantage that saw the message; null: not seen there);
    quoted_syn (it asks for a connection; null: UDP, or no flags are quoted); about_tunnel (it
    quotes the packet inside a tunnel, so that it is the tunnel's end that refuses); service_name,
    method, vip_hi, vip_lo, vip_port.
    """
    messages = case.errors.messages.filter(
        SAYS.is_not_null(),
        pl.col("quoted_proto").is_in([int(IpProto.TCP), int(IpProto.UDP)]),
        pl.col("connection").is_not_null(),
    ).with_columns(SAYS.alias("says"))
    named = case.members.select(
        "connection", "service_name", "method", "vip_hi", "vip_lo", "vip_port"
    )
    answered = pl.concat(
        [
            vantage.icmp_errors.select(
                pl.lit(vantage.index, dtype=pl.UInt16).alias("seen_vantage"),
                pl.col("row").alias("seen_row"),
                pl.col("quoted_row").alias("answered_row"),
                pl.col("quoted_tunnel").is_not_null().alias("about_tunnel"),
            )
            for vantage in case.vantages
        ]
    )
    return (
        _corrected(
            case,
            sights.with_first(case, messages).join(
                sights.emitters(case, messages), on="message", how="left", maintain_order="left"
            ),
        )
        .join(answered, on=["seen_vantage", "seen_row"], how="left", maintain_order="left")
        .join(named, on="connection", how="left", maintain_order="left")
        .join(_first_numbers(case, messages), on="connection", how="left", maintain_order="left")
        .with_columns(
            pl.when(pl.col("quoted_proto") == int(IpProto.TCP))
            .then(
                pl.coalesce(
                    (pl.col("quoted_tcp_flags") & int(TcpFlag.SYN | TcpFlag.ACK))
                    == int(TcpFlag.SYN),
                    pl.col("quoted_tcp_seq") == pl.col("client_isn"),
                )
            )
            .alias("quoted_syn")
        )
        .drop("client_isn")
    )


def tunnels_cut(case: Case) -> int:
    """Return how many errors the ends of tunnels sent that do not say, as captured, about whom."""
    ends = {
        rip
        for service in case.topology.services
        if service.method == "tun"
        for rip in service.realservers
    }
    schema = {"src_hi": pl.UInt64, "src_lo": pl.UInt64}
    return (
        case.errors.messages.filter(
            SAYS == "port",
            pl.col("connection").is_null(),
            pl.col("icmp_checksum") == "unverifiable",
        )
        .join(pl.DataFrame(sorted(ends), schema=schema, orient="row"), on=list(schema), how="semi")
        .height
    )


def _corrected(case: Case, rows: pl.DataFrame) -> pl.DataFrame:
    """Name the director where it says that a realserver's host is unreachable.

    It says so about the packet as it would have left, with a TTL lower by one, from its own
    address (in NAT from the VIP): the quoted TTL alone would point at the realserver.
    """
    owners = rows.select("seen_eth_src").unique().drop_nulls()
    macs = [mac for mac in owners["seen_eth_src"] if case.role_of_mac(mac) == "director"]
    addresses = pl.DataFrame(
        sorted(case.topology.director_addresses),
        schema={"src_hi": pl.UInt64, "src_lo": pl.UInt64},
        orient="row",
    ).with_columns(pl.lit(value=True).alias("own"))
    by_mac = pl.col("seen_eth_src").is_in(macs).fill_null(value=False)
    said = (pl.col("says") == "host") & (by_mac | pl.col("own").fill_null(value=False))
    hosts = {mac: case.host_of_mac(mac) for mac in macs}
    named = pl.DataFrame(
        {"seen_eth_src": list(hosts), "mac_host": list(hosts.values())},
        schema={"seen_eth_src": pl.UInt64, "mac_host": pl.String},
    )
    return (
        rows.join(addresses, on=["src_hi", "src_lo"], how="left", maintain_order="left")
        .join(named, on="seen_eth_src", how="left", maintain_order="left")
        .with_columns(
            pl.when(said).then(pl.lit("director")).otherwise("emitter").alias("emitter"),
            pl.when(said & by_mac)
            .then(pl.lit("mac"))
            .when(said)
            .then(pl.lit("address"))
            .otherwise("emitter_by")
            .alias("emitter_by"),
            pl.when(said).then("mac_host").otherwise("emitter_host").alias("emitter_host"),
            pl.when(said & by_mac)
            .then("seen_eth_src")
            .otherwise("emitter_mac")
            .alias("emitter_mac"),
        )
        .drop("own", "mac_host")
    )


def _first_numbers(case: Case, messages: pl.DataFrame) -> pl.DataFrame:
    """Return per connection the sequence number of the client's SYN, where it was seen."""
    parts = [
        vantage.flows.lazy()
        .filter("orig_syn")
        .join(
            case.connections.legs.lazy()
            .filter(pl.col("vantage") == vantage.index)
            .join(messages.lazy().select("connection"), on="connection", how="semi")
            .select("flow", "connection"),
            on="flow",
        )
        .select("connection", pl.col("orig_seq_first").alias("client_isn"))
        for vantage in case.vantages
    ]
    return pl.concat(pl.collect_all(parts)).unique("connection", keep="first", maintain_order=True)
