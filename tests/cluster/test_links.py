"""Which flows are linked, by which packets, and which way round a translation stands."""

from __future__ import annotations

import numpy as np
import pytest

from pcapdiag.cluster.matching import identity, links
from pcapdiag.cluster.orientation import oriented


@pytest.mark.parametrize("length", [1, 2, 7, 100])
def test_components_follow_chains_whatever_their_order(length) -> None:
    """A chain of any length is one component, named by its lowest node."""
    left = np.arange(length - 1, dtype=np.uint32)
    order = np.random.default_rng(length).permutation(len(left))
    found = identity.components(length + 1, left[order], (left + 1)[order])
    assert found.tolist() == [0] * length + [length]


def test_components_keep_strangers_apart() -> None:
    """Two chains stay two; a node without an edge stays alone."""
    left, right = np.array([1, 4, 5], np.uint32), np.array([2, 5, 4], np.uint32)
    assert identity.components(6, left, right).tolist() == [0, 1, 1, 3, 4, 4]


def test_the_front_is_where_requests_come_from(cluster) -> None:
    """Requests lose a TTL from front to back, answers from back to front."""
    net = cluster(method="nat", rport=8080)
    net.connect("rs1")
    net.connect("rs2")
    found = links.find(net.tables("director"))
    rows = found.translations.select("front_port", "back_port", "back_lo").rows()
    assert rows == [(80, 8080, net.address[name][1]) for name in ("rs1", "rs2")]


def test_a_masquerading_host_is_no_translation_to_a_server(cluster) -> None:
    """It rewrites the client, so that the server's endpoint is the one that stays."""
    net = cluster(method="none")
    inside, outside = (net.address["rs1"], 40000), (net.address["director"], 40000)
    server = (net.address["client"], 443)
    first = net.packet(inside, server, tcp_seq=77, tcp_flags=2)
    net.seen("director", first, "rs1", "director", "in")
    changed = {**first, "ttl": 63, "src_hi": outside[0][0], "src_lo": outside[0][1]}
    net.seen("director", changed, "director", "router", "out")
    found = links.find(net.tables("director"))
    assert found.translations.is_empty()
    assert found.group.tolist() == [0, 1]


def test_equal_times_link_nothing(cluster) -> None:
    """Two connections of one client to two servers at one instant share no packet."""
    net = cluster(method="none")
    client = (net.address["client"], 40000)
    for host, seq in (("rs1", 1), ("rs2", 2)):
        packet = net.packet(client, (net.address[host], 80), tcp_seq=seq, tcp_flags=2, ttl=62)
        net.seen("director", packet, "router", "director", "in")
    assert links.find(net.tables("director")).group.tolist() == [0, 1]


def test_the_same_request_to_two_servers_is_refused(cluster) -> None:
    """A resolver that asks two servers in equal packets is no load balancer: equal TTLs."""
    net = cluster(method="none")
    client = (net.address["client"], 40000)
    packet = net.packet(client, (net.address["rs1"], 80), tcp_seq=1, tcp_flags=2, ttl=62)
    net.seen("director", packet, "router", "director", "in")
    target = net.address["rs2"]
    twin = {**packet, "dst_hi": target[0], "dst_lo": target[1]}
    net.seen("director", twin, "router", "director", "in")
    found = links.find(net.tables("director"))
    assert found.translations.is_empty()
    assert found.refused == 1


def test_a_request_that_two_realservers_got_joins_neither(cluster) -> None:
    """One packet came and left twice, for rs1 and for rs2: whose it is stays open."""
    net = cluster(method="nat", rport=8080)
    net.connect("rs1")
    net.connect("rs2")
    client, service = net.ends()
    near = net.packet(client, service, tcp_seq=5, tcp_flags=2, ttl=62)
    net.seen("director", near, "router", "director", "in")
    for name in ("rs1", "rs2"):
        net.wait()
        net.relay(near, name)
    found = links.find(net.tables("director"))
    assert len(set(found.group.tolist()[-3:])) == 3
    assert found.refused == 1
    assert found.translations.height == 2


