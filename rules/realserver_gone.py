"""Requests keep going to a realserver that is not there any more.

Symptom
    Every second client, or every third, waits in vain, the others are served at once; which ones
    fail changes with the scheduler. Some get "no route to host" after three seconds. Or: sessions
    of one realserver hang all at the moment when it was taken out of the service.

Mechanism
    ip_vs checks nobody. As long as a dead realserver is in the table with a weight above 0, new
    connections go to it, and those that have an entry do even with weight 0. Its MAC stays in the
    neighbour table for a while, so that frames leave and nothing answers; then ARP requests stay
    unanswered, in rounds of three, and the director tells the client host unreachable (3/1). Where
    the realserver was removed from the table instead, packets of its connections are dropped in
    silence while expire_nodest_conn is 0, and the client repeats itself for a quarter of an hour.
    A quiesced realserver (weight 0) gets no new clients, but ports used again meet their old entry
    and keep it busy.

Evidence
    The request that clients repeat, at the director coming and leaving, and no answer anywhere;
    the ARP requests for the realserver; the director's host unreachable; connections of other
    realservers that are served meanwhile; the last frame that was heard of this one.

Not this rule
    - A realserver that is alive but does not answer for the VIP (realserver-ignores-vip).
    - Only large packets are repeated (pmtud-blackhole), or somebody refuses (service-refused).
    - One client's request that is lost twice: that takes three transmissions and two connections.
    - A realserver that was taken out and gets no requests: ARP for it may stay unanswered.
    - Connections of all realservers hang at once: the way to or from the cluster is broken.

Remedy
    Take it out of the service (a health check does so within seconds), set expire_nodest_conn=1,
    so that clients are told, and expire_quiescent_template=1 with persistence.

References
    ip_vs_in and ip_vs_conn_drop_conntrack in net/netfilter/ipvs/ip_vs_core.c;
    Documentation/networking/ipvs-sysctl.rst; RFC 1122 section 2.3.2.2; arp(7).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from pcapdiag.kernel import ipvs_remedies
from pcapdiag.protocols import IpProto
from pcapdiag.rule import (
    MAX_INCIDENTS,
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

MAX_CITED = 10
"""Connections cited in a finding; the full count stands beside them."""

SECOND_NS = 1_000_000_000

SMALL_BYTES = 576
"""Every host takes packets of this size (RFC 791): one that is lost was not lost for its size."""

SILENT_NS = 2_500_000_000
"""How long a client must have waited in vain: three SYNs take 3 s (RFC 6298 with backoff), less
what timers of a first data segment save."""

ENOUGH_CONNECTIONS = 2
"""Connections in vain from which a silent realserver, and not one client's bad path, is blamed."""

ALIVE_NS = 1_000_000_000
"""A frame that the realserver sent this long after it fell silent shows that the host lives."""

CHANCE = 0.001
"""Chance of being wrong below which "the scheduler avoids it" is no accident."""

TITLES = {
    "destination-removed": "was removed from the service while its connections live",
    "arp-unanswered": "answers no ARP and still gets requests",
    "host-unreachable": "is unreachable and still gets requests",
    "silent": "has fallen silent and still gets requests",
}


@rule(
    title="A realserver that is gone",
    severity=Severity.HIGH,
    needs=Needs(
        protocols=(IpProto.TCP,),
        text="the director, with ARP; clients or router to see that nothing answers",
    ),
    since="0.1",
)
def check(case: Case) -> Iterator[Outcome]:
    """Judge requests in vain per service, realserver and fate; then quiesced realservers."""
    vain = case.vanished.filter(
        pl.col("opening") | (pl.col("tail_ip_len") <= SMALL_BYTES),
        (pl.col("last_ns") - pl.col("first_ns") >= SILENT_NS) | pl.col("error_row").is_not_null(),
    )
    suspects = vain.filter(
        pl.col("realserver_text").is_not_null() | pl.col("error_row").is_not_null(),
    )
    found: set[str | None] = set()
    for rows in incidents(suspects, "service_name", "realserver_text", "fate"):
        finding = _judge(case, rows.sort("first_ns", "connection"))
        if finding:
            found.add(rows["service_name"][0])
            yield finding
    for finding in _reused(case):
        found.add(finding.scope.service)
        yield finding
    # What reached a realserver and was not answered there is realserver-ignores-vip's question.
    unclear = (
        vain.filter(pl.col("reached") == 0)
        .group_by("service_name")
        .len()
        .filter(pl.col("len") >= ENOUGH_CONNECTIONS)
    )
    yield from _rest(case, found, dict(unclear.iter_rows()))


