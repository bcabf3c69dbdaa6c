"""What a director did with each packet of chosen connections, held against what IPVS must do.

ip_vs_in hands on every packet of a connection that it knows: ip_vs_dr_xmit as it is with another
MAC, ip_vs_tunnel_xmit in a tunnel to the realserver, ip_vs_nat_xmit with the realserver's address
and port; ip_vs_out puts the VIP back into replies (NAT). Looked at are clients' packets and, in
NAT, realservers'.

A reason code stands beside each verdict:

- forwarded: `egress`; `seen-at-realserver`; `realserver-not-known` (it left, to which one is not
  known)
- wrong-realserver: `egress`, `seen-at-another-realserver`
- wrong-translation: `destination-not-translated`, `source-not-translated`, `checksum-broken` (it
  does not follow from the one that came and what was rewritten, see sums.py)
- answered: `reset`, `syn-ack`, `icmp-error` (the director spoke itself, see answers.py)
- swallowed: `no-egress`; `none-left` (no packet of the connection ever did)
- local: `ttl-spent`
- unknown: `ambiguous` (equal to another packet that left), `left-otherwise`, `regrouped` (offload
  cut it in another way), `datagram-incomplete` (IPVS waits for the other fragments),
  `other-hosts-mac`, `egress-not-captured`, `capture-ends-too-early`, `capture-dropped-packets`

One packet that is swallowed is a weak fact, since any capture may lose one: who claims an absence
counts them and asks Coverage.absence_is_proof.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag.cluster.matching import sums
from pcapdiag.cluster.verdicts import answers, exits
from pcapdiag.schema import CONTRACT_VERDICTS, conform, empty

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcapdiag.cluster.connections import Connections
    from pcapdiag.cluster.coverage import Coverage
    from pcapdiag.cluster.crossings import ErrorCrossings
    from pcapdiag.cluster.packet_crossings import Crossings
    from pcapdiag.cluster.topology import Topology
    from pcapdiag.flows.vantage import VantageTables

_VERDICT_OF: Final = {
    "seen-at-realserver": "forwarded",
    "realserver-not-known": "forwarded",
    "seen-at-another-realserver": "wrong-realserver",
    "destination-not-translated": "wrong-translation",
    "source-not-translated": "wrong-translation",
    "checksum-broken": "wrong-translation",
    "reset": "answered",
    "syn-ack": "answered",
    "icmp-error": "answered",
    "no-egress": "swallowed",
    "none-left": "swallowed",
    "ttl-spent": "local",
}
"""Reason -> verdict; `egress` is told by where it went, all others are unknown."""


def judge(
    vantages: Sequence[VantageTables],
    topology: Topology,
    connections: Connections,
    errors: ErrorCrossings,
    coverage: Coverage,
    crossings: Crossings,
) -> pl.DataFrame:
    """Return a verdict (schema PACKET_CONTRACT) per packet that reached a director."""
    directors = [index for index, role in enumerate(topology.roles) if role.role == "director"]
    table = exits.arrivals(crossings.details, connections, topology, directors)
    if table.is_empty():
        return empty("packet_contract")
    table = exits.departures(table, crossings.details, directors)
    table = exits.receptions(table, crossings.details, topology)
    table = exits.likenesses(table, crossings.details, directors)
    table = answers.find(table, crossings.details, vantages, errors, directors)
    table = exits.coverages(table, vantages, connections, coverage, directors)
    reason, wrong = _left(topology)
    table = table.with_columns(
        pl.when("left").then(reason).otherwise(_not_left()).alias("reason"),
        (pl.col("left") & wrong).alias("wrong"),
    )
    spoilt = (pl.col("reason") == "egress") & ~pl.col("wrong") & (pl.col("method") == "nat")
    table = table.with_columns(
        pl.when(spoilt & sums.broken())
        .then(pl.lit("checksum-broken"))
        .otherwise("reason")
        .alias("reason")
    )
    verdict = (
        pl.when(pl.col("reason") == "egress")
        .then(pl.when("wrong").then(pl.lit("wrong-realserver")).otherwise(pl.lit("forwarded")))
        .otherwise(pl.col("reason").replace_strict(_VERDICT_OF, default="unknown"))
    )
    answered = pl.col("reason").is_in(["reset", "syn-ack", "icmp-error"])
    arrived = pl.col("reason").is_in(["seen-at-realserver", "seen-at-another-realserver"])
    judged = table.with_columns(
        verdict.cast(CONTRACT_VERDICTS).alias("verdict"),
        *(
            pl.when("left")
            .then(f"out_{name}")
            .when(answered)
            .then(f"answer_{name}")
            .when(arrived)
            .then(f"reached_{name}")
            .alias(f"out_{name}")
            for name in ("vantage", "row")
        ),
    )
    return conform(judged.sort("time_ns", "packet", nulls_last=True), "packet_contract")


def _left(topology: Topology) -> tuple[pl.Expr, pl.Expr]:
    """Return the reason for a packet that left, and whether it went to another realserver."""
    known = pl.col("realserver_lo").is_not_null()
    others = [mac for mac in topology.realserver_of_mac if mac is not None]
    translated = (pl.col("out_kind") == "back") == pl.col("by_client")
    by_nat = (
        pl.when(~translated)
        .then(
            pl.when("by_client")
            .then(pl.lit("destination-not-translated"))
            .otherwise(pl.lit("source-not-translated"))
        )
        .when(known | ~pl.col("by_client"))
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
    right = pl.col("out_eth_dst") == pl.col("realserver_mac")
    elsewhere = pl.col("out_eth_dst").is_in(others)
    by_route = (
        pl.when(right.fill_null(False) | pl.col("seen_right"))
        .then(pl.lit("egress"))
        .when(pl.col("seen_wrong"))
        .then(pl.lit("seen-at-another-realserver"))
        .when(right.is_null())
        .then(pl.lit("realserver-not-known"))
        .when(elsewhere)
        .then(pl.lit("egress"))
        .otherwise(pl.lit("left-otherwise"))
    )
    method = pl.col("method")
    reason = (
        pl.when(method == "nat")
        .then(by_nat)
        .when(method == "tun")
        .then(by_tunnel)
        .otherwise(by_route)
    )
    other_end = (pl.col("out_outer_dst_hi") != pl.col("realserver_hi")) | (
        pl.col("out_outer_dst_lo") != pl.col("realserver_lo")
    )
    other_address = (pl.col("out_dst_hi") != pl.col("realserver_hi")) | (
        pl.col("out_dst_lo") != pl.col("realserver_lo")
    )
    wrong = (
        pl.when(method == "nat")
        .then(pl.col("by_client") & other_address)
        .when(method == "tun")
        .then(other_end)
        .otherwise(~right & ~pl.col("seen_right"))
    )
    return reason, wrong.fill_null(False)


def _not_left() -> pl.Expr:
    """Return the reason where nothing was seen to leave: swallowed only if nothing else fits."""
    return (
        pl.when("stray")
        .then(pl.lit("other-hosts-mac"))
        .when("seen_right")
        .then(pl.lit("seen-at-realserver"))
        .when("seen_wrong")
        .then(pl.lit("seen-at-another-realserver"))
        .when(pl.col("answer").is_not_null())
        .then("answer")
        .when("unsure")
        .then(pl.lit("ambiguous"))
        .when("left_otherwise")
        .then(pl.lit("left-otherwise"))
        .when("regrouped")
        .then(pl.lit("regrouped"))
        .when("incomplete")
        .then(pl.lit("datagram-incomplete"))
        .when(pl.col("in_ttl") <= 1)
        .then(pl.lit("ttl-spent"))
        .when(~pl.col("visible"))
        .then(pl.lit("egress-not-captured"))
        .when(~pl.col("lasting"))
        .then(pl.lit("capture-ends-too-early"))
        .when(~pl.col("intact"))
        .then(pl.lit("capture-dropped-packets"))
        .when("none_left")
        .then(pl.lit("none-left"))
        .otherwise(pl.lit("no-egress"))
    )
