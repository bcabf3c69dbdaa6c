"""netfilter's TCP tracker, against hand-made sequences and a real kernel's refusals."""

from __future__ import annotations

import pytest

from pcapdiag.kernel.netfilter import Segment, Settings, replay
from pcapdiag.protocols import TcpFlag

_FLAGS = {"S": TcpFlag.SYN, "A": TcpFlag.ACK, "F": TcpFlag.FIN, "R": TcpFlag.RST, "P": TcpFlag.PSH}


def packets(*lines):
    """Return segments of "TIME c|s FLAGS seq ack len [win=N] [ws=N]"."""
    result = []
    for line in lines:
        time, side, flags, seq, ack, payload, *more = line.split()
        extra = dict(word.split("=") for word in more)
        result.append(
            Segment(
                time_ns=round(float(time) * 1e9),
                reply=side == "s",
                flags=sum(_FLAGS[letter] for letter in flags if letter != "."),
                seq=int(seq) % 2**32,
                ack=int(ack) % 2**32,
                window=int(extra.get("win", 1000)),
                payload=int(payload),
                wscale=int(extra["ws"]) if "ws" in extra else None,
                sacked=int(extra["sack"]) if "sack" in extra else None,
            )
        )
    return result


OPEN = ("0 c S 100 0 0", "0.1 s SA 500 101 0", "0.2 c A 101 501 0")
DATA = (*OPEN, "0.3 c PA 101 501 50", "0.4 s PA 501 151 80", "0.5 c A 151 581 0")


def last(lines, **settings):
    """Return the verdict on the last of the lines."""
    return replay(packets(*lines), Settings(**settings))[-1]


def test_an_ordinary_connection_is_new_then_established_to_its_end():
    """SYN is NEW, all else ESTABLISHED, through both FINs into TIME_WAIT."""
    closing = ("1 c FA 151 581 0", "1.1 s FA 581 152 0", "1.2 c A 152 582 0", "1.3 c A 152 582 0")
    verdicts = replay(packets(*DATA, *closing))
    assert [item.state for item in verdicts] == ["new", *["established"] * 9]
    assert [item.entry for item in verdicts[-4:]] == [
        "ESTABLISHED",
        "FIN_WAIT",
        "LAST_ACK",
        "TIME_WAIT",
    ]
    assert not any(item.refused for item in verdicts)


@pytest.mark.parametrize(
    ("flags", "reason"),
    [("F", "flags"), ("FA", "first-fin"), ("R", "first-rst"), ("RA", "first-rst")],
)
def test_a_packet_that_ends_a_connection_cannot_begin_an_entry(flags, reason):
    """FIN, RST first: INVALID (tcp_new), FIN without ACK no TCP packet at all."""
    assert last([f"0 c {flags} 100 1 0"]).reason == reason


def test_a_syn_ack_first_is_invalid():
    """A NAT director without vs.conntrack sees the realserver's SYN-ACK as the first packet."""
    assert last(["0 s SA 500 101 0"]).reason == "first-syn-ack"


def test_data_first_is_picked_up_unless_loose_is_off():
    """nf_conntrack_tcp_loose decides whether a connection may be entered in its middle."""
    line = ["0 c PA 101 501 50"]
    assert (last(line).state, last(line).refused) == ("new", False)
    assert last(line, loose=False).reason == "not-loose"
    assert last(line, only_syn=True).refused


def test_a_picked_up_connection_has_no_window_but_little_time():
    """Liberal since 2.6.21; without a reply it lives 300 s, not five days."""
    first = "0 c PA 101 501 50"
    assert last([first, "1 c PA 900000 501 50"]).state == "new"
    assert last([first, "1 s A 501 151 0"]).state == "established"
    assert last([first, "299.9 c PA 151 501 50"]).lapsed_s is None
    assert last([first, "300 c PA 151 501 50"]).lapsed_s == 300


def test_on_a_dr_director_an_ack_after_a_lone_syn_is_invalid_until_the_entry_is_gone():
    """vs.conntrack=1: the answer never passes, so that 120 s long nothing may follow the SYN."""
    assert last(["0 c S 100 0 0", "119 c A 101 501 0"]).reason == "lone-syn"
    after = last(["0 c S 100 0 0", "60 c A 101 501 0", "120 c A 101 501 0"])
    assert (after.state, after.lapsed_s) == ("new", 120)
    assert last(["0 c S 100 0 0", "1 c FA 101 501 0"]).reason == "state"
    repeated = ["0 c S 100 0 0", "60 c S 100 0 0", "121 c S 100 0 0"]
    assert last(repeated).lapsed_s == 120


