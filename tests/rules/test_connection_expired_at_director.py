"""connection-expired-at-director fires where the director itself refuses what it should forward."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pcapdiag.rules import connection_expired_at_director
from stories import case, cited, marked

from pcapdiag.facts import Facts, HostTimeouts
from pcapdiag.kernel.ipvs_timeouts import Timeouts
from pcapdiag.result import Clean, Finding, NotExamined

OPEN = """
0.000 c>s S seq=0 mss=1460 mac=x>d
0.0001 copy 1 ttl=63 mac=d>rs
0.002 c>s A seq=1 ack=1 mac=x>d
0.0021 copy 3 ttl=63 mac=d>rs
0.003 c>s PA seq=1 ack=1 len=100 mac=x>d
0.0031 copy 5 ttl=63 mac=d>rs
"""
"""A DR director forwards a connection; 6 frames."""

OTHER = """
{t}.5 c2>s S seq=0 mss=1460 mac=x>d
{t}.5001 copy {n} ttl=63 mac=d>rs2
{t}.6 c2>s A seq=1 ack=1 mac=x>d
{t}.6001 copy {m} ttl=63 mac=d>rs2
"""

REFUSED = """
{t} c>s PA seq=101 ack=401 len=100 mac=x>d
{t}1 s>c R seq=401 id=0 mac={mac} ttl={ttl} !
"""


def judge(**texts):
    """Return the rule's findings, clean verdicts and questions not examined."""
    outcomes = list(connection_expired_at_director.check(case(**texts)))
    return (
        [item for item in outcomes if isinstance(item, Finding)],
        [item for item in outcomes if isinstance(item, Clean)],
        [item for item in outcomes if isinstance(item, NotExamined)],
    )


def refused(at="905.0030", mac="d>x", ttl=64):
    """Return a packet after a pause and the reset that answers it."""
    return REFUSED.format(t=at, mac=mac, ttl=ttl)


def test_a_reset_after_more_than_the_timeout_means_an_expired_entry():
    """The director's own reset, the packet it answers and the one before the pause are cited."""
    texts = {"director": OPEN + refused()}
    (finding,), _, _ = judge(**texts)
    assert finding.cause.code == "entry-expired"
    assert finding.severity == "high"
    assert cited(finding) == marked(**texts)
    assert cited(finding, "related") == {("director", 7), ("director", 5)}
    assert finding.facts["longest_pause_s"] == 905.0
    assert [flow.client for flow in finding.flows] == ["198.51.100.20:40000"]


@pytest.mark.parametrize(("at", "code"), [("900.0029", "gone-early"), ("900.0030", "expired")])
def test_the_timeout_decides_between_expired_and_removed(at, code):
    """Below 900 seconds of silence the entry cannot have expired with the default timeout."""
    (finding,), _, _ = judge(director=OPEN + refused(at))
    assert finding.cause.code == f"entry-{code}"


@pytest.mark.parametrize(
    ("stated", "at", "code"),
    [
        (Timeouts(300, 60, 300), "302.9", "gone-early"),
        (Timeouts(300, 60, 300), "303.1", "expired"),
        (Timeouts(7200, 60, 300), "905.0", "gone-early"),
    ],
)
def test_what_ipvsadm_states_counts_instead_of_the_default(stated, at, code):
    """The director's own timeouts decide, enter the words and are kept by the remedies."""
    judged = replace(
        case(director=OPEN.replace("0.003", "3.0") + refused(at)),
        facts=Facts(timeouts=(HostTimeouts("director", stated),)),
    )
    (finding,) = connection_expired_at_director.check(judged)
    assert finding.cause.code == f"entry-{code}"
    assert f"{stated.established_s} s" in finding.cause.text
    assert finding.facts["timeout_s"] == stated.established_s
    assert finding.facts["timeout_stated"] is True
    if code == "expired":
        commands = [line for item in finding.remedies for line in (*item.commands, *item.undo)]
        assert "ipvsadm --set 7200 60 300" in commands
        assert "ipvsadm --set 300 60 300" in commands
        assert "sysctl -w net.ipv4.tcp_keepalive_time=200" in commands


