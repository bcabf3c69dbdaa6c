"""Path MTU discovery that fails, by each cause; the far clients sit behind an MTU of 1400."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scenarios import scenario

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab import Lab
    from traffic import Flow

NARROW = 1400
TOO_BIG = "icmp[0:2] == 0x0304"
TOO_BIG_V6 = "icmp6 and ip6[40] == 2"
MSS = ["uploads-refused", "mss-too-large"]
"""The MSS is too large, and where it was used, the director said so."""
DROP_TOO_BIG = "-p icmp --icmp-type fragmentation-needed -j DROP"


def _far(lab: Lab, steps: Sequence[tuple[str, float]] = (("get", 9000),)) -> list[Flow]:
    """Plan large and small requests of the far clients; every realserver gets large ones.

    Two that come at once go to two realservers, whatever the background does to the turns.
    """
    lab.browse("far-small", [("get", 400)], client="client-far", count=3, every=1.1)
    first = lab.browse("far-large", steps, client="client-far", count=3, every=1.6)
    return first + lab.browse("far-large", steps, client="client-far", count=3, every=1.6)


def _captures(lab: Lab) -> None:
    nat = lab.made.method == "nat"
    directors = ("director:eth0", "director:eth1") if nat else ("director",)
    lab.capture(*directors, "rs1", "rs2", "router", "client=client-far")


def _blackhole(
    lab: Lab,
    large: list[Flow],
    cause: str,
    *,
    direction: str = "to-client",
    may_causes: Sequence[str] = ("no-icmp-generated",),
) -> None:
    lab.expect(lab.failed() == large, "the large transfers fail, and only they")
    hosts = sorted({flow.realserver for flow in large if flow.realserver})
    lab.must(
        "pmtud-blackhole",
        cause,
        flows=large,
        hosts=hosts,
        may_causes=may_causes,
        direction=direction,
    )
    stalled = f"port {large[0].client[1]}"
    lab.look(f"{large[0].realserver}.pcap", stalled, "a transfer that stalls")


@scenario
def pmtud_filtered_upstream_dr(lab: Lab) -> None:
    """LVS-DR; the router in front drops ICMP, so that nobody here is told of the MTU of 1400."""
    lab.cluster("dr", "carrier", narrow_mtu=NARROW)
    lab.fault("router", "iptables -A FORWARD -p icmp -j DROP")
    large = _far(lab)
    lab.background(8)
    _captures(lab)
    lab.play()
    _blackhole(lab, large, "no-icmp-generated")


@scenario
def pmtud_filtered_at_router_dr(lab: Lab) -> None:
    """LVS-DR; the router in front drops ICMP, and is captured on both of its sides."""
    lab.cluster("dr", "public", narrow_mtu=NARROW)
    lab.fault("router", "iptables -A FORWARD -p icmp -j DROP")
    large = _far(lab)
    lab.background(8)
    lab.capture("director", "rs1", "rs2", "router:eth0", "router:eth1", "client=client-far")
    lab.play()
    _blackhole(lab, large, "icmp-filtered-upstream")
    lab.look("router-eth1.pcap", TOO_BIG, "it comes to the router and no further")


@scenario
def pmtud_director_input_nat(lab: Lab) -> None:
    """LVS-NAT whose director drops fragmentation-needed in INPUT, before ip_vs."""
    lab.cluster("nat", "public", rport=8080, narrow_mtu=NARROW)
    lab.fault("director", f"iptables -A INPUT {DROP_TOO_BIG}")
    large = _far(lab)
    lab.background(8)
    _captures(lab)
    lab.play()
    _blackhole(lab, large, "icmp-not-forwarded")
    _not_forwarded(lab, large, "director-eth0.pcap", TOO_BIG)


@scenario
def pmtud_director_input_tun(lab: Lab) -> None:
    """LVS-TUN whose director drops fragmentation-needed in INPUT, before ip_vs."""
    lab.cluster("tun", "office", narrow_mtu=NARROW)
    lab.fault("director", f"iptables -A INPUT {DROP_TOO_BIG}")
    large = _far(lab)
    lab.background(8)
    _captures(lab)
    lab.play()
    _blackhole(lab, large, "icmp-not-forwarded")
    _not_forwarded(lab, large, "director.pcap", TOO_BIG)


@scenario
def pmtud_director_input_ipv6_dr(lab: Lab) -> None:
    """LVS-DR over IPv6 whose director drops packet-too-big in INPUT, before ip_vs."""
    lab.cluster("dr", "ipv6", narrow_mtu=NARROW)
    drop = "ip6tables -A INPUT -p icmpv6 --icmpv6-type packet-too-big -j DROP"
    lab.fault("director", drop)
    large = _far(lab)
    lab.background(8)
    _captures(lab)
    lab.play()
    _blackhole(lab, large, "icmp-not-forwarded")
    _not_forwarded(lab, large, "director.pcap", TOO_BIG_V6)


@scenario
def pmtud_director_output_dr(lab: Lab) -> None:
    """LVS-DR whose director drops what it forwards of ICMP in OUTPUT, behind ip_vs."""
    lab.cluster("dr", "routed-vip", narrow_mtu=NARROW)
    lab.fault("director", f"iptables -A OUTPUT {DROP_TOO_BIG}")
    large = _far(lab)
    lab.background(8)
    _captures(lab)
    lab.play()
    _blackhole(lab, large, "icmp-not-forwarded")
    _not_forwarded(lab, large, "director.pcap", TOO_BIG)


def _not_forwarded(lab: Lab, large: list[Flow], file: str, proof: str) -> None:
    lab.must(
        "icmp-unreachable-not-forwarded",
        "swallowed-by-director",
        flows=large,
        hosts=["director"],
        cited={file: proof},
    )
    lab.look(file, proof, "too-big messages come in, none goes out")


@scenario
def pmtud_realserver_firewall_dr(lab: Lab) -> None:
    """LVS-DR whose realservers' firewalls drop the ICMP that the director hands them."""
    lab.cluster("dr", "public", narrow_mtu=NARROW)
    for name in ("rs1", "rs2"):
        lab.fault(name, "iptables -A INPUT -p icmp -j DROP")
    large = _far(lab)
    lab.background(8)
    _captures(lab)
    lab.play()
    _blackhole(lab, large, "icmp-ignored-by-sender")
    lab.look(f"{large[0].realserver}.pcap", TOO_BIG, "it arrives, to no effect")


