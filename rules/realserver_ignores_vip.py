"""Requests for the VIP reach a realserver, which lives and does not answer them.

Symptom
    Every second or third client waits until its connect() times out; ping, ssh and the health check
    of the realserver's own address are all well.

Mechanism
    In LVS-DR and LVS-TUN requests arrive with the VIP as destination, and the realserver must hold
    it. Without it (a reboot, a forgotten loopback alias) Linux drops them in silence, or, where it
    routes, sends them back. In LVS-TUN it must also take them out of the tunnel: without a tunnel
    device that is up they are dropped, a strict rp_filter on tunl0 drops what came out, since the
    client is not reached by that device, and an outer source that the realserver does not accept
    (the VIP itself, another director's address) is dropped before that. Health checks of the RIP
    see nothing of this.

Evidence
    The requests at the realserver's own network card, repeated as TCP does, and no answer to any;
    their outer header; connections of other realservers that are served meanwhile.

Not this rule
    - A realserver that is not heard of any more (realserver-gone).
    - One that refuses the request: a reset or an ICMP error is an answer (service-refused). An
      error about the tunnel's packet is not: it says that no device takes it.
    - One that answers some of them: a full backlog or lost packets.
    - Frames for another host that a card in promiscuous mode saw.
    - LVS-NAT, where requests carry the realserver's own address.

Remedy
    The VIP on lo (LVS-DR) or tunl0 (LVS-TUN), tunl0 up with rp_filter 0 there and for `all` (the
    larger counts); a primary address of the director as the tunnels' source; a health check that
    asks for the VIP.

References
    ip_route_input_slow and fib_validate_source in net/ipv4; ip-sysctl.rst, rp_filter; ipip_rcv;
    ip_vs_tunnel_xmit in net/netfilter/ipvs/ip_vs_xmit.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from pcapdiag.kernel import ipvs_remedies
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

MAX_CITED = 12
"""Connections cited in a finding; the full count stands beside them."""

SILENT_NS = 2_500_000_000
"""How long a client must have waited in vain: three SYNs take 3 s (RFC 6298 with backoff), less
what timers of a first data segment save."""

ENOUGH_CONNECTIONS = 2
"""Connections in vain from which the realserver, not one client's filter, is blamed."""


@rule(
    title="A realserver that ignores the VIP",
    severity=Severity.HIGH,
    needs=Needs(
        protocols=(IpProto.TCP,),
        text="the realserver's network card, in LVS-TUN its tunnel device as well",
    ),
    since="0.1",
)
def check(case: Case) -> Iterator[Outcome]:
    """Judge requests in vain that reached a realserver, one finding per service and realserver."""
    suspects = case.vanished.filter(
        pl.col("opening"),
        pl.col("method").is_in(["dr", "tun"]),
        pl.col("reached") > 0,
        pl.col("last_ns") - pl.col("first_ns") >= SILENT_NS,
    )
    found: set[str | None] = set()
    for rows in incidents(suspects, "service_name", "realserver_text", "reached_vantage"):
        finding = _judge(case, rows.sort("first_ns", "connection"))
        if finding:
            found.add(rows["service_name"][0])
            yield finding
    for finding in _without_device(case):
        found.add(finding.scope.service)
        yield finding
    yield from _rest(case, found, _unclear(case))


def _judge(case: Case, rows: pl.DataFrame) -> Finding | None:
    """Return a finding unless the realserver answers others or unseen, or one client waits."""
    first = rows.row(0, named=True)
    since = first["first_ns"]
    served = case.served.filter(pl.col("service_name").eq_missing(first["service_name"]))
    mine = pl.col("realserver_name").eq_missing(pl.lit(first["realserver_name"]))
    later = pl.col("first_ns") > since
    if rows.height < ENOUGH_CONNECTIONS or served.filter(mine, later).height:
        return None
    before = served.filter(mine, ~later).height
    others = served.filter(~mine, later).height
    vantage = int(first["reached_vantage"])
    if not case.coverage.could_see_answers(vantage).ok:
        return None
    arrived = case.requests_at(vantage, rows["reached_row"].to_list())
    return _finding(case, rows, arrived, before, others)


