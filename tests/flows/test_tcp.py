"""What each side of a TCP flow sent, repeated and got acknowledged."""

from __future__ import annotations

from typing import Any

import pytest
from traces import START_NS, trace

HANDSHAKE = """
0.000 c>s S seq=0 mss=1460 ws=7 sackok
0.010 s>c SA seq=0 ack=1 mss=1400 ws=9 sackok
0.020 c>s A seq=1 ack=1
"""


def flow(text: str, *, isn: dict[str, int] | None = None) -> dict[str, Any]:
    """Return the only flow of a trace."""
    flows = trace(text, isn=isn).tables().flows
    assert len(flows) == 1
    return flows.row(0, named=True)


def test_handshake_options() -> None:
    """MSS, window scale and SACK are those of each side's SYN."""
    seen = flow(HANDSHAKE)
    assert (seen["orig_mss"], seen["orig_wscale"], seen["orig_sack_permitted"]) == (1460, 7, True)
    assert (seen["resp_mss"], seen["resp_wscale"], seen["resp_sack_permitted"]) == (1400, 9, True)


def test_options_of_a_capture_that_begins_later_are_unknown() -> None:
    """Without a SYN there is no MSS, and SACK is neither permitted nor refused."""
    seen = flow("0.0 c>s PA seq=1 ack=1 len=10")
    assert seen["orig_mss"] is None
    assert seen["orig_sack_permitted"] is None


def test_clean_transfer() -> None:
    """Bytes are counted from the SYN, and all of them are acknowledged."""
    seen = flow(
        HANDSHAKE
        + """
        0.030 c>s PA seq=1 ack=1 len=500
        0.040 s>c A seq=1 ack=501
        0.050 s>c PA seq=1 ack=501 len=1460
        0.060 c>s A seq=501 ack=1461
        0.070 c>s FA seq=501 ack=1461
        0.080 s>c FA seq=1461 ack=502
        0.090 c>s A seq=502 ack=1462
        """
    )
    assert (seen["orig_sent"], seen["orig_acked"]) == (502, 502)
    assert (seen["resp_sent"], seen["resp_acked"]) == (1462, 1462)
    assert seen["resp_largest_acked"] == 1500
    assert seen["resp_smallest_unacked"] is None
    assert seen["resp_stuck_offset"] is None
    assert seen["orig_retransmitted"] == seen["resp_retransmitted"] == 0
    assert seen["orig_df"] is True
    assert seen["closed_by"] == "orig-fin"


def test_black_hole_by_size() -> None:
    """A full segment sent again and again is stuck; the small one before it got through."""
    seen = flow(
        HANDSHAKE
        + """
        0.030 c>s PA seq=1 ack=1 len=100
        0.031 s>c PA seq=1 ack=101 len=1200
        0.040 c>s A seq=101 ack=1201
        0.050 s>c A seq=1201 ack=101 len=1360
        0.050 s>c A seq=2561 ack=101 len=1360
        0.260 s>c A seq=1201 ack=101 len=1360
        0.700 s>c A seq=1201 ack=101 len=1360
        1.600 s>c A seq=1201 ack=101 len=1360
        """
    )
    assert seen["resp_largest_acked"] == 1240
    assert seen["resp_smallest_unacked"] == 1400
    assert seen["resp_stuck_offset"] == 1201
    assert seen["resp_stuck_repeats"] == 4
    assert seen["resp_stuck_len"] == 1400
    assert seen["resp_stuck_first_ns"] == START_NS + 50_000_000
    assert seen["resp_stuck_last_ns"] == START_NS + 1_600_000_000
    assert seen["resp_retransmitted"] == 3
    assert seen["resp_timeouts"] == 3
    assert seen["resp_retransmitted_bytes"] == 3 * 1360


def test_data_sent_once_is_never_stuck() -> None:
    """Nothing is stuck that was sent once: its ACK may still be on the way."""
    seen = flow(HANDSHAKE + "0.030 s>c PA seq=1 ack=1 len=1000")
    assert seen["resp_stuck_offset"] is None
    assert seen["resp_smallest_unacked"] is None


