"""What a capture does not show is missing only where it was running: no gap, and not its end."""

from __future__ import annotations

import pytest
from stories import case
from traces import START_NS

SECOND = 1_000_000_000

IN, OUT = "mac=x>d ttl=64", "mac=d>rs ttl=63"


def paused(found, vantage: int, begin_s: float, end_s: float):
    """Return a case one of whose captures is known to have stood still between two times."""
    pauses = [[] for _ in found.vantages]
    pauses[vantage] = [(START_NS + int(begin_s * SECOND), START_NS + int(end_s * SECOND))]
    vars(found.coverage)["pauses"] = tuple(pauses)
    vars(found.coverage)["egress_gaps"] = found.coverage.egress_gaps.clear()
    return found


def small(hop: str, until: float = 20.0) -> str:
    """Return what shows a capture to be without a filter, and its last packet."""
    return f"""
0.000 c>s udp len=100 id=1 {hop}
0.002 x>s icmp 8/0 {hop}
0.004 c2>s2 S {hop}
2.500 x>rs2 udp len=1472 mf id=60
2.500 x>rs2 udp frag=1480 len=520 id=60
3.000 c>s udp len=1472 mf id=5000 {hop}
{{rest}}
{until} c>s udp len=100 id=9 {hop}
"""


@pytest.mark.parametrize(
    ("gap", "state"),
    [(None, "incomplete"), ((5, 6), "incomplete"), ((3.5, 6), None), ((1, 4), None)],
)
def test_a_fragment_is_not_missed_in_a_gap(gap, state) -> None:
    """Within a second before a gap begins, and as long as it lasts, nothing is missing."""
    whole = small(IN).format(rest=f"3.0001 c>s udp frag=1480 len=520 id=5000 {IN}")
    cut = small(OUT).format(rest="")
    found = case(router=whole, rs1=cut)
    if gap is not None:
        paused(found, 1, *gap)
    at_rs = found.fragment_sights.filter(vantage=1, ip_id=5000)
    assert at_rs["state"].to_list() == ([] if state is None else [state])


AT_RS = """
0.000 c>s S seq=0 mss=1460 ttl=63 mac=d>rs
0.001 s>c SA seq=0 ack=1 mac=rs>x
0.002 c>s A seq=1 ack=1 ttl=63 mac=d>rs
1.000 s>c A seq=1 ack=1 len=1460 id=77 mac=rs>x
"""
AT_DIRECTOR = """
0.000 c>s S seq=0 mss=1460 mac=x>d
0.000 copy 1 ttl=63 mac=d>rs
0.002 c>s A seq=1 ack=1 mac=x>d
0.002 copy 3 ttl=63 mac=d>rs
0.100 c2>s S seq=0 mss=1460 mac=x>d
0.100 copy 5 ttl=63 mac=d>rs2
1.000 s>c A seq=1 ack=1 len=1460 id=77 unseen
"""


@pytest.mark.parametrize(
    ("until", "gap", "reached"),
    [(5.0, None, False), (1.5, None, None), (5.0, (1.2, 3.0), None), (5.0, (3.0, 4.0), False)],
)
def test_a_message_is_not_missed_where_its_receiver_was_not_captured(until, gap, reached) -> None:
    """The director got it at 1.1 s; the realserver's capture ends, or pauses, soon after."""
    ping = f"\n{until} x>rs icmp 8/0 mac=d>rs\n"
    message = "1.1 r>s icmp 3/4 mtu=1400 quote=7 mac=x>d ttl=60\n9.0 c>s A seq=1 ack=1 mac=x>d\n"
    found = case(director=AT_DIRECTOR + message, rs1=AT_RS + ping)
    if gap is not None:
        paused(found, 1, *gap)
    assert found.too_big["reached_sender"].to_list() == [reached]


