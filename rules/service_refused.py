"""Requests for the service are turned away: no realserver, nothing listening, or a firewall.

Symptom
    "Connection refused" or, with a firewall of the RHEL kind, "no route to host", at once and not
    after a timeout, although the host answers ping and other ports work.

Mechanism
    Who says no, and how, tells why. ip_vs that finds no destination for a service (all weights 0,
    all realservers removed by health checks) answers each request with port unreachable from the
    VIP (ip_vs_leave), never with a reset. A port that is no virtual service is refused by the
    director's own TCP with a reset. A REJECT rule says host or communication prohibited, port
    unreachable (the default of iptables) or reset, on the director or on the realserver. A reset
    from the realserver itself means that nothing listens there on the VIP and port, or such a rule:
    the two look alike.

Evidence
    The request, and the error that quotes it or the reset that acknowledges it; whose network card
    sent it, since its source is the VIP for all of them; where the MAC is not conclusive, the
    quoted TTL, which is one lower behind the director.

Not this rule
    - Packets of an established connection (host-prohibited-established) or of a forgotten one
      (connection-expired-at-director).
    - Resets from a VIP for ports that it does not serve: a scan gets them, rightly.
    - A single client that tries a closed port of the VIP; UDP to no service (traceroute, DNS).
    - A request that nobody answers at all (realserver-gone, realserver-ignores-vip).
    - Host unreachable about a realserver (realserver-gone).

Remedy
    No destination: `ipvsadm -Ln`, the health checks, the weights. Nothing listens: bind the daemon
    to the VIP or to all addresses. Firewall: accept the port before the rule that rejects.

References
    ip_vs_leave in net/netfilter/ipvs/ip_vs_core.c; nf_reject_ipv4.c; RFC 9293 section 3.10.7.1;
    RFC 1122 section 4.2.3.9; iptables-extensions(8), REJECT.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from pcapdiag.kernel import ipvs_remedies, remedies
from pcapdiag.protocols import IpProto, proto_name
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
    incidents,
    rule,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_CITED = 12
"""Refusals cited in a finding; the full count stands beside them."""

ENOUGH_CLIENTS = 2
"""Clients that must have been refused where nothing else shows that the port is a service: one
client alone may be a scanner, and a scanner comes from one address."""

OUTAGE_SHARE = 0.9
"""Share of refused among all requests of the time from which a service counts as down."""

_WORDS = {
    "port": "port unreachable",
    "prohibited": "administratively prohibited",
    "reset": "a reset",
}


@rule(
    title="Requests refused",
    severity=Severity.HIGH,
    needs=Needs(
        protocols=(IpProto.TCP, IpProto.UDP),
        text="director and realservers with Ethernet headers, to tell who refused",
    ),
    since="0.1",
)
def check(case: Case) -> Iterator[Outcome]:
    """Judge refused requests, one finding per service, kind of refusal and refusing host."""
    refused = case.refused_requests.filter(_is_a_service())
    for rows in incidents(refused, "service_name", "how", "emitter", "emitter_host"):
        of_service = pl.col("service_name").eq_missing(rows["service_name"][0])
        yield _finding(case, rows, _share(case, refused.filter(of_service)))
    yield from _rest(case, set(refused["service_name"]))


def _is_a_service() -> pl.Expr:
    """Whether more than the refusal says that clients may expect an answer from the port.

    Something forwards its connections, or others of them are opened; or several clients ask for it
    and get an ICMP error at a VIP, which a closed port does not give to TCP.
    """
    client = pl.struct("client_hi", "client_lo")
    wanted = client.n_unique().over("service_name") >= ENOUGH_CLIENTS
    told = wanted & (pl.col("how") != "reset")
    return pl.col("method").is_not_null() | (pl.col("in_cluster") & ((pl.col("opened") > 0) | told))


def _share(case: Case, refused: pl.DataFrame) -> float:
    """Return the share of a service's requests that were refused while any were, by anybody."""
    first, last = refused["first_ns"].min(), refused["first_ns"].max()
    every = case.requests_between(refused.item(0, "service_name"), first, last)
    return refused.height / max(every, refused.height)


