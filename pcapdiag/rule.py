"""The contract of a rule, and all that a rule module imports of pcapdiag beside protocols, kernel.

A rule module holds one decorated function:

    @rule(title="...", severity=Severity.HIGH, needs=Needs(...), since="0.1")
    def check(case: Case) -> Iterator[Outcome]: ...

Its id is its file name with dashes, its docstring the case file that `pcapdiag explain` prints.
It yields findings, questions that could not be examined, and clean verdicts that say how much was
looked at. A rule that yields nothing counts as not examined, never as clean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pcapdiag.case import Case
from pcapdiag.case.incidents import MAX_INCIDENTS, incidents
from pcapdiag.case.phrases import counted
from pcapdiag.case.sizes.stall_totals import StallTotals
from pcapdiag.case.wire.quality import Quality
from pcapdiag.result import (
    Cause,
    Clean,
    Confidence,
    Evidence,
    Examined,
    Filters,
    Finding,
    FlowRef,
    LadderStep,
    NotExamined,
    Outcome,
    Remedy,
    Scope,
    Severity,
    SizeFate,
    Timeline,
)

__all__ = [
    "MAX_INCIDENTS",
    "Case",
    "Cause",
    "Check",
    "Clean",
    "Confidence",
    "Evidence",
    "Examined",
    "Filters",
    "Finding",
    "FlowRef",
    "LadderStep",
    "Needs",
    "NotExamined",
    "Outcome",
    "Quality",
    "Remedy",
    "RuleInfo",
    "Scope",
    "Severity",
    "SizeFate",
    "StallTotals",
    "Timeline",
    "counted",
    "incidents",
    "rule",
]

Check = Callable[[Case], Iterator[Outcome]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What must be there before a rule is asked; the engine answers *not examined* otherwise.

    `roles`: at least one vantage of one of these roles ("director", "realserver", ...); empty for
    any. `protocols`: at least one packet of one of these IP protocols; empty for any. `text`: the
    captures that answer the question best, in words, for `pcapdiag rules`.
    """

    roles: tuple[str, ...] = ()
    protocols: tuple[int, ...] = ()
    text: str = "any capture"


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleInfo:
    """What the decorator knows of a rule; the registry adds id and docstring."""

    title: str
    severity: Severity
    needs: Needs
    since: str


def rule(*, title: str, severity: Severity, needs: Needs, since: str) -> Callable[[Check], Check]:
    """Mark the one function of a rule module that judges.

    `severity` is the usual one; a finding carries its own. `since` is the version that brought
    the rule or last changed its verdicts.
    """

    def mark(check: Check) -> Check:
        check.rule_info = RuleInfo(  # type: ignore[attr-defined]
            title=title, severity=severity, needs=needs, since=since
        )
        return check

    return mark
