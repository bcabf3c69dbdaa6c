"""LVS-DR with IPv6; the director's ip6tables lets neighbour discovery and echo in, and no more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator import cluster
from simulator.everyday import all_but
from simulator.faults import drop_icmp_errors
from simulator.frames import every, icmp, ip_length, of
from simulator.traffic import browse
from simulator.truth import look, must, write_sample

if TYPE_CHECKING:
    from pathlib import Path

FAULT = "ip6tables -A INPUT -p ipv6-icmp --icmpv6-type packet-too-big -j DROP"
STORY = """
The clients in 2001:db8:b::/64 sit behind a link that takes 1400 bytes. The router in front of it
(2001:db8:0:ff::2) answers each 1500-byte packet with packet too big, MTU 1400, addressed to the
VIP. The messages reach the director and none leaves it: its INPUT chain drops them before ip_vs. In
IPv6 no router fragments, so nothing but a smaller segment can help, and the realservers are never
told to send one.
"""


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.dr6("pmtud-blackhole-ipv6")
    lab.serve()
    drop_icmp_errors(lab, at_s=0.0)
    clients = [f"2001:db8:a::{n:x}" for n in range(0x20, 0x2C)]
    browse(lab, clients=clients, start_s=0.3, every_s=0.8, count=12)
    for number in range(3):
        client = f"2001:db8:b::{0x50 + number:x}"
        lab.flow("narrow-small", client, 41001 + 37 * number, 1.7 + 0.9 * number, [("get", 600)])
    stalled = [
        lab.flow("narrow-large", "2001:db8:b::53", 42011, 2.3, [("get", 7000)], ending="open"),
        lab.flow("narrow-large", "2001:db8:b::54", 42036, 3.1, [("get", 12000)], ending="open"),
        lab.flow("narrow-large", "2001:db8:b::55", 42050, 4.4, [("get", 4300)], ending="open"),
    ]
    lab.health_checks(until_s=20)
    lab.capture_all("director", "rs1", "rs2", "router", client="client-b")
    lab.run(22)
    full = every(ip_length(1500), of(*stalled))
    demands = [
        must(
            lab,
            "pmtud-blackhole",
            cause="icmp-not-forwarded",
            flows=stalled,
            hosts=sorted({flow.realserver or "" for flow in stalled}),
            direction="to-client",
            path_mtu=1400,
            facts={"next_hop_mtu": 1400, "direction": "to-client", "smallest_lost": 1500},
            cited={
                "director.pcap": icmp((2, 0)),
                "rs1.pcap": full,
                "rs2.pcap": full,
                "router.pcap": full,
            },
        ),
        must(
            lab,
            "icmp-unreachable-not-forwarded",
            cause="swallowed-by-director",
            flows=stalled,
            hosts=["director"],
            icmp="packet too big, mtu 1400",
            icmp_source="2001:db8:0:ff::2",
            cited={"director.pcap": icmp((2, 0))},
        ),
    ]
    write_sample(
        lab,
        folder,
        description="LVS-DR with IPv6; the director's INPUT drops packet-too-big",
        story=STORY,
        look_at=[
            look(lab, "director.pcap", icmp((2, 0)), "packet too big, coming in; none goes out"),
            look(lab, "router.pcap", full, "1500-byte packets, sent again and again"),
        ],
        fault=f"director: {FAULT}",
        fault_commands=[{"host": "director", "t": 0.0, "cmd": FAULT}],
        must_report=demands,
        must_not_report=all_but("pmtud-blackhole", "icmp-unreachable-not-forwarded"),
    )