def test_loss_that_was_repaired() -> None:
    """A retransmission that was acknowledged is counted and nothing is stuck."""
    seen = flow(
        HANDSHAKE
        + """
        0.030 s>c A seq=1 ack=1 len=1000
        0.030 s>c A seq=1001 ack=1 len=1000
        0.330 s>c A seq=1 ack=1 len=1000
        0.340 c>s A seq=1 ack=2001
        """
    )
    assert (seen["resp_retransmitted"], seen["resp_timeouts"]) == (1, 1)
    assert seen["resp_stuck_offset"] is None
    assert seen["resp_largest_acked"] == 1040


def test_fast_retransmission_is_no_timeout() -> None:
    """Soon after the original a repetition is a retransmission without a timeout."""
    seen = flow(
        HANDSHAKE
        + """
        0.030 s>c A seq=1 ack=1 len=1000
        0.080 s>c A seq=1 ack=1 len=1000
        0.090 c>s A seq=1 ack=1001
        """
    )
    assert (seen["resp_retransmitted"], seen["resp_timeouts"]) == (1, 0)


@pytest.mark.parametrize(("gap_ms", "timeouts"), [(189, 0), (191, 1)])
def test_timeout_threshold(gap_ms: int, timeouts: int) -> None:
    """A repetition counts as a timeout from the minimum RTO on, less the tolerance."""
    seen = flow(
        HANDSHAKE
        + f"""
        1.000 s>c A seq=1 ack=1 len=1000
        {1 + gap_ms / 1000:.3f} s>c A seq=1 ack=1 len=1000
        """
    )
    assert seen["resp_timeouts"] == timeouts


def test_reordering_is_no_retransmission() -> None:
    """A segment that fills a hole was not seen before."""
    seen = flow(
        HANDSHAKE
        + """
        0.0300 s>c A seq=1 ack=1 len=1000
        0.0301 s>c A seq=2001 ack=1 len=1000
        0.0302 s>c A seq=1001 ack=1 len=1000
        0.0400 c>s A seq=1 ack=3001
        """
    )
    assert (seen["resp_retransmitted"], seen["resp_sent"]) == (0, 3001)


def test_hole_filled_twice() -> None:
    """The second filling of a hole is a retransmission, the first is not."""
    seen = flow(
        HANDSHAKE
        + """
        0.0300 s>c A seq=2001 ack=1 len=1000
        0.0302 s>c A seq=1001 ack=1 len=1000
        0.0304 s>c A seq=1001 ack=1 len=1000
        """
    )
    assert seen["resp_retransmitted"] == 1


def test_holes_within_holes() -> None:
    """Segments in reverse order are all new, and a repetition among them is found."""
    seen = flow(
        HANDSHAKE
        + """
        0.0300 s>c A seq=4001 ack=1 len=1000
        0.0301 s>c A seq=3001 ack=1 len=1000
        0.0302 s>c A seq=2001 ack=1 len=1000
        0.0303 s>c A seq=3001 ack=1 len=1000
        0.0304 s>c A seq=1 ack=1 len=2000
        """
    )
    assert (seen["resp_retransmitted"], seen["resp_sent"]) == (1, 5001)


def test_duplicate_acks_are_no_retransmissions() -> None:
    """ACKs without data repeat nothing."""
    seen = flow(HANDSHAKE + 5 * "0.030 c>s A seq=1 ack=1\n")
    assert (seen["orig_retransmitted"], seen["orig_data_packets"]) == (0, 0)


def test_sack_counts_as_acknowledged() -> None:
    """What was SACKed behind a hole got through; the hole is stuck."""
    seen = flow(
        HANDSHAKE
        + """
        0.030 s>c A seq=1 ack=1 len=1360
        0.031 s>c A seq=1361 ack=1 len=800
        0.040 c>s A seq=1 ack=1 sack=1361-2161
        0.300 s>c A seq=1 ack=1 len=1360
        0.310 s>c A seq=1361 ack=1 len=800
        0.700 s>c A seq=1 ack=1 len=1360
        """
    )
    assert seen["resp_sacked"] == 2161
    assert seen["resp_acked"] == 1
    assert seen["resp_largest_acked"] == 840
    assert seen["resp_smallest_unacked"] == 1400
    assert (seen["resp_stuck_offset"], seen["resp_stuck_repeats"]) == (1, 3)


