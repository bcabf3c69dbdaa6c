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

    The 15 minutes are the client's own: tcp_retries2 gives up after 924.6 s, by chance close to the
    900 s after which IPVS forgets an idle connection.

Evidence
    ICMP 3/10 (3/9, 3/13, ICMPv6 1/1) that quotes a packet without SYN of a connection that had been
    established (data of it was acknowledged, or passed this very host before), and the network card
    that sent it: the source address proves nothing, it is the VIP for director and realserver
    alike. Where the MAC is not conclusive, the quoted TTL is: one lower behind the director.
    What conntrack thought is found by replaying its TCP tracker on exactly the packets that the
    emitting host saw (a DR or TUN director: the client's only) under each setting that could
    explain it: the reason that predicts which packets were rejected and which passed comes first,
    the others stand beside it as alternatives. The host's kernel log, given with --facts, decides
    between equals (nf_conntrack_log_invalid=6 makes conntrack say why).

Not this rule
    - The quoted packet is a SYN: the service is refused from the start (service-refused).
    - Errors about UDP, and errors that went to another host than the sender of what they quote.
    - The connection had not been established as far as the captures show.

Remedy
    On the host that sent them: accept the service's packets before any rule that asks conntrack, or
    exempt them from tracking (iptables -j CT --notrack, nft notrack); drop INVALID before the
    REJECT. A tracked realserver: nf_conntrack_tcp_loose=1, nf_conntrack_tcp_be_liberal=1. On a DR
    or TUN director stateful rules for the VIP cannot work.

References
    RFC 1812 section 5.2.7.1; RFC 5461; net/netfilter/nf_conntrack_proto_tcp.c;
    iptables-extensions(8), REJECT; LVS-HOWTO section 35.6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from pcapdiag.kernel import rejections, remedies
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
    counted,
    incidents,
    rule,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_CITED = 20
"""Messages cited in a finding; the full count stands beside them."""

MAX_PASSED = 3
"""Connections of which a packet that passed before is cited: enough to see that they are alike."""

SILENT_S = 5
"""Seconds without a packet from which a client's silence is worth a word: beyond a few timeouts."""

CLOSING = int(TcpFlag.FIN | TcpFlag.RST)

LATE_DUPLICATE = (
    "A late duplicate of a connection that had just closed is INVALID as well: likely only where a "
    "single packet was rejected."
)

NOT_REPLAYED = (
    "Which of conntrack's reasons it was cannot be told: no capture of the host that rejects shows "
    "these connections."
)


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
    for messages in incidents(hit, "service_name", "emitter"):
        yield _finding(case, messages)
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
    replayed, logged = case.replayed(messages), case.logged_as_invalid(messages)
    likely, others = rejections.likeliest(
        [item.candidates for item in replayed], [item.onset for item in replayed], logged
    )
    facts, after = _aftermath(messages)
    return Finding(
        title=f"{who} rejects packets of established connections ({service})",
        summary=(
            f"{messages.height} x {name} for "
            f"{counted(len(connections), 'established connection')} of {service}, sent by {who}: "
            f"{cause.text}."
            + _likely(likely, others)
            + (f" The kernel log of {who} {rejections.logged(logged)}." if logged else "")
            + after
        ),
        cause=cause,
        severity=Severity.MEDIUM if closing == messages.height else Severity.HIGH,
        confidence=Confidence.HIGH
        if emitter in ("director", "realserver") and macs
        else Confidence.MEDIUM,
        evidence=(*_evidence(case, messages), *_passed(case, replayed)),
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
            "quoted_ttl_below_director": first["hops"],
            "messages": messages.height,
            "closing_packets": closing,
            "verdict": likely.code if likely else None,
            "verdicts_that_fit": tuple(
                item.code for item in ([likely] if likely else []) + others if item.count
            ),
            "connections_replayed": len(replayed),
            "logged": tuple(f"{count} {kind}" for kind, count in logged.items()),
            **_idle(messages, replayed),
            **facts,
        },
        alternatives=(
            *(
                f"{item.text}: fits {item.count} of {len(replayed)} replayed connections."
                for item in others
                if item.count or not likely
            ),
            *(() if replayed else (NOT_REPLAYED,)),
            LATE_DUPLICATE,
            "A corrupted segment: old kernels rejected it, current ones drop it silently.",
        ),
        remedies=_remedies(case, messages, who),
        verify=_verify(first),
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


def _likely(likely: rejections.Reason | None, others: list[rejections.Reason]) -> str:
    """Return a sentence with the likeliest reason, and what fits as well."""
    if likely is None:
        return ""
    equal = "".join(
        f"; or, which fits as well: {item.text}" for item in others if item.count == likely.count
    )
    return f" Most likely: {likely.text}{equal}."


def _idle(messages: pl.DataFrame, replayed: tuple[Any, ...]) -> dict[str, Any]:
    """Return how long connections were idle: of all, and around what was rejected."""
    idle = messages["idle_ns"].max()
    facts: dict[str, Any] = {"longest_idle_s": None if idle is None else _seconds(idle)}
    if replayed:
        facts["idle_before_rejected_s"] = _seconds(min(item.gap_ns for item in replayed))
        facts["idle_before_passed_s"] = _seconds(max(item.passed_gap_ns for item in replayed))
    return facts


def _aftermath(messages: pl.DataFrame) -> tuple[dict[str, Any], str]:
    """Return facts and a sentence about what the clients did after the first message."""
    per = messages.unique("connection", keep="first", maintain_order=True)
    silence = (per["after_until_ns"] - per["after_last_ns"]).max()
    answered = per.filter(pl.col("after_answered").fill_null(value=False)).height
    repeats = int(per["after_data"].sum())
    facts = {
        "client_packets_afterwards": repeats,
        "connections_that_went_on": answered,
        "longest_silence_s": None if silence is None else _seconds(silence),
    }
    parts = []
    if repeats:
        parts.append(f"the clients sent {repeats} more packets with data")
    if answered:
        parts.append(f"{answered} connections went on")
    if silence is not None and _seconds(silence) >= SILENT_S:
        parts.append(f"then silence, {_seconds(silence):.0f} s at the longest")
    return facts, f" Afterwards {', '.join(parts)}." if parts else ""


def _seconds(ns: Any) -> float:
    return round(int(ns) / 1e9, 3)


def _passed(case: Case, replayed: tuple[Any, ...]) -> tuple[Evidence, ...]:
    """Return packets of the same connections that this host let pass before: they were known."""
    return tuple(
        evidence
        for item in replayed[:MAX_PASSED]
        if item.passed_row is not None
        for evidence in case.evidence(
            "related",
            item.vantage,
            [item.passed_row],
            "a packet of the same connection that passed before: it was established",
        )
    )


def _verify(first: dict[str, Any]) -> tuple[str, ...]:
    tool = "ip6tables" if first["ip_version"] == 6 else "iptables"
    return (
        f"{tool} -vnL INPUT --line-numbers  # the counter of the REJECT rule stands still",
        "conntrack -S  # invalid= stands still",
        "tcpdump -ni IFACE 'icmp[icmptype] == 3 and icmp[icmpcode] == 10'  # silent",
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
    about = (who, version, case.address_text(first, "vip"), first["vip_port"], "tcp")
    found = [
        remedies.accept_before_state(*about),
        remedies.accept_before_state_nft(*about),
        remedies.exempt_from_tracking(*about),
        remedies.exempt_from_tracking_nft(*about),
    ]
    if first["emitter"] == "realserver":
        found.append(remedies.loosen_tracking(who))
    return tuple(found)


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
        about = every.filter(pl.col("service_name") == service)
        unclear = about.filter(pl.col("established"), pl.col("quoted_syn").is_null()).height
        unclear += case.cut_prohibitions
        if unclear:
            yield NotExamined(
                scope=Scope(service=service),
                reason=f"{unclear} prohibitions quote, or the captures keep, too little to tell "
                "whether they answer a request or an established connection",
                needs=("whole packets (snaplen 0)",),
                capture_command=case.capture_command(role="director"),
            )
            continue
        others = about.height
        note = f"{others} prohibitions answer requests for a connection" if others else ""
        yield Clean(scope=Scope(service=service), examined=Examined(connections=count), note=note)
