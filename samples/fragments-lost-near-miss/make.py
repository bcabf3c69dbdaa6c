"""LVS-DR with a UDP service: fragments that arrive, one that does not, a filter that hides them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator import cluster, wire
from simulator.apps import ask
from simulator.everyday import CLEAN
from simulator.frames import every, fragment, sent_by, to_port
from simulator.traffic import browse
from simulator.truth import look, write_sample

if TYPE_CHECKING:
    from pathlib import Path

RADIUS = 1812
STORY = """
The realservers answer RADIUS on UDP port 1812; requests of 2200 bytes travel in two fragments. The
director puts them together, and cuts them again where they leave. All of them arrive but one, whose
second fragment is lost on the way to the router, as packets sometimes are.

rs2 was captured with a filter for ports 80 and 1812. Later fragments have no ports: they came, and
the file does not show them. It looks as if rs2 got first fragments only.
"""


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.dr("fragments-lost-near-miss")
    lab.serve()
    lab.serve_datagrams(RADIUS, 180)
    clients = [f"198.51.100.{n}" for n in range(20, 30)]
    browse(lab, clients=clients, start_s=0.2, every_s=0.9, count=12)
    host = lab.hosts["client-a"]
    server = (lab.vip, RADIUS)
    for number in range(12):
        client = (f"198.51.100.{20 + number}", 50100 + 7 * number)
        ask(host, client, server, 240, at_s=1.3 + 0.7 * number)
        ask(host, client, server, 2200, at_s=2.1 + 0.7 * number)
    lab.disturb(
        "wan",
        lambda header: header.proto == wire.UDP_PROTO and not header.dport,
        None,
        skip=4,
    )
    lab.health_checks(until_s=18)
    lab.capture_all("director", "rs1", "rs2")
    lab.capture("router.pcap", "router", "eth1")
    lab.run(20)
    tap = lab.captured("rs2.pcap").tap
    kept = {item.number for item in tap.seen() if to_port(80)(item) or to_port(RADIUS)(item)}
    tap.frames[:] = [frame for number, frame in enumerate(tap.frames, 1) if number in kept]
    write_sample(
        lab,
        folder,
        description="LVS-DR, UDP; one fragment lost by chance, one capture without later fragments",
        story=STORY,
        look_at=[
            look(
                lab,
                "director.pcap",
                every(fragment(), sent_by(lab, "router")),
                "fragments that come in, one of them alone",
            ),
            look(
                lab,
                "director.pcap",
                every(fragment(), sent_by(lab, "director")),
                "and what goes out again",
            ),
            look(lab, "rs2.pcap", fragment(), "first ones only: the filter has ports"),
        ],
        must_not_report=CLEAN,
    )