def test_smaller_repetition_proves_only_its_own_size() -> None:
    """After path MTU discovery the large packet is not proven by the ACK of the smaller one."""
    seen = flow(
        HANDSHAKE
        + """
        0.030 s>c A seq=1 ack=1 len=1360
        0.031 s>c A seq=1 ack=1 len=1160
        0.031 s>c A seq=1161 ack=1 len=200
        0.040 c>s A seq=1 ack=1361
        """
    )
    assert seen["resp_largest_acked"] == 1200
    assert seen["resp_stuck_offset"] is None


def test_last_attempt_is_not_yet_lost() -> None:
    """Of a byte that was sent at two sizes only the earlier one is known to be lost."""
    seen = flow(
        HANDSHAKE
        + """
        0.030 s>c A seq=1 ack=1 len=1360
        0.300 s>c A seq=1 ack=1 len=1360
        0.700 s>c A seq=1 ack=1 len=900
        """
    )
    assert seen["resp_smallest_unacked"] == 1400
    assert (seen["resp_stuck_repeats"], seen["resp_stuck_len"]) == (3, 1400)


def test_keepalives() -> None:
    """A byte below what was acknowledged is a keepalive, not a retransmission."""
    seen = flow(
        HANDSHAKE
        + """
        0.030 c>s PA seq=1 ack=1 len=100
        0.040 s>c A seq=1 ack=101
        60.00 c>s A seq=100 ack=1
        60.01 s>c A seq=1 ack=101
        120.0 c>s A seq=100 ack=1 len=1
        120.1 s>c A seq=1 ack=101
        """
    )
    assert (seen["orig_retransmitted"], seen["orig_timeouts"]) == (0, 0)
    assert seen["orig_stuck_offset"] is None
    assert seen["orig_sent"] == 101
    assert seen["idle_ns"] == pytest.approx(60_000_000_000, rel=0.01)


def test_keepalive_in_one_direction() -> None:
    """Without the peer's ACKs one byte after a silence, below longer data, is a keepalive."""
    seen = flow(
        """
        0.0 c>s PA seq=1 ack=1 len=100
        60. c>s A seq=100 ack=1 len=1
        """
    )
    assert seen["orig_retransmitted"] == 0


def test_one_byte_sent_again_is_a_retransmission() -> None:
    """A typed character that was not acknowledged is repeated by timeout."""
    seen = flow(
        HANDSHAKE
        + """
        0.030 c>s PA seq=1 ack=1 len=1
        0.250 c>s PA seq=1 ack=1 len=1
        0.260 s>c A seq=1 ack=2
        """
    )
    assert (seen["orig_retransmitted"], seen["orig_timeouts"]) == (1, 1)


def test_zero_window_probes() -> None:
    """One byte into a closed window says nothing about loss, however often it is repeated."""
    seen = flow(
        HANDSHAKE
        + """
        0.030 c>s A seq=1 ack=1 len=1000
        0.040 s>c A seq=1 ack=1001 win=0
        0.300 c>s A seq=1001 ack=1 len=1
        0.310 s>c A seq=1 ack=1001 win=0
        0.800 c>s A seq=1001 ack=1 len=1
        0.810 s>c A seq=1 ack=1001 win=0
        1.800 c>s A seq=1001 ack=1 len=1
        1.810 s>c A seq=1 ack=1001 win=0
        """
    )
    assert (seen["orig_retransmitted"], seen["orig_timeouts"]) == (0, 0)
    assert seen["orig_stuck_offset"] is None
    assert seen["orig_largest_acked"] == 1040


