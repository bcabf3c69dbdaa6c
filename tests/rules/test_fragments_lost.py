"""fragments-lost follows datagrams along their way and speaks where a part of them ends."""

from __future__ import annotations

import floods
import polars as pl
import pytest
from pcapdiag.rules import fragments_lost
from stories import case, cited

from pcapdiag.result import Clean, Confidence, Finding, NotExamined, Severity

SMALL = """
0.000 c>s udp len=100 {hop}
0.002 x>s icmp 8/0 {hop}
0.004 c2>s2 S {hop}
2.100 c>s udp len=100 id=4001 {hop}
"""
"""Small datagrams pass, and other things do, so that nothing looks like a filter."""


def datagrams(hop, count=3, parts=("first", "last"), start=3.0, who="c>s"):
    """Return `count` datagrams of 2000 bytes of data, each in the given parts."""
    lines = []
    for number in range(count):
        at, ident = start + number, 5000 + number
        if "first" in parts:
            lines.append(f"{at:.4f} {who} udp len=1472 mf id={ident} {hop}")
        if "last" in parts:
            lines.append(f"{at + 0.0001:.4f} {who} udp frag=1480 len=520 id={ident} {hop}")
    return "\n".join(lines) + "\n"


def capture(hop, *more, until=20.0):
    """Return a capture with small packets, whatever else, and a last small one."""
    last = f"{until} c>s udp len=100 id=4009 {hop}\n"
    return SMALL.format(hop=hop) + "".join(more) + last


def director(came_in, went_out):
    """Return a director's capture: lines that came in, lines that went out, merged by time."""
    lines = [line for text in (came_in, went_out) for line in text.splitlines() if line.strip()]
    return "\n".join(sorted(lines, key=lambda line: float(line.split()[0]))) + "\n"


IN, OUT, AT_RS = "mac=x>d ttl=64", "mac=d>rs ttl=63", "mac=d>rs ttl=63"
OTHERS = """
2.5 x>rs2 udp len=1472 mf id=60
2.5 x>rs2 udp frag=1480 len=520 id=60
"""
"""Another host's datagram, whole: this capture keeps later fragments."""


def at_director(came_in, went_out):
    """Return a director's capture, of fragments that came in and of those that went out."""
    inside = capture(IN, came_in)
    outside = capture(OUT, went_out).replace("0.00", "0.01")
    lines = [line for text in (inside, outside) for line in text.splitlines() if line.strip()]
    return "\n".join(sorted(lines, key=lambda line: float(line.split()[0]))) + "\n"


def at_realserver(*fragments, others=OTHERS):
    """Return a realserver's capture."""
    lines = [line for line in capture(AT_RS, others, *fragments).splitlines() if line.strip()]
    return "\n".join(sorted(lines, key=lambda line: float(line.split()[0]))) + "\n"


def first_only(hop, count, **more):
    """Return datagrams without their later fragments."""
    return datagrams(hop, count, parts=("first",), **more)


def judge(**texts):
    """Return the rule's findings, clean verdicts and questions not examined."""
    outcomes = list(fragments_lost.check(case(**texts)))
    return (
        [item for item in outcomes if isinstance(item, Finding)],
        [item for item in outcomes if isinstance(item, Clean)],
        [item for item in outcomes if isinstance(item, NotExamined)],
    )


def test_whole_at_the_director_and_cut_at_the_realserver():
    """Both captures are cited: where the datagram was whole, and the lone first fragment."""
    (finding,), _, _ = judge(
        director=at_director(datagrams(IN, 5), datagrams(OUT, 5)),
        rs1=at_realserver(first_only(AT_RS, 5)),
    )
    assert finding.cause.code == "lost-between-captures"
    assert finding.facts["last_whole_at"] == "director (going out)"
    assert finding.facts["missing_at"] == "rs1"
    assert finding.facts["datagrams_lost"] == 5
    assert (finding.severity, finding.confidence) == (Severity.HIGH, Confidence.HIGH)
    notes = {item.note.split(": ")[1][:8] for item in finding.evidence}
    assert {vantage for vantage, _ in cited(finding)} == {"director", "rs1"}
    assert notes == {"2028 byt", "a fragme"}


def test_a_director_that_sends_on_the_first_fragment_only():
    """One capture with both sides of the director is enough."""
    text = at_director(datagrams(IN, 5), first_only(OUT, 5))
    (finding,), _, _ = judge(director=text)
    assert finding.cause.code == "dropped-at-director"
    assert finding.facts["missing_at"] == "director (going out)"


def test_a_director_that_sends_on_nothing_of_large_datagrams():
    """Other packets of the connection leave, so that these would have been seen."""
    healthy = "".join(
        f"{at} c>s:443 A seq={n} ack=1 len=1 id={n + 9} {IN}\n"
        f"{at}1 c>s:443 A seq={n} ack=1 len=1 id={n + 9} {OUT}\n"
        for n, at in enumerate(f"2.{n:04d}" for n in range(400))
    )
    text = at_director(datagrams(IN, 5) + healthy, "")
    (finding,), _, _ = judge(director=text)
    assert finding.cause.code == "dropped-at-director"
    assert finding.facts["nothing_arrived"] == 5


