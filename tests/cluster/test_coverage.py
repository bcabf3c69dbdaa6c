"""What a vantage could have seen: spans, filters, drops and losses."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from pcapdiag.cluster.coverage import filter_keeps_icmp
from pcapdiag.cluster.visible import gaps

SECOND = 1_000_000_000
MS = 1_000_000


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("", True),
        ("host 203.0.113.10", True),
        ("net 203.0.113.0/24 and not port 22", True),
        ("not tcp port 22 and not arp", True),
        ("icmp or icmp6 or arp or (host 203.0.113.10 and port 80)", True),
        ("tcp port 80 or icmp", True),
        ("ip proto 1 or tcp", True),
        ("tcp", False),
        ("tcp port 80", False),
        ("port 80 or port 443", False),
        ("arp", False),
        ("udp and host 203.0.113.10", False),
        ("host 203.0.113.10 and not icmp", False),
        ("ip proto 47", False),
        ("ip and ! icmp", False),
    ],
)
def test_a_written_filter_is_read_carefully(text: str, kept: bool) -> None:
    """Where it is not certain that ICMP passes, the answer is no."""
    assert filter_keeps_icmp(text) is kept


def test_a_filter_in_the_file_decides(cluster, analyse) -> None:
    """Pcapng keeps the filter: it is believed and named."""
    net = cluster()
    net.connect("rs1")
    kept = analyse(net.tables("director", capture_filter="host 203.0.113.10")).coverage
    assert kept.could_see_icmp_at(0, None).ok
    left_out = analyse(net.tables("director", capture_filter="tcp port 80")).coverage
    seen = left_out.could_see_icmp_at(0, None)
    assert not seen.ok
    assert "tcp port 80" in seen.reason


def test_nothing_but_one_port_may_be_a_filter(cluster, analyse) -> None:
    """No ICMP, no ARP, one service: ICMP may have been filtered out; else it was not."""
    net = cluster()
    net.connect("rs1")
    assert not analyse(net.tables("director")).coverage.could_see_icmp_at(0, None).ok
    net.arp()
    assert analyse(net.tables("director")).coverage.could_see_icmp_at(0, None).ok
    other = cluster()
    first = other.connect("rs1")
    other.error(other.too_big(first), "rs1")
    seen = analyse(other.tables("director")).coverage.could_see_icmp_at(0, None)
    assert seen.ok
    assert "shows ICMP" in seen.reason


def test_an_empty_capture_could_see_nothing(cluster, analyse) -> None:
    """It says so rather than that nothing happened."""
    net = cluster()
    net.connect("rs1")
    coverage = analyse(net.tables("director", "rs2")).coverage
    assert not coverage.could_see_icmp_at(1, None).ok
    assert coverage.span(1) is None


def test_a_time_is_covered_between_first_and_last_frame(cluster, analyse) -> None:
    """And with a margin only if the capture goes on for so long."""
    net = cluster()
    net.arp()
    net.connect("rs1")
    net.wait(10 * SECOND)
    net.connect("rs1")
    coverage = analyse(net.tables("director")).coverage
    first, last = coverage.span(0)
    assert coverage.covers(0, first).ok
    assert coverage.covers(0, last).ok
    assert not coverage.covers(0, first - 1).ok
    assert not coverage.covers(0, last + 1).ok
    assert coverage.capture_ends_after(0, first).ok
    assert not coverage.capture_ends_after(0, last).ok
    assert coverage.capture_ends_after(0, last - SECOND).ok
    assert not coverage.capture_ends_after(0, last - SECOND + 1).ok


def test_an_unaligned_clock_covers_nothing(cluster, analyse) -> None:
    """A time of the common clock says nothing about a capture that is not on it."""
    net = cluster()
    net.arp()
    net.connect("rs1")
    net.connect("rs2")
    coverage = analyse(net.tables("rs1", "rs2")).coverage
    first, _ = coverage.span(0)
    seen = coverage.covers(1, first)
    assert not seen.ok
    assert "not aligned" in seen.reason
    assert coverage.could_see_icmp_at(1, None).ok


def test_a_host_is_visible_where_its_packets_are(cluster, analyse, address) -> None:
    """The director of DR never sees its clients' answers, but it sees the clients."""
    net = cluster()
    net.connect("rs1")
    coverage = analyse(net.tables("director")).coverage
    assert coverage.could_see_host(0, address["client"]).ok
    assert not coverage.could_see_host(0, address["rs2"]).ok


