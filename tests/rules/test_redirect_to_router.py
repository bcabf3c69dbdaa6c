"""redirect-to-router speaks of redirects around the director, and proves that they were obeyed."""

from __future__ import annotations

from pcapdiag.rules import redirect_to_router
from stories import case, cited, marked

from pcapdiag.result import Clean, Finding

DIRECTOR = """
0.000 c>s S seq=0 mss=1460 mac=x>d
0.0001 copy 1 ttl=63 mac=d>rs
0.002 c>s A seq=1 ack=1 mac=x>d
0.0021 copy 3 ttl=63 mac=d>rs
0.003 c2>s S seq=0 mss=1460 mac=x>d
0.0031 copy 5 ttl=63 mac=d>rs2
0.004 c2>s A seq=1 ack=1 mac=x>d
0.0041 copy 7 ttl=63 mac=d>rs2
"""
REDIRECT = "1.000 d>x icmp 5/1 gw=rs quote=1 mac=d>x{mark}\n"
PAST = """
2.000 c>s PA seq=1 ack=1 len=100 mac=x>rs
2.100 c2>s PA seq=1 ack=1 len=100 mac=x>rs
"""
STAYED = """
2.000 c>s PA seq=1 ack=1 len=100 mac=x>d
2.0001 copy 10 ttl=63 mac=d>rs
2.100 c>s PA seq=101 ack=1 len=100 mac=x>d
2.1001 copy 12 ttl=63 mac=d>rs
2.200 c>s PA seq=201 ack=1 len=100 mac=x>d
2.2001 copy 14 ttl=63 mac=d>rs
"""


def judge(**texts):
    """Return the rule's findings and clean verdicts."""
    outcomes = list(redirect_to_router.check(case(**texts)))
    return (
        [item for item in outcomes if isinstance(item, Finding)],
        [item for item in outcomes if isinstance(item, Clean)],
    )


def test_a_redirect_that_moves_the_vip_and_is_obeyed():
    """Later frames for the VIP that carry a realserver's MAC prove it: high severity."""
    texts = {"director": DIRECTOR + REDIRECT.format(mark=" !") + PAST}
    (finding,), _ = judge(**texts)
    assert finding.cause.code == "redirect-obeyed"
    assert finding.severity == "high"
    assert cited(finding) == marked(**texts)
    assert cited(finding, "related") == {("director", 10)}
    assert finding.facts["frames_past_the_director"] == 2


def test_frames_that_a_capture_shows_twice_are_counted_once():
    """A bridge and its port see one frame each; one frame went past the director."""
    twice = PAST.replace("2.100", "2.00001 copy 10\n2.100")
    (finding,), _ = judge(director=DIRECTOR + REDIRECT.format(mark="") + twice)
    assert finding.facts["frames_past_the_director"] == 2


def test_a_redirect_whose_effect_is_not_seen_is_of_medium_severity():
    """Without later frames nobody can say whether it was obeyed."""
    (finding,), _ = judge(director=DIRECTOR + REDIRECT.format(mark=""))
    assert finding.cause.code == "redirect-sent"
    assert finding.severity == "medium"


def test_a_redirect_that_was_not_obeyed_is_of_low_severity():
    """Three later frames by the old way say that the receiver does not listen."""
    (finding,), _ = judge(director=DIRECTOR + REDIRECT.format(mark="") + STAYED)
    assert finding.cause.code == "redirect-ignored"
    assert finding.severity == "low"


def test_a_redirect_about_something_else_is_clean():
    """Another destination than the VIP, from another router, does not concern the cluster."""
    other = DIRECTOR + "0.9 x>c udp len=10 mac=x>d\n1.000 r>x icmp 5/1 gw=x quote=9 mac=x>d\n"
    findings, clean = judge(director=other)
    assert findings == []
    assert clean[0].examined.icmp_errors == 1


def test_no_redirect_at_all_is_clean_where_icmp_would_have_been_kept():
    """Clean says how many packets were looked at."""
    findings, clean = judge(director=DIRECTOR + "1.0 c>s icmp 8/0 mac=x>d\n")
    assert findings == []
    assert clean[0].examined.packets == 9
