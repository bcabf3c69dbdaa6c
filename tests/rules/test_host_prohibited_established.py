"""host-prohibited-established fires on established connections only, and names who sent it."""

from __future__ import annotations

import pytest
from pcapdiag.rules import host_prohibited_established
from stories import case, cited, marked

from pcapdiag.result import Clean, Finding, NotExamined

AT_REALSERVER = """
0.000 c>s S seq=0 mss=1460 ttl=63 mac=d>rs
0.001 s>c SA seq=0 ack=1 mss=1460 mac=rs>x
0.002 c>s A seq=1 ack=1 ttl=63 mac=d>rs
0.003 c>s PA seq=1 ack=1 len=100 ttl=63 mac=d>rs
0.004 s>c PA seq=1 ack=101 len=400 mac=rs>x
0.010 c>s A seq=101 ack=401 ttl=63 mac=d>rs
9.000 c>s PA seq=101 ack=401 len=100 ttl=63 mac=d>rs
9.0001 s>c icmp {code} quote=7 mac=rs>x !
9.300 c>s PA seq=101 ack=401 len=100 ttl=63 mac=d>rs
9.3001 s>c icmp {code} quote=9 mac=rs>x !
"""
AT_DIRECTOR = """
0.000 c>s S seq=0 mss=1460 mac=x>d
0.0001 copy 1 ttl=63 mac=d>rs
0.002 c>s A seq=1 ack=1 mac=x>d
0.0021 copy 3 ttl=63 mac=d>rs
0.003 c>s PA seq=1 ack=1 len=100 mac=x>d
0.0031 copy 5 ttl=63 mac=d>rs
9.000 c>s PA seq=101 ack=401 len=100 mac=x>d
9.0001 s>c icmp 3/10 quote=7 mac=d>x !
"""


def judge(**texts):
    """Return the rule's findings, clean verdicts and questions not examined."""
    outcomes = list(host_prohibited_established.check(case(**texts)))
    return (
        [item for item in outcomes if isinstance(item, Finding)],
        [item for item in outcomes if isinstance(item, Clean)],
        [item for item in outcomes if isinstance(item, NotExamined)],
    )


@pytest.mark.parametrize("code", ["3/9", "3/10", "3/13"])
def test_a_realserver_that_rejects_is_named_by_its_mac(code):
    """The source is the VIP; the MAC says that the realserver sent it."""
    texts = {"rs1": AT_REALSERVER.format(code=code)}
    (finding,), _, _ = judge(**texts)
    assert finding.facts["emitter"] == "realserver"
    assert finding.facts["emitter_told_by"] == "mac"
    assert finding.hosts["emitter"] == ("rs1",)
    assert cited(finding) == marked(**texts)
    assert finding.facts["messages"] == 2
    assert finding.facts["longest_idle_s"] == pytest.approx(8.99)


def test_a_director_that_rejects_is_named_by_its_mac():
    """The same message with the director's MAC is the director's."""
    texts = {"director": AT_DIRECTOR}
    (finding,), _, _ = judge(**texts)
    assert finding.facts["emitter"] == "director"
    assert finding.cause.code == "director-conntrack"
    assert cited(finding) == marked(**texts)


def test_only_closing_packets_rejected_is_a_lesser_fault():
    """A DR director whose conntrack calls FINs INVALID rejects nothing else."""
    closing = AT_DIRECTOR.replace(
        "9.000 c>s PA seq=101 ack=401 len=100", "9.000 c>s FA seq=101 ack=401"
    )
    (finding,), _, _ = judge(director=closing)
    assert finding.cause.code == "director-rejects-closing"
    assert finding.severity == "medium"


@pytest.mark.parametrize("code", ["3/1", "3/3", "11/0"])
def test_other_errors_are_not_prohibitions(code):
    """Unreachable and time exceeded are for other rules."""
    assert judge(rs1=AT_REALSERVER.format(code=code))[0] == []


def test_a_rejected_request_for_a_connection_is_not_established():
    """3/10 about a SYN is a refused service, also where the quote holds eight bytes only."""
    refused = """
0.000 c>s S seq=0 mss=1460 ttl=63 mac=d>rs
0.001 s>c icmp 3/10 quote=1 mac=rs>x {qlen}
1.000 c>s S seq=0 mss=1460 ttl=63 mac=d>rs
1.001 s>c icmp 3/10 quote=3 mac=rs>x {qlen}
"""
    for qlen in ("", "qlen=28"):
        assert judge(rs1=refused.format(qlen=qlen))[0] == []


def test_udp_is_left_alone():
    """The rule speaks of TCP connections."""
    text = "0.000 c>s udp len=100 mac=d>rs ttl=63\n0.001 s>c icmp 3/10 quote=1 mac=rs>x\n"
    assert judge(rs1=text)[0] == []


def test_a_service_without_prohibitions_is_clean_with_its_connections():
    """Clean says how many connections it rests on."""
    quiet = "\n".join(
        line for line in AT_REALSERVER.format(code="3/10").splitlines() if "icmp" not in line
    )
    findings, clean, _ = judge(rs1=quiet + "\n9.4 c>s icmp 8/0 mac=d>rs ttl=63\n")
    assert findings == []
    assert [item.examined.connections for item in clean] == [1]
