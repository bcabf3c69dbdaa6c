"""A firewall answers packets of an established connection with "administratively prohibited".

Symptom
    Long or idle sessions break: uploads, streams, database sessions. The client goes silent for a
    quarter of an hour, since its TCP takes the error as a hint only and goes on repeating.

Mechanism
    A rule set of the RHEL kind accepts ESTABLISHED and NEW to the service's port and rejects the
    rest with icmp-host-prohibited. The packet was neither: conntrack called it INVALID, or had no
    entry. On a DR or TUN director conntrack sees one direction only and cannot know the connection
    at all; on a realserver an entry that timed out, was flushed, or a window it lost track of does
    it (nf_conntrack_tcp_loose=0 makes it permanent).

Evidence
    ICMP 3/10 (3/9, 3/13, ICMPv6 1/1) that quotes a packet without SYN of a connection that had been
    established, and the network card that sent it: the source address proves nothing, it is the VIP
    for director and realserver alike. Where the MAC is not conclusive, the quoted TTL is: one lower
    behind the director.

Not this rule
    - The quoted packet is a SYN: the service is refused from the start (service-refused).
    - Errors about UDP.
    - The connection had not been established as far as the captures show.

Remedy
    On the host that sent them: accept the service's packets before any rule that asks conntrack, or
    exempt them from tracking; drop INVALID before the REJECT. On a DR or TUN director stateful
    rules for the VIP cannot work.

References
    RFC 1812 section 5.2.7.1; RFC 5461; net/netfilter/nf_conntrack_proto_tcp.c;
    iptables-extensions(8), REJECT; LVS-HOWTO section 35.6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from pcapdiag.kernel import remedies
from pcapdiag.protocols import IpProto, TcpFlag, icmp_name
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
    Remedy,
    Scope,
    Severity,
    rule,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_GROUPS = 1000
"""Incidents judged: far more than a person reads."""

MAX_CITED = 20
"""Messages cited in a finding; the full count stands beside them."""

CLOSING = int(TcpFlag.FIN | TcpFlag.RST)


@rule(
    title="Established connections prohibited by a firewall",
    severity=Severity.HIGH,
    needs=Needs(
        protocols=(IpProto.ICMP, IpProto.ICMPV6),
        text="director and realservers with Ethernet headers, to tell who sent it",
    ),
    since="0.1",
)
def check(case: Case) -> Iterator[Outcome]:
    """Judge the prohibitions, one finding per service and emitting host."""
    every = case.prohibitions
    hit = every.filter(pl.col("established"), ~pl.col("quoted_syn").fill_null(value=True))
    groups = (
        hit.group_by("service_name", "emitter")
        .len()
        .sort("len", "service_name", "emitter", descending=[True, False, False])
    )
    for group in groups.head(MAX_GROUPS).iter_rows(named=True):
        yield _finding(
            case,
            hit.filter(
                pl.col("service_name").eq_missing(group["service_name"]),
                pl.col("emitter") == group["emitter"],
            ),
        )
    yield from _rest(case, every, hit)


def _finding(case: Case, messages: pl.DataFrame) -> Finding:
    first = messages.row(0, named=True)
    emitter, service = first["emitter"], first["service_name"]
    hosts = tuple(sorted(messages["emitter_host"].drop_nulls().unique()))
    macs = tuple(
        case.mac_text(mac) for mac in sorted(messages["emitter_mac"].drop_nulls().unique())
    )
    connections = messages["connection"].unique(maintain_order=True).to_list()
    closing = messages.filter((pl.col("quoted_tcp_flags") & CLOSING) != 0).height
    cause = _cause(emitter, only_closing=closing == messages.height)
    who = ", ".join(hosts) or {"unknown": "an unknown host", "other": "a host in between"}.get(
        emitter, f"the {emitter}"
    )
    name = icmp_name(first["ip_version"], first["icmp_type"], first["icmp_code"])
    idle = messages["idle_ns"].max()
    return Finding(
        title=f"{who} rejects packets of established connections ({service})",
        summary=(
            f"{messages.height} x {name} for {len(connections)} established "
            f"connection{'s' * (len(connections) != 1)} of {service}, sent by {who}: {cause.text}."
        ),
        cause=cause,
        severity=Severity.MEDIUM if closing == messages.height else Severity.HIGH,
        confidence=Confidence.HIGH
        if emitter in ("director", "realserver") and macs
        else Confidence.MEDIUM,
        evidence=_evidence(case, messages),
        evidence_count=messages.height,
        scope=Scope(
            service=service,
            realserver=hosts[0] if emitter == "realserver" and len(hosts) == 1 else None,
        ),
        subject=emitter,
        hosts={"emitter": hosts or (emitter,)},
        flows=case.flow_refs(connections),
        flow_count=len(connections),
        examined_count=case.connection_count(service),
        first_seen_ns=messages["first_ns"].min(),  # type: ignore[arg-type]
        last_seen_ns=messages["first_ns"].max(),  # type: ignore[arg-type]
        count=messages.height,
        facts={
            "emitter": emitter,
            "emitter_mac": macs[0] if len(macs) == 1 else (macs or None),
            "emitter_told_by": first["emitter_by"],
            "messages": messages.height,
            "closing_packets": closing,
            "longest_idle_s": None if idle is None else round(int(idle) / 1e9, 3),  # type: ignore[arg-type]
        },
        alternatives=(
            (
                "A late duplicate of a connection that had just closed is INVALID as well: likely "
                "only "
                "where a single packet was rejected."
            ),
            "A corrupted segment: old kernels rejected it, current ones drop it silently.",
        ),
        remedies=_remedies(case, messages, who),
        verify=(
            "iptables -vnL INPUT --line-numbers  # the counter of the REJECT rule stands still",
        ),
        filters=Filters(
            wireshark="icmp.type == 3 && icmp.code in {9, 10, 13} || icmpv6.type == 1 && "
            "icmpv6.code == 1",
            tcpdump="icmp[icmptype] == 3 and (icmp[icmpcode] == 9 or icmp[icmpcode] == 10 or "
            "icmp[icmpcode] == 13) or icmp6[0] == 1 and icmp6[1] == 1",
        ),
        references=(
            "RFC 1812 section 5.2.7.1",
            "nf_conntrack_proto_tcp.c",
            "LVS-HOWTO section 35.6",
        ),
    )


def _cause(emitter: str, *, only_closing: bool) -> Cause:
    if emitter == "director":
        if only_closing:
            return Cause(
                code="director-rejects-closing",
                text="conntrack on the director sees one direction only and calls each FIN and RST "
                "INVALID; data passes",
            )
        return Cause(
            code="director-conntrack",
            text="the director's stateful INPUT rules do not know the connection: behind ip_vs "
            "conntrack sees one direction only, or nothing",
        )
    if emitter == "realserver":
        return Cause(
            code="realserver-conntrack",
            text="the realserver's conntrack had lost the connection (entry timed out or flushed) "
            "or "
            "called the packet INVALID, and its last rule rejects",
        )
    return Cause(
        code="emitter-unknown",
        text="a stateful firewall did not know the connection; these captures do not show whose",
    )


def _evidence(case: Case, messages: pl.DataFrame) -> tuple[Evidence, ...]:
    cited: list[Evidence] = []
    for row in messages.sort("first_ns", "message").head(MAX_CITED).iter_rows(named=True):
        name = icmp_name(row["ip_version"], row["icmp_type"], row["icmp_code"])
        mac = case.mac_text(row["emitter_mac"]) if row["emitter_mac"] is not None else "unknown"
        cited.extend(
            case.evidence(
                "primary",
                row["seen_vantage"],
                [row["seen_row"]],
                f"{name} about a packet without SYN (seq {row['quoted_tcp_seq']}), emitter MAC "
                f"{mac}",
            )
        )
    return tuple(cited)


def _remedies(case: Case, messages: pl.DataFrame, who: str) -> tuple[Remedy, ...]:
    first = messages.row(0, named=True)
    if first["vip_port"] is None:
        return ()
    version = 6 if first["ip_version"] == 6 else 4
    return (
        remedies.accept_before_state(
            who, version, case.address_text(first, "vip"), first["vip_port"], "tcp"
        ),
    )


def _rest(case: Case, every: pl.DataFrame, hit: pl.DataFrame) -> Iterator[Outcome]:
    found = set(hit["service_name"].unique())
    for service in case.tcp_service_names:
        if service in found:
            continue
        if not any(case.icmp_visible):
            yield NotExamined(
                scope=Scope(service=service),
                reason="no capture holds ICMP",
                needs=("a capture that keeps ICMP",),
                capture_command=case.capture_command(role="director"),
            )
            continue
        count = case.connection_count(service)
        if not count:
            continue
        others = every.filter(pl.col("service_name") == service).height
        note = f"{others} prohibitions answer requests for a connection" if others else ""
        yield Clean(scope=Scope(service=service), examined=Examined(connections=count), note=note)
