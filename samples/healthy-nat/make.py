"""LVS-NAT in order, with everything that ordinary traffic does to an analyzer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator import cluster
from simulator.everyday import CLEAN, STORY, everyday, landmarks
from simulator.truth import write_sample

if TYPE_CHECKING:
    from pathlib import Path


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.nat("healthy-nat")
    lab.serve(realserver_port=8080)
    everyday(lab)
    lab.capture("director-eth0.pcap", "director", "eth0")
    lab.capture("director-eth1.pcap", "director", "eth1")
    lab.capture_all("rs1", "rs2", "router", client="client-b")
    lab.run(31)
    write_sample(
        lab,
        folder,
        description="LVS-NAT, port 80 to 8080, in order: loss, reordering, PMTUD, checks",
        story=STORY,
        look_at=landmarks(lab),
        must_not_report=CLEAN,
    )
