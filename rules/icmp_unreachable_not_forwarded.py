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
    realserver or with a quote that the realserver cannot match. Packets of the same connections
    that are forwarded meanwhile prove that the entry was there, so that ip_vs never saw the error;
    errors of one kind that pass while those of another stay away prove a filter by type.
    Errors at a director that never forwarded the connection (ECMP, failover without
    synchronisation) are another cause: the entry is elsewhere.

Not this rule
    - Redirects (5) and parameter problems (12) to the VIP: IPVS leaves them to the director.
    - Errors about connections whose entry has expired: the director's own stack gets them, rightly.
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

SURE_FROM = 3
"""Messages from which a missing copy is beyond chance: no capture of a director that shows other
packets leaving loses three errors and nothing else."""

CAUSES = {
    "swallowed-by-director": "the errors came in and nothing went out: a firewall rule of the "
    "director (INPUT, OUTPUT or mangle) drops ICMP before or after ip_vs",
    "dropped-by-firewall-suspected": "errors of one kind came in and never went out, while others "
    "were handed on: ip_vs treats them alike, a firewall rule of the director does not",
    "wrong-realserver": "the errors went out to another realserver than the one that owns the "
    "connection",
    "wrong-translation": "the errors went out with addresses, ports or a checksum in which their "
    "receiver does not recognise its connection",
    "no-connection-entry": "the errors reached a director that never forwarded these connections: "
    "their entries are on another one (ECMP, or a failover without synchronisation)",
}
"""Code -> in words."""

EARLIER = (
    "The connection passed this director before its capture began: less likely, since its packets "
    "were seen elsewhere while this capture ran, and here none."
)
BACKUP = (
    "A backup director (vs.backup_only=1) or one that lost the connection entry: less likely, "
    "since data packets of the same connections were forwarded."
)
CAPTURE_LOSS = (
    "The capture lost the outgoing copies: less likely, since other packets were seen to leave at "
    "that time."
)

BROKEN = ("swallowed", "wrong-realserver", "wrong-translation")
"""Verdicts of the contract that are faults."""

WHAT = {
    "swallowed-by-director": "came in and never left",
    "dropped-by-firewall-suspected": "came in and never left",
    "wrong-realserver": "came in and left to the wrong realserver",
    "wrong-translation": "came in and left wrongly translated",
    "no-connection-entry": "came in where its connection is not known",
}

REASONS = {
    "no-connection-known": "no packet of the quoted connections was captured, so that nobody can "
    "say whether IPVS had them",
    "never-forwarded-here": "no packet of the quoted connections was seen to pass this director",
    "entry-may-have-expired": "the connections had been idle for longer than IPVS keeps an entry",
    "realserver-ambiguous": "the captures name more than one realserver for the connections",
    "other-hosts-mac": "the frames were for another host and only overheard",
    "checksum-bad": "their checksum is bad, and who drops them rightly cannot be told",
    "quote-too-short": "they quote too little to find a connection by",
    "outer-error-not-relayed": "they are about the director's own tunnel packets",
    "left-otherwise": "they left in a way that fits no forwarding method",
    "egress-not-captured": "the captures do not show what leaves the director",
    "capture-ends-too-early": "the capture ends too soon after the errors",
    "capture-dropped-packets": "the capture dropped packets itself",
}
"""The contract's reasons for not knowing, in words."""


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
    """Judge what the director did with each error, one finding per service, way and failure."""
    errors = case.arrived_errors
    verdict = pl.col("verdict").cast(pl.String)
    broken = errors.filter(verdict.is_in(BROKEN)).with_columns(_code(errors).alias("code"))
    strangers = case.stranger_errors.with_columns(pl.lit("no-connection-entry").alias("code"))
    broken = pl.concat([broken, strangers], how="diagonal_relaxed")
    for same in incidents(broken, "service_name", "code", "quoted_sender"):
        of_service = pl.col("service_name").eq_missing(same["service_name"][0])
        yield _finding(case, same, examined=errors.filter(of_service))
    yield from _rest(errors, strangers)


def _code(errors: pl.DataFrame) -> pl.Expr:
    """Return the cause code of a broken error; a filter by type lets other types pass."""
    verdict = pl.col("verdict").cast(pl.String)
    kinds = ["service_name", "quoted_sender", "icmp_type", "icmp_code"]
    per = errors.group_by(kinds).agg(
        (verdict == "forwarded").sum().alias("passed"), (verdict == "swallowed").sum().alias("lost")
    )
    others = per.group_by("service_name", "quoted_sender").agg(
        (pl.col("passed").filter(pl.col("lost") == 0).sum() >= SURE_FROM).alias("others_pass"),
        ((pl.col("passed") > 0) & (pl.col("lost") > 0)).any().alias("mixed"),
    )
    filtered = others.filter(pl.col("others_pass") & ~pl.col("mixed"))
    services = pl.struct("service_name", "quoted_sender").is_in(
        filtered.select(pl.struct("service_name", "quoted_sender").implode()).to_series()
    )
    return (
        pl.when((verdict == "swallowed") & services)
        .then(pl.lit("dropped-by-firewall-suspected"))
        .when(verdict == "swallowed")
        .then(pl.lit("swallowed-by-director"))
        .otherwise(verdict)
    )


