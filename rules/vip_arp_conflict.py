"""Two network cards answer ARP for the virtual address.

Symptom
    The service works for some and not for others, changes every few minutes, or all clients end at
    one realserver and get nothing from the others. After a reboot of a realserver it is worse.

Mechanism
    In LVS-DR and LVS-TUN every realserver has the VIP and must not say so. Linux answers ARP for
    any of its addresses on any interface unless arp_ignore says otherwise, so that router and
    clients on the LAN get two answers, the director's and the realserver's; the one that comes
    first wins until the neighbour entry ages. What wins by accident goes to one realserver without
    being balanced, and breaks connections that others hold. Two directors that are both master
    answer twice as well.

Evidence
    Two answers to one question about the VIP, within a second, with different MACs: at the asking
    host or at the realserver, for a switch does not show them to the director; and where the
    asker's frames for the VIP went afterwards.

Not this rule
    - A change of mastership: one owner answers before it and another after it, however soon.
    - Two answers of which each has a question of its own.
    - Gratuitous ARP of a new master, however often it is repeated.
    - Different MACs told to different askers (bonding in mode balance-alb does so).
    - Two answers about an address that is no VIP.

Remedy
    arp_ignore=1 and arp_announce=2 on the realservers before they get the VIP, the VIP on lo with
    a host mask; for two masters: let VRRP through between them; for two cards of the director:
    arp_ignore=1 alone, the VIP stays where it is. Flush the neighbour entries.

References
    RFC 826; RFC 5227 section 2.4; Documentation/networking/ip-sysctl.rst, arp_ignore and
    arp_announce; LVS-HOWTO, the ARP problem.
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
    Remedy,
    Severity,
    counted,
    incidents,
    rule,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_CITED = 12
"""Pairs of answers cited in a finding; the full count stands beside them."""


@rule(
    title="Two answers to ARP for the VIP",
    severity=Severity.HIGH,
    needs=Needs(text="the router or another host that asks for the VIP, with ARP"),
    since="0.1",
)
def check(case: Case) -> Iterator[Outcome]:
    """Judge double answers, one finding per VIP and pair of MACs."""
    pairs = case.two_answers.with_columns(
        pl.min_horizontal("first_mac", "second_mac").alias("low"),
        pl.max_horizontal("first_mac", "second_mac").alias("high"),
    )
    for rows in incidents(pairs, "vip_hi", "vip_lo", "low", "high"):
        yield _finding(case, rows.sort("first_ns", "vantage", "first_row"))
    if pairs.height:
        return
    vips = {item.vip for item in case.topology.services if item.vip}
    answers = sum(count for vip, count in case.vips_answered_for.items() if vip in vips)
    if answers:
        yield Clean(
            examined=Examined(packets=answers), note="each question about a VIP had one answer"
        )
    elif vips:
        yield NotExamined(
            reason="no capture of a host that asks for a VIP shows what it was answered",
            needs=("a capture on the router that keeps ARP",),
            capture_command=case.capture_command(role="router"),
        )


def _finding(case: Case, rows: pl.DataFrame) -> Finding:
    first = rows.row(0, named=True)
    vip = case.address_text(first, "vip")
    macs = [first["low"], first["high"]]
    names = [case.host_of_mac(mac) or case.mac_text(mac) for mac in macs]
    roles = [case.role_of_mac(mac) for mac in macs]
    code, text = _cause(roles, same_host=names[0] == names[1])
    asker = case.host_of_mac(first["asker_mac"]) or case.mac_text(first["asker_mac"])
    went = case.frames_to((first["vip_hi"], first["vip_lo"]), first["asker_mac"], macs)
    counts = {case.mac_text(row["mac"]): row["frames"] for row in went.iter_rows(named=True)}
    astray = went.filter(
        pl.col("mac").is_in(
            [mac for mac, role in zip(macs, roles, strict=True) if role != "director"]
        )
    )
    hit = astray.explode("connections")["connections"].drop_nulls().unique().sort().to_list()
    questions = rows.filter(pl.col("vantage") == first["vantage"]).height
    cited = _evidence(case, rows, astray)
    flux = code == "arp-flux"
    who = f"Two cards of {names[0]}" if names[0] == names[1] else f"{names[0]} and {names[1]} both"
    return Finding(
        title=f"{who} answer ARP for {vip}",
        summary=(
            f"{counted(questions, 'question')} of {asker} about {vip} had two answers: "
            f"{case.mac_text(macs[0])} ({names[0]}) and {case.mac_text(macs[1])} ({names[1]}). "
            f"{text}."
        ),
        cause=Cause(code=code, text=text),
        severity=Severity.LOW if flux else Severity.HIGH,
        confidence=Confidence.HIGH,
        evidence=cited,
        evidence_count=max(len(cited), 2 * rows.height),
        subject=f"{vip} {macs[0]:012x} {macs[1]:012x}",
        hosts={"owners": tuple(dict.fromkeys(names)), "asker": asker},
        flows=case.flow_refs(hit),
        flow_count=len(hit),
        first_seen_ns=rows["first_ns"].min(),  # type: ignore[arg-type]
        last_seen_ns=rows["first_ns"].max(),  # type: ignore[arg-type]
        count=questions,
        facts={
            "vip": vip,
            "macs": ", ".join(case.mac_text(mac) for mac in macs),
            "questions_with_two_answers": questions,
            "answered_first": case.mac_text(first["first_mac"]),
            "frames_by_mac": ", ".join(f"{mac}: {count}" for mac, count in counts.items()) or None,
        },
        alternatives=(
            "Proxy ARP of a router on the same LAN answers for the VIP (proxy_arp).",
            "A host that is no member of the cluster was given the address by mistake.",
        )
        if code == "stranger-answers"
        else ("Both MACs belong to one host with two cards on this LAN: ip link tells.",),
        remedies=_remedies(code, names, roles),
        verify=(
            f"arping -I IFACE -c 3 {vip}  # from the router: answers of one MAC only",
            "ip neigh show to VIP  # router: the director's MAC",
        ),
        filters=Filters(
            wireshark=f"arp.src.proto_ipv4 == {vip}" if "." in vip else "icmpv6.type == 136",
            tcpdump=f"arp and host {vip}" if "." in vip else "icmp6[0] == 136",
        ),
        references=("RFC 5227 section 2.4", "ip-sysctl.rst, arp_ignore", "LVS-HOWTO, ARP problem"),
    )


def _cause(roles: list[str | None], *, same_host: bool) -> tuple[str, str]:
    if "realserver" in roles:
        return (
            "realserver-answers",
            "A realserver says that the VIP is its own; who believes it is not balanced",
        )
    if same_host:
        return "arp-flux", "Both are cards of one host, which answers on each: confusing, no more"
    if roles == ["director", "director"]:
        return "two-masters", "Both directors own the VIP at the same time"
    return "stranger-answers", "One of them is not known to be a member of the cluster"


def _remedies(code: str, names: list[str], roles: list[str | None]) -> tuple[Remedy, ...]:
    if code == "two-masters":
        return (ipvs_remedies.one_master("both directors"),)
    if code == "arp-flux":
        return (ipvs_remedies.answer_on_one_card(names[0]),)
    wrong = [name for name, role in zip(names, roles, strict=True) if role != "director"]
    return (ipvs_remedies.hide_vip(" and ".join(dict.fromkeys(wrong or names))),)


def _evidence(case: Case, rows: pl.DataFrame, astray: pl.DataFrame) -> tuple[Evidence, ...]:
    cited: list[Evidence] = []
    for row in rows.head(MAX_CITED).iter_rows(named=True):
        for order in ("first", "second"):
            note = f"the {order} answer: it is at {case.mac_text(row[f'{order}_mac'])}"
            cited.extend(case.evidence("primary", row["vantage"], [row[f"{order}_row"]], note))
    for row in astray.iter_rows(named=True):
        mac = case.mac_text(row["mac"])
        note = f"the first of {row['frames']} frames for the VIP that go to {mac}"
        cited.extend(case.evidence("related", row["vantage"], [row["row"]], note))
    return tuple(cited)
