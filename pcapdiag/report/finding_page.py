"""A finding prepared for the page: what is shown of it, under which ids, with which figures."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from pcapdiag.report import figure_ladder, figure_sizes, figure_timeline, instants, plain, story

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcapdiag.result import Evidence, Finding

_ID: Final = re.compile(r"[a-z][a-z0-9-]{0,80}-[0-9a-f]{12}")
_FIRST: Final = {"primary": 0, "counter": 1, "related": 2}
"""What is shown first where not all evidence fits: proof, then doubt, then support."""


class Limits(NamedTuple):
    """How much of each list and text is shown."""

    findings: int
    evidence: int
    flows: int
    rows: int  # other long lists
    few: int  # lists inside a row
    text: int  # characters of a sentence
    command: int  # characters of a command


class FindingPage(NamedTuple):
    """What finding.html.j2 puts out; evidence stands beside its id."""

    anchor: str
    finding: Finding
    scope: str
    reach: str
    when: str
    hosts: tuple[tuple[str, str], ...]
    proofs: tuple[tuple[str, Evidence], ...]
    counters: tuple[tuple[str, Evidence], ...]
    shown_text: str
    facts: tuple[tuple[str, str], ...]
    sizes: figure_sizes.SizesFigure | None
    ladder: figure_ladder.LadderFigure | None
    timeline: figure_timeline.TimelineFigure | None


def finding_pages(findings: Sequence[Finding], limits: Limits) -> tuple[FindingPage, ...]:
    """Return the first findings as pages; ids are those of the findings where they are sound."""
    shown = findings[: limits.findings]
    times: dict[str, int] = {}
    for finding in shown:
        times[finding.id] = times.get(finding.id, 0) + 1
    return tuple(
        _page(
            finding,
            finding.id
            if _ID.fullmatch(finding.id) and times[finding.id] == 1
            else f"finding-{number}",
            limits,
        )
        for number, finding in enumerate(shown, 1)
    )


def _page(finding: Finding, anchor: str, limits: Limits) -> FindingPage:
    ranked = sorted(
        range(len(finding.evidence)), key=lambda index: _FIRST[finding.evidence[index].role]
    )
    shown = [
        (f"{anchor}-e{index + 1}", finding.evidence[index])
        for index in sorted(ranked[: limits.evidence])
    ]
    total = max(finding.evidence_count, len(finding.evidence))
    return FindingPage(
        anchor=anchor,
        finding=finding,
        scope=story.scope_text(finding.scope),
        reach=story.reach_text(finding),
        when=_when(finding),
        hosts=tuple(
            (role, names if isinstance(names, str) else ", ".join(names[: limits.few]))
            for role, names in sorted(finding.hosts.items())[: limits.few]
        ),
        proofs=tuple(item for item in shown if item[1].role != "counter"),
        counters=tuple(item for item in shown if item[1].role == "counter"),
        shown_text=(
            f"{plain.counted(total, 'frame')}."
            if total == len(shown)
            else f"{plain.number(len(shown))} of {plain.counted(total, 'frame')}."
        ),
        facts=tuple(
            (name, plain.fact(value))
            for name, value in sorted(finding.facts.items())[: limits.rows]
        ),
        sizes=figure_sizes.lay_out(finding.sizes),
        ladder=figure_ladder.lay_out(finding.ladder, finding.ladder_columns),
        timeline=figure_timeline.lay_out(finding.timeline),
    )


def _when(finding: Finding) -> str:
    first, last = finding.first_seen_ns, finding.last_seen_ns
    if first is None:
        return "" if last is None else f"until {instants.readable(last)}"
    if last is None or last <= first:
        return instants.readable(first)
    return (
        f"{instants.readable(first)} to {instants.readable(last)}"
        f" ({instants.duration(last - first)})"
    )