@pytest.mark.parametrize(("gap", "quiet"), [(None, 900), ((400, 500), None), ((1, 2), 900)])
def test_a_silence_with_a_gap_in_it_is_of_unknown_length(gap, quiet) -> None:
    """What the director refused may have been heard of while its capture stood still."""
    found = case(
        director=f"""
0.000 c>s S seq=0 mss=1460 {IN}
0.001 copy 1 ttl=63 mac=d>rs
0.002 c>s A seq=1 ack=1 {IN}
0.003 copy 3 ttl=63 mac=d>rs
5.000 c>s PA seq=1 ack=1 len=100 {IN}
5.001 copy 5 ttl=63 mac=d>rs
6.000 c2>s S seq=0 {IN}
6.001 copy 7 ttl=63 mac=d>rs2
905.00 c>s PA seq=101 ack=1 len=100 {IN}
905.01 s>c R seq=1 id=0 mac=d>x ttl=64
"""
    )
    if gap is not None:
        paused(found, 0, *gap)
    (row,) = found.forgotten.rows(named=True)
    assert row["quiet_ns"] == (None if quiet is None else quiet * SECOND)
    assert row["before_count"] == 3


@pytest.mark.parametrize(("gap", "survived"), [(None, 600), ((300, 400), None)])
def test_a_connection_that_may_not_have_paused_survived_nothing(gap, survived) -> None:
    """It went on after ten quiet minutes, in some of which nothing was captured."""
    found = case(
        director=f"""
0.000 c>s S seq=0 mss=1460 {IN}
0.000 copy 1 ttl=63 mac=d>rs
1.000 c>s A seq=1 ack=1 {IN}
1.000 copy 3 ttl=63 mac=d>rs
601.00 c>s PA seq=1 ack=1 len=100 {IN}
601.00 copy 5 ttl=63 mac=d>rs
602.00 c2>s S seq=0 {IN}
602.00 copy 7 ttl=63 mac=d>rs2
"""
    )
    if gap is not None:
        paused(found, 0, *gap)
    longest = found.longest_survived_ns("tcp 203.0.113.10:80")
    assert longest == (None if survived is None else survived * SECOND)


def test_an_error_about_data_sent_while_the_capture_stood_still_is_not_forged() -> None:
    """Elsewhere its quote is beyond all that was seen; here nobody knows."""
    rs1 = AT_RS + "60.0 c>s A seq=1 ack=1 ttl=63 mac=d>rs\n"
    quoted = "30.0 s>c A seq=900001 ack=1 len=1000 id=78 unseen\n"
    message = "30.1 r>s icmp 11/0 quote=8 mac=x>d ttl=60\n60.0 c>s A seq=1 ack=1 mac=x>d\n"
    director = AT_DIRECTOR + quoted + message
    (row,) = case(director=director, rs1=rs1).contradictions.rows(named=True)
    assert row["covered"]
    assert row["outside"] > 800_000
    (row,) = paused(case(director=director, rs1=rs1), 1, 2, 50).contradictions.rows(named=True)
    assert not row["covered"]


@pytest.mark.parametrize(
    ("until", "gap", "pace"),
    [
        (9.0, None, (10, 4, 1)),
        (9.0, (3.2, 3.4), (10, 4, 1)),
        (9.0, (2.5, 2.7), (None, None, None)),
        (9.0, (1.3, 1.5), (None, None, None)),
        (2.9, None, (None, None, None)),
    ],
)
def test_a_pace_is_not_measured_over_a_gap(until, gap, pace) -> None:
    """The message came at 2 s; what the sender sent in the second before and after must show."""
    times = [1.2 + n / 100 for n in range(10)] + [2.1 + n / 100 for n in range(4)]
    sent = [
        f"{time:.2f} s>c A seq={1 + 100 * n} ack=1 len=100 mac=rs>x"
        for n, time in enumerate([*times, 4.0])
        if time < until
    ]
    rs1 = "\n".join(
        (
            *AT_RS.strip().splitlines()[:3],
            *sent[:10],
            "2.0 r>s icmp 4/0 quote=13 mac=d>rs ttl=60",
            *sent[10:],
            f"{until} c>s A seq=1 ack=1 ttl=63 mac=d>rs",
        )
    )
    found = case(rs1=rs1)
    if gap is not None:
        paused(found, 0, *gap)
    assert found.quenches.select("before", "after", "later").rows() == [pace]
