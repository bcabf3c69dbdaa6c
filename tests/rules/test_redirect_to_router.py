"""redirect-to-router speaks of redirects around the director, and proves that they were obeyed."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest
from pcapdiag.rules import redirect_to_router
from stories import case, cited, marked

from pcapdiag.result import Clean, Finding, NotExamined

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


def changed(text, **columns):
    """Return the findings on a director's capture in which some columns are changed."""
    made = case(director=text)
    (vantage,) = made.vantages
    packets = vantage.packets.with_columns(**columns)
    outcomes = redirect_to_router.check(
        replace(made, vantages=(replace(vantage, packets=packets),))
    )
    return [item for item in outcomes if isinstance(item, Finding)]


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


def test_redirects_alone_do_not_tell_whom_they_are_about():
    """Where only ICMP was kept, no address is known to be virtual: that is not clean."""
    outcomes = list(redirect_to_router.check(case(director="1 d>x icmp 5/1 gw=rs mac=d>x")))
    assert [type(item) for item in outcomes] == [NotExamined]


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


def test_the_three_criteria_hold_where_a_director_sends_one():
    """Same interface, neighbour on the gateway's subnet, no options: as RFC 1812 wants it."""
    neighbour = DIRECTOR.replace("c>s S", "x>s S").replace("c>s A", "x>s A")
    (finding,), _ = judge(director=neighbour + REDIRECT.format(mark=""))
    facts = finding.facts
    assert facts["same_interface"] is True
    assert facts["source_on_gateways_subnet"] is True
    assert facts["no_source_route"] is True
    assert "No gateway may send them" not in finding.summary


@pytest.mark.parametrize(
    ("text", "fact", "words"),
    [
        (DIRECTOR.replace("mac=d>rs\n", "mac=s2>rs\n"), "same_interface", "another interface"),
        (DIRECTOR, "source_on_gateways_subnet", "not on the gateway's subnet"),
    ],
)
def test_a_criterion_that_fails_is_named(text, fact, words):
    """One that no gateway may send is not the director's doing, or its netmask is wrong."""
    (finding,), _ = judge(director=text + REDIRECT.format(mark=""))
    assert finding.facts[fact] is False
    assert words in finding.summary


def test_a_source_route_forbids_a_redirect():
    """An IP header with options is longer than 20 bytes."""
    (finding,) = changed(
        DIRECTOR + REDIRECT.format(mark=""), ip_header_len=pl.lit(24, dtype=pl.UInt16)
    )
    assert finding.facts["no_source_route"] is False
    assert "the packet has IP options" in finding.summary


def test_frames_to_a_virtual_router_are_a_failover_and_no_obedience():
    """A MAC of VRRP (RFC 9568) after the redirect: another director took over."""
    text = DIRECTOR + REDIRECT.format(mark="") + PAST
    rows = pl.int_range(pl.len())
    late = pl.when(rows >= 9).then(pl.lit(0x0000_5E00_0107, dtype=pl.UInt64)).otherwise("eth_dst")
    (finding,) = changed(text, eth_dst=late)
    assert finding.cause.code != "redirect-obeyed"
    assert finding.facts["frames_past_the_director"] == 0


def test_remedies_know_how_the_switches_compose():
    """A router needs `all` AND the interface, a host `all` OR the interface: both are written."""
    (finding,), _ = judge(director=DIRECTOR + REDIRECT.format(mark="") + PAST)
    texts = {remedy.action for remedy in finding.remedies}
    assert any("'all' OR the interface decides" in text for text in texts)
    assert finding.facts["connections_past_the_director"] == 2