@pytest.mark.parametrize(("fin_wait_s", "found"), [(60, 0), (61, 0), (130, 1)])
def test_a_stated_closing_timeout_decides_how_long_ports_are_in_use(fin_wait_s, found):
    """TIME_WAIT keeps an entry for 120 s whatever is set; a longer FIN_WAIT keeps it longer."""
    stated = Facts(timeouts=(HostTimeouts("director", Timeouts(900, fin_wait_s, 300)),))
    judged = replace(case(director=reused(pause=118.2, count=1)), facts=stated)
    findings = [
        item for item in connection_expired_at_director.check(judged) if isinstance(item, Finding)
    ]
    assert len(findings) == found


def test_old_kernels_answer_with_port_unreachable():
    """The error is as good as a reset; that the client goes on is told."""
    text = OPEN + (
        "950.0 c>s PA seq=101 ack=401 len=100 mac=x>d\n950.0001 s>c icmp 3/3 quote=7 mac=d>x !\n"
        "952.0 c>s PA seq=101 ack=401 len=100 mac=x>d\n952.0001 s>c icmp 3/3 quote=9 mac=d>x\n"
    )
    (finding,), _, _ = judge(director=text)
    assert finding.cause.code == "entry-expired"
    assert finding.facts["refused_with"] == "port-unreachable"
    assert finding.facts["clients_that_went_on"] == 1
    assert finding.count == 2
    assert cited(finding) == {("director", 8)}


@pytest.mark.parametrize(
    "sign",
    [
        "29.0 d>* arp announce is=s\n30.0 x>* arp announce is=s\n",
        "29.0 d>* vrrp is=s\n30.0 x>* vrrp is=s\n",
    ],
)
def test_a_change_of_mastership_in_the_pause_is_a_failover(sign):
    """VRRP or a gratuitous ARP of another host says that this director is new."""
    (finding,), _, _ = judge(director=OPEN + sign + refused("31.0"))
    assert finding.cause.code == "failover-without-sync"
    assert {("director", 8)} <= cited(finding, "related")


def test_without_a_change_of_owner_an_announcement_is_no_failover():
    """Keepalived repeats its gratuitous ARP; the same MAC again means nothing."""
    signs = "29.0 d>* arp announce is=s\n30.0 d>* arp announce is=s\n"
    (finding,), _, _ = judge(director=OPEN + signs + refused("31.0"))
    assert finding.cause.code == "entry-gone-early"


def test_a_connection_never_seen_before_has_an_unknown_past():
    """Data that is refused proves that there is no entry, and no more than that."""
    text = OTHER.format(t=0, n=1, m=3) + refused("1.0")
    (finding,), _, _ = judge(director=text)
    assert finding.cause.code == "entry-unknown"
    assert finding.severity == "medium"


def test_a_stray_packet_without_data_is_a_scan():
    """An ACK out of nothing is answered with a reset, and nobody misses anything."""
    text = OTHER.format(t=0, n=1, m=3) + "1.0 c>s A seq=1 ack=1 mac=x>d\n1.0001 s>c R seq=1 mac=d>x"
    findings, clean, _ = judge(director=text)
    assert findings == []
    assert len(clean) == 1


def test_after_the_clients_close_a_late_packet_is_a_small_matter():
    """Half closed and quiet for two minutes: the entry was in FIN_WAIT and is gone."""
    text = OPEN + "1.0 c>s FA seq=101 ack=401 mac=x>d\n1.0001 copy 7 ttl=63 mac=d>rs\n"
    late = "{t} c>s A seq=102 ack=801 mac=x>d\n{t}1 s>c R seq=801 mac=d>x\n"
    (finding,), _, _ = judge(director=text + late.format(t="121.0"))
    assert finding.cause.code == "closing-entry-expired"
    assert finding.severity == "low"
    assert judge(director=text + late.format(t="120.9"))[0] == []


@pytest.mark.parametrize("maker", [{"mac": "rs>x"}, {"mac": "d>x", "ttl": 63}])
def test_a_realservers_reset_is_another_matter(maker):
    """Its MAC, or a TTL that somebody has lowered, says that the director only passed it on."""
    assert judge(director=OPEN + refused(**maker))[0] == []


def test_a_pause_after_which_the_packet_is_forwarded_is_nothing():
    """The entry was there; a realserver's reset that follows is the realserver's."""
    text = OPEN + "905.0 c>s PA seq=101 ack=401 len=100 mac=x>d\n905.0001 copy 7 ttl=63 mac=d>rs\n"
    findings, clean, _ = judge(director=text)
    assert findings == []
    assert [item.examined.connections for item in clean] == [1]


