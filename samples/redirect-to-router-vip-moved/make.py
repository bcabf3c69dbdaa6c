"""LVS-DR by firewall mark: the router's own check is routed, redirected, and moves the VIP."""

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

CHECK_S = 9.0
FAULT = "ip route add 203.0.113.200/32 via 203.0.113.11"
STORY = """
The VIP 203.0.113.200 is no address of the LAN: the router has a route for it to the director, which
marks what comes for port 80 from outside and balances the mark. What is not marked it routes like
anything else, and a route that somebody added sends the VIP to rs1.

At 9 seconds a monitor on the router itself connects to the VIP. Its packets come from the LAN, are
not marked, and the director forwards them to rs1 over the interface they came in on. So it tells
the router, from its own address, that the way to the VIP is 203.0.113.11. The router believes it,
because it concerns a socket of its own, and from then on sends all traffic for the VIP to rs1's
MAC, past the director. Connections that rs2 had are answered by rs1 with resets. New ones work, on
rs1 alone.
"""


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.dr("redirect-to-router-vip-moved", routed=True)
    lab.serve()
    director = lab.director
    director.unmarked.append(
        lambda header: header.dst == lab.vip and header.src.startswith("203.0.113.")
    )
    director.add_route(f"{lab.vip}/32", "203.0.113.11")
    clients = [f"198.51.100.{n}" for n in range(20, 32)]
    browse(lab, clients=clients, start_s=0.2, every_s=1.3, count=12)
    for number in range(9):
        lab.flow(
            "long",
            f"198.51.100.{150 + number}",
            42003 + 31 * number,
            5.1 + 0.31 * number,
            [("get", 700), ("wait", 5.5), ("get", 900), ("wait", 1.0), ("get", 300)],
        )
    lab.flow("router-check", "203.0.113.1", 50001, CHECK_S, [("get", 20)], ending="server")
    lab.health_checks(until_s=20)
    lab.capture_all("director", "rs1", "rs2", "router", client="client-b")
    lab.run(22)
    redirect = icmp((5, 1))
    resets = every(sent_by(lab, "rs1"), flags(RST, RST), source(lab.vip))
    moved = every(sent_by(lab, "router"), sent_to(lab, "rs1"), of(*lab.flows))
    write_sample(
        lab,
        folder,
        description="LVS-DR by firewall mark; a redirect makes the router send the VIP to rs1",
        story=STORY,
        look_at=[
            look(lab, "director.pcap", redirect, "the redirect to the router, gateway rs1"),
            look(lab, "router.pcap", moved, "frames for the VIP with rs1's MAC"),
            look(lab, "rs1.pcap", resets, "rs1 resets what rs2 had"),
        ],
        fault=f"director: {FAULT}",
        fault_commands=[{"host": "director", "t": 0.0, "cmd": FAULT}],
        must_report=[
            must(
                lab,
                "redirect-to-router",
                cause="redirect-obeyed",
                may_flows=[flow.id for flow in lab.flows],
                hosts=["router"],
                may_hosts=["director"],  # it sends the redirect, from its own address
                facts={"obeyed": True},
                cited={"director.pcap": redirect, "router.pcap": redirect},
            )
        ],
        must_not_report=all_but("redirect-to-router"),
    )
