"""service-refused says who turns requests away, and leaves scans and old connections alone."""

from __future__ import annotations

import pytest
from pcapdiag.rules import service_refused
from stories import case, cited, marked

from pcapdiag.result import Clean, Finding, NotExamined

SERVED = """
0.000 c>s S seq=0 mss=1460 mac=x>d
0.0001 copy 1 ttl=63 mac=d>rs
0.002 c>s A seq=1 ack=1 mac=x>d
0.0021 copy 3 ttl=63 mac=d>rs
"""
"""A DR director forwards a connection; 4 frames."""

NO_DESTINATION = """
1.0 c2:40001>s S seq=0 mac=x>d
1.0001 s>c2:40001 icmp 3/3 quote={n} mac=d>x !
2.0 c2:40002>s S seq=0 mac=x>d
2.0001 s>c2:40002 icmp 3/3 quote={m} mac=d>x !
"""

AT_REALSERVER = """
0.000 c>s S seq=0 mss=1460 ttl=63 mac=d>rs
0.001 s>c SA seq=0 ack=1 mss=1460 mac=rs>x
0.002 c>s A seq=1 ack=1 ttl=63 mac=d>rs
1.0 c2>s S seq=0 mss=1460 ttl=63 mac=d>rs
"""


def judge(**texts):
    """Return the rule's findings, clean verdicts and questions not examined."""
    outcomes = list(service_refused.check(case(**texts)))
    return (
        [item for item in outcomes if isinstance(item, Finding)],
        [item for item in outcomes if isinstance(item, Clean)],
        [item for item in outcomes if isinstance(item, NotExamined)],
    )


def test_port_unreachable_from_the_director_means_no_destination():
    """ip_vs has nobody to send the request to; each such answer is cited, with the request."""
    texts = {"director": SERVED + NO_DESTINATION.format(n=5, m=7)}
    (finding,), _, _ = judge(**texts)
    assert finding.cause.code == "no-destination"
    assert finding.confidence == "high"
    assert cited(finding) == marked(**texts)
    assert cited(finding, "related") == {("director", 5), ("director", 7)}
    assert finding.facts["refused"] == 2
    assert finding.facts["requests_in_that_time"] == 2
    assert finding.severity == "high"


def test_some_refused_among_many_is_a_smaller_outage():
    """Requests that are forwarded in between make it medium."""
    between = "\n".join(
        f"1.{n} c:4100{n}>s S seq=0 mac=x>d\n1.{n}001 copy {7 + 2 * (n - 1)} ttl=63 mac=d>rs"
        for n in range(1, 4)
    )
    text = SERVED + (
        "1.0 c2:40001>s S seq=0 mac=x>d\n1.0001 s>c2:40001 icmp 3/3 quote=5 mac=d>x\n"
        f"{between}\n"
        "2.0 c2:40002>s S seq=0 mac=x>d\n2.0001 s>c2:40002 icmp 3/3 quote=13 mac=d>x\n"
    )
    (finding,), _, _ = judge(director=text)
    assert finding.severity == "medium"
    assert finding.facts["requests_in_that_time"] == 5


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("1.001 s>c2 icmp 3/10 quote=4 mac=rs>x !", "realserver-firewall"),
        ("1.001 s>c2 icmp 3/13 quote=4 mac=rs>x qlen=28 !", "realserver-firewall"),
        ("1.001 s>c2 RA seq=-1000 ack=1 id=0 mac=rs>x !", "realserver-reset"),
        ("1.001 s>c2 icmp 3/3 quote=4 mac=rs>x !", "realserver-port-unreachable"),
    ],
)
def test_a_realserver_that_refuses_is_named(line, code):
    """Firewall, closed port and REJECT's default are told apart."""
    texts = {"rs1": AT_REALSERVER + line}
    (finding,), _, _ = judge(**texts)
    assert finding.cause.code == code
    assert finding.hosts["emitter"] == "rs1"
    assert finding.scope.realserver == "rs1"
    assert cited(finding) == marked(**texts)


def test_a_director_whose_firewall_refuses_is_named():
    """A prohibition with the director's MAC about a request that it does not forward."""
    text = SERVED + "1.0 c2>s S seq=0 mac=x>d\n1.0001 s>c2 icmp 3/10 quote=5 mac=d>x !\n"
    (finding,), _, _ = judge(director=text)
    assert finding.cause.code == "director-firewall"
    assert cited(finding) == marked(director=text)


