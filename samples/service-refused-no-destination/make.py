"""LVS-DR: health checks take every realserver out, and each request gets port unreachable."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator import cluster
from simulator.everyday import all_but
from simulator.frames import icmp, quotes
from simulator.traffic import browse
from simulator.truth import look, must, write_sample

if TYPE_CHECKING:
    from pathlib import Path

GONE_S, BACK_S = 8.0, 15.0
STORY = """
At 8 seconds a health check that asks for a page which was renamed calls both realservers dead, and
the director takes them out of the service; at 15 seconds somebody mends the check. In between
ip_vs has a virtual service without destinations: each SYN is answered at once with port unreachable
from the VIP, by the director's MAC, and the client's connect() fails with "connection refused".
Established connections go on: their entries still name their realserver.
"""


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.dr("service-refused-no-destination")
    lab.serve()
    service = lab.director.services[0]
    realservers = list(service.realservers)
    lab.at(GONE_S, service.realservers.clear)
    lab.at(BACK_S, lambda: service.realservers.extend(realservers))
    clients = [f"198.51.100.{n}" for n in range(20, 26)]
    browse(lab, clients=clients, start_s=0.3, every_s=0.9, count=8)
    lab.flow("going-on", "198.51.100.30", 41500, 6.0, [("get", 300), ("wait", 4.0), ("get", 700)])
    hit = [
        lab.flow(
            "refused", f"198.51.100.{26 + number % 4}", 42003 + 31 * number, at_s, [("get", 90)]
        )
        for number, at_s in enumerate((8.4, 9.1, 10.6, 11.2, 12.9, 14.3))
    ]
    browse(lab, clients=clients, start_s=15.5, every_s=0.9, count=4)
    lab.health_checks(until_s=7)
    lab.capture_all("director", "rs1", "router", client="client-a")
    lab.run(22)
    refused = icmp((3, 3))
    write_sample(
        lab,
        folder,
        description="LVS-DR; no realserver is left in the service for seven seconds",
        story=STORY,
        look_at=[
            look(lab, "director.pcap", refused, "3/3 from the VIP, each quoting a SYN"),
            look(lab, "client.pcap", quotes(*hit), "as the client gets them"),
        ],
        fault="director: every realserver removed by its health check",
        must_report=[
            must(
                lab,
                "service-refused",
                flows=hit,
                hosts=["director"],
                cause="no-destination",
                facts={"emitter": "director"},
                cited={"director.pcap": refused},
            )
        ],
        must_not_report=all_but("service-refused"),
    )
