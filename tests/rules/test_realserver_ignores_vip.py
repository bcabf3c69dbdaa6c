"""realserver-ignores-vip needs requests at the realserver's own card, and no answer to any."""

from __future__ import annotations

import re

import floods
import pytest
from pcapdiag.rules import realserver_ignores_vip
from stories import case, cited, marked

from pcapdiag.result import MAX_FLOWS, Clean, Finding, NotExamined

SYNS = (0.0, 1.0, 3.0)


def at_director(clients=2, tunnel="", waits=SYNS):
    """Return a director that serves one client by rs and sends others to rs2."""
    way = {"rs": f"mac=d>rs{tunnel and f' tun={tunnel}rs'}"}
    way["rs2"] = f"mac=d>rs2{tunnel and f' tun={tunnel}rs2'}"
    lines = []

    def passed(at, packet, target):
        lines.append(f"{at} {packet} mac=x>d")
        lines.append(f"{at + 0.0001:.4f} copy {len(lines)} ttl=63 {way[target]}")

    def served(at, client):
        passed(at, f"{client}>s S seq=0 mss=1460", "rs")
        passed(at + 0.01, f"{client}>s A seq=1 ack=1", "rs")
        passed(at + 0.02, f"{client}>s PA seq=1 ack=1 len=80", "rs")

    served(0.0, "c:40001")
    for wait in waits:
        for number in range(clients):
            passed(10 + wait + 0.1 * number, f"c2:{41000 + number}>s S seq=0 mss=1460", "rs2")
    served(14.0, "c:40002")
    lines.append("20.0 x>d arp request who=d")
    return "\n".join(lines)


def at_realserver(clients=2, *, extra="", to="rs2", answered=False, waits=SYNS):
    """Return what rs2 sees of the requests; without answers unless told otherwise."""
    lines = []
    identity = 0
    for wait in waits:
        for number in range(clients):
            identity += 1
            client = f"c2:{41000 + number}"
            mark = " !" if wait == 0 else ""
            lines.append(
                f"{10.0003 + wait + 0.1 * number:.4f} {client}>s S seq=0 mss=1460 ttl=63 "
                f"id={identity} mac=d>{to}{extra}{mark}"
            )
            if answered:
                lines.append(
                    f"{10.001 + wait + 0.1 * number:.4f} s>{client} SA seq=0 ack=1 mac=rs2>x"
                )
    lines.append("20.0 rs2>d arp reply is=rs2")
    return "\n".join(lines)


def seen_again(text, old, new):
    """Add, behind each request that the realserver got, the same packet in another form."""
    lines = []
    for line in text.splitlines():
        lines.append(line)
        if " S " in line:
            at, packet = line.removesuffix(" !").split(maxsplit=1)
            lines.append(f"{float(at) + 0.0001:.4f} {packet.replace(old, new)}")
    return "\n".join(lines)


def judge(**texts):
    """Return the rule's findings, clean verdicts and questions not examined."""
    outcomes = list(realserver_ignores_vip.check(case(**texts)))
    return (
        [item for item in outcomes if isinstance(item, Finding)],
        [item for item in outcomes if isinstance(item, Clean)],
        [item for item in outcomes if isinstance(item, NotExamined)],
    )


def test_requests_that_arrive_and_are_not_answered():
    """Each is cited where it arrives; nothing else than the VIP is likely."""
    texts = {"director": at_director(), "rs2": at_realserver()}
    (finding,), _, _ = judge(**texts)
    assert finding.cause.code == "vip-not-configured"
    assert cited(finding) == marked(**texts)
    assert finding.flow_count == 2
    assert "rs2" in finding.hosts["realserver"]
    assert finding.facts["requests_at_realserver"] == 6


@pytest.mark.parametrize(
    ("source", "code"), [("d", "dropped-in-tunnel"), ("s", "unexpected-outer-source")]
)
def test_in_a_tunnel_the_outer_source_tells(source, code):
    """From the director's own address it is the tunnel device; from the VIP it is the source."""
    texts = {
        "director": at_director(tunnel=f"ipip:{source}>"),
        "rs2": at_realserver(extra=f" tun=ipip:{source}>rs2"),
    }
    (finding,), _, _ = judge(**texts)
    assert finding.cause.code == code
    assert finding.facts["tunnelled"] is True


def test_requests_that_are_sent_on_show_that_the_vip_is_not_there():
    """A realserver that forwards does what a router does with somebody else's address."""
    again = seen_again(at_realserver(), "ttl=63", "ttl=62")
    seen = re.sub(r"ttl=62 (id=\d) mac=d>rs2", r"ttl=62 \1 mac=rs2>x", again)
    (finding,), _, _ = judge(director=at_director(), rs2=seen)
    assert finding.cause.code == "forwarded-back"
    assert finding.facts["sent_back"] == 2


