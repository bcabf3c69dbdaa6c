"""LVS-TUN; the realservers announce the MSS of their Ethernet, as they do unless told otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator import cluster, wire
from simulator.everyday import all_but
from simulator.frames import every, flags, icmp, ip_length, of, sent_by
from simulator.traffic import browse
from simulator.truth import look, must, write_sample

if TYPE_CHECKING:
    from pathlib import Path

STORY = """
Two realservers behind an IPIP tunnel announce an MSS of 1460, that of their Ethernet. Clients take
it at its word and upload in packets of 1500 bytes. With 20 bytes in front these are 1520, and the
links inside take 1500: the director refuses each, and tells the client that 1480 would fit. The
uploads arrive, one round trip late. Were the message lost on its way to a client, its upload would
hang for good.
"""


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.tun("tunnel-mss-too-large-ipip")
    lab.serve()
    clients = [f"198.51.100.{n}" for n in range(20, 30)]
    browse(lab, clients=clients, start_s=0.3, every_s=0.9, count=8)
    uploads = [
        lab.flow("upload", f"198.51.100.{30 + n}", 42011 + 25 * n, 2.2 + 1.3 * n, [("post", 9000)])
        for n in range(4)
    ]
    lab.health_checks(until_s=12)
    lab.capture_all("director", "rs1", "rs2")
    lab.run(14)
    told = icmp((3, 4))
    promise = every(flags(wire.SYN | wire.ACK), sent_by(lab, "rs1"))
    write_sample(
        lab,
        folder,
        description="LVS-TUN, IPIP; the realservers' MSS does not fit the tunnel",
        story=STORY,
        look_at=[
            look(lab, "rs1.pcap", promise, "SYN-ACKs with MSS 1460"),
            look(
                lab, "director.pcap", every(of(*uploads), ip_length(1500)), "uploads of 1500 bytes"
            ),
            look(lab, "director.pcap", every(told, sent_by(lab, "director")), "3/4, MTU 1480"),
        ],
        fault="rs1, rs2: announce an MSS of 1460 behind a tunnel that takes 1480 bytes",
        must_report=[
            must(
                lab,
                "tunnel-mss-too-large",
                flows=[],
                hosts=["rs1", "rs2"],
                cause=["uploads-refused", "mss-too-large"],
                direction="to-realserver",
                facts={"inner_mtu": 1480, "mss": 1460, "stalled_connections": 0},
                cited={"director.pcap": told, "rs1.pcap": promise, "rs2.pcap": flags(0x12)},
            )
        ],
        must_not_report=all_but("tunnel-mss-too-large"),
    )