def test_egress_is_visible_where_packets_leave(cluster, analyse) -> None:
    """At a director, per service; nowhere else."""
    for kind in ({"method": "dr"}, {"method": "nat", "rport": 8080}, {"method": "tun"}):
        net = cluster(**kind)
        net.arp()
        for name in ("rs1", "rs2", "rs1"):
            net.connect(name)
        coverage = analyse(net.tables("director", "rs1")).coverage
        assert coverage.egress(0, 0).ok, kind
        assert not coverage.egress(1, 0).ok


def test_a_complete_capture_loses_nothing(cluster, analyse) -> None:
    """The bound shrinks with the packets that could have been missing."""
    bounds = []
    for connections in (3, 30):
        net = cluster(method="nat", rport=8080)
        for _ in range(connections):
            net.connect("rs1")
        loss = analyse(net.tables("director")).coverage.loss(0)
        assert loss.missing == 0
        bounds.append(loss.upper)
    assert bounds[1] < bounds[0] < 1


def test_lost_packets_are_counted(cluster, analyse) -> None:
    """Data that was acknowledged and is in no frame was lost by the capture."""
    net = cluster(method="nat", rport=8080)
    for _ in range(10):
        net.connect("rs1", rounds=5)
    whole = net.recorders["rs1"]
    data = [n for n, row in enumerate(whole.rows) if row.get("payload_len") == 1000]
    lost = data[5:30:4]
    whole.rows = [row for n, row in enumerate(whole.rows) if n not in lost]
    loss = analyse(net.tables("rs1")).coverage.loss(0)
    assert len(lost) - 2 <= loss.missing <= len(lost)
    assert loss.upper > loss.missing / loss.expected


@pytest.mark.parametrize(("ahead", "lost"), [(500_000_000, False), (200_000, True)])
def test_numbers_of_another_stream_are_no_loss(cluster, analyse, ahead, lost) -> None:
    """Forged segments lie far ahead of a few packets; what a capture misses does not."""
    net = cluster(method="nat", rport=8080)
    for _ in range(10):
        net.connect("rs1", rounds=5)
    (tables,) = net.tables("rs1")
    flows = tables.flows.with_columns(pl.col("orig_acked") + ahead)
    loss = analyse([replace(tables, flows=flows)]).coverage.loss(0)
    assert (loss.missing > 0) is lost


def test_loss_is_told_by_direction(cluster, analyse) -> None:
    """Answers that a capture lost say nothing about requests, and hide in no total."""
    net = cluster(method="nat", rport=8080)
    for _ in range(20):
        net.connect("rs1", rounds=5)
    whole = net.recorders["rs1"]
    data = [n for n, row in enumerate(whole.rows) if row.get("payload_len") == 1000]
    whole.without(set(data[5:90:4]))
    coverage = analyse(net.tables("rs1")).coverage
    to_server = coverage.loss(0, by_client=True)
    to_client = coverage.loss(0, by_client=False)
    assert to_server.missing == 0
    assert to_client.missing > 15
    assert coverage.loss(0).missing == to_client.missing
    assert coverage.loss(0).expected == to_server.expected + to_client.expected
    assert coverage.absence_is_proof(0, 3, by_client=True)
    assert not coverage.absence_is_proof(0, 3, by_client=False)
    assert not coverage.loses_little(0)