def _finding(
    case: Case, rows: pl.DataFrame, arrived: pl.DataFrame, before: int, others: int
) -> Finding:
    first = rows.row(0, named=True)
    service = first["service_name"]
    vantage = case.vantages[int(first["reached_vantage"])].name
    name = first["realserver_text"] or vantage
    outer = case.address_text(arrived.row(0, named=True), "outer_src")
    tunnelled = bool(arrived["tunnel"].is_not_null().any())
    vip = case.address_text(first, "vip")
    code = _code(arrived, tunnelled=tunnelled, from_vip=outer == vip)
    cause = Cause(code=code, text=_text(code, outer))
    reached = int(rows["reached"].sum())
    return Finding(
        title=f"{name} does not answer requests for {vip} ({service})",
        summary=(
            f"{rows.height} requests for {service} reached {vantage} {reached} times in all and "
            f"got no answer, while {others} that began since were served by others: {cause.text}."
        ),
        cause=cause,
        severity=Severity.HIGH,
        confidence=Confidence.HIGH if code != "vip-not-configured" else Confidence.MEDIUM,
        evidence=_evidence(case, rows),
        evidence_count=reached,
        scope=Scope(service=service, realserver=name, direction="to-realserver"),
        hosts={"realserver": (name, vantage) if name != vantage else name},
        flows=case.flow_refs(rows["connection"].to_list()),
        flow_count=rows.height,
        examined_count=case.connection_count(service),
        first_seen_ns=first["first_ns"],
        last_seen_ns=rows["last_ns"].max(),  # type: ignore[arg-type]
        count=reached,
        facts={
            "realserver": name,
            "connections": rows.height,
            "requests_at_realserver": reached,
            "answered_before": before,
            "others_served_since": others,
            "tunnelled": tunnelled,
            "outer_source": outer if tunnelled else None,
            "sent_back": int(arrived["sent_back"].sum()),
        },
        alternatives=_alternatives(code, before),
        remedies=(ipvs_remedies.hold_vip(name, tunnelled),),
        verify=(
            "curl -sv --connect-timeout 3 http://VIP:PORT/  # several times: each is answered",
            "nstat -az IpReversePathFilter IpInAddrErrors  # realserver: stand still",
        ),
        filters=Filters(
            wireshark="tcp.flags.syn == 1",
            tcpdump="tcp[tcpflags] & tcp-syn != 0 or ip proto 4 or ip proto 47 or udp port 6080",
        ),
        references=("ip-sysctl.rst, rp_filter", "ip_vs_xmit.c, ip_vs_tunnel_xmit"),
    )


def _code(arrived: pl.DataFrame, *, tunnelled: bool, from_vip: bool) -> str:
    if arrived["sent_back"].any():
        return "forwarded-back"
    if not tunnelled:
        return "vip-not-configured"
    if from_vip:
        return "unexpected-outer-source"
    return "dropped-after-tunnel" if arrived["decapsulated"].any() else "dropped-in-tunnel"


def _text(code: str, outer: str) -> str:
    return {
        "forwarded-back": "it sends them on as a router does, so that it does not hold the VIP",
        "vip-not-configured": "it drops them in silence, as Linux does with an address it does "
        "not hold",
        "unexpected-outer-source": f"they come in a tunnel from {outer}, which is the VIP itself: "
        "a host that holds it takes that for a forgery",
        "dropped-after-tunnel": "they come out of the tunnel and go no further: rp_filter on the "
        "tunnel device, or no VIP",
        "dropped-in-tunnel": "they arrive in their tunnel and nothing follows: no tunnel device "
        "that is up, rp_filter on it, or no VIP",
    }[code]


def _alternatives(code: str, before: int) -> tuple[str, ...]:
    firewall = "A firewall there that drops, not rejects: iptables -vnL INPUT tells by its counters"
    if code in {"forwarded-back", "unexpected-outer-source"}:
        return (f"{firewall}.",)
    if before:
        return (
            f"{firewall}; likely where it answered until a rule was added.",
            "The daemon hangs with a full backlog: ss -ltn shows Recv-Q at its limit.",
        )
    return (
        f"{firewall}.",
        "Its answers leave by a card that was not captured, and get lost behind it.",
    )


def _evidence(case: Case, rows: pl.DataFrame) -> tuple[Evidence, ...]:
    cited: list[Evidence] = []
    for row in rows.head(MAX_CITED).iter_rows(named=True):
        cited.extend(_of_connection(case, row))
    return tuple(cited)


