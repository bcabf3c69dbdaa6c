"""What every healthy cluster sees: the disturbances that are no fault of the cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .apps import ping, tcp_traceroute, traceroute
from .clock import MILLISECOND
from .frames import icmp, of
from .traffic import browse
from .truth import look

if TYPE_CHECKING:
    from collections.abc import Callable

    from . import wire
    from .lab import Lab

CLEAN: Final = (
    "pmtud-blackhole",
    "icmp-unreachable-not-forwarded",
    "redirect-to-router",
    "host-prohibited-established",
    "icmp-checksum-burst",
    "connection-expired-at-director",
    "realserver-gone",
    "realserver-ignores-vip",
    "service-refused",
    "icmp-error-unusable",
    "fragments-lost",
    "tunnel-mss-too-large",
    "nat-reply-bypasses-director",
    "vip-arp-conflict",
    "forwarding-loop",
    "transport-checksum-burst",
    "icmp-spoofed",
    "source-quench",
)
"""All rules but capture-quality, which may always remark on a capture."""


def all_but(*rules: str) -> tuple[str, ...]:
    """Return all rules but these."""
    return tuple(rule for rule in CLEAN if rule not in rules)


STORY: Final = """
Thirty seconds of a cluster in order, with what ordinary networks do to an analyzer: a lost segment
that selective acknowledgements find, a lost tail that a probe finds, a lost request and a lost SYN,
segments that overtake one another, a client port that is used again, a path of 1400 bytes that the
realservers learn of as they should, keepalives, an idle connection, health checks from the
director, ARP, ping, and traceroute through the VIP with UDP and with SYNs.
"""


def landmarks(lab: Lab) -> list[dict[str, Any]]:
    """Return where the disturbances can be seen."""
    router = "router.pcap"

    narrow = next(flow for flow in lab.flows if flow.client[1] == 41038)
    labels = {
        "lossy": "a loss that was mended",
        "reordered": "segments that overtake one another",
        "port-reuse": "one of two connections of the same client port",
        "keepalive": "ten quiet seconds and a keepalive probe",
    }
    return [
        *(
            look(lab, router, of(flow), labels[flow.label])
            for flow in lab.flows
            if flow.label in labels
        ),
        look(lab, router, icmp((3, 4)), "3/4 to the VIP, MTU 1400"),
        look(lab, "client.pcap", of(narrow), "and the response that shrinks"),
        look(lab, router, icmp((11, 0)), "traceroute: the director answers 11/0 from the VIP"),
    ]


def everyday(lab: Lab) -> None:
    """Plan 30 seconds of health: 19 connections, some over the narrow link, some disturbed."""
    clients = [f"198.51.100.{n}" for n in range(20, 30)]
    browse(lab, clients=clients, start_s=0.3, every_s=0.83, count=12)

    # The path MTU to clients B is 1400: the first large response to each is told so and shrinks.
    lab.flow("narrow", "198.51.100.150", 41001, 2.0, [("get", 400)], ending="server")
    lab.flow("narrow", "198.51.100.151", 41038, 3.1, [("get", 11000)])
    lab.flow("narrow", "198.51.100.152", 41077, 6.4, [("get", 600), ("wait", 0.4), ("get", 7000)])

    # Lost and found again: one segment in the middle, one at the very end, one request, one SYN.
    lossy = lab.flow("lossy", "198.51.100.30", 42013, 4.2, [("get", 14000)])
    tail = lab.flow("lossy", "198.51.100.31", 42020, 7.7, [("get", 5000)])
    request = lab.flow("lossy", "198.51.100.32", 42031, 9.3, [("get", 800)])
    syn = lab.flow("lossy", "198.51.100.33", 42044, 11.0, [("get", 640)], ending="server")
    lab.disturb("wan", _data_to(lossy.client), None, skip=3)
    lab.disturb("wan", _data_to(tail.client), None, skip=3)
    lab.disturb("clients-a", _data_from(request.client), None)
    lab.disturb("wan", lambda header: (header.src, header.sport) == syn.client, None)

    # Late by 3 ms, so that others overtake it.
    mixed = lab.flow("reordered", "198.51.100.34", 42050, 12.5, [("get", 12000)])
    lab.disturb("wan", _data_to(mixed.client), 3 * MILLISECOND, skip=2)

    # The same client port again, a second after the first connection closed.
    lab.flow("port-reuse", "198.51.100.35", 43000, 8.0, [("get", 500)])
    lab.flow("port-reuse", "198.51.100.35", 43000, 14.0, [("get", 900)])

    # Quiet for ten seconds, with a keepalive probe; and one that stays open and says nothing.
    lab.flow(
        "keepalive", "198.51.100.20", 43100, 5.5, [("get", 300), ("keepalive", 10), ("get", 200)]
    )
    lab.flow("idle", "198.51.100.21", 43111, 6.0, [("get", 250)], ending="open")

    lab.health_checks(until_s=29, port=lab.director.services[0].realserver_port)
    host = lab.hosts["client-a"]
    traceroute(host, "198.51.100.22", lab.vip, start_s=16.0, hops=3)
    tcp_traceroute(host, "198.51.100.23", (lab.vip, 80), start_s=18.0, hops=4)
    ping(host, "198.51.100.24", lab.vip, start_s=20.0, count=4)


def _data_to(client: tuple[str, int]) -> Callable[[wire.Header], bool]:
    return lambda header: (header.dst, header.dport) == client and bool(header.payload)


def _data_from(client: tuple[str, int]) -> Callable[[wire.Header], bool]:
    return lambda header: (header.src, header.sport) == client and bool(header.payload)