def test_a_lossy_direction_is_not_thinned_by_the_other(cluster, analyse) -> None:
    """Few requests, some of them lost, beside many answers: no capture that loses little."""
    net = cluster(method="nat", rport=8080)
    for _ in range(4):
        net.connect("rs1", rounds=5)
    (tables,) = net.tables("rs1")
    flows = tables.flows.with_columns(
        (pl.col("orig_acked") + 100).alias("orig_acked"),
        (pl.col("resp_data_packets") * 500).alias("resp_data_packets"),
        (pl.col("resp_payload_bytes") * 500).alias("resp_payload_bytes"),
    )
    coverage = analyse([replace(tables, flows=flows)]).coverage
    assert coverage.loss(0).share < 0.01 < coverage.loss(0, by_client=True).share
    assert not coverage.loses_little(0)


@pytest.mark.parametrize(
    ("came", "left"),
    [
        ([4000], [1000, 1000, 1000, 1000]),
        ([3000, 1000], [1000, 3000]),
        ([1000, 3000], [2000, 2000]),
        ([1000, 1000, 1000, 1000], [4000]),
    ],
)
@pytest.mark.parametrize("method", ["dr", "nat"])
def test_segments_cut_otherwise_are_no_loss(cluster, analyse, method, came, left) -> None:
    """Offload merges and cuts where it likes: all bytes came, and all left."""
    net = cluster(method=method)
    net.arp()
    for name in ("rs1", "rs2", "rs1"):
        net.connect(name)
    client, service = net.ends()
    net.request(net.packet(client, service, tcp_seq=99, tcp_flags=2, tcp_mss=1460), "rs1")
    for turn in range(5):
        net.wait(MS)
        start = 100 + 4000 * turn
        for sizes, arriving in ((came, True), (left, False)):
            seq = start
            for size in sizes:
                part = net.packet(client, service, tcp_seq=seq, tcp_ack=9, payload_len=size)
                part |= {"ttl": 62, "ip_id": (seq + size) % 65536}
                if arriving:
                    net.seen("director", part, "router", "director", "in")
                else:
                    net.relay(part, "rs1")
                seq += size
    end = net.packet(client, service, tcp_seq=20100, tcp_ack=9, tcp_flags=0x11)
    net.request(end, "rs1")
    found = analyse(net.tables("director", "rs1"))
    assert [found.coverage.loss(index).missing for index in (0, 1)] == [0, 0]


def test_absence_is_proof_only_of_enough_packets(cluster, analyse) -> None:
    """p**n below 0.001: one missing packet never proves anything in a small capture."""
    net = cluster(method="nat", rport=8080)
    for _ in range(10):
        net.connect("rs1", rounds=4)
    coverage = analyse(net.tables("director")).coverage
    upper = coverage.loss(0).upper
    enough = next(count for count in range(1, 99) if upper**count < 0.001)
    assert enough > 1
    assert coverage.absence_is_proof(0, enough)
    assert not coverage.absence_is_proof(0, enough - 1)
    assert not coverage.absence_is_proof(0, 0)


def test_counted_drops_raise_the_bound(cluster, analyse) -> None:
    """What the capturing program admits counts at least as much as what TCP shows."""
    net = cluster(method="nat", rport=8080)
    for _ in range(10):
        net.connect("rs1")
    clean = analyse(net.tables("director", dropped=0)).coverage.loss(0)
    lossy = analyse(net.tables("director", dropped=200)).coverage.loss(0)
    assert (clean.dropped, lossy.dropped) == (0, 200)
    assert lossy.upper > clean.upper


def test_a_capture_without_evidence_proves_nothing(cluster, analyse) -> None:
    """No TCP data seen: nothing bounds the loss."""
    net = cluster()
    net.arp()
    coverage = analyse(net.tables("director")).coverage
    assert coverage.loss(0).upper == 1.0
    assert not coverage.absence_is_proof(0, 1000)


def test_rings_cover_from_first_to_last_file(cluster) -> None:
    """Files that follow each other are one capture; files side by side share only a part."""
    from pcapdiag.cluster.visible.egress import common_span

    net = cluster()
    net.connect("rs1")
    (tables,) = net.tables("director")
    (info,) = tables.captures
    for spans, expected in (
        ([(0, 10), (10, 20)], (0, 20)),
        ([(0, 15), (5, 20)], (5, 15)),
        ([(None, None)], (None, None)),
    ):
        captures = tuple(replace(info, first_ns=one, last_ns=two) for one, two in spans)
        ids = tuple(range(len(spans)))
        several = replace(tables, captures=captures, capture_ids=ids)
        assert common_span(several, frozenset(ids)) == expected


