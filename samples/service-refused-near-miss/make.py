"""LVS-DR: scans, stray UDP and a server that hangs up; nobody who should be served is refused."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from simulator import cluster, wire
from simulator.apps import traceroute
from simulator.everyday import CLEAN
from simulator.frames import every, flags, icmp, sent_by
from simulator.traffic import browse
from simulator.truth import look, write_sample

if TYPE_CHECKING:
    from pathlib import Path

STORY = """
A scanner tries ten ports of the VIP that are no service, and the director's own TCP resets each
SYN, as it should. A traceroute and a misconfigured resolver send UDP to ports of the VIP where
nothing is; port unreachable is the right answer. Nothing of this concerns the service on port 80,
whose clients are all served.
"""


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.dr("service-refused-near-miss")
    lab.serve()
    clients = [f"198.51.100.{n}" for n in range(20, 28)]
    browse(lab, clients=clients, start_s=0.3, every_s=0.9, count=12)
    host = lab.hosts["client-a"]
    for number, port in enumerate((21, 22, 23, 25, 110, 143, 443, 3306, 5432, 8443)):
        probe = wire.tcp(
            ("198.51.100.30", 51000 + number),
            (lab.vip, port),
            seq=1_000_000 + 4096 * number,
            ack=0,
            flags=wire.SYN,
            window=1024,
            ident=7000 + number,
            options=[("MSS", 1460)],
        )
        lab.at(3.0 + 0.02 * number, partial(host.send, probe))
    traceroute(host, "198.51.100.31", lab.vip, start_s=5.0, hops=3)
    for number in range(4):
        query = wire.udp(
            ("198.51.100.32", 53000 + number), (lab.vip, 53), bytes(40), ident=900 + number
        )
        lab.at(7.0 + 1.5 * number, partial(host.send, query))
    lab.health_checks(until_s=14)
    lab.capture_all("director", "rs1", "router", client="client-a")
    lab.run(16)
    resets = every(flags(wire.RST, wire.RST), sent_by(lab, "director"))
    write_sample(
        lab,
        folder,
        description="LVS-DR; a scan, a traceroute and stray queries are refused, rightly",
        story=STORY,
        look_at=[
            look(lab, "director.pcap", resets, "the director's resets to the scanner"),
            look(lab, "director.pcap", icmp((3, 3)), "3/3 from the VIP, about UDP"),
        ],
        must_not_report=CLEAN,
    )