def _finding(case: Case, rows: pl.DataFrame, share: float) -> Finding:
    first = rows.row(0, named=True)
    service, how, emitter = first["service_name"], first["how"], first["emitter"]
    who = first["emitter_host"] or {"unknown": "an unknown host", "other": "a host in between"}.get(
        emitter, f"the {emitter}"
    )
    cause = _cause(how, emitter)
    others = case.requests_between(service, rows["first_ns"].min(), rows["first_ns"].max())
    total = case.connection_count(service)
    down = share >= OUTAGE_SHARE
    return Finding(
        title=f"{who} refuses requests for {service}",
        summary=(
            f"{rows.height} of {max(others, rows.height)} requests for {service} in that time were "
            f"refused by {who} with {_WORDS[how]}: {cause.text}."
        ),
        cause=cause,
        severity=Severity.HIGH if down and rows.height > 1 else Severity.MEDIUM,
        confidence=_confidence(how, emitter, first["emitter_by"]),
        evidence=_evidence(case, rows),
        evidence_count=int(rows["refusals"].sum()),
        scope=Scope(
            service=service,
            realserver=first["emitter_host"] if emitter == "realserver" else None,
        ),
        subject=f"{how} {emitter} {first['emitter_host'] or ''}",
        hosts={"emitter": who},
        flows=case.flow_refs(rows["connection"].to_list()),
        flow_count=rows.height,
        examined_count=total,
        first_seen_ns=rows["first_ns"].min(),  # type: ignore[arg-type]
        last_seen_ns=rows["first_ns"].max(),  # type: ignore[arg-type]
        count=int(rows["refusals"].sum()),
        facts={
            "refused_with": _WORDS[how],
            "emitter": emitter,
            "emitter_told_by": first["emitter_by"],
            "refused": rows.height,
            "requests_in_that_time": others,
            "requests_in_all": total,
            "share_refused_by_anybody": round(share, 3),
            "clients": rows.select("client_hi", "client_lo").n_unique(),
        },
        alternatives=_alternatives(how, emitter),
        remedies=_remedies(case, rows, who),
        verify=(
            "ipvsadm -Ln --stats  # director: realservers with a weight, and connections that grow",
            "curl -sv --connect-timeout 3 http://VIP:PORT/  # client: answered",
        ),
        filters=Filters(
            wireshark="icmp.type == 3 || icmpv6.type == 1 || tcp.flags.reset == 1",
            tcpdump="icmp[icmptype] == 3 or icmp6[0] == 1 or tcp[tcpflags] & tcp-rst != 0",
        ),
        references=("ip_vs_core.c, ip_vs_leave", "RFC 9293 section 3.10.7.1", "nf_reject_ipv4.c"),
    )


def _cause(how: str, emitter: str) -> Cause:
    if how == "prohibited":
        return Cause(
            code={"director": "director-firewall", "realserver": "realserver-firewall"}.get(
                emitter, "firewall"
            ),
            text="a firewall rule rejects them",
        )
    if emitter == "director":
        if how == "port":
            return Cause(
                code="no-destination",
                text="ip_vs has the service, and no realserver that it may send them to",
            )
        return Cause(
            code="no-virtual-service",
            text="its own TCP answered, so that ip_vs had no virtual service for them",
        )
    if emitter == "realserver":
        if how == "port":
            return Cause(
                code="realserver-port-unreachable",
                text="nothing listens there (UDP), or a REJECT rule of iptables does so by default",
            )
        return Cause(
            code="realserver-reset",
            text="nothing listens there on the address and port asked for, or a REJECT rule says "
            "so by resets",
        )
    return Cause(code="refused", text="the captures do not show whose network card sent it")


def _confidence(how: str, emitter: str, told_by: str | None) -> Confidence:
    if emitter not in ("director", "realserver"):
        return Confidence.LOW
    sure = told_by == "mac" and not (how == "port" and emitter == "realserver")
    return Confidence.HIGH if sure else Confidence.MEDIUM


