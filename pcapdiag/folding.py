"""Root causes fold their symptoms: one incident, one finding. One table, after all rules."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from pcapdiag.result import MAX_EVIDENCE, Folded

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
    "redirect-to-router": ("nat-reply-bypasses-director",),
}
"""Which rule's finding explains which others', where they share frames or connections."""

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