def test_a_packet_that_two_flows_of_one_vantage_have_joins_neither(cluster) -> None:
    """Ports used again, the same numbers and no IP IDs: it may be of the first or the second."""
    net = cluster()
    client, service = net.ends()
    marks = {"ip_id": 0, "tcp_tsval": None, "tcp_tsecr": None}
    for begin in (5, 900_000):
        syn = net.packet(client, service, tcp_seq=begin, tcp_flags=2, ttl=62, **marks)
        rst = net.packet(client, service, tcp_seq=6, tcp_flags=4, ttl=62, **marks)
        for packet in (syn, rst):
            net.seen("router", packet, "router", "director", "out")
            net.wait()
        net.wait(120_000_000_000)
    net.seen("director", rst, "router", "director", "in")
    router, director = net.tables("router", "director")
    assert (router.flows.height, director.flows.height) == (2, 1)
    found = links.find([router, director])
    assert found.group.tolist() == [0, 1, 2]
    assert found.refused >= 1


def test_a_flow_without_its_opening_is_linked_by_later_packets(cluster) -> None:
    """The realserver's capture began in the middle of the connection."""
    net = cluster(method="nat", rport=8080)
    net.connect("rs1", rounds=4)
    net.connect("rs2", rounds=4)
    net.recorders["rs1"].without(set(range(5)))
    found = links.find(net.tables("director", "rs1"))
    backs = found.nodes.filter(found.nodes["resp_port"] == 8080)
    rs1 = backs.filter(backs["resp_lo"] == net.address["rs1"][1]).get_column("node").to_list()
    assert len({int(found.group[node]) for node in rs1}) == 1
    assert len(rs1) == 2


def test_udp_is_oriented_by_who_spoke_first(cluster) -> None:
    """Both ports are high: the first sender is the client; a well-known port is the server's."""
    net = cluster(method="none")
    for ports, first in (((40000, 50000), "rs1"), ((50000, 40000), "rs2"), ((53, 40000), "rs1")):
        one, other = (net.address["rs1"], ports[0]), (net.address["rs2"], ports[1])
        source, target = (one, other) if first == "rs1" else (other, one)
        for ends in ((source, target), (target, source)):
            packet = net.packet(*ends, payload_len=9)
            gone = dict.fromkeys(key for key in packet if key.startswith("tcp_"))
            net.seen("router", packet | gone | {"ip_proto": 17}, "rs1", "rs2", "out")
            net.wait()
    (tables,) = oriented(net.tables("router"))
    flows = tables.flows.sort("first_ns").select("orig_port", "resp_port").rows()
    assert flows == [(40000, 50000), (40000, 50000), (40000, 53)]
    sent = tables.packets.filter("by_orig").select("src_port", "dst_port").rows()
    assert sent == flows


def test_a_masqueraded_flow_without_its_opening_is_no_service(cluster) -> None:
    """Ports alone may take the server for the client; one rewritten address is no proof then."""
    net = cluster(method="none")
    inside, outside = (net.address["rs1"], 900), (net.address["director"], 900)
    server = (net.address["client"], 50000)
    for number in range(3):
        first = net.packet(inside, server, tcp_seq=77 + number, payload_len=1)
        net.seen("director", first, "rs1", "director", "in")
        changed = {**first, "ttl": 63, "src_hi": outside[0][0], "src_lo": outside[0][1]}
        net.seen("director", changed, "director", "router", "out")
    found = links.find(net.tables("director"))
    assert set(found.nodes.get_column("originator_source")) == {"port"}
    assert found.translations.is_empty()


@pytest.mark.parametrize(("later", "looked_at"), [(0, 2), (900_000_000, 2), (3_000_000_000, 0)])
def test_a_port_used_again_is_no_other_half(cluster, later, looked_at) -> None:
    """What one vantage saw of two servers at different times is not one forwarded connection."""
    net = cluster(method="nat", rport=8080)
    client = (net.address["client"], 40000)
    for server in ("rs1", "rs2"):
        packet = net.packet(client, (net.address[server], 8080), tcp_seq=1, tcp_flags=2)
        net.seen("director", packet, "router", "director", "in")
        net.wait(later)
    nodes = identity.nodes(net.tables("director"))
    assert len(links._several_servers(nodes)) == looked_at
