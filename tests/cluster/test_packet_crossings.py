"""One packet is one packet, however often and wherever it was seen; a retransmission is another."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from pcapdiag.case.case import Case

SECOND = 1_000_000_000
EVERYWHERE = ("router", "director", "rs1", "rs2")

CLUSTERS = [
    {"method": "nat", "rport": 8080},
    {"method": "nat", "one_arm": True},
    {"method": "dr"},
    *({"method": "tun", "encapsulation": name} for name in ("ipip", "gre", "gue")),
]
BOTH = [{**kind, "v6": v6} for kind in CLUSTERS for v6 in (False, True)]


def served(net) -> None:
    """Let three connections be served."""
    net.arp()
    for name in ("rs1", "rs2", "rs1"):
        net.connect(name)


def crossed(vantages):
    """Return the crossings of all connections of some vantages."""
    case = Case(tuple(vantages))
    return case.crossings(case.connections.connections.get_column("connection").to_list())


def sights_of(found) -> dict[int, list[int]]:
    """Return how often each packet was seen, by the number of vantages."""
    counted = found.sights.group_by("packet").agg(pl.len(), pl.col("vantage").n_unique())
    return dict(counted.group_by("vantage").agg(pl.col("len").unique().sort()).rows())


@pytest.mark.parametrize("kind", BOTH, ids=str)
def test_every_packet_is_followed_through_the_cluster(cluster, kind) -> None:
    """Router, director in, director out, realserver: requests four times, answers as they run."""
    net = cluster(**kind)
    served(net)
    found = crossed(net.tables(*EVERYWHERE))
    assert found.refused == 0
    requests = found.sights.filter("by_client")
    assert requests.get_column("packet").n_unique() == 12
    assert set(requests.group_by("packet").len().get_column("len")) == {4}
    answers = found.sights.filter(~pl.col("by_client"))
    assert answers.get_column("packet").n_unique() == 9
    assert set(answers.group_by("packet").len().get_column("len")) == {
        4 if kind["method"] == "nat" else 2
    }
    at_director = requests.filter(pl.col("vantage") == 1).sort("time_ns")
    assert at_director.get_column("place").to_list() == ["in", "out"] * 12


@pytest.mark.parametrize("v6", [False, True])
def test_clocks_that_are_hours_apart_hide_no_crossing(cluster, v6) -> None:
    """Packets align the clocks, and aligned clocks tell packets apart."""
    net = cluster(method="nat", rport=8080, v6=v6)
    net.recorders["rs1"].clock_ns = 7200 * SECOND
    net.recorders["rs2"].clock_ns = -3 * SECOND
    served(net)
    found = crossed(net.tables("director", "rs1", "rs2"))
    assert sights_of(found) == {2: [3]}


def test_a_retransmission_is_another_packet(cluster) -> None:
    """Its IP ID is its own; in IPv6 its time is."""
    for v6 in (False, True):
        net = cluster(v6=v6)
        served(net)
        client, service = net.ends(49000)
        fixed = {"tcp_seq": 1, "tcp_ack": 9, "payload_len": 700, "tcp_tsval": 5}
        for _ in range(3):
            net.request(net.packet(client, service, **fixed), "rs1")
            net.wait(300_000_000)
        found = crossed(net.tables("director", "rs1"))
        repeated = found.sights.filter(pl.col("vantage") == 0).group_by("packet").len()
        assert repeated.get_column("len").unique().to_list() == [2]
        assert found.refused == 0


def test_equal_packets_that_nothing_tells_apart_are_refused(cluster) -> None:
    """Three equal IPv6 segments within 20 ms at one place, two at the other: none is joined."""
    net = cluster(v6=True, method="nat", rport=8080)
    served(net)
    client, service = net.ends(49000)
    fixed = {"tcp_seq": 1, "tcp_ack": 9, "payload_len": 700, "tcp_tsval": 5}
    for forwarded in (True, False, True):
        net.request(net.packet(client, service, **fixed), "rs1", forwarded=forwarded)
        net.wait(10_000_000)
    net.wait(2 * SECOND)
    net.connect("rs1")
    case = Case(tuple(net.tables("director", "rs1")))
    (doubtful,) = case.connections.connections.filter(pl.col("client_port") == 49000)["connection"]
    found = case.crossings([doubtful])
    assert found.refused == 1
    assert found.sights.group_by("packet").len().get_column("len").to_list() == [1] * 7
    verdicts = case.packet_contract([doubtful]).select("verdict", "reason").rows()
    assert verdicts == [("unknown", "ambiguous")] * 3


def test_an_exact_double_is_marked_and_no_packet_more(cluster) -> None:
    """A bond shows each frame twice at once."""
    net = cluster()
    served(net)
    recorder = net.recorders["director"]
    rows = [dict(row) for row in recorder.rows]
    arps = {entry["row"] for entry in recorder.arp}
    recorder.rows = [
        row | {"time_ns": row["time_ns"] + 2_000 * again} for row in rows for again in (0, 1)
    ]
    recorder.arp = [{**entry, "row": 2 * entry["row"]} for entry in recorder.arp]
    found = crossed(net.tables("director", "rs1"))
    here = found.sights.filter(pl.col("vantage") == 0)
    assert here.height == 2 * (len(rows) - len(arps))
    assert here.get_column("doubled").sum() == len(rows) - len(arps)
    assert here.get_column("packet").n_unique() == 12


def test_a_super_segment_is_the_whole_of_its_pieces(cluster) -> None:
    """Merged where it was received at the director, cut again on its way to the realserver."""
    net = cluster(method="nat", rport=8080)
    served(net)
    client, service = net.ends(49000)
    net.request(net.packet(client, service, tcp_flags=2, tcp_mss=1460), "rs1")
    common = {"tcp_ack": 9, "tcp_tsval": 5}
    whole = net.packet(client, service, tcp_seq=1, payload_len=4344, **common)
    net.seen("director", {**whole, "ttl": 62}, "router", "director", "in")
    net.wait()
    for number in range(3):
        part = net.packet(client, service, tcp_seq=1 + 1448 * number, payload_len=1448, **common)
        net.relay({**part, "ttl": 62}, "rs1")
    net.wait(2 * SECOND)
    net.connect("rs1")
    case = Case(tuple(net.tables("director", "rs1")))
    (merged,) = case.connections.connections.filter(pl.col("client_port") == 49000)["connection"]
    found = case.crossings([merged])
    pieces = found.sights.filter(pl.col("part_of").is_not_null())
    assert pieces.get_column("packet").n_unique() == 3
    (whole_packet,) = pieces.get_column("part_of").unique()
    assert found.sights.filter(pl.col("packet") == whole_packet).height == 1
    verdicts = case.packet_contract([merged]).select("verdict", "reason").rows()
    assert verdicts == [("forwarded", "egress")] * 2


def test_pieces_that_do_not_make_the_whole_are_none(cluster) -> None:
    """A segment of three was lost by the capture: what is left proves nothing about the rest."""
    net = cluster(method="nat", rport=8080)
    served(net)
    client, service = net.ends(49000)
    net.request(net.packet(client, service, tcp_flags=2, tcp_mss=1460), "rs1")
    whole = net.packet(client, service, tcp_seq=1, tcp_ack=9, payload_len=4344)
    net.seen("director", {**whole, "ttl": 62}, "router", "director", "in")
    net.wait()
    for number in (0, 2):
        part = net.packet(client, service, tcp_seq=1 + 1448 * number, tcp_ack=9, payload_len=1448)
        net.relay({**part, "ttl": 62}, "rs1")
    net.wait(2 * SECOND)
    net.connect("rs1")
    case = Case(tuple(net.tables("director", "rs1")))
    (merged,) = case.connections.connections.filter(pl.col("client_port") == 49000)["connection"]
    found = case.crossings([merged])
    assert found.sights.get_column("part_of").null_count() == found.sights.height
    assert ("unknown", "regrouped") in case.packet_contract([merged])["verdict", "reason"].rows()


def test_later_fragments_belong_to_the_connection(cluster) -> None:
    """They have no ports; the first fragment with their IP ID says whose they are."""
    net = cluster()
    served(net)
    client, service = net.ends(49000, 5060)
    for _ in range(2):
        first = net.packet(client, service, ip_proto=17, payload_len=1472, mf=True, frag_offset=0)
        first |= {"tcp_flags": None, "tcp_seq": None, "tcp_ack": None, "tcp_tsval": None}
        first |= {"tcp_tsecr": None, "ip_len": 1500, "ip_header_len": 20}
        rest = {**first, "src_port": None, "dst_port": None, "mf": False, "frag_offset": 1480}
        rest |= {"ip_len": 120, "payload_len": None}
        net.request(first, "rs1")
        net.request(rest, "rs1")
        net.wait(50_000_000)
    found = crossed(net.tables("director", "rs1"))
    fragments = found.details.filter(pl.col("frag_offset") > 0)
    assert fragments.group_by("packet").len().get_column("len").to_list() == [3, 3]


def test_sequence_numbers_that_the_director_shifted_are_followed(cluster) -> None:
    """An application helper inserted four bytes: all later packets keep IP ID and length."""
    net = cluster(method="nat", rport=8080)
    served(net)
    client, service = net.ends(49000)
    net.request(net.packet(client, service, tcp_flags=2), "rs1")
    for number in range(3):
        packet = net.packet(client, service, tcp_seq=1 + 9 * number, tcp_ack=9, payload_len=9)
        net.seen("director", {**packet, "ttl": 62}, "router", "director", "in")
        net.wait()
        net.relay({**packet, "ttl": 62}, "rs1", tcp_seq=packet["tcp_seq"] + 4)
        net.wait(1_000_000)
    case = Case(tuple(net.tables("director", "rs1")))
    (shifted,) = case.connections.connections.filter(pl.col("client_port") == 49000)["connection"]
    lengths = case.crossings([shifted]).sights.filter(pl.col("vantage") == 0)
    assert lengths.group_by("packet").len().get_column("len").to_list() == [2] * 4


def test_captures_off_the_common_clock_are_joined_by_marks_alone(cluster) -> None:
    """IP IDs name a packet without a clock; what was seen twice without one is refused."""
    net = cluster(method="nat", rport=8080)
    served(net)
    case = Case(tuple(net.tables("director", "rs1", "rs2")))
    from pcapdiag.cluster import packet_crossings

    numbers = case.connections.connections.get_column("connection")
    blind = replace(case.clocks, offset_ns=(0, None, None), error_ns=(0, None, None))
    found = packet_crossings.find(case.vantages, case.topology, case.connections, blind, numbers)
    assert set(found.sights.filter("by_client").group_by("packet").len()["len"]) == {3}
