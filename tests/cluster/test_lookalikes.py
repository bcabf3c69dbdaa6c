"""Balancers whose packets look like IPVS's, and kube-proxy, which is IPVS: the same answers."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import replace

import polars as pl
import pytest
from ipvs_model import Packet, World, ip_header
from modelled import modelled

from pcapdiag.site import parse

SITE = """
[[service]]
vip = "203.0.113.10"
port = 80
encapsulation = "gue"
tunnel_port = {}
"""


class Katran(World):
    """An XDP program: no TTL is lowered, and the outer source is made of a hash of the flow."""

    ttl_step = 0

    def tunnelled(self, packet: Packet, name: str) -> bytes:
        """Return IPIP from 172.16.0.0/16, as encap_v4 of Katran's pckt_encap.h makes it."""
        return self._outer(packet, name, 4, packet.bytes())

    def _outer(self, packet: Packet, name: str, proto: int, inner: bytes) -> bytes:
        source = str(ipaddress.ip_address("172.16.0.1") + packet.owner * 7 % 60_000)
        outer = Packet(0, 0, source, self.realservers[name], proto, b"", None, 0, 64)
        return ip_header(outer, len(inner)) + inner


class KatranGue(Katran):
    """The same in GUE of version 1: the IP header follows UDP directly, on port 9886."""

    port_of_tunnel = 9886

    def tunnelled(self, packet: Packet, name: str) -> bytes:
        """Return the packet behind UDP."""
        inner = self._behind_udp(packet)
        head = struct.pack(">HHHH", 31_000 + packet.owner, self.port_of_tunnel, 8 + len(inner), 0)
        return self._outer(packet, name, 17, head + inner)

    def _behind_udp(self, packet: Packet) -> bytes:
        return packet.bytes()


