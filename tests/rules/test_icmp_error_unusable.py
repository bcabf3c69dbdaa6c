"""icmp-error-unusable reads off a message what is of no use, and forgives what worked."""

from __future__ import annotations

import floods
import polars as pl
import pytest
from pcapdiag.rules import icmp_error_unusable
from stories import case, cited, marked

from pcapdiag.result import Clean, Confidence, Finding, NotExamined, Severity

OPEN = """
0.000 c>s S seq=0 mss=1460 mac=x>d
0.0001 copy 1 ttl=63 mac=d>rs
0.001 s>c SA seq=0 ack=1 mss=1460 mac=rs>x
0.002 c>s A seq=1 ack=1 mac=x>d
0.0021 copy 4 ttl=63 mac=d>rs
0.003 s>c A seq=1 ack=1 len=1460 mac=rs>x
"""
"""A director that also sees the replies; line 6 is a full-sized packet of the realserver."""

TUNNEL = """
0.000 c>s S seq=0 mss=1460 mac=x>d
0.0001 copy 1 ttl=63 mac=d>x tun=ipip:d>rs
0.002 c>s A seq=1 ack=1 mac=x>d
0.0021 copy 3 ttl=63 mac=d>x tun=ipip:d>rs
0.010 c>s A seq=1 ack=1 len=1440 mac=x>d
0.0101 copy 5 ttl=63 mac=d>x tun=ipip:d>rs
"""


def judge(**texts):
    """Return the rule's findings, clean verdicts and questions not examined."""
    outcomes = list(icmp_error_unusable.check(case(**texts)))
    return (
        [item for item in outcomes if isinstance(item, Finding)],
        [item for item in outcomes if isinstance(item, Clean)],
        [item for item in outcomes if isinstance(item, NotExamined)],
    )


def error(words, at=0.01, who="r>s"):
    """Return one message about line 6, marked."""
    return f"{at:.4f} {who} icmp {words} quote=6 mac=x>d id={900 + int(at * 1000)} !\n"


def codes(text):
    """Return the cause codes found in a director's capture."""
    return sorted(finding.cause.code for finding in judge(director=text)[0])


def test_a_message_that_names_no_mtu_is_cited_with_the_packet_it_is_about():
    """MTU 0: primary is the message, related the packet it quotes."""
    texts = {"director": OPEN + error("3/4 mtu=0")}
    (finding,), _, _ = judge(**texts)
    assert finding.cause.code == "mtu-zero"
    assert cited(finding) == marked(**texts)
    assert cited(finding, "related") == {("director", 6)}
    assert finding.facts["sender"] == "192.0.2.1"
    assert (finding.severity, finding.confidence) == (Severity.MEDIUM, Confidence.HIGH)
    assert finding.scope.direction == "to-client"
    assert finding.flow_count == 1


@pytest.mark.parametrize(
    ("mtu", "code"),
    [
        (67, ["mtu-below-minimum"]),
        (68, []),
        (1499, []),
        (1500, ["mtu-not-below-quoted"]),
    ],
)
def test_the_mtu_must_lie_between_the_least_and_the_packet(mtu, code):
    """Both sides of both bounds, for a packet of 1500 bytes."""
    assert codes(OPEN + error(f"3/4 mtu={mtu}")) == code


@pytest.mark.parametrize(("mtu", "code"), [(1279, ["mtu-below-minimum"]), (1280, [])])
def test_ipv6_has_a_larger_least(mtu, code):
    """RFC 8200 section 5: every link takes 1280 bytes."""
    text = f"""
0.000 c6>s6 S seq=0 mss=1440 mac=x>d
0.0001 copy 1 ttl=63 mac=d>rs
0.001 s6>c6 SA seq=0 ack=1 mss=1440 mac=rs>x
0.003 s6>c6 A seq=1 ack=1 len=1440 mac=rs>x
0.01 r6>s6 icmp 2/0 mtu={mtu} quote=4 mac=x>d
"""
    assert codes(text) == code


@pytest.mark.parametrize(("bytes_quoted", "code"), [(27, ["quote-too-short"]), (28, [])])
def test_eight_bytes_behind_the_header_are_enough(bytes_quoted, code):
    """RFC 792 asks for 28 bytes in all, and a box that wants more is at fault itself."""
    assert codes(OPEN + error(f"3/1 qlen={bytes_quoted}")) == code


def test_a_quote_of_zeros_names_no_packet():
    """No header, no addresses: nobody can match it."""
    assert codes(OPEN + error("3/4 mtu=1400 blank")) == ["quote-zeroed"]
    assert codes(OPEN + error("3/4 mtu=1400 blank sum=cut")) == []