def test_an_error_that_does_not_go_to_the_client_refuses_nothing():
    """Anybody may send the VIP an error that quotes a client's request; the client is not told."""
    text = SERVED + "1.0 c2>s S seq=0 mac=x>d\n1.0001 r>s icmp 3/3 quote=5 mac=d>rs ttl=64\n"
    assert judge(director=text)[0] == []


def test_a_reset_by_the_director_means_that_the_service_is_not_there():
    """Where others of its connections were forwarded, it was there and is gone."""
    text = SERVED + "1.0 c2>s S seq=0 mac=x>d\n1.0001 s>c2 RA seq=-1000 ack=1 id=0 mac=d>x !\n"
    (finding,), _, _ = judge(director=text)
    assert finding.cause.code == "no-virtual-service"


def test_a_service_that_never_forwards_is_known_by_its_clients():
    """Two clients that get port unreachable for TCP at a VIP found a service, not a closed port."""
    text = SERVED + (
        "1.0 c>s2 S seq=0 mac=x>d\n1.0001 s2>c icmp 3/3 quote=5 mac=d>x\n"
        "2.0 c2>s2 S seq=0 mac=x>d\n2.0001 s2>c2 icmp 3/3 quote=7 mac=d>x\n"
    )
    (finding,), _, _ = judge(director=text)
    assert finding.scope.service == "tcp 203.0.113.10:443"
    one = SERVED + "1.0 c>s2 S seq=0 mac=x>d\n1.0001 s2>c icmp 3/3 quote=5 mac=d>x\n"
    assert judge(director=one)[0] == []


def test_a_scan_of_closed_ports_is_refused_rightly():
    """The director's TCP resets what is no service, however many ask."""
    text = SERVED + (
        "1.0 c>s2 S seq=0 mac=x>d\n1.0001 s2>c RA seq=-1000 ack=1 id=0 mac=d>x\n"
        "2.0 c2>s2 S seq=0 mac=x>d\n2.0001 s2>c2 RA seq=-1000 ack=1 id=0 mac=d>x\n"
    )
    assert judge(director=text)[0] == []


def test_udp_to_no_service_is_refused_rightly():
    """Traceroute and stray queries get port unreachable from the VIP."""
    text = SERVED + "1.0 c>s2 udp len=20 mac=x>d\n1.0001 s2>c icmp 3/3 quote=5 mac=d>x\n"
    text += "1.1 c2>s2 udp len=20 mac=x>d\n1.1001 s2>c2 icmp 3/3 quote=7 mac=d>x\n"
    assert judge(director=text)[0] == []


def test_packets_of_open_connections_are_not_requests():
    """A prohibition or reset about data is for other rules."""
    data = "1.2 c>s PA seq=1 ack=1 len=10 ttl=63 mac=d>rs\n"
    for line in ("1.201 s>c icmp 3/10 quote=5 mac=rs>x", "1.201 s>c R seq=1 id=0 mac=rs>x"):
        assert judge(rs1=AT_REALSERVER + data + line)[0] == []


def test_a_server_that_ends_a_young_connection_refuses_no_request():
    """A reset with a sequence number of its own answers nothing, though it acknowledges a SYN."""
    text = AT_REALSERVER + "1.0005 s>c2 SA seq=0 ack=1 mac=rs>x\n1.1 s>c2 RA seq=1 ack=1 mac=rs>x"
    assert judge(rs1=text)[0] == []


def test_host_unreachable_is_no_refusal():
    """It says that the realserver is gone."""
    text = SERVED + "1.0 c2>s S seq=0 mac=x>d\n1.0001 s>c2 icmp 3/1 quote=5 mac=d>x"
    assert judge(director=text)[0] == []


def test_a_director_alone_cannot_see_what_dr_realservers_answer():
    """Not examined names the realserver; with its capture the service is clean."""
    findings, clean, missing = judge(director=SERVED)
    assert (findings, clean) == ([], [])
    assert "realserver" in missing[0].needs[0]
    _, clean, missing = judge(director=SERVED, rs1=AT_REALSERVER)
    assert len(clean) == 1
    assert missing == []


def test_errors_that_quote_too_little_are_not_taken_for_none():
    """Eight bytes behind the IP header hold ports and no flags; the request itself is not seen."""
    cut = "1.0001 s>c2:40001 icmp 3/3 quote=5 qlen=28 mac=d>x\n"
    later = "1.0 c2:40001>s PA seq=1 ack=1 len=10 mac=x>d\n"
    findings, clean, unclear = judge(director=SERVED + later + cut)
    assert findings == clean == []
    assert "1 refusals quote" in unclear[0].reason
