"""LVS-DR: the VIP is asked for and announced many times; another address has two owners."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from simulator import cluster, wire
from simulator.apps import ping
from simulator.everyday import CLEAN
from simulator.frames import arp_answers
from simulator.links import BROADCAST
from simulator.neighbours import ARP, UNKNOWN
from simulator.traffic import browse
from simulator.truth import look, write_sample

if TYPE_CHECKING:
    from pathlib import Path

OTHER = "203.0.113.50"
STORY = """
The router forgets the VIP's MAC every few seconds, asks, and gets one answer each time; the
director announces the VIP by gratuitous ARP five times, as keepalived does. Two printers on the LAN
(here rs1 and rs2 play them) were given the same address, 203.0.113.50, and both answer for it: a
nuisance, and none of the cluster's.
"""


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.dr("vip-arp-conflict-near-miss")
    lab.serve()
    for name in ("rs1", "rs2"):
        lab.hosts[name].neighbours.careless.add(OTHER)
        lab.hosts[name].loopback.add(OTHER)
    router = lab.hosts["router"]
    clients = [f"198.51.100.{n}" for n in range(20, 32)]
    browse(lab, clients=clients, start_s=0.3, every_s=0.9, count=12)
    interface = lab.director.interfaces["eth0"]
    for number in range(5):
        gratuitous = wire.arp(1, interface.mac, lab.vip, UNKNOWN, lab.vip)
        lab.at(4.0 + number, partial(interface.send, BROADCAST, ARP, gratuitous))
    for at_s in (3.0, 5.5, 8.2):
        lab.at(at_s, lambda: router.neighbours.forget(lab.vip))
        lab.at(at_s, lambda: router.neighbours.forget(OTHER))
    ping(router, "203.0.113.1", OTHER, start_s=2.0, count=8)
    lab.capture_all("director", "rs2", "router")
    lab.run(14)
    write_sample(
        lab,
        folder,
        description="LVS-DR; one owner of the VIP, two of another address",
        story=STORY,
        look_at=[
            look(lab, "router.pcap", arp_answers(lab.vip), "one answer each about the VIP"),
            look(lab, "router.pcap", arp_answers(OTHER), "two answers each about 203.0.113.50"),
        ],
        must_not_report=CLEAN,
    )
