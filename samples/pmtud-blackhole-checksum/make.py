"""LVS-DR behind a router that breaks ICMP checksums: the path MTU is told, and not believed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator import cluster
from simulator.everyday import all_but
from simulator.faults import map_port
from simulator.frames import every, icmp, ip_length, of, sent_by
from simulator.traffic import browse
from simulator.truth import look, must, write_sample

if TYPE_CHECKING:
    from pathlib import Path

PUBLIC, INSIDE = 80, 8080
STORY = """
The router in front maps port 80 to 8080, as in icmp-checksum-burst-portrewrite, and leaves the
checksum of the ICMP errors whose quoted port it changes as it was. Here these errors are needed:
clients 198.51.100.150 to .154 sit behind a link that takes 1400 bytes, and 192.0.2.2 says so.

The director passes each message on to the realserver that sent the segment, as direct routing
does, so nothing is missing between the captures. The realserver's stack finds the checksum wrong
and drops the message, and repeats its 1500-byte segment. The root is the checksum, the damage is a
path MTU black hole.
"""


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.dr("pmtud-blackhole-checksum")
    lab.serve(INSIDE)
    map_port(lab, PUBLIC, INSIDE)
    clients = [f"198.51.100.{n}" for n in range(20, 32)]
    ports = (INSIDE, PUBLIC)
    browse(lab, clients=clients, start_s=0.2, every_s=1.0, count=14, ports=ports)
    stalled = [
        lab.flow(
            "narrow-large",
            f"198.51.100.{150 + number}",
            42003 + 31 * number,
            1.9 + 0.6 * number,
            [("get", 300), ("get", 3000 + 1500 * number)],
            ending="open",
            service_port=INSIDE,
            public_port=PUBLIC,
        )
        for number in range(5)
    ]
    lab.health_checks(until_s=22, port=INSIDE)
    lab.capture_all("director", "rs1", "rs2", "router")
    lab.run(24)
    told = icmp((3, 4))
    full = every(ip_length(1500), of(*stalled))
    router = lab.hosts["router"].interfaces["eth0"].mac
    write_sample(
        lab,
        folder,
        description="LVS-DR; frag-needed reaches the realservers with a broken checksum",
        story=STORY,
        look_at=[
            look(lab, "router.pcap", told, "3/4, MTU 1400, with bad checksums"),
            look(lab, "director.pcap", every(told, sent_by(lab, "director")), "passed on"),
            look(lab, "rs1.pcap", told, "as they reach rs1"),
            look(lab, "rs1.pcap", full, "1500-byte segments all the same"),
        ],
        fault="router: rewrites the quoted source port of ICMP errors without their checksum",
        must_report=[
            must(
                lab,
                "pmtud-blackhole",
                cause="icmp-corrupt",
                flows=stalled,
                hosts=["rs1", "rs2"],
                direction="to-client",
                path_mtu=1400,
                facts={"next_hop_mtu": 1400, "direction": "to-client", "smallest_lost": 1500},
                cited={
                    "rs1.pcap": lambda seen: full(seen) or told(seen),
                    "rs2.pcap": lambda seen: full(seen) or told(seen),
                    "router.pcap": lambda seen: full(seen) or told(seen),
                    "director.pcap": told,
                },
            ),
            must(
                lab,
                "icmp-checksum-burst",
                cause="rewrite-without-checksum",
                may_hosts=["isp"],
                flows=stalled,
                hosts=["router"],
                facts={"sender": "192.0.2.2", "sender_mac": router},
                cited={"director.pcap": told, "rs1.pcap": told, "rs2.pcap": told},
            ),
        ],
        must_not_report=all_but("pmtud-blackhole", "icmp-checksum-burst"),
    )