def test_a_quote_of_another_host_s_packet():
    """The message is told to the VIP and quotes what somebody else sent."""
    other = "0.004 x>c A seq=1 ack=1 len=1460 mac=rs>x\n"
    text = OPEN + other + error("3/4 mtu=1400").replace("quote=6", "quote=7")
    (finding,), _, _ = judge(director=text)
    assert finding.cause.code == "quote-untranslated"
    assert "told 203.0.113.10, about a packet from 203.0.113.1" in finding.evidence[0].note


def test_merged_segments_are_told_from_large_packets():
    """4380 bytes quoted, where the MSS allows 1500 and the MTU named takes them."""
    merged = OPEN.replace("len=1460", "len=4340")
    assert codes(merged + error("3/4 mtu=1500")) == ["receive-offload"]
    assert codes(merged + error("3/4 mtu=1499")) == []


def test_without_an_mss_nobody_knows_what_was_merged():
    """A jumbo path may carry packets of any of these sizes."""
    silent = OPEN.replace(" mss=1460", "").replace("len=1460", "len=4340")
    assert codes(silent + error("3/4 mtu=1500")) == []


def test_a_message_to_its_own_sender():
    """On a wire it is for nobody; on a loopback interface a host talks to itself."""
    own = error("3/4 mtu=1400", who="s>s")
    assert codes(OPEN + own) == ["self-addressed"]


def test_a_host_that_talks_to_itself_on_loopback():
    """Loopback frames have no MAC addresses."""
    text = OPEN + error("3/4 mtu=1400", who="s>s").replace(" !", "")
    made = case(director=text)
    table = made.vantages[0]
    errors = table.icmp_errors.with_columns(pl.lit(0, pl.UInt64).alias("eth_src"))
    object.__setattr__(table, "icmp_errors", errors)
    assert not [item for item in icmp_error_unusable.check(made) if isinstance(item, Finding)]


@pytest.mark.parametrize("address", ["169.254.7.7", "127.0.0.1", "240.0.0.9"])
def test_sources_that_no_router_may_pass_on(address, monkeypatch):
    """Link-local, loopback and reserved sources are dropped by the next filter."""
    monkeypatch.setitem(__import__("traces").HOSTS, "r", f"{address}:0")
    assert codes(OPEN + error("3/4 mtu=1400")) == ["source-not-routable"]


def test_a_private_source_that_arrived_has_worked(monkeypatch):
    """What the realserver's own capture shows arriving was routable enough."""
    monkeypatch.setitem(__import__("traces").HOSTS, "r", "10.0.0.1:0")
    assert codes(OPEN + error("3/4 mtu=1400")) == []


def test_a_private_source_that_never_arrived(monkeypatch):
    """Told to a client whose capture keeps ICMP and has none of these."""
    monkeypatch.setitem(__import__("traces").HOSTS, "r", "10.0.0.1:0")
    big = "0.01 c>s A seq=1 ack=1 len=1460 mac=x>d\n"
    told = "".join(
        f"{0.02 + 0.2 * n:.3f} r>c icmp 3/4 mtu=1400 quote=5 mac=d>x id={50 + n} !\n"
        for n in range(3)
    )
    director = OPEN.replace("0.003 s>c A seq=1 ack=1 len=1460 mac=rs>x\n", "") + big
    director = director.replace("0.0021 copy 4 ttl=63 mac=d>rs\n", "") + told
    director += "3.0 c>s A seq=1 ack=1 mac=x>d\n"
    client = """
0.000 c>s S seq=0 mss=1460
0.0011 s>c SA seq=0 ack=1 mss=1460
0.0019 c>s A seq=1 ack=1
0.0099 c>s A seq=1 ack=1 len=1460
0.5 c>s icmp 8/0
3.0 c>s A seq=1 ack=1
"""
    (finding,), _, _ = judge(director=director, client=client)
    assert finding.cause.code == "source-not-routable"
    assert finding.confidence is not Confidence.HIGH


