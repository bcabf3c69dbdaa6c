"""pmtud-blackhole fires where large packets stall for want of a message, and nowhere else."""

from __future__ import annotations

import pytest
from pcapdiag.rules import pmtud_blackhole
from stories import case, cited, marked

from pcapdiag.registry import rules
from pcapdiag.result import Clean, Confidence, Finding, NotExamined

OPEN = """
0.000 c>s S seq=0 mss=1460 ttl=63 mac=d>rs
0.001 s>c SA seq=0 ack=1 mss=1460 mac=rs>x
0.002 c>s A seq=1 ack=1 ttl=63 mac=d>rs
0.003 c>s PA seq=1 ack=1 len=100 ttl=63 mac=d>rs
0.004 s>c PA seq=1 ack=101 len={small} mac=rs>x
0.010 c>s A seq=101 ack={acked} ttl=63 mac=d>rs
"""
STALL = """
0.020 s>c A seq={acked} ack=101 len={large} mac=rs>x !
0.220 s>c A seq={acked} ack=101 len={large} mac=rs>x
0.620 s>c A seq={acked} ack=101 len={large} mac=rs>x
1.420 s>c A seq={acked} ack=101 len={large} mac=rs>x !
3.000 c>s A seq=100 ack={acked} ttl=63 mac=d>rs
"""
AT_DIRECTOR = """
0.000 c>s S seq=0 mss=1460 mac=x>d
0.0001 copy 1 ttl=63 mac=d>rs
0.002 c>s A seq=1 ack=1 mac=x>d
0.0021 copy 3 ttl=63 mac=d>rs
0.003 c>s PA seq=1 ack=1 len=100 mac=x>d
0.0031 copy 5 ttl=63 mac=d>rs
0.010 c>s A seq=101 ack=401 mac=x>d
0.0101 copy 7 ttl=63 mac=d>rs
"""


def story(text=OPEN + STALL, small=400, large=1460, **more):
    """Return the text with its sizes filled in."""
    return text.format(small=small, acked=small + 1, large=large, **more)


def judge(**texts):
    """Return the rule's findings, clean verdicts and questions not examined."""
    outcomes = list(pmtud_blackhole.check(case(**texts)))
    return (
        [item for item in outcomes if isinstance(item, Finding)],
        [item for item in outcomes if isinstance(item, Clean)],
        [item for item in outcomes if isinstance(item, NotExamined)],
    )


def errors(count, mtu, first=1, tail=""):
    """Return too-big messages to the VIP, one per repetition of a packet quoted as line `first`."""
    times = [0.03, 0.23, 0.63, 1.43][:count]
    return "".join(
        f"{time} r>s icmp 3/4 mtu={mtu} quote={first} mac=x>d id={900 + n} {tail}\n"
        for n, time in enumerate(times)
    )


def test_a_stall_by_size_with_its_bounds():
    """The repeated packet is cited, first and last, with the sizes that did and did not pass."""
    texts = {"rs1": story()}
    (finding,), _, _ = judge(**texts)
    assert cited(finding) == marked(**texts)
    assert finding.facts["direction"] == "to-client"
    assert finding.facts["smallest_lost"] == 1500
    assert finding.facts["largest_delivered"] == 440
    assert finding.facts["stalled_connections"] == 1
    assert finding.facts["next_hop_mtu"] is None


def test_one_connection_without_a_message_is_at_most_low():
    """A single stall that no message explains may be a peer that went away."""
    (finding,), _, _ = judge(rs1=story())
    assert finding.confidence is Confidence.LOW


def test_messages_that_reach_the_sender_are_ignored_by_it():
    """The sender was told 1400 at its own interface and went on with 1500: high confidence."""
    told = story(OPEN + STALL) + errors(4, 1400, first=7).replace("mac=x>d", "mac=d>rs ttl=60")
    (finding,), _, _ = judge(rs1=told)
    assert finding.cause.code == "icmp-ignored-by-sender"
    assert finding.confidence is Confidence.HIGH
    assert finding.facts["next_hop_mtu"] == 1400


