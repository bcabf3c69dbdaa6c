"""LVS-DR behind a router that maps port 80 to 8080 and breaks the checksum of ICMP errors."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from simulator import cluster
from simulator.everyday import all_but
from simulator.faults import map_port
from simulator.frames import every, icmp, of, on, source
from simulator.traffic import browse
from simulator.truth import look, must, write_sample

if TYPE_CHECKING:
    from pathlib import Path

PUBLIC, INSIDE = 80, 8080
OUTAGE_S, RESTORED_S = 5.0, 17.0
STORY = """
Outside the service is port 80, in the cluster 8080: the router in front rewrites the destination
port of what comes in and the source port of what goes out. It rewrites ICMP errors, too, for they
quote VIP:80 and the realservers know only VIP:8080. But when it puts 8080 where 80 was, it leaves
the ICMP checksum as it came. Each of these messages is off by the same amount, 8080 - 80 = 8000 in
one's complement.

From 5 to 17 seconds the way to clients 198.51.100.32 to .35 is down, and 192.0.2.2 answers every
segment for them with host unreachable. All of these messages come to the cluster broken. The
director, in direct routing, passes them on as it found them; the realservers' stacks drop them. The
transfers wait out the line's failure and finish after it.
"""


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.dr("icmp-checksum-burst-portrewrite")
    lab.serve(INSIDE)
    map_port(lab, PUBLIC, INSIDE)
    isp = lab.hosts["isp"]
    isp.limits_errors = False
    clients = [f"198.51.100.{n}" for n in range(20, 32)]
    browse(lab, clients=clients, start_s=0.2, every_s=1.0, count=12, ports=(INSIDE, PUBLIC))
    hit = [
        lab.flow(
            "line-down",
            f"198.51.100.{32 + number % 4}",
            42003 + 31 * number,
            1.1 + 0.5 * number,
            [("stream", 100 + 60 * number)],
            ending="open",
            service_port=INSIDE,
            public_port=PUBLIC,
        )
        for number in range(5)
    ]
    lab.at(OUTAGE_S, partial(isp.add_route, "198.51.100.32/30", None))
    lab.at(RESTORED_S, partial(isp.add_route, "198.51.100.32/30", None, "eth1"))
    lab.health_checks(until_s=38, port=INSIDE)
    lab.capture_all("director", "rs1", "rs2", "router")
    lab.run(40)
    broken = icmp((3, 1))
    router = lab.hosts["router"].interfaces["eth0"].mac
    write_sample(
        lab,
        folder,
        description="LVS-DR; a router rewrites the port that ICMP errors quote, not their checksum",
        story=STORY,
        look_at=[
            look(lab, "director.pcap", broken, "3/1 with bad checksums, in and out again"),
            look(lab, "rs1.pcap", broken, "as they reach rs1"),
            look(
                lab,
                "rs1.pcap",
                every(of(*on(hit, "rs1")[:1]), source(lab.vip)),
                "a transfer that waits",
            ),
        ],
        fault="router: rewrites the quoted source port of ICMP errors without their checksum",
        must_report=[
            must(
                lab,
                "icmp-checksum-burst",
                cause="rewrite-without-checksum",
                may_hosts=["isp"],
                flows=hit,
                hosts=["router"],
                facts={"sender": "192.0.2.2", "sender_mac": router},
                cited={"director.pcap": broken, "rs1.pcap": broken, "rs2.pcap": broken},
            )
        ],
        must_not_report=all_but("icmp-checksum-burst"),
    )
