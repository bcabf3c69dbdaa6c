"""LVS-DR: forwarded copies, retransmissions and traceroute; no packet goes round."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator import cluster
from simulator.apps import tcp_traceroute, traceroute
from simulator.everyday import CLEAN
from simulator.frames import icmp, of
from simulator.traffic import browse
from simulator.truth import look, write_sample

if TYPE_CHECKING:
    from pathlib import Path

STORY = """
Two traceroutes to the VIP send packets with rising TTLs, and hops answer time exceeded; a client's
SYN and a request are lost three times each and repeated. The director's capture shows every
forwarded packet twice, one TTL apart, as always in direct routing.
"""


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.dr("forwarding-loop-near-miss")
    lab.serve()
    clients = [f"198.51.100.{n}" for n in range(20, 30)]
    browse(lab, clients=clients, start_s=0.3, every_s=0.9, count=10)
    lost = [lab.flow("lost", "198.51.100.31", 44001, 2.0, [("get", 700)])]
    lab.disturb("wan", lambda header: (header.src, header.sport) == lost[0].client, None, count=3)
    host = lab.hosts["client-a"]
    traceroute(host, "198.51.100.32", lab.vip, start_s=4.0, hops=5)
    tcp_traceroute(host, "198.51.100.33", (lab.vip, 80), start_s=6.0, hops=6)
    lab.capture_all("director", "rs1", "router", client="client-a")
    lab.run(14)
    write_sample(
        lab,
        folder,
        description="LVS-DR; traceroutes and repeated packets, none of which goes round",
        story=STORY,
        look_at=[
            look(lab, "router.pcap", icmp((11, 0)), "answers to the traceroutes"),
            look(lab, "client.pcap", of(*lost), "what is repeated"),
        ],
        must_not_report=CLEAN,
    )
