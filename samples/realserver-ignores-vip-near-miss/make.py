"""LVS-DR: a realserver answers, and its answers to one client are lost on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator import cluster
from simulator.everyday import CLEAN
from simulator.frames import of
from simulator.traffic import browse
from simulator.truth import look, write_sample

if TYPE_CHECKING:
    from pathlib import Path

STORY = """
The first five packets from the VIP to one client are lost on the line, and so are those to another:
they repeat their SYNs, which reach the realservers each time, and are answered each time. Both
connections come about in the end. All others are served at once.
"""


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.dr("realserver-ignores-vip-near-miss")
    lab.serve()
    clients = [f"198.51.100.{n}" for n in range(20, 28)]
    browse(lab, clients=clients, start_s=0.3, every_s=0.9, count=10)
    unlucky = [
        lab.flow("unlucky", f"198.51.100.{30 + number}", 44001 + number, 2.0, [("get", 600)])
        for number in range(2)
    ]
    for flow in unlucky:
        lab.disturb(
            "wan",
            lambda header, client=flow.client: (header.dst, header.dport) == client,
            None,
            count=5,
        )
    lab.health_checks(until_s=20)
    lab.capture_all("director", "rs1", "rs2", "router", client="client-a")
    lab.run(24)
    write_sample(
        lab,
        folder,
        description="LVS-DR; answers to two clients are lost on the line for a while",
        story=STORY,
        look_at=[look(lab, "router.pcap", of(*unlucky), "requests repeated, and their answers")],
        must_not_report=CLEAN,
    )
