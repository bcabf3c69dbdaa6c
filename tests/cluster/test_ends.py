"""At which end of a link between two hosts a capture was taken, and when nothing tells."""

from __future__ import annotations

import pytest

from pcapdiag.cluster import topology
from pcapdiag.cluster.cast.observed import observe
from pcapdiag.cluster.orientation import oriented


def own(vantages):
    """Return whose MACs are known per vantage, and which stayed two."""
    found = observe(oriented(vantages)).macs
    return found.own, found.either


@pytest.mark.parametrize("clock", ["steady", "ahead", "drifting"])
def test_what_a_host_sends_is_seen_there_first(cluster, mac, clock) -> None:
    """Two captures of one link tell whose each is, whatever their clocks say."""
    net = cluster(method="nat", rport=8080)
    if clock != "steady":
        net.recorders["rs1"].clock_ns = -3_600_000_000_000
    net.recorders["rs1"].drift_ppm = 100.0 if clock == "drifting" else 0.0
    for _ in range(4):
        net.connect("rs1")
        net.wait(20_000_000_000)
    net.recorders["director"].rows = [
        row for row in net.recorders["director"].rows if row["interface"] == 1
    ]
    vantages = net.tables("rs1", "director", labels=False)
    assert own(vantages) == (({mac["rs1"]}, {mac["director-inside"]}), (frozenset(),) * 2)


def test_roles_follow_without_a_label(cluster) -> None:
    """A realserver of NAT is known by its captures where the director's are there, too."""
    net = cluster(method="nat", rport=8080)
    for name in ("rs1", "rs2"):
        net.connect(name)
    found = topology.infer(net.tables("director", "rs1", "rs2", labels=False), None)
    assert [role.role for role in found.roles] == ["director", "realserver", "realserver"]


def test_two_captures_of_one_place_tell_nothing(cluster, mac) -> None:
    """A host's frames come to both at once: that is not proof of two ends."""
    net = cluster(method="nat", rport=8080)
    net.connect("rs1")
    both = frozenset({mac["rs1"], mac["director-inside"]})
    assert own(net.tables("rs1", "rs1", labels=False)) == ((frozenset(),) * 2, (both,) * 2)


def test_one_way_tells_nothing(cluster, mac) -> None:
    """The distance of two clocks looks like a way that takes time."""
    net = cluster(method="nat", rport=8080)
    net.connect("rs1")
    for recorder in net.recorders.values():
        recorder.rows = [row for row in recorder.rows if row["eth_dst"] == mac["rs1"]]
    assert own(net.tables("director", "rs1", labels=False))[0] == (frozenset(),) * 2


def test_who_passes_packets_on_between_interfaces_is_the_capturing_host(cluster, mac) -> None:
    """Each interface shows two MACs; those it comes in and goes out by are the host's."""
    net = cluster(method="none")
    client, service = net.ends()
    for number in range(4):
        packet = net.packet(client, service, tcp_seq=number, ttl=62)
        net.seen("director", packet, "router", "director", "in")
        net.wait()
        net.seen("director", {**packet, "ttl": 61}, "director-inside", "rs1", "out")
    assert own(net.tables("director", labels=False)) == (
        ({mac["director"], mac["director-inside"]},),
        (frozenset(),),
    )


def test_who_sends_packets_back_by_the_same_interface_need_not_have_captured(cluster, mac) -> None:
    """Both ends of the link see that."""
    net = cluster(method="none")
    client, service = net.ends()
    for number in range(4):
        packet = net.packet(client, service, tcp_seq=number, ttl=62)
        net.seen("director", packet, "router", "director", "in")
        net.wait()
        net.seen("director", {**packet, "ttl": 61}, "director", "router", "out")
    assert own(net.tables("director", labels=False)) == (
        (frozenset(),),
        (frozenset({mac["router"], mac["director"]}),),
    )