def test_a_refused_request_is_no_forgotten_connection():
    """A SYN that the director resets is for service-refused."""
    text = (
        OTHER.format(t=0, n=1, m=3)
        + "1.0 c>s S seq=0 mac=x>d\n1.0001 s>c RA seq=-1000 ack=1 mac=d>x"
    )
    assert judge(director=text)[0] == []


def test_at_the_client_alone_nobody_can_say_who_reset_it():
    """Behind a router director and realserver look alike; the capture that would tell is named."""
    text = """
0.000 c>s S seq=0 mss=1460 mac=c>x
0.001 s>c SA seq=0 ack=1 mss=1460 mac=x>c ttl=62
0.002 c>s A seq=1 ack=1 mac=c>x
905.0 c>s PA seq=1 ack=1 len=100 mac=c>x
905.1 s>c R seq=1 mac=x>c ttl=62
"""
    findings, clean, missing = judge(client=text)
    assert findings == []
    assert clean == []
    assert len(missing) == 1
    assert "director" in missing[0].capture_command


def reused(first=0.0, repeated=1.0, *, pause=5.0, count=3):
    """Return closed connections of a director, and their ports used again, SYNs dropped once."""
    lines = []
    for number in range(count):
        port, at = f"c:{40001 + number}>s", 2.0 * number
        lines += [
            f"{at} {port} S seq=0 mac=x>d",
            f"{at + 0.0001} copy {len(lines) + 1} ttl=63 mac=d>rs",
        ]
        lines += [
            f"{at + 0.1} {port} FA seq=1 ack=1 mac=x>d",
            f"{at + 0.1001} copy {len(lines) + 1} ttl=63 mac=d>rs",
        ]
    start = 2.0 * count + pause
    for number in range(count):
        port, at = f"c:{40001 + number}>s", start + 2.5 * number
        lines.append(f"{at + first} {port} S seq=5000 mac=x>d !")
        lines += [
            f"{at + repeated} {port} S seq=5000 mac=x>d",
            f"{at + repeated + 0.0001} copy {len(lines) + 1} ttl=63 mac=d>rs2",
        ]
    lines += [
        f"{start + 20} c2>s S seq=0 mac=x>d",
        f"{start + 20.0001} copy {len(lines) + 1} mac=d>rs ttl=63",
    ]
    return "\n".join(lines)


def test_the_first_syn_of_a_reused_port_is_dropped():
    """It came in, did not leave, and its repetition a second later did."""
    texts = {"director": reused(count=20)}
    (finding,), _, _ = judge(**texts)
    assert finding.cause.code == "port-reuse-dropped"
    assert finding.flow_count == 20
    assert finding.facts["longest_delay_s"] == 1.0
    assert cited(finding) <= marked(**texts)
    assert finding.severity == "medium"


def test_a_single_dropped_syn_may_be_a_hole_in_the_capture():
    """One packet that a capture does not show is of low confidence."""
    (finding,), _, _ = judge(director=reused(count=1))
    assert finding.confidence == "low"
    assert finding.severity == "low"


@pytest.mark.parametrize(("repeated", "found"), [(0.89, 0), (0.91, 1)])
def test_a_repetition_before_its_time_is_something_else(repeated, found):
    """TCP repeats its first SYN after a second."""
    assert len(judge(director=reused(repeated=repeated, count=1))[0]) == found


@pytest.mark.parametrize(("pause", "found"), [(118.0, 1), (118.2, 0)])
def test_a_port_used_long_ago_meets_no_entry(pause, found):
    """After two minutes nothing is left that a SYN could meet."""
    assert len(judge(director=reused(pause=pause, count=1))[0]) == found


def test_a_packet_that_came_just_before_the_refused_one_is_no_sign_of_an_entry():
    """Nothing of the connection was ever passed on here: what was quiet how long says nothing."""
    served = OPEN.replace("c>s", "c2>s").replace("s>c", "s>c2")
    text = (
        served.rstrip("\n")
        + "\n9.000 c>s PA seq=1 ack=1 len=40 mac=x>d"
        + "\n9.003 c>s PA seq=41 ack=1 len=40 mac=x>d"
        + "\n9.006 c>s FA seq=81 ack=1 mac=x>d"
        + "\n9.007 s>c R seq=1 mac=d>x"
        + "\n9.008 s>c R seq=1 mac=d>x\n"
        + "12.0 x>d arp request who=d\n"
    )
    findings, _, _ = judge(director=text)
    assert [finding.cause.code for finding in findings] == ["entry-unknown"]
