"""vip-arp-conflict needs two answers to one question; a change of owner is none."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pcapdiag.rules import vip_arp_conflict
from stories import case, cited, marked
from traces import trace

from pcapdiag.result import Clean, Finding, NotExamined, Severity
from pcapdiag.site import Site, SiteHost

DR = """
0.000 c>s S seq=0 mss=1460 mac=x>d
0.0001 copy 1 ttl=63 mac=d>rs
0.002 c>s A seq=1 ack=1 mac=x>d
0.0021 copy 3 ttl=63 mac=d>rs
"""


def at_router(second="rs", gap=0.001, address="s"):
    """Return a router's capture in which two answer for an address."""
    return f"""
0.000 c>s S seq=0 mss=1460 mac=x>d
0.002 c>s A seq=1 ack=1 mac=x>d
5.000 x>* arp request who={address}
5.001 d>x arp reply is={address} !
{5.001 + gap} {second}>x arp reply is={address} !
6.000 c>s PA seq=1 ack=1 len=10 mac=x>{second}
"""


def judge(**texts):
    """Return the rule's findings, clean verdicts and questions not examined."""
    outcomes = list(vip_arp_conflict.check(case(**texts)))
    return (
        [item for item in outcomes if isinstance(item, Finding)],
        [item for item in outcomes if isinstance(item, Clean)],
        [item for item in outcomes if isinstance(item, NotExamined)],
    )


def test_a_realserver_that_answers_for_the_vip_is_named():
    """Both answers are cited, and the frame that went astray with its connection."""
    texts = {"director": DR, "router": at_router()}
    (finding,), _, _ = judge(**texts)
    assert finding.cause.code == "realserver-answers"
    assert cited(finding) == marked(**texts)
    assert cited(finding, "related") == {("router", 6)}
    assert [flow.client for flow in finding.flows] == ["198.51.100.20:40000"]
    assert "arp_ignore=1" in finding.remedies[0].commands[0]


def test_a_stranger_is_not_called_a_realserver():
    """A MAC that nobody knows is told as such."""
    (finding,), _, _ = judge(director=DR, router=at_router(second="r"))
    assert finding.cause.code == "stranger-answers"


@pytest.mark.parametrize(("gap", "found"), [(0.999, 1), (1.001, 0)])
def test_two_answers_belong_to_one_question_for_a_second(gap, found):
    """Later the owner may have changed."""
    assert len(judge(director=DR, router=at_router(gap=gap))[0]) == found


def test_a_change_of_mastership_is_no_conflict():
    """Gratuitous ARP of the new master, however often, and its answers afterwards."""
    moved = DR + (
        "5.0 x>* arp request who=s\n5.001 d>x arp reply is=s\n"
        "5.1 r>* vrrp is=s\n5.1001 r>* arp announce is=s\n5.2 r>* arp announce is=s\n"
        "9.0 x>* arp request who=s\n9.001 r>x arp reply is=s\n"
    )
    findings, clean, _ = judge(director=moved)
    assert findings == []
    assert clean[0].examined.packets == 2


@pytest.mark.parametrize(
    ("between", "found"),
    [
        ("", 1),
        ("5.3 r>* arp announce is=s\n", 0),
        ("4.0 d>* vrrp is=s\n5.3 r>* vrrp is=s\n", 0),
        ("5.3 x>* arp request who=s\n", 0),
        ("5.3 c2>* arp request who=s\n", 1),
    ],
)
def test_answers_around_a_failover_belong_to_two_questions(between, found):
    """The old master's answer, the new one's announcement, its answer: all within a second."""
    lines = at_router(second="r", gap=0.6).strip().splitlines()
    early = [line for line in between.splitlines() if line.startswith("4")]
    late = [line for line in between.splitlines() if not line.startswith("4")]
    told = "\n".join([*early, *lines[:4], *late, *lines[4:]])
    assert len(judge(director=DR, router=told)[0]) == found


def test_two_masters_are_told_from_a_realserver():
    """Two directors that both answer, without a failover between them."""
    other = DR.replace("c>s", "c2>s").replace("x>d", "x>r").replace("d>rs", "r>rs")
    (finding,), _, _ = judge(director=DR, director2=other, router=at_router(second="r"))
    assert finding.cause.code == "two-masters"


def with_second_card(owner, **texts):
    """Return the one finding where the site says that the MAC of `r` is a second card of a host."""
    first, second = (
        trace(f"0 {name}>x arp reply is=s").packets[0].columns["eth_src"]
        for name in ({"director": "d", "realserver": "rs"}[owner], "r")
    )
    host = SiteHost(
        {"director": "director", "realserver": "rs1"}[owner], owner, (), (first, second)
    )
    (finding,) = vip_arp_conflict.check(replace(case(**texts), site=Site(hosts=(host,))))
    return finding


def test_two_cards_of_the_director_are_no_two_owners():
    """Linux answers on every card for any of its addresses: confusing, and the right host."""
    texts = {"director": DR, "router": at_router(second="r")}
    finding = with_second_card("director", **texts)
    assert finding.cause.code == "arp-flux"
    assert finding.severity is Severity.LOW
    assert finding.hosts["owners"] == ("director",)
    assert finding.title == "Two cards of director answer ARP for 203.0.113.10"
    assert cited(finding) == marked(**texts)
    (remedy,) = finding.remedies
    assert "on lo" not in remedy.action
    assert "arp_ignore=1" in remedy.commands[0]


def test_two_cards_of_a_realserver_answer_for_what_is_not_its_own():
    """That both are one host does not make it the owner of the VIP."""
    router = at_router(second="r").replace("5.001 d>x", "5.001 rs>x")
    finding = with_second_card("realserver", director=DR, router=router)
    assert finding.cause.code == "realserver-answers"
    assert finding.severity is Severity.HIGH
    assert finding.remedies[0].where == "rs1"


def test_different_answers_to_different_askers_are_no_conflict():
    """Bonding may tell each asker another card."""
    text = DR + "5.0 d>x arp reply is=s\n5.001 rs>c arp reply is=s\n"
    assert judge(director=text)[0] == []


def test_an_address_that_is_no_vip_does_not_matter():
    """Two owners of another address are somebody else's trouble."""
    assert judge(director=DR, router=at_router(address="r"))[0] == []


def test_without_an_answer_nothing_was_examined():
    """The router's capture would show them."""
    findings, clean, missing = judge(director=DR)
    assert (findings, clean) == ([], [])
    assert "arp" in missing[0].capture_command


def test_who_answers_does_not_hear_what_others_say():
    """A realserver's own capture holds its own answer only: that is not clean."""
    alone = at_router().replace("5.001 d>x arp reply is=s !\n", "")
    rs1 = "\n".join(line for line in alone.splitlines() if ">x" in line or "x>*" in line)
    shown = "0.0002 c>s S seq=0 mss=1460 ttl=63 mac=d>rs\n0.001 s>c SA seq=0 ack=1 mac=rs>x\n"
    findings, clean, missing = judge(director=DR, rs1=shown + rs1)
    assert (findings, clean) == ([], [])
    assert "that asks" in missing[0].reason


def test_a_frame_that_was_captured_twice_went_astray_once():
    """The count of frames by MAC does not depend on how often a port was mirrored."""
    doubled = at_router() + "6.000001 copy 6\n"
    (once,), _, _ = judge(director=DR, router=at_router())
    (twice,), _, _ = judge(director=DR, router=doubled)
    assert once.facts["frames_by_mac"] == twice.facts["frames_by_mac"]
