"""LVS-NAT on one arm: a realserver's default gateway is the router, not the director."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator import cluster
from simulator.everyday import all_but
from simulator.frames import every, flags, of, on, sent_by, sent_to
from simulator.traffic import browse
from simulator.truth import look, must, write_sample
from simulator.wire import ACK, RST, SYN

if TYPE_CHECKING:
    from pathlib import Path

STORY = """
rs2 was installed with the network's usual default gateway, the router 10.1.0.1, and nobody made it
the director. Requests reach it translated, from the director's MAC; its SYN-ACK goes to the router
and so to the client, from 10.1.0.12. The client called 203.0.113.10 and answers with a reset; rs2
forgets the connection, the client repeats its SYN, and the same happens again until it gives up.
rs1 has the director as its gateway and serves its half of the clients.
"""


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.nat_one_arm("nat-reply-bypasses-director-gateway")
    lab.serve()
    lab.director.send_redirects = False
    lab.hosts["rs2"].add_route("0.0.0.0/0", "10.1.0.1")
    clients = [f"198.51.100.{n}" for n in range(20, 32)]
    browse(lab, clients=clients, start_s=0.3, every_s=0.9, count=12)
    lab.health_checks(until_s=14)
    lab.capture_all("director", "rs1", "rs2", "router", client="client-a")
    lab.run(24)
    hit = [flow for flow in lab.flows if not flow.ok]
    past = every(of(*hit), sent_by(lab, "rs2"), sent_to(lab, "router"))
    handshake = every(of(*hit), flags(SYN | ACK, SYN | ACK))
    if not hit or on(lab.flows, "rs1") != [flow for flow in lab.flows if flow.ok]:
        raise ValueError("half of the clients are served, by rs1")
    write_sample(
        lab,
        folder,
        description="LVS-NAT on one arm; a realserver answers past the director",
        story=STORY,
        look_at=[
            look(lab, "rs2.pcap", past, "SYN-ACKs to the router's MAC"),
            look(lab, "client.pcap", handshake, "as the client gets them, from 10.1.0.12"),
            look(lab, "client.pcap", every(of(*hit), flags(RST, RST)), "and what it says to them"),
        ],
        fault="rs2: ip route replace default via 10.1.0.1",
        must_report=[
            must(
                lab,
                "nat-reply-bypasses-director",
                flows=hit,
                hosts=["rs2"],
                cause="reply-bypasses-director",
                direction="to-client",
                facts={"from_the_start": len(hit)},
                cited={"rs2.pcap": past, "client.pcap": handshake},
            )
        ],
        must_not_report=all_but("nat-reply-bypasses-director"),
    )