class Glb(KatranGue):
    """GitHub's director: GUE of version 0 with private data that names the second-choice proxy."""

    port_of_tunnel = 19523

    def _behind_udp(self, packet: Packet) -> bytes:
        chain = struct.pack(">HBB", 0, 0, 1) + ipaddress.ip_address("203.0.113.12").packed
        return struct.pack(">BBH", len(chain) // 4, 4, 0) + chain + packet.bytes()


class KubeProxy(World):
    """Pods in a network of their own behind the node, which is director and gateway at once."""

    def __init__(self, seed: int, *, masquerade: bool) -> None:
        """Put the pods behind the node."""
        super().__init__(seed, ("nat", None), v6=False)
        self.masquerade = masquerade
        self.realservers = {
            name: f"10.244.1.{10 + number}" for number, name in enumerate(self.realservers)
        }

    def translated(self, packet: Packet, name: str) -> Packet:
        """Return the packet for the pod, from the node's own address where that is asked for."""
        away = super().translated(packet, name)
        if not self.masquerade:
            return away
        port = struct.pack(">H", 20_000 + packet.owner)
        return replace(away, src="10.244.1.1", body=port + away.body[2:])


def answered(world: World, folder, *names: str, labelled: bool = False, site=None):
    """Return what the program makes of a world's captures."""
    world.run(8)
    return modelled(world, names, folder, labelled=labelled, site=site)


@pytest.mark.parametrize("names", [("director",), ("director", "rs1", "rs2"), ("rs1", "rs2")])
def test_katran_is_a_director_of_tun(tmp_path, names) -> None:
    """It forwards one way into IPIP, whatever its outer addresses are."""
    found = answered(Katran(3, ("tun", "ipip"), v6=False), tmp_path, *names)
    services = found.case.topology.services
    assert {(item.method, item.encapsulation) for item in services} == {("tun", "ipip")}
    table = found.case.connections.connections
    assert table.get_column("realserver_lo").null_count() == 0
    if "director" in names:
        assert found.case.role(0) == "director"
        judged = found.case.packet_contract(table.get_column("connection").to_list())
        assert set(judged.get_column("verdict")) <= {"forwarded", "swallowed"}
        assert len(judged) > 20


@pytest.mark.parametrize("kind", [KatranGue, Glb])
def test_gue_on_another_port_is_read_where_the_site_names_it(tmp_path, kind) -> None:
    """And not guessed where it does not: other UDP may use that port."""
    site = parse(SITE.format(kind.port_of_tunnel))
    found = answered(kind(4, ("tun", "gue"), v6=False), tmp_path, "director", "rs1", site=site)
    services = found.case.topology.services
    assert {(item.method, item.encapsulation) for item in services} == {("tun", "gue")}
    assert found.case.connections.connections.get_column("realserver_lo").null_count() == 0
    unread = modelled(found.world, ("director", "rs1"), tmp_path, labelled=False)
    assert {item.method for item in unread.case.topology.services} <= {None}


@pytest.mark.parametrize("names", [("director",), ("director", "rs1", "rs2")])
def test_kube_proxy_is_a_director_of_nat(tmp_path, names) -> None:
    """The pods are the realservers, each connection's is known."""
    found = answered(KubeProxy(5, masquerade=False), tmp_path, *names)
    assert {item.method for item in found.case.topology.services} == {"nat"}
    pods = {ipaddress.ip_address(text) for text in found.world.realservers.values()}
    table = found.case.connections.connections
    rows = table.select("realserver_lo").drop_nulls().to_series().unique()
    assert {ipaddress.ip_address(low & 0xFFFFFFFF) for low in rows} <= pods
    assert table.get_column("realserver_lo").null_count() == 0


@pytest.mark.parametrize("names", [("director",), ("director", "rs1", "rs2")])
def test_masquerading_in_both_directions_is_not_called_a_fault(tmp_path, names) -> None:
    """Both ends are rewritten: pods see the node only. Nothing is joined, nothing is missed."""
    found = answered(KubeProxy(5, masquerade=True), tmp_path, *names)
    said = [note for note in found.case.topology.notes if "both ends" in note]
    assert said
    assert all("203.0.113.10:80 go on from 10.244.1.1 to 10.244.1.1" in note for note in said)
    plain = answered(KubeProxy(5, masquerade=False), tmp_path, *names)
    assert not [note for note in plain.case.topology.notes if "both ends" in note]
    assert {item.method for item in found.case.topology.services} <= {None, "nat"}
    numbers = found.case.connections.connections.get_column("connection").to_list()
    verdicts = found.case.packet_contract(numbers).get_column("verdict")
    assert not set(verdicts.drop_nulls()) - {"unknown", "forwarded"}
    true: dict[int, set[int]] = {}
    for packet, index, row in (
        found.case.crossings(numbers).sights.select("packet", "vantage", "row").iter_rows()
    ):
        true.setdefault(packet, set()).add(found.truth[index][row].uid)
    assert max(len(uids) for uids in true.values()) == 1


def test_ipv6_inside_ipv4_is_ipip(tmp_path) -> None:
    """A VIP of IPv6 whose realservers have IPv4 addresses (ipvsadm -6 with -i)."""

    class Mixed(World):
        def tunnelled(self, packet: Packet, name: str) -> bytes:
            number = list(self.realservers).index(name)
            outer = Packet(
                0, 0, "192.0.2.2", f"192.0.2.{11 + number}", 41, b"", None, 0, packet.ttl
            )
            inner = packet.bytes()
            return ip_header(outer, len(inner)) + inner

    found = answered(Mixed(6, ("tun", "ipip"), v6=True), tmp_path, "director", "rs1", "rs2")
    services = found.case.topology.services
    assert {(item.method, item.encapsulation) for item in services} == {("tun", "ipip")}
    ends = {address for item in services for address in item.realservers}
    assert {ipaddress.ip_address(low & 0xFFFFFFFF).exploded for _, low in ends} <= {
        f"192.0.2.{number}" for number in (11, 12, 13)
    }
    assert found.case.connections.connections.filter(pl.col("ambiguous")).is_empty()
