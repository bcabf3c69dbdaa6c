"""icmp-checksum-burst needs a burst, and explains it only by what fits every message."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pcapdiag.rules import icmp_checksum_burst
from stories import case, cited, marked

from pcapdiag.facts.files import Facts, HostLog
from pcapdiag.facts.kernel_log import LogCount
from pcapdiag.result import Clean, Finding, NotExamined

SERVICE = """
0.000 c>s S seq=0 mss=1460 mac=x>d
0.0001 copy 1 ttl=63 mac=d>rs
0.002 c>s A seq=1 ack=1 mac=x>d
0.0021 copy 3 ttl=63 mac=d>rs
0.003 c2>s S seq=0 mss=1460 mac=x>d
0.0031 copy 5 ttl=63 mac=d>rs2
0.004 s>c A seq=1 ack=1 len=1460 mac=rs>x
"""


def burst(count=5, step=1.0, residual=8000, sender="r"):
    """Return the service's packets and `count` bad messages, `step` seconds apart."""
    lines = [
        f"{1 + number * step:.3f} {sender}>s icmp 3/1 quote=7 mac=x>d id={900 + number} "
        f"sum={residual if isinstance(residual, int) else residual(number)} !"
        for number in range(count)
    ]
    return SERVICE + "\n".join(lines) + "\n"


def judge(**texts):
    """Return the rule's findings, clean verdicts and questions not examined."""
    outcomes = list(icmp_checksum_burst.check(case(**texts)))
    return (
        [item for item in outcomes if isinstance(item, Finding)],
        [item for item in outcomes if isinstance(item, Clean)],
        [item for item in outcomes if isinstance(item, NotExamined)],
    )


def test_a_burst_names_its_sender_and_every_frame():
    """All bad messages are cited, with sender, span and MAC."""
    texts = {"director": burst()}
    (finding,), _, _ = judge(**texts)
    assert cited(finding) == marked(**texts)
    assert finding.facts["sender"] == "192.0.2.1"
    assert finding.facts["messages"] == 5
    assert finding.facts["span_s"] == pytest.approx(4.0)
    assert finding.facts["residual"] == "0x1f40"


def test_a_port_rewrite_is_named_where_the_quote_shows_the_new_port():
    """80 in the quote and a residual of 80 - 8080: it was 8080 when the sum was made."""
    (finding,), _, _ = judge(director=burst(residual=(80 - 8080) % 0xFFFF))
    assert finding.cause.code == "rewrite-without-checksum"
    assert "source port was rewritten from 8080 to 80" in finding.cause.text


def test_different_residuals_are_not_explained():
    """Corruption leaves another difference each time: nothing is named."""
    (finding,), _, _ = judge(director=burst(residual=lambda number: 100 + 7 * number))
    assert finding.cause.code == "unexplained"
    assert finding.cause.text.startswith("unexplained")
    assert finding.facts["residual"] is None


@pytest.mark.parametrize(("count", "step", "found"), [(5, 15.0, 1), (4, 1.0, 0), (5, 15.01, 0)])
def test_five_within_a_minute_make_a_burst(count, step, found):
    """Both sides of both thresholds: five messages, sixty seconds."""
    assert len(judge(director=burst(count, step))[0]) == found


def test_senders_are_counted_apart():
    """Four of one and four of another make no burst."""
    mixed = burst(4) + burst(4, sender="x").removeprefix(SERVICE)
    assert judge(director=mixed)[0] == []


def test_what_the_capturing_host_sends_itself_is_left_alone():
    """A realserver's own messages may leave their sum to its network card."""
    own = """
0.000 c>s S seq=0 mss=1460 ttl=63 mac=d>rs
0.001 s>c SA seq=0 ack=1 mss=1460 mac=rs>x
0.002 c>s A seq=1 ack=1 ttl=63 mac=d>rs
""" + "".join(f"{n + 1} s>c icmp 3/3 quote=3 mac=rs>x id={n} sum=8000\n" for n in range(5))
    findings, clean, unclear = judge(rs1=own)
    assert findings == clean == []
    assert "5 messages with bad checksums leave" in unclear[0].reason


def test_what_an_unknown_capturing_host_may_have_sent_is_left_alone():
    """Without a label the capture may be either host's of a link; a lowered TTL is neither's."""
    link = """
0.000 c>s S seq=0 mss=1460 mac=c>x
0.001 s>c SA seq=0 ack=1 mss=1460 ttl=62 mac=x>c
0.002 c>s A seq=1 ack=1 mac=c>x
"""
    messages = "".join(
        f"{n + 1} c>s icmp 3/3 quote=2 mac=c>x id={n + 900} ttl={{ttl}} sum=8000\n"
        for n in range(5)
    )
    assert judge(place=link + messages.format(ttl=64))[0] == []
    assert len(judge(place=link + messages.format(ttl=61))[0]) == 1


