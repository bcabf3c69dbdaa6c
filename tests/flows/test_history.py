"""The history word, the series of a stuck byte, and SACK blocks."""

from __future__ import annotations

import pytest
from traces import trace

from pcapdiag.flows.history import MAX_FLOWS, FlowHistory, SackBlock, histories

HANDSHAKE = """
0.000 c>s S seq=0 mss=1460
0.010 s>c SA seq=0 ack=1 mss=1460
0.020 c>s A seq=1 ack=1
"""


def history(text: str) -> FlowHistory:
    """Return the history of a trace's first flow."""
    return histories(trace(text).tables(), [0])[0]


def test_word_of_a_whole_connection() -> None:
    """Each side's letters stand where they came first."""
    text = """
    0.03 c>s PA seq=1 ack=1 len=10
    0.04 s>c PA seq=1 ack=11 len=10
    0.05 c>s A seq=11 ack=11
    0.06 c>s FA seq=11 ack=11
    0.07 s>c A seq=11 ack=12
    0.08 s>c RA seq=11 ack=12
    """
    assert history(HANDSHAKE + text).word == "ShADdFar"


def test_word_leaves_second_sights_out() -> None:
    """A forwarded packet is no retransmission."""
    assert history("0 c>s PA seq=1 ack=1 len=9 ttl=9\n0.001 copy 1 ttl=8").word == "D"


def test_word_counts_retransmissions_in_powers_of_ten() -> None:
    """T stands for the first, the 10th and the 100th repetition."""
    lines = [f"{n} c>s PA seq=1 ack=1 len=9" for n in range(101)]
    assert history("\n".join(lines)).word == "DTTT"


def test_word_tells_gaps_and_closed_windows() -> None:
    """Data beyond a hole is a gap, window 0 a closed window."""
    text = "0 c>s A seq=1 ack=1 len=9\n1 c>s A seq=100 ack=1 len=9\n2 s>c A seq=1 ack=10 win=0"
    assert history(text).word == "DGaw"


def test_word_of_datagrams() -> None:
    """UDP has data only."""
    assert history("0 c>s udp len=9\n1 s>c udp len=9\n2 s>c udp len=0").word == "Dd"


def test_series_of_a_stuck_byte() -> None:
    """Every send of the stuck byte, its size, and the time since the send before."""
    text = """
    0.100 s>c A seq=1 ack=1 len=1460
    0.300 s>c A seq=1 ack=1 len=1460
    0.700 s>c A seq=1 ack=1 len=1000
    1.500 s>c A seq=1 ack=1 len=1000
    """
    series = history(HANDSHAKE + text).resp.stuck_series
    assert [send.ip_len for send in series] == [1500, 1500, 1040, 1040]
    assert [send.after_ns for send in series] == [None, 200_000_000, 400_000_000, 800_000_000]
    assert [send.row for send in series] == [3, 4, 5, 6]
    assert history(HANDSHAKE + text).orig.stuck_series == ()


def test_series_across_a_super_segment() -> None:
    """The original that carried the byte among others counts as a send."""
    text = """
    0.100 s>c A seq=1 ack=1 len=14600
    0.110 c>s A seq=1 ack=1461
    0.400 s>c A seq=1461 ack=1 len=1460
    """
    series = history(HANDSHAKE + text).resp.stuck_series
    assert [send.ip_len for send in series] == [14640, 1500]


def test_series_without_times() -> None:
    """A send without a time has no distance to its neighbours."""
    text = "- c>s S seq=0\n- s>c SA seq=0 ack=1\n- s>c SA seq=0 ack=1"
    assert [send.after_ns for send in history(text).resp.stuck_series] == [None, None]


def test_sack_blocks() -> None:
    """Blocks are offsets of the side they are about, across a wrap as well."""
    text = HANDSHAKE + "0.1 s>c A seq=1 ack=1 len=100\n0.2 c>s A seq=1 ack=1 sack=101-201,301-401"
    told = trace(text, isn={"s": 2**32 - 50}).tables()
    assert histories(told, [0])[0].resp.sacked == (SackBlock(4, 101, 201), SackBlock(4, 301, 401))


def test_rows_and_unknown_flows() -> None:
    """All rows are listed, and numbers without a flow are left out."""
    tables = trace("0 c>s udp ttl=9\n0 r>c icmp 11/0 quote=1\n1 copy 1 ttl=8").tables()
    found = histories(tables, [0, 17])
    assert list(found) == [0]
    assert found[0].rows == (0, 2)


def test_too_many_flows() -> None:
    """The second tier is not for everything."""
    with pytest.raises(ValueError, match="at most"):
        histories(trace("0 c>s udp").tables(), range(MAX_FLOWS + 1))
