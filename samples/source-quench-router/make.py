"""LVS-DR; an old router asks realservers to send less, and they rightly do not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator import cluster, wire
from simulator.everyday import all_but
from simulator.frames import icmp
from simulator.traffic import browse
from simulator.truth import look, must, write_sample

if TYPE_CHECKING:
    from pathlib import Path

    from simulator.links import Interface

EVERY = 12
STORY = """
The router before the clients, 192.0.2.2, is old: when its queue is long it sends source quench, as
RFC 792 had it. The director hands the messages on to the realservers that own the connections, as
ip_vs does with types 3, 4 and 11. The realservers run a current kernel, which ignores them: nothing
slows down. RFC 6633 has forbidden these messages since 2012.
"""


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.dr("source-quench-router")
    lab.serve()
    isp = lab.hosts["isp"]
    isp.limits_errors = False
    count = [0]

    def quench(data: bytes, header: wire.Header, _interface: Interface) -> bytes:
        if header.src == lab.vip and header.payload and header.proto == wire.TCP_PROTO:
            count[0] += 1
            if not count[0] % EVERY:
                isp.error((4, 0), data)
        return data

    isp.rewrites.append(quench)
    clients = [f"198.51.100.{n}" for n in range(20, 32)]
    browse(lab, clients=clients, start_s=0.2, every_s=0.9, count=14)
    lab.health_checks(until_s=16)
    lab.capture_all("director", "rs1", "rs2")
    lab.run(18)
    told = icmp((4, 0))
    write_sample(
        lab,
        folder,
        description="LVS-DR; a router sends source quench, and nobody heeds it",
        story=STORY,
        look_at=[
            look(lab, "director.pcap", told, "source quench, coming in and going out"),
            look(lab, "rs1.pcap", told, "as it reaches rs1"),
        ],
        fault="router isp: sends source quench (ICMP type 4)",
        must_report=[
            must(
                lab,
                "source-quench",
                cause=["ignored", "effect-not-known"],
                direction="to-client",
                facts={"sender": "192.0.2.2"},
                cited={"director.pcap": told, "rs1.pcap": told, "rs2.pcap": told},
            )
        ],
        must_not_report=all_but("source-quench"),
    )