def test_a_bad_checksum_on_every_message_is_the_cause():
    """Messages that no host accepts leave the sender ignorant."""
    told = story(OPEN + STALL) + errors(4, 1400, first=7, tail="sum=8000").replace(
        "mac=x>d", "mac=d>rs ttl=60"
    )
    (finding,), _, _ = judge(rs1=told)
    assert finding.cause.code == "icmp-corrupt"


@pytest.mark.parametrize(("mtu", "code"), [(0, "icmp-unusable"), (1500, "icmp-unusable")])
def test_a_message_that_names_no_smaller_mtu_is_unusable(mtu, code):
    """An MTU of 0 or of the packet's own size tells a sender nothing."""
    told = story() + errors(4, mtu, first=7).replace("mac=x>d", "mac=d>rs ttl=60")
    (finding,), _, _ = judge(rs1=told)
    assert finding.cause.code == code


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("small packets are lost for other reasons", story(large=536)),
        (
            "two sendings are ordinary loss",
            story().replace("0.620 s>c", "0.620 s2>c").replace("1.420 s>c", "1.420 s2>c"),
        ),
        ("without DF routers fragment", story().replace("mac=rs>x", "mac=rs>x df=0")),
        ("a closed window is probed", story() + "3.1 c>s A seq=101 ack=401 win=0 ttl=63 mac=d>rs"),
        (
            "an acknowledgement ends the stall",
            story() + "3.1 c>s A seq=101 ack=1861 ttl=63 mac=d>rs",
        ),
        ("a peer never heard of again may be dead", story().replace("3.000 c>s", "0.011 c>s")),
    ],
)
def test_silent_on(name, text):
    """No finding for what only looks like a black hole."""
    findings, _, _ = judge(rs1=text)
    assert findings == [], name


def test_a_refused_packet_is_not_a_lost_one():
    """Another ICMP error about the stalled packet explains it."""
    refused = story() + "1.5 r>s icmp 3/10 quote=7 mac=d>rs ttl=60"
    findings, _, _ = judge(rs1=refused)
    assert findings == []


def test_the_size_threshold_is_exact():
    """576 bytes must pass everywhere, 577 need not (RFC 791)."""
    at, above = story(small=100, large=536), story(small=100, large=537)
    assert judge(rs1=at)[0] == []
    assert len(judge(rs1=above)[0]) == 1


def test_the_same_size_delivered_to_the_same_client_refutes_it():
    """On a path where 1500 bytes were acknowledged on another connection size is no reason."""
    other = """
4.000 c:40001>s S seq=0 mss=1460 ttl=63 mac=d>rs
4.001 s>c:40001 SA seq=0 ack=1 mss=1460 mac=rs>x
4.002 c:40001>s A seq=1 ack=1 ttl=63 mac=d>rs
4.003 c:40001>s PA seq=1 ack=1 len=100 ttl=63 mac=d>rs
4.004 s>c:40001 A seq=1 ack=101 len=1460 mac=rs>x
4.010 c:40001>s A seq=101 ack=1461 ttl=63 mac=d>rs
"""
    assert judge(rs1=story() + other)[0] == []


def test_working_discovery_is_clean():
    """A sender that shrinks after the message and goes on is reported as examined, in order."""
    shrinks = story(
        OPEN
        + """
0.020 s>c A seq={acked} ack=101 len={large} mac=rs>x
0.030 r>s icmp 3/4 mtu=1400 quote=7 mac=d>rs ttl=60
0.031 s>c A seq={acked} ack=101 len=1360 mac=rs>x
0.050 c>s A seq=101 ack=1761 ttl=63 mac=d>rs
"""
    )
    findings, clean, _ = judge(rs1=shrinks)
    assert findings == []
    assert [item.scope.direction for item in clean] == ["to-client"]
    assert clean[0].examined.connections == 1


def test_small_transfers_say_nothing_about_the_path():
    """Where nothing large was sent the question is not examined, never clean."""
    _, clean, not_examined = judge(rs1=story(OPEN))
    assert clean == []
    assert {item.scope.direction for item in not_examined} == {"to-client", "to-realserver"}
    assert any("nothing larger than" in item.reason for item in not_examined)