def _judge(case: Case, rows: pl.DataFrame) -> Finding | None:
    """Return a finding where more than chance, and nothing else, explains the silence."""
    first = rows.row(0, named=True)
    peers = _peers(case, first["service_name"], first["realserver_text"], first["first_ns"])
    if first["fate"] == "undeliverable":
        code = "arp-unanswered" if rows["vain_row"].drop_nulls().len() else "host-unreachable"
        return _finding(case, rows, code, peers, Confidence.HIGH)
    if first["fate"] == "dropped":
        seen = int(rows["repeats"].sum())
        proven = case.absence_is_proof(first["vantage"], seen, by_client=True)
        if not proven or peers["own_active_after"] >= rows.height:
            return None
        return _finding(case, rows, "destination-removed", peers, Confidence.MEDIUM)
    heard = max(rows["heard_ns"].drop_nulls(), default=None)
    alive = heard is not None and heard > first["first_ns"] + ALIVE_NS
    if (
        first["fate"] != "sent"
        or rows.height < ENOUGH_CONNECTIONS
        or alive
        or rows["reached"].sum()
        or peers["own_served_after"]
        or not peers["others_served_after"]
        or not (peers["own_served_before"] or heard is not None)
    ):
        return None
    sure = bool(rows["sighted"].any()) and bool(peers["own_served_before"])
    return _finding(case, rows, "silent", peers, Confidence.HIGH if sure else Confidence.MEDIUM)


def _peers(case: Case, service: str | None, realserver: str | None, since: int) -> dict[str, int]:
    """Count what the realserver and the others of the service did before and since."""
    served = case.served.filter(pl.col("service_name").eq_missing(service))
    mine = pl.col("realserver_name").eq_missing(pl.lit(realserver))
    begun_after = pl.col("first_ns") > since
    return {
        "own_served_before": served.filter(mine, ~begun_after).height,
        "own_served_after": served.filter(mine, begun_after).height,
        "own_active_after": served.filter(mine, pl.col("last_ns") > since + SECOND_NS).height,
        "others_served_after": served.filter(~mine, begun_after).height,
    }


def _finding(
    case: Case, rows: pl.DataFrame, code: str, peers: dict[str, int], confidence: Confidence
) -> Finding:
    first = rows.row(0, named=True)
    service, realserver = first["service_name"], first["realserver_text"]
    name = realserver or "a realserver"
    errors = rows["error_row"].drop_nulls().len()
    asked = max(rows["vain_requests"].drop_nulls(), default=0)
    silent = (int(rows["last_ns"].max()) - first["first_ns"]) / SECOND_NS  # type: ignore[arg-type]
    cause = Cause(code=code, text=_text(code, asked, errors))
    return Finding(
        title=f"{name} {TITLES[code]} ({service})",
        summary=(
            f"{counted(rows.height, 'connection')} of {service} for {name} got no answer within "
            f"{silent:.3g} s, while {peers['others_served_after']} that began since were served by "
            f"others: {cause.text}."
        ),
        cause=cause,
        severity=Severity.HIGH,
        confidence=confidence,
        evidence=_evidence(case, rows, code),
        evidence_count=int(rows["repeats"].sum()),
        scope=Scope(service=service, realserver=realserver, direction="to-realserver"),
        hosts={"realserver": name},
        flows=case.flow_refs(rows["connection"].to_list()),
        flow_count=rows.height,
        examined_count=case.connection_count(service),
        first_seen_ns=first["first_ns"],
        last_seen_ns=rows["last_ns"].max(),  # type: ignore[arg-type]
        count=int(rows["repeats"].sum()),
        facts={
            "realserver": realserver,
            "connections": rows.height,
            "arp_requests_in_vain": asked,
            "host_unreachable_sent": errors,
            "answers_would_show": bool(rows["sighted"].any()),
            **peers,
        },
        alternatives=_alternatives(code),
        remedies=_remedies(case, first, code),
        verify=(
            "ipvsadm -Ln --stats  # director: OutPkts (NAT) or the realserver's counters grow",
            "curl -sv --connect-timeout 3 http://VIP:PORT/  # several times: each is answered",
        ),
        filters=Filters(
            wireshark="tcp.analysis.retransmission || arp.opcode == 1 || icmp.type == 3",
            tcpdump="arp or (icmp[icmptype] == 3) or tcp[tcpflags] & tcp-syn != 0",
        ),
        references=("net/netfilter/ipvs/ip_vs_core.c", "ipvs-sysctl.rst, expire_nodest_conn"),
    )


