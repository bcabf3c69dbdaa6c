"""Nothing is wrong here, however odd it may look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scenarios import scenario

if TYPE_CHECKING:
    from lab import Lab

TOO_BIG = "icmp[0:2] == 0x0304"
TOO_BIG_V6 = "icmp6 and ip6[40] == 2"


def _works(lab: Lab, method: str, plan: str, **shape: Any) -> None:
    """Play large transfers over an MTU of 1400 and ordinary ones, all of which end well."""
    lab.cluster(method, plan, narrow_mtu=1400, **shape)
    lab.browse("far-large", [("get", 9000)], client="client-far", count=5, every=0.8)
    lab.browse("far-small", [("get", 400)], client="client-far", count=3, every=1.1)
    lab.background(8)
    nat = method == "nat"
    directors = ("director:eth0", "director:eth1") if nat else ("director",)
    lab.capture(*directors, "rs1", "rs2", "router", "client=client-far")
    lab.play()
    lab.expect(not lab.failed(), "nothing fails")
    proof = TOO_BIG_V6 if plan == "ipv6" else TOO_BIG
    inside = "director-eth1.pcap" if nat else "director.pcap"
    if method == "tun":
        inside = "router.pcap"
    lab.look(inside, proof, "too-big messages that are heard")


@scenario
def works_dr(lab: Lab) -> None:
    """LVS-DR with working path MTU discovery."""
    _works(lab, "dr", "routed-vip")


@scenario
def works_nat(lab: Lab) -> None:
    """LVS-NAT, port 80 to 8080, with working path MTU discovery."""
    _works(lab, "nat", "office", rport=8080)


@scenario
def works_ipip_tun(lab: Lab) -> None:
    """LVS-TUN with IPIP and working path MTU discovery."""
    _works(lab, "tun", "public")


@scenario
def works_gre_tun(lab: Lab) -> None:
    """LVS-TUN with GRE and working path MTU discovery."""
    _works(lab, "tun", "routed-vip", encapsulation="gre")


@scenario
def works_gue_tun(lab: Lab) -> None:
    """LVS-TUN with GUE and working path MTU discovery."""
    _works(lab, "tun", "carrier", encapsulation="gue")


@scenario
def works_ipv6_dr(lab: Lab) -> None:
    """LVS-DR over IPv6 with working path MTU discovery."""
    _works(lab, "dr", "ipv6")


@scenario
def works_ipv6_nat(lab: Lab) -> None:
    """LVS-NAT over IPv6 with working path MTU discovery."""
    _works(lab, "nat", "ipv6", rport=8080)


@scenario
def works_ipv6_tun(lab: Lab) -> None:
    """LVS-TUN over IPv6 with working path MTU discovery."""
    _works(lab, "tun", "ipv6")


@scenario
def loss_and_reordering_dr(lab: Lab) -> None:
    """LVS-DR behind a WAN that loses two percent and reorders five."""
    lab.cluster("dr", "public")
    for host, port in (("isp", "eth1"), ("client-near", "eth0")):
        lab.then(
            host, f"tc qdisc replace dev {port} root netem delay 6ms loss 2% reorder 95%", at=0.2
        )
    lab.background(12)
    _lossy(lab)


@scenario
def loss_nat(lab: Lab) -> None:
    """LVS-NAT behind a WAN that loses two percent."""
    lab.cluster("nat", "carrier", rport=8080)
    for host, port in (("isp", "eth1"), ("client-near", "eth0")):
        lab.then(host, f"tc qdisc replace dev {port} root netem delay 5ms loss 2%", at=0.2)
    lab.background(12)
    _lossy(lab)


def _lossy(lab: Lab) -> None:
    large = lab.browse("large", [("get", 24000)], count=6, start=1, every=1.5)
    lab.browse("upload", [("post", 20000)], count=3, start=1.5, every=2)
    lab.play()
    _nothing(lab)
    lab.look("client.pcap", f"port {large[0].client[1]}", "a transfer that meets it")


@scenario
def offloads_dr(lab: Lab) -> None:
    """LVS-DR with all offloads on: large frames and unfinished checksums in the captures."""
    _offloads(lab, "dr", "office")


@scenario
def offloads_nat(lab: Lab) -> None:
    """LVS-NAT with all offloads on: large frames and unfinished checksums in the captures."""
    _offloads(lab, "nat", "public")


def _offloads(lab: Lab, method: str, plan: str) -> None:
    lab.cluster(method, plan)
    for host in lab.network.hosts.values():
        ports = " ".join(port for port in host.interfaces)
        host.do(f"for port in {ports}; do ethtool -K $port tx on rx on tso on gso on gro on; done")
    lab.background(10)
    lab.browse("large", [("get", 24000)], count=3, start=1, every=1.5)
    lab.browse("upload", [("post", 20000)], count=3, start=1.5, every=2)
    lab.play()
    _nothing(lab)
    lab.look("rs1.pcap", "ip[2:2] > 1500", "frames that the card would cut")


@scenario
def port_reuse_dr(lab: Lab) -> None:
    """LVS-DR whose clients use the same ports again and again."""
    _reuse(lab, "dr", "carrier")


@scenario
def port_reuse_nat(lab: Lab) -> None:
    """LVS-NAT whose clients use the same ports again and again."""
    _reuse(lab, "nat", "routed-vip")


def _reuse(lab: Lab, method: str, plan: str) -> None:
    lab.cluster(method, plan)
    lab.network.hosts["client-near"].do("sysctl -qw net.ipv4.tcp_tw_reuse=1")
    for number in range(4):
        lab.browse(
            "again",
            [("get", 800)],
            count=4,
            every=2.5,
            start=0.5 + 0.3 * number,
            source=(number, 40000 + number),
        )
    lab.background(8)
    lab.play()
    _nothing(lab)
    lab.look(
        "director.pcap" if method == "dr" else "director-eth0.pcap",
        "tcp[tcpflags] == tcp-syn and port 40000",
        "one client port, several connections",
    )


@scenario
def traceroute_dr(lab: Lab) -> None:
    """LVS-DR whose clients trace the route to the VIP and ping it."""
    cluster = lab.cluster("dr", "routed-vip")
    vip = cluster.plan.vip
    lab.then("client-near", f"traceroute -n -q 1 -w 1 -T -p 80 {vip}", at=2)
    lab.then("client-near", f"traceroute -n -q 2 -w 1 {vip}", at=4)
    lab.then("client-near", f"ping -n -c 3 -i 0.3 {vip}", at=6)
    lab.background(10)
    lab.play()
    _nothing(lab)
    lab.look("client.pcap", "icmp", "time exceeded, unreachable ports, pings")


@scenario
def udp_service_dr(lab: Lab) -> None:
    """LVS-DR that balances UDP; two clients leave before the answer comes."""
    _udp(lab, "dr", "public")


@scenario
def udp_service_nat(lab: Lab) -> None:
    """LVS-NAT that balances UDP; two clients leave before the answer comes."""
    _udp(lab, "nat", "office")


def _udp(lab: Lab, method: str, plan: str) -> None:
    lab.cluster(method, plan, port=5300, udp=True)
    lab.ask("small", 120, count=8, every=0.7)
    lab.ask("fragmented", 3500, count=4, every=1.5)
    lab.browse("leaves", [("leave", 200)], count=2, start=3, every=1)
    lab.play()
    _nothing(lab)
    lab.look("rs1.pcap", "udp", "datagrams, some of them fragmented")


def _nothing(lab: Lab) -> None:
    lab.expect(not lab.failed(), "nothing fails")
