"""Whose capture it is, who claims which address, and who answered."""

from __future__ import annotations

import pytest

from pcapdiag.addresses import pack_ip, pack_mac
from pcapdiag.cluster.cast import macs
from pcapdiag.flows import passages


def test_the_capturing_host_is_on_every_frame(cluster, mac) -> None:
    """Three neighbours, one host that all frames come from or go to."""
    net = cluster()
    net.connect("rs1")
    net.connect("rs2")
    found = macs.find(net.tables("director"))
    assert found.own == ({mac["director"]},)
    assert found.either == (frozenset(),)


def test_one_of_two_is_not_guessed(cluster, mac) -> None:
    """A realserver of NAT speaks with its director only: either may have captured."""
    net = cluster(method="nat", rport=8080)
    net.connect("rs1")
    found = macs.find(net.tables("rs1"))
    assert found.own == (frozenset(),)
    assert found.either == ({mac["rs1"], mac["director-inside"]},)


def test_directions_tell_the_capturing_host(cluster, mac) -> None:
    """What goes out bears its MAC, even among two."""
    net = cluster(method="nat", rport=8080)
    net.recorders["rs1"].any_interface = True
    net.connect("rs1")
    assert macs.find(net.tables("rs1")).own == ({mac["rs1"]},)


def _flooded(net, recorder: str, packet: dict) -> None:
    """Let a switch that does not hear rs2 send what the director has for it to another, too."""
    for name in ("director", recorder):
        net.seen(name, packet, "director-inside", "rs2", "out")


def test_the_director_is_not_taken_for_the_realserver_whose_switch_floods(
    cluster, mac, analyse
) -> None:
    """rs2's link is down: all that rs1's promiscuous capture holds has the director's MAC."""
    net = cluster(method="nat", rport=8080)
    for _ in range(4):
        net.connect("rs1")
    for number in range(3):
        client, _ = net.ends()
        target = (net.address["rs2"], 8080)
        syn = {"tcp_seq": number * 7919, "tcp_flags": 2, "ttl": 61}
        _flooded(net, "rs1", net.packet(client, target, **syn))
    found = macs.find(net.tables("rs1"))
    assert (found.own, found.either) == (
        (frozenset(),),
        ({mac["rs1"], mac["director-inside"]},),
    )
    labelled = analyse(net.tables("rs1")).topology
    assert labelled.mac_role(mac["director-inside"]) in {"director", None}
    assert labelled.vantage_macs == ({mac["rs1"]},)
    unnamed = analyse(net.tables("rs1", labels=False)).topology
    assert unnamed.mac_role(mac["director-inside"]) in {"director", None}


def test_a_realserver_that_answers_by_a_silent_router_is_on_every_frame(cluster, mac) -> None:
    """Asked by the director, it answers to a router that says nothing: its capture all the same."""
    net = cluster()
    net.arp()
    net.connect("rs1")
    rows = net.recorders["rs1"].rows
    for number in range(3):
        check = net.packet((net.address["director"], 700 + number), (net.address["rs1"], 80))
        net.seen("rs1", check, "director", "rs1", "in")
        net.seen("rs1", check, "rs1", "director", "out")
    to_router = sum(row["eth_dst"] == mac["router"] for row in rows)
    assert 0 < 2 * to_router < len(rows)
    assert not any(row["eth_src"] == mac["router"] for row in rows)
    assert macs.find(net.tables("rs1")).own == ({mac["rs1"]},)


def test_a_mirror_port_is_nobodys_capture(cluster) -> None:
    """Frames among many hosts, none of which is on nearly all of them."""
    net = cluster()
    client, service = net.ends()
    packet = net.packet(client, service, tcp_flags=2)
    for source, target in (("router", "director"), ("director", "rs1"), ("rs2", "router")) * 3:
        net.seen("client", packet, source, target, "in")
        packet = {**packet, "ip_id": packet["ip_id"] + 1}
    found = macs.find(net.tables("client"))
    assert (found.own, found.either) == ((frozenset(),), (frozenset(),))


def test_a_vrrp_master_answers_to_two_macs(cluster, mac) -> None:
    """Frames come for the virtual MAC and leave from the real one."""
    net = cluster()
    virtual = pack_mac("00:00:5e:00:01:07")
    client, service = net.ends()
    for number in range(6):
        packet = net.packet(client, service, tcp_seq=number, ttl=62)
        net.seen("director", packet, "router", "rs9", "in", columns={"eth_dst": virtual})
        away = {**packet, "ttl": 61}
        net.seen("director", away, "director", "rs1" if number % 2 else "rs2", "out")
    assert macs.find(net.tables("director")).own == ({mac["director"], virtual},)


