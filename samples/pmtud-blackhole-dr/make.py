"""LVS-DR whose director drops ICMP in INPUT: the realservers never learn the path MTU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator import cluster
from simulator.everyday import all_but
from simulator.faults import drop_icmp_errors
from simulator.frames import every, icmp, ip_length, of, source
from simulator.traffic import browse
from simulator.truth import look, must, write_sample

if TYPE_CHECKING:
    from pathlib import Path

FAULT_S = 1.0


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.dr("pmtud-blackhole-dr")
    lab.serve()
    drop_icmp_errors(lab, at_s=FAULT_S)
    clients = [f"198.51.100.{n}" for n in range(20, 32)]
    browse(lab, clients=clients, start_s=0.2, every_s=0.9, count=12)
    for number in range(4):  # the narrow path works as long as the pages are small
        client = f"198.51.100.{150 + number}"
        lab.flow("narrow-small", client, 41001 + 37 * number, 1.5 + 0.7 * number, [("get", 400)])
    stalled = [
        lab.flow("narrow-large", "198.51.100.154", 42011, 2.0, [("get", 13000)], ending="open"),
        lab.flow("narrow-large", "198.51.100.155", 42036, 2.6, [("get", 5000)], ending="open"),
        lab.flow(
            "narrow-large",
            "198.51.100.156",
            42050,
            3.4,
            [("get", 300), ("wait", 0.5), ("get", 8000)],
            ending="open",
        ),
        lab.flow("narrow-large", "198.51.100.157", 42071, 4.6, [("get", 9000)], ending="open"),
    ]
    lab.health_checks(until_s=22)
    lab.capture_all("director", "rs1", "rs2", "router", client="client-b")
    lab.run(24)
    full = every(ip_length(1500), of(*stalled))
    demands = [
        must(
            lab,
            "pmtud-blackhole",
            cause="icmp-not-forwarded",
            flows=stalled,
            hosts=["rs1", "rs2"],
            direction="to-client",
            path_mtu=1400,
            facts={"next_hop_mtu": 1400, "direction": "to-client", "smallest_lost": 1500},
            cited={
                "director.pcap": icmp((3, 4)),
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
            icmp="3/4 frag-needed mtu 1400",
            icmp_source="192.0.2.2",
            cited={"director.pcap": icmp((3, 4))},
        ),
    ]
    write_sample(
        lab,
        folder,
        description="LVS-DR; the director's INPUT drops ICMP, so ip_vs never sees frag-needed",
        story="""
Clients 198.51.100.150 to .157 sit behind a link that takes 1400 bytes. The router in front of it
(192.0.2.2) answers each 1500-byte segment with fragmentation needed, MTU 1400, addressed to the
VIP, as it must: the VIP is the segment's source. All of these messages reach the director, and none
leaves it, because its INPUT chain drops ICMP before ip_vs, which sits behind that chain, could pass
them to the realserver that sent the segment.

The realservers repeat the first full-sized segment with doubling pauses until the captures end. The
end of each response, which is short, arrives and is selectively acknowledged; pages below 1400
bytes load; so does everything of the other clients.
""",
        look_at=[
            look(lab, "director.pcap", icmp((3, 4)), "3/4, MTU 1400, coming in; none goes out"),
            look(
                lab,
                "rs1.pcap",
                every(full, of(stalled[1])),
                "one connection's 1500-byte segments, sent again and again",
            ),
            look(
                lab,
                "client.pcap",
                every(source(lab.vip), of(stalled[1])),
                "what arrives of it: no frame above 1400 bytes",
            ),
        ],
        fault="director: iptables -A INPUT -p icmp ! --icmp-type echo-request -j DROP",
        fault_commands=[
            {
                "host": "director",
                "t": FAULT_S,
                "cmd": "iptables -A INPUT -p icmp ! --icmp-type echo-request -j DROP",
            }
        ],
        must_report=demands,
        must_not_report=all_but("pmtud-blackhole", "icmp-unreachable-not-forwarded"),
    )