def test_window_opens_after_probes() -> None:
    """The segment that follows the probes and begins with their byte is no timeout."""
    seen = flow(
        HANDSHAKE
        + """
        0.040 s>c A seq=1 ack=1 win=0
        0.300 c>s A seq=1 ack=1 len=1
        0.800 c>s A seq=1 ack=1 len=1
        0.810 s>c A seq=1 ack=1 win=5000
        1.300 c>s A seq=1 ack=1 len=1000
        """
    )
    assert (seen["orig_retransmitted"], seen["orig_timeouts"]) == (0, 0)


def test_syn_retransmissions() -> None:
    """A SYN sent again is a retransmission of one flow; answered by nobody it has no verdict."""
    seen = flow("0 c>s S seq=0\n1 c>s S seq=0\n3 c>s S seq=0\n7 c>s S seq=0")
    assert (seen["orig_retransmitted"], seen["orig_timeouts"]) == (3, 3)
    assert seen["orig_stuck_offset"] is None
    assert seen["orig_acked"] is None


def test_syn_ack_never_answered() -> None:
    """A repeated SYN-ACK whose peer is heard here is stuck at its first byte."""
    seen = flow(
        """
        0.0 c>s S seq=0
        0.1 s>c SA seq=0 ack=1
        1.1 s>c SA seq=0 ack=1
        3.1 s>c SA seq=0 ack=1
        """
    )
    assert (seen["resp_stuck_offset"], seen["resp_stuck_repeats"]) == (0, 3)
    assert seen["orig_acked"] == 1


def test_simultaneous_open() -> None:
    """Two SYNs that cross are one flow, opened by the first."""
    seen = flow(
        """
        0.000 c>s S seq=0
        0.001 s>c S seq=0
        0.010 c>s SA seq=0 ack=1
        0.011 s>c SA seq=0 ack=1
        0.020 c>s PA seq=1 ack=1 len=10
        0.030 s>c A seq=1 ack=11
        """
    )
    assert seen["originator_source"] == "syn"
    assert seen["orig_port"] == 40000
    assert (seen["orig_sent"], seen["orig_acked"]) == (11, 11)


def test_midstream() -> None:
    """A capture that begins in the middle counts from the lowest byte that it saw."""
    seen = flow(
        """
        0.0 s>c A seq=50000 ack=1 len=1000
        0.1 s>c A seq=51000 ack=1 len=1000
        0.2 c>s A seq=1 ack=52000
        """
    )
    assert seen["originator_source"] == "port"
    assert (seen["resp_sent"], seen["resp_acked"]) == (2000, 2000)
    assert seen["resp_largest_acked"] == 1040


def test_old_acks_of_a_capture_that_begins_later() -> None:
    """An ACK below the first byte seen is a negative offset and proves nothing."""
    seen = flow(
        """
        0.0 s>c A seq=50000 ack=1 len=1000
        0.1 c>s A seq=1 ack=40000
        """
    )
    assert seen["resp_acked"] == -10000
    assert seen["resp_largest_acked"] is None


def test_no_verdict_where_acks_are_not_seen() -> None:
    """A DR director sees the client's data without ACKs: repeated data there is not stuck."""
    seen = flow(
        """
        0.0 c>s S seq=0 mss=1460
        0.1 c>s A seq=1 ack=1
        0.2 c>s A seq=1 ack=1 len=1400
        0.5 c>s A seq=1 ack=1 len=1400
        1.1 c>s A seq=1 ack=1 len=1400
        """
    )
    for name in ("acked", "sacked", "largest_acked", "smallest_unacked", "stuck_offset"):
        assert seen[f"orig_{name}"] is None
        assert seen[f"resp_{name}"] is None
    assert (seen["orig_retransmitted"], seen["orig_timeouts"]) == (2, 2)
    assert seen["resp_packets"] == 0
    assert seen["resp_seq_first"] is None


def test_resets_do_not_open_the_ack_direction() -> None:
    """An RST from the director itself is no sign that the realserver's ACKs come by."""
    seen = flow(
        """
        0.0 c>s A seq=1 ack=1 len=1400
        0.5 c>s A seq=1 ack=1 len=1400
        0.6 s>c R seq=1
        """
    )
    assert seen["orig_stuck_offset"] is None
    assert seen["resp_rst"] is True
    assert seen["resp_seq_first"] is None


