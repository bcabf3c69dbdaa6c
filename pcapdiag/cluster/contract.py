"""What a director did with each ICMP error, held against what IPVS must do with it.

ip_vs_in_icmp relays destination unreachable, source quench and time exceeded (ip_vs_in_icmp_v6:
every error) about packets of a connection that it knows: in DR and TUN as they came, in NAT
translated outside and in the quote. ip_vs_out_icmp translates a realserver's error back. All else
is the local stack's.

A reason code stands beside each verdict:

- forwarded: `egress`; `realserver-not-known` (it left, to which realserver is not known);
  `seen-at-realserver`; `ingress-not-captured`
- wrong-realserver: `egress`, `seen-at-another-realserver`
- wrong-translation: `destination-not-translated`, `quote-not-translated`,
  `quote-names-another-endpoint`, `checksum-broken`
- answered: `reissued` (an error about the tunnel's outer header became the director's own)
- local: `type-not-relayed` (redirect, parameter problem), `df-not-set` (the client's packet may be
  fragmented: the director only notes the MTU)
- swallowed: `no-egress`
- unknown: `no-connection-known`, `never-forwarded-here`, `entry-may-have-expired`,
  `realserver-ambiguous`, `other-hosts-mac`, `checksum-bad`, `quote-too-short`,
  `outer-error-not-relayed`, `left-otherwise`, `egress-not-captured`, `capture-ends-too-early`,
  `capture-dropped-packets`
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag.cluster.orientation import oriented
from pcapdiag.cluster.verdicts import relays
from pcapdiag.protocols import FRAG_NEEDED, IcmpType, IpProto
from pcapdiag.schema import CONTRACT_VERDICTS, conform, empty

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcapdiag.cluster.connections import Connections
    from pcapdiag.cluster.coverage import Coverage
    from pcapdiag.cluster.crossings import ErrorCrossings
    from pcapdiag.cluster.topology import Topology
    from pcapdiag.flows.vantage import VantageTables

ESTABLISHED_NS: Final = 900_000_000_000
"""ip_vs_proto_tcp.c, tcp_timeouts: an idle established entry goes after 15 minutes."""

CLOSING_NS: Final = 30_000_000_000
"""The same for LAST_ACK, the shortest of the states behind a FIN."""

RESET_NS: Final = 10_000_000_000
"""The same for CLOSE, behind a RST."""

UDP_NS: Final = 300_000_000_000
"""ip_vs_proto_udp.c, udp_timeouts."""

_TUNNEL_PROTOCOLS: Final = (int(IpProto.IPIP), int(IpProto.IPV6), int(IpProto.GRE))
"""What a quote shows of a tunnel packet where it ends before the inner header."""

_VERDICT_OF: Final = {
    "realserver-not-known": "forwarded",
    "seen-at-realserver": "forwarded",
    "ingress-not-captured": "forwarded",
    "seen-at-another-realserver": "wrong-realserver",
    "destination-not-translated": "wrong-translation",
    "quote-not-translated": "wrong-translation",
    "quote-names-another-endpoint": "wrong-translation",
    "checksum-broken": "wrong-translation",
    "reissued": "answered",
    "type-not-relayed": "local",
    "df-not-set": "local",
    "no-egress": "swallowed",
}
"""Reason -> verdict; `egress` is told by its verdict, all others are unknown."""


def judge(
    vantages: Sequence[VantageTables],
    topology: Topology,
    connections: Connections,
    errors: ErrorCrossings,
    coverage: Coverage,
) -> pl.DataFrame:
    """Return a verdict (schema CONTRACT) per error at a director about a known service."""
    directors = [index for index, role in enumerate(topology.roles) if role.role == "director"]
    seen = errors.sightings.filter(pl.col("vantage").is_in(directors))
    if seen.is_empty() or not topology.services:
        return empty("contract")
    table = relays.gather(oriented(vantages), topology, connections, errors, coverage)
    rips = _realserver_macs(topology)
    table = table.join(
        rips, left_on="out_eth_dst", right_on="mac", how="left", maintain_order="left"
    )
    reason, wrong = _reason(topology)
    table = table.with_columns(reason.alias("reason"), wrong.alias("wrong"))
    verdict = (
        pl.when(pl.col("reason") == "egress")
        .then(pl.when("wrong").then(pl.lit("wrong-realserver")).otherwise(pl.lit("forwarded")))
        .otherwise(pl.col("reason").replace_strict(_VERDICT_OF, default="unknown"))
    )
    judged = table.filter(pl.col("reason").is_not_null()).with_columns(
        verdict.cast(CONTRACT_VERDICTS).alias("verdict"),
        pl.when(pl.col("arrived")).then("in_row").alias("in_row"),
        pl.coalesce(
            pl.when(pl.col("reason") == "reissued").then("reissued_row"), "out_row_here"
        ).alias("out_row"),
    )
    return conform(judged.sort("message", "vantage"), "contract")


def _realserver_macs(topology: Topology) -> pl.DataFrame:
    """Return mac, to_hi, to_lo, to_name of the realservers that are known by MAC."""
    rows = [
        (mac, *(address or (None, None)), name)
        for mac, (address, name) in sorted(topology.realserver_of_mac.items())
    ]
    return pl.DataFrame(
        rows,
        schema={"mac": pl.UInt64, "to_hi": pl.UInt64, "to_lo": pl.UInt64, "to_name": pl.String},
        orient="row",
    )


def _reason(topology: Topology) -> tuple[pl.Expr, pl.Expr]:
    """Return the reason code (null: nothing to judge), and whether `egress` was to another host."""
    own = [low for _, low in topology.director_addresses]
    inward = pl.col("sender") == "realserver"
    nat, tun = pl.col("method") == "nat", pl.col("method") == "tun"
    outer = pl.col("in_quoted_tunnel").is_not_null() & pl.col("in_dst_lo").is_in(own)
    back = pl.col("sender").eq("client") & nat & pl.col("in_translated") & pl.col("arrived")
    judged = pl.col("method").is_not_null() & (
        (inward & ~(pl.col("in_translated") & pl.col("arrived"))) | back | (outer & tun)
    )
    short = (
        pl.col("in_quoted_src_port").is_null()
        & pl.col("in_dst_lo").is_in([item.vip[1] for item in topology.services if item.vip])
        & pl.col("handled")
    )
    tunnels = {
        rip[1] for item in topology.services if item.method == "tun" for rip in item.realservers
    }
    short_outer = (
        pl.col("connection").is_null()
        & pl.col("handled")
        & pl.col("in_dst_lo").is_in(own)
        & pl.col("in_quoted_dst_lo").is_in(sorted(tunnels))
        & pl.col("in_quoted_proto").is_in(_TUNNEL_PROTOCOLS)
    )
    relayed_in, wrong = _towards_realserver()
    reason = (
        pl.when(~pl.col("handled") & pl.col("method").is_not_null() & pl.col("arrived"))
        .then(pl.lit("type-not-relayed"))
        .when((short & ~pl.col("left")) | short_outer)
        .then(pl.lit("quote-too-short"))
        .when(~judged.fill_null(False))
        .then(None)
        .when(outer)
        .then(_about_tunnel())
        .when(pl.col("left") & back)
        .then(_towards_client())
        .when(pl.col("left"))
        .then(
            pl.when(pl.col("arrived").not_() & relayed_in.eq("egress") & ~wrong)
            .then(pl.lit("ingress-not-captured"))
            .otherwise(relayed_in)
        )
        .otherwise(_not_left(back))
    )
    return reason, wrong & ~back.fill_null(False)


def _same(left: str, right: str) -> pl.Expr:
    """Whether two addresses are equal; null where one is not known."""
    return (pl.col(f"{left}_hi") == pl.col(f"{right}_hi")) & (
        pl.col(f"{left}_lo") == pl.col(f"{right}_lo")
    )


def _towards_realserver() -> tuple[pl.Expr, pl.Expr]:
    """Return the reason for an error about a realserver's packet that left, and "to another"."""
    method = pl.col("method")
    known = pl.col("realserver_lo").is_not_null()
    right_mac = pl.col("out_eth_dst") == pl.col("realserver_mac")
    right_host = _same("to", "realserver")
    reached = pl.coalesce(pl.when(right_mac).then(True), right_host, right_mac)
    broken = (pl.col("out_icmp_checksum") == "bad") & (pl.col("in_icmp_checksum") == "ok")
    quote_ends = _same("out_quoted_src", "out_dst") & (
        pl.col("out_quoted_src_port") == pl.col("realserver_port")
    )
    by_nat = (
        pl.when(_same("out_dst", "in_dst") & pl.col("arrived"))
        .then(pl.lit("destination-not-translated"))
        .when(~pl.col("out_translated"))
        .then(pl.lit("quote-not-translated"))
        .when(known & ~quote_ends.fill_null(True))
        .then(pl.lit("quote-names-another-endpoint"))
        .when(broken)
        .then(pl.lit("checksum-broken"))
        .when(known)
        .then(pl.lit("egress"))
        .otherwise(pl.lit("realserver-not-known"))
    )
    by_tunnel = (
        pl.when(~pl.col("out_tunnelled"))
        .then(pl.lit("left-otherwise"))
        .when(known)
        .then(pl.lit("egress"))
        .otherwise(pl.lit("realserver-not-known"))
    )
    by_route = (
        pl.when(reached.is_null() & pl.col("seen_right"))
        .then(pl.lit("egress"))
        .when(reached.is_null() & pl.col("seen_wrong") & pl.col("realserver_name").is_not_null())
        .then(pl.lit("seen-at-another-realserver"))
        .when(reached.is_null())
        .then(pl.lit("realserver-not-known"))
        .when(~reached & pl.col("to_name").is_null())
        .then(pl.lit("left-otherwise"))
        .otherwise(pl.lit("egress"))
    )
    reason = (
        pl.when(method == "nat")
        .then(by_nat)
        .when(method == "tun")
        .then(by_tunnel)
        .otherwise(by_route)
    )
    wrong = (
        pl.when(method == "nat")
        .then(~_same("out_dst", "realserver"))
        .when(method == "tun")
        .then(~_same("out_tunnel_dst", "realserver"))
        .otherwise(~reached)
    )
    return reason, wrong.fill_null(False)


