"""host-prohibited-established fires on established connections only, and names who sent it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pcapdiag.rules import host_prohibited_established
from stories import case, cited, marked

from pcapdiag.facts import Facts, HostLog
from pcapdiag.facts.kernel_log import LogCount
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


@pytest.mark.parametrize("ahead", [1, 9])
def test_the_frames_cited_do_not_depend_on_clocks(ahead):
    """A router whose clock is a little ahead or behind saw the frame where the realserver did."""
    texts = {"rs1": AT_REALSERVER.format(code="3/10")}
    router = (
        texts["rs1"]
        .replace(" !", "")
        .replace("9.0001", f"9.000{ahead}")
        .replace("9.3001", f"9.300{ahead}")
    )
    (finding,), _, _ = judge(router=router.replace("9.000 ", "8.9999 "), **texts)
    assert cited(finding) == marked(**texts)


def test_an_error_that_went_to_another_tells_nobody_of_this_connection():
    """Whoever rejects a packet tells its sender: what goes to another client quotes it in vain."""
    text = AT_REALSERVER.format(code="3/10")
    findings, clean, _ = judge(rs1=text.replace("s>c icmp", "s>c2 icmp"))
    assert findings == []
    assert [item.examined.connections for item in clean] == [1]
    half = text.replace("s>c icmp", "s>c2 icmp", 1)
    (finding,), _, _ = judge(rs1=half)
    assert cited(finding) == {("rs1", 10)}


def test_a_realserver_that_rejects_what_a_tunnel_brings_tells_the_tunnels_other_end():
    """The director is told of its own packet around the client's."""
    text = """
0.000 c>s S seq=0 mss=1460 mac=x>d
0.0001 copy 1 ttl=63 mac=d>rs tun=ipip:d>rs
0.002 c>s A seq=1 ack=1 mac=x>d
0.0021 copy 3 ttl=63 mac=d>rs tun=ipip:d>rs
0.003 c>s PA seq=1 ack=1 len=100 mac=x>d
0.0031 copy 5 ttl=63 mac=d>rs tun=ipip:d>rs
9.000 c>s PA seq=101 ack=401 len=100 mac=x>d
9.0001 copy 7 ttl=63 mac=d>rs tun=ipip:d>rs
9.0002 rs>d icmp 3/10 quote=8 mac=rs>d !
"""
    (finding,), _, _ = judge(director=text)
    assert cited(finding) == marked(director=text)
    assert judge(director=text.replace("rs>d icmp", "rs>r icmp"))[0] == []


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


def test_prohibitions_whose_quote_was_cut_off_are_not_examined():
    """A quote that ends before the sequence number may be about a request or about data."""
    cut = AT_REALSERVER.format(code="3/10").replace("quote=7", "quote=7 qlen=26")
    findings, clean, not_examined = judge(rs1=cut.replace("quote=9", "quote=9 qlen=26"))
    assert findings == clean == []
    assert "too little to tell" in not_examined[0].reason


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


def test_the_entry_of_an_idle_connection_timed_out_at_the_realserver():
    """A packet that passed is cited beside those rejected after the longest silence."""
    (finding,), _, _ = judge(rs1=AT_REALSERVER.format(code="3/10"))
    assert finding.facts["verdict"] == "timed-out"
    assert finding.facts["idle_before_rejected_s"] == pytest.approx(8.99)
    assert cited(finding, "related") == {("rs1", 4)}
    assert any("flushed" in text or "-F" in text for text in finding.alternatives)


def test_a_director_that_rejects_all_but_the_syn_has_no_entry_for_it():
    """Replayed is the client's direction only; forwarded packets passed."""
    text = """
0.000 c>s S seq=0 mss=1460 mac=x>d
0.0001 copy 1 ttl=63 mac=d>rs
0.002 c>s A seq=1 ack=1 mac=x>d
0.0021 s>c icmp 3/10 quote=3 mac=d>x
0.003 c>s PA seq=1 ack=1 len=100 mac=x>d
0.0031 s>c icmp 3/10 quote=5 mac=d>x
9.000 c>s PA seq=1 ack=1 len=100 mac=x>d
"""
    (finding,), _, _ = judge(director=text)
    assert finding.facts["verdict"] == "untracked"
    assert "fits 1 of 1" in "".join(finding.alternatives)


def test_only_fins_rejected_at_the_director_is_the_unconfirmed_entry():
    """As a real kernel was seen to do with vs.conntrack=0."""
    closing = AT_DIRECTOR.replace(
        "9.000 c>s PA seq=101 ack=401 len=100", "9.000 c>s FA seq=101 ack=401"
    )
    (finding,), _, _ = judge(director=closing)
    assert finding.facts["verdict"] == "closing-untracked"


def test_without_the_emitters_capture_nothing_is_replayed():
    """A client's capture shows who was rejected, not what the firewall saw."""
    text = AT_REALSERVER.format(code="3/10").replace(" mac=d>rs", "").replace(" mac=rs>x", "")
    (finding,), _, _ = judge(client=text)
    assert finding.facts["verdict"] is None
    assert any("cannot be told" in item for item in finding.alternatives)


