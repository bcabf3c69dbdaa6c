"""A router or host asks senders to slow down by ICMP source quench, which nobody does any more.

Symptom
    Mostly none: current stacks ignore the message. Old stacks halve their sending rate for every
    one of them, so that transfers to or from them crawl while the lines are idle.

Mechanism
    RFC 792 let a gateway that drops packets for want of buffers tell their sender (type 4). It
    helped nobody, costs packets just when there are too many, and lets strangers throttle
    connections. RFC 6633 deprecated it in 2012: hosts must not send it and must ignore it, routers
    likewise; Linux has ignored it since 2.6. ip_vs still hands it on as it does types 3 and 11.

Evidence
    The messages, who sent them about which connections; whether the sender, in the second after
    the first of them, sent less than half of what it sent in the second before; and whether a
    realserver got them at all.

Not this rule
    - ICMPv6 type 4: that is the parameter problem; IPv6 never had a source quench.
    - Code 4 of type 3: fragmentation needed, which senders have to obey.
    - A sender that has nothing more to send just then: too few packets before to tell, or none
      afterwards; and a single connection that happens to slow down.
    - A bad checksum: see icmp-checksum-burst. A quote that contradicts what was sent: see
      icmp-spoofed.

Remedy
    Stop the sender of the messages (an old router, a printer, a load balancer's flow control), and
    let its queue use ECN or drop. Filtering type 4 at the border is safe: nothing needs it.

References
    RFC 792; RFC 6633; RFC 5927 section 6; RFC 1812 section 4.3.3.3; icmp_unreach in
    net/ipv4/icmp.c; ip_vs_in_icmp in net/netfilter/ipvs/ip_vs_core.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from pcapdiag.kernel import path_remedies
from pcapdiag.protocols import IpProto
from pcapdiag.rule import (
    Case,
    Cause,
    Clean,
    Confidence,
    Evidence,
    Examined,
    Filters,
    Finding,
    Needs,
    NotExamined,
    Outcome,
    Scope,
    Severity,
    counted,
    incidents,
    rule,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

LEAST_BEFORE = 10
"""Packets with data in the second before: of fewer, half is no slowing down."""

SLOWED = 0.5
"""Of what was sent before: RFC 1122 section 4.2.3.9 had TCP go back to slow start, which shows as
far less than half."""

MIN_SLOWED = 2
"""Connections that slow down: one alone may have had a pause of its own."""

MAX_CITED = 20
"""Messages cited in a finding; the full count stands beside them."""

CAUSES = {
    "sender-slowed": "the sender of the quoted packets sent less than half as much afterwards, as "
    "old stacks do",
    "ignored": "the sender of the quoted packets went on as before, as RFC 6633 asks",
    "effect-not-known": "whether the sender slowed down these captures do not show",
}

SLOWED_TOO = (
    "The sender had less to send just then: less likely the more connections agree.",
    "The losses slowed it down that the message was sent about: then the message did nothing.",
)

UNHEARD = ("The messages are forged: icmp-spoofed tells by the sequence numbers they quote.",)


@rule(
    title="Source quench",
    severity=Severity.INFO,
    needs=Needs(
        protocols=(IpProto.ICMP,),
        text="where the messages arrive, and the packets of whom they are for",
    ),
    since="0.1",
)
def check(case: Case) -> Iterator[Outcome]:
    """Judge source quenches, one finding per sender, service and effect."""
    told = _agreed(case.quenches.with_columns(_effect().alias("effect")))
    for alike in incidents(told, "src_hi", "src_lo", "service_name", "effect"):
        yield _finding(case, alike)
    if told.is_empty():
        yield _none(case)


def _effect() -> pl.Expr:
    enough = pl.col("before") >= LEAST_BEFORE
    return (
        pl.when(enough & (pl.col("after") >= SLOWED * pl.col("before")))
        .then(pl.lit("ignored"))
        .when(enough & (pl.col("later") > 0))
        .then(pl.lit("sender-slowed"))
        .otherwise(pl.lit("effect-not-known"))
    )


def _agreed(told: pl.DataFrame) -> pl.DataFrame:
    """Return the messages, slowing down believed only where several connections agree."""
    slowed = told.filter(pl.col("effect") == "sender-slowed")["connection"].n_unique()
    if slowed >= MIN_SLOWED:
        return told
    doubtful = pl.when(pl.col("effect") == "sender-slowed").then(pl.lit("effect-not-known"))
    return told.with_columns(doubtful.otherwise("effect").alias("effect"))


def _none(case: Case) -> Outcome:
    others = case.errors.messages.filter(pl.col("ip_version") == 4).height
    if case.strange_quenches:
        return NotExamined(
            reason=f"{case.strange_quenches} source quench messages are about packets of which no "
            "capture shows the connection",
            needs=("the packets as well as the messages: no capture filter that keeps ICMP only",),
            capture_command=case.capture_command(role="director"),
        )
    if others:
        return Clean(examined=Examined(icmp_errors=others), note="no ICMP error is a source quench")
    return NotExamined(
        reason="no ICMP error for IPv4 was captured",
        needs=("a capture where errors to the VIP arrive",),
        capture_command=case.capture_command(role="director"),
    )


def _finding(case: Case, told: pl.DataFrame) -> Finding:
    first = told.row(0, named=True)
    sender, code = case.address_text(first, "src"), first["effect"]
    connections = told["connection"].unique(maintain_order=True).to_list()
    realservers = tuple(sorted(told["realserver_name"].drop_nulls().unique()))
    pace = told.unique(["connection", "quoted_sender"]).select(
        pl.col("before").sum(), pl.col("after").sum()
    ).row(0)  # fmt: skip
    service = first["service_name"]
    slowed = code == "sender-slowed"
    return Finding(
        title=f"Source quench from {sender} ({service})",
        summary=(
            f"{counted(told.height, 'source quench message')} from {sender} about "
            f"{counted(len(connections), 'connection')} of {service}: "
            f"{CAUSES[code]}."
        ),
        cause=Cause(code=code, text=CAUSES[code]),
        severity=Severity.MEDIUM if slowed else Severity.INFO,
        confidence=Confidence.MEDIUM if slowed else Confidence.HIGH,
        evidence=_evidence(case, told),
        evidence_count=told.height,
        scope=Scope(service=service, direction=_direction(told)),
        subject=sender,
        hosts={"sender": sender},
        flows=case.flow_refs(connections),
        flow_count=len(connections),
        examined_count=case.connection_count(service),
        first_seen_ns=told["first_ns"].min(),  # type: ignore[arg-type]
        last_seen_ns=told["first_ns"].max(),  # type: ignore[arg-type]
        count=told.height,
        facts={
            "sender": sender,
            "messages": told.height,
            "realservers": realservers,
            "packets_in_the_second_before": pace[0],
            "packets_in_the_second_after": pace[1],
            "forwarded": told.filter(pl.col("verdict").cast(pl.String) == "forwarded").height,
        },
        alternatives=SLOWED_TOO if slowed else UNHEARD,
        remedies=(path_remedies.drop_source_quench("the border router or firewall", sender),),
        verify=(f"tcpdump -ni IFACE 'icmp[0] == 4 and src host {sender}'  # nothing comes",),
        filters=Filters(
            wireshark=f"icmp.type == 4 && ip.src == {sender}",
            tcpdump=f"icmp[0] == 4 and src host {sender}",
        ),
        references=("RFC 6633", "RFC 5927 section 6"),
    )


def _direction(told: pl.DataFrame) -> str | None:
    senders = told["quoted_sender"].cast(pl.String).unique().to_list()
    if len(senders) != 1:
        return None
    return "to-realserver" if senders[0] == "client" else "to-client"


def _evidence(case: Case, told: pl.DataFrame) -> tuple[Evidence, ...]:
    result: list[Evidence] = []
    for row in told.head(MAX_CITED).iter_rows(named=True):
        note = f"source quench to {case.address_text(row, 'dst')}"
        result += case.evidence("primary", row["seen_vantage"], [row["seen_row"]], note)
    return tuple(result)