def test_requests_that_leave_their_tunnel_are_dropped_behind_it():
    """The tunnel device shows them, so it is there; what comes after it drops them."""
    seen = seen_again(at_realserver(extra=" tun=ipip:d>rs2"), " tun=ipip:d>rs2", "")
    (finding,), _, _ = judge(director=at_director(tunnel="ipip:d>"), rs2=seen)
    assert finding.cause.code == "dropped-after-tunnel"
    assert finding.facts["tunnelled"] is True


def test_requests_that_are_answered_are_not_ignored():
    """The answers may be lost behind the realserver; it did its part."""
    texts = {"director": at_director(), "rs2": at_realserver(answered=True)}
    findings, clean, _ = judge(**texts)
    assert findings == []
    assert len(clean) == 1


def test_a_capture_of_one_direction_shows_no_silence():
    """Where a client goes on as if answered and no answer was captured, others prove nothing."""
    served = ["c:40009>s S seq=0", "c:40009>s A seq=1 ack=1", "c:40009>s PA seq=1 ack=1 len=80"]
    lines = [
        f"{5 + 0.1 * at:.1f} {packet} ttl=63 id={900 + at} mac=d>rs2"
        for at, packet in enumerate(served)
    ]
    inward = "\n".join([*lines, at_realserver()])
    found, clean, (told,) = judge(director=at_director(), rs2=inward)
    assert not found
    assert not clean
    assert "one direction only" in told.reason


def test_one_client_alone_does_not_blame_the_realserver():
    """Two must have waited in vain."""
    texts = {"director": at_director(clients=1), "rs2": at_realserver(clients=1)}
    assert judge(**texts)[0] == []


@pytest.mark.parametrize(("third", "found"), [(2.4, 0), (2.6, 1)])
def test_three_requests_take_three_seconds(third, found):
    """What comes sooner is no repetition of TCP's."""
    waits = (0.0, 1.0, third)
    texts = {"director": at_director(waits=waits), "rs2": at_realserver(waits=waits)}
    assert len(judge(**texts)[0]) == found


def test_frames_for_another_host_were_overheard():
    """A card in promiscuous mode sees what a switch floods."""
    texts = {"director": at_director(), "rs1": at_realserver()}
    heard = texts["rs1"].replace("rs2>d arp reply is=rs2", "rs>d arp reply is=rs")
    assert judge(director=texts["director"], rs1=heard)[0] == []


def test_without_the_realservers_capture_nothing_was_examined():
    """Whether requests reach it is not seen at the director."""
    findings, clean, missing = judge(director=at_director())
    assert (findings, clean) == ([], [])
    assert "realserver" in missing[0].capture_command


def test_a_tunnel_that_nobody_takes_is_told_by_the_realserver():
    """Port unreachable about the outer packet means that there is no tunnel device."""
    text = at_director(tunnel="ipip:d>")
    numbers = [
        number
        for number, line in enumerate(text.splitlines(), 1)
        if "copy" in line and "rs2" in line
    ]
    refused = "\n".join(
        f"{20 + n}.0 rs2>d icmp 3/3 quote={number} mac=rs2>d !" for n, number in enumerate(numbers)
    )
    texts = {"director": f"{text}\n{refused}\n"}
    findings, _, _ = judge(**texts)
    assert {finding.cause.code for finding in findings} <= {"no-tunnel-device"}


def test_many_suspects_are_one_finding():
    """The connections in vain are repeated; a few are listed and cited, all are counted."""
    judged = case(director=at_director(), rs2=at_realserver())
    rows = judged.vanished
    assert rows.height == 2
    judged.__dict__["vanished"] = floods.repeated(rows)
    (finding,) = (
        item for item in realserver_ignores_vip.check(judged) if isinstance(item, Finding)
    )
    assert finding.flow_count == floods.COUNT
    assert len(finding.flows) <= MAX_FLOWS


def test_requests_for_a_realserver_without_a_capture_are_not_clean():
    """Another realserver's capture shows that it answers; of rs2 nobody knows."""
    rs1 = """
0.0002 c:40001>s S seq=0 mss=1460 ttl=63 id=1 mac=d>rs
0.0010 s>c:40001 SA seq=0 ack=1 mac=rs>x
0.0102 c:40001>s A seq=1 ack=1 ttl=63 id=2 mac=d>rs
0.0202 c:40001>s PA seq=1 ack=1 len=80 ttl=63 id=3 mac=d>rs
"""
    findings, clean, missing = judge(director=at_director(), rs1=rs1)
    assert (findings, clean) == ([], [])
    assert "2 requests were repeated in vain" in missing[0].reason


def test_a_tunnel_s_refusal_that_is_cut_short_is_not_clean():
    """It comes from where the tunnel ends; about which connection stood in what is missing."""
    texts = [at_director(tunnel="ipip:d>").replace("20.0", "30.0")]
    cut = "11.0 rs2>d icmp 3/3 quote=8 qlen=20 sum=cut mac=rs2>d"
    findings, clean, missing = judge(director="\n".join([*texts, cut]), rs1=at_realserver(to="rs"))
    assert (findings, clean) == ([], [])
    assert any("where tunnels end" in item.reason for item in missing)
