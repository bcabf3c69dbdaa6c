"""One incident is one finding: causes lead, symptoms fold where they share connections."""

from __future__ import annotations

from dataclasses import replace

from pcapdiag import folding
from pcapdiag.result import (
    Cause,
    Confidence,
    Evidence,
    Finding,
    FlowRef,
    Severity,
)


def _finding(rule, frame, client="198.51.100.1:1025", name="x"):
    return Finding(
        rule=rule,
        id=f"{rule}-{name}",
        title=rule,
        summary=rule,
        cause=Cause(code="c", text="t"),
        severity=Severity.HIGH,
        confidence=Confidence.HIGH,
        evidence=(
            Evidence(role="primary", vantage="director", file="d.pcap", frame=frame, note="n"),
        ),
        flows=(FlowRef(protocol="tcp", client=client, service="203.0.113.10:80"),),
        evidence_count=1,
    )


def test_a_symptom_of_the_same_connection_folds_into_its_cause():
    """The leading finding lists the folded one with its cause and borrows its frames."""
    lead = _finding("pmtud-blackhole", 1)
    symptom = _finding("icmp-unreachable-not-forwarded", 7)
    (only,) = folding.fold([symptom, lead])
    assert only.rule == "pmtud-blackhole"
    assert [item.id for item in only.folded] == [symptom.id]
    assert [(item.frame, item.role) for item in only.evidence] == [(1, "primary"), (7, "related")]


def test_other_connections_and_frames_stand_for_themselves():
    """Without a shared connection or frame nothing folds."""
    lead = _finding("pmtud-blackhole", 1)
    other = _finding("icmp-unreachable-not-forwarded", 7, client="198.51.100.2:1025")
    assert folding.fold([lead, other]) == [lead, other]


def test_a_shared_frame_is_enough():
    """A message cited by both joins them where no connection is known."""
    lead = _finding("pmtud-blackhole", 7)
    other = replace(_finding("icmp-checksum-burst", 7), flows=())
    (only,) = folding.fold([lead, other])
    assert [item.rule for item in only.folded] == ["icmp-checksum-burst"]


def test_the_table_decides_who_leads():
    """A pair that is not in the table never folds, in either order."""
    one, two = _finding("redirect-to-router", 1), _finding("icmp-checksum-burst", 1)
    assert folding.fold([one, two]) == [one, two]
