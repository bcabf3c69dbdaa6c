"""nat-reply-bypasses-director fires on answers with the realserver's address, at three places."""

from __future__ import annotations

import pytest
from pcapdiag.rules import nat_reply_bypasses_director
from stories import case, cited, marked

from pcapdiag.result import Clean, Finding, NotExamined

SERVED = """
0.000 c>s S seq=0 mss=1460 mac=x>d ttl=60
0.0001 c>rs S seq=0 mss=1460 mac=d>rs ttl=59 id=1
0.001 rs>c SA seq=0 ack=1 mss=1460 mac=rs>d
0.0011 s>c SA seq=0 ack=1 mss=1460 mac=d>x ttl=63 id=1
0.002 c>s A seq=1 ack=1 mac=x>d ttl=60
0.0021 c>rs A seq=1 ack=1 mac=d>rs ttl=59 id=3
0.003 c>s PA seq=1 ack=1 len=100 mac=x>d ttl=60
0.0031 c>rs PA seq=1 ack=1 len=100 mac=d>rs ttl=59 id=5
0.004 rs>c PA seq=1 ack=101 len=100 mac=rs>d
0.0041 s>c PA seq=1 ack=101 len=100 mac=d>x ttl=63 id=2
"""
"""A NAT director with one arm translates a connection both ways; 10 frames."""

ASKED = """
1.000 c2>s S seq=0 mss=1460 mac=x>d ttl=60
1.0001 c2>rs2 S seq=0 mss=1460 mac=d>rs2 ttl=59 id=1
"""

AT_REALSERVER = """
1.0001 c2>rs2 S seq=0 mss=1460 mac=d>rs2 ttl=59 id=1
1.001 rs2>c2 SA seq=0 ack=1 mss=1460 mac=rs2>{to} id=0 !
2.0001 c2>rs2 S seq=0 mss=1460 mac=d>rs2 ttl=59 id=2
2.001 rs2>c2 SA seq=0 ack=1 mss=1460 mac=rs2>{to} id=0
"""

AT_CLIENT = """
0.9990 c2>s S seq=0 mss=1460 mac=c2>r ttl=64
1.0110 rs2>c2 SA seq=0 ack={ack} mss=1460 mac=r>c2 ttl=60 id=0 !
1.0111 c2>rs2 R seq=1 mac=c2>r
"""


def judge(**texts):
    """Return the rule's findings, clean verdicts and questions not examined."""
    outcomes = list(nat_reply_bypasses_director.check(case(**texts)))
    return (
        [item for item in outcomes if isinstance(item, Finding)],
        [item for item in outcomes if isinstance(item, Clean)],
        [item for item in outcomes if isinstance(item, NotExamined)],
    )


def test_a_realserver_that_answers_to_the_router_is_named():
    """Its requests come from the director's MAC, its answers leave for another."""
    texts = {"director": SERVED + ASKED, "rs2": AT_REALSERVER.format(to="x")}
    (finding,), _, _ = judge(**texts)
    assert finding.cause.code == "reply-bypasses-director"
    assert finding.facts["realserver"] == "203.0.113.12"
    assert finding.facts["from_the_start"] == 1
    assert cited(finding) == marked(**texts)
    assert [flow.client for flow in finding.flows] == ["198.51.100.21:40000"]


def test_answers_to_the_director_are_as_they_should_be():
    """The same with the director's MAC is clean."""
    texts = {"director": SERVED + ASKED, "rs2": AT_REALSERVER.format(to="d")}
    findings, clean, _ = judge(**texts)
    assert findings == []
    assert len(clean) == 1


def test_at_the_client_the_handshake_proves_it():
    """The SYN-ACK of a host that was never called acknowledges the SYN to the VIP."""
    texts = {"director": SERVED + ASKED, "client": AT_CLIENT.format(ack=1)}
    (finding,), _, _ = judge(**texts)
    assert cited(finding) == marked(**texts)
    assert finding.facts["from_the_start"] == 1


def test_an_answer_to_another_number_proves_nothing():
    """A SYN-ACK that acknowledges something else is not the VIP's."""
    texts = {"director": SERVED + ASKED, "client": AT_CLIENT.format(ack=77)}
    assert judge(**texts)[0] == []


@pytest.mark.parametrize("size", [400, 0])
def test_a_director_that_lets_answers_pass_untranslated(size):
    """The same packet comes in and leaves; without data it is a small matter."""
    late = (
        f"5.0 rs>c PA seq=101 ack=101 len={size} mac=rs>d id=9\n5.0001 copy 11 ttl=63 mac=d>x !\n"
    )
    texts = {"director": SERVED + late}
    (finding,), _, _ = judge(**texts)
    assert finding.cause.code == "left-untranslated"
    assert cited(finding) == marked(**texts)
    assert finding.severity == ("high" if size else "low")


def test_a_client_that_calls_the_realserver_gets_its_answers_rightly():
    """The director routes both ways; nobody asked for the VIP."""
    direct = """
5.0 c2>rs S seq=0 mss=1460 mac=x>d ttl=60 id=50
5.0001 copy 11 ttl=59 mac=d>rs
5.001 rs>c2 SA seq=0 ack=1 mac=rs>d
5.0011 copy 13 ttl=63 mac=d>x
5.002 c2>rs PA seq=1 ack=1 len=10 mac=x>d ttl=60 id=51
5.0021 copy 15 ttl=59 mac=d>rs
5.003 rs>c2 PA seq=1 ack=11 len=10 mac=rs>d id=52
5.0031 copy 17 ttl=63 mac=d>x
"""
    findings, clean, _ = judge(director=SERVED + direct)
    assert findings == []
    assert len(clean) == 1


def test_in_direct_routing_answers_pass_the_director_by_design():
    """They carry the VIP; the rule has nothing to look at."""
    dr = "\n".join(
        f"{n}.0 c>s PA seq={n} ack=1 len=1 mac=x>d\n{n}.0001 copy {2 * n + 1} ttl=63 mac=d>rs"
        for n in range(4)
    )
    assert judge(director=dr) == ([], [], [])


def test_a_director_that_shows_no_answers_cannot_tell():
    """It does not see what passes it by: a realserver's capture is asked for."""
    half = "\n".join(
        line for line in SERVED.splitlines() if "rs>c" not in line and "s>c" not in line
    )
    findings, clean, missing = judge(director=half + ASKED)
    assert (findings, clean) == ([], [])
    assert "realserver" in missing[0].needs[0]


def test_a_reset_that_is_captured_twice_is_one():
    """A bridge and its port both show it."""
    twice = AT_CLIENT.format(ack=1) + "1.011101 copy 3\n"
    (finding,), _, _ = judge(
        director=SERVED + ASKED, client=twice, rs2=AT_REALSERVER.format(to="x")
    )
    assert finding.facts["client_resets"] == 1
