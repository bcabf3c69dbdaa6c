"""realserver-gone names the realserver that gets requests and is not there, and no other."""

from __future__ import annotations

import pytest
from pcapdiag.rules import realserver_gone
from stories import case, cited, marked
from traces import START_NS

from pcapdiag.cluster.visible import gaps
from pcapdiag.result import Clean, Finding, NotExamined


class Story:
    """Lines of a DR director's capture, in which copies know their frame."""

    def __init__(self, text=""):
        self.lines = [line for line in text.splitlines() if line.strip()]

    def passed(self, at, packet, target, *, mark=""):
        """Let a client's packet in and out to a realserver; no target: it stays."""
        self.lines.append(f"{at} {packet} mac=x>d{mark}")
        if target:
            number = len(self.lines)
            self.lines.append(f"{at + 0.0001:.4f} copy {number} ttl=63 mac=d>{target}")
        return self

    def opened(self, at, client, target):
        """Let a client open a connection and ask; it goes well."""
        self.passed(at, f"{client}>s S seq=0 mss=1460", target)
        self.passed(at + 0.01, f"{client}>s A seq=1 ack=1", target)
        return self.passed(at + 0.02, f"{client}>s PA seq=1 ack=1 len=80", target)

    def repeated(self, times, packet, target, *, mark=""):
        """Let a packet come at several times; the first may be marked."""
        for number, at in enumerate(times):
            self.passed(at, packet, target, mark=mark if number == 0 else "")
        return self

    def line(self, text):
        """Add a line as it is."""
        self.lines.append(text)
        return self

    @property
    def text(self):
        """Return the trace."""
        return "\n".join(self.lines)


SYNS = (0.0, 1.0, 3.0)


def served():
    """Return two connections, one on each realserver, which are both heard once."""
    return (
        Story()
        .opened(0.0, "c:40001", "rs")
        .opened(0.5, "c:40002", "rs2")
        .line("0.6 rs2>d arp reply is=rs2")
        .line("0.7 rs>d arp reply is=rs")
    )


def silent(count=2, times=SYNS):
    """Return connections to rs2 that nobody answers, and one to rs that goes well meanwhile."""
    story = served()
    for number in range(count):
        moments = [10 + 0.1 * number + at for at in times]
        story.repeated(moments, f"c2:4100{number}>s S seq=0 mss=1460", "rs2", mark=" !")
    return story.opened(14.0, "c:40009", "rs").line("20.0 x>d arp request who=d")


def judge(**texts):
    """Return the rule's findings, clean verdicts and questions not examined."""
    outcomes = list(realserver_gone.check(case(**texts)))
    return (
        [item for item in outcomes if isinstance(item, Finding)],
        [item for item in outcomes if isinstance(item, Clean)],
        [item for item in outcomes if isinstance(item, NotExamined)],
    )


def test_a_realserver_that_fell_silent_is_named():
    """Requests leave for it, nothing answers and nothing is heard of it; others are served."""
    texts = {"director": silent().text}
    (finding,), _, _ = judge(**texts)
    assert finding.cause.code == "silent"
    assert finding.hosts["realserver"] == "203.0.113.12"
    assert cited(finding) == marked(**texts)
    assert finding.flow_count == 2
    assert finding.facts["others_served_after"] == 1


def test_one_connection_in_vain_is_a_clients_bad_path():
    """Two clients must have asked in vain."""
    findings, clean, _ = judge(director=silent(count=1).text)
    assert findings == []
    assert len(clean) == 1


@pytest.mark.parametrize(("third", "found"), [(2.4, 0), (2.6, 1)])
def test_three_requests_take_three_seconds(third, found):
    """Repetitions that come sooner are no retransmissions of TCP's."""
    assert len(judge(director=silent(times=(0.0, 1.0, third)).text)[0]) == found


def test_a_realserver_that_is_heard_is_not_gone():
    """It lives, and has another reason not to answer."""
    story = silent().line("21.0 rs2>d arp reply is=rs2")
    assert judge(director=story.text)[0] == []


def test_a_realserver_that_serves_others_is_not_gone():
    """A later connection to it that goes well says so."""
    assert judge(director=silent().opened(25.0, "c:40010", "rs2").text)[0] == []


def test_where_nobody_is_served_the_realserver_is_not_to_blame():
    """All connections hang: the way to or from the cluster is broken."""
    story = served()
    for number, target in enumerate(("rs", "rs2", "rs", "rs2")):
        moments = [10 + 0.1 * number + at for at in SYNS]
        story.repeated(moments, f"c2:4100{number}>s S seq=0 mss=1460", target)
    assert judge(director=story.line("20.0 x>d arp request who=d").text)[0] == []


def test_large_packets_in_vain_are_another_matter():
    """Full-sized data that is repeated tells of a path MTU."""
    for size, found in ((1460, 0), (536, 1)):
        story = served()
        for number in range(2):
            client = f"c2:4100{number}"
            story.passed(9 + 0.1 * number, f"{client}>s S seq=0 mss=1460", "rs2")
            story.passed(9.05 + 0.1 * number, f"{client}>s A seq=1 ack=1", "rs2")
            moments = [10 + 0.1 * number + at for at in SYNS]
            story.repeated(moments, f"{client}>s PA seq=1 ack=1 len={size}", "rs2")
        story.opened(14.0, "c:40009", "rs").line("20.0 x>d arp request who=d")
        assert len(judge(director=story.text)[0]) == found