def test_good_checksums_are_clean_and_none_at_all_is_not_examined():
    """Clean counts verified messages; without any the question stays open."""
    good = burst().replace(" sum=8000 !", "")
    findings, clean, _ = judge(director=good)
    assert findings == []
    assert clean[0].examined.icmp_errors == 5
    _, clean, not_examined = judge(director=SERVICE)
    assert clean == []
    assert "no ICMP message was captured whole" in not_examined[0].reason


BOTH = {
    "router": SERVICE
    + "".join(
        f"{1 + n:.3f} r>s icmp 3/4 mtu=1400 quote=7 mac=r>x ttl=60 id={900 + n} {{before}}\n"
        for n in range(5)
    ),
    "director": SERVICE
    + "".join(
        f"{1 + n:.3f} r>s icmp 3/4 mtu={{mtu}} quote=7 mac=x>d ttl={{ttl}} id={900 + n} "
        "{after} !\n"
        for n in range(5)
    ),
}


def both(before="", after="sum=77", mtu=1400, ttl=59):
    """Return captures in front of and behind the hop "x", which changes messages."""
    fields = {"before": before, "after": after, "mtu": mtu, "ttl": ttl}
    return {name: text.format(**fields) for name, text in BOTH.items()}


def test_messages_seen_in_order_one_hop_before_name_the_box_and_what_it_changed():
    """The hop between the captures is named by its MAC, the field that differs by its name."""
    texts = both(mtu=1500)
    (finding,), _, _ = judge(**texts)
    assert finding.cause.code == "rewrite-without-checksum"
    assert "the next-hop MTU was changed from 1400 to 1500" in finding.cause.text
    assert finding.facts["seen_in_order_before"] == 5
    assert finding.facts["breaker_mac"] == "02:00:00:00:00:0c"
    assert "breaker" in finding.hosts
    assert cited(finding) == marked(**texts)
    assert {name for name, _ in cited(finding, "counter")} == {"router"}


def test_a_message_that_was_cut_on_the_way_is_told_from_a_rewritten_one():
    """A shorter ICMP message behind the hop: the quote was cut."""
    (finding,), _, _ = judge(**both(after="qlen=28 sum=77"))
    assert finding.cause.code == "quote-truncated"
    assert "cut from up to" in finding.cause.text


@pytest.mark.parametrize("ttl", [60, 61])
def test_bad_at_one_tap_and_good_behind_it_was_never_bad(ttl):
    """Offload on the sender's side: no farther from the sender they are in order."""
    assert judge(**both(ttl=ttl))[0] == []


@pytest.mark.parametrize("mtu", [1492, 1480, 0])
def test_a_patched_mtu_is_named_by_arithmetic_alone(mtu):
    """1400 in the message, and a residual of 1400 less a common MTU."""
    texts = both(after=f"sum={(1400 - mtu) % 0xFFFF}")
    (finding,), _, _ = judge(director=texts["director"])
    assert f"the next-hop MTU was changed from {mtu} to 1400" in finding.cause.text


def test_the_sending_node_is_described():
    """TTL, whether its IP IDs run on, and how much it quotes tell one node from many."""
    (finding,), _, _ = judge(director=burst())
    assert finding.facts["ttl"] == (64,)
    assert finding.facts["ip_ids_run_on"] is True
    assert finding.facts["quoted_sources"] == 1
    assert finding.timeline is not None
    assert sum(finding.timeline.series["bad checksums"]) == 5


def test_what_the_lost_messages_would_have_told_is_counted():
    """Frag-needed that nobody believes leaves senders without their path MTU."""
    (finding,), _, _ = judge(director=both()["director"])
    assert finding.facts["too_big_messages"] == 5
    assert finding.facts["connections_not_told_their_mtu"] == 1


def logged(text, sender, lines):
    """Return the outcomes with a kernel log of the director beside its capture."""
    log = HostLog("director", (LogCount("icmp-checksum", sender, lines),))
    return list(icmp_checksum_burst.check(replace(case(director=text), facts=Facts((log,)))))


def test_kernel_logs_are_counted_in():
    """Lines about the sender stand beside its messages, lines without one apart."""
    (finding,) = logged(burst(), "192.0.2.1", 1523)
    assert finding.facts["kernel_log_lines"] == 1523
    assert "Kernel logs hold 1523 in that of director" in finding.summary
    (finding,) = logged(burst(), None, 7)
    assert finding.facts["kernel_log_lines_without_sender"] == 7


@pytest.mark.parametrize(("lines", "questions"), [(5, 1), (4, 0)])
def test_a_log_about_messages_that_no_capture_shows_is_a_question(lines, questions):
    """No frames, no finding: the capture that would show them is named."""
    outcomes = logged(burst(residual=0).replace("sum=0 !", ""), "198.51.100.9", lines)
    asked = [item for item in outcomes if isinstance(item, NotExamined)]
    assert len(asked) == questions
    assert all("198.51.100.9" in item.reason for item in asked)
    assert not any(isinstance(item, Finding) for item in outcomes)
