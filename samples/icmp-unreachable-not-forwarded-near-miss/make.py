"""LVS-NAT: errors that are passed on as they should be, and errors that rightly stay."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from simulator import cluster, wire
from simulator.clock import MILLISECOND
from simulator.everyday import CLEAN
from simulator.frames import every, icmp, sent_by
from simulator.traffic import browse
from simulator.truth import look, write_sample

if TYPE_CHECKING:
    from pathlib import Path

    from simulator.apps import Flow
    from simulator.lab import Lab
    from simulator.links import Interface

OUTAGE_S = 5.0
STORY = """
The line to clients 198.51.100.150 to .153 goes down at 5 seconds, as in
icmp-unreachable-not-forwarded-nat. Here the director does its work: each host unreachable that
comes in on eth0 goes out on eth1 to the realserver's address, with the quoted source translated to
port 8080, and the realserver's backoff is undone once for each (RFC 6069). The router limits itself
to one message a second.

Three other kinds of message reach the director and end there, as they should. The router tells the
VIP of a better way to clients 198.51.100.28 to .31 (redirects to 203.0.113.254): ip_vs looks at no
redirects, and a router does not obey them. A parameter problem quotes a healthy connection: ip_vs
in IPv4 looks at no type 12. And host unreachables quote a connection to 198.51.100.99 that the
director has no entry for, because it ended before the director was restarted.
"""
LATE = (
    "icmp-spoofed: the host unreachables about 198.51.100.99 quote segments that were not sent "
    "while the captures ran; they are late, not forged, which no capture can tell"
)


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.nat("icmp-unreachable-not-forwarded-near-miss")
    lab.serve(realserver_port=8080)
    cluster.second_router(lab)
    lab.hosts["router"].add_route("198.51.100.28/30", "203.0.113.254")
    clients = [f"198.51.100.{n}" for n in range(20, 34)]
    browse(lab, clients=clients, start_s=0.2, every_s=1.1, count=14)
    for number in range(4):
        start = 1.1 + 0.6 * number
        port = 42003 + 31 * number
        client = f"198.51.100.{150 + number}"
        lab.flow("cut-off", client, port, start, [("stream", 300 + 350 * number)], ending="open")
    lab.at(OUTAGE_S, partial(lab.hosts["isp"].add_route, "198.51.100.128/25", None))
    puzzled = lab.flow("parameter-problem", "198.51.100.34", 43007, 3.1, [("get", 2500)])
    _complain(lab, puzzled)
    for number in range(3):
        lab.at(0.9 + 1.2 * number, partial(_late_error, lab, number))
    lab.health_checks(until_s=22, port=8080)
    lab.capture("director-eth0.pcap", "director", "eth0")
    lab.capture("director-eth1.pcap", "director", "eth1")
    lab.capture_all("rs1", "rs2", "router")
    lab.run(24)
    router = sent_by(lab, "router")
    write_sample(
        lab,
        folder,
        description="LVS-NAT; unreachables are forwarded, what ip_vs does not look at stays",
        story=STORY,
        look_at=[
            look(lab, "director-eth0.pcap", every(router, icmp((3, 1))), "3/1 coming in"),
            look(lab, "director-eth1.pcap", icmp((3, 1)), "and going out, translated"),
            look(lab, "director-eth0.pcap", icmp((5, 1)), "redirects to the VIP, which stay"),
            look(lab, "director-eth0.pcap", icmp((12, 0)), "a parameter problem, which stays"),
        ],
        fault_commands=[
            {"host": "isp", "t": OUTAGE_S, "cmd": "ip route replace unreachable 198.51.100.128/25"}
        ],
        may_report=["icmp-spoofed"],
        must_not_report=[rule for rule in CLEAN if rule != "icmp-spoofed"],
        notes=[LATE],
    )


def _complain(lab: Lab, flow: Flow) -> None:
    """Let the isp answer the flow's first response segment with a parameter problem."""
    done = False

    def watch(_sender: Interface, frame: bytes) -> int | None:
        nonlocal done
        if frame[12:14] == b"\x08\x00" and not done:
            header = wire.read(frame[14:])
            if (header.dst, header.dport) == flow.client and header.payload:
                done = True
                isp = lab.hosts["isp"]
                error = partial(isp.error, (12, 0), frame[14:], word=20 << 24)
                lab.clock.after(6 * MILLISECOND, error)
        return 0

    lab.segments["wan"].meddle.append(watch)


def _late_error(lab: Lab, number: int) -> None:
    """Send a host unreachable about a connection that ended before the captures began."""
    segment = wire.tcp(
        (lab.vip, 80),
        ("198.51.100.99", 51515),
        seq=0x5EED0000,
        ack=0x0BADCAFE,
        flags=wire.ACK | wire.PSH,
        window=509,
        ident=0x4321 + number,
        payload=b"late" * 30,
        ttl=62,
    )
    lab.hosts["isp"].error((3, 1), segment)