def test_a_dr_director_alone_cannot_see_the_replies():
    """The missing capture is named with the command that takes it."""
    _, _, not_examined = judge(director=AT_DIRECTOR)
    (question,) = [item for item in not_examined if item.scope.direction == "to-client"]
    assert question.needs == ("a capture on a realserver",)
    assert question.capture_command is not None
    assert "203.0.113.10" in question.capture_command


def test_every_finding_names_a_remedy_that_can_be_undone():
    """Remedies come with a check and a way back."""
    (finding,), _, _ = judge(rs1=story())
    assert finding.remedies
    assert all(remedy.check and remedy.undo for remedy in finding.remedies)


def test_the_registry_knows_the_rule():
    """Its id is its file name."""
    assert "pmtud-blackhole" in rules()


RECOVERS = """
0.020 s>c A seq={acked} ack=101 len={large} mac=rs>x !
0.220 s>c A seq={acked} ack=101 len={large} mac=rs>x
0.620 s>c A seq={acked} ack=101 len={large} mac=rs>x
1.420 s>c A seq={acked} ack=101 len={probe} mac=rs>x
1.430 c>s A seq=101 ack={done} ttl=63 mac=d>rs
1.431 s>c A seq={done} ack=101 len={rest} mac=rs>x
1.440 c>s A seq=101 ack=1861 ttl=63 mac=d>rs
"""


def recovering(probe):
    """Return a sender that goes on with `probe` bytes after three sendings of 1460."""
    return story(OPEN + RECOVERS, probe=probe, done=401 + probe, rest=1460 - probe)


@pytest.mark.parametrize(("probe", "by_probing"), [(1024, True), (1012, True), (1000, False)])
def test_a_sender_that_finds_a_smaller_size_by_itself_is_a_lesser_fault(probe, by_probing):
    """The stall is proven, its cost was seconds; 1024 with or without timestamps is mtu_probing."""
    texts = {"rs1": recovering(probe)}
    (finding,), _, _ = judge(**texts)
    assert finding.severity == "low"
    assert finding.facts["recovered_at"] == probe + 40
    assert finding.facts["recovered_by_probing"] is by_probing
    assert finding.facts["largest_delivered"] == probe + 40
    assert cited(finding) == marked(**texts)
    assert cited(finding, "related") == {("rs1", 10)}


def test_one_lost_packet_cut_otherwise_when_repeated_is_no_stall():
    """Linux cuts segments anew after a loss: two sendings of the large one are wanted."""
    once = recovering(1024).replace("0.220 s>c", "0.220 s2>c").replace("0.620 s>c", "0.620 s2>c")
    assert judge(rs1=once)[0] == []


@pytest.mark.parametrize(
    ("closing", "state"),
    [
        ("", "established"),
        ("1.5 s>c FA seq=9000 ack=101 mac=rs>x\n", "fin_wait1"),
        ("2.9 c>s FA seq=101 ack=401 ttl=63 mac=d>rs\n", "close_wait"),
    ],
)
def test_the_hung_socket_is_named_by_its_state(closing, state):
    """A FIN that was seen tells how the realserver's socket stands."""
    (finding,), _, _ = judge(rs1=story() + closing)
    assert {key for key in finding.facts if key.startswith("hung_")} == {f"hung_{state}"}
    assert state.upper() in finding.summary


SHRINKS = """
0.020 s>c A seq={acked} ack=101 len={large} mac=rs>x
0.030 r>s icmp 3/4 mtu=MTU quote=7 mac=d>rs ttl=60
0.031 s>c A seq={acked} ack=101 len=460 mac=rs>x DF
0.050 c>s A seq=101 ack=861 ttl=63 mac=d>rs
0.400 s>c A seq=861 ack=101 len=460 mac=rs>x DF
0.410 c>s A seq=101 ack=1321 ttl=63 mac=d>rs
"""


@pytest.mark.parametrize(
    ("mtu", "df", "words"), [(500, "", "discovery works"), (500, "df=0", "gave up DF")]
)
def test_what_a_told_sender_did_stands_in_the_clean_verdict(mtu, df, words):
    """Shrinking and giving up DF are both path MTU discovery at work."""
    text = story(OPEN + SHRINKS).replace("MTU", str(mtu)).replace(" DF", f" {df}")
    findings, clean, _ = judge(rs1=text)
    assert findings == []
    assert words in clean[0].note


