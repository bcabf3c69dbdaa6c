"""LVS-DR: a stateful firewall on the director, which sees one direction only, rejects data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator import cluster
from simulator.everyday import all_but
from simulator.faults import stateful_reject
from simulator.frames import every, icmp, of, quotes, sent_by
from simulator.traffic import browse
from simulator.truth import look, must, write_sample

if TYPE_CHECKING:
    from pathlib import Path

FAULT_S = 8.0
FAULT = (
    "sysctl -w net.netfilter.nf_conntrack_tcp_loose=0; "
    "iptables -A INPUT -p tcp --dport 80 -j ACCEPT; iptables -A INPUT -p icmp -j ACCEPT; "
    "iptables -A INPUT -p tcp --dport 8080 -m conntrack --ctstate NEW,ESTABLISHED -j ACCEPT; "
    "iptables -A INPUT -p tcp --dport 8080 -j REJECT --reject-with icmp-host-prohibited"
)
STORY = """
At 8 seconds a firewall is loaded on the director. For port 80 it has no state; for port 8080 it
lets in new and established connections and rejects the rest with host prohibited. In direct routing
the director sees only what clients send, and ip_vs takes the packets before conntrack confirms an
entry, so no connection is ever established there. Connections to port 8080 that had worked till
then get ICMP 3/10 for their next request and for each of its copies.

The message has the VIP as source and leaves with the director's MAC; it quotes the request with the
TTL that the director got it with. The realservers see none of these requests.
"""


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.dr("host-prohibited-established-director")
    lab.serve()
    lab.serve(8080)
    stateful_reject(lab, "director", ports=(8080,), at_s=FAULT_S)
    clients = [f"198.51.100.{n}" for n in range(20, 32)]
    browse(lab, clients=clients, start_s=0.2, every_s=1.1, count=14)
    hit = [
        lab.flow(
            "cut-off",
            f"198.51.100.{150 + number}",
            42003 + 31 * number,
            5.2 + 0.5 * number,
            [("get", 900), ("wait", 3.5 + 0.1 * number), ("get", 1100)],
            ending="open",
            service_port=8080,
        )
        for number in range(4)
    ]
    lab.health_checks(until_s=22)
    lab.capture_all("director", "rs1", "rs2", "router", client="client-b")
    lab.run(24)
    prohibited = every(icmp((3, 10)), quotes(*hit))
    write_sample(
        lab,
        folder,
        description="LVS-DR; the director's stateful INPUT chain rejects established connections",
        story=STORY,
        look_at=[
            look(
                lab,
                "director.pcap",
                every(prohibited, sent_by(lab, "director")),
                "3/10 leaving the director",
            ),
            look(lab, "director.pcap", of(hit[0]), "one connection: forwarded, then rejected"),
        ],
        fault=f"director: {FAULT}",
        fault_commands=[{"host": "director", "t": FAULT_S, "cmd": FAULT}],
        must_report=[
            must(
                lab,
                "host-prohibited-established",
                cause="director-conntrack",
                flows=hit,
                hosts=["director"],
                icmp_source=lab.vip,
                facts={"emitter": "director"},
                cited={
                    "director.pcap": prohibited,
                    "router.pcap": prohibited,
                    "client.pcap": prohibited,
                },
            )
        ],
        must_not_report=all_but("host-prohibited-established"),
    )