def _finding(case: Case, errors: pl.DataFrame, examined: pl.DataFrame) -> Finding:
    first = errors.row(0, named=True)
    code, service = first["code"], first["service_name"]
    to_client = first["quoted_sender"] == "client"
    receivers = "clients" if to_client else "realservers"
    realservers = tuple(sorted(errors["realserver_name"].drop_nulls().unique()))
    connections = errors["connection"].unique(maintain_order=True).to_list()
    directors = ", ".join(case.director_names) or "the director"
    price = case.price(errors)
    return Finding(
        title=f"ICMP errors do not reach the {receivers} ({service})",
        summary=(
            f"{counted(errors.height, 'ICMP error')} ({_kinds(errors)}) for "
            f"{counted(len(connections), 'connection')} of "
            f"{service} reached {directors} and not the {receivers[:-1]}: {CAUSES[code]}."
            + _argument(code, price.forwarded)
            + (
                f" The price: {price.repeats} packets sent again after the first error, "
                f"{errors.height} errors for {price.packets} packets."
                if price.repeats
                else ""
            )
        ),
        cause=Cause(code=code, text=CAUSES[code]),
        severity=Severity.HIGH,
        confidence=_confidence(errors, code),
        evidence=_evidence(case, errors, code),
        evidence_count=errors.height,
        scope=Scope(
            service=service,
            realserver=realservers[0] if len(realservers) == 1 else None,
            direction="to-client" if to_client else "to-realserver",
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
            "repeated_after_the_error": price.repeats,
            "errors_for_each_packet": round(errors.height / price.packets, 2),
            "packets_forwarded_meanwhile": price.forwarded,
        },
        alternatives=_alternatives(code),
        remedies=_remedies(code, directors, 6 if first["ip_version"] == 6 else 4),
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


def _kinds(errors: pl.DataFrame) -> str:
    kinds = errors.group_by("ip_version", "icmp_type", "icmp_code").len()
    return ", ".join(
        f"{row['len']} x {icmp_name(row['ip_version'], row['icmp_type'], row['icmp_code'])}"
        for row in kinds.sort("len", "icmp_type", "icmp_code", descending=True).iter_rows(
            named=True
        )
    )


def _argument(code: str, forwarded: int) -> str:
    """Return why a firewall in front of ip_vs is suspected, from what passes meanwhile."""
    if code not in {"swallowed-by-director", "dropped-by-firewall-suspected"} or not forwarded:
        return ""
    return (
        f" {forwarded} packets of the same connections were forwarded after the first error: "
        "ip_vs knew them and never got to see the errors, as where INPUT accepts the service's "
        "port and not ICMP."
    )


def _confidence(errors: pl.DataFrame, code: str) -> Confidence:
    if errors.height < SURE_FROM:
        return Confidence.LOW
    return Confidence.MEDIUM if code == "no-connection-entry" else Confidence.HIGH


def _alternatives(code: str) -> tuple[str, ...]:
    if code == "no-connection-entry":
        return (EARLIER,)
    return (BACKUP, CAPTURE_LOSS)


def _remedies(code: str, directors: str, version: int) -> tuple[Remedy, ...]:
    if code == "no-connection-entry":
        return (remedies.share_entries(directors),)
    if code in {"wrong-realserver", "wrong-translation"}:
        return (remedies.look_at_entries(directors),)
    return (remedies.accept_icmp_errors(directors, version),)


def _evidence(case: Case, errors: pl.DataFrame, code: str) -> tuple[Evidence, ...]:
    cited: list[Evidence] = []
    for row in errors.sort("first_ns", "message").head(MAX_CITED).iter_rows(named=True):
        name = icmp_name(row["ip_version"], row["icmp_type"], row["icmp_code"])
        owner = f" (owner: {row['realserver_name']})" if row["realserver_name"] else ""
        place = row["director_vantage"]
        if row["in_row"] is not None:
            note = f"{name}: {WHAT[code]}{owner}"
            cited.extend(case.evidence("primary", place, [row["in_row"]], note))
        if row["out_row"] is not None:
            cited.extend(case.evidence("primary", place, [row["out_row"]], "as it left"))
    return tuple(cited)


def _rest(errors: pl.DataFrame, strangers: pl.DataFrame) -> Iterator[Outcome]:
    """Say per service what was forwarded as it must be, and what cannot be known."""
    errors = errors.join(strangers, on=["message", "director_vantage"], how="anti")
    per = errors.group_by("service_name", "verdict", "reason").agg(
        pl.len().alias("messages"), pl.col("connection").n_unique().alias("connections")
    )
    verdicts = pl.col("verdict").cast(pl.String)
    for service in sorted(name for name in per["service_name"].unique() if name):
        here = per.filter(pl.col("service_name") == service)
        scope = Scope(service=service)
        good = here.filter(verdicts.is_in(["forwarded", "answered", "local"]))
        if good.height and not here.filter(verdicts.is_in(BROKEN)).height:
            yield Clean(
                scope=scope,
                examined=Examined(
                    icmp_errors=int(good["messages"].sum()),
                    connections=int(good["connections"].sum()),
                ),
                note="every ICMP error was treated as IPVS must",
            )
        unknown = here.filter(verdicts == "unknown")
        unknown = unknown.sort("messages", "reason", descending=[True, False])
        for row in unknown.head(1).iter_rows(named=True):
            yield NotExamined(
                scope=scope,
                reason=f"{row['messages']} errors: "
                + REASONS.get(row["reason"] or "", f"unknown ({row['reason']})"),
                needs=("captures on every interface of the director, whole packets",),
                capture_command=None,
            )