def test_messages_whose_checksum_was_cut_off_may_be_broken():
    """The sender went on, but whether it could have listened is not known."""
    told = story(OPEN + STALL) + errors(4, 1400, first=7).replace("mac=x>d", "mac=d>rs ttl=60")
    (finding,), _, _ = judge(rs1=told.replace("mtu=1400", "mtu=1400 sum=cut"))
    assert finding.cause.code == "icmp-not-heeded"


def test_a_message_that_a_director_nobody_captured_may_have_dropped_is_lost_somewhere():
    """The router's capture holds it and the sender's does not; the director is between them."""
    router = story(OPEN + STALL).replace("mac=d>rs", "").replace("mac=rs>x", "ttl=63") + errors(
        4, 1400, first=7
    ).replace("mac=x>d", "mac=r>x")
    (finding,), _, _ = judge(rs1=story() + "0.5 r>s icmp 8/0 mac=d>rs\n", router=router)
    assert finding.cause.code == "icmp-lost-on-the-way"


def test_a_stall_that_cut_headers_may_explain_is_not_clean():
    """A receiver seems to be gone whose SACK blocks were cut off: that is not examined."""
    gone = story(OPEN + STALL.rsplit("3.000", 1)[0])
    _, clean, not_examined = judge(rs1=gone)
    assert [item.scope.direction for item in clean] == ["to-client"]
    findings, clean, not_examined = judge(
        rs1=gone.replace("seq=101 ack=401", "seq=101 ack=401 cut")
    )
    assert findings == clean == []
    assert any("the captures cut off" in item.reason for item in not_examined)


def test_a_message_seen_by_the_router_only_was_filtered_upstream():
    """The director's capture keeps ICMP and does not hold it."""
    router = story(OPEN + STALL).replace("mac=d>rs", "").replace("mac=rs>x", "ttl=63") + errors(
        4, 1400, first=7
    ).replace("mac=x>d", "mac=r>x")
    director = AT_DIRECTOR + "0.5 r>s icmp 8/0 mac=x>d\n9 c>s A seq=101 ack=401 mac=x>d\n"
    (finding,), _, _ = judge(director=director, rs1=story(), router=router)
    assert finding.cause.code == "icmp-filtered-upstream"


def test_without_the_director_and_the_sender_nobody_knows_how_far_a_message_came():
    """A router's capture alone shows that it was sent, not where it stayed."""
    router = story(OPEN + STALL).replace("mac=d>rs", "").replace("mac=rs>x", "ttl=63") + errors(
        4, 1400, first=7
    ).replace("mac=x>d", "mac=r>x")
    (finding,), _, _ = judge(router=router)
    assert finding.cause.code == "icmp-not-captured"


def test_sizes_are_counted_packet_by_packet():
    """The lost size with its four sendings, the delivered one with its packet."""
    (finding,), _, _ = judge(rs1=story())
    assert [(item.ip_length, item.delivered, item.lost) for item in finding.sizes] == [
        (440, 1, 0),
        (1500, 0, 4),
    ]


def test_few_messages_for_many_losses_are_a_rate_limit():
    """One message for four lost packets does not mean that three came through."""
    told = story(OPEN + STALL) + errors(1, 1400, first=7).replace("mac=x>d", "mac=d>rs ttl=60")
    (finding,), _, _ = judge(rs1=told)
    assert finding.facts["icmp_for_each_lost_packet"] == 0.25
    assert any("limits the rate" in text for text in finding.alternatives)


def test_the_waits_of_a_retransmission_timer_double():
    """The series stands in the evidence: 0.2, 0.4, 0.8 s."""
    (finding,), _, _ = judge(rs1=story())
    assert "0.2, 0.4, 0.8 s, each twice the one before" in finding.evidence[1].note