def undeliverable(asks=3):
    """Return requests that do not leave while the director asks for rs2's MAC in vain."""
    story = served()
    for number in range(asks):
        story.line(f"{10.0001 + number} d>* arp request who=rs2" + (" !" if number == 0 else ""))
    story.repeated([10.001, 11.001, 13.001], "c2:41000>s S seq=0 mss=1460", None)
    return story


def test_arp_that_stays_unanswered_is_proof():
    """Three requests in vain, and the client's SYN that never left: one connection is enough."""
    texts = {"director": undeliverable().text}
    (finding,), _, _ = judge(**texts)
    assert finding.cause.code == "arp-unanswered"
    assert finding.confidence == "high"
    assert finding.hosts["realserver"] == "203.0.113.12"
    assert cited(finding) == marked(**texts)
    assert finding.facts["arp_requests_in_vain"] == 3


def test_two_requests_in_vain_may_be_lost():
    """Linux asks three times before it gives up."""
    assert judge(director=undeliverable(asks=2).text)[0] == []


def test_a_request_that_was_captured_twice_is_one():
    """Two requests in vain, each seen at a bridge and at its port, are not four."""
    story = served()
    for number in range(2):
        story.line(f"{10.0001 + number} d>* arp request who=rs2")
        story.line(f"{10.0002 + number} d>* arp request who=rs2")
    story.repeated([10.001, 11.001, 13.001], "c2:41000>s S seq=0 mss=1460", None)
    assert judge(director=story.text)[0] == []


def test_the_directors_host_unreachable_is_proof_as_well():
    """It says so to the client, from its own address."""
    story = served().passed(10.0, "c2:41000>s S seq=0 mss=1460", None)
    quoted = len(story.lines)
    story.line(f"13.0 d>c2 icmp 3/1 quote={quoted} mac=d>x !")
    story.repeated([13.2, 16.2], "c2:41000>s S seq=0 mss=1460", None)
    texts = {"director": story.text}
    (finding,), _, _ = judge(**texts)
    assert finding.cause.code == "host-unreachable"
    assert cited(finding) == marked(**texts)


def test_arp_in_vain_for_a_realserver_without_requests_is_nothing():
    """It was taken out, and its health check goes on asking."""
    story = served()
    for number in range(6):
        story.line(f"{10.0 + number} d>* arp request who=rs2")
    findings, clean, _ = judge(director=story.opened(20.0, "c:40009", "rs").text)
    assert findings == []
    assert len(clean) == 1


def removed(kept=False):
    """Return connections of rs2 whose requests the director drops, or lets pass."""
    story = served()
    for number in range(3):
        story.opened(1.0 + 0.1 * number, f"c2:4200{number}", "rs2")
    for number in range(3):
        moments = [20 + 0.1 * number + at for at in (0, 0.2, 0.6, 1.4, 3.0, 6.2)]
        packet = f"c2:4200{number}>s PA seq=81 ack=500 len=80"
        story.repeated(moments, packet, "rs2" if kept else None, mark=" !")
    return story.opened(30.0, "c:40009", "rs").line("40.0 x>d arp request who=d")


def test_a_removed_realservers_connections_are_dropped_in_silence():
    """What was forwarded before comes in and does not leave, too often to be a hole."""
    texts = {"director": removed().text}
    (finding,), _, _ = judge(**texts)
    assert finding.cause.code == "destination-removed"
    assert cited(finding) == marked(**texts)
    assert finding.flow_count == 3
    assert "expire_nodest_conn" in finding.remedies[0].commands[0]


@pytest.mark.parametrize(("gap", "found"), [((21, 22), 0), ((27, 29), 1)])
def test_what_may_have_left_in_a_gap_of_the_capture_is_not_dropped(gap, found):
    """The repetitions last from 20 to 26.4 s; where egress pauses then, nobody knows."""
    story = case(director=removed().text)
    begin, end = (START_NS + edge * 10**9 for edge in gap)
    vars(story.coverage)["egress_gaps"] = gaps.table([(0, 0, begin, end)])
    outcomes = list(realserver_gone.check(story))
    assert sum(isinstance(item, Finding) for item in outcomes) == found


@pytest.mark.parametrize(("fresh", "found"), [(9, 0), (10, 1)])
def test_a_quiesced_realserver_is_kept_busy_by_reused_ports(fresh, found):
    """New connections avoid it for longer than by chance, and ports used before go there."""
    story = Story().opened(0.0, "c:40001", "rs").opened(0.5, "c:40002", "rs2")
    story.passed(1.0, "c:40002>s FA seq=81 ack=1", "rs2")
    for number in range(fresh):
        story.opened(2.0 + number, f"c2:{41000 + number}", "rs")
    text = story.passed(20.0, "c:40002>s S seq=9000 mss=1460", "rs2", mark=" !").text
    findings, _, _ = judge(director=text)
    assert len(findings) == found
    for finding in findings:
        assert finding.cause.code == "quiesced"
        assert finding.severity == "low"
        assert cited(finding) == marked(director=text)


def test_without_a_capture_of_requests_nothing_was_examined():
    """A realserver alone does not show who else was served."""
    text = "0.0 c>s S seq=0 ttl=63 mac=d>rs\n0.1 s>c SA seq=0 ack=1 mac=rs>x\n"
    findings, clean, missing = judge(rs1=text)
    assert (findings, clean) == ([], [])
    assert "director" in missing[0].needs[0]


def test_requests_in_vain_that_nothing_explains_are_not_clean():
    """It is heard of, so that it is not gone; whether it got the requests nobody knows."""
    story = silent().line("21.0 rs2>d arp reply is=rs2")
    findings, clean, missing = judge(director=story.text)
    assert (findings, clean) == ([], [])
    assert "what became of the requests" in missing[0].reason
