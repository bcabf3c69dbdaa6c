"""LVS-DR over IPv6: ICMPv6 type 4 is the parameter problem."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator import cluster, wire
from simulator.everyday import CLEAN
from simulator.frames import icmp
from simulator.traffic import browse
from simulator.truth import look, write_sample

if TYPE_CHECKING:
    from pathlib import Path

    from simulator.links import Interface

EVERY = 12
STORY = """
The router before the clients finds something wrong with a header now and then and says so:
parameter problem, which is type 4 in ICMPv6 as source quench is in ICMP for IPv4. The director
hands the messages on to the realservers, which note them. Nobody is asked to send less.
"""


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.dr6("source-quench-near-miss")
    lab.serve()
    isp = lab.hosts["isp"]
    isp.limits_errors = False
    count = [0]

    def complain(data: bytes, header: wire.Header, _interface: Interface) -> bytes:
        if header.src == lab.vip and header.payload and header.proto == wire.TCP_PROTO:
            count[0] += 1
            if not count[0] % EVERY:
                isp.error((4, 0), data, word=6)
        return data

    isp.rewrites.append(complain)
    clients = [f"2001:db8:a::{n:x}" for n in range(0x20, 0x2C)]
    browse(lab, clients=clients, start_s=0.2, every_s=0.9, count=12)
    lab.health_checks(until_s=14)
    lab.capture_all("director", "rs1", "rs2")
    lab.run(16)
    write_sample(
        lab,
        folder,
        description="LVS-DR, IPv6; parameter problems, which have source quench's number",
        story=STORY,
        look_at=[look(lab, "director.pcap", icmp((4, 0)), "ICMPv6 4/0, in and out")],
        must_not_report=CLEAN,
    )