HOLED = """
0.000 {c}>s S seq=0 mss=1460 sackok ttl=63 mac=d>rs
0.001 s>{c} SA seq=0 ack=1 mss=1460 sackok mac=rs>x
0.002 {c}>s PA seq=1 ack=1 len=100 ttl=63 mac=d>rs
0.020 s>{c} A seq=1 ack=101 len=1460 mac=rs>x
0.021 s>{c} PA seq=1461 ack=101 len=300 mac=rs>x
0.030 {c}>s A seq=101 ack=1 sack=1461-1761 ttl=63 mac=d>rs
0.220 s>{c} A seq=1 ack=101 len=1460 mac=rs>x
0.620 s>{c} A seq=1 ack=101 len=1460 mac=rs>x
1.420 s>{c} A seq=1 ack=101 len=1460 mac=rs>x
"""


@pytest.mark.parametrize(("clients", "found"), [(("c", "c2"), 1), (("c",), 0)])
def test_what_was_sent_after_the_lost_ones_arrived_being_smaller(clients, found):
    """Two clients whose SACKs show a hole of the large size; one alone may just have gone away."""
    text = "".join(HOLED.format(c=client) for client in clients)
    findings, _, _ = judge(rs1=text + "4 x>s udp len=9 mac=x>rs\n")
    assert len(findings) == found
    assert all(item.facts["largest_delivered"] == 340 for item in findings)


def test_a_size_that_passes_on_the_same_path_is_not_shown_as_lost_by_size():
    """The small packet behind the hole was SACKed and sent again: its repetition is no loss."""
    text = "".join(HOLED.format(c=client) for client in ("c", "c2"))
    again = "".join(
        f"1.5 s>{client} PA seq=1461 ack=101 len=300 mac=rs>x\n" for client in ("c", "c2")
    )
    (finding,), _, _ = judge(rs1=text + again + "4 x>s udp len=9 mac=x>rs\n")
    assert {item.ip_length: item.lost for item in finding.sizes} == {340: 0, 1500: 8}


@pytest.mark.parametrize("tun", ["ipip", "gre", "gue"])
def test_the_directors_own_tunnel_explains_an_upload_that_stalls(tun):
    """Between 440 and 1500 bytes every encapsulation fits; the one that is on the path is named."""
    upload = """
0.000 c>s S seq=0 mss=1460
0.001 s>c SA seq=0 ack=1 mss=1460
0.002 c>s PA seq=1 ack=1 len=400
0.003 s>c A seq=1 ack=401
0.010 c>s A seq=401 ack=1 len=1460
0.210 c>s A seq=401 ack=1 len=1460
0.610 c>s A seq=401 ack=1 len=1460
1.410 c>s A seq=401 ack=1 len=1460
3.000 s>c A seq=1 ack=401
"""
    director = f"""
0.000 c>s S seq=0 mss=1460 mac=x>d
0.0001 copy 1 ttl=63 mac=d>x tun={tun}:d>rs
0.002 c>s PA seq=1 ack=1 len=400 mac=x>d
0.0021 copy 3 ttl=63 mac=d>x tun={tun}:d>rs
"""
    (finding,), _, _ = judge(client=upload, director=director)
    assert finding.facts["direction"] == "to-realserver"
    (own,) = finding.facts["explained_by"]
    assert own.startswith(f"the director's own {tun.upper()} header")
    assert f"could be {own}" in finding.summary
    assert judge(client=upload)[0][0].facts["explained_by"] == ()


def test_a_sender_that_goes_on_though_told_is_an_open_question_where_the_capture_ends():
    """Too few repetitions for a stall, and another connection gets large packets through."""
    lines = story(OPEN + STALL).strip().splitlines()
    early = "\n".join([*lines[:8], lines[9]]) + "\n"
    told = early + errors(1, 1400, first=7).replace("mac=x>d", "mac=d>rs ttl=60")
    served = story(OPEN).replace("c>s", "c2>s").replace("s>c", "s>c2")
    large = (
        "0.030 s>c2 A seq=401 ack=101 len=1460 mac=rs>x\n"
        "0.040 c2>s A seq=101 ack=1861 ttl=63 mac=d>rs\n"
    )
    findings, clean, missing = judge(rs1=told + served + large)
    assert findings == []
    assert [item.scope.direction for item in clean] == []
    assert any("though told of a smaller MTU" in item.reason for item in missing)
    findings, clean, _ = judge(rs1=early + served + large)
    assert [item.scope.direction for item in clean] == ["to-client"]