def test_a_private_source_that_the_director_swallowed(monkeypatch):
    """It came as far as the director: that the realserver never got it is the director's doing."""
    monkeypatch.setitem(__import__("traces").HOSTS, "r", "10.0.0.1:0")
    errors = "".join(error("3/4 mtu=1400", at=0.01 + n / 5).replace(" !", "") for n in range(3))
    director = OPEN + errors + "3.0 c>s A seq=1 ack=1 mac=x>d\n3.0001 copy 10 ttl=63 mac=d>rs\n"
    rs1 = """
0.0002 c>s S seq=0 mss=1460 ttl=63 mac=d>rs
0.001 s>c SA seq=0 ack=1 mss=1460 mac=rs>x
0.0022 c>s A seq=1 ack=1 ttl=63 mac=d>rs
0.003 s>c A seq=1 ack=1 len=1460 mac=rs>x
0.5 c>s icmp 8/0 ttl=63 mac=d>rs
3.0002 c>s A seq=1 ack=1 ttl=63 mac=d>rs
"""
    findings, _, _ = judge(director=director, rs1=rs1)
    assert findings == []


def relay(mtu, at, line=5):
    """Return what a tunnelling director tells the client about a packet."""
    return f"{at:.4f} s>c icmp 3/4 mtu={mtu} quote={line} mac=d>x id={700 + int(at * 1000)}\n"


def test_a_stale_relay_that_the_next_one_puts_right():
    """A tunnelling director's first message may carry the MTU that it knew before."""
    assert codes(TUNNEL + relay(1480, 0.02)) == ["mtu-not-below-quoted"]
    assert codes(TUNNEL + relay(1480, 0.02) + relay(1380, 0.03)) == []


def test_a_stale_relay_after_which_data_went_on():
    """The client's data was acknowledged: nothing is stuck."""
    went_on = "0.5 s>c A seq=1 ack=1441 mac=x>x\n"
    assert codes(TUNNEL + relay(1480, 0.02) + went_on) == []


@pytest.mark.parametrize(("bytes_quoted", "code"), [(28, ["quote-too-short"]), (48, [])])
def test_what_a_tunnelling_director_needs_of_its_own_packet(bytes_quoted, code):
    """Outer and inner header and the inner ports: less cannot be passed on to the client."""
    words = f"3/4 mtu=1400 quote=6 qlen={bytes_quoted}"
    text = TUNNEL + f"0.02 r>d icmp {words} mac=x>d\n"
    assert codes(text) == code


def test_redirects_and_bad_checksums_are_for_other_rules():
    """A message that fails its checksum proves nothing by its content."""
    assert codes(OPEN + error("3/4 mtu=0 sum=77")) == []
    assert codes(OPEN + error("5/1 gw=x qlen=20")) == []


def test_usable_errors_are_clean_and_none_at_all_is_not_examined():
    """Clean counts the messages; without any the question stays open."""
    _, clean, _ = judge(director=OPEN + error("3/4 mtu=1400"))
    assert clean[0].examined.icmp_errors == 1
    findings, clean, not_examined = judge(director=OPEN)
    assert (findings, clean) == ([], [])
    assert "tcpdump" in not_examined[0].capture_command


def test_many_messages_are_one_finding():
    """However many there are, the finding cites a few and counts all."""
    flood = floods.case(
        OPEN + error("3/4 mtu=0"),
        quoted_ip_id=pl.col("n") % 65535 + 1,
        quoted_tcp_seq=pl.col("n"),
    )
    (finding,) = icmp_error_unusable.check(flood)
    assert finding.count == floods.COUNT
    assert len(finding.evidence) <= 2 * icmp_error_unusable.MAX_CITED


def test_a_private_source_that_the_director_has_yet_to_translate(monkeypatch):
    """A realserver of NAT speaks from its own address; what left the director was not captured."""
    monkeypatch.setitem(__import__("traces").HOSTS, "rs", "10.0.0.11:8080")
    told = "".join(
        f"{0.02 + 0.2 * n:.3f} rs>c icmp 3/13 quote=5 mac=rs>d id={50 + n}\n" for n in range(3)
    )
    director = """
0.000 c>s S seq=0 mss=1460 mac=x>d id=1
0.0001 c>rs S seq=0 mss=1460 mac=d>rs ttl=63 id=1
0.001 rs>c SA seq=0 ack=1 mac=rs>d id=7
0.0011 s>c SA seq=0 ack=1 mac=d>x ttl=63 id=7
0.0021 c>rs PA seq=1 ack=1 len=100 mac=d>rs ttl=63 id=2
"""
    client = """
0.000 c>s S seq=0 mss=1460 id=1
0.0012 s>c SA seq=0 ack=1 ttl=60 id=7
0.0019 c>s PA seq=1 ack=1 len=100 id=2
0.5 c>s icmp 8/0
3.0 c>s A seq=101 ack=1
"""
    findings, _, _ = judge(director=director + told, client=client)
    assert findings == []
