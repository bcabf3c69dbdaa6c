"""LVS-TUN with a narrow way to the realservers: a stale MTU first, then the right one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator import cluster
from simulator.everyday import all_but
from simulator.frames import every, has_data, icmp, of, sent_by
from simulator.traffic import browse
from simulator.truth import look, write_sample

if TYPE_CHECKING:
    from pathlib import Path

FARM_MTU = 1400
STORY = """
The way from the router to the realservers takes 1400 bytes. A client uploads in packets of 1500
bytes; the director, which puts 20 bytes around them, answers that 1480 would fit. It does not: the
router says so about the director's own tunnel packet, with MTU 1400, and the director passes that
on as a message of its own. But its first one still names 1480, the MTU of the route it had cached,
about a packet of exactly 1480 bytes: useless to the client. When the client repeats the packet, the
director knows better and names 1380. From then on everything fits.

A message that names an MTU which its packet did not exceed is unusable only where no better one
follows. What can be said of this cluster is that its realservers announce an MSS of 1460, whose
segments do not fit the tunnel.
"""


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.tun("icmp-error-unusable-near-miss")
    lab.serve()
    lab.hosts["router"].interfaces["eth2"].mtu = FARM_MTU
    clients = [f"198.51.100.{n}" for n in range(20, 26)]
    browse(lab, clients=clients, start_s=0.3, every_s=0.9, count=4)
    uploads = [
        lab.flow("upload", "198.51.100.30", 42011, 4.2, [("post", 9000)]),
        lab.flow("upload", "198.51.100.31", 42036, 6.2, [("post", 7000)]),
    ]
    lab.health_checks(until_s=14)
    lab.capture_all("director", "rs1", "rs2", client="client-a")
    lab.run(16)
    write_sample(
        lab,
        folder,
        description="LVS-TUN; the director's first message names a stale MTU, the next is right",
        story=STORY,
        look_at=[
            look(lab, "director.pcap", icmp((3, 4)), "3/4 in and out: 1480, 1400, 1480, 1380"),
            look(lab, "client.pcap", every(of(*uploads), has_data), "the uploads, which arrive"),
            look(lab, "client.pcap", every(icmp((3, 4)), sent_by(lab, "isp", "eth1")), "told"),
        ],
        may_report=["tunnel-mss-too-large"],
        must_not_report=all_but("tunnel-mss-too-large"),
    )
