"""Reasons for rejections are told apart by what was rejected and what passed."""

from __future__ import annotations

import pytest

from pcapdiag.kernel import rejections
from pcapdiag.kernel.netfilter import Segment
from pcapdiag.kernel.rejections import Candidate, Onset, candidates, likeliest
from pcapdiag.protocols import TcpFlag

S, A, F = int(TcpFlag.SYN), int(TcpFlag.ACK), int(TcpFlag.FIN | TcpFlag.ACK)
RIGHT = {"r": "rejected", "p": "passed", ".": "unknown"}


def client(*packets):
    """Return the client's segments and their fates of (time, flags, seq, payload, fate)."""
    segments = [
        Segment(round(time * 1e9), False, flags, seq, 501, 60000, payload)
        for time, flags, seq, payload, _ in packets
    ]
    return segments, [RIGHT[packet[-1]] for packet in packets]


def codes(packets, *, one_way=True):
    """Return the codes of the reasons that get every packet right, best first."""
    segments, fates = client(*packets)
    if not one_way:
        segments.insert(1, ANSWER)
        fates.insert(1, "unknown")
    return [item.code for item in candidates(segments, fates, one_way=one_way) if item.fits]


ANSWER = Segment(50_000_000, True, S | A, 500, 101, 60000, 0)
HANDSHAKE = [(0, S, 100, 0, "p"), (0.1, A, 101, 0, "p")]


def test_only_fins_rejected_on_a_director_is_the_missing_entry():
    """vs.conntrack=0: data passes as NEW, the FIN is INVALID."""
    packets = [*HANDSHAKE, (1, A, 101, 9, "p"), (2, F, 110, 0, "r")]
    assert codes(packets)[0] == "closing-untracked"


def test_all_but_the_syn_rejected_on_a_director_has_two_reasons_that_time_tells_apart():
    """loose=0 rejects for ever, the entry of a lone SYN for 120 s."""
    packets = [(0, S, 100, 0, "p"), (0.1, A, 101, 0, "r"), (1, A, 101, 9, "r")]
    assert codes(packets)[:2] == ["untracked", "lone-syn"]
    assert codes([*packets, (121, A, 101, 9, "p")])[:1] == ["lone-syn"]
    assert "lone-syn" not in codes([*packets, (121, A, 101, 9, "r")])


def test_a_realserver_whose_entry_timed_out_has_an_idle_gap():
    """The silence before the first rejection is the longest; without it the entry was flushed."""
    idle = [*HANDSHAKE, (1, A, 101, 9, "p"), (9, A, 110, 9, "r"), (9.4, A, 110, 9, "r")]
    assert codes(idle, one_way=False) == ["timed-out", "flushed"]
    busy = [*HANDSHAKE, (4, A, 101, 9, "p"), (11, A, 110, 9, "r"), (11.4, A, 110, 9, "r")]
    assert codes(busy, one_way=False) == ["flushed"]


def test_packets_far_beyond_the_window_explain_themselves():
    """A realserver that saw both sides calls them INVALID, others pass."""
    segments, fates = client(*HANDSHAKE, (1, A, 900_000, 9, "r"), (2, A, 101, 9, "p"))
    segments.insert(1, ANSWER)
    fates.insert(1, "unknown")
    best = candidates(segments, fates, one_way=False)[0]
    assert best.code == "out-of-window"
    assert best.fits
    assert "beyond the window" in best.text


def test_what_nothing_explains_is_no_matter_of_state():
    """One data packet rejected in the middle, the next of the same kind passed."""
    packets = [*HANDSHAKE, (1, A, 101, 9, "r"), (1.1, A, 110, 9, "p"), (1.2, A, 119, 9, "p")]
    assert codes(packets) == []
    segments, fates = client(*packets)
    assert "not-conntrack" in [item.code for item in candidates(segments, fates, one_way=True)]


def test_nothing_rejected_or_too_much_to_replay_gives_no_reason():
    """No guess without a rejection, no replay without end."""
    segments, fates = client(*HANDSHAKE)
    assert candidates(segments, fates, one_way=True) == ()
    many = segments * (rejections.MAX_PACKETS // 2 + 1)
    assert candidates(many, ["rejected"] * len(many), one_way=True) == ()


@pytest.mark.parametrize(("spread_ns", "best"), [(999_999_999, "flushed"), (10**9, "timed-out")])
def test_three_connections_hit_within_a_second_were_flushed(spread_ns, best):
    """Both sides of the threshold; idle times end one by one, a flush ends all."""
    both = [Candidate(code, code, 1, 0, 1, 0) for code in ("timed-out", "flushed")]
    onsets = [Onset(0, None, first_ns) for first_ns in (0, 1, spread_ns)]
    first, others = likeliest([both] * 3, onsets)
    assert first is not None
    assert first.code == best
    assert {item.count for item in (first, *others)} == {3}


@pytest.mark.parametrize(
    ("hosts", "passed_ns", "flushed"),
    [
        ((0, 0, 0), (None, 15, 25), 1),  # each passes after the one before it ended
        ((0, 0, 0), (None, 10, 30), 1),  # at that very moment is not before it
        ((0, 0, 0), (None, 5, 25), 2),
        ((0, 1, 2), (None, 15, 25), 3),  # each host may have been flushed by itself
        ((0, 0, 0), (None, None, None), 3),
    ],
)
def test_one_flush_is_one_moment(hosts, passed_ns, flushed):
    """It explains no connection that passed after another of its host had ended."""
    flush, other = (Candidate(code, code, 1, 0, 1, 0) for code in ("flushed", "out-of-window"))
    onsets = [Onset(*row) for row in zip(hosts, passed_ns, (10, 20, 30), strict=True)]
    first, others = likeliest([[flush, other]] * 2 + [[flush]], onsets)
    assert {item.code: item.count for item in (first, *others)} == {
        "flushed": flushed,
        "out-of-window": 2,
    }
    assert first.code == ("flushed" if flushed == 3 else "out-of-window")


def test_the_hosts_log_decides_between_equals():
    """It bears one reason out; it does not bring up a reason that explains fewer connections."""
    equal = [Candidate(code, code, 1, 0, 1, 0) for code in ("untracked", "lone-syn")]
    at = [Onset(0, None, 0)]
    first, others = likeliest([equal], at, {"tcp-invalid"})
    assert first is not None
    assert [item.code for item in (first, *others)] == ["lone-syn", "untracked"]
    fewer = [equal[0], Candidate("lone-syn", "lone-syn", 0, 0, 1, 0)]
    assert likeliest([fewer], at, {"tcp-invalid"})[0].code == "untracked"


def test_what_a_log_holds_in_words():
    """Reasons by count, and a full table beside them."""
    lines = {"tcp-out-of-window": 7, "tcp-invalid": 1, "conntrack-full": 3}
    assert rejections.logged(lines) == (
        "counts as INVALID 7 outside the window, 1 in a wrong state and says 3 times that the "
        "table was full"
    )
    assert rejections.logged({"conntrack-full": 3}) == "says 3 times that the table was full"
    assert rejections.logged({}) == ""


def test_what_was_acknowledged_later_passed():
    """An answer proves data before it, across the wrap of sequence numbers."""
    data = [Segment(n, False, A, seq, 1, 9, 10) for n, seq in enumerate((2**32 - 10, 0, 10))]
    answer = Segment(9, True, A, 1, 10, 9, 0)
    assert rejections.passed_by_answer([*data, answer]) == [True, True, False, False]
    assert rejections.passed_by_answer(data) == [False] * 3