@scenario
def pmtud_realserver_firewall_nat(lab: Lab) -> None:
    """LVS-NAT one of whose realservers' firewalls drops the ICMP that the director hands it."""
    lab.cluster("nat", "carrier", narrow_mtu=NARROW)
    lab.fault("rs2", "iptables -A INPUT -p icmp -j DROP")
    large = _far(lab)
    lab.background(8)
    _captures(lab)
    lab.play()
    theirs = [flow for flow in large if flow.realserver == "rs2"]
    _blackhole(lab, theirs, "icmp-ignored-by-sender")
    lab.look("rs2.pcap", TOO_BIG, "it arrives, to no effect")


@scenario
def pmtud_upload_tunnel_tun(lab: Lab) -> None:
    """LVS-TUN; uploads do not fit the tunnel, and the router drops the director's 3/4 about it."""
    lab.cluster("tun", "routed-vip", fitting_mss=False)
    lab.fault("router", "iptables -A FORWARD -p icmp -j DROP")
    lab.background(8)
    uploads = [flow for flow in lab.flows if flow.label == "upload"]
    uploads += lab.browse("upload", [("post", 12000)], count=3, start=2, every=0.9)
    lab.capture("director", "rs1", "rs2", "router", "client=client-near")
    lab.play()
    _blackhole(
        lab,
        uploads,
        "icmp-filtered-upstream",
        direction="to-realserver",
        may_causes=["tunnel-overhead"],
    )
    lab.may("tunnel-mss-too-large", *MSS)
    lab.look("director.pcap", TOO_BIG, "the director's 3/4, which ends at the router")


