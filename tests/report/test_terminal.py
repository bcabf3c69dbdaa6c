"""The summary on the terminal: about thirty lines, readable anywhere, nothing interpreted."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from pcapdiag.report import terminal
from pcapdiag.result import Severity


def _printed(result, files=("pcapdiag-report.html",), **options):
    console = Console(file=io.StringIO(), **{"width": 80, **options})
    terminal.render(result, console, files)
    return console.file.getvalue()


def test_golden(named, golden):
    """The bytes are those on file."""
    name, result = named
    golden(f"{name}.txt", _printed(result))


def test_it_is_about_thirty_lines(incident):
    """A story of everything at once fits a screen; only commands may be longer than a line."""
    rows = _printed(incident).splitlines()
    assert len(rows) <= 39
    usual = replace(
        incident, findings=incident.findings[1:], failed_rules=(), vantages=incident.vantages[:1]
    )
    assert len(_printed(usual, width=100).splitlines()) <= 30
    commands = incident.not_examined[0].capture_command
    assert [row for row in rows if len(row) > 80] == [f"    {commands}"]
    assert all(row == row.rstrip() for row in rows)


def test_it_tells_the_story(incident):
    """Verdict, frames, fix, what is open, which command, which files: in this order."""
    text = _printed(incident, ["report.html", "result.json"])
    told = [
        "Full-sized packets to clients vanish",
        "2 findings · 3 examined and in order · 3 not examined · 1 rule failed",
        "CRITICAL  pmtud-blackhole, high confidence; tcp 203.0.113.10:80",
        "Proof: director.pcap frame 57; rs1.pcap frame 61",
        "MEDIUM    A burst of 1522",
        "What to do now, on director: Let ICMP errors",
        "    iptables -L INPUT -v -n --line-numbers\n",
        "    iptables -I INPUT 1 -p icmp --icmp-type fragmentation-needed -j ACCEPT\n",
        "Not examined: 4 questions; a fault may lie there.",
        f"    {incident.not_examined[0].capture_command}\n",
        "Rule forwarding-loop failed",
        "Written: report.html, result.json",
    ]
    places = [text.index(words) for words in told]
    assert places == sorted(places)


def test_no_findings_is_not_all_is_well(results):
    """The first sentence says how much was examined; the capture to take follows."""
    text = " ".join(_printed(results["nothing-found"]).split())
    assert text.startswith("No fault found, but only 3 of 6 questions could be examined")
    assert results["nothing-found"].not_examined[0].capture_command in text


def test_severity_does_not_need_colour(incident, monkeypatch):
    """With NO_COLOR the words are all there and no colour is sent."""
    monkeypatch.setenv("NO_COLOR", "1")
    text = _printed(incident, force_terminal=True, color_system="standard")
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", text)
    assert "CRITICAL" in text


def test_colour_repeats_the_words(incident):
    """On a terminal with colours only styles are added."""
    coloured = _printed(incident, force_terminal=True, color_system="standard")
    assert "\x1b[1;31mCRITICAL" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == _printed(incident)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_any_encoding_will_do(encoding, incident, rewrite):
    """A terminal that lacks characters gets question marks, no error."""
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    result = rewrite(incident, lambda text: text + " \u4e2d\U0001f4a5")
    terminal.render(result, Console(file=file, width=80), ["\u4e2d.html"])
    file.flush()
    assert b"Written: ?.html" in raw.getvalue()


def test_narrow_terminals_work(result):
    """Twenty columns are enough not to fail."""
    assert _printed(result, width=20)


def test_remarks_take_one_line(incident):
    """What costs nobody anything is named behind what does, and described in the report."""
    remark = replace(
        incident.findings[1], id="x", severity=Severity.INFO, title="Capture at rs1: frames cut"
    )
    findings = (*incident.findings, remark, replace(remark, id="y", title="Clock of rs2 drifts"))
    rows = _printed(replace(incident, findings=findings), width=100).splitlines()
    assert "2 remarks: Capture at rs1: frames cut; Clock of rs2 drifts" in rows
    assert len(rows) == len(_printed(incident, width=100).splitlines()) + 2


def test_a_remark_alone_is_told_in_full(incident):
    """It is the story then."""
    remark = replace(incident.findings[1], severity=Severity.INFO)
    shown = _printed(replace(incident, findings=(remark,)))
    assert "INFO" in shown
    assert "1 remark:" not in shown
