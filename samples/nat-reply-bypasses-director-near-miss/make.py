"""LVS-NAT on one arm: a client calls a realserver by its own address, and is answered."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from simulator import cluster
from simulator.apps import Browser, Flow
from simulator.everyday import CLEAN
from simulator.frames import of
from simulator.traffic import browse
from simulator.truth import look, write_sample

if TYPE_CHECKING:
    from pathlib import Path

STORY = """
An administrator's browser opens pages of rs1 by its own address, 10.1.0.11. The router forwards its
packets to the realserver itself; the answers go to the director, which is the realservers' default
gateway, and which forwards them as a plain router does: the realserver's address is their right
source. The clients of the VIP are served through the director both ways.
"""


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.nat_one_arm("nat-reply-bypasses-director-near-miss")
    lab.serve()
    lab.director.send_redirects = False
    lab.hosts["isp"].add_route("10.1.0.0/24", "192.0.2.1", "eth0")
    clients = [f"198.51.100.{n}" for n in range(20, 28)]
    browse(lab, clients=clients, start_s=0.3, every_s=0.9, count=12)
    visits = [
        Flow(
            900 + number,
            "direct",
            ("198.51.100.30", 51001 + 17 * number),
            ("10.1.0.11", 80),
            2.0 + 3.0 * number,
            [("get", 900.0), ("wait", 0.6), ("get", 5000.0)],
        )
        for number in range(3)
    ]
    host = lab.hosts["client-a"]
    for visit in visits:
        start = partial(host.tcp.connect, visit.client, visit.service, Browser(visit))
        lab.at(visit.start_s, start)
    lab.health_checks(until_s=14)
    lab.capture_all("director", "rs1", "rs2", "router", client="client-a")
    lab.run(16)
    write_sample(
        lab,
        folder,
        description="LVS-NAT on one arm; a client that means a realserver gets its answers",
        story=STORY,
        look_at=[
            look(lab, "director.pcap", of(*visits), "answers that the director routes"),
            look(lab, "client.pcap", of(*visits), "what the client asked for, and got"),
        ],
        must_not_report=CLEAN,
    )