@pytest.mark.parametrize(("count", "found"), [(2, 0), (3, 0), (4, 0), (5, 1)])
def test_five_lone_first_fragments_are_self_evident(count, found):
    """Three of them could be the capture's loss where no TCP shows how much it loses."""
    findings, _, not_examined = judge(rs1=at_realserver(first_only(AT_RS, count)))
    assert len(findings) == found
    lost = [item for item in not_examined if "may have lost" in item.reason]
    assert len(lost) == (2 < count < 5)


def timeout(count):
    """Return the receiver's complaints, half a minute after each of the first datagrams."""
    return "".join(
        f"{33 + n:.4f} s>c icmp 11/1 quote={{line}} mac=rs>x id={70 + n}\n" for n in range(count)
    )


@pytest.mark.parametrize(("complaints", "found"), [(2, 0), (3, 1)])
def test_the_receiver_says_so_itself(complaints, found):
    """Where later fragments are not in the capture, what the receiver says still counts."""
    text = at_realserver(first_only(AT_RS, 3), others="")
    line = next(n for n, row in enumerate(text.split("\n"), 1) if " mf " in row)
    told = text + timeout(complaints).format(line=line) + "40.0 c>s udp len=100 " + AT_RS + "\n"
    findings, _, _ = judge(rs1=told)
    assert [finding.cause.code for finding in findings] == ["reassembly-timeout"] * found


def test_incomplete_on_arrival_with_complaints_is_sure():
    """Alone it may be the capture; with the receiver's own words it is not."""
    text = at_realserver(first_only(AT_RS, 5))
    line = next(n for n, row in enumerate(text.split("\n"), 1) if " mf " in row and "c>s" in row)
    told = text + timeout(3).format(line=line) + "40.0 c>s udp len=100 " + AT_RS + "\n"
    (quiet,), _, _ = judge(rs1=text)
    (loud,), _, _ = judge(rs1=told)
    assert quiet.cause.code == loud.cause.code == "incomplete-on-arrival"
    assert (quiet.confidence, loud.confidence) == (Confidence.MEDIUM, Confidence.HIGH)
    assert len(cited(loud, "related")) == 3


def test_a_filter_by_port_keeps_later_fragments_out():
    """No later fragment of anybody, and one service only: nothing can be said."""
    findings, clean, not_examined = judge(rs1=at_realserver(first_only(AT_RS, 6), others=""))
    assert (findings, clean) == ([], [])
    assert "a capture filter with a port" in not_examined[0].reason


@pytest.mark.parametrize(("whole", "found"), [(5, 1), (6, 0)])
def test_half_of_the_datagrams_must_be_lost(whole, found):
    """Load sharing over two ways loses half; ordinary loss far less."""
    lost = first_only(AT_RS, 5)
    kept = datagrams(AT_RS, whole, start=3.5).replace("id=50", "id=90")
    findings, clean, _ = judge(rs1=at_realserver(lost + kept))
    assert len(findings) == found
    assert len(clean) == 1 - found


def test_put_together_on_the_way_is_not_lost():
    """A director that defragments hands on one large packet with the same IP ID."""
    one_piece = "".join(f"{3.001 + n:.4f} c>s udp len=1992 id={5000 + n} {OUT}\n" for n in range(5))
    findings, clean, missing = judge(director=at_director(datagrams(IN, 5), one_piece))
    assert findings == []
    assert not clean
    assert "whole as far as director (going out)" in missing[0].reason


def test_the_last_second_of_a_capture_says_nothing():
    """What is missing there may only not have been written yet."""
    late = first_only(AT_RS, 5, start=19.5).replace("20.5", "19.6").replace("21.5", "19.7")
    late = late.replace("22.5", "19.8").replace("23.5", "19.9")
    findings, _, _ = judge(rs1=at_realserver(late))
    assert findings == []


def test_without_fragments_nothing_is_clean():
    """Clean needs datagrams that arrived whole."""
    findings, clean, not_examined = judge(rs1=at_realserver(others=""))
    assert (findings, clean) == ([], [])
    assert "no fragmented datagram" in not_examined[0].reason


def test_many_fragments_are_one_finding():
    """However many there are, a few are cited and all are counted."""
    text = at_realserver(others="").replace("20.0 c>s", "900.0 c>s") + OTHERS
    text += "3.0 c>s udp len=1472 mf id=1 mac=d>rs ttl=63\n"
    flood = floods.case(
        text, name="rs1", role="realserver", time_ns=pl.col("time_ns") + pl.col("n") * 1_000_000
    )
    (finding,) = fragments_lost.check(flood)
    assert finding.count > 0.9 * min(floods.COUNT, 65_535)  # as many as there are IP IDs
    assert len(finding.evidence) <= fragments_lost.MAX_CITED
