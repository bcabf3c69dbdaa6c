"""source-quench reports type 4 and what it did, which today is nothing."""

from __future__ import annotations

import floods
import polars as pl
import pytest
from pcapdiag.rules import source_quench
from stories import case, cited, marked

from pcapdiag.result import Clean, Finding, NotExamined, Severity

SERVED = """
0.000 c>s S seq=0 mss=1460 ttl=63 mac=d>rs
0.001 s>c SA seq=0 ack=1 mss=1460 mac=rs>x
0.002 c>s A seq=1 ack=1 ttl=63 mac=d>rs
0.003 c>s PA seq=1 ack=1 len=100 ttl=63 mac=d>rs
"""
QUENCH = "2.0 r>s icmp 4/0 quote={line} mac=d>rs ttl=60 !\n"


def stream(before, after, later=1, connections=2):
    """Return a realserver's packets before and after a source quench, and it, for each client."""
    text = SERVED
    if connections > 1:
        text += SERVED.replace("c>s", "c2>s").replace("s>c", "s>c2")
    for client in ("c", "c2")[:connections]:
        lines = [(1.2 + n / 100, n) for n in range(before)]
        lines += [(2.1 + n / 100, before + n) for n in range(after)]
        lines += [(4.0 + n, before + after + n) for n in range(later)]
        for number, (time, nth) in enumerate(lines):
            text += f"{time:.3f} s>{client} A seq={1 + nth * 100} ack=101 len=100 mac=rs>x\n"
            if number == before - 1:
                text += QUENCH.format(line=len([row for row in text.splitlines() if row]))
    return text + "9.0 c>s A seq=101 ack=1 ttl=63 mac=d>rs\n"


def judge(**texts):
    """Return the rule's findings, clean verdicts and questions not examined."""
    outcomes = list(source_quench.check(case(**texts)))
    return (
        [item for item in outcomes if isinstance(item, Finding)],
        [item for item in outcomes if isinstance(item, Clean)],
        [item for item in outcomes if isinstance(item, NotExamined)],
    )


@pytest.mark.parametrize(
    ("before", "after", "code"),
    [
        (10, 5, "ignored"),
        (10, 4, "sender-slowed"),
        (9, 0, "effect-not-known"),
        (40, 40, "ignored"),
    ],
)
def test_what_the_sender_did(before, after, code):
    """Both sides of two thresholds: ten packets before, half of them after."""
    text = stream(before, after)
    (finding,), _, _ = judge(rs1=text)
    assert finding.cause.code == code
    assert cited(finding) == marked(rs1=text)
    assert finding.severity is (Severity.MEDIUM if code == "sender-slowed" else Severity.INFO)
    assert finding.facts["sender"] == "192.0.2.1"


@pytest.mark.parametrize(
    ("later", "connections", "code"),
    [(1, 2, "sender-slowed"), (0, 2, "effect-not-known"), (1, 1, "effect-not-known")],
)
def test_who_has_nothing_more_to_send_did_not_slow_down(later, connections, code):
    """More must follow, and another connection must agree."""
    (finding,), _, _ = judge(rs1=stream(20, 2, later, connections))
    assert finding.cause.code == code


def test_at_a_director_the_effect_is_not_known():
    """In direct routing the replies do not pass it."""
    text = """
0.000 c>s S seq=0 mss=1460 mac=x>d
0.0001 copy 1 ttl=63 mac=d>rs
0.002 c>s A seq=1 ack=1 mac=x>d
0.0021 copy 3 ttl=63 mac=d>rs
0.003 s>c A seq=1 ack=1 len=1460 mac=rs>x
2.0 r>s icmp 4/0 quote=5 mac=x>d ttl=60 !
2.0001 copy 6 ttl=59 mac=d>rs
9.0 c>s A seq=1 ack=1461 mac=x>d
"""
    (finding,), _, _ = judge(director=text)
    assert finding.cause.code == "effect-not-known"
    assert cited(finding) == marked(director=text)


def test_fragmentation_needed_and_bad_checksums_are_for_other_rules():
    """Type 3 code 4 is no source quench, and a broken message says nothing."""
    text = stream(20, 2)
    findings, clean, _ = judge(rs1=text.replace("icmp 4/0", "icmp 3/4 mtu=1400"))
    assert findings == []
    assert clean
    assert judge(rs1=text.replace("ttl=60", "ttl=60 sum=9"))[0] == []


def test_the_parameter_problem_of_ipv6_has_the_same_number():
    """ICMPv6 type 4 is no source quench."""
    text = """
0.000 c6>s6 S seq=0 mss=1440 mac=x>d
0.0001 copy 1 ttl=63 mac=d>rs
0.001 s6>c6 SA seq=0 ack=1 mss=1440 mac=rs>x
0.003 s6>c6 A seq=1 ack=1 len=1440 mac=rs>x
0.01 r6>s6 icmp 4/0 quote=4 mac=x>d
"""
    assert judge(director=text)[0] == []


def test_without_errors_nothing_is_clean():
    """Clean needs errors that are something else."""
    findings, clean, not_examined = judge(rs1=SERVED)
    assert (findings, clean) == ([], [])
    assert not_examined


def test_half_a_million_messages_are_one_finding():
    """However many there are, a few are cited and all are counted."""
    text = SERVED + "0.004 s>c A seq=1 ack=101 len=100 mac=rs>x\n" + QUENCH.format(line=5)
    flood = floods.case(text, name="rs1", role="realserver", quoted_ip_id=pl.col("n") % 65535 + 1)
    (finding,) = source_quench.check(flood)
    assert finding.count == floods.COUNT
    assert len(finding.evidence) == source_quench.MAX_CITED


def test_messages_about_connections_that_no_capture_shows_are_not_clean():
    """A capture of nothing but ICMP holds source quench, and not whom it slowed down."""
    unseen = SERVED.replace("\n", " unseen\n").replace(" unseen", "", 1)
    findings, clean, missing = judge(rs1=unseen + QUENCH.format(line=4))
    assert (findings, clean) == ([], [])
    assert "1 source quench messages" in missing[0].reason
