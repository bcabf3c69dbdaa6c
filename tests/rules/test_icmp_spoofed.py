"""icmp-spoofed holds what errors quote against what was sent, where that was captured."""

from __future__ import annotations

from dataclasses import replace

import floods
import polars as pl
import pytest
from pcapdiag.rules import icmp_spoofed
from stories import ROLES, case, cited, marked
from traces import trace

from pcapdiag.case import Case
from pcapdiag.flows import vantage
from pcapdiag.result import Clean, Confidence, Finding, NotExamined, Severity

SERVED = """
0.000 c>s S seq=0 mss=1460 ttl=63 mac=d>rs
0.001 s>c SA seq=0 ack=1 mss=1460 mac=rs>x
0.002 c>s A seq=1 ack=1 ttl=63 mac=d>rs
0.003 c>s PA seq=1 ack=1 len=100 ttl=63 mac=d>rs
0.004 s>c PA seq=1 ack=101 len=1460 mac=rs>x
0.005 c>s A seq=101 ack=1461 ttl=63 mac=d>rs
"""
SLACK = icmp_spoofed.SLACK_BYTES


def forged(count, seq, words="3/3", start=1.0):
    """Return errors about a packet that was never captured, with the given sequence number.

    The trace needs the packet to quote it; `judge` takes the frames out again.
    """
    return "".join(
        f"{start + n / 10:.2f} s>c A seq={seq} ack=101 len=1000 id={900 + n} if=9 mac=rs>x\n"
        f"{start + n / 10 + 0.01:.2f} r>s icmp {words} quote={{{n}}} mac=d>rs ttl=60 id={n + 1}\n"
        for n in range(count)
    )


def judge(text, *errors, role="rs1"):
    """Return findings, clean verdicts and questions, without the packets that were only quoted."""
    lines = [line for line in text.splitlines() if line]
    for error in errors:
        for line in error.splitlines():
            filled = line
            for number in range(20):
                filled = filled.replace(f"{{{number}}}", str(len(lines)))
            lines.append(filled)
    whole = "\n".join(lines) + "\n"
    outcomes = list(icmp_spoofed.check(_without_quoted(whole, role)))
    return (
        [item for item in outcomes if isinstance(item, Finding)],
        [item for item in outcomes if isinstance(item, Clean)],
        [item for item in outcomes if isinstance(item, NotExamined)],
    )


def _without_quoted(text, role):
    """Return the case of a trace without the packets of interface 9."""
    made = trace(text)
    decoded = made.decoded(0)
    rows = decoded.packets.with_row_index("old").filter(pl.col("interface") != 9)
    renumbered = rows.select(pl.col("old").alias("row")).with_row_index("new")
    icmp = (
        decoded.icmp.join(renumbered, on="row", maintain_order="left")
        .with_columns(pl.col("new").cast(pl.UInt32).alias("row"))
        .drop("new")
    )
    decoded = replace(decoded, packets=rows.drop("old"), icmp=icmp)
    info = replace(made.info(), path=f"{role}.pcap")
    tables = vantage.build(0, role, ROLES.get(role.rstrip("0123456789")), [(info, decoded)])
    return Case((tables,))


@pytest.mark.parametrize(
    ("seq", "found"),
    [
        (-1, 1),
        (0, 0),
        (1461, 0),
        (1461 + SLACK, 0),
        (1462 + SLACK, 1),
        (2**31, 1),
    ],
)
def test_sequence_numbers_that_nobody_sent(seq, found):
    """From the SYN on up to what was sent and a little more: inside; all else is made up."""
    findings, clean, _ = judge(SERVED, forged(3, seq))
    assert len(findings) == found
    assert len(clean) == 1 - found
    if found:
        assert findings[0].cause.code == "sequence-never-sent"
        assert findings[0].severity is Severity.MEDIUM
        assert findings[0].confidence is Confidence.MEDIUM
        assert len(cited(findings[0])) == 3
        assert findings[0].facts["sender"] == "192.0.2.1"


@pytest.mark.parametrize(("count", "found"), [(2, 0), (3, 1)])
def test_one_or_two_may_be_about_an_earlier_connection(count, found):
    """Both sides of the threshold."""
    assert len(judge(SERVED, forged(count, 2**30))[0]) == found


