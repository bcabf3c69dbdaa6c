"""One incident is one finding: causes lead, symptoms fold where they share connections."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pcapdiag import folding, registry
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


def _lossy(share, vantage="director"):
    lost = _finding("capture-quality", 99, client="198.51.100.9:1")
    return replace(
        lost,
        subject=vantage,
        cause=Cause(code="dropped-packets", text="it dropped packets"),
        facts={"vantage": vantage, "share": share},
    )


def test_absence_in_a_capture_that_lost_packets_is_less_sure():
    """One step down and an alternative more; what was seen stays as sure as it was."""
    absent, seen = _finding("fragments-lost", 1), _finding("icmp-checksum-burst", 2)
    doubted, sure, _ = folding.doubt([absent, seen, _lossy(0.02)])
    assert doubted.confidence is Confidence.MEDIUM
    assert "lost what is missing" in doubted.alternatives[-1]
    assert sure == seen


def test_small_losses_and_losses_elsewhere_change_nothing():
    """One packet in a hundred, or another vantage's losses."""
    absent = _finding("fragments-lost", 1)
    assert folding.doubt([absent, _lossy(0.01)])[0] == absent
    assert folding.doubt([absent, _lossy(0.5, "rs1")])[0] == absent


def test_doubt_ends_at_low():
    """There is nothing below low confidence."""
    absent = replace(_finding("pmtud-blackhole", 1), confidence=Confidence.LOW)
    assert folding.doubt([absent, _lossy(0.5)])[0].confidence is Confidence.LOW


def test_the_table_names_rules_and_has_no_circles():
    """A leader is no symptom of its own symptoms, and every name in the table is a rule's."""
    known = set(registry.rules())
    for leader, symptoms in folding.LEADS.items():
        assert {leader, *symptoms} <= known
        for symptom in symptoms:
            assert symptom not in folding.LEADS


def test_a_bad_checksum_that_makes_a_message_useless_is_one_incident_with_two_facts():
    """The stall leads; the burst is listed in it with its own cause."""
    lead = _finding("pmtud-blackhole", 1)
    burst = replace(
        _finding("icmp-checksum-burst", 9), cause=Cause(code="bit-error", text="one bit flipped")
    )
    (only,) = folding.fold([burst, lead])
    assert only.cause.code == "c"
    assert [item.cause.code for item in only.folded] == ["bit-error"]


@pytest.mark.parametrize(
    ("leader", "symptom"),
    [(leader, symptom) for leader, items in folding.LEADS.items() for symptom in items],
)
def test_each_pair_of_the_table_folds_where_connections_are_shared_and_only_there(leader, symptom):
    """Both ways round, by connection; apart, both stand."""
    lead, item = _finding(leader, 1), _finding(symptom, 2)
    assert [found.rule for found in folding.fold([item, lead])] == [leader]
    apart = _finding(symptom, 2, client="198.51.100.9:1025")
    assert len(folding.fold([apart, lead])) == 2
