"""LVS-DR: connections that pause for more than 900 seconds are unknown to the director."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator import cluster
from simulator.everyday import all_but
from simulator.frames import every, flags, of, sent_by
from simulator.traffic import browse
from simulator.truth import look, must, write_sample
from simulator.wire import RST

if TYPE_CHECKING:
    from pathlib import Path

STORY = """
Four clients keep a connection open and say nothing for a quarter of an hour and a little more, as
database pools do over lunch. The director forgets them after 900 seconds and tells nobody. The next
request finds no entry; ip_vs schedules nothing but SYNs, so that the packet goes to the director's
own TCP, which answers with a reset from the VIP: IP ID 0, TTL 64, the director's MAC. The
realservers learn nothing and keep their sockets.

Two other clients pause for 600 and for 880 seconds; their next request is forwarded and answered.
"""
PAUSES_S = (906.0, 911.5, 930.0, 951.0)


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.dr("connection-expired-at-director-idle")
    lab.serve()
    browse(lab, clients=["198.51.100.20", "198.51.100.21"], start_s=0.2, every_s=0.9, count=8)
    steps = [("get", 400), ("wait", 0.0), ("get", 300)]
    hit = [
        lab.flow(
            "idle",
            f"198.51.100.{24 + number}",
            44001 + 37 * number,
            2.0 + 0.7 * number,
            [steps[0], ("wait", pause), steps[2]],
        )
        for number, pause in enumerate(PAUSES_S)
    ]
    for number, pause in enumerate((600.0, 880.0)):
        lab.flow(
            "survivor",
            f"198.51.100.{30 + number}",
            45001 + number,
            3.0,
            [steps[0], ("wait", pause), steps[2]],
        )
    browse(lab, clients=["198.51.100.33", "198.51.100.34"], start_s=905, every_s=5, count=8)
    lab.health_checks(until_s=20)
    lab.capture_all("director", "rs1", "router", client="client-a")
    lab.run(958)
    resets = every(of(*hit), flags(RST, RST), sent_by(lab, "director"))
    write_sample(
        lab,
        folder,
        description="LVS-DR; connections that are quiet for 15 minutes are reset by the director",
        story=STORY,
        look_at=[
            look(lab, "director.pcap", resets, "resets from the VIP, by the director's MAC"),
            look(lab, "client.pcap", every(of(*hit), flags(RST, RST)), "as the client gets them"),
        ],
        fault="director: the default timeout of 900 s, and clients without keepalive",
        must_report=[
            must(
                lab,
                "connection-expired-at-director",
                flows=hit,
                hosts=["director"],
                cause="entry-expired",
                direction="to-realserver",
                facts={"timeout_s": 900, "refused_with": "reset"},
                cited={"director.pcap": resets},
            )
        ],
        must_not_report=all_but("connection-expired-at-director"),
    )