def test_a_late_error_about_acknowledged_data_was_sent():
    """It is inside, however old."""
    late = "".join(f"{60 + n}.0 r>s icmp 11/0 quote=5 mac=d>rs ttl=60 id={n}\n" for n in range(5))
    findings, clean, _ = judge(SERVED + late)
    assert findings == []
    assert clean[0].examined.icmp_errors == 5


@pytest.mark.parametrize(("shown", "found"), [("", 0), ("unseen", 1)])
def test_an_error_about_a_captured_packet_is_genuine_whoever_sent_that(shown, found):
    """A stranger injects segments of a window half the numbers away; the realserver rejects them.

    Neither the client's capture nor what counts as sent holds such numbers: the packet does.
    """
    client = SERVED.replace("ttl=63", "ttl=64").replace("mac=d>rs", "mac=c>x")
    client += "9.0 c>s A seq=101 ack=1461 mac=c>x\n"
    rs1 = SERVED + "".join(
        f"{1 + n / 10:.2f} c>s A seq={2**31 + n} ack=1461 len=9 id=9{n} ttl=63 mac=d>rs {shown}\n"
        f"{1.01 + n / 10:.2f} s>c icmp 3/10 quote={7 + 2 * n} mac=rs>x id={n + 1}\n"
        for n in range(3)
    )
    outcomes = list(icmp_spoofed.check(case(client=client, rs1=rs1)))
    assert [type(item) for item in outcomes] == [Finding if found else Clean]


def test_a_connection_that_had_begun_before_is_not_judged():
    """Without its SYN nobody knows where its numbers began."""
    middle = "\n".join(SERVED.strip().splitlines()[2:]) + "\n"
    findings, clean, not_examined = judge(middle, forged(3, 2**30))
    assert (findings, clean) == ([], [])
    assert "had begun before" in not_examined[0].reason


def test_a_direction_that_was_not_captured_is_not_judged():
    """A director of LVS-DR never sees what realservers send."""
    director = """
0.000 c>s S seq=0 mss=1460 mac=x>d
0.0001 copy 1 ttl=63 mac=d>rs
0.002 c>s A seq=1 ack=1 mac=x>d
0.0021 copy 3 ttl=63 mac=d>rs
"""
    findings, clean, not_examined = judge(
        director, forged(3, 2**30).replace("mac=d>rs", "mac=x>d"), role="director"
    )
    assert (findings, clean) == ([], [])
    assert not_examined[0].needs[0].startswith("a capture on a realserver")


def test_bad_checksums_are_for_another_rule():
    """What such a message quotes may be broken like the rest of it."""
    assert judge(SERVED, forged(3, 2**30).replace("ttl=60", "ttl=60 sum=5"))[0] == []


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("gw=rs2 ttl=64", None),
        ("gw=rs2 ttl=255", None),
        ("gw=rs2 ttl=63", "redirect-was-routed"),
        ("gw=bad ttl=64", "redirect-impossible-gateway"),
        ("gw=c ttl=64", "redirect-impossible-gateway"),
    ],
)
def test_redirects_that_no_gateway_may_send(words, code, monkeypatch):
    """On the link with a first TTL, and to a gateway that can be one; `c` is the receiver."""
    monkeypatch.setitem(__import__("traces").HOSTS, "bad", "127.0.0.9:0")
    text = SERVED + f"1.0 x>c icmp 5/1 quote=4 mac=x>rs {words} !\n"
    findings, _, _ = judge(text)
    assert [finding.cause.code for finding in findings] == ([code] if code else [])
    if code:
        assert cited(findings[0]) == marked(rs1=text)


def test_without_errors_nothing_is_clean():
    """Clean needs errors that fit."""
    findings, clean, not_examined = judge(SERVED)
    assert (findings, clean) == ([], [])
    assert not_examined


def test_half_a_million_forgeries_are_one_finding():
    """A flood of guesses."""
    text = SERVED + "1.0 r>s icmp 3/3 quote=5 mac=d>rs ttl=60\n"
    flood = floods.case(
        text,
        name="rs1",
        role="realserver",
        quoted_tcp_seq=((pl.col("n") * 8191 + 2**30) % 2**32).cast(pl.UInt32),
        quoted_ip_id=pl.col("n") % 65535 + 1,
    )
    (finding,) = icmp_spoofed.check(flood)
    assert finding.count > 0.8 * floods.COUNT
    assert len(finding.evidence) == icmp_spoofed.MAX_CITED
