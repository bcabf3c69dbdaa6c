"""LVS-DR; a router of the old kind says "fragmentation needed" and names no MTU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator import cluster
from simulator.everyday import all_but
from simulator.faults import name_mtu
from simulator.frames import every, has_data, icmp, ip_length, of, source
from simulator.traffic import browse
from simulator.truth import look, must, write_sample

if TYPE_CHECKING:
    from pathlib import Path

STORY = """
Clients 198.51.100.150 to .153 sit behind a link of 1400 bytes. The router before it, 192.0.2.2,
answers full-sized packets with fragmentation needed, as it should, but with next-hop MTU 0: it is
from before RFC 1191. The director passes the messages on. The realservers take 552 for 0, the least
that Linux believes (net.ipv4.route.min_pmtu), and send without DF from then on: the pages arrive,
in packets of 552 bytes, which any router may cut to pieces besides.
"""


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.dr("icmp-error-unusable-mtu-zero")
    lab.serve()
    name_mtu(lab, "wan", 0)
    clients = [f"198.51.100.{n}" for n in range(20, 30)]
    browse(lab, clients=clients, start_s=0.3, every_s=0.9, count=10)
    narrow = [
        lab.flow("narrow", "198.51.100.150", 42011, 1.9, [("get", 13000)]),
        lab.flow("narrow", "198.51.100.151", 42036, 2.7, [("get", 5000)], ending="server"),
        lab.flow("narrow", "198.51.100.152", 42050, 3.5, [("get", 300), ("get", 8000)]),
        lab.flow("narrow", "198.51.100.153", 42071, 4.6, [("get", 16000)]),
    ]
    lab.health_checks(until_s=14)
    lab.capture_all("director", "rs1", "rs2")
    lab.run(16)
    told = icmp((3, 4))
    write_sample(
        lab,
        folder,
        description="LVS-DR; a router asks for smaller packets and names next-hop MTU 0",
        story=STORY,
        look_at=[
            look(lab, "director.pcap", told, "3/4 with MTU 0, coming in and going out"),
            look(
                lab,
                "rs1.pcap",
                every(of(*narrow), has_data, source(lab.vip), ip_length(1500)),
                "full-sized packets",
            ),
            look(
                lab,
                "rs1.pcap",
                every(of(*narrow), has_data, source(lab.vip), ip_length(552)),
                "and what they become, without DF",
            ),
        ],
        fault="router isp: answers with next-hop MTU 0",
        must_report=[
            must(
                lab,
                "icmp-error-unusable",
                flows=narrow,
                cause="mtu-zero",
                direction="to-client",
                facts={"next_hop_mtu": 0, "sender": "192.0.2.2", "stalled_connections": 0},
                cited={"director.pcap": told},
            )
        ],
        must_not_report=all_but("icmp-error-unusable"),
    )
