"""Path MTU discovery that works, clients that die in a download, a segment lost three times."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from simulator import cluster
from simulator.everyday import CLEAN
from simulator.frames import every, has_data, icmp, of, source
from simulator.traffic import browse
from simulator.truth import look, write_sample

if TYPE_CHECKING:
    from pathlib import Path

    from simulator.apps import Flow
    from simulator.lab import Lab

STORY = """
Three things that look like a path MTU black hole and are none.

Clients 198.51.100.150 to .153 sit behind a link of 1400 bytes. The director passes the router's
messages on, the realservers resend in segments of 1400 bytes at once, and the responses arrive.

Client 198.51.100.30 loses power in the middle of a stream of short chunks, and 198.51.100.31 in the
middle of one whose chunks fill two segments. Their realservers repeat a segment with doubling
pauses until the captures end. But nothing of any size is acknowledged any more, and full-sized
segments had been, so size is not the reason.

To client 198.51.100.32 a short response is lost three times running; the fourth copy arrives.
"""
POWER_CUT_S = 8.0


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.dr("pmtud-blackhole-near-miss")
    lab.serve()
    clients = [f"198.51.100.{n}" for n in range(20, 30)]
    browse(lab, clients=clients, start_s=0.3, every_s=0.9, count=10)
    narrow = [
        lab.flow("narrow", "198.51.100.150", 42011, 1.9, [("get", 13000)]),
        lab.flow("narrow", "198.51.100.151", 42036, 2.7, [("get", 5000)], ending="server"),
        lab.flow("narrow", "198.51.100.152", 42050, 3.5, [("get", 300), ("get", 8000)]),
        lab.flow("narrow", "198.51.100.153", 42071, 4.6, [("get", 16000)]),
    ]
    dead = [
        lab.flow("client-dies", "198.51.100.30", 43007, 5.2, [("stream", 700)], ending="open"),
        lab.flow("client-dies", "198.51.100.31", 43015, 5.5, [("stream", 2200)], ending="open"),
    ]
    for flow in dead:
        lab.at(POWER_CUT_S, partial(_power_cut, lab, flow))
    unlucky = lab.flow("small-lost", "198.51.100.32", 43022, 6.1, [("get", 500)])
    lab.disturb(
        "wan",
        lambda header: (header.dst, header.dport) == unlucky.client and bool(header.payload),
        None,
        count=3,
    )
    lab.health_checks(until_s=24)
    lab.capture_all("director", "rs1", "rs2", "router", client="client-b")
    lab.run(26)
    write_sample(
        lab,
        folder,
        description="LVS-DR; path MTU discovery works, two clients die, a small segment is lost",
        story=STORY,
        look_at=[
            look(lab, "director.pcap", icmp((3, 4)), "3/4 coming in and going out again"),
            look(lab, "router.pcap", of(narrow[0]), "1500 bytes first, then 1400"),
            look(
                lab,
                "router.pcap",
                every(of(*dead), has_data, source(lab.vip)),
                "streams to the dead clients; nothing of any size is acknowledged from 8 s on",
            ),
            look(lab, "router.pcap", of(unlucky), "the short response, four times"),
        ],
        must_not_report=CLEAN,
    )


def _power_cut(lab: Lab, flow: Flow) -> None:
    """Silence a client for good: nothing that it is sent is answered."""
    if flow.socket is not None:
        flow.socket.forget()
    address = flow.client[0]
    lab.hosts["client-a"].input_rules.append(
        lambda header, _interface: "drop" if header.dst == address else None
    )
