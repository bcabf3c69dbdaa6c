"""What all formats say alike: honest verdicts, the right first step."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pcapdiag.report import story
from pcapdiag.result import Confidence, FailedRule, NotExamined, Remedy, Result, Scope, Severity


def test_verdict_is_the_worst_title(incident):
    """The worst finding speaks, with one full stop."""
    assert story.verdict(incident) == (
        "Full-sized packets to clients vanish and realserver rs1 is never told."
    )


def test_doubt_and_smallness_are_in_the_verdict(incident):
    """Low confidence is suspicion; a minor finding is called minor."""
    finding = incident.findings[1]
    unsure = replace(incident, findings=(replace(finding, confidence=Confidence.LOW),))
    assert story.verdict(unsure).startswith("Suspected, not proven: ")
    minor = replace(incident, findings=(replace(finding, severity=Severity.INFO),))
    assert story.verdict(minor).startswith("No serious fault was proven; ")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing-found", "only 3 of 6 questions could be examined: a fault may lie in the others"),
        ("all-clean", "3 of 3 questions examined and in order, for the captured hosts"),
        ("blind", "Nothing is known yet: these captures answer none of the 3 questions asked."),
        ("empty", "Nothing was examined: no rule gave an answer."),
    ],
)
def test_verdict_without_findings(name, said, results):
    """No findings is told with what was and was not examined."""
    assert said in story.verdict(results[name])


def test_failed_rule_counts_as_open(results):
    """A rule that failed takes "all examined" away."""
    failed = (FailedRule(rule="x", error="y"),)
    result = replace(results["all-clean"], failed_rules=failed)
    assert "only 3 of 4 questions" in story.verdict(result)
    assert story.tally(result).endswith("1 rule failed")


def test_worst_first_keeps_the_order_of_equals(incident):
    """Severity before confidence, then as the result has it."""
    base = incident.findings[0]
    findings = [
        replace(base, title="a", severity=Severity.LOW, confidence=Confidence.HIGH),
        replace(base, title="b", severity=Severity.HIGH, confidence=Confidence.LOW),
        replace(base, title="c", severity=Severity.HIGH, confidence=Confidence.MEDIUM),
        replace(base, title="d", severity=Severity.HIGH, confidence=Confidence.LOW),
    ]
    assert [item.title for item in story.worst_first(findings)] == ["c", "b", "d", "a"]


def test_first_step_prefers_a_remedy_with_commands(incident):
    """What can be typed comes before advice."""
    finding = incident.findings[1]
    advice = Remedy(where="somewhere", action="Think.")
    result = replace(incident, findings=(replace(finding, remedies=(advice, *finding.remedies)),))
    step = story.next_step(result)
    assert step.where == "director"
    assert step.check
    assert step.finding is result.findings[0]


def test_first_step_without_remedy_is_to_confirm(incident):
    """Verification, else the evidence."""
    bare = replace(incident.findings[1], remedies=())
    step = story.next_step(replace(incident, findings=(bare,)))
    assert step.commands == bare.verify
    step = story.next_step(replace(incident, findings=(replace(bare, verify=()),)))
    assert "evidence" in step.text


def test_first_step_without_finding_is_the_best_capture(results):
    """The capture that answers most questions, else the plan."""
    step = story.next_step(results["nothing-found"])
    assert step.commands == (results["nothing-found"].not_examined[0].capture_command,)
    assert step.text.startswith("Needed: a capture on rs2. ")
    assert "answers 2 open questions" in step.text
    for name in ("all-clean", "empty"):
        assert story.next_step(results[name]).commands == (story.CAPTURE_EVERYTHING,)


def test_gaps_come_by_use():
    """Commands that answer more come first, questions without a command last."""
    asked = [
        NotExamined(reason="1"),
        NotExamined(reason="2", capture_command="a"),
        NotExamined(reason="3", capture_command="b"),
        NotExamined(reason="4", capture_command="b"),
    ]
    found = [(gap.command, [item.reason for item in gap.questions]) for gap in story.gaps(asked)]
    assert found == [("b", ["3", "4"]), ("a", ["2"]), (None, ["1"])]


def test_reach_counts_only_what_was_counted(incident):
    """No "of 0 connections"."""
    finding = incident.findings[1]
    assert story.reach_text(finding) == "14 of 40 connections, 98 times"
    assert story.reach_text(replace(finding, examined_count=0, count=1)) == (
        "14 connections, 1 time"
    )
    assert story.reach_text(replace(finding, flow_count=0, count=0)) == ""


def test_proof_names_frames_by_file(incident):
    """Frames of one file stand together, and many are counted."""
    finding = incident.findings[1]
    primary = finding.evidence[0]
    evidence = tuple(replace(primary, frame=number) for number in range(1, 10))
    assert story.proof_text(replace(finding, evidence=evidence)) == (
        "director.pcap frames 1, 2, 3, 4, 5, 6 and 3 more"
    )


def test_scope_in_words():
    """Directions are told as words."""
    scope = Scope(service="tcp 192.0.2.1:80", direction="to-realserver")
    assert story.scope_text(scope) == "tcp 192.0.2.1:80, to realservers"
    assert story.scope_text(Scope()) == ""


def test_weaknesses_are_named(incident):
    """A capture that lost packets or ends early is named; a whole one is not."""
    assert story.weaknesses(incident.vantages) == (
        "rs1.pcapng.gz (rs1) lost 17 packets while capturing and ends in the middle of a packet.",
    )
    assert story.captured_text(Result().vantages) == "No capture was read."
