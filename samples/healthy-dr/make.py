"""LVS-DR in order, with everything that ordinary traffic does to an analyzer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator import cluster
from simulator.everyday import CLEAN, STORY, everyday, landmarks
from simulator.truth import write_sample

if TYPE_CHECKING:
    from pathlib import Path


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.dr("healthy-dr")
    lab.serve()
    lab.vrrp(until_s=30)
    everyday(lab)
    lab.capture_all("director", "rs1", "rs2", "router", client="client-b")
    lab.run(31)
    write_sample(
        lab,
        folder,
        description="LVS-DR in order: loss, reordering, port reuse, PMTUD, traceroute, checks",
        story=STORY,
        look_at=landmarks(lab),
        must_not_report=CLEAN,
    )
