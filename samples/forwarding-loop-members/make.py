"""LVS-DR: a realserver without the VIP routes requests back to the director."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator import cluster
from simulator.everyday import all_but
from simulator.frames import every, icmp, of
from simulator.traffic import browse
from simulator.truth import look, must, write_sample

if TYPE_CHECKING:
    from pathlib import Path

STORY = """
rs2 was a router once: it forwards, has a route for the VIP to the director, and lost the VIP on its
loopback at a reboot. What the director sends it for 203.0.113.10 it sends back; the director has an
entry for the connection and sends it there again. Each SYN goes round until its TTL is spent, some
sixty frames later, and the client is told time exceeded. The clients of rs1 are served.
"""


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.dr("forwarding-loop-members")
    lab.serve()
    rs2 = lab.hosts["rs2"]
    rs2.loopback.discard(lab.vip)
    rs2.forwarding = True
    rs2.add_route(f"{lab.vip}/32", "203.0.113.2")
    clients = [f"198.51.100.{n}" for n in range(20, 28)]
    browse(lab, clients=clients, start_s=0.3, every_s=0.9, count=8)
    lab.capture_all("director", "rs1", "router", client="client-a")
    lab.run(12)
    # rs2 hands requests to the director as a director does to a realserver: it counts as one.
    lab.director.services[0].realservers.append("203.0.113.2")
    hit = [flow for flow in lab.flows if not flow.ok]
    looping = every(of(*hit), lambda seen: seen.ip is not None and seen.ip.ttl < 60)
    write_sample(
        lab,
        folder,
        description="LVS-DR; a realserver sends requests back to the director",
        story=STORY,
        look_at=[
            look(lab, "director.pcap", looping, "SYNs that come by with falling TTL"),
            look(lab, "client.pcap", icmp((11, 0)), "time exceeded"),
        ],
        fault="rs2: ip addr del 203.0.113.10/32 dev lo; ip route add 203.0.113.10 via 203.0.113.2",
        must_report=[
            must(
                lab,
                "forwarding-loop",
                flows=hit,
                hosts=["director", "rs2"],
                cause="members-loop",
                cited={"director.pcap": of(*hit)},
            )
        ],
        must_not_report=all_but("forwarding-loop"),
    )