def test_claims_are_answers_and_announcements(cluster, mac, address) -> None:
    """Asking with an address is weaker than answering for it, and probes claim nothing."""
    net = cluster()
    net.arp()
    recorder = net.recorders["director"]
    probe = {**recorder.arp[0], "sender_hi": 0, "sender_lo": 0xFFFF_0000_0000}
    recorder.arp.append(probe)
    found = macs.find(net.tables("director"))
    claims = {row[:3]: row[3:] for row in found.claims.rows()}
    assert claims[mac["director"], *address["vip"]] == (1, 0)
    assert claims[mac["director"], *address["director"]] == (0, 2)
    assert not [key for key in claims if key[2] == 0xFFFF_0000_0000]
    asked = {row[:3] for row in found.questions.rows()}
    assert (mac["router"], *address["vip"]) in asked


def test_answers_have_an_untouched_ttl(cluster, mac) -> None:
    """The realserver's own packets count at the router, relayed ones and a RST do not."""
    net = cluster()
    net.connect("rs1")
    (router,) = net.tables("router")
    assert macs.answers(router).get_column("mac").to_list() == [mac["rs1"]]
    nat = cluster(method="nat")
    nat.connect("rs1")
    (router,) = nat.tables("router")
    assert macs.answers(router).is_empty()
    reset = cluster()
    client, service = reset.ends()
    reset.request(reset.packet(client, service, tcp_seq=1), "rs1", forwarded=False)
    reset.seen("director", reset.packet(service, client, tcp_flags=4), "director", "router", "out")
    (director,) = reset.tables("director")
    assert macs.answers(director).is_empty()


@pytest.mark.parametrize(
    ("text", "local", "four"),
    [
        ("fe80::1", True, False),
        ("febf::1", True, False),
        ("fec0::1", False, False),
        ("2001:db8::1", False, False),
        ("192.0.2.1", False, True),
    ],
)
def test_families(text, local, four) -> None:
    """Link-local addresses belong to no service; mapped ones are IPv4."""
    assert macs.is_link_local(pack_ip(text)) is local
    assert macs.is_v4(pack_ip(text)) is four


def test_passages_are_forwarded_packets_not_doubles(cluster, mac) -> None:
    """Another MAC, a lower TTL or a tunnel header make a passage; an equal frame makes none."""
    net = cluster()
    net.connect("rs1")
    (tables,) = net.tables("director")
    found = passages.find(tables.packets, tables.tunnels)
    assert set(found.get_column("kind")) == {"routed"}
    assert set(found.get_column("ttl_drop")) == {1}
    assert set(found.select("in_dst", "out_src", "out_dst").rows()) == {
        (mac["director"], mac["director"], mac["rs1"])
    }
    tunnel = cluster(method="tun", encapsulation="gre")
    tunnel.connect("rs1")
    (tables,) = tunnel.tables("director")
    found = passages.find(tables.packets, tables.tunnels)
    assert set(found.get_column("kind")) == {"encapsulated"}
    assert set(found.get_column("outer_dst_lo")) == {tunnel.address["rs1"][1]}
    double = cluster(method="nat")
    double.connect("rs1")
    recorder = double.recorders["rs1"]
    recorder.rows = [row for row in recorder.rows for _ in range(2)]
    (tables,) = double.tables("rs1")
    assert tables.packets.get_column("copy_of").null_count() < len(tables.packets)
    assert passages.find(tables.packets, tables.tunnels).is_empty()


def test_a_passage_whose_exit_was_stamped_first_is_turned_round(cluster) -> None:
    """Two interfaces' captures merged by time: the higher TTL is the way in."""
    net = cluster()
    client, service = net.ends()
    packet = net.packet(client, service, tcp_seq=1, ttl=61)
    net.seen("director", packet, "director", "rs1", "out")
    net.seen("director", {**packet, "ttl": 62}, "router", "director", "in")
    (tables,) = net.tables("director")
    assert passages.find(tables.packets, tables.tunnels).select(
        "in_row", "out_row", "ttl_drop"
    ).rows() == [(1, 0, 1)]
