"""A healthy LVS-DR cluster, captured badly in four ways."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator import cluster
from simulator.clock import seconds
from simulator.everyday import CLEAN, everyday
from simulator.frames import icmp
from simulator.truth import look, must, write_sample

if TYPE_CHECKING:
    from pathlib import Path

LOST_EVERY = 9
HEADERS_ONLY = 68
CLOCK_BACK_S = 5.0
STORY = """
The cluster is in order; its captures are not. The director's lost every ninth frame, as its own
counter says. rs2 was captured with 68 bytes a frame, too few for what ICMP messages quote and for
TCP headers with all their options. The clock of rs1 was set back by five seconds in the middle.
client-b's clock is an hour ahead.
"""


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.dr("capture-quality-poor")
    lab.hosts["client-b"].clock_error_ns = seconds(3600)
    lab.serve()
    everyday(lab)
    lab.capture("director.pcapng", "director")
    lab.capture("rs2.pcap", "rs2", snaplen=HEADERS_ONLY)
    lab.capture("rs1.pcap", "rs1")
    lab.capture("client.pcap", "client-b")
    lab.run(31)
    director = lab.captured("director.pcapng")
    before = len(director.tap.frames)
    director.tap.frames[:] = [
        frame for number, frame in enumerate(director.tap.frames, 1) if number % LOST_EVERY
    ]
    director.dropped = before - len(director.tap.frames)
    frames = lab.captured("rs1.pcap").tap.frames
    middle = len(frames) // 2
    frames[middle:] = [(time - seconds(CLOCK_BACK_S), frame) for time, frame in frames[middle:]]
    write_sample(
        lab,
        folder,
        description="LVS-DR in order; captures that lose, cut, and tell wrong times",
        story=STORY,
        look_at=[look(lab, "rs2.pcap", icmp((3, 4)), "cut after 68 bytes")],
        must_report=[
            must(
                lab,
                "capture-quality",
                cited={
                    "director.pcapng": lambda _seen: True,
                    "rs2.pcap": icmp((3, 4), (11, 0), (3, 3)),
                    "rs1.pcap": lambda seen: seen.number == middle + 1,
                },
            )
        ],
        must_not_report=CLEAN,
    )
