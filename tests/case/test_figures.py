"""What the figures show comes out of the packets: held against a sample whose truth is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from stories import case

from pcapdiag import engine
from pcapdiag.capture.vantages import resolve
from pcapdiag.case.shown import figures
from pcapdiag.case.shown.ladder import _rhythm, ladder
from pcapdiag.case.shown.timeline import timeline
from pcapdiag.result import Cause, Confidence, Evidence, Finding, Severity

SAMPLE = Path(__file__).parents[2] / "samples" / "pmtud-blackhole-dr"
S = 1_000_000_000


@pytest.fixture(scope="module")
def judged():
    """Return the case of the sample, and its one finding with figures."""
    inputs, _ = resolve([str(path) for path in sorted(SAMPLE.glob("*.pcap"))])
    loaded = engine.load(inputs)
    result = engine.analyze(loaded, select=["pmtud-blackhole"], now_ns=0)
    return loaded.case, result.findings[0], result


def _rows(finding):
    rows = {}
    for step in finding.ladder:
        rows.setdefault(step.packet, []).append(step)
    return list(rows.values())


def _finding(*places):
    return Finding(
        title="t",
        summary="s",
        cause=Cause(code="c", text="c"),
        severity=Severity.HIGH,
        confidence=Confidence.HIGH,
        evidence=tuple(
            Evidence(role="primary", vantage=name, file=f"{name}.pcap", frame=frame, note="n")
            for name, frame in places
        ),
    )


def test_columns_are_the_path(judged):
    """Client, the hop that sent the error, router, both sides of the director, realserver."""
    _, finding, _ = judged
    assert finding.ladder_columns == (
        "client",
        "192.0.2.2",
        "router",
        "director in",
        "director out",
        "rs2",
    )


def test_request_is_one_packet_at_every_place(judged):
    """A request passes router and director, and each place has its own frame number."""
    _, finding, _ = judged
    request = _rows(finding)[2]
    assert request[0].label == "data 1:76"
    assert [step.fate for step in request] == ["seen"] * 4
    assert [frame for step in request for frame in step.frames] == [
        "client:19",
        "router:53",
        "director:78",
        "director:80",
        "rs2:35",
    ]


def test_lost_segment_its_error_and_its_repeats(judged):
    """The segment is lost behind the router, the error at the director, and the sender repeats."""
    _, finding, _ = judged
    lost, error, again = _rows(finding)[3:]
    assert (lost[0].ip_length, lost[0].df) == (1500, True)
    assert (lost[-1].from_, lost[-1].to, lost[-1].fate) == ("router", "client", "lost")
    assert (error[-1].from_, error[-1].to, error[-1].fate) == ("director in", "rs2", "lost")
    assert error[0].label.startswith("fragmentation needed (3/4), MTU 1400")
    assert error[0].quotes == lost[0].packet
    assert again[0].label == "data 1:1449 again, 7 times, doubling from 0.23 s"
    assert again[0].repeats == 7
    assert again[0].frames == ("rs2:48", "rs2:213", "router:76", "router:391")


def test_frames_of_the_ladder_are_those_of_the_evidence(judged):
    """What the finding cites of this connection stands in its ladder."""
    _, finding, _ = judged
    shown = {frame for step in finding.ladder for frame in step.frames}
    cited = [f"{item.vantage}:{item.frame}" for item in finding.evidence]
    assert set(cited[:3]) <= shown


def test_broken_hops_are_those_of_lost_arrows(judged):
    """The cluster's figure marks where packets of the worst finding were lost."""
    _, _, result = judged
    broken = [(edge.from_, edge.to) for edge in result.cluster.edges if edge.broken]
    assert broken == [("router", "client"), ("director", "rs2")]
    labels = {edge.label for edge in result.cluster.edges if not edge.broken}
    assert labels == {"requests", "answers", "requests forwarded (DR)"}


def test_timeline_counts_what_the_finding_counts(judged):
    """Stalled connections never exceed the finding's, and each retransmission is in one bin."""
    _, finding, _ = judged
    series = finding.timeline.series
    assert max(series["connections stalled"]) == finding.flow_count == 4
    assert sum(series["ICMP fragmentation needed (3/4)"]) >= finding.facts["icmp_messages"]
    assert sum(series["retransmissions"]) >= finding.count - finding.flow_count
    assert {len(values) for values in series.values()} == {len(series["retransmissions"])}


def test_sizes_bound_the_path(judged):
    """Everything up to the largest delivered arrived, nothing of the size that stalled did."""
    _, finding, _ = judged
    lost = {item.ip_length: item.lost for item in finding.sizes if item.lost}
    assert lost == {1500: finding.count}
    delivered = max(item.ip_length for item in finding.sizes if item.delivered)
    assert delivered == finding.facts["largest_delivered"]


def test_without_connection_there_is_no_ladder():
    """Evidence that belongs to no connection, or that nothing captured, draws nothing."""
    story = case(director="0.0 c>s S seq=0 mac=x>d")
    assert ladder(story, _finding(("nowhere", 1))).steps == ()
    assert ladder(story, _finding(("director", 99))).steps == ()
    finding = _finding(("director", 99))
    assert figures.illustrated(story, finding) == finding


def test_findings_about_no_connection_get_no_connection_drawn():
    """What is wrong with a capture or a host is not shown on a bystander's connection."""
    story = case(director="0.0 c>s S seq=0 mac=x>d")
    finding = figures.illustrated(story, _finding(("director", 1)))
    assert (finding.ladder, finding.timeline) == ((), None)
    assert finding.evidence[0].dissection.tool == "pcapdiag"


def test_nothing_told_of_an_uncaptured_end():
    """A single packet that the far end did not capture is not called lost."""
    drawn = ladder(case(director="0.0 c>s S seq=0 mac=x>d"), _finding(("director", 1)))
    assert {step.fate for step in drawn.steps} <= {"seen", "not-visible"}
    assert drawn.steps[0].from_ == "198.51.100.20"


def test_timeline_of_quiet_connections_is_none():
    """Where nothing was repeated and no error came there is nothing to draw."""
    story = case(director="0.0 c>s S seq=0 mac=x>d")
    every = story.connections.connections["connection"].to_list()
    assert timeline(story, every) is None
    assert timeline(story, []) is None


@pytest.mark.parametrize(
    ("gaps", "words"),
    [
        ([0.2], "once within 0.2 s"),
        ([0.2, 0.4, 0.8, 1.6], "4 times, doubling from 0.2 s"),
        ([0.03, 0.23, 0.45, 0.9, 1.8], "5 times, doubling from 0.23 s"),
        ([1.0, 1.0, 1.0], "3 times within 3 s"),
        ([0.0, 0.0, 0.0], "3 times within 0 s"),
    ],
)
def test_rhythm(gaps, words):
    """RFC 6298 doubles the wait; a first fast retransmission does not hide that."""
    times = [0]
    for gap in gaps:
        times.append(times[-1] + int(gap * S))
    assert _rhythm(times) == words


def test_a_broken_figure_is_a_note(judged, monkeypatch):
    """A figure that fails costs neither the finding nor the report."""
    story, finding, _ = judged
    monkeypatch.setattr(figures, "ladder", lambda *_: 1 / 0)
    bare = replace(finding, ladder=(), ladder_columns=())
    (kept,), (note,) = engine._illustrated(story, [bare])
    assert kept == bare
    assert "could not be drawn: ZeroDivisionError" in note
