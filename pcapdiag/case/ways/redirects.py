"""ICMP redirects, and whether frames took another way afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag.case import sights
from pcapdiag.protocols import IcmpType, Icmpv6Type
from pcapdiag.result import MAX_FLOWS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcapdiag.case.case import Case
    from pcapdiag.spool import Table

IS_REDIRECT = ((pl.col("ip_version") == 4) & (pl.col("icmp_type") == int(IcmpType.REDIRECT))) | (
    (pl.col("ip_version") == 6) & (pl.col("icmp_type") == int(Icmpv6Type.REDIRECT))
)

_MOVES = (
    pl.when(
        pl.col("quoted_dst_member") == "vip",
        (pl.col("gateway_member") == "realserver") | (pl.col("sender_role") == "director"),
    )
    .then(pl.lit("vip"))
    .when(
        pl.col("quoted_src_member").is_not_null(),
        pl.col("quoted_dst_member").is_null(),
        pl.col("sender_role") == "director",
    )
    .then(pl.lit("replies"))
    .otherwise(pl.lit("other"))
)
"""A redirect of any other router, about any other address, does not lead around the director."""

_PATH = ["seen_vantage", "seen_eth_src", "seen_eth_dst", "quoted_dst_hi", "quoted_dst_lo"]


def frame(case: Case) -> pl.DataFrame:
    """Return one row per redirect.

    Columns: those of ERROR_MESSAGES and sights.with_first, and
    moves (vip: a virtual address is to be reached by way of a realserver; replies: a realserver is
    to answer past the director; other), sender_role and receiver (roles of the MACs it came from
    and went to; null: unknown), frames_before and frames_after (how
    many frames the receiver sent to the redirected destination by way of the redirecting MAC
    before the first such redirect, and past it afterwards), after_vantage, after_row and after_mac
    (the first of the latter), stayed (frames that went by way of the redirecting MAC afterwards,
    or of another director's or a virtual router's, which is a failover and no obedience), after_by
    (the flows of the former, at most MAX_FLOWS), floating (the receiver's frames went to a virtual
    router's MAC before: whose redirects come from another address, and are ignored).
    """
    rows = sights.with_first(case, case.errors.messages.filter(IS_REDIRECT))
    rows = rows.join(_members(case, rows), on="message", how="left", maintain_order="left")
    for mac, role in (("seen_eth_src", "sender_role"), ("seen_eth_dst", "receiver")):
        owners = rows.select(mac).unique().drop_nulls()
        owners = owners.with_columns(
            pl.Series(role, [case.role_of_mac(item) for item in owners[mac]], dtype=pl.String)
        )
        rows = rows.join(owners, on=mac, how="left", maintain_order="left")
    rows = rows.with_columns(_MOVES.alias("moves")).drop("^.*_member$")
    return rows.join(
        _aftermath(case, rows), on=_PATH, how="left", nulls_equal=True, maintain_order="left"
    )


def connections(case: Case, redirects: pl.DataFrame) -> list[int]:
    """Return the connections that rows of `frame` quote, or whose frames go past the director."""
    past = (
        redirects.select(pl.col("after_vantage").alias("vantage"), pl.col("after_by").alias("flow"))
        .unique()
        .explode("flow", empty_as_null=False)
        .join(case.connections.legs, on=["vantage", "flow"])["connection"]
    )
    quoted = redirects["connection"].drop_nulls()
    return pl.concat([quoted, past]).unique(maintain_order=True).to_list()


def _members(case: Case, rows: pl.DataFrame) -> pl.DataFrame:
    """Return per redirect what its addresses are to the cluster: *_member, null if nothing."""
    services = [service for service in case.topology.services if service.method]
    addresses = [(*service.vip, "vip") for service in services if service.vip]
    addresses += [
        (*address, "realserver") for service in services for address in sorted(service.realservers)
    ]
    addresses += [
        (*address, host.role)
        for host in case.topology.hosts
        if host.role in {"director", "realserver"}
        for address in sorted(host.addresses)
    ]
    table = pl.DataFrame(
        list(dict.fromkeys(addresses)),
        schema={"hi": pl.UInt64, "lo": pl.UInt64, "member": pl.String},
        orient="row",
    ).unique(["hi", "lo"], keep="first", maintain_order=True)

    def member_of(prefix: str) -> pl.DataFrame:
        return table.rename(
            {"hi": f"{prefix}_hi", "lo": f"{prefix}_lo", "member": f"{prefix}_member"}
        )

    return (
        rows.join(member_of("quoted_dst"), on=["quoted_dst_hi", "quoted_dst_lo"], how="left")
        .join(member_of("quoted_src"), on=["quoted_src_hi", "quoted_src_lo"], how="left")
        .join(member_of("gateway"), on=["gateway_hi", "gateway_lo"], how="left")
        .select("message", "quoted_dst_member", "quoted_src_member", "gateway_member")
    )


def _aftermath(case: Case, rows: pl.DataFrame) -> pl.DataFrame:
    """Return per path (who told whom about which destination) how its frames went on.

    Every vantage that saw the redirect is asked, since a capture of the director cannot show what
    goes past it; the one with the most frames past it answers, then the one with the most frames.
    """
    told = (
        case.errors.sightings.select("message", pl.col("vantage").alias("after_vantage"), "row")
        .join(rows.select("message", *_PATH), on="message")
        .group_by("after_vantage", *_PATH)
        .agg(pl.col("row").min().alias("first_row"))
        .drop_nulls()
    )
    directors = [
        mac for host in case.topology.hosts if host.role == "director" for mac in sorted(host.macs)
    ]
    parts = [_FATE]
    for vantage in case.vantages:
        here = told.filter(pl.col("after_vantage") == vantage.index)
        if here.height:
            parts.append(_later_frames(vantage.packets, here, directors))
    return (
        pl.concat(parts)
        .sort("frames_after", "stayed", "after_vantage", descending=[True, True, False])
        .unique(_PATH, keep="first", maintain_order=True)
    )


_FATE = pl.DataFrame(
    schema={
        "after_vantage": pl.UInt16,
        "seen_vantage": pl.UInt16,
        "seen_eth_src": pl.UInt64,
        "seen_eth_dst": pl.UInt64,
        "quoted_dst_hi": pl.UInt64,
        "quoted_dst_lo": pl.UInt64,
        "frames_before": pl.UInt32,
        "frames_after": pl.UInt32,
        "stayed": pl.UInt32,
        "after_row": pl.UInt32,
        "after_mac": pl.UInt64,
        "after_by": pl.List(pl.UInt32),
        "floating": pl.Boolean,
    }
)


_VRRP_MACS: Final = (0x0000_5E00_01, 0x0000_5E00_02)
"""First five bytes of the MAC of a virtual router, IPv4 and IPv6 (RFC 9568 section 7.3)."""


def _later_frames(packets: Table, told: pl.DataFrame, directors: Sequence[int]) -> pl.DataFrame:
    """Count, at one vantage, the frames from each receiver to each redirected destination."""
    after = pl.col("row") > pl.col("first_row")
    floating = (pl.col("eth_dst") // 256).is_in(_VRRP_MACS)
    same_host = pl.col("eth_dst") == pl.col("seen_eth_src")
    old_way = same_host | floating | pl.col("eth_dst").is_in(directors)
    return (
        packets.lazy()
        .with_row_index("row")
        .filter(pl.col("copy_of").is_null())
        .select("row", "flow", "eth_src", "eth_dst", "dst_hi", "dst_lo")
        .join(
            told.lazy(),
            left_on=["eth_src", "dst_hi", "dst_lo"],
            right_on=["seen_eth_dst", "quoted_dst_hi", "quoted_dst_lo"],
        )
        .sort("row")
        .group_by(
            "after_vantage",
            "seen_vantage",
            "seen_eth_src",
            pl.col("eth_src").alias("seen_eth_dst"),
            pl.col("dst_hi").alias("quoted_dst_hi"),
            pl.col("dst_lo").alias("quoted_dst_lo"),
        )
        .agg(
            (~after & old_way).sum().alias("frames_before"),
            (after & ~old_way).sum().alias("frames_after"),
            (after & old_way).sum().alias("stayed"),
            pl.col("row").filter(after & ~old_way).min().alias("after_row"),
            pl.col("eth_dst").filter(after & ~old_way).first().alias("after_mac"),
            pl.col("flow")
            .filter(after & ~old_way)
            .drop_nulls()
            .unique(maintain_order=True)
            .head(MAX_FLOWS)
            .alias("after_by"),
            (floating & ~after).any().alias("floating"),
        )
        .collect()
    )
