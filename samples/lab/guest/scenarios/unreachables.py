"""ICMP errors about the replies: delivered to the realserver as they should be, or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scenarios import scenario

if TYPE_CHECKING:
    from lab import Lab
    from traffic import Flow

HOST_UNREACHABLE = "icmp[0:2] == 0x0301"
HOST_UNREACHABLE_V6 = "icmp6 and ip6[40:2] == 0x0103"
TOO_BIG = "icmp[0:2] == 0x0304"
TIME_EXCEEDED = "icmp[0] == 11"


def _vanish(lab: Lab, start: float = 1) -> list[Flow]:
    """Let far clients ask something that takes a while, and vanish meanwhile."""
    late = [("late", 4000)]
    gone = lab.browse(
        "gone", late, client="client-far", count=5, start=start, every=0.3, patience=12
    )
    lab.then("client-far", "ip addr flush dev eth0", at=start + 2.5)
    lab.then("cpe", "ip neigh flush dev eth1", at=start + 2.7)
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
def unreachable_dropped_by_type_nat(lab: Lab) -> None:
    """LVS-NAT whose director drops host-unreachable and lets other ICMP pass to ip_vs."""
    lab.cluster("nat", "carrier", rport=8080, narrow_mtu=1400)
    lab.fault("director", "iptables -A INPUT -p icmp --icmp-type host-unreachable -j DROP")
    lab.browse("far-large", [("get", 9000)], client="client-far", count=5, every=0.6)
    gone = _vanish(lab, start=5)
    _dropped(
        lab, gone, "director-eth0.pcap", HOST_UNREACHABLE, cause="dropped-by-firewall-suspected"
    )
    lab.look("director-eth1.pcap", TOO_BIG, "what else is said about replies does pass")


@scenario
def unreachable_dropped_ipv6_dr(lab: Lab) -> None:
    """LVS-DR over IPv6 whose far clients vanish; the director's firewall keeps that to itself."""
    lab.cluster("dr", "ipv6")
    drop = "ip6tables -A INPUT -p icmpv6 --icmpv6-type destination-unreachable -j DROP"
    lab.fault("director", drop)
    _dropped(lab, _vanish(lab), "director.pcap", HOST_UNREACHABLE_V6, quoted_port="ip6[90:2]")


def _dropped(
    lab: Lab,
    gone: list[Flow],
    file: str,
    proof: str,
    *,
    cause: str = "swallowed-by-director",
    quoted_port: str = "icmp[30:2]",
) -> None:
    """Play, and demand the connections of which the director was told."""
    lab.background(10)
    lab.play(at_least=gone[0].start_s + 25)
    lab.expect(lab.failed() == gone, "only the vanished clients' connections fail")
    lab.must(
        "icmp-unreachable-not-forwarded",
        cause,
        flows=lab.told(gone, file, proof, quoted_port),
        may=gone,
        hosts=["director"],
        may_causes=["swallowed-by-director"],
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