def test_reset_with_a_foreign_sequence_number() -> None:
    """A stateless RST with sequence number 0 does not move its side's offsets."""
    seen = flow(
        HANDSHAKE
        + """
        0.030 c>s PA seq=1 ack=1 len=100
        0.040 s>c PA seq=1 ack=101 len=700
        0.050 s>c RA seq=-3000000000 ack=101
        """,
        isn={"s": 3_000_000_000},
    )
    assert seen["resp_seq_first"] == 3_000_000_000
    assert seen["resp_sent"] == 701
    assert seen["closed_by"] == "resp-rst"


def test_refused_connection() -> None:
    """An RST that acknowledges the SYN acknowledges it."""
    seen = flow("0.0 c>s S seq=0\n0.1 s>c RA seq=-1000 ack=1")
    assert (seen["orig_acked"], seen["closed_by"]) == (1, "resp-rst")


def test_sequence_wrap() -> None:
    """Offsets go on where 32 bits wrap."""
    seen = flow(
        HANDSHAKE
        + """
        0.030 s>c A seq=1 ack=1 len=1000
        0.031 s>c A seq=1001 ack=1 len=1000
        0.040 c>s A seq=1 ack=1001
        0.300 s>c A seq=1001 ack=1 len=1000
        0.310 c>s A seq=1 ack=2001 sack=1001-2001
        """,
        isn={"s": 2**32 - 1500},
    )
    assert (seen["resp_sent"], seen["resp_acked"], seen["resp_sacked"]) == (2001, 2001, 2001)
    assert seen["resp_seq_first"] == 2**32 - 1500
    assert seen["resp_retransmitted"] == 1


def test_more_than_four_gigabytes() -> None:
    """A side that sends more than 32 bits can count is followed from packet to packet."""
    step = 100_000_000
    lines = ["0.0 c>s S seq=0", "0.0 s>c SA seq=0 ack=1"]
    for number in range(50):
        lines.append(f"{number + 1}.0 s>c A seq={1 + number * step} ack=1 len={step}")
        lines.append(f"{number + 1}.1 c>s A seq=1 ack={1 + (number + 1) * step}")
    total = 1 + 50 * step
    lines.append(f"99.0 s>c A seq={total - step} ack=1 len={step}")
    lines.insert(30, "14.5 s>c A seq=3300000000 ack=1 len=1")  # forged
    lines.insert(31, "14.6 c>s A seq=1 ack=3400000000")  # forged as well
    lines.append(f"99.2 s>c A seq={total} ack=1")
    seen = flow("\n".join(lines))
    assert total > 2**32
    assert (seen["resp_sent"], seen["resp_acked"]) == (total, total)
    assert seen["resp_retransmitted"] == 1


def test_forged_packet_in_the_middle() -> None:
    """One packet from far outside the window changes nothing but the packet count."""
    seen = flow(
        HANDSHAKE
        + """
        0.030 s>c A seq=1 ack=1 len=1000
        0.031 s>c A seq=1700000000 ack=1 len=1000
        0.032 s>c A seq=1001 ack=1 len=1000
        0.040 c>s A seq=1 ack=2001
        """
    )
    assert (seen["resp_sent"], seen["resp_acked"], seen["resp_retransmitted"]) == (2001, 2001, 0)
    assert seen["resp_packets"] == 4


def test_forged_ack_is_ignored() -> None:
    """An ACK two gigabytes ahead acknowledges nothing."""
    seen = flow(
        HANDSHAKE
        + """
        0.030 s>c A seq=1 ack=1 len=1000
        0.040 c>s A seq=1 ack=2000000000
        0.300 s>c A seq=1 ack=1 len=1000
        """
    )
    assert seen["resp_acked"] == 1
    assert seen["resp_stuck_offset"] == 1


