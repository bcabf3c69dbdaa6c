"""A redirect tells a router or a realserver to go around the director.

Symptom
    The service fails for everybody behind one router, or one realserver's answers come from the
    wrong address, minutes after it worked. It mends itself after five minutes and comes back.

Mechanism
    A host that forwards a packet out of the interface it came in on tells its sender of the shorter
    way (RFC 1812 section 5.2.7.2). In one-arm LVS-NAT the director does so to its realservers: an
    obedient one sends its answers past the director, untranslated. Old DR kernels, proxies and
    layer-3 switches do so to the router in front, which then sends the VIP's packets straight to
    one realserver. Linux caches what it obeyed for 300 seconds.

Evidence
    The redirect, who sent it, whom it told, and the MAC that later frames to the same destination
    went to: only that change proves that it was obeyed; a change to another director's or a virtual
    router's MAC is a failover. The three criteria of RFC 1812 (the packet left by the interface it
    came in by, its sender is on the subnet of the gateway that is named, no source route) are
    checked on the frames one by one: a redirect that fails one no gateway may send.

Not this rule
    - A redirect about another destination than a VIP or a realserver's client, or of another router
      that does not name a realserver: it does not lead around the director.
    - IPVS in DR and TUN sends none itself, whatever send_redirects says.
    - A redirect that is not forwarded to a realserver: IPVS leaves it to the director, rightly.

Remedy
    send_redirects=0 for `all` and for every interface of the director (OR decides, as it does for
    shared_media); accept_redirects=0 and a flushed route cache on whoever obeyed (`all` OR the
    interface on a host, `all` AND the interface on a router); a static route where the shorter way
    is wanted. Behind a VRRP address a Linux host ignores redirects by itself: they come from the
    director's own address, which is not its gateway's.

References
    RFC 792; RFC 1122 section 3.2.2.2; RFC 1812 sections 4.3.3.2 and 5.2.7.2; ip_rt_send_redirect in
    net/ipv4/route.c; LVS-HOWTO sections 35.1 and 35.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from pcapdiag.kernel import remedies
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

MAX_CITED = 10
"""Redirects cited in a finding; Linux sends at most nine to a peer before it falls silent."""

ENOUGH_STAYED = 3
"""Later frames by the old way from which a redirect counts as not obeyed."""

OTHER_REASON = (
    "The later frames took another way for a reason of their own (a route change): less likely "
    "where they follow the redirect at once; frames to another director or a virtual router are "
    "not counted."
)
IGNORED_BEHIND_VRRP = (
    "A Linux receiver ignores it: its gateway is a floating (VRRP) address, and the redirect comes "
    "from the director's own."
)


@rule(
    title="Redirect around the director",
    severity=Severity.HIGH,
    needs=Needs(
        protocols=(IpProto.ICMP, IpProto.ICMPV6),
        text="the director's network card with Ethernet headers; the realserver for what it did",
    ),
    since="0.1",
)
def check(case: Case) -> Iterator[Outcome]:
    """Judge redirects that concern the VIP or the realservers' answers."""
    every = case.redirects
    about = every.filter(pl.col("moves").is_in(["vip", "replies"]))
    for alike in incidents(about, "moves", "src_hi", "src_lo", "dst_hi", "dst_lo"):
        yield _finding(case, alike)
    if about.height:
        return
    if every.height and not any(case.service_methods.values()):
        yield NotExamined(
            reason="redirects were seen, but nothing shows which addresses are virtual and which "
            "hosts are directors or realservers",
            needs=("a capture on the director that keeps the services' packets, too",),
            capture_command=case.capture_command(role="director"),
        )
    elif every.height:
        yield Clean(
            examined=Examined(icmp_errors=every.height),
            note="redirects were seen, none about a VIP or a realserver's answers",
        )
    elif not any(case.icmp_visible):
        yield NotExamined(
            reason="no capture holds ICMP",
            needs=("a capture on the director that keeps ICMP",),
            capture_command=case.capture_command(role="director"),
        )
    else:
        packets = sum(
            vantage.packets.height
            for vantage, visible in zip(case.vantages, case.icmp_visible, strict=True)
            if visible
        )
        if packets:
            yield Clean(examined=Examined(packets=packets), note="no redirect was seen")


