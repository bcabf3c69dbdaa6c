"""What every format says alike: the verdict, what to do now, what the captures could not show.

No findings is never "all is well": it says what was examined and what was not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pcapdiag.report.instants import span
from pcapdiag.report.plain import counted, number
from pcapdiag.result import Confidence, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pcapdiag.result import Finding, NotExamined, Remedy, Result, Scope, Vantage


class Step(NamedTuple):
    """What to do now: a sentence, where, and what to type."""

    text: str
    where: str | None = None
    check: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    finding: Finding | None = None


class Gap(NamedTuple):
    """Questions that one capture (or None: nothing that could be named) would answer."""

    command: str | None
    questions: tuple[NotExamined, ...]


CAPTURE_EVERYTHING = "tcpdump -Z root -ni IFACE -s 0 -B 65536 -w NAME.pcap"
"""Where nothing tells which packets matter: all, whole; -Z, see tcpdump(8), to open the file."""


def worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings by severity, then confidence, otherwise in the order of the result."""
    return tuple(sorted(findings, key=lambda item: (item.severity.rank, item.confidence.rank)))


def verdict(result: Result) -> str:
    """Return one sentence that a manager may forward."""
    if result.findings:
        worst = worst_first(result.findings)[0]
        title = worst.title.strip().rstrip(".")
        if worst.confidence is Confidence.LOW:
            return f"Suspected, not proven: {title}."
        if worst.severity.rank >= Severity.LOW.rank:
            return f"No serious fault was proven; the worst finding is minor: {title}."
        return f"{title}."
    return _verdict_without_findings(len(result.clean), _open(result))


def _verdict_without_findings(clean: int, unanswered: int) -> str:
    if not clean and not unanswered:
        return "Nothing was examined: no rule gave an answer."
    asked = counted(clean + unanswered, "question")
    if not clean:
        return f"Nothing is known yet: these captures answer none of the {asked} asked."
    if unanswered:
        return (
            f"No fault found, but only {number(clean)} of {asked} could be examined: a fault may "
            "lie in the others."
        )
    return (
        f"No fault found: {number(clean)} of {asked} examined and in order, for the captured "
        "hosts and the captured time only."
    )


def tally(result: Result) -> str:
    """Return how many questions had which answer, in one line."""
    parts = [
        counted(len(result.findings), "finding"),
        f"{number(len(result.clean))} examined and in order",
        f"{number(len(result.not_examined))} not examined",
    ]
    if result.failed_rules:
        parts.append(f"{counted(len(result.failed_rules), 'rule')} failed")
    return " · ".join(parts)


def next_step(result: Result) -> Step:
    """Return what the reader should do first."""
    for finding in worst_first(result.findings)[:1]:
        remedy = first_remedy(finding)
        if remedy:
            return Step(
                text=remedy.action,
                where=remedy.where,
                check=remedy.check,
                commands=remedy.commands,
                finding=finding,
            )
        if finding.verify:
            return Step(
                text="Confirm it on the live hosts before changing anything.",
                commands=finding.verify,
                finding=finding,
            )
        return Step(text="Read the evidence of the first finding.", finding=finding)
    for gap in gaps(result.not_examined):
        if gap.command:
            needs = dict.fromkeys(need for item in gap.questions for need in item.needs)
            return Step(
                text=(f"Needed: {', '.join(list(needs)[:3])}. " if needs else "")
                + "Take it while the trouble is there and analyse it together with these; it "
                f"answers {counted(len(gap.questions), 'open question')}.",
                commands=(gap.command,),
            )
    if _open(result) or not result.clean:
        return Step(
            text="Capture on the director and on a realserver at the same time, while the trouble "
            "is there. On each of them:",
            commands=(CAPTURE_EVERYTHING,),
        )
    return Step(
        text="If users still see the trouble, capture again while they do: on every host of the "
        "path, at the same time. On each of them:",
        commands=(CAPTURE_EVERYTHING,),
    )


def first_remedy(finding: Finding) -> Remedy | None:
    """Return the first remedy that can be typed, or the first at all."""
    return next(
        (item for item in finding.remedies if item.commands), next(iter(finding.remedies), None)
    )


def gaps(not_examined: Iterable[NotExamined]) -> tuple[Gap, ...]:
    """Return the open questions by the capture that would answer them, the most useful first."""
    by_command: dict[str | None, list[NotExamined]] = {}
    for item in not_examined:
        by_command.setdefault(item.capture_command or None, []).append(item)
    found = [Gap(command, tuple(questions)) for command, questions in by_command.items()]
    return tuple(sorted(found, key=lambda gap: (gap.command is None, -len(gap.questions))))


def scope_text(scope: Scope) -> str:
    """Return what an outcome speaks of: "tcp 203.0.113.10:80, realserver ..., to clients"."""
    parts = []
    if scope.service:
        parts.append(scope.service)
    if scope.realserver:
        parts.append(f"realserver {scope.realserver}")
    if scope.direction:
        words = {"to-client": "to clients", "to-realserver": "to realservers"}
        parts.append(words.get(scope.direction, scope.direction))
    return ", ".join(parts)


def reach_text(finding: Finding) -> str:
    """Return how much was hit: "14 of 40 connections, 98 times"; empty where nothing is counted."""
    parts = []
    if finding.flow_count and finding.examined_count >= finding.flow_count:
        parts.append(
            f"{number(finding.flow_count)} of {counted(finding.examined_count, 'connection')}"
        )
    elif finding.flow_count:
        parts.append(counted(finding.flow_count, "connection"))
    if finding.count:
        parts.append(counted(finding.count, "time"))
    return ", ".join(parts)


def proof_text(finding: Finding, most: int = 6) -> str:
    """Return the primary frames by file: "director.pcap frame 57; rs1.pcap frames 61, 75"."""
    frames: dict[str, list[int]] = {}
    primary = [item for item in finding.evidence if item.role == "primary"]
    for item in primary[:most]:
        frames.setdefault(item.file, []).append(item.frame)
    parts = [
        f"{file} {'frame' if len(numbers) == 1 else 'frames'} {', '.join(map(str, numbers))}"
        for file, numbers in frames.items()
    ]
    more = f" and {number(len(primary) - most)} more" if len(primary) > most else ""
    return "; ".join(parts) + more


def captured_text(vantages: Iterable[Vantage]) -> str:
    """Return what there was to read: "Read 2 vantages, 20,346 packets, 2024-05-01 ... UTC."."""
    points = tuple(vantages)
    files = [file for point in points for file in point.files]
    if not files:
        return "No capture was read."
    first = [file.first_ns for file in files if file.first_ns is not None]
    last = [file.last_ns for file in files if file.last_ns is not None]
    parts = [
        counted(len(points), "vantage"),
        counted(sum(file.packets for file in files), "packet"),
    ]
    if first and last:
        parts.append(span(min(first), max(last)))
    return f"Read {', '.join(parts)}."


def weaknesses(vantages: Iterable[Vantage]) -> tuple[str, ...]:
    """Return one sentence for each capture that lost packets or was cut: absence proves less."""
    found = []
    for point in vantages:
        for file in point.files:
            faults = []
            if file.dropped:
                faults.append(f"lost {counted(file.dropped, 'packet')} while capturing")
            if file.cut_short:
                faults.append("ends in the middle of a packet")
            if faults:
                found.append(f"{file.path} ({point.name}) {' and '.join(faults)}.")
    return tuple(found)


def _open(result: Result) -> int:
    return len(result.not_examined) + len(result.failed_rules)
