"""forwarding-loop needs one packet at five falling TTLs; copies and repetitions are no loop."""

from __future__ import annotations

import pytest
from pcapdiag.rules import forwarding_loop
from stories import case, cited

from pcapdiag.result import Clean, Finding, NotExamined

OTHER = """
0.000 c2>s S seq=0 mss=1460 mac=x>d
0.0001 copy 1 ttl=63 mac=d>rs2
0.002 c2>s A seq=1 ack=1 mac=x>d
0.0021 copy 3 ttl=63 mac=d>rs2
0.003 c2:40001>s S seq=0 mss=1460 mac=x>d
0.0031 copy 5 ttl=63 mac=d>rs
0.004 c2:40001>s A seq=1 ack=1 mac=x>d
0.0041 copy 7 ttl=63 mac=d>rs
"""


def looping(sights, identity=""):
    """Return a SYN that director and realserver pass to each other; so many sights."""
    lines = [f"1.0 c>s S seq=0 mss=1460 mac=x>d ttl=64 {identity}"]
    for number in range(1, sights):
        way = "d>rs" if number % 2 else "rs>d"
        lines.append(f"{1 + number / 1000} copy 9 ttl={64 - number} mac={way}")
    return OTHER + "\n".join(lines) + "\n"


def judge(**texts):
    """Return the rule's findings and clean verdicts."""
    outcomes = list(forwarding_loop.check(case(**texts)))
    return (
        [item for item in outcomes if isinstance(item, Finding)],
        [item for item in outcomes if isinstance(item, Clean)],
    )


def test_a_packet_that_goes_round_is_told_with_its_ring():
    """First and last sight are cited, and who passes it to whom."""
    (finding,), _ = judge(director=looping(40) + "1.05 s>c icmp 11/0 quote=48 mac=d>x\n")
    assert finding.cause.code == "members-loop"
    assert finding.facts["most_sights"] == 40
    assert finding.facts["lowest_ttl"] == 25
    assert cited(finding) == {("director", 9), ("director", 48)}
    assert "director" in finding.hosts["loop"]
    assert [flow.client for flow in finding.flows] == ["198.51.100.20:40000"]


@pytest.mark.parametrize(("sights", "found"), [(4, 0), (5, 1)])
def test_the_third_time_round_makes_a_loop(sights, found):
    """In, out, and in and out again may be a box on the same LAN."""
    findings, clean = judge(director=looping(sights))
    assert len(findings) == found
    assert len(clean) == 1 - found


def test_rising_ttls_are_a_traceroute():
    """Equal packets that get further each time were sent so."""
    lines = [f"{1 + n / 1000} c>s udp len=20 id=7 ttl={n + 1} mac=x>d" for n in range(8)]
    assert judge(director=OTHER + "\n".join(lines))[0] == []


def test_repetitions_are_packets_of_their_own():
    """A SYN that is sent seven times has seven IP IDs."""
    lines = [f"{2**n}.0 c>s S seq=0 mss=1460 mac=x>d ttl={64 - n}" for n in range(7)]
    assert judge(director=OTHER + "\n".join(lines))[0] == []


def test_a_ring_of_routers_is_not_the_clusters():
    """MACs that belong to no member: the routes outside contradict each other."""
    lines = ["1.0 s>c PA seq=1 ack=1 len=10 mac=x>r ttl=60"]
    for number in range(1, 12):
        way = "r>c2" if number % 2 else "c2>r"
        lines.append(f"{1 + number / 1000} copy 1 ttl={60 - number} mac={way}")
    (finding,), _ = judge(router="\n".join(lines))
    assert finding.cause.code == "routers-loop"


def test_what_is_captured_twice_goes_round_no_more_often():
    """A bridge and its port show each sight, and nobody passes a packet to itself."""
    lines = looping(20)[len(OTHER) :].splitlines()
    doubled = OTHER
    for line in lines:
        time_s, _, rest = line.partition(" ")
        copy = rest if rest.startswith("copy") else "copy 9 ttl=64 mac=x>d"
        doubled += f"{line}\n{float(time_s) + 0.000001:.6f} {copy}\n"
    (finding,), _ = judge(director=doubled)
    (single,), _ = judge(director=looping(20))
    assert finding.facts["most_sights"] == single.facts["most_sights"] == 20
    assert finding.hosts == single.hosts


def test_a_capture_of_nothing_but_icmp_shows_no_loop():
    """What goes round is another packet."""
    outcomes = list(forwarding_loop.check(case(director="0.0 c>s icmp 8/0 mac=x>d\n")))
    assert [type(item) for item in outcomes] == [NotExamined]