def _alternatives(how: str, emitter: str) -> tuple[str, ...]:
    if how == "port" and emitter == "director":
        return (
            (
                "A REJECT rule in INPUT, whose default in iptables is port unreachable: less "
                "likely where other services of the VIP are accepted; iptables -vnL INPUT tells."
            ),
            "Health checks that fail for a reason of their own, while the realservers are well.",
        )
    if how == "reset":
        return ("A REJECT rule with tcp-reset looks the same; its counter tells.",)
    if emitter in ("director", "realserver"):
        return (
            "A rule in front of the service's own: the order of the rules decides, not their text.",
        )
    return ("Director and realserver both answer from the VIP: a capture with MACs would tell.",)


def _remedies(case: Case, rows: pl.DataFrame, who: str) -> tuple[Remedy, ...]:
    first = rows.row(0, named=True)
    how, emitter, port = first["how"], first["emitter"], first["vip_port"]
    known = port is not None and first["vip_lo"] is not None
    vip = case.address_text(first, "vip") if known else None
    if how == "prohibited" and vip:
        version = 6 if first["ip_version"] == 6 else 4
        proto = proto_name(first["ip_proto"])
        return (remedies.accept_before_state(who, version, vip, port, proto),)
    if emitter == "director":
        service = ipvs_remedies.service_option(first["ip_proto"], vip, port)
        return (ipvs_remedies.restore_destinations(who, service, first["method"]),)
    if emitter == "realserver":
        return (ipvs_remedies.listen_on_vip(who, port),)
    return ()


def _evidence(case: Case, rows: pl.DataFrame) -> tuple[Evidence, ...]:
    cited: list[Evidence] = []
    for row in rows.head(MAX_CITED).iter_rows(named=True):
        note = f"{_WORDS[row['how']]}, in answer to a request"
        cited.extend(case.evidence("primary", row["vantage"], [row["row"]], note))
        if row["answered_row"] is not None:
            asked = [row["answered_row"]]
            cited.extend(case.evidence("related", row["vantage"], asked, "the request"))
    return tuple(cited)


def _rest(case: Case, found: set[str | None]) -> Iterator[Outcome]:
    """Say what was looked at of the other services.

    A reset shows in any capture of the client's side of the conversation; in LVS-DR and LVS-TUN a
    realserver's does not pass the director.
    """
    answered = case.connections_at("client", "router", "realserver")
    at_director = case.connections_at("director")
    unclear = _unclear(case)
    for service, method in case.service_methods.items():
        if service in found or not case.connection_count(service):
            continue
        if unclear.get(service):
            yield NotExamined(
                scope=Scope(service=service),
                reason=f"{unclear[service]} refusals quote, or the captures keep, too little to "
                "tell whether they answer a request or an established connection",
                needs=("whole packets (snaplen 0)",),
                capture_command=case.capture_command(role="director", method=method),
            )
            continue
        both = answered.get(service, 0)
        if both or (method == "nat" and at_director.get(service)):
            count = both or at_director[service]
            yield Clean(scope=Scope(service=service), examined=Examined(connections=count))
            continue
        yield NotExamined(
            scope=Scope(service=service),
            reason="the director refused nothing; what the realservers answer does not pass it"
            if at_director.get(service)
            else "no capture shows both requests and answers",
            needs=("a capture on a realserver, or on the way back to the clients",),
            capture_command=case.capture_command(role="realserver", method=method),
        )


def _unclear(case: Case) -> dict[str, int]:
    """Return per service how many errors to clients may be about requests, or about others."""
    refusals = case.unreachables.filter(
        pl.col("says").is_in(["port", "prohibited"]),
        pl.col("quoted_sender") == "client",
        pl.col("quoted_proto") == int(IpProto.TCP),
        pl.col("quoted_syn").is_null(),
    )
    return dict(refusals.group_by("service_name").len().iter_rows())
