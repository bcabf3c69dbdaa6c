"""LVS-DR: a realserver came back from a reboot without the VIP on its loopback."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator import cluster
from simulator.everyday import all_but
from simulator.frames import every, of, sent_to
from simulator.traffic import browse
from simulator.truth import look, must, write_sample

if TYPE_CHECKING:
    from pathlib import Path

STORY = """
rs2 lost the VIP on its loopback at a reboot, for the alias was never made permanent. It answers
ARP, ping and the director's health checks, all of which ask for 203.0.113.12. Requests for the VIP
arrive, by rs2's own MAC, and Linux drops what is for an address it does not hold. Their clients
repeat the SYN until they give up; those of rs1 are served.
"""


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.dr("realserver-ignores-vip-missing")
    lab.serve()
    lab.hosts["rs2"].loopback.discard(lab.vip)
    clients = [f"198.51.100.{n}" for n in range(20, 30)]
    browse(lab, clients=clients, start_s=0.3, every_s=0.9, count=10)
    lab.health_checks(until_s=20)
    lab.capture_all("director", "rs1", "rs2", "router", client="client-a")
    lab.run(24)
    hit = [flow for flow in lab.flows if not flow.ok]
    arriving = every(of(*hit), sent_to(lab, "rs2"))
    write_sample(
        lab,
        folder,
        description="LVS-DR; a realserver without the VIP drops every request in silence",
        story=STORY,
        look_at=[
            look(lab, "rs2.pcap", arriving, "requests that arrive; nothing answers them"),
            look(lab, "client.pcap", of(*hit), "SYNs that are repeated"),
        ],
        fault="rs2: ip addr del 203.0.113.10/32 dev lo",
        must_report=[
            must(
                lab,
                "realserver-ignores-vip",
                flows=hit,
                hosts=["rs2"],
                cause="vip-not-configured",
                direction="to-realserver",
                facts={"answered_before": 0},
                cited={"rs2.pcap": arriving},
            )
        ],
        must_not_report=all_but("realserver-ignores-vip"),
    )