def test_where_ip_vs_takes_packets_unconfirmed_each_is_the_first():
    """vs.conntrack=0: data is NEW for ever, only FIN and RST are INVALID."""
    lines = ["0 c S 100 0 0", "0.2 c A 101 501 0", "1 c PA 101 501 9", "2 c FA 110 501 0"]
    verdicts = replay(packets(*lines), Settings(confirms=False))
    assert [item.state for item in verdicts] == ["new", "new", "new", "invalid"]
    assert verdicts[-1].reason == "first-fin"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1 c PA 2001 581 10", "seq-over"),  # window of 1000 ends at 1581
        ("1 c A 151 600 0", "ack-over"),
        ("1 s A 581 40 0", ""),  # within 66000
    ],
)
def test_beyond_the_window_is_invalid(line, reason):
    """What lies above either bound (tcp_in_window, I and III), a window and more beyond."""
    beyond = line.replace("2001", "2151")
    assert last([*DATA, beyond]).reason == reason


def test_below_the_window_was_invalid_before_linux_6_2():
    """Late repetitions: INVALID in old kernels, let through by new ones."""
    far = [*OPEN, *(f"{1 + n} c PA {101 + 900 * n} 501 900" for n in range(4))]
    for number in range(4):
        far.insert(4 + 2 * number, f"{1.1 + number} s A 501 {1001 + 900 * number} 0")
    late = [*far, "9 c PA 101 501 900"]
    assert last(late, strict=True).reason == "seq-under"
    assert last(late).state == "established"
    assert last(late, strict=True, liberal=True).state == "established"


def test_the_window_is_scaled_only_where_both_sides_offered_it():
    """RFC 7323 section 2.2; SYN windows are never scaled."""
    lines = [
        "0 c S 100 0 0 ws=7",
        "0.1 s SA 500 101 0 ws=7",
        "0.2 c A 101 501 0",
        "0.3 s A 501 101 0",
    ]
    assert last([*lines, "1 c PA 60101 501 10"]).state == "established"
    unscaled = [line.replace(" ws=7", "") for line in lines]
    assert last([*unscaled, "1 c PA 60101 501 10"]).reason == "seq-over"


def test_sequence_numbers_wrap():
    """The same connection across 2^32 gives the same verdicts."""
    offset = 2**32 - 120
    shifted = []
    for line in DATA:
        time, side, flags, seq, ack, *rest = line.split()
        seq = int(seq) + (offset if side == "c" else 0)
        ack = int(ack) + (offset if side == "s" else 0)
        shifted.append(" ".join((time, side, flags, str(seq), str(ack), *rest)))
    assert replay(packets(*shifted)) == replay(packets(*DATA))


def test_a_reset_from_before_what_was_acknowledged_is_invalid():
    """A blind reset must not end an entry."""
    assert last([*DATA, "1 s R 490 0 0"]).reason == "rst-under"
    assert last([*DATA, "1 s R 581 0 0"]).state == "established"


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        (DATA, 432000),
        ((*DATA, "1 c FA 151 581 0"), 120),
        ((*DATA, "1 c FA 151 581 0", "1.1 s A 581 152 0"), 60),
        ((*DATA, "1 c R 151 0 0"), 10),
        ((*DATA, "1 c PA 151 581 10"), 300),
        ((*DATA, "1 c A 151 581 0 win=0"), 300),
    ],
    ids=["idle", "half-closed", "close-wait", "reset", "unacknowledged", "zero-window"],
)
def test_each_state_has_its_timeout(lines, seconds):
    """One nanosecond before the entry lives, at the timeout it is gone."""
    start = float(lines[-1].split()[0])
    at = packets(*lines, "0 c A 161 581 0")
    for wait, lapsed in ((seconds - 1e-6, None), (seconds, seconds)):
        at[-1] = at[-1]._replace(time_ns=round((start + wait) * 1e9))
        assert replay(at)[-1].lapsed_s == lapsed


def test_a_closed_connection_may_be_opened_again_by_a_syn():
    """TIME_WAIT and CLOSE: the entry is deleted and the SYN looked up anew."""
    for end in ("1 c FA 151 581 0", "1 c R 151 0 0"):
        closed = [*DATA, end]
        if "F" in end:
            closed += ["1.1 s FA 581 152 0", "1.2 c A 152 582 0"]
        again = replay(
            packets(*closed, "2 c S 9000 0 0", "2.1 s SA 7000 9001 0", "2.2 c A 9001 7001 0")
        )
        assert [item.state for item in again[-3:]] == ["new", "established", "established"]


def test_a_syn_within_a_connection_is_let_through_and_changes_nothing():
    """sIG: a challenge ACK may answer it (RFC 5961)."""
    verdicts = replay(packets(*DATA, "1 c S 4000000 0 0", "2 c PA 151 581 10"))
    assert [item.state for item in verdicts[-2:]] == ["established", "established"]
