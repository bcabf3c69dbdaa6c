"""ICMP errors contradict what was sent: somebody makes them up, or quotes another's packets.

Symptom
    Connections that end, or crawl in tiny packets, without anything wrong on their path; hosts that
    send by way of a stranger. Often nothing: current stacks look at the sequence number.

Mechanism
    An ICMP error is believed by what it quotes. A forger who is not on the path knows addresses and
    may guess ports, but not sequence numbers: it sends many messages with any (RFC 5927). Stacks
    that do not check end connections at "port unreachable", shrink to the MTU named, or slow down.
    A redirect is believed by whom it comes from: only the gateway that a packet was sent to may
    send one, on the same link.

Evidence
    At least three messages about connections of a service whose quoted sequence number lies outside
    all that the quoted side sent, from its SYN to the end of the capture, by more than a capture
    could have missed. Judged only where the quoted direction was captured. A redirect that came
    through a router (its TTL was lowered), or names a gateway that no host can have.

Not this rule
    - A late message about data acknowledged long ago: it was sent, and is inside.
    - A connection whose beginning was not captured: what was sent before is not known.
    - A direction that was not captured, as the replies at a director of LVS-DR: not examined.
    - One or two messages that do not fit: errors about an earlier connection of the same ports.
    - A sequence number a little beyond what was captured: captures lose packets.
    - A redirect that its receiver may only not like: see redirect-to-router.

Remedy
    Let the border drop ICMP errors whose quote is no flow of yours (conntrack does: state RELATED
    where it sees both directions), and packets from outside with inside sources (BCP 38). Refuse
    redirects on servers.

References
    RFC 5927 sections 4.1, 5, 7; RFC 1122 section 3.2.2.2; RFC 1812 section 5.2.7.2; RFC 4861
    section 8.1; tcp_v4_err in net/ipv4/tcp_ipv4.c (OutOfWindowIcmps).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from pcapdiag.kernel import path_remedies, remedies
from pcapdiag.protocols import IpProto, icmp_name
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
    from collections.abc import Callable, Iterator
from typing import Any

MIN_MESSAGES = 3
"""About connections of one service: one or two may be about an earlier connection of the same ports
that ended before the capture began. A forger needs thousands."""

SLACK_BYTES = 1 << 20
"""Beyond the highest byte captured: so much of one connection at its end no usable capture misses,
and a number guessed out of 2^32 lies further off 4095 times of 4096."""

FIRST_TTLS = frozenset({32, 60, 64, 128, 255})
"""With which stacks send: any other shows that a router passed the packet on, which no redirect
may be (RFC 1122 section 3.2.2.2). In IPv6 it is 255 or invalid (RFC 4861 section 8.1)."""

MAX_CITED = 20
"""Messages cited in a finding; the full count stands beside them."""

CAUSES = {
    "sequence-never-sent": "the packets that they quote were never sent: their sequence numbers "
    "lie outside of all that the connections carried",
    "redirect-was-routed": "they came through a router, and a redirect is only for the link it is "
    "sent on",
    "redirect-impossible-gateway": "they name a gateway that no host can be",
}


@rule(
    title="Forged ICMP errors",
    severity=Severity.MEDIUM,
    needs=Needs(
        protocols=(IpProto.ICMP, IpProto.ICMPV6),
        text="where the quoted packets are sent (a realserver for errors to the VIP), from the "
        "connections' beginning on",
    ),
    since="0.1",
)
def check(case: Case) -> Iterator[Outcome]:
    """Judge errors by what they quote, redirects by where they come from."""
    errors = case.contradictions
    outside = errors.filter(
        pl.when("below").then(pl.col("outside") > 0).otherwise(pl.col("outside") > SLACK_BYTES)
    )
    found = 0
    for messages in incidents(outside, "service_name", "quoted_sender"):
        if messages.height < MIN_MESSAGES:
            break  # the incidents that follow are smaller
        found += 1
        first = messages.row(0, named=True)
        keys = ("service_name", "quoted_sender")
        same = [pl.col(key).eq_missing(pl.lit(first[key])) for key in keys]
        yield _forged(case, messages, examined=errors.filter(*same))
    forged = case.redirect_forms.with_columns(_redirect_cause().alias("cause"))
    forged = forged.filter(pl.col("cause").is_not_null())
    for redirects in incidents(forged, "src_hi", "src_lo", "cause"):
        found += 1
        yield _redirected(case, redirects)
    yield from _rest(case, errors, outside, found)


def _redirect_cause() -> pl.Expr:
    v4 = pl.col("ip_version") == 4
    routed = pl.when(v4).then(~pl.col("ttl").is_in(sorted(FIRST_TTLS))).otherwise(
        pl.col("ttl") != 255
    )  # fmt: skip
    receiver = (pl.col("gateway_hi") == pl.col("dst_hi")) & (
        pl.col("gateway_lo") == pl.col("dst_lo")
    )
    return (
        pl.when((pl.col("gateway_scope") == "impossible") | receiver)
        .then(pl.lit("redirect-impossible-gateway"))
        .when(routed)
        .then(pl.lit("redirect-was-routed"))
    )


def _forged(case: Case, errors: pl.DataFrame, examined: pl.DataFrame) -> Finding:
    first = errors.row(0, named=True)
    service = first["service_name"]
    senders = errors.select("src_hi", "src_lo").unique(maintain_order=True)
    sender = case.address_text(first, "src") if senders.height == 1 else None
    connections = errors["connection"].unique(maintain_order=True).to_list()
    direction = "to-realserver" if str(first["quoted_sender"]) == "client" else "to-client"
    code, text = "sequence-never-sent", CAUSES["sequence-never-sent"]
    kinds = errors.group_by("ip_version", "icmp_type", "icmp_code").len()
    kinds = kinds.sort("len", "icmp_type", "icmp_code", descending=True)
    words = ", ".join(
        f"{row['len']} x {icmp_name(row['ip_version'], row['icmp_type'], row['icmp_code'])}"
        for row in kinds.iter_rows(named=True)
    )
    return Finding(
        title=f"Forged ICMP errors ({service})",
        summary=(
            f"{errors.height} messages ({words}) from {sender or f'{senders.height} addresses'} "
            f"about {len(connections)} connections of {service}: {text}."
        ),
        cause=Cause(code=code, text=text),
        severity=Severity.MEDIUM,
        confidence=Confidence.MEDIUM,
        evidence=_evidence(
            case,
            errors,
            lambda row: (
                f"quotes sequence number {row['quoted_tcp_seq']}, {row['outside']} bytes "
                f"{'before' if row['below'] else 'beyond'} all that was sent"
            ),
        ),
        evidence_count=errors.height,
        scope=Scope(service=service, direction=direction),
        subject=sender or "",
        hosts={"sender": sender} if sender else {},
        flows=case.flow_refs(connections),
        flow_count=len(connections),
        examined_count=examined["connection"].n_unique(),
        first_seen_ns=errors["first_ns"].min(),  # type: ignore[arg-type]
        last_seen_ns=errors["first_ns"].max(),  # type: ignore[arg-type]
        count=errors.height,
        facts={
            "messages": errors.height,
            "senders": senders.height,
            "sender": sender,
            "nearest_miss_bytes": errors["outside"].min(),  # type: ignore[dict-item]
            "messages_that_fit": examined.filter(pl.col("outside") == 0).height,
            "next_hop_mtu": errors["next_hop_mtu"].min(),  # type: ignore[dict-item]
        },
        alternatives=(
            "Errors about earlier connections of the same ports: less likely the more there are.",
            "A box on the way (a SYN proxy) rewrites sequence numbers and not those quoted.",
        ),
        remedies=(path_remedies.keep_forged_errors_out("the border router or firewall"),),
        verify=("nstat -az TcpExtOutOfWindowIcmps  # receiver: counts what its TCP refused",),
        filters=Filters(
            wireshark=f"icmp && ip.src == {sender}"
            if sender and first["ip_version"] == 4
            else "icmp || icmpv6",
            tcpdump=f"(icmp or icmp6) and src host {sender}" if sender else "icmp or icmp6",
        ),
        references=("RFC 5927 section 4.1", "tcp_v4_err in tcp_ipv4.c"),
    )


def _redirected(case: Case, redirects: pl.DataFrame) -> Finding:
    first = redirects.row(0, named=True)
    sender, gateway = case.address_text(first, "src"), case.address_text(first, "gateway")
    receiver, code = case.address_text(first, "dst"), first["cause"]
    return Finding(
        title=f"Redirects from {sender} that no gateway may send",
        summary=(
            f"{counted(redirects.height, 'redirect')} from {sender} to "
            f"{receiver}, to send by way of {gateway}: {CAUSES[code]}."
        ),
        cause=Cause(code=code, text=CAUSES[code]),
        severity=Severity.MEDIUM,
        confidence=Confidence.MEDIUM,
        evidence=_evidence(
            case,
            redirects,
            lambda row: f"TTL {row['ttl']}, gateway {case.address_text(row, 'gateway')}",
        ),
        evidence_count=redirects.height,
        subject=sender,
        hosts={"sender": sender, "receiver": receiver},
        first_seen_ns=redirects["first_ns"].min(),  # type: ignore[arg-type]
        last_seen_ns=redirects["first_ns"].max(),  # type: ignore[arg-type]
        count=redirects.height,
        facts={
            "messages": redirects.height,
            "sender": sender,
            "gateway": gateway,
            "ttl": first["ttl"],
        },
        alternatives=("A stack that sends with an unusual TTL: its other packets would tell.",),
        remedies=(remedies.forget_redirects(receiver),),
        verify=("ip route show cache  # receiver: no route by way of a stranger",),
        filters=Filters(
            wireshark="icmp.type == 5 || icmpv6.type == 137",
            tcpdump="icmp[0] == 5 or ip6[40] == 137",
        ),
        references=("RFC 1122 section 3.2.2.2", "RFC 4861 section 8.1"),
    )


def _evidence(
    case: Case, rows: pl.DataFrame, note: Callable[[dict[str, Any]], str]
) -> tuple[Evidence, ...]:
    result: list[Evidence] = []
    for row in rows.head(MAX_CITED).iter_rows(named=True):
        result += case.evidence("primary", row["seen_vantage"], [row["seen_row"]], note(row))
    return tuple(result)


def _rest(case: Case, errors: pl.DataFrame, outside: pl.DataFrame, found: int) -> Iterator[Outcome]:
    open_ones = errors.filter(~pl.col("covered"))
    for service in sorted(open_ones["service_name"].drop_nulls().unique()):
        mine = open_ones.filter(pl.col("service_name") == service)
        client = (mine["quoted_sender"].cast(pl.String) == "client").any()
        role = "client" if client else "realserver"
        yield NotExamined(
            scope=Scope(service=service),
            reason=f"what {mine.height} errors quote was sent where nothing was captured, or by "
            "connections that had begun before",
            needs=(f"a capture on a {role}, from the connections' beginning on",),
            capture_command=case.capture_command(role=role),
        )
    covered = errors.filter("covered")
    if covered.height and not found:
        yield Clean(
            examined=Examined(icmp_errors=covered.height),
            note="too few errors that do not fit"
            if outside.height
            else "every error quotes what was sent",
        )
    elif errors.is_empty() and not found:
        yield NotExamined(
            reason="no ICMP error about a TCP packet of a known connection was captured",
            needs=("a capture where errors arrive, while they do",),
            capture_command=case.capture_command(role="director"),
        )
