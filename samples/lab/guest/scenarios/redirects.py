"""Redirects that move a path around the director."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scenarios import scenario

if TYPE_CHECKING:
    from lab import Lab

REDIRECT = "icmp[0] == 5"


@scenario
def redirect_onearm_nat(lab: Lab) -> None:
    """One-arm LVS-NAT whose director tells the realservers of the shorter way to the clients."""
    cluster = lab.cluster("onearm", "public")
    lab.fault("director", "sysctl -qw net.ipv4.conf.all.send_redirects=1")
    lab.background()
    lab.play()
    hit = lab.failed()
    bare = f"src net {cluster.plan.lan} and port 80 and dst net {cluster.plan.near}"
    bare = f"{bare} and not src host {cluster.plan.vip}"
    lab.must(
        "redirect-to-router",
        *(["redirect-obeyed", "redirect-ignored"] if hit else ["redirect-ignored"]),
        may=lab.flows,
        hosts=["director"],
        cited={"director.pcap": REDIRECT, "rs1.pcap": REDIRECT, "rs2.pcap": REDIRECT},
    )
    if hit:
        lab.must(
            "nat-reply-bypasses-director",
            "reply-bypasses-director",
            flows=hit,
            may=lab.flows,
            cited={"router.pcap": bare},
        )
        lab.look("router.pcap", bare, "replies that carry the realserver's own address")
    lab.look("director.pcap", REDIRECT, "redirects to the realservers")


@scenario
def redirect_obeyed_by_router_dr(lab: Lab) -> None:
    """LVS-DR by mark; the rest for the VIP is routed, and the router obeys the redirect for it."""
    cluster = lab.cluster("dr", "routed-vip")
    vip, first = cluster.plan.vip, cluster.rip(1)
    cluster.director.do(
        f"ip addr del {vip}/32 dev eth0; ipvsadm -C; ip route add {vip} via {first};"
        f"iptables -t mangle -A PREROUTING -d {vip} -p tcp --dport 80 -j MARK --set-mark 1;"
        "ip rule add fwmark 1 lookup 100; ip route add local default dev lo table 100;"
        "ipvsadm -A -f 1 -s rr;"
        + "".join(f"ipvsadm -a -f 1 -r {cluster.rip(number)} -g;" for number in (1, 2))
    )
    cluster.director.interfaces["eth0"].addresses.remove(f"{vip}/32")
    cluster.services[0].update(port=None, fwmark=1)
    lab.servers.serve(cluster.realservers[0], 81)
    lab.fault(
        "router",
        "sysctl -qw net.ipv4.conf.all.accept_redirects=1 net.ipv4.conf.eth0.accept_redirects=1",
    )
    probe = f"timeout 3 bash -c 'exec 3<>/dev/tcp/{vip}/81' || true"
    lab.fault("router", probe, at=5)
    long = [("get", 900), ("pause", 7), ("get", 1100), ("pause", 1), ("get", 500)]
    lab.browse("long", long, count=6, every=0.4)
    lab.background(14)
    lab.play()
    hit = lab.failed()
    lab.expect(len(hit) >= 2, "connections of rs2 end at rs1")
    lab.must(
        "redirect-to-router",
        "redirect-obeyed",
        flows=hit,
        may=lab.flows,
        hosts=["router", "rs1"],
        may_hosts=["director"],
        may_clients=[cluster.router.interfaces["eth0"].addresses[0].split("/")[0]],
        cited={"director.pcap": REDIRECT, "router.pcap": REDIRECT},
    )
    lab.look("director.pcap", REDIRECT, "the redirect to the router")
    lab.look("rs1.pcap", f"dst host {vip} and tcp[tcpflags] & tcp-push != 0", "what comes to rs1")
