"""LVS-DR: a realserver loses its link; ARP for it stays unanswered, and its clients with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator import cluster
from simulator.everyday import all_but
from simulator.frames import arp_for, icmp, of, quotes
from simulator.traffic import browse
from simulator.truth import look, must, write_sample

if TYPE_CHECKING:
    from pathlib import Path

FAULT_S = 8.0
STORY = """
At 8 seconds rs2 loses its link. Nothing checks the realservers, so that every second connection
goes on to be scheduled to it. The director's neighbour entry has just been dropped, and it asks for
the MAC of 203.0.113.12 three times, a second apart; nobody answers, and the director tells each
client whose SYN has waited: host unreachable, from its own address, not the VIP. The next SYN
starts the next round. Clients that rs1 gets are served all the while.
"""


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.dr("realserver-gone-arp")
    lab.serve()
    clients = [f"198.51.100.{n}" for n in range(20, 28)]
    browse(lab, clients=clients, start_s=0.3, every_s=0.9, count=6)

    def die() -> None:
        lan = lab.segments["lan"]
        lan.interfaces.remove(lab.hosts["rs2"].interfaces["eth0"])
        lab.director.neighbours.forget("203.0.113.12")

    lab.at(FAULT_S, die)
    late = [
        lab.flow(
            "late",
            f"198.51.100.{20 + number}",
            43001 + 29 * number,
            8.6 + 1.1 * number,
            [("get", 400)],
        )
        for number in range(10)
    ]
    lab.health_checks(until_s=3)
    lab.capture_all("director", "rs1", "router", client="client-a")
    lab.run(40)
    hit = [flow for flow in late if flow.realserver is None]
    asked = arp_for("203.0.113.12", after_s=FAULT_S)
    unreachable = icmp((3, 1))
    write_sample(
        lab,
        folder,
        description="LVS-DR; a realserver without link still gets every second connection",
        story=STORY,
        look_at=[
            look(lab, "director.pcap", asked, "who has 203.0.113.12? Nobody says"),
            look(lab, "director.pcap", unreachable, "host unreachable, from 203.0.113.2"),
            look(lab, "client.pcap", quotes(*hit), "as the clients get it"),
            look(lab, "client.pcap", of(*hit), "the SYNs of those who are not served"),
        ],
        fault="rs2: link down",
        must_report=[
            must(
                lab,
                "realserver-gone",
                flows=hit,
                hosts=["rs2"],
                cause=["arp-unanswered", "host-unreachable"],
                direction="to-realserver",
                cited={"director.pcap": lambda seen: asked(seen) or unreachable(seen)},
            )
        ],
        must_not_report=all_but("realserver-gone"),
    )