def test_segmentation_offload_cut_again() -> None:
    """A lost piece of a super-segment is stuck at its own byte and at the size on the wire."""
    seen = flow(
        HANDSHAKE
        + """
        0.030 s>c A seq=1 ack=1 len=14600
        0.040 c>s A seq=1 ack=1461
        0.300 s>c A seq=1461 ack=1 len=1460
        0.800 s>c A seq=1461 ack=1 len=1460
        """
    )
    assert seen["resp_offload"] is True
    assert seen["orig_offload"] is False
    assert seen["resp_max_ip_len"] == 14640
    assert seen["resp_largest_acked"] == 1500
    assert seen["resp_smallest_unacked"] == 1500
    assert seen["resp_stuck_offset"] == 1461
    assert seen["resp_stuck_repeats"] == 3
    assert seen["resp_stuck_len"] == 1500


def test_merged_segments_without_a_handshake() -> None:
    """Multiples of a full segment betray merging where no MSS is known."""
    seen = flow(
        """
        0.030 s>c A seq=1 ack=1 len=1460
        0.031 s>c A seq=1461 ack=1 len=2920
        0.040 c>s A seq=1 ack=4381
        """
    )
    assert seen["resp_offload"] is True
    assert seen["resp_largest_acked"] == 1500


def test_jumbo_frames_are_no_offload() -> None:
    """A size that the MSS allows was on the wire."""
    seen = flow(
        """
        0.000 c>s S seq=0 mss=8960
        0.010 s>c SA seq=0 ack=1 mss=8960
        0.030 s>c A seq=1 ack=1 len=8960
        0.040 c>s A seq=1 ack=8961
        """
    )
    assert seen["resp_offload"] is False
    assert seen["resp_largest_acked"] == 9000


def test_no_packet_larger_than_any_mtu_proves_its_size() -> None:
    """Without an MSS 60 kB prove nothing."""
    seen = flow("0.030 s>c A seq=1 ack=1 len=60000\n0.040 c>s A seq=1 ack=60001")
    assert seen["resp_offload"] is True
    assert seen["resp_largest_acked"] is None


def test_fin_repeated() -> None:
    """A FIN counts one and is repeated like data."""
    seen = flow(
        HANDSHAKE
        + """
        0.030 c>s FA seq=1 ack=1
        0.300 c>s FA seq=1 ack=1
        0.800 c>s FA seq=1 ack=1
        """
    )
    assert (seen["orig_sent"], seen["orig_acked"]) == (2, 1)
    assert (seen["orig_retransmitted"], seen["orig_retransmitted_bytes"]) == (2, 0)
    assert seen["orig_stuck_repeats"] == 3


def test_missing_times() -> None:
    """Packets without a time are counted and never make a timeout."""
    seen = flow(
        """
        -   c>s S seq=0
        -   s>c SA seq=0 ack=1
        -   s>c A seq=1 ack=1 len=1000
        9.0 s>c A seq=1 ack=1 len=1000
        -   s>c A seq=1 ack=1 len=1000
        """
    )
    assert (seen["resp_retransmitted"], seen["resp_timeouts"]) == (2, 0)
    assert seen["orig_first_ns"] is None
    assert seen["resp_first_ns"] == seen["resp_last_ns"] == START_NS + 9 * 10**9
    assert seen["resp_stuck_first_ns"] == seen["resp_stuck_last_ns"] == START_NS + 9 * 10**9


def test_times_that_go_backwards() -> None:
    """A clock step makes neither a timeout nor a negative pause."""
    seen = flow(
        """
        5.0 s>c A seq=1 ack=1 len=1000
        1.0 s>c A seq=1 ack=1 len=1000
        1.1 c>s A seq=1 ack=1001
        """
    )
    assert (seen["resp_retransmitted"], seen["resp_timeouts"]) == (1, 0)
    assert seen["idle_ns"] == 100_000_000
    assert seen["first_ns"] == START_NS + 10**9


def test_other_protocols_have_no_sequence() -> None:
    """UDP columns that only TCP can fill are null, the counts are not."""
    seen = flow("0.0 c>s udp len=100\n0.1 s>c udp len=900")
    assert (seen["orig_packets"], seen["resp_payload_bytes"]) == (1, 900)
    assert seen["orig_sent"] is None
    assert seen["orig_largest_acked"] is None
    assert seen["orig_syn"] is False