def _text(code: str, asked: int, errors: int) -> str:
    if code == "arp-unanswered":
        told = f"; it told clients so {errors} times" if errors else ""
        return f"the director asked for its MAC {asked} times in a row, and nobody answered{told}"
    return {
        "host-unreachable": "the director tells the clients that their host is unreachable, which "
        "it does when ARP for a realserver stays unanswered",
        "destination-removed": "the director drops what it forwarded before, without a word, as "
        "ip_vs does for a destination that is not in the service any more "
        "(expire_nodest_conn=0)",
        "silent": "the director sends them on, and nothing of this host was heard since",
    }[code]


def _alternatives(code: str) -> tuple[str, ...]:
    if code == "destination-removed":
        return (
            (
                "A firewall of the director that drops established packets: its counters tell; "
                "less likely where all connections of one realserver are hit and no other."
            ),
            "The realserver is still in the table but marked unavailable by its upper threshold.",
        )
    if code == "silent":
        return (
            (
                "Its answers are lost on their way to the clients: less likely where other "
                "realservers share that way."
            ),
            "A firewall there drops what comes to the VIP: its capture would show the requests.",
        )
    return ("The realserver lives in another VLAN or its switch port is down: for ip_vs the same.",)


def _remedies(case: Case, row: dict[str, Any], code: str) -> tuple[Remedy, ...]:
    expire = ipvs_remedies.expire_with_destination("the director")
    if code == "destination-removed":
        return (expire,)
    vip = case.address_text(row, "vip")
    rip = case.address_text(row, "vain" if row["vain_lo"] is not None else "realserver")
    service = ipvs_remedies.service_option(int(IpProto.TCP), vip, row["vip_port"])
    known = None if rip == "unknown" else rip
    return (ipvs_remedies.take_out("the director", service, known, row["method"]), expire)


def _evidence(case: Case, rows: pl.DataFrame, code: str) -> tuple[Evidence, ...]:
    first = rows.row(0, named=True)
    cited: list[Evidence] = []
    vain = rows.filter(pl.col("vain_row").is_not_null()).unique(
        ["vain_vantage", "vain_row"], maintain_order=True
    )
    for row in vain.head(MAX_CITED).iter_rows(named=True):
        note = f"the first of {row['vain_requests']} ARP requests that nobody answers"
        cited.extend(case.evidence("primary", row["vain_vantage"], [row["vain_row"]], note))
        last = [row["vain_last_row"]]
        cited.extend(case.evidence("related", row["vain_vantage"], last, "the last of them"))
    told = rows.filter(pl.col("error_row").is_not_null())
    for row in told.head(MAX_CITED).iter_rows(named=True):
        note = "the director tells the client: host unreachable"
        cited.extend(case.evidence("primary", row["error_vantage"], [row["error_row"]], note))
    role = "related" if vain.height or told.height else "primary"
    went = "does not leave" if code == "destination-removed" else "is not answered"
    for row in rows.head(MAX_CITED).iter_rows(named=True):
        note = f"the request, {row['repeats']} times from here on, {went}"
        cited.extend(case.evidence(role, row["vantage"], [row["first_row"]], note))
        cited.extend(case.evidence("related", row["vantage"], [row["last_row"]], "the last time"))
    if first["heard_row"] is not None and code == "silent":
        note = "the last frame heard from the realserver"
        cited.extend(case.evidence("related", first["heard_vantage"], [first["heard_row"]], note))
    return tuple(cited)


