"""LVS-DR: a realserver answers ARP for the VIP, and the router believes it now and then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator import cluster
from simulator.everyday import all_but
from simulator.frames import arp_answers, every, sent_by, sent_to
from simulator.traffic import browse
from simulator.truth import look, must, write_sample

if TYPE_CHECKING:
    from pathlib import Path

STORY = """
After an update arp_ignore of rs2 is 0 again: it answers ARP for the VIP on its loopback. Each time
the router asks for 203.0.113.10, two hosts answer, and it believes one. While that is rs2, all
requests go to it past the director; connections that rs1 holds are reset by rs2, which does not
know them, and one that began at rs2 is reset by the director later. The director sees nothing of
rs2's answers, which the switch brings to the router alone.
"""


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.dr("vip-arp-conflict-realserver")
    lab.serve()
    lab.hosts["rs2"].neighbours.careless.add(lab.vip)
    router = lab.hosts["router"]
    clients = [f"198.51.100.{n}" for n in range(20, 32)]
    browse(lab, clients=clients, start_s=0.3, every_s=0.9, count=12)
    for at_s in (3.0, 5.5, 8.2):
        lab.at(at_s, lambda: router.neighbours.forget(lab.vip))
    lab.capture_all("director", "rs2", "router")
    lab.run(14)
    answers = arp_answers(lab.vip)
    astray = every(sent_by(lab, "router"), sent_to(lab, "rs2"))
    write_sample(
        lab,
        folder,
        description="LVS-DR; a realserver answers ARP for the VIP, too",
        story=STORY,
        look_at=[
            look(lab, "router.pcap", answers, "203.0.113.10 is at ... one MAC, then the other"),
            look(lab, "router.pcap", astray, "requests that go to rs2 past the director"),
        ],
        fault="rs2: sysctl -w net.ipv4.conf.all.arp_ignore=0",
        must_report=[
            must(
                lab,
                "vip-arp-conflict",
                hosts=["director", "rs2"],
                cause="realserver-answers",
                facts={"vip": lab.vip},
                cited={"router.pcap": answers},
            )
        ],
        may_report=["connection-expired-at-director"],
        must_not_report=all_but("vip-arp-conflict", "connection-expired-at-director"),
    )
