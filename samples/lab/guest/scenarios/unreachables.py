"""ICMP errors about the replies: delivered to the realserver as they should be, or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scenarios import scenario

if TYPE_CHECKING:
    from lab import Lab
    from traffic import Flow

HOST_UNREACHABLE = "icmp[0:2] == 0x0301"
HOST_UNREACHABLE_V6 = "icmp6 and ip6[40:2] == 0x0103"
TIME_EXCEEDED = "icmp[0] == 11"


def _vanish(lab: Lab) -> list[Flow]:
    """Let far clients ask something that takes a while, and vanish meanwhile."""
    gone = lab.browse(
        "gone", [("late", 4000)], client="client-far", count=5, start=1, every=0.3, patience=12
    )
    lab.then("client-far", "ip addr flush dev eth0", at=3.5)
    lab.then("cpe", "ip neigh flush dev eth1", at=3.7)
    return gone


@scenario
def client_gone_dr(lab: Lab) -> None:
    """LVS-DR whose far clients vanish; host-unreachable reaches the realservers as it should."""
    lab.cluster("dr", "public")
    _forwarded(lab, "director.pcap")


@scenario
def client_gone_nat(lab: Lab) -> None:
    """LVS-NAT whose far clients vanish; host-unreachable reaches the realservers as it should."""
    lab.cluster("nat", "office", rport=8080)
    _forwarded(lab, "director-eth1.pcap")


@scenario
def client_gone_ipv6_dr(lab: Lab) -> None:
    """LVS-DR over IPv6 whose far clients vanish; the realservers are told as they should be."""
    lab.cluster("dr", "ipv6")
    _forwarded(lab, "director.pcap", HOST_UNREACHABLE_V6)


def _forwarded(lab: Lab, file: str, proof: str = HOST_UNREACHABLE) -> None:
    gone = _vanish(lab)
    lab.background(10)
    lab.play(at_least=19)
    lab.expect(lab.failed() == gone, "only the vanished clients' connections fail")
    lab.look(file, proof, "host unreachable, on its way to a realserver")


@scenario
def unreachable_dropped_nat(lab: Lab) -> None:
    """LVS-NAT whose far clients vanish; the director's firewall keeps that from the realservers."""
    lab.cluster("nat", "public", rport=8080)
    lab.fault("director", "iptables -A INPUT -p icmp --icmp-type host-unreachable -j DROP")
    _dropped(lab, _vanish(lab), "director-eth0.pcap", HOST_UNREACHABLE)


@scenario
def unreachable_dropped_ipv6_dr(lab: Lab) -> None:
    """LVS-DR over IPv6 whose far clients vanish; the director's firewall keeps that to itself."""
    lab.cluster("dr", "ipv6")
    drop = "ip6tables -A INPUT -p icmpv6 --icmpv6-type destination-unreachable -j DROP"
    lab.fault("director", drop)
    _dropped(lab, _vanish(lab), "director.pcap", HOST_UNREACHABLE_V6)


def _dropped(lab: Lab, gone: list[Flow], file: str, proof: str) -> None:
    lab.background(10)
    lab.play(at_least=26)
    lab.expect(lab.failed() == gone, "only the vanished clients' connections fail")
    lab.must(
        "icmp-unreachable-not-forwarded",
        "swallowed-by-director",
        flows=gone,
        hosts=["director"],
        cited={file: proof},
    )
    lab.look(file, proof, "host unreachable, which ends at the director")


def _loop_outside(lab: Lab) -> list[Flow]:
    """Let the route to the far clients loop between the router and the ISP after a while."""
    lost = lab.browse(
        "lost", [("late", 4000)], client="client-far", count=5, start=1, every=0.3, patience=12
    )
    back = lab.made.plan.at("wan", 1)
    lab.then("isp", f"ip route replace {lab.made.plan.far} via {back}", at=3.5)
    return lost


@scenario
def time_exceeded_dr(lab: Lab) -> None:
    """LVS-DR; a routing loop outside answers with time exceeded, which the realservers are told."""
    lab.cluster("dr", "carrier")
    lost = _loop_outside(lab)
    lab.background(10)
    lab.play(at_least=16)
    lab.expect(lab.failed() == lost, "only the lost clients' connections fail")
    lab.may("forwarding-loop", "routers-loop")
    lab.look("director.pcap", TIME_EXCEEDED, "time exceeded, on its way to a realserver")


@scenario
def time_exceeded_dropped_nat(lab: Lab) -> None:
    """LVS-NAT; time exceeded from a routing loop outside ends at the director's firewall."""
    lab.cluster("nat", "public")
    lab.fault("director", "iptables -A INPUT -p icmp --icmp-type time-exceeded -j DROP")
    lost = _loop_outside(lab)
    lab.background(10)
    lab.play(at_least=20)
    lab.expect(lab.failed() == lost, "only the lost clients' connections fail")
    lab.may("forwarding-loop", "routers-loop")
    lab.must(
        "icmp-unreachable-not-forwarded",
        "swallowed-by-director",
        flows=lost,
        hosts=["director"],
        cited={"director-eth0.pcap": TIME_EXCEEDED},
    )
    lab.look("director-eth0.pcap", TIME_EXCEEDED, "time exceeded, which ends at the director")