def _reused(case: Case) -> Iterator[Finding]:
    """Find realservers that only reused ports still reach: quiesced, and kept busy."""
    asked = case.openings.filter(pl.col("attempt") == 0, pl.col("out_row").is_not_null()).join(
        case.members.select("connection", "service_name", "realserver_name", "method"),
        on="connection",
    )
    fresh = pl.col("closed_ns").is_null()
    per = (
        asked.drop_nulls("realserver_name")
        .group_by("service_name", "realserver_name")
        .agg(
            pl.col("row").filter(fresh).max().alias("last_fresh"),
            pl.col("vantage").filter(fresh).last().alias("at"),
        )
        .drop_nulls()
        .sort("service_name", "realserver_name")
    )
    for row in per.head(MAX_INCIDENTS).iter_rows(named=True):
        service = pl.col("service_name") == row["service_name"]
        later = asked.filter(
            service, pl.col("vantage") == row["at"], pl.col("row") > row["last_fresh"]
        )
        mine = pl.col("realserver_name") == row["realserver_name"]
        others = later.filter(fresh, ~mine).height
        share = per.filter(service).height
        reused = later.filter(~fresh, mine).sort("row")
        if share > 1 and reused.height and (1 - 1 / share) ** others < CHANCE:
            yield _reused_finding(case, row, reused, others)


def _reused_finding(case: Case, row: dict[str, Any], reused: pl.DataFrame, others: int) -> Finding:
    service, realserver = row["service_name"], row["realserver_name"]
    cited: list[Evidence] = []
    for item in reused.head(MAX_CITED).iter_rows(named=True):
        note = "a SYN from a port used before goes to it"
        cited.extend(case.evidence("primary", item["vantage"], [item["row"]], note))
    return Finding(
        title=f"{realserver} is quiesced, and reused ports still reach it ({service})",
        summary=(
            f"None of {others} new connections of {service} went to {realserver} any more, but "
            f"{reused.height} from ports that had been used before did: it never drains."
        ),
        cause=Cause(
            code="quiesced",
            text="a SYN that meets the entry of an old connection goes where that went, whatever "
            "the weight is now",
        ),
        severity=Severity.LOW,
        confidence=Confidence.MEDIUM,
        evidence=tuple(cited),
        evidence_count=reused.height,
        scope=Scope(service=service, realserver=realserver, direction="to-realserver"),
        hosts={"realserver": realserver},
        flows=case.flow_refs(reused["connection"].to_list()),
        flow_count=reused.height,
        examined_count=case.connection_count(service),
        count=reused.height,
        facts={"reused": reused.height, "new_elsewhere": others},
        alternatives=("A scheduler that prefers others for their load (least connection).",),
        remedies=(ipvs_remedies.reschedule_reused("the director"),),
        verify=("ipvsadm -Ln  # director: ActiveConn of the realserver falls to 0",),
        filters=Filters(wireshark="tcp.flags.syn == 1", tcpdump="tcp[tcpflags] & tcp-syn != 0"),
        references=("ipvs-sysctl.rst, conn_reuse_mode",),
    )


def _rest(case: Case, found: set[str | None], unclear: dict[str, int]) -> Iterator[Outcome]:
    """Say what was looked at of the other services."""
    seen = case.connections_at("director", "client", "router")
    for service, method in case.service_methods.items():
        if service in found or not case.connection_count(service):
            continue
        if unclear.get(service):
            yield NotExamined(
                scope=Scope(service=service),
                reason=f"{counted(unclear[service], 'connection')} got no answer any more, "
                "and these captures do not tell what became of the requests",
                needs=("captures on the director, with ARP, and on each realserver",),
                capture_command=case.capture_command(role="director", method=method),
            )
        elif method and seen.get(service):
            yield Clean(scope=Scope(service=service), examined=Examined(connections=seen[service]))
        else:
            yield NotExamined(
                scope=Scope(service=service),
                reason="no capture shows requests on their way to the realservers",
                needs=("a capture on the director, with ARP",),
                capture_command=case.capture_command(role="director", method=method),
            )