def _finding(case: Case, redirects: pl.DataFrame) -> Finding:
    first = redirects.row(0, named=True)
    sender, told = case.address_text(first, "src"), case.address_text(first, "dst")
    gateway, target = case.address_text(first, "gateway"), case.address_text(first, "quoted_dst")
    receiver = first["receiver"] or "host"
    later = int(redirects["frames_after"].max() or 0)  # type: ignore[arg-type]
    stayed = int(redirects["stayed"].max() or 0)  # type: ignore[arg-type]
    obeyed = later > 0
    ignored = not obeyed and stayed >= ENOUGH_STAYED
    moves = first["moves"]
    cause = _cause(moves, obeyed=obeyed, ignored=ignored)
    targets = redirects.select("quoted_dst_hi", "quoted_dst_lo").n_unique()
    criteria = case.redirect_criteria(redirects)
    forwards = first["receiver"] in ("router", "director")
    connections = case.redirected(redirects)
    one_arm = moves == "replies" and criteria.same_interface is True
    return Finding(
        title=f"{sender} redirects the {receiver} {told} around the director",
        summary=(
            f"{counted(redirects.height, 'redirect')} from {sender} "
            f"tell{'s' * (redirects.height == 1)} "
            f"{told} to send packets for {target}"
            + (f" and {targets - 1} more" if targets > 1 else "")
            + f" by way of {gateway}: {cause.text}."
            + (
                " Realservers, director and router share one network (one-arm NAT), so that a "
                "shorter way exists."
                if one_arm
                else ""
            )
            + _failed(criteria)
        ),
        cause=cause,
        severity=Severity.HIGH if obeyed else Severity.LOW if ignored else Severity.MEDIUM,
        confidence=Confidence.HIGH if obeyed else Confidence.MEDIUM,
        evidence=_evidence(case, redirects, gateway),
        evidence_count=redirects.height,
        scope=Scope(direction="to-realserver" if moves == "vip" else "to-client"),
        subject=f"{sender} {told} {moves}",
        hosts={"sender": sender, "receiver": told, "gateway": gateway},
        flows=case.flow_refs(connections),
        flow_count=len(connections),
        first_seen_ns=redirects["first_ns"].min(),  # type: ignore[arg-type]
        last_seen_ns=redirects["first_ns"].max(),  # type: ignore[arg-type]
        count=redirects.height,
        examined_count=len(connections),
        facts={
            "moves": moves,
            "sender": sender,
            "receiver": told,
            "receiver_role": first["receiver"],
            "gateway": gateway,
            "obeyed": True if obeyed else False if ignored else None,
            "frames_past_the_director": later,
            "frames_by_the_old_way_afterwards": stayed,
            "connections_past_the_director": len(connections) if obeyed else 0,
            "one_arm_nat": one_arm,
            "same_interface": criteria.same_interface,
            "source_on_gateways_subnet": criteria.same_subnet,
            "no_source_route": criteria.no_source_route,
            "receivers_gateway_floats": bool(redirects["floating"].any()),
        },
        alternatives=_alternatives(redirects, obeyed=obeyed),
        remedies=(
            remedies.stop_redirects(case.host_of_address(first["src_hi"], first["src_lo"])),
            remedies.forget_redirects(
                case.host_of_address(first["dst_hi"], first["dst_lo"]), forwards=forwards
            ),
        ),
        verify=(
            "tcpdump -eni IFACE 'icmp[icmptype] == 5'  # director: silent",
            f"ip route get {target}  # {told}: by way of the director again",
        ),
        filters=Filters(
            wireshark="icmp.type == 5 || icmpv6.type == 137",
            tcpdump="icmp[icmptype] == 5 or icmp6[0] == 137",
        ),
        references=(
            "RFC 1812 section 5.2.7.2",
            "RFC 1122 section 3.2.2.2",
            "LVS-HOWTO section 35.2",
        ),
    )


def _failed(criteria: Any) -> str:
    """Return a sentence about criteria of RFC 1812 that do not hold."""
    failed = [
        words
        for words, holds in (
            ("the packet left by another interface", criteria.same_interface),
            ("its sender is not on the gateway's subnet", criteria.same_subnet),
            ("the packet has IP options", criteria.no_source_route),
        )
        if holds is False
    ]
    return f" No gateway may send them: {', and '.join(failed)}." if failed else ""


def _alternatives(redirects: pl.DataFrame, *, obeyed: bool) -> tuple[str, ...]:
    if obeyed:
        return (OTHER_REASON,)
    if redirects["floating"].any():
        return (IGNORED_BEHIND_VRRP,)
    return ("It may be obeyed later, or for other destinations, than these captures show.",)


def _cause(moves: str, *, obeyed: bool, ignored: bool) -> Cause:
    path = "the VIP's packets" if moves == "vip" else "a realserver's answers"
    if obeyed:
        return Cause(
            code="redirect-obeyed", text=f"it was obeyed, and {path} now go past the director"
        )
    if ignored:
        return Cause(
            code="redirect-ignored", text=f"so far it was not obeyed, {path} go on as before"
        )
    return Cause(
        code="redirect-sent", text=f"whether it was obeyed cannot be seen; if so, {path} go astray"
    )


def _evidence(case: Case, redirects: pl.DataFrame, gateway: str) -> tuple[Evidence, ...]:
    cited: list[Evidence] = []
    for row in redirects.sort("first_ns", "message").head(MAX_CITED).iter_rows(named=True):
        cited.extend(
            case.evidence(
                "primary",
                row["seen_vantage"],
                [row["seen_row"]],
                f"redirect to {gateway} for {case.address_text(row, 'quoted_dst')}",
            )
        )
    for row in (
        redirects.filter(pl.col("after_row").is_not_null())
        .unique(["after_vantage", "after_row"], maintain_order=True)
        .head(MAX_CITED)
        .iter_rows(named=True)
    ):
        mac = case.mac_text(row["after_mac"])
        cited.extend(
            case.evidence(
                "related",
                row["after_vantage"],
                [row["after_row"]],
                f"the first of {row['frames_after']} later frames that go to {mac} instead",
            )
        )
    return tuple(cited)
