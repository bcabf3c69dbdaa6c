"""LVS-DR with a UDP service; the router's filter knows ports, and later fragments have none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator import cluster
from simulator.apps import ask, traceroute
from simulator.everyday import all_but
from simulator.fragments import is_fragment
from simulator.frames import every, fragment, icmp, source, to_port
from simulator.traffic import browse
from simulator.truth import look, must, write_sample

if TYPE_CHECKING:
    from pathlib import Path

    from simulator import wire
    from simulator.links import Interface

RADIUS = 1812
STORY = """
The realservers answer RADIUS on UDP port 1812. Requests with a certificate in them have 2200 bytes
and travel in two fragments; the others are small. The router in front of the cluster lets in what
goes to port 1812. The second fragment has no ports, so that no such rule matches it: the router
drops it. Its outer side shows both fragments, the director only the first. ip_vs waits for the
second before it looks at the packet at all, and so nothing reaches a realserver. Half a minute
later the director gives up and tells the client so: 11/1, from the VIP.
"""


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.dr("fragments-lost-router")
    lab.serve()
    lab.serve_datagrams(RADIUS, 180)
    outside = lab.hosts["router"].interfaces["eth1"]

    def filtered(data: bytes, _header: wire.Header, interface: Interface) -> bytes:
        if interface is outside and is_fragment(data) and int.from_bytes(data[6:8], "big") & 0x1FFF:
            return b""
        return data

    lab.hosts["router"].rewrites.append(filtered)
    clients = [f"198.51.100.{n}" for n in range(20, 30)]
    browse(lab, clients=clients, start_s=0.2, every_s=0.9, count=12)
    host = lab.hosts["client-a"]
    server = (lab.vip, RADIUS)
    for number in range(8):
        client = (f"198.51.100.{20 + number}", 50100 + 7 * number)
        ask(host, client, server, 240, at_s=1.3 + 0.9 * number)
        ask(host, client, server, 2200, at_s=2.1 + 0.9 * number)
    traceroute(host, "198.51.100.31", lab.vip, start_s=12.0, hops=4)
    lab.health_checks(until_s=44)
    lab.capture_all("director", "rs1", "rs2")
    lab.capture("router.pcap", "router", "eth1")
    lab.run(46)
    lone = every(fragment(first=True), to_port(RADIUS))
    write_sample(
        lab,
        folder,
        description="LVS-DR, UDP; the router's filter goes by ports and drops later fragments",
        story=STORY,
        look_at=[
            look(lab, "router.pcap", fragment(), "both fragments of each large request"),
            look(lab, "director.pcap", fragment(), "only the first ones"),
            look(lab, "director.pcap", every(icmp((11, 1)), source(lab.vip)), "the director says"),
        ],
        fault="router: lets in UDP port 1812 and drops fragments without ports",
        must_report=[
            must(
                lab,
                "fragments-lost",
                cause=["lost-between-captures", "incomplete-on-arrival", "reassembly-timeout"],
                hosts=["router", "director"],
                direction="to-realserver",
                facts={"direction": "to-realserver"},
                cited={"director.pcap": lone, "router.pcap": lone},
            )
        ],
        must_not_report=all_but("fragments-lost"),
    )