def in_files(tables, spans):
    """Return a vantage's tables as if its files had held a frame a millisecond at these times."""
    (info,) = tables.captures
    start = info.first_ns
    captures = tuple(
        replace(
            info,
            first_ns=start + first * MS,
            last_ns=start + last * MS,
            packets=last - first + 1,
        )
        for first, last in spans
    )
    return replace(tables, captures=captures, capture_ids=tuple(range(len(spans))))


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([(0, 1000), (1001, 2000)], []),
        ([(0, 1000), (1009, 2000)], []),
        ([(0, 1000), (1011, 2000)], [(1000, 1011)]),
        ([(3000, 4000), (0, 1000)], [(1000, 3000)]),
        ([(0, 5000), (100, 200), (3000, 4000)], []),
    ],
)
def test_files_that_follow_late_leave_a_gap(cluster, spans, expected) -> None:
    """Ten times the mean pause, in whatever order they were named; not where another file runs."""
    net = cluster()
    net.connect("rs1")
    (tables,) = net.tables("director")
    start = tables.captures[0].first_ns
    found = gaps.between(in_files(tables, spans))
    assert [((one - start) // MS, (two - start) // MS) for one, two in found] == expected


def test_a_ring_beside_another_fills_none_of_its_gaps(cluster) -> None:
    """Two interfaces: what one captured on is no word about the other."""
    net = cluster()
    net.connect("rs1")
    (tables,) = net.tables("director")
    files = in_files(tables, [(0, 1000), (3000, 4000), (0, 4000)])
    assert gaps.between(files) == []
    assert len(gaps.between(files, {0, 1})) == 1
    ring = in_files(tables, [(0, 1000), (3000, 4000), (1001, 2999)])
    assert gaps.between(ring, {0, 1}) == []


def test_a_time_within_a_gap_is_not_covered(cluster, analyse) -> None:
    """Nor one so shortly before that what follows may have fallen into it."""
    net = cluster()
    net.arp()
    net.connect("rs1")
    net.wait(10 * SECOND)
    net.connect("rs1")
    coverage = analyse([in_files(*net.tables("director"), [(0, 1000), (5000, 9000)])]).coverage
    start = coverage.span(0)[0]
    for when, margin, ok in (
        (500, 0, True),
        (500, SECOND, False),
        (3000, 0, False),
        (5000, SECOND, True),
    ):
        seen = coverage.covers(0, start + when * MS, margin)
        assert seen.ok is ok, when
        assert seen.ok or "pauses" in seen.reason


def test_answers_are_visible_unless_clients_go_on_without(cluster, analyse, mac) -> None:
    """A realserver captured with -Q in: its clients acknowledge what the capture does not hold."""
    net = cluster()
    net.connect("rs1")
    assert analyse(net.tables("director", "rs1")).coverage.could_see_answers(1).ok
    recorder = net.recorders["rs1"]
    recorder.without({n for n, row in enumerate(recorder.rows) if row["eth_src"] == mac["rs1"]})
    seen = analyse(net.tables("director", "rs1")).coverage.could_see_answers(1)
    assert not seen.ok
    assert "one direction only" in seen.reason


def test_what_only_came_in_shows_no_egress(cluster, analyse, mac) -> None:
    """A director captured with -Q in may have sent anything on, whatever its method."""
    for kind in ({"method": "dr"}, {"method": "nat", "rport": 8080}, {"method": "tun"}):
        net = cluster(**kind)
        net.arp()
        for name in ("rs1", "rs2", "rs1"):
            net.connect(name)
        recorder = net.recorders["director"]
        own = {mac["director"], mac["director-inside"]}
        recorder.without({n for n, row in enumerate(recorder.rows) if row["eth_src"] in own})
        found = analyse(net.tables("director", "rs1", "rs2"))
        assert found.coverage.egress_spans.filter(vantage=0).is_empty(), kind
