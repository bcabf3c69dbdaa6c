"""A finding is wrong by rule, cause, host, direction or connection, where the truth knows them."""

from __future__ import annotations

import pytest
import verdicts
from captures import Capture

from pcapdiag.result import (
    Cause,
    Confidence,
    Evidence,
    FailedRule,
    Finding,
    FlowRef,
    Folded,
    Result,
    Scope,
    Severity,
)

TRUTH = {
    "vips": ["203.0.113.10"],
    "hosts": {
        name: {"ifaces": {"eth0": {"mac": f"02:00:00:00:00:0{n}", "addrs": [f"203.0.113.{n}/24"]}}}
        for n, name in enumerate(("director", "rs1", "rs2"), 1)
    },
    "captures": [
        {"file": f"{name}.pcap", "host": name, "vantage": name} for name in ("director", "rs1")
    ],
    "flows": [{"id": n, "client": ["198.51.100.1", 1000 + n]} for n in range(3)],
    "must_report": [
        {
            "id": "host-prohibited-established",
            "cause": "realserver-conntrack",
            "hosts": ["rs1"],
            "direction": "to-client",
            "flows": [0],
            "may_flows": [1],
        }
    ],
    "may_report": [{"id": "icmp-spoofed"}],
}


def finding(code="realserver-conntrack", emitter="rs1", direction="to-client", flow=0, **more):
    """Return a finding that the truth demands, but for what is given."""
    fields = {
        "rule": "host-prohibited-established",
        "title": "",
        "summary": "said",
        "cause": Cause(code=code, text=""),
        "severity": Severity.HIGH,
        "confidence": Confidence.HIGH,
        "evidence": (Evidence(role="primary", vantage="rs1", file="rs1", frame=1, note=""),),
        "scope": Scope(direction=direction),
        "hosts": {"emitter": (emitter,)},
        "flows": (FlowRef(protocol="tcp", client=f"198.51.100.1:{1000 + flow}", service=""),),
    }
    return Finding(**(fields | more))


def wrong(*findings, spoiled=True, labels=("director", "rs1"), failed=()):
    """Return what is wrong with findings on captures with these labels."""
    given = [
        Capture(f"{host}.pcap", host, label, host, 1, 100, None, (), pcapng=False)
        for host, label in zip(("director", "rs1"), labels, strict=True)
    ]
    result = Result(findings=findings, failed_rules=failed)
    return verdicts.wrong(TRUTH, verdicts.Analysis(result, given, {}), spoiled=spoiled)


@pytest.mark.parametrize(
    "said",
    [
        finding(),
        finding(flow=1),
        finding(direction=None),
        finding(emitter="203.0.113.2"),
        finding(emitter="02:00:00:00:00:02"),
        finding("emitter-unknown", emitter="unknown"),
        finding("any", rule="icmp-spoofed"),
        finding("any", rule="capture-quality"),
    ],
)
def test_what_the_truth_demands_or_allows_is_right(said):
    """Whatever the host is called; a cause that is not known is right where something was lost."""
    assert wrong(said) == []


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (finding(rule="pmtud-blackhole"), "nothing of it is so"),
        (finding("director-conntrack"), "cause director-conntrack"),
        (finding(emitter="203.0.113.3"), "names ['rs2']"),
        (finding(emitter="director"), "names ['director']"),
        (finding(direction="to-realserver"), "direction to-realserver"),
        (finding(flow=2), "connections ['198.51.100.1:1002']"),
        (
            finding(
                folded=(Folded(rule="redirect-to-router", cause=Cause(code="x", text=""), id=""),)
            ),
            "redirect-to-router, folded: cause x",
        ),
    ],
)
def test_what_is_wrong_is_named(said, reason):
    """One thing that is not so makes a finding wrong."""
    (line,) = wrong(said)
    assert reason in line


def test_nothing_was_lost_of_an_unspoiled_sample():
    """There the demanded cause must be named."""
    (line,) = wrong(finding("emitter-unknown"), spoiled=False)
    assert "cause emitter-unknown" in line


def test_a_host_is_who_its_label_says_where_labels_are_swapped():
    """A finding that says director of the realserver's capture means the realserver."""
    assert wrong(finding(emitter="director"), labels=("rs1", "director")) == []
    assert len(wrong(finding(emitter="rs1"), labels=("rs1", "director"))) == 1


def test_a_rule_that_failed_is_wrong():
    """A traceback is no answer."""
    (line,) = wrong(failed=(FailedRule(rule="x", error="KeyError"),))
    assert "the rule failed: KeyError" in line
