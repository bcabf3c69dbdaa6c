"""LVS-DR: the router redirects a realserver that fetches updates; nobody obeys, nothing breaks."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from simulator import cluster
from simulator.apps import Browser, Flow, WebServer
from simulator.everyday import CLEAN
from simulator.frames import every, icmp, sent_to, source
from simulator.traffic import browse
from simulator.truth import look, write_sample

if TYPE_CHECKING:
    from pathlib import Path

MIRROR = "192.0.2.130"
STORY = """
Both realservers fetch updates from a mirror (192.0.2.130) that sits behind a second router on their
LAN, 203.0.113.254. Their default gateway is the first router, which forwards the requests back over
the interface they came in on, and so sends redirects to the realservers, as RFC 1812 lets it. They
quote the realservers' own connections from their own addresses; neither the VIP nor a reply to a
client is concerned. The realservers do not accept redirects (accept_redirects is 0) and go on
sending to the first router's MAC; the downloads succeed either way.
"""


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.dr("redirect-to-router-near-miss")
    lab.serve()
    second = cluster.second_router(lab)
    lab.segment("mirrors", cluster.LAN_NS)
    lab.attach("router2", "eth2", "mirrors", "192.0.2.129/28")
    mirror = lab.host("mirror", "server")
    lab.attach("mirror", "eth0", "mirrors", f"{MIRROR}/28")
    mirror.add_route("0.0.0.0/0", "192.0.2.129")
    mirror.tcp.listen(80, partial(WebServer, mirror, lambda _client, _name: None))
    second.send_redirects = False
    lab.hosts["router"].add_route("192.0.2.128/28", "203.0.113.254")
    clients = [f"198.51.100.{n}" for n in range(20, 32)]
    browse(lab, clients=clients, start_s=0.2, every_s=1.0, count=14)
    for number, name in enumerate(("rs1", "rs2", "rs1")):
        host = lab.hosts[name]
        host.accept_redirects = False
        address = host.interfaces["eth0"].own(4)[0]
        steps = [("get", 900.0), ("get", 6000.0), ("wait", 1.2), ("get", 2500.0)]
        update = Flow(900 + number, "update", (address, 51001 + number), (MIRROR, 80), 0, steps)
        start = partial(host.tcp.connect, update.client, update.service, Browser(update))
        lab.at(3.0 + 3.5 * number, start)
    lab.health_checks(until_s=18)
    lab.capture_all("director", "rs1", "rs2", "router")
    lab.run(20)
    to_mirror = every(
        source("203.0.113.11"),
        sent_to(lab, "router"),
        lambda seen: seen.ip is not None and seen.ip.dst == MIRROR,
    )
    write_sample(
        lab,
        folder,
        description="LVS-DR; a router's redirects about the realservers' own traffic, not obeyed",
        story=STORY,
        look_at=[
            look(lab, "rs1.pcap", icmp((5, 1)), "redirects from the router to rs1"),
            look(lab, "rs1.pcap", to_mirror, "rs1 goes on sending to the router's MAC"),
        ],
        must_not_report=CLEAN,
    )
