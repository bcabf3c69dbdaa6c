"""Dissections beside the evidence, whoever made them; verdicts are the same without."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import PcapWriter

from pcapdiag import dissect, exhibits, workers
from pcapdiag.export import evidence
from pcapdiag.flows import vantage
from pcapdiag.result import Cause, Confidence, Evidence, Finding, Result, Severity

INNER = IP(src="198.51.100.7", dst="203.0.113.10") / TCP(sport=4711, dport=80) / Raw(b"secret")
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
GUE = IP(src="10.0.0.1", dst="10.0.0.11") / UDP(sport=5000, dport=6080) / Raw(bytes([0, 4, 0, 0]))


@pytest.fixture
def cited(tmp_path):
    """Tables of a capture of two frames, plain and inside GUE, and a result that cites both."""
    path = tmp_path / "lb1.pcap"
    with PcapWriter(str(path)) as file:
        for frame in (ETHER / INNER, ETHER / GUE / INNER):
            frame.time = 1_714_557_600
            file.write(frame)
    read = workers.read_capture(str(path), 0)
    tables = vantage.build(0, "lb1", "director", [(read.info, read.decoded)])
    finding = Finding(
        rule="pmtud-blackhole",
        title="t",
        summary="s",
        cause=Cause(code="c", text="c"),
        severity=Severity.HIGH,
        confidence=Confidence.HIGH,
        evidence=tuple(
            Evidence(role="primary", vantage="lb1", file=str(path), frame=frame, note="n")
            for frame in (2, 1)
        ),
    )
    return [tables], Result(findings=(finding,))


def _dissected(cited, monkeypatch, words):
    monkeypatch.setattr(dissect, "by_wireshark", words)
    tables, result = cited
    found = evidence.gather(tables, result.findings, context=False)
    return exhibits.dissected(result, tables, found)


def test_each_row_gets_its_own_frame(cited, monkeypatch):
    """The slice is in the order of citation; answers find their way back to (file, frame)."""
    told = dissect.Words({1: ["of frame 2"], 2: ["of frame 1"]})
    after = _dissected(cited, monkeypatch, lambda *_: told)
    first, second = after.findings[0].evidence
    assert (first.frame, first.dissection.lines[-1]) == (2, "of frame 2")
    assert (second.frame, second.dissection.lines) == (1, ("of frame 1",))
    assert first.dissection.tool == "Wireshark"
    assert after.notes == ()


def test_outer_headers_of_gue_are_cut_off_and_named(cited, monkeypatch):
    """Tshark 4.0 does not know GUE: it gets the inner packet, the reader a line about the outer."""
    after = _dissected(cited, monkeypatch, lambda *_: None)
    lines = after.findings[0].evidence[0].dissection.lines
    assert lines[0].startswith("Generic UDP Encapsulation: 10.0.0.1:5000 > 10.0.0.11:6080, outer")
    assert lines[1] == "IP"
    assert "    src: 198.51.100.7" in lines


def test_scapy_reads_what_wireshark_did_not(cited, monkeypatch):
    """A hang half-way is a note; the frames left over are scapy's."""
    told = dissect.Words({1: ["of frame 2"]}, "tshark did not answer within 20 s")
    after = _dissected(cited, monkeypatch, lambda *_: told)
    tools = [item.dissection.tool for item in after.findings[0].evidence]
    assert tools == ["Wireshark", "scapy"]
    assert after.notes == (
        "tshark did not answer within 20 s: scapy dissected the frames that it did not",
    )


def test_hostile_words_are_made_harmless(cited, monkeypatch):
    """Escapes, bidi controls and megabytes go where the dissection is built; indentation stays."""
    told = dissect.Words({1: ["    \x1b[31mred\u202e" + "x" * 10**6]})
    after = _dissected(cited, monkeypatch, lambda *_: told)
    line = after.findings[0].evidence[0].dissection.lines[-1]
    assert line.startswith("    red\N{REPLACEMENT CHARACTER}xxx")
    assert len(line) < 200


def test_no_payload_reaches_a_dissector(cited, monkeypatch):
    """Neither the slice nor the words hold what TCP carried."""
    seen = []
    after = _dissected(cited, monkeypatch, lambda path, *_: seen.append(path.read_bytes()))
    assert b"secret" not in seen[0]
    assert "secret" not in repr(after)
