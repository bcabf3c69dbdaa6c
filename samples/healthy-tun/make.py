"""LVS-TUN (IPIP) in order; one clock is wrong, one capture is pcapng and one is compressed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator import cluster
from simulator.clock import seconds
from simulator.everyday import CLEAN, STORY, everyday, landmarks
from simulator.truth import write_sample

if TYPE_CHECKING:
    from pathlib import Path

FAST_CLOCK_S = 2.4

MORE = """
The realservers advertise an MSS of 1440, so that a full segment from a client is 1480 bytes and
fits the tunnel. The clock of rs2 is 2.4 seconds ahead of the others. rs1's capture is pcapng with
nanoseconds, rs2's is compressed with gzip.
"""


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.tun("healthy-tun")
    lab.hosts["rs2"].clock_error_ns = seconds(FAST_CLOCK_S)
    lab.serve(mss=1440)
    lab.vrrp(until_s=30)
    everyday(lab)
    lab.flow("upload", "198.51.100.25", 44000, 13.2, [("post", 16000)])
    lab.capture("director.pcap", "director")
    lab.capture("rs1.pcapng", "rs1")
    lab.capture("rs2.pcap.gz", "rs2")
    lab.capture("router.pcap", "router", "eth1")
    lab.capture_all(client="client-b")
    lab.run(31)
    write_sample(
        lab,
        folder,
        description="LVS-TUN with IPIP in order: loss, reordering, port reuse, PMTUD, checks",
        story=STORY + MORE,
        look_at=landmarks(lab),
        must_not_report=CLEAN,
    )