@scenario
def pmtud_upload_silent_gre_tun(lab: Lab) -> None:
    """LVS-TUN with GRE over a path of MTU 1400 whose director may not send ICMP."""
    cluster = lab.cluster("tun", "office", encapsulation="gre", fitting_mss=False)
    for number in (1, 2):
        cluster.director.do(f"ip route add {cluster.rip(number)} dev eth0 mtu 1400")
    lab.fault("director", "iptables -A OUTPUT -p icmp -j DROP")
    lab.background(8)
    uploads = [flow for flow in lab.flows if flow.label == "upload"]
    uploads += lab.browse("upload", [("post", 12000)], count=3, start=2, every=0.9)
    lab.capture("director", "rs1", "rs2", "router", "client=client-near")
    lab.play()
    _blackhole(lab, uploads, "tunnel-overhead", direction="to-realserver", may_causes=())
    lab.may("tunnel-mss-too-large", *MSS)


@scenario
def pmtud_probing_recovers_dr(lab: Lab) -> None:
    """LVS-DR; ICMP is filtered upstream, but the realservers probe for the MTU and recover."""
    lab.cluster("dr", "office", narrow_mtu=NARROW)
    lab.fault("router", "iptables -A FORWARD -p icmp -j DROP")
    for name in ("rs1", "rs2"):
        lab.network.hosts[name].do("sysctl -qw net.ipv4.tcp_mtu_probing=1")
    large = _far(lab)
    lab.background(8)
    _captures(lab)
    lab.play()
    lab.expect(not lab.failed(), "all recover")
    lab.expect(all(flow.ended - flow.started > 1.5 for flow in large), "after a while")
    hosts = sorted({flow.realserver for flow in large if flow.realserver})
    lab.must(
        "pmtud-blackhole",
        "no-icmp-generated",
        flows=large,
        hosts=hosts,
        direction="to-client",
        recovered_connections=len(large),
        recovered_by_probing=True,
    )
    stalled = f"port {large[0].client[1]}"
    lab.look(f"{large[0].realserver}.pcap", stalled, "a transfer that stalls, then recovers")


@scenario
def next_hop_mtu_zero_dr(lab: Lab) -> None:
    """LVS-DR; the router in front blots out the next-hop MTU, senders fall back to 552."""
    lab.cluster("dr", "carrier", narrow_mtu=NARROW)
    lab.fault(
        "router",
        "nft add table ip box; nft 'add chain ip box out { type filter hook forward priority 0; }';"
        "nft add rule ip box out icmp type destination-unreachable icmp code 4 icmp mtu set 0",
    )
    _far(lab)
    lab.background(8)
    _captures(lab)
    lab.play()
    lab.expect(not lab.failed(), "all transfers end well")
    lab.must(
        "icmp-error-unusable",
        "mtu-zero",
        cited={
            "director.pcap": TOO_BIG,
            "rs1.pcap": TOO_BIG,
            "rs2.pcap": TOO_BIG,
            "router.pcap": TOO_BIG,
        },
    )
    lab.look("director.pcap", TOO_BIG, "next-hop MTU 0")


@scenario
def tunnel_mss_gre_tun(lab: Lab) -> None:
    """LVS-TUN with GRE; the MSS does not fit, and only path MTU discovery saves the uploads."""
    lab.cluster("tun", "carrier", encapsulation="gre", fitting_mss=False)
    lab.background(8)
    lab.browse("upload", [("post", 12000)], count=3, start=2, every=0.9)
    lab.play()
    _mss(lab)


@scenario
def tunnel_mss_gue_tun(lab: Lab) -> None:
    """LVS-TUN with GUE; the MSS does not fit, and only path MTU discovery saves the uploads."""
    lab.cluster("tun", "public", encapsulation="gue", fitting_mss=False)
    lab.background(8)
    lab.browse("upload", [("post", 12000)], count=3, start=2, every=0.9)
    lab.play()
    _mss(lab)


def _mss(lab: Lab) -> None:
    lab.expect(not lab.failed(), "all transfers end well")
    lab.must("tunnel-mss-too-large", *MSS, may=lab.flows)
    lab.look("director.pcap", TOO_BIG, "the director's own 3/4, to the clients")
