"""LVS-TUN whose links inside are larger: an MSS of 1460 fits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator import cluster, wire
from simulator.everyday import CLEAN
from simulator.frames import every, flags, ip_length, sent_by
from simulator.traffic import browse
from simulator.truth import look, write_sample

if TYPE_CHECKING:
    from pathlib import Path

INSIDE_MTU = 1600
STORY = """
The realservers announce an MSS of 1460 here, too, and clients upload in packets of 1500 bytes. But
the links between director and realservers take 1600 bytes, as those who build tunnels advise:
tunnel packets of 1520 bytes leave the director and arrive. Nothing is wrong, and the tunnel packets
show it.
"""


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.tun("tunnel-mss-too-large-near-miss")
    for host, port in (("director", "eth0"), ("router", "eth0"), ("router", "eth2")):
        lab.hosts[host].interfaces[port].mtu = INSIDE_MTU
    for host in ("rs1", "rs2"):
        lab.hosts[host].interfaces["eth0"].mtu = INSIDE_MTU
    lab.serve(mss=1460)
    clients = [f"198.51.100.{n}" for n in range(20, 30)]
    browse(lab, clients=clients, start_s=0.3, every_s=0.9, count=8)
    for number in range(6):
        client = f"198.51.100.{30 + number}"
        lab.flow("upload", client, 42011 + 25 * number, 2.2 + 1.1 * number, [("post", 9000)])
    lab.health_checks(until_s=12)
    lab.capture_all("director", "rs1", "rs2")
    lab.run(14)
    promise = every(flags(wire.SYN | wire.ACK), sent_by(lab, "rs1"))
    write_sample(
        lab,
        folder,
        description="LVS-TUN, IPIP; the links inside take 1600 bytes",
        story=STORY,
        look_at=[
            look(lab, "rs1.pcap", promise, "SYN-ACKs with MSS 1460"),
            look(lab, "rs1.pcap", ip_length(1520), "tunnel packets of 1520 bytes"),
        ],
        must_not_report=CLEAN,
    )
