"""LVS-DR: a realserver is taken out before it dies; requests are lost twice; nobody is missed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator import cluster
from simulator.everyday import CLEAN
from simulator.frames import arp_for, of
from simulator.traffic import browse
from simulator.truth import look, write_sample

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from simulator import wire

STORY = """
At 7 seconds rs2 is taken out of the service, and two seconds later, when its last connection is
over, it is switched off. The director's health check goes on to ask for its MAC, and nobody
answers; no client misses it. One client's request and one client's SYN are lost twice in a row on
the way and come through at the third time.
"""


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.dr("realserver-gone-near-miss")
    lab.serve()
    clients = [f"198.51.100.{n}" for n in range(20, 28)]
    browse(lab, clients=clients, start_s=0.3, every_s=0.5, count=8)
    service = lab.director.services[0]
    lab.at(7.0, lambda: service.realservers.remove("203.0.113.12"))

    def die() -> None:
        lan = lab.segments["lan"]
        lan.interfaces.remove(lab.hosts["rs2"].interfaces["eth0"])
        lab.director.neighbours.forget("203.0.113.12")

    lab.at(9.5, die)
    unlucky = [
        lab.flow("unlucky", "198.51.100.35", 44001, 10.0, [("get", 400)]),
        lab.flow("unlucky", "198.51.100.35", 44032, 11.0, [("get", 400)]),
    ]
    lab.disturb("wan", _from(unlucky[0].client, data=True), None, count=2)
    lab.disturb("wan", _from(unlucky[1].client, data=False), None, count=2)
    clients = [f"198.51.100.{n}" for n in range(28, 35)]
    browse(lab, clients=clients, start_s=10.5, every_s=1.1, count=8)
    lab.health_checks(until_s=25)
    lab.capture_all("director", "rs1", "router", client="client-a")
    lab.run(28)
    service.realservers.append("203.0.113.12")  # it was one, as the truth has to say
    write_sample(
        lab,
        folder,
        description="LVS-DR; a realserver that was taken out dies, and nobody misses it",
        story=STORY,
        look_at=[
            look(lab, "director.pcap", arp_for("203.0.113.12", after_s=9.5), "health checks' ARP"),
            look(lab, "client.pcap", of(*unlucky), "what is lost twice"),
        ],
        must_not_report=CLEAN,
    )


def _from(client: tuple[str, int], *, data: bool) -> Callable[[wire.Header], bool]:
    def wanted(header: wire.Header) -> bool:
        return (header.src, header.sport) == client and bool(header.payload) == data

    return wanted
