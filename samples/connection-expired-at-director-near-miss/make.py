"""LVS-DR: long pauses that end well, a realserver's resets, stray packets, a lost SYN."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator import cluster, wire
from simulator.everyday import CLEAN
from simulator.frames import every, flags, of, sent_by
from simulator.traffic import browse
from simulator.truth import look, write_sample

if TYPE_CHECKING:
    from pathlib import Path

STORY = """
Two connections pause for 700 and 890 seconds and go on: the director remembers them for 900. The
realserver of a third restarts its web server in the pause: the request is forwarded to it, as it
should be, and the reset that the client gets has the realserver's MAC. A scanner sends
acknowledgements out of nothing to the VIP, and the director's TCP answers each with a reset, as TCP
must; nobody misses these connections. A SYN from a port that was used a few seconds before is lost
between client and director, and repeated after a second: the director never saw the first.
"""


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.dr("connection-expired-at-director-near-miss")
    lab.serve()
    browse(lab, clients=["198.51.100.20", "198.51.100.21"], start_s=0.2, every_s=0.9, count=8)
    paused = [
        lab.flow(
            "paused",
            f"198.51.100.{24 + number}",
            44001 + 37 * number,
            2.0 + 0.7 * number,
            [("get", 400), ("wait", pause), ("get", 300)],
        )
        for number, pause in enumerate((700.0, 890.0))
    ]
    restarted = lab.flow(
        "restarted", "198.51.100.26", 44091, 3.1, [("get", 500), ("wait", 850.0), ("get", 80)]
    )
    restarted_server = (restarted.service, restarted.client)

    def restart() -> None:
        for host in lab.hosts.values():
            if host.role == "realserver":
                host.tcp.sockets.pop((*restarted_server[0], *restarted_server[1]), None)

    lab.at(400.0, restart)
    reused = [
        lab.flow("reused", "198.51.100.27", 44500, start, [("get", 200)]) for start in (5.0, 9.0)
    ]
    lab.disturb(
        "wan",
        lambda header: (
            header.flags & wire.SYN > 0 and (header.src, header.sport) == reused[0].client
        ),
        None,
        skip=1,
    )
    scanner = lab.hosts["client-a"]
    for number in range(5):
        stray = wire.tcp(
            ("198.51.100.28", 50001 + 7 * number),
            (lab.vip, 80),
            seq=77_000 + number,
            ack=99_000 + number,
            flags=wire.ACK,
            window=1024,
            ident=4000 + number,
            options=[],
        )
        lab.at(12.0 + number, lambda stray=stray: scanner.send(stray))
    lab.health_checks(until_s=20)
    lab.capture_all("director", "rs1", "rs2", "router", client="client-a")
    lab.run(905)
    resets = every(flags(wire.RST, wire.RST), sent_by(lab, "director"))
    by_server = every(of(restarted), flags(wire.RST, wire.RST))
    file = f"{restarted.realserver}.pcap"
    write_sample(
        lab,
        folder,
        description="LVS-DR; long pauses that end well, a restarted server, a scan, a lost SYN",
        story=STORY,
        look_at=[
            look(lab, "director.pcap", of(*paused), "the connections that pause and go on"),
            look(lab, file, by_server, "the realserver's own reset"),
            look(lab, "director.pcap", resets, "the director's answers to the scan"),
            look(
                lab, "client.pcap", of(*reused), "the port used twice; the second SYN is repeated"
            ),
        ],
        must_not_report=CLEAN,
    )
