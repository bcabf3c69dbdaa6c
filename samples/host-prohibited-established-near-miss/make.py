"""LVS-DR: host prohibited in answer to SYNs, and port unreachable in answer to UDP."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from simulator import cluster, wire
from simulator.everyday import all_but
from simulator.faults import reject_port
from simulator.frames import every, icmp, quotes
from simulator.traffic import browse
from simulator.truth import look, must, write_sample

if TYPE_CHECKING:
    from pathlib import Path

FAULT = "iptables -A INPUT -p tcp --dport 8443 -j REJECT --reject-with icmp-host-prohibited"
STORY = """
The director balances port 8443, but the realservers' firewall was never opened for it: each SYN is
answered with ICMP 3/10 from the VIP, with a realserver's MAC. No connection comes about, so none
that is established is cut: that is service-refused. Besides, a client sends DNS queries to the VIP,
which has no UDP service; the director's own stack answers them with port unreachable, as any host
does.
"""


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.dr("host-prohibited-established-near-miss")
    lab.serve()
    lab.serve(8443)
    for name in ("rs1", "rs2"):
        reject_port(lab, name, 8443)
    clients = [f"198.51.100.{n}" for n in range(20, 32)]
    browse(lab, clients=clients, start_s=0.2, every_s=1.0, count=14)
    refused = [
        lab.flow(
            "refused",
            f"198.51.100.{150 + number}",
            42003 + 31 * number,
            2.0 + 1.7 * number,
            [("get", 500)],
            service_port=8443,
        )
        for number in range(6)
    ]
    client = lab.hosts["client-a"]
    for number in range(3):
        query = wire.udp(
            ("198.51.100.33", 52001 + number),
            (lab.vip, 53),
            bytes([0x12, number]) + b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
            b"\x03www\x07example\x03org\x00\x00\x01\x00\x01",
            ident=0x2100 + number,
        )
        lab.at(6.0 + 1.5 * number, partial(client.send, query))
    lab.health_checks(until_s=18)
    lab.capture_all("director", "rs1", "rs2", "router", client="client-b")
    lab.run(20)
    prohibited = every(icmp((3, 10)), quotes(*refused))
    write_sample(
        lab,
        folder,
        description="LVS-DR; realservers answer SYNs to one port with icmp-host-prohibited",
        story=STORY,
        look_at=[
            look(lab, "router.pcap", prohibited, "3/10, each quoting a SYN"),
            look(lab, "director.pcap", icmp((3, 3)), "3/3 from the VIP, quoting DNS queries"),
        ],
        fault=f"rs1, rs2: {FAULT}",
        fault_commands=[{"host": name, "t": 0.0, "cmd": FAULT} for name in ("rs1", "rs2")],
        must_report=[
            must(
                lab,
                "service-refused",
                flows=refused,
                hosts=["rs1", "rs2"],
                cited={
                    "rs1.pcap": prohibited,
                    "rs2.pcap": prohibited,
                    "router.pcap": prohibited,
                    "client.pcap": prohibited,
                },
            )
        ],
        must_not_report=all_but("service-refused"),
    )
