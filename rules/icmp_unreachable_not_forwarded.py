"""The director received an ICMP error for a connection, and its realserver never got it.

Symptom
    Realservers keep sending to clients that are gone, or keep their packet size although a router
    told them to shrink; routers keep sending errors to the VIP, one for each packet they drop.

Mechanism
    An error about a realserver's packet is addressed to the VIP, hence to the director. ip_vs looks
    at types 3, 4 and 11 (and all ICMPv6 errors), finds the connection by the quoted packet and
    hands the error on: unchanged to the realserver's MAC (DR), in a tunnel (TUN), or with the outer
    destination and the quoted source translated (NAT). It sits in LOCAL_IN behind the filter table,
    so that an INPUT rule removes the error before ip_vs sees it; an OUTPUT rule removes it after.

Evidence
    The error arriving at the director, and nothing like it leaving, in a capture that shows other
    packets of the service leaving and goes on for at least a second; or it leaving to the wrong
    realserver or with a quote that the realserver cannot match.

Not this rule
    - Redirects (5) and parameter problems (12) to the VIP: IPVS leaves them to the director.
    - Errors about connections that IPVS does not have (expired, another director's): local.
    - A bad checksum on a NAT director: dropped as it should be, see icmp-checksum-burst.
    - Errors about the director's own tunnel packets: consumed, and issued anew to the client.
    - The director's exit was not captured: not examined.

Remedy
    Accept ICMP types 3 and 11 in INPUT (and OUTPUT, and mangle PREROUTING) of the director, for
    every forwarding method. A rule that accepts RELATED does not do: without vs.conntrack=1 the
    connections of ip_vs are unknown to conntrack and such errors are INVALID.

References
    ip_vs_in_icmp, ip_vs_icmp_xmit and ip_vs_nat_icmp in net/netfilter/ipvs; RFC 792; RFC 1122
    section 3.2.2.1; LVS-HOWTO sections 35.1 and 35.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from pcapdiag.kernel import remedies
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
    rule,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_GROUPS = 1000
"""Incidents judged: far more than a person reads."""

MAX_CITED = 20
"""Messages cited in a finding; the full count stands beside them."""

SURE_FROM = 3
"""Messages from which a missing copy is beyond chance: no capture of a director that shows other
packets leaving loses three errors and nothing else."""

CAUSES = {
    "swallowed": (
        "swallowed-by-director",
        (
            "the errors came in and nothing went out: a firewall rule of the director (INPUT, "
            "OUTPUT or "
            "mangle) drops ICMP before or after ip_vs"
        ),
    ),
    "wrong-realserver": (
        "wrong-realserver",
        "the errors went out to another realserver than the one that owns the connection",
    ),
    "wrong-translation": (
        "wrong-translation",
        (
            "the errors went out with addresses, ports or a checksum in which the realserver does "
            "not "
            "recognise its connection"
        ),
    ),
}

REASONS = {
    "no-egress-visible": "the captures do not show what leaves the director",
    "ends-too-early": "the capture ends too soon after the errors",
    "no-connection": "no packet of the quoted connections was captured, so that nobody can say "
    "whether IPVS had them",
}


@rule(
    title="ICMP errors not forwarded by the director",
    severity=Severity.HIGH,
    needs=Needs(
        roles=("director",),
        protocols=(IpProto.ICMP, IpProto.ICMPV6),
        text="the director, all interfaces, whole ICMP packets",
    ),
    since="0.1",
)
def check(case: Case) -> Iterator[Outcome]:
    """Judge what the director did with each error, one finding per service and failure."""
    errors = case.arrived_errors
    broken = errors.filter(pl.col("verdict").cast(pl.String).is_in(sorted(CAUSES)))
    groups = (
        broken.group_by("service_name", "verdict")
        .len()
        .sort("len", "service_name", "verdict", descending=[True, False, False])
    )
    for group in groups.head(MAX_GROUPS).iter_rows(named=True):
        yield _finding(
            case,
            broken.filter(
                pl.col("service_name").eq_missing(group["service_name"]),
                pl.col("verdict") == group["verdict"],
            ),
            examined=errors.filter(pl.col("service_name").eq_missing(group["service_name"])),
        )
    yield from _rest(errors)


def _finding(case: Case, errors: pl.DataFrame, examined: pl.DataFrame) -> Finding:
    first = errors.row(0, named=True)
    code, text = CAUSES[first["verdict"]]
    kinds = (
        errors.group_by("ip_version", "icmp_type", "icmp_code").len().sort("len", descending=True)
    )
    words = ", ".join(
        f"{row['len']} x {icmp_name(row['ip_version'], row['icmp_type'], row['icmp_code'])}"
        for row in kinds.iter_rows(named=True)
    )
    realservers = tuple(sorted(errors["realserver_name"].drop_nulls().unique()))
    connections = errors["connection"].unique(maintain_order=True).to_list()
    directors = ", ".join(case.director_names) or "the director"
    return Finding(
        title=f"ICMP errors do not reach the realservers ({first['service_name']})",
        summary=(
            f"{errors.height} ICMP error{'s' * (errors.height != 1)} ({words}) for "
            f"{len(connections)} connection{'s' * (len(connections) != 1)} of "
            f"{first['service_name']} reached {directors} and not the realserver: {text}."
        ),
        cause=Cause(code=code, text=text),
        severity=Severity.HIGH,
        confidence=Confidence.HIGH if errors.height >= SURE_FROM else Confidence.LOW,
        evidence=_evidence(case, errors),
        evidence_count=errors.height,
        scope=Scope(
            service=first["service_name"],
            realserver=realservers[0] if len(realservers) == 1 else None,
            direction="to-realserver",
        ),
        hosts={"director": case.director_names, "realservers": realservers},
        flows=case.flow_refs(connections),
        flow_count=len(connections),
        examined_count=examined["connection"].n_unique(),
        first_seen_ns=errors["first_ns"].min(),  # type: ignore[arg-type]
        last_seen_ns=errors["first_ns"].max(),  # type: ignore[arg-type]
        count=errors.height,
        facts={
            "messages": errors.height,
            "messages_forwarded": examined.filter(pl.col("verdict") == "forwarded").height,
            "next_hop_mtu": errors["next_hop_mtu"].min(),  # type: ignore[dict-item]
        },
        alternatives=(
            (
                "A backup director (vs.backup_only=1) or one that lost the connection entry: less "
                "likely, since data packets of the same connections were forwarded."
            ),
            (
                "The capture lost the outgoing copies: less likely, since other packets were seen "
                "to "
                "leave at that time."
            ),
        ),
        remedies=(remedies.accept_icmp_errors(directors, 6 if first["ip_version"] == 6 else 4),),
        verify=(
            "iptables -vnL INPUT  # director: the counters of the new ACCEPT rules grow",
            "tcpdump -eni IFACE icmp  # director: each error twice, coming in and going out",
        ),
        filters=Filters(
            wireshark="icmp.type in {3, 4, 11} || icmpv6.type < 128",
            tcpdump="icmp[icmptype] == 3 or icmp[icmptype] == 11 or (icmp6 and ip6[40] < 128)",
        ),
        references=("ip_vs_core.c: ip_vs_in_icmp", "RFC 792", "LVS-HOWTO section 35.1"),
    )


def _evidence(case: Case, errors: pl.DataFrame) -> tuple[Evidence, ...]:
    cited: list[Evidence] = []
    for row in errors.sort("first_ns", "message").head(MAX_CITED).iter_rows(named=True):
        name = icmp_name(row["ip_version"], row["icmp_type"], row["icmp_code"])
        what = {
            "swallowed": "came in and never left",
            "wrong-realserver": "came in and left to the wrong realserver",
            "wrong-translation": "came in and left wrongly translated",
        }[row["verdict"]]
        cited.extend(
            case.evidence("primary", row["director_vantage"], [row["in_row"]], f"{name}: {what}")
        )
        if row["out_row"] is not None:
            cited.extend(
                case.evidence("primary", row["director_vantage"], [row["out_row"]], "as it left")
            )
    return tuple(cited)


def _rest(errors: pl.DataFrame) -> Iterator[Outcome]:
    """Say per service what was forwarded as it must be, and what cannot be known."""
    per = errors.group_by("service_name", "verdict", "reason").agg(
        pl.len().alias("messages"), pl.col("connection").n_unique().alias("connections")
    )
    verdicts = pl.col("verdict").cast(pl.String)
    for service in sorted(name for name in per["service_name"].unique() if name):
        here = per.filter(pl.col("service_name") == service)
        scope = Scope(service=service)
        good = here.filter(verdicts.is_in(["forwarded", "answered", "local"]))
        if good.height and not here.filter(verdicts.is_in(sorted(CAUSES))).height:
            yield Clean(
                scope=scope,
                examined=Examined(
                    icmp_errors=int(good["messages"].sum()),
                    connections=int(good["connections"].sum()),
                ),
                note="every ICMP error was treated as IPVS must",
            )
        unknown = here.filter(verdicts == "unknown").sort("messages", descending=True)
        for row in unknown.head(1).iter_rows(named=True):
            yield NotExamined(
                scope=scope,
                reason=f"{row['messages']} errors: "
                + REASONS.get(row["reason"] or "", f"unknown ({row['reason']})"),
                needs=("captures on every interface of the director, whole packets",),
                capture_command=None,
            )