@pytest.mark.parametrize(
    ("quoted", "emitter"), [(64, "director"), (63, "realserver"), (65, "other"), (61, "other")]
)
def test_the_quoted_ttl_tells_the_emitter_where_no_mac_does(quoted, emitter):
    """The packet as the director got it, less the quoted TTL: 0 director, 1 realserver."""
    director = "\n".join(AT_DIRECTOR.splitlines()[:8])
    seen = f"""
0.000 c>s S seq=0 mss=1460 ttl=70
0.002 c>s A seq=1 ack=1 ttl=70
0.003 c>s PA seq=1 ack=1 len=100 ttl={quoted}
0.900 s>c icmp 3/10 quote=3
9.000 c>s PA seq=101 ack=1 len=100 ttl=70
"""
    (finding,), _, _ = judge(director=director, client=seen)
    assert finding.facts["emitter"] == emitter
    assert finding.facts["emitter_told_by"] == "ttl"


def test_what_the_client_did_afterwards_is_told():
    """One more packet with data, and the silence until the capture ends."""
    text = AT_REALSERVER.format(code="3/10") + "99 c2>s S seq=0 ttl=63 mac=d>rs\n"
    (finding,), _, _ = judge(rs1=text)
    assert finding.facts["client_packets_afterwards"] == 1
    assert finding.facts["longest_silence_s"] == pytest.approx(89.7)
    assert finding.facts["connections_that_went_on"] == 0
    assert "then silence, 90 s" in finding.summary


LOG = (
    LogCount("tcp-invalid", "198.51.100.20", 2),
    LogCount("tcp-invalid", "198.51.100.99", 40),
    LogCount("conntrack-full", None, 3),
    LogCount("icmp-checksum", None, 9),
)


def lone_or_untracked(host):
    """Return the finding of a director that lets a SYN pass and rejects the rest, with a log."""
    text = """
0.000 c>s S seq=0 mss=1460 mac=x>d
0.0001 copy 1 ttl=63 mac=d>rs
0.002 c>s A seq=1 ack=1 mac=x>d
0.0021 s>c icmp 3/10 quote=3 mac=d>x
0.003 c>s PA seq=1 ack=1 len=100 mac=x>d
0.0031 s>c icmp 3/10 quote=5 mac=d>x
9.000 c>s PA seq=1 ack=1 len=100 mac=x>d
"""
    facts = Facts(logs=(HostLog(host, LOG),)) if host else Facts()
    (finding,) = host_prohibited_established.check(replace(case(director=text), facts=facts))
    return finding


def test_the_hosts_kernel_log_decides_between_equal_reasons():
    """Lines about the clients that were hit count; those about others do not."""
    assert lone_or_untracked(None).facts["verdict"] == "untracked"
    finding = lone_or_untracked("director")
    assert finding.facts["verdict"] == "lone-syn"
    assert finding.facts["logged"] == ("3 conntrack-full", "2 tcp-invalid")
    assert "The kernel log of director counts as INVALID 2 in a wrong state" in finding.summary


def test_another_hosts_kernel_log_says_nothing_of_these_packets():
    """Each host has a conntrack of its own."""
    finding = lone_or_untracked("rs1")
    assert finding.facts["verdict"] == "untracked"
    assert "kernel log" not in finding.summary


def test_remedies_cover_both_tools_with_and_without_tracking():
    """Both iptables and nftables, accept and notrack; loosening only where both sides are seen."""
    (finding,), _, _ = judge(rs1=AT_REALSERVER.format(code="3/10"))
    commands = "\n".join(line for item in finding.remedies for line in item.commands)
    for wanted in (
        "iptables -I INPUT",
        "nft insert rule",
        "--notrack",
        "notrack\n",
        "be_liberal=1",
    ):
        assert wanted in commands
    (director,), _, _ = judge(director=AT_DIRECTOR)
    assert "be_liberal" not in "".join(c for item in director.remedies for c in item.commands)


def test_a_message_that_only_the_client_shows_is_the_same_hosts():
    """One incident, one finding: where the connection's other messages name their emitter."""
    at_client = """
0.000 c>s S seq=0 mss=1460 ttl=64
0.002 c>s A seq=1 ack=1 ttl=64
20.0 c>s PA seq=101 ack=401 len=100 ttl=64 id=77
20.1 s>c icmp 3/10 quote=3 ttl=60 id=5
"""
    findings, _, _ = judge(rs1=AT_REALSERVER.format(code="3/10"), client=at_client)
    assert [item.facts["emitter"] for item in findings] == ["realserver"]
    assert findings[0].facts["messages"] == 3


def test_prohibitions_whose_connection_was_cut_off_are_not_examined():
    """Over IPv6 a snaplen of 96 leaves not even the ports of what is quoted."""
    cut = AT_REALSERVER.format(code="3/10").replace("quote=7", "quote=7 qlen=20 sum=cut")
    findings, clean, missing = judge(rs1=cut.replace("quote=9", "quote=9 qlen=20 sum=cut"))
    assert findings == clean == []
    assert "too little to tell" in missing[0].reason
