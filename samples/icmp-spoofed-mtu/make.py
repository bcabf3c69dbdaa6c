"""LVS-DR; somebody far away makes up "fragmentation needed" for the cluster's connections."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from simulator import cluster, wire
from simulator.clock import draw
from simulator.everyday import all_but
from simulator.frames import icmp
from simulator.traffic import browse
from simulator.truth import look, must, write_sample

if TYPE_CHECKING:
    from pathlib import Path

    from simulator.apps import Flow
    from simulator.lab import Lab

FORGER = "192.0.2.2"
GUESSES = 12
STORY = """
Somebody knows, or guesses, the ports of connections to the VIP, and sends fragmentation needed
with MTU 576 about them, in the name of the router 192.0.2.2: if the realservers believed it they
would send in small packets from then on. What it cannot know are the sequence numbers, and so it
tries some at random. The director hands the messages on, for it looks at addresses and ports only.
The realservers' TCP looks at the sequence number, too, finds nothing of the kind in flight, and
counts OutOfWindowIcmps.
"""


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.dr("icmp-spoofed-mtu")
    lab.serve()
    clients = [f"198.51.100.{n}" for n in range(20, 32)]
    browse(lab, clients=clients, start_s=0.2, every_s=0.9, count=10)
    targets = [
        lab.flow("target", "198.51.100.32", 42011, 2.0, [("stream", 900)], ending="open"),
        lab.flow("target", "198.51.100.33", 42036, 2.6, [("stream", 700)], ending="open"),
    ]
    for number in range(GUESSES):
        flow = targets[number % len(targets)]
        lab.at(4.0 + 0.7 * number, partial(_forge, lab, flow, number))
    lab.health_checks(until_s=16)
    lab.capture_all("director", "rs1", "rs2")
    lab.run(18)
    told = icmp((3, 4))
    write_sample(
        lab,
        folder,
        description="LVS-DR; forged fragmentation-needed with guessed sequence numbers",
        story=STORY,
        look_at=[
            look(lab, "director.pcap", told, "3/4, MTU 576, in and out again"),
            look(lab, "rs1.pcap", told, "as they reach rs1"),
        ],
        fault="a host outside: forges ICMP errors about connections to the VIP",
        must_report=[
            must(
                lab,
                "icmp-spoofed",
                flows=targets,
                cause="sequence-never-sent",
                direction="to-client",
                facts={"sender": FORGER, "next_hop_mtu": 576},
                cited={"director.pcap": told, "rs1.pcap": told},
            )
        ],
        must_not_report=all_but("icmp-spoofed"),
    )


def _forge(lab: Lab, flow: Flow, number: int) -> None:
    """Send one guess from behind the isp."""
    quoted = wire.tcp(
        flow.service,
        flow.client,
        seq=draw(0, 0xFFFFFFFF, lab.sample, "guess", number),
        ack=draw(0, 0xFFFFFFFF, lab.sample, "ack", number),
        flags=wire.ACK,
        window=512,
        ident=draw(1, 0xFFFF, lab.sample, "id", number),
        payload=bytes(1460),
        ttl=60,
    )
    message = wire.icmp_error(
        FORGER, lab.vip, (3, 4), quoted, word=576, ident=7000 + number, ttl=52, quote_len=28
    )
    lab.hosts["isp"].send(message)
