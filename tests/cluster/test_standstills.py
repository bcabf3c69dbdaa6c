"""A capture that stood still within one file, and pauses in which nothing was to be seen."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from pcapdiag.cluster.visible import gaps, standstills

SECOND = 1_000_000_000


def converse(net, server: str, requests: int = 8) -> None:
    """Let a client send a request a second to a realserver."""
    client, service = net.ends()
    net.request(net.packet(client, service, tcp_seq=99, tcp_flags=2), server)
    answer = {"tcp_seq": 499, "tcp_ack": 100, "tcp_flags": 0x12}
    net.reply(net.packet(service, client, **answer), server)
    for number in range(requests):
        net.wait(SECOND)
        ask = {"tcp_seq": 100 + 100 * number, "tcp_ack": 500 + 1000 * number}
        net.request(net.packet(client, service, **ask, payload_len=100), server)
        tell = {"tcp_seq": ask["tcp_ack"], "tcp_ack": ask["tcp_seq"] + 100}
        net.reply(net.packet(service, client, **tell, payload_len=1000), server)


def stood_still(net, name: str, begin_ns: int, end_ns: int) -> None:
    """Let a vantage have captured nothing between two times."""
    recorder = net.recorders[name]
    times = [row["time_ns"] for row in recorder.rows]
    recorder.without({n for n, time in enumerate(times) if begin_ns < time < end_ns})


def busy(net, server: str = "rs1", connections: int = 60) -> None:
    """Let many connections make the captures' mean pause short."""
    net.arp()
    for _ in range(connections):
        net.connect(server)


def stood_still_while_clients_went_on(net) -> int:
    """Let short connections come and go while rs1 captures nothing; return since when."""
    busy(net)
    begin = net.time_ns
    net.wait(SECOND)
    for _ in range(10):
        net.connect("rs1")
        net.wait(SECOND)
    end = net.time_ns
    busy(net)
    stood_still(net, "rs1", begin, end)
    return begin


@pytest.mark.parametrize(
    "kind", [{"method": "dr"}, {"method": "nat", "rport": 8080}, {"method": "tun"}]
)
def test_sequence_numbers_jump_over_what_a_lone_capture_missed(cluster, analyse, kind) -> None:
    """Bytes that went by are in no frame: the capture stood still, and covers nothing then."""
    net = cluster(**kind)
    busy(net)
    start = net.time_ns
    converse(net, "rs1")
    busy(net)
    stood_still(net, "rs1", start + SECOND // 2, start + 7 * SECOND)
    coverage = analyse(net.tables("rs1")).coverage
    ((begin, end),) = coverage.pauses[0]
    assert begin < start + SECOND
    assert end > start + 7 * SECOND
    seen = coverage.covers(0, start + 4 * SECOND)
    assert not seen.ok
    assert "stands still" in seen.reason
    assert not coverage.covers(0, begin - 1, margin_ns=SECOND).ok
    assert coverage.covers(0, end).ok


def test_an_idle_cluster_leaves_no_gap(cluster, analyse) -> None:
    """Minutes without a packet, and connections that go on after them where they were."""
    net = cluster()
    busy(net)
    client, service = net.ends()
    for number in range(3):
        net.wait(120 * SECOND)
        ask = {"tcp_seq": 100 + 100 * number, "tcp_ack": 500}
        net.request(net.packet(client, service, **ask, payload_len=100), "rs1")
    busy(net)
    found = analyse(net.tables("director", "rs1", "router")).coverage
    assert found.pauses == ([], [], [])
    assert analyse(net.tables("rs1")).coverage.pauses == ([],)


def test_what_the_director_saw_answered_tells_that_the_realservers_capture_stood_still(
    cluster, analyse
) -> None:
    """Short connections come and go meanwhile: no sequence number jumps, but clients go on."""
    net = cluster()
    begin = stood_still_while_clients_went_on(net)
    alone = analyse(net.tables("rs1")).coverage
    assert alone.pauses == ([],)
    both = analyse(net.tables("director", "rs1")).coverage
    assert both.pauses[0] == []
    assert len(both.pauses[1]) == 1
    assert not both.covers(1, begin + 5 * SECOND).ok


def test_what_a_director_sent_tells_that_its_capture_stood_still(cluster, analyse) -> None:
    """The realserver has frames from the director's MAC of which the director's capture has none.

    Neither does the gap in which the service's packets would have left hold for a proof.
    """
    net = cluster()
    busy(net)
    begin = net.time_ns
    net.wait(SECOND)
    for _ in range(10):
        net.connect("rs1")
        net.wait(SECOND)
    end = net.time_ns
    busy(net)
    stood_still(net, "director", begin, end)
    coverage = analyse(net.tables("director", "rs1")).coverage
    assert len(coverage.pauses[0]) == 1
    assert coverage.pauses[1] == []
    assert coverage.egress_gaps.height == 1


def test_a_realserver_that_is_down_stood_not_still(cluster, analyse) -> None:
    """What the director sends to a host that answers nothing proves no packet at its capture."""
    net = cluster()
    busy(net)
    begin = net.time_ns
    for _ in range(6):
        client, service = net.ends()
        for _ in range(5):
            net.wait(SECOND)
            net.request(net.packet(client, service, tcp_seq=7, tcp_flags=2), "rs1")
    end = net.time_ns
    busy(net)
    stood_still(net, "rs1", begin, end)
    assert analyse(net.tables("director", "rs1")).coverage.pauses == ([], [])


def test_resent_bytes_are_no_jump(cluster, analyse) -> None:
    """The network was down: what was sent meanwhile comes again, after later bytes even."""
    net = cluster()
    busy(net)
    client, service = net.ends()
    for seq in (100, 200):
        net.request(net.packet(client, service, tcp_seq=seq, payload_len=100), "rs1")
    net.wait(60 * SECOND)
    net.request(net.packet(client, service, tcp_seq=900, payload_len=100), "rs1")
    net.wait(60 * SECOND)
    for seq in (300, 400, 500, 600, 700, 800):
        net.request(net.packet(client, service, tcp_seq=seq, payload_len=100), "rs1")
    busy(net)
    assert analyse(net.tables("director")).coverage.pauses == ([],)


def test_another_interface_fills_no_gap_of_the_one_that_stood_still(cluster) -> None:
    """Asked for one capture, what it missed is a gap whatever ran beside it."""
    net = cluster()
    net.connect("rs1")
    (tables,) = net.tables("director")
    (info,) = tables.captures
    spans = [(0, 10 * SECOND), (0, 10 * SECOND)]
    captures = tuple(replace(info, first_ns=a, last_ns=b, packets=1000) for a, b in spans)
    several = replace(tables, captures=captures, capture_ids=(0, 1))
    still = pl.DataFrame({"capture": [1], "from_ns": [SECOND], "until_ns": [5 * SECOND]})
    assert gaps.between(several, None, still) == []
    assert gaps.between(several, {1}, still) == [(SECOND, 5 * SECOND)]
    assert gaps.between(several, {0}, still) == []


def test_clocks_that_are_known_within_seconds_only(cluster, analyse) -> None:
    """Bounds of more than 2.1 s, beside smaller ones, are nanoseconds like these."""
    net = cluster()
    stood_still_while_clients_went_on(net)
    vantages = net.tables("director", "rs1", "router")
    found = analyse(vantages).coverage
    clocks = replace(found.clocks, error_ns=(0, 0, 3 * SECOND))
    pauses = standstills.find(vantages, found.topology.vantage_macs, clocks)
    assert [len(each) for each in pauses] == [0, 1, 0]
