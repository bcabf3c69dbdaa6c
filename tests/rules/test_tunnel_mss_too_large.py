"""tunnel-mss-too-large holds what clients are told to send against what fits the tunnel."""

from __future__ import annotations

import floods
import polars as pl
import pytest
from pcapdiag.rules import tunnel_mss_too_large
from stories import case, cited, marked

from pcapdiag.result import Clean, Confidence, Finding, NotExamined, Severity

DIRECTOR = """
0.000 c>s S seq=0 mss=1460 mac=x>d
0.0001 copy 1 ttl=63 mac=d>x tun={tun}:d>rs
0.002 c>s A seq=1 ack=1 mac=x>d
0.0021 copy 3 ttl=63 mac=d>x tun={tun}:d>rs
0.010 c>s A seq=1 ack=1 len=400 mac=x>d
0.0101 copy 5 ttl=63 mac=d>x tun={tun}:d>rs
"""
REALSERVER = """
0.0002 c>s S seq=0 mss=1460 ttl=63 mac=x>rs tun={tun}:d>rs
0.0003 s>c SA seq=0 ack=1 mss={mss} mac=rs>x !
0.0022 c>s A seq=1 ack=1 ttl=63 mac=x>rs tun={tun}:d>rs
"""


def judge(**texts):
    """Return the rule's findings, clean verdicts and questions not examined."""
    outcomes = list(tunnel_mss_too_large.check(case(**texts)))
    return (
        [item for item in outcomes if isinstance(item, Finding)],
        [item for item in outcomes if isinstance(item, Clean)],
        [item for item in outcomes if isinstance(item, NotExamined)],
    )


def cluster(mss=1460, tun="ipip", more=""):
    """Return the captures of a director and of a realserver that announces `mss`."""
    return {
        "director": DIRECTOR.format(tun=tun) + more,
        "rs1": REALSERVER.format(tun=tun, mss=mss),
    }


def test_the_syn_ack_that_promises_too_much_is_cited():
    """An MSS of 1460 in front of an IPIP tunnel: low, and not sure, for links may be larger."""
    texts = cluster()
    (finding,), _, _ = judge(**texts)
    assert finding.cause.code == "mss-too-large"
    assert cited(finding) == marked(**texts)
    assert (finding.severity, finding.confidence) == (Severity.LOW, Confidence.LOW)
    assert finding.facts["inner_mtu"] == 1480
    assert finding.facts["mss_that_fits"] == 1440
    assert "--set-mss 1440" in finding.remedies[0].commands[0]


@pytest.mark.parametrize(
    ("tun", "mss", "found"),
    [
        ("ipip", 1440, 0),
        ("ipip", 1441, 1),
        ("gre", 1436, 0),
        ("gre", 1437, 1),
        ("gue", 1428, 0),
        ("gue", 1429, 1),
    ],
)
def test_what_fits_depends_on_the_tunnel(tun, mss, found):
    """Both sides of the room that each encapsulation leaves."""
    findings, clean, _ = judge(**cluster(mss, tun))
    assert len(findings) == found
    assert len(clean) == 1 - found


REFUSED = """
0.020 c>s A seq=401 ack=1 len=1460 mac=x>d
0.0202 s>c icmp 3/4 mtu=1480 quote=7 mac=d>x !
"""


def test_refused_uploads_are_seen_at_the_director_alone():
    """No SYN-ACK passes there; what clients send and are told does."""
    text = DIRECTOR.format(tun="ipip") + REFUSED
    (finding,), _, _ = judge(director=text)
    assert finding.cause.code == "uploads-refused"
    assert cited(finding) == marked(director=text)
    assert (finding.severity, finding.confidence) == (Severity.MEDIUM, Confidence.HIGH)
    assert finding.facts["largest_sent"] == 1500


def test_large_packets_alone_show_it_too():
    """The director sees packets that will not fit; nobody was captured telling the client."""
    large = "0.020 c>s A seq=401 ack=1 len=1460 mac=x>d !\n"
    text = DIRECTOR.format(tun="ipip") + large
    (finding,), _, _ = judge(director=text)
    assert finding.cause.code == "mss-too-large"
    assert cited(finding) == marked(director=text)


def test_larger_tunnel_packets_show_larger_links():
    """1520 bytes leave the director: the links inside take more than 1500."""
    large = (
        "0.020 c>s A seq=401 ack=1 len=1460 mac=x>d\n0.0201 copy 7 ttl=63 mac=d>x tun=ipip:d>rs\n"
    )
    findings, clean, _ = judge(**cluster(more=large))
    assert findings == []
    assert "1500 fit" in clean[0].note


def test_an_mss_that_is_lowered_on_the_way_is_what_counts():
    """The client's capture shows 1440, whatever the realserver wrote."""
    client = """
0.000 c>s S seq=0 mss=1460
0.0011 s>c SA seq=0 ack=1 mss=1440 ttl=60
0.0019 c>s A seq=1 ack=1
"""
    findings, clean, _ = judge(**cluster(), client=client)
    assert findings == []
    assert clean


def test_segments_before_segmentation_are_not_packets():
    """A 14 kB segment of a client's capture is cut to what the MSS allows."""
    merged = "0.020 c>s A seq=401 ack=1 len=14000 mac=x>d\n"
    findings, _, _ = judge(**cluster(1440, more=merged))
    assert findings == []


def test_without_a_syn_ack_a_quiet_director_says_nothing():
    """The missing capture is one of a realserver, with the tunnel in its filter."""
    findings, clean, not_examined = judge(director=DIRECTOR.format(tun="ipip"))
    assert (findings, clean) == ([], [])
    assert "ip proto 4" in not_examined[0].capture_command


def test_without_a_tunnel_there_is_nothing_to_ask():
    """LVS-DR has no overhead."""
    text = DIRECTOR.format(tun="ipip").replace(" tun=ipip:d>rs", "").replace("mac=d>x", "mac=d>rs")
    findings, clean, not_examined = judge(director=text)
    assert (findings, clean) == ([], [])
    assert "LVS-TUN" in not_examined[0].reason


def test_many_connections_are_one_finding():
    """Uploads of many clients, each refused once."""
    flood = floods.case(
        DIRECTOR.format(tun="ipip") + "0.020 c>s A seq=401 ack=1 len=1460 mac=x>d\n",
        src_lo=pl.col("src_lo") + pl.col("n") // 60_000,
        src_port=pl.col("n") % 60_000 + 1,
    )
    (finding,) = tunnel_mss_too_large.check(flood)
    assert finding.flow_count > 0.8 * floods.COUNT
    assert len(finding.flows) <= 1000
