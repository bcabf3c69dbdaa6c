"""ICMP errors as their receivers find them: what they name, what they quote, where they come from.

Redirects and source quench are other questions. Messages whose checksum fails are, too: nothing in
them can be believed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag import spool
from pcapdiag.case import sides
from pcapdiag.case.errors import ptb
from pcapdiag.case.sides import TCP_IP_HEADERS
from pcapdiag.kernel import address_scope
from pcapdiag.protocols import IcmpType, Icmpv6Type, IpProto

if TYPE_CHECKING:
    from pcapdiag.case.case import Case
    from pcapdiag.flows.vantage import VantageTables

_LOOKED_AT: Final = (
    (pl.col("ip_version") == 4)
    & pl.col("icmp_type").is_in(
        [
            int(IcmpType.UNREACHABLE),
            int(IcmpType.TIME_EXCEEDED),
            int(IcmpType.PARAMETER_PROBLEM),
        ]
    )
) | ((pl.col("ip_version") == 6) & (pl.col("icmp_type") < int(Icmpv6Type.ECHO_REQUEST)))

_SIGHT: Final = (
    "quoted_version",
    "quoted_tunnel",
    "flow",
    "quoted_by_orig",
    "quoted_row",
    pl.col("src_hi").alias("sight_src_hi"),
    pl.col("src_lo").alias("sight_src_lo"),
    pl.col("dst_hi").alias("sight_dst_hi"),
    pl.col("dst_lo").alias("sight_dst_lo"),
)

_WRAPPED: Final = (int(IpProto.IPIP), int(IpProto.IPV6), int(IpProto.GRE))
"""What a quote shows of a tunnel packet where it ends before the inner header."""

_PATH: Final = ("sight_dst_hi", "sight_dst_lo", "quoted_dst_hi", "quoted_dst_lo")
"""Who is told about the way to whom: what a path MTU is kept for."""


def frame(case: Case) -> pl.DataFrame:
    """Return one row per ICMP error about packets of the cluster, neither checksum bad.

    Columns: those of ptb.with_fate, and service_name, realserver_name, method (of the connection;
    null: none known), quoted_version, quoted_tunnel, quoted_row, flow, quoted_by_orig and
    sight_src/dst (at seen_vantage, seen_row), is_ptb, sent_len (IP length of the packet that the
    message is about: the packet's own where it was captured, else as quoted), sender_limit (IP
    length that the MSS allows the packet's sender; null: not known), src_scope and dst_scope
    (address_scope.scope), on_wire (false: on a loopback interface), tunnel_end (the
    message is to a director about its own tunnel packet), quote_inside (a client is told of a
    realserver's address that it never heard of), behind_nat (it was seen as a realserver of LVS-NAT
    sent it: the director will give it the VIP for a source).
    """
    names = case.members.select("connection", "service_name", "realserver_name", "method")
    messages = case.errors.messages.filter(_LOOKED_AT, pl.col("icmp_checksum") != "bad")
    messages = _of_cluster(case, messages)
    rows = ptb.with_fate(case, messages).join(names, on="connection", how="left")
    rows = rows.join(_sights(case), on=["seen_vantage", "seen_row"], how="left")
    rows = rows.filter((pl.col("sight_ip_checksum") != "bad").fill_null(value=True))
    rows = rows.join(_limits(case, rows), on=["connection", "quoted_sender"], how="left")
    rows = rows.join(_inside(case, rows), on="message", how="left")
    rows = rows.join(_tunnel_ends(case), on=["quoted_dst_hi", "quoted_dst_lo"], how="left")
    rows = rows.join(_behind_nat(case), on=["sight_src_hi", "sight_src_lo"], how="left")
    return rows.with_columns(
        ptb.IS_PTB.alias("is_ptb"),
        pl.max_horizontal("quoted_ip_len", "captured_len").alias("sent_len"),
        address_scope.scope("sight_src").alias("src_scope"),
        address_scope.scope("sight_dst").alias("dst_scope"),
        (pl.col("seen_eth_src") != 0).fill_null(value=True).alias("on_wire"),
        (pl.col("quoted_proto").is_in(_WRAPPED) & pl.col("tunnel_end"))
        .fill_null(value=False)
        .alias("tunnel_end"),
        pl.col("quote_inside").fill_null(value=False),
        pl.col("behind_nat").fill_null(value=False),
    ).sort("first_ns", "message", nulls_last=True)


def aftermath(case: Case, messages: pl.DataFrame) -> pl.DataFrame:
    """Return per message of `messages` (rows of `frame`) how things went on.

    Columns: message, smaller_later (a later message of the same path names an MTU below the packet
    this one is about), progress (the peer acknowledged more than the quoted packet's first byte
    later on; null: no capture would show it).
    """
    useful = (
        case.error_forms.filter(pl.col("is_ptb"), pl.col("next_hop_mtu") > 0)
        .filter(pl.col("next_hop_mtu") < pl.col("sent_len"))
        .group_by(_PATH)
        .agg(
            pl.col("first_ns").max().alias("useful_ns"),
            pl.col("next_hop_mtu").min().alias("useful_mtu"),
        )
    )
    later = messages.join(useful, on=_PATH, how="left", nulls_equal=True).select(
        "message",
        (
            (pl.col("useful_ns") > pl.col("first_ns"))
            & (pl.col("useful_mtu") < pl.col("next_hop_mtu"))
        )
        .fill_null(value=False)
        .alias("smaller_later"),
    )
    return later.join(_progress(case, messages), on="message", how="left")


def _of_cluster(case: Case, messages: pl.DataFrame) -> pl.DataFrame:
    """Leave out what is neither about a connection of the cluster nor told to one of its hosts."""
    addresses = {service.vip for service in case.topology.services if service.vip}
    addresses |= case.topology.virtual_addresses | case.topology.director_addresses
    addresses |= {rip for service in case.topology.services for rip in service.realservers}
    own = pl.DataFrame(
        sorted(addresses), schema={"dst_hi": pl.UInt64, "dst_lo": pl.UInt64}, orient="row"
    ).with_columns(pl.lit(value=True).alias("to_cluster"))
    return (
        messages.join(own, on=["dst_hi", "dst_lo"], how="left", maintain_order="left")
        .filter(pl.col("connection").is_not_null() | pl.col("to_cluster").fill_null(value=False))
        .drop("to_cluster")
    )


def _sights(case: Case) -> pl.DataFrame:
    """Return of every sight what `messages` do not keep, and the captured packet's length."""
    parts = []
    for vantage in case.vantages:
        if vantage.index and vantage.icmp_errors.is_empty():
            continue
        rows = vantage.icmp_errors.get_column("quoted_row").drop_nulls().unique()
        lengths = rows.to_frame().hstack(
            spool.at(vantage.packets, rows, "ip_len").rename({"ip_len": "captured_len"})
        )
        parts.append(
            vantage.icmp_errors.select(
                spool.at(vantage.packets, vantage.icmp_errors["row"], "ip_checksum")
                .to_series()
                .alias("sight_ip_checksum"),
                pl.lit(vantage.index, dtype=pl.UInt16).alias("seen_vantage"),
                pl.col("row").alias("seen_row"),
                *_SIGHT,
            ).join(lengths, on="quoted_row", how="left", maintain_order="left")
        )
    return pl.concat(parts)


def _limits(case: Case, rows: pl.DataFrame) -> pl.DataFrame:
    """Return per connection of `rows` and sender the largest IP length that its peer's MSS allows.

    On the way an MSS is only ever lowered, so what the sender was told is at most this.
    """
    headers = pl.col("ip_version").replace_strict(TCP_IP_HEADERS, default=60, return_dtype=pl.Int64)
    return (
        sides.of(case, rows["connection"])
        .filter(pl.col("peer_mss").is_not_null())
        .group_by("connection", pl.col("sender").alias("quoted_sender"))
        .agg((pl.col("peer_mss").cast(pl.Int64) + headers).min().alias("sender_limit"))
        .collect()
    )


def _inside(case: Case, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the messages in which a VIP tells a client of a realserver behind NAT.

    The client knows the VIP only. (A client that answers a reply which came past the director
    speaks to the realserver indeed, and errors about that do not come from the VIP.)
    """
    translated = case.errors.sightings.filter("translated")
    if translated.is_empty():
        return pl.DataFrame(schema={"message": pl.UInt32, "quote_inside": pl.Boolean})
    vips = pl.DataFrame(
        sorted(case.topology.virtual_addresses),
        schema={"src_hi": pl.UInt64, "src_lo": pl.UInt64},
        orient="row",
    )
    from_vip = [
        vantage.icmp_errors.select("row", "src_hi", "src_lo")
        .join(vips, on=["src_hi", "src_lo"], how="semi")
        .select(pl.lit(vantage.index, dtype=pl.UInt16).alias("vantage"), "row")
        for vantage in case.vantages
    ]
    return (
        translated.join(rows.filter(pl.col("quoted_sender") == "client"), on="message", how="semi")
        .join(pl.concat(from_vip), on=["vantage", "row"], how="semi")
        .select("message", pl.lit(value=True).alias("quote_inside"))
        .unique()
    )


def _tunnel_ends(case: Case) -> pl.DataFrame:
    """Return the addresses of realservers that a director reaches through a tunnel."""
    return _realservers(case, "tun", "quoted_dst").with_columns(
        pl.lit(value=True).alias("tunnel_end")
    )


def _behind_nat(case: Case) -> pl.DataFrame:
    """Return the addresses of realservers whose packets a director translates."""
    return _realservers(case, "nat", "sight_src").with_columns(
        pl.lit(value=True).alias("behind_nat")
    )


def _realservers(case: Case, method: str, side: str) -> pl.DataFrame:
    """Return the addresses of the realservers of one method, named for a side of a message."""
    rips = {
        rip
        for service in case.topology.services
        if service.method == method
        for rip in service.realservers
    }
    schema = {f"{side}_hi": pl.UInt64, f"{side}_lo": pl.UInt64}
    return pl.DataFrame(sorted(rips), schema=schema, orient="row")


def _progress(case: Case, messages: pl.DataFrame) -> pl.DataFrame:
    """Return per message whether the quoted packet's first byte was acknowledged after it.

    One question a sender: its earliest message decides for the others, which are about the same
    bytes or later ones.
    """
    asked = messages.filter(
        pl.col("quoted_tcp_seq").is_not_null(), pl.col("connection").is_not_null()
    )
    first = (
        asked.sort("first_ns", "message")
        .group_by("connection", "quoted_sender", maintain_order=True)
        .agg(pl.col("quoted_tcp_seq").first(), pl.col("message").first().alias("first_message"))
    )
    asked_about = (
        sides.of(case, first["connection"])
        .select("vantage", "flow", "by_orig", "connection", pl.col("sender").alias("quoted_sender"))
        .collect()
        .join(first, on=["connection", "quoted_sender"])
    )
    parts = []
    for vantage in case.vantages:
        wanted = asked_about.filter(pl.col("vantage") == vantage.index)
        if wanted.is_empty():
            continue
        parts.append(_acknowledged(vantage, wanted.drop("vantage")))
    if not parts:
        return messages.select("message", pl.lit(None, pl.Boolean).alias("progress"))
    known = pl.concat(parts).group_by("connection", "quoted_sender").agg(pl.col("progress").any())
    return messages.join(known, on=["connection", "quoted_sender"], how="left").select(
        "message", "progress"
    )


def _acknowledged(vantage: VantageTables, wanted: pl.DataFrame) -> pl.DataFrame:
    """Return per sender in `wanted` whether an acknowledgement of its peer goes past the quote."""
    ahead = (pl.col("tcp_ack").cast(pl.Int64) - pl.col("quoted_tcp_seq").cast(pl.Int64)).mod(
        1 << 32
    )
    return (
        vantage.packets_of(wanted["flow"])
        .select("flow", "by_orig", "tcp_ack", "tcp_flags")
        .filter(pl.col("tcp_flags") & 0b1_0000 != 0)
        .join(
            wanted.lazy().with_columns(~pl.col("by_orig")),
            on=["flow", "by_orig"],
        )
        .group_by("connection", "quoted_sender")
        .agg(((ahead > 0) & (ahead < 1 << 31)).any().alias("progress"))
        .collect()
    )
