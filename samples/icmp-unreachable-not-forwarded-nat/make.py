"""LVS-NAT whose director drops ICMP: host unreachable never reaches the realservers."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from simulator import cluster
from simulator.everyday import all_but
from simulator.faults import drop_icmp_errors
from simulator.frames import every, icmp, of, source
from simulator.traffic import browse
from simulator.truth import look, must, write_sample

if TYPE_CHECKING:
    from pathlib import Path

FAULT = "iptables -A INPUT -p icmp ! --icmp-type echo-request -j DROP"
OUTAGE_S = 5.0
STORY = """
At 5 seconds the line to clients 198.51.100.150 to .154 goes down in the middle of their transfers.
The router in front of it (192.0.2.2) withdraws the route and answers what still comes for them with
host unreachable. The messages quote VIP:80 to the client and go to the VIP. The director should
look the quoted connection up, rewrite the outer destination and the quoted source to the
realserver's address and port, and send the message in on eth1. It sends none, because its INPUT
chain drops ICMP before ip_vs.

The realservers are not told and repeat their segments with doubling pauses. The size of the
segments has nothing to do with it: it hits short ones as well as full ones.
"""


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.nat("icmp-unreachable-not-forwarded-nat")
    lab.serve(realserver_port=8080)
    lab.hosts["isp"].limits_errors = False
    drop_icmp_errors(lab, at_s=0.0)
    clients = [f"198.51.100.{n}" for n in range(20, 34)]
    browse(lab, clients=clients, start_s=0.2, every_s=0.9, count=14)
    hit = [
        lab.flow("cut-off", "198.51.100.150", 42003, 1.1, [("stream", 700)], ending="open"),
        lab.flow("cut-off", "198.51.100.151", 42034, 1.6, [("stream", 300)], ending="open"),
        lab.flow("cut-off", "198.51.100.152", 42061, 2.2, [("stream", 900)], ending="open"),
        lab.flow("cut-off", "198.51.100.153", 42082, 2.9, [("stream", 120)], ending="open"),
        lab.flow("cut-off", "198.51.100.154", 42097, 3.3, [("stream", 1100)], ending="open"),
    ]
    lab.at(OUTAGE_S, partial(lab.hosts["isp"].add_route, "198.51.100.128/25", None))
    lab.health_checks(until_s=24, port=8080)
    lab.capture("director-eth0.pcap", "director", "eth0")
    lab.capture("director-eth1.pcap", "director", "eth1")
    lab.capture_all("rs1", "rs2", "router")
    lab.run(26)
    demands = [
        must(
            lab,
            "icmp-unreachable-not-forwarded",
            cause="swallowed-by-director",
            flows=hit,
            hosts=["director"],
            icmp="3/1 host unreachable",
            icmp_source="192.0.2.2",
            cited={"director-eth0.pcap": icmp((3, 1))},
        )
    ]
    write_sample(
        lab,
        folder,
        description="LVS-NAT; the director's INPUT drops host-unreachable meant for realservers",
        story=STORY,
        look_at=[
            look(lab, "director-eth0.pcap", icmp((3, 1)), "3/1 coming in; eth1 shows none"),
            look(
                lab,
                "rs1.pcap",
                every(of(*hit), source("10.1.0.11")),
                "what rs1 sends to the lost clients; from 5 s on it is not acknowledged",
            ),
        ],
        fault=f"director: {FAULT}",
        fault_commands=[
            {"host": "director", "t": 0.0, "cmd": FAULT},
            {"host": "isp", "t": OUTAGE_S, "cmd": "ip route replace unreachable 198.51.100.128/25"},
        ],
        must_report=demands,
        must_not_report=all_but("icmp-unreachable-not-forwarded"),
    )
