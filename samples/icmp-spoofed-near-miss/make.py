"""LVS-DR; errors that are late, or about connections that had begun before the captures."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from simulator import cluster, wire
from simulator.clock import EPOCH_NS
from simulator.everyday import CLEAN
from simulator.frames import every, flags, icmp, of
from simulator.traffic import browse
from simulator.truth import look, write_sample

if TYPE_CHECKING:
    from pathlib import Path

    from simulator.lab import Lab
    from simulator.links import Interface

LATE_S = 3.0
STORY = """
The router before the clients reports "time exceeded" about packets that did go out, but three
seconds later than one would think: all that data is acknowledged by then. Each message quotes what
was sent all the same.

Client 198.51.100.33 reuses a port. An error about its first connection arrives when the second is
open: its sequence number fits nothing that the second one sends. One such message proves nothing.
"""


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.dr("icmp-spoofed-near-miss")
    lab.serve()
    isp = lab.hosts["isp"]
    isp.limits_errors = False
    kept: list[bytes] = []
    count = [0]

    def remember(data: bytes, header: wire.Header, _interface: Interface) -> bytes:
        if header.src == lab.vip and header.payload and header.proto == wire.TCP_PROTO:
            count[0] += 1
            if (header.dst, header.dport) == ("198.51.100.33", 43000) and not kept:
                kept.append(data)
            elif not count[0] % 15:
                when = (lab.clock.now - EPOCH_NS) / 1e9
                lab.at(when + LATE_S, partial(isp.error, (11, 0), data))
        return data

    isp.rewrites.append(remember)
    clients = [f"198.51.100.{n}" for n in range(20, 32)]
    browse(lab, clients=clients, start_s=0.2, every_s=0.9, count=10)
    lab.flow("port-reuse", "198.51.100.33", 43000, 2.0, [("get", 700)])
    again = lab.flow("port-reuse", "198.51.100.33", 43000, 7.0, [("stream", 300)], ending="open")
    lab.at(9.0, partial(_late, lab, kept))
    lab.health_checks(until_s=14)
    lab.capture_all("director", "rs1", "rs2")
    lab.run(18)
    write_sample(
        lab,
        folder,
        description="LVS-DR; late errors, and one about an earlier connection of a port",
        story=STORY,
        look_at=[
            look(lab, "director.pcap", icmp((11, 0)), "late errors, in and out"),
            look(lab, "director.pcap", every(of(again), flags(wire.SYN)), "the port, twice"),
        ],
        must_not_report=CLEAN,
    )


def _late(lab: Lab, kept: list[bytes]) -> None:
    lab.hosts["isp"].error((11, 0), kept[0])