def _without_device(case: Case) -> Iterator[Finding]:
    """Find realservers that refuse the tunnel itself: no device takes its packets.

    tunnel4_rcv and gre_rcv say port or protocol unreachable about the outer packet.
    """
    refused = case.unreachables.filter(
        "about_tunnel", pl.col("says") == "port", pl.col("method") == "tun"
    )
    for rows in incidents(refused, "service_name", "src_hi", "src_lo"):
        first = rows.row(0, named=True)
        service = first["service_name"]
        name = case.host_of_address(first["src_hi"], first["src_lo"])
        connections = rows["connection"].unique(maintain_order=True).to_list()
        cited: list[Evidence] = []
        for row in rows.head(MAX_CITED).iter_rows(named=True):
            note = "port unreachable about the tunnel's packet, not about the client's"
            cited.extend(case.evidence("primary", row["seen_vantage"], [row["seen_row"]], note))
        cause = Cause(
            code="no-tunnel-device",
            text="it has no tunnel device that is up, and says so about the tunnel's packets",
        )
        yield Finding(
            title=f"{name} takes nothing out of its tunnel ({service})",
            summary=(
                f"{counted(len(connections), 'connection')} of {service} were "
                f"refused by {name} with port unreachable about the outer packet: {cause.text}."
            ),
            cause=cause,
            severity=Severity.HIGH,
            confidence=Confidence.HIGH,
            evidence=tuple(cited),
            evidence_count=rows.height,
            scope=Scope(service=service, realserver=name, direction="to-realserver"),
            hosts={"realserver": name},
            flows=case.flow_refs(connections),
            flow_count=len(connections),
            examined_count=case.connection_count(service),
            first_seen_ns=rows["first_ns"].min(),  # type: ignore[arg-type]
            last_seen_ns=rows["first_ns"].max(),  # type: ignore[arg-type]
            count=rows.height,
            facts={"realserver": name, "connections": len(connections), "tunnelled": True},
            alternatives=("A REJECT rule for the tunnel's protocol: iptables -vnL INPUT tells.",),
            remedies=(ipvs_remedies.hold_vip(name, tunnelled=True),),
            verify=("ip -d link show type ipip  # realserver: tunl0 is UP",),
            filters=Filters(wireshark="icmp.type == 3", tcpdump="icmp[icmptype] == 3"),
            references=("net/ipv4/tunnel4.c, tunnel4_rcv",),
        )


def _of_connection(case: Case, row: dict[str, Any]) -> Iterator[Evidence]:
    note = f"the request arrives, {row['reached']} times from here on, and is not answered"
    yield from case.evidence("primary", row["reached_vantage"], [row["reached_row"]], note)
    if row["vantage"] != row["reached_vantage"]:
        note = "the request at the vantage before"
        yield from case.evidence("related", row["vantage"], [row["first_row"]], note)


def _unclear(case: Case) -> dict[str, int]:
    """Return per service how many requests in vain may have reached a realserver unseen."""
    captured = [case.vantages[vantage.index].name for vantage in case.vantages_of("realserver")]
    vain = case.vanished.filter(
        pl.col("opening"),
        pl.col("last_ns") - pl.col("first_ns") >= SILENT_NS,
        (pl.col("reached") > 0)
        | (pl.col("fate").is_in(["sent", "unknown"]))
        & ~pl.col("realserver_name").is_in(captured).fill_null(value=False),
    )
    counted = vain.group_by("service_name").len().filter(pl.col("len") >= ENOUGH_CONNECTIONS)
    return dict(counted.iter_rows())


def _rest(case: Case, found: set[str | None], unclear: dict[str, int]) -> Iterator[Outcome]:
    """Say what was looked at of the other DR and TUN services."""
    seen = case.connections_at("realserver")
    deaf = [
        answers.reason
        for vantage in case.vantages_of("realserver")
        if not (answers := case.coverage.could_see_answers(vantage.index)).ok
    ]
    for service, method in case.service_methods.items():
        if service in found or method not in ("dr", "tun") or not case.connection_count(service):
            continue
        if method == "tun" and case.cut_tunnel_refusals:
            yield NotExamined(
                scope=Scope(service=service),
                reason=f"{case.cut_tunnel_refusals} errors come from where tunnels end, and the "
                "captures cut off what they are about",
                needs=("whole packets (snaplen 0)",),
                capture_command=case.capture_command(role="realserver", method=method),
            )
        elif unclear.get(service) and not deaf:
            yield NotExamined(
                scope=Scope(service=service),
                reason=f"{unclear[service]} requests were repeated in vain, and whether they reach "
                "a realserver that could answer no capture tells",
                needs=("a capture on each realserver, of both directions",),
                capture_command=case.capture_command(role="realserver", method=method),
            )
        elif seen.get(service) and not deaf:
            yield Clean(scope=Scope(service=service), examined=Examined(connections=seen[service]))
        else:
            yield NotExamined(
                scope=Scope(service=service),
                reason=deaf[0]
                if deaf
                else "no capture of a realserver shows whether requests reach it",
                needs=("a capture on each realserver, of both directions",),
                capture_command=case.capture_command(role="realserver", method=method),
            )
