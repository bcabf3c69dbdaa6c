"""A healthy LVS-DR cluster, captured well; what looks odd in it is as it should be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator import cluster
from simulator.clock import MILLISECOND
from simulator.everyday import CLEAN, everyday
from simulator.frames import every, has_data, sent_by
from simulator.truth import look, write_sample

if TYPE_CHECKING:
    from pathlib import Path

STORY = """
The director's capture shows the clients' packets only, and each of them twice: that is LVS-DR, and
neither half a capture nor a doubled one. The clock of rs2 is 40 milliseconds off, as clocks are.
Losses on the way to clients are repeated and acknowledged: the network lost them, no capture did.
"""


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.dr("capture-quality-near-miss")
    lab.hosts["rs2"].clock_error_ns = 40 * MILLISECOND
    lab.serve()
    everyday(lab)
    lab.capture("director.pcapng", "director")
    lab.capture_all("rs1", "rs2", "router")
    lab.run(31)
    write_sample(
        lab,
        folder,
        description="LVS-DR in order, captured well",
        story=STORY,
        look_at=[
            look(lab, "director.pcapng", every(has_data, sent_by(lab, "router")), "coming in"),
            look(lab, "director.pcapng", every(has_data, sent_by(lab, "director")), "again"),
        ],
        must_not_report=CLEAN,
    )
