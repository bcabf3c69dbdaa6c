"""LVS-NAT with one interface: the director redirects the realservers to the router."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator import cluster
from simulator.everyday import all_but
from simulator.frames import every, flags, icmp, of, sent_by, sent_to, source
from simulator.traffic import browse
from simulator.truth import look, must, write_sample
from simulator.wire import RST

if TYPE_CHECKING:
    from pathlib import Path

FAULT_S = 9.0
FAULT = "sysctl -w net.ipv4.conf.all.send_redirects=1"
STORY = """
The director of this NAT cluster has one interface, on the realservers' LAN, where the router is,
too. A reply from a realserver comes in and, translated, goes out on the same interface, and its
sender is on-link: for a router that is reason to send a redirect. Up to 9 seconds send_redirects is
off; then a sysctl turns it on, and the director tells the realservers, from its own address, that
the better way to the client is 10.1.0.1, the router.

The realservers obey. From the next packet to that client on they send to the router's MAC, with
their own address as source, for nobody translates it back to the VIP any more. The client answers a
segment from 10.1.0.11 or 10.1.0.12, which it never heard of, with a reset, and waits for the VIP.
A new connection of such a client fails likewise: its SYN-ACK takes the short way. Connections that
were over by then are in order.
"""


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.nat_one_arm("redirect-to-router-onearm")
    lab.serve()
    lab.director.send_redirects = False
    lab.at(FAULT_S, lambda: setattr(lab.director, "send_redirects", True))
    clients = [f"198.51.100.{n}" for n in range(20, 30)]
    browse(lab, clients=clients, start_s=0.2, every_s=0.6, count=10)
    hit = [
        lab.flow(
            "redirected",
            f"198.51.100.{30 + number}",
            42003 + 31 * number,
            6.2 + 0.3 * number,
            [("get", 800), ("wait", 3.0), ("get", 2600), ("wait", 0.3), ("get", 900)],
            ending="open",
        )
        for number in range(4)
    ]
    later = [lab.flow("new-after", "198.51.100.30", 43007, 14.0, [("get", 500)], ending="open")]
    lab.health_checks(until_s=26)
    lab.capture_all("director", "rs1", "rs2", "router", client="client-a")
    lab.run(28)
    redirect = icmp((5, 1))
    around = every(sent_to(lab, "router"), of(*hit, *later))
    from_rs1 = every(around, sent_by(lab, "rs1"), source("10.1.0.11"))
    from_rs2 = every(around, sent_by(lab, "rs2"), source("10.1.0.12"))
    write_sample(
        lab,
        folder,
        description="LVS-NAT on one arm; realservers obey the director's redirects to the router",
        story=STORY,
        look_at=[
            look(lab, "director.pcap", redirect, "redirects to the realservers"),
            look(lab, "rs1.pcap", redirect, "as rs1 gets them"),
            look(lab, "rs1.pcap", from_rs1, "replies to the router's MAC, source 10.1.0.11"),
            look(lab, "rs2.pcap", from_rs2, "replies to the router's MAC, source 10.1.0.12"),
            look(
                lab,
                "client.pcap",
                flags(RST, RST),
                "the client's resets to addresses it never called",
            ),
        ],
        fault=f"director: {FAULT}",
        fault_commands=[{"host": "director", "t": FAULT_S, "cmd": FAULT}],
        must_report=[
            must(
                lab,
                "redirect-to-router",
                cause="redirect-obeyed",
                flows=hit,
                may_flows=[flow.id for flow in later],
                hosts=["director"],
                facts={"obeyed": True},
                cited={
                    "director.pcap": redirect,
                    "rs1.pcap": lambda seen: redirect(seen) or from_rs1(seen),
                    "rs2.pcap": lambda seen: redirect(seen) or from_rs2(seen),
                },
            )
        ],
        may_report=["nat-reply-bypasses-director"],
        must_not_report=all_but("redirect-to-router", "nat-reply-bypasses-director"),
    )
