"""LVS-DR: the realservers' firewall forgets idle connections and rejects what comes on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator import cluster
from simulator.everyday import all_but
from simulator.faults import stateful_reject
from simulator.frames import every, icmp, of, on, quotes, sent_by
from simulator.traffic import browse
from simulator.truth import look, must, write_sample

if TYPE_CHECKING:
    from pathlib import Path

FORGETS_S = 5.0
FAULT = (
    "iptables -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT; "
    "iptables -A INPUT -p tcp --syn --dport 80 -m conntrack --ctstate NEW -j ACCEPT; "
    "iptables -A INPUT -p icmp -j ACCEPT; "
    "iptables -A INPUT -j REJECT --reject-with icmp-host-prohibited; "
    "sysctl -w net.netfilter.nf_conntrack_tcp_timeout_established=5 "
    "net.netfilter.nf_conntrack_tcp_loose=0"
)
STORY = """
The realservers accept new connections to port 80 and what belongs to established ones, and reject
the rest with host prohibited. Their conntrack forgets an established connection after 5 seconds and
picks none up in the middle. Five clients load a page, read for eight seconds, and ask for another
on the same connection: the realserver answers each copy of the request with ICMP 3/10.

The message's source is the VIP, as if the director had sent it. But it leaves with the realserver's
MAC, never crosses the director, and quotes the request with a TTL one lower than the director got
it with: it was rejected behind the director.
"""


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.dr("host-prohibited-established-rs")
    lab.serve()
    for name in ("rs1", "rs2"):
        stateful_reject(lab, name, ports=(80,), forgets_s=FORGETS_S)
    clients = [f"198.51.100.{n}" for n in range(20, 32)]
    browse(lab, clients=clients, start_s=0.2, every_s=1.1, count=14)
    hit = [
        lab.flow(
            "idle",
            f"198.51.100.{150 + number}",
            42003 + 31 * number,
            1.3 + 0.7 * number,
            [("get", 900), ("wait", 8.0 + 0.2 * number), ("get", 1100)],
            ending="open",
        )
        for number in range(5)
    ]
    lab.health_checks(until_s=24)
    lab.capture_all("director", "rs1", "rs2", "router", client="client-b")
    lab.run(26)
    prohibited = every(icmp((3, 10)), quotes(*hit))
    write_sample(
        lab,
        folder,
        description="LVS-DR; realservers reject mid-stream segments with icmp-host-prohibited",
        story=STORY,
        look_at=[
            look(lab, "rs1.pcap", every(prohibited, sent_by(lab, "rs1")), "3/10 leaving rs1"),
            look(lab, "rs2.pcap", every(prohibited, sent_by(lab, "rs2")), "3/10 leaving rs2"),
            look(lab, "rs1.pcap", of(*on(hit, "rs1")[:1]), "a connection with its gap"),
        ],
        fault=f"rs1, rs2: {FAULT}",
        fault_commands=[{"host": name, "t": 0.0, "cmd": FAULT} for name in ("rs1", "rs2")],
        must_report=[
            must(
                lab,
                "host-prohibited-established",
                cause="realserver-conntrack",
                flows=hit,
                hosts=["rs1", "rs2"],
                icmp_source=lab.vip,
                facts={"emitter": "realserver"},
                cited={
                    "rs1.pcap": prohibited,
                    "rs2.pcap": prohibited,
                    "router.pcap": prohibited,
                    "client.pcap": prohibited,
                },
            )
        ],
        must_not_report=all_but("host-prohibited-established"),
    )
