"""Who answers for the VIP, who has it, and where replies go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scenarios import scenario

if TYPE_CHECKING:
    from lab import Lab

SYN = "tcp[tcpflags] == tcp-syn"
QUIET_DIRECTOR = "sysctl -qw net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.eth0.send_redirects=0"


@scenario
def vip_arp_conflict_dr(lab: Lab) -> None:
    """LVS-DR one of whose realservers answers ARP for the VIP."""
    cluster = lab.cluster("dr", "public")
    heard = "sysctl -qw net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.all.arp_announce=0"
    lab.fault("rs2", heard, at=6)
    for at in (6.5, 9, 12):
        lab.then("router", f"ip neigh flush to {cluster.plan.vip}", at=at)
    lab.background(14)
    lab.play()
    answers = f"arp[6:2] == 2 and arp src host {cluster.plan.vip}"
    lab.must(
        "vip-arp-conflict",
        "realserver-answers",
        hosts=["director", "rs2"],
        cited={"router.pcap": answers},
    )
    lab.look("router.pcap", answers, "two hosts answer for the VIP")


@scenario
def vip_missing_dr(lab: Lab) -> None:
    """LVS-DR one of whose realservers does not have the VIP."""
    cluster = lab.cluster("dr", "carrier", realservers=3)
    lab.fault("rs2", f"ip addr del {cluster.plan.vip}/32 dev lo")
    lab.background()
    lab.capture("director", "rs1", "rs2", "rs3", "router", "client=client-near")
    lab.play()
    _ignored(lab, "vip-not-configured", f"dst host {cluster.plan.vip} and {SYN}")


@scenario
def tunnel_down_tun(lab: Lab) -> None:
    """LVS-TUN one of whose realservers has no tunnel device up."""
    lab.cluster("tun", "public", realservers=3)
    lab.fault("rs2", "ip link set tunl0 down")
    lab.background()
    lab.capture("director", "rs1", "rs2", "rs3", "router", "client=client-near")
    lab.play()
    hit = lab.failed()
    lab.expect(3 <= len(hit) < len(lab.flows), "one realserver's connections fail")
    lab.expect({flow.error for flow in hit} == {"connection refused"}, "and the clients are told")
    complaint = f"icmp[0:2] == 0x0303 and src host {lab.made.rip(2)}"
    relayed = f"icmp[0:2] == 0x0303 and src host {lab.made.plan.vip}"
    cited = {"rs2.pcap": "ip proto 4", "director.pcap": "icmp[0:2] == 0x0303"}
    lab.must("realserver-ignores-vip", "no-tunnel-device", flows=hit, hosts=["rs2"], cited=cited)
    lab.may("service-refused", "realserver-port-unreachable")
    lab.look("rs2.pcap", complaint, "the kernel has no tunnel for it, and says so to the director")
    lab.look("director.pcap", relayed, "ip_vs says it again to the clients, from the VIP")


@scenario
def tunnel_rp_filter_tun(lab: Lab) -> None:
    """LVS-TUN one of whose realservers filters by reverse path on the tunnel device."""
    lab.cluster("tun", "routed-vip")
    lab.fault("rs2", "sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.tunl0.rp_filter=1")
    lab.background()
    lab.play()
    _ignored(lab, "dropped-in-tunnel", "ip proto 4")


def _ignored(lab: Lab, cause: str, proof: str) -> None:
    hit = lab.failed()
    lab.expect(3 <= len(hit) < len(lab.flows), "one realserver's connections fail")
    lab.expect({flow.error for flow in hit} == {"timeout"}, "in silence")
    lab.must("realserver-ignores-vip", cause, flows=hit, hosts=["rs2"], cited={"rs2.pcap": proof})
    lab.look("rs2.pcap", proof, "requests that nothing answers")


@scenario
def forwarding_loop_dr(lab: Lab) -> None:
    """LVS-DR with a realserver that is a backup director and balances back to the first one."""
    cluster = lab.cluster("dr", "office")
    vip = f"{cluster.plan.vip}:80"
    lab.fault(
        "rs2", f"ipvsadm -A -t {vip} -s rr; ipvsadm -a -t {vip} -r {cluster.plan.at('lan', 2)} -g"
    )
    lab.made.services[0]["rips"].append(cluster.plan.at("lan", 2))
    cluster.realservers[1].also = "director"
    for count in range(4):
        lab.browse("once", [("get", 600)], count=2, start=0.5 + 2.5 * count, every=0.7, patience=5)
    lab.play()
    hit = lab.failed()
    lab.expect(2 <= len(hit) < len(lab.flows), "every other connection loops")
    spent = f"dst host {cluster.plan.vip} and {SYN} and ip[8] < 20"
    lab.must(
        "forwarding-loop",
        "members-loop",
        flows=hit,
        hosts=["director", "rs2"],
        cited={"director.pcap": spent},
    )
    lab.look("director.pcap", spent, "SYNs that come by with ever lower TTL")


@scenario
def nat_reply_bypasses_director(lab: Lab) -> None:
    """One-arm LVS-NAT one of whose realservers has the router as its default gateway."""
    cluster = lab.cluster("onearm", "public")
    cluster.director.do(QUIET_DIRECTOR)
    lab.fault("rs2", f"ip route replace default via {cluster.plan.at('lan', 1)}")
    lab.background()
    lab.play()
    hit = lab.failed()
    lab.expect(3 <= len(hit) < len(lab.flows), "one realserver's connections fail")
    bare = f"src host {cluster.rip(2)} and port 80 and dst net {cluster.plan.near}"
    lab.must(
        "nat-reply-bypasses-director",
        "reply-bypasses-director",
        flows=hit,
        hosts=["rs2"],
        cited={"rs2.pcap": bare, "router.pcap": bare, "client.pcap": bare},
    )
    lab.look("router.pcap", bare, "replies that carry the realserver's own address")
