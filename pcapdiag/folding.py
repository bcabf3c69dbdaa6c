"""Root causes fold their symptoms: one incident, one finding. One table, after all rules."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from pcapdiag.result import MAX_EVIDENCE, Confidence, Folded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcapdiag.result import Finding

LEADS: Final = {
    "pmtud-blackhole": (
        "icmp-unreachable-not-forwarded",
        "icmp-checksum-burst",
        "icmp-error-unusable",
        "tunnel-mss-too-large",
    ),
    # Whom a redirect leads around the director is not translated; nor need it be a true one.
    "redirect-to-router": ("nat-reply-bypasses-director", "icmp-spoofed"),
    # Whoever answers for the VIP beside the director gets what then seems ignored or forgotten.
    "vip-arp-conflict": ("realserver-ignores-vip", "connection-expired-at-director"),
    # What loops dies of its TTL, and the errors about it are part of the loop.
    "forwarding-loop": ("icmp-unreachable-not-forwarded",),
    # Packets that the receiver's checksum throws away are packets that nobody answers.
    "transport-checksum-burst": ("realserver-ignores-vip", "realserver-gone"),
}
"""Which rule's finding explains which others', where they share frames or connections."""

RESTS_ON_ABSENCE: Final = frozenset(
    {
        "fragments-lost",
        "icmp-unreachable-not-forwarded",
        "nat-reply-bypasses-director",
        "pmtud-blackhole",
        "realserver-gone",
        "realserver-ignores-vip",
    }
)
"""Rules that conclude from what was not seen, which a capture that loses packets shows less of."""

LOSSES: Final = frozenset({"dropped-packets", "missing-packets"})
"""Causes of capture-quality by which packets were not captured."""

MATERIAL_LOSS: Final = 0.01
"""Share of lost packets from which a finding is less sure: below it three missing packets are one
chance in a million."""

EVIDENCE_KEPT: Final = 5
"""Frames that a folded finding leaves in the leading one: enough to find the rest."""


def fold(findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings that stand for themselves; the others are listed in their leaders."""
    leaders = [item for item in findings if item.rule in LEADS]
    result: list[Finding] = []
    led: dict[str, list[Finding]] = {leader.id: [] for leader in leaders}
    for item in findings:
        leader = next((lead for lead in leaders if _explains(lead, item)), None)
        if leader is None:
            result.append(item)
        else:
            led[leader.id].append(item)
    return [_with_folded(item, led.get(item.id, [])) for item in result]


def doubt(findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings, less sure where they rest on absence in a capture that lost packets."""
    lossy = {
        item.subject: item.cause.text
        for item in findings
        if item.rule == "capture-quality"
        and item.cause.code in LOSSES
        and isinstance(item.facts.get("share"), float)
        and float(item.facts["share"]) > MATERIAL_LOSS  # type: ignore[arg-type]
    }
    return [_doubted(item, lossy) for item in findings]


def _doubted(finding: Finding, lossy: dict[str, str]) -> Finding:
    seen_at = sorted({item.vantage for item in finding.evidence} & set(lossy))
    if finding.rule not in RESTS_ON_ABSENCE or not seen_at:
        return finding
    steps = list(Confidence)
    return replace(
        finding,
        confidence=steps[min(finding.confidence.rank + 1, len(steps) - 1)],
        alternatives=(
            *finding.alternatives,
            *(f"The capture at {name} lost what is missing: {lossy[name]}." for name in seen_at),
        ),
    )


def _explains(leader: Finding, item: Finding) -> bool:
    if item.rule not in LEADS[leader.rule]:
        return False
    return bool(_connections(leader) & _connections(item)) or bool(_frames(leader) & _frames(item))


def _connections(finding: Finding) -> set[tuple[str, str, str]]:
    return {(flow.protocol, flow.client, flow.service) for flow in finding.flows}


def _frames(finding: Finding) -> set[tuple[str, str, int]]:
    return {(item.vantage, item.file, item.frame) for item in finding.evidence}


def _with_folded(leader: Finding, folded: list[Finding]) -> Finding:
    if not folded:
        return leader
    known = _frames(leader)
    borrowed = [
        replace(item, role="related")
        for finding in folded
        for item in finding.evidence[:EVIDENCE_KEPT]
        if (item.vantage, item.file, item.frame) not in known
    ]
    return replace(
        leader,
        folded=tuple(
            Folded(rule=item.rule, cause=item.cause, id=item.id)
            for item in sorted(folded, key=lambda item: item.id)
        ),
        evidence=(*leader.evidence, *borrowed)[:MAX_EVIDENCE],
        evidence_count=leader.evidence_count + len(borrowed),
    )
