"""The same packet comes by again and again, each time with a lower TTL.

Symptom
    Some connections are never opened, and a small number of requests makes a lot of traffic: the
    LAN of the cluster is busy, the directors' CPUs, too, and clients get "time to live exceeded".

Mechanism
    Somebody forwards the packet to somebody who forwards it back. Two hosts that are directors of
    the same service and realservers of each other do so in LVS-DR and LVS-TUN (each balances what
    the other sends it), a backup director that is not silent, or a realserver without the VIP that
    routes. Outside, two routers whose routes contradict each other. Each round costs one or two of
    the TTL; when it is spent, the last one says time exceeded (11/0).

Evidence
    One packet (same addresses, ports, sequence number and IP ID) seen with at least five TTLs,
    falling, within the time that forwarding takes, and the MACs that pass it to each other.

Not this rule
    - A director's or router's copy of what it forwards: the same packet twice, one TTL apart.
    - A packet that passes a second box on the LAN and comes back: four sights.
    - Retransmissions, which have IP IDs of their own and TTLs that do not fall.
    - Traceroute, whose TTLs rise, each with a packet of its own.

Remedy
    backup_only=1 on a synchronised backup; no virtual service on a host that is a realserver of the
    same VIP; routes that agree.

References
    RFC 791 (time to live); RFC 1812 section 5.3.1; Documentation/networking/ipvs-sysctl.rst,
    backup_only; LVS-HOWTO, LVS-DR with director and realserver on one host.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from pcapdiag.kernel import ipvs_remedies
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
"""Packets cited in a finding; the full count stands beside them."""


@rule(
    title="Packets in a loop",
    severity=Severity.HIGH,
    needs=Needs(text="a host on the LAN where it loops: director or router, with Ethernet headers"),
    since="0.1",
)
def check(case: Case) -> Iterator[Outcome]:
    """Judge looping packets, one finding per service and set of MACs that pass them on."""
    every = case.loops.with_columns(
        pl.col("macs").list.eval(pl.element().cast(pl.String)).list.join(" ").alias("ring")
    )
    seen: set[tuple[object, frozenset[str]]] = set()
    for rows in incidents(every, "service_name", "ring"):
        first = rows.row(0, named=True)
        ring = (first["service_name"], frozenset(_names(case, first["macs"])))
        if ring not in seen:
            seen.add(ring)
            yield _finding(case, rows)
    if every.height:
        return
    packets = sum(
        vantage.packets.lazy().select(pl.col("ttl").count()).collect().item()
        for vantage in case.vantages
        if vantage.packets.height
    )
    if packets and not case.holds_more_than_icmp:
        yield NotExamined(
            reason="the captures hold nothing but ICMP: what goes round may be anything else",
            needs=("the packets themselves: no capture filter that keeps ICMP only",),
            capture_command=case.capture_command(role="director"),
        )
    elif packets:
        yield Clean(examined=Examined(packets=packets), note="no packet was seen with five TTLs")


def _names(case: Case, macs: list[int]) -> list[str]:
    return [case.host_of_mac(mac) or case.mac_text(mac) for mac in macs]


def _finding(case: Case, rows: pl.DataFrame) -> Finding:
    first = rows.row(0, named=True)
    names = list(dict.fromkeys(_names(case, first["macs"])))
    roles = {case.role_of_mac(mac) for mac in first["macs"]}
    members = bool(roles & {"director", "realserver"})
    target = case.address_text(first, "dst")
    service = first["service_name"]
    connections = rows["connection"].drop_nulls().unique(maintain_order=True).to_list()
    between = " and ".join(names[:4]) or "hosts whose MACs are not known"
    cause = Cause(
        code="members-loop" if members else "routers-loop",
        text=f"{between} pass "
        + (
            "packets for the VIP to each other, each believing that the other is to serve them"
            if members
            else "them to each other: their routes contradict"
        ),
    )
    longest = rows.sort("sights", descending=True, maintain_order=True).row(0, named=True)
    spent = rows["expired_row"].drop_nulls().len()
    # A loop is seen at each host that has part in it: the one that shows most packets counts.
    packets = max(rows.group_by("vantage").len()["len"])
    return Finding(
        title=f"Packets for {service or target} go round between {between}",
        summary=(
            f"{counted(packets, 'packet')} for {service or target} came by up to "
            f"{longest['sights']} times, with a TTL that fell from {longest['ttl_first']} to "
            f"{longest['ttl_last']}: {cause.text}."
        ),
        cause=cause,
        severity=Severity.HIGH,
        confidence=Confidence.HIGH,
        evidence=_evidence(case, rows),
        evidence_count=int(rows["sights"].sum()),
        scope=Scope(service=service),
        subject=" ".join(sorted(names)),
        hosts={"loop": tuple(names)},
        flows=case.flow_refs(connections),
        flow_count=len(connections),
        examined_count=case.connection_count(service),
        first_seen_ns=rows["first_ns"].min(),  # type: ignore[arg-type]
        last_seen_ns=rows["first_ns"].max(),  # type: ignore[arg-type]
        count=packets,
        facts={
            "packets": packets,
            "most_sights": longest["sights"],
            "lowest_ttl": int(min(rows["ttl_last"])),
            "macs": ", ".join(case.mac_text(mac) for mac in first["macs"]),
            "time_exceeded_seen": spent,
        },
        alternatives=(
            (
                "A failover in which the old director still routes to the new one: that is one "
                "more sight or two, not a loop, and ends with the neighbour entry."
            ),
        ),
        remedies=(ipvs_remedies.break_loop(between),),
        verify=("tcpdump -eni IFACE 'ip[8] < 32 and dst host VIP'  # director: silent",),
        filters=Filters(
            wireshark="ip.ttl < 32 || icmp.type == 11", tcpdump="ip[8] < 32 or icmp[icmptype] == 11"
        ),
        references=("RFC 1812 section 5.3.1", "ipvs-sysctl.rst, backup_only"),
    )


def _evidence(case: Case, rows: pl.DataFrame) -> tuple[Evidence, ...]:
    cited: list[Evidence] = []
    for row in rows.head(MAX_CITED).iter_rows(named=True):
        note = f"first seen here, with TTL {row['ttl_first']}; {row['sights']} times in all"
        cited.extend(case.evidence("primary", row["vantage"], [row["row"]], note))
        note = f"the same packet for the last time, TTL {row['ttl_last']}"
        cited.extend(case.evidence("primary", row["vantage"], [row["last_row"]], note))
        if row["expired_row"] is not None:
            spent = [row["expired_row"]]
            cited.extend(case.evidence("related", row["vantage"], spent, "time exceeded"))
    return tuple(cited)