def _towards_client() -> pl.Expr:
    """Return the reason for an error about a client's packet that NAT has to translate back."""
    return (
        pl.when(pl.col("out_translated"))
        .then(pl.lit("quote-not-translated"))
        .when((pl.col("out_icmp_checksum") == "bad") & (pl.col("in_icmp_checksum") == "ok"))
        .then(pl.lit("checksum-broken"))
        .otherwise(pl.lit("egress"))
    )


def _about_tunnel() -> pl.Expr:
    """Return the reason for an error about the outer header of the director's own tunnel packet."""
    too_big = (pl.col("icmp_type") == int(IcmpType.UNREACHABLE)) & (
        pl.col("icmp_code") == FRAG_NEEDED
    )
    return (
        pl.when(pl.col("reissued_row").is_not_null())
        .then(pl.lit("reissued"))
        .when(too_big & pl.col("in_quoted_df").eq(False))
        .then(pl.lit("df-not-set"))
        .otherwise(pl.lit("outer-error-not-relayed"))
    )


def _not_left(back: pl.Expr) -> pl.Expr:
    """Return the reason where nothing was seen to leave: swallowed only if nothing else fits."""
    closed = pl.col("closed_by").cast(pl.String)
    limit = (
        pl.when(pl.col("ip_proto") == int(IpProto.UDP))
        .then(UDP_NS)
        .when(pl.col("afterwards") & closed.str.ends_with("rst"))
        .then(RESET_NS)
        .when(pl.col("afterwards") & closed.str.ends_with("fin"))
        .then(CLOSING_NS)
        .otherwise(ESTABLISHED_NS)
    )
    return (
        pl.when("stray")
        .then(pl.lit("other-hosts-mac"))
        .when(~back & pl.col("seen_right"))
        .then(pl.lit("seen-at-realserver"))
        .when(~back & pl.col("seen_wrong") & pl.col("realserver_name").is_not_null())
        .then(pl.lit("seen-at-another-realserver"))
        .when(pl.col("connection").is_null())
        .then(pl.lit("no-connection-known"))
        .when("ambiguous")
        .then(pl.lit("realserver-ambiguous"))
        .when(pl.col("in_icmp_checksum") == "bad")
        .then(pl.lit("checksum-bad"))
        .when(~pl.col("relayed"))
        .then(pl.lit("never-forwarded-here"))
        .when((pl.col("quiet_ns") >= limit).fill_null(False))
        .then(pl.lit("entry-may-have-expired"))
        .when(~pl.col("visible") | (back & ~pl.col("answering")))
        .then(pl.lit("egress-not-captured"))
        .when(~pl.col("lasting"))
        .then(pl.lit("capture-ends-too-early"))
        .when(~pl.col("intact"))
        .then(pl.lit("capture-dropped-packets"))
        .otherwise(pl.lit("no-egress"))
    )
