"""A second director takes over the VIP, with and without the connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scenarios import scenario

if TYPE_CHECKING:
    from lab import Lab
    from network import Host

TOO_BIG = "icmp[0:2] == 0x0304"
LONG = [("get", 900), ("pause", 8), ("get", 1100)]
SYNC = "ipvsadm --start-daemon {} --mcast-interface eth0"


@scenario
def failover_synced_dr(lab: Lab) -> None:
    """LVS-DR that fails over to a second director which knows the connections: nothing is wrong."""
    second = _pair(lab)
    lab.made.director.do("sysctl -qw net.ipv4.vs.sync_threshold='1 2';" + SYNC.format("master"))
    second.do(SYNC.format("backup"))
    _take_over(lab)
    lab.expect(not lab.failed(), "all connections survive")
    lab.look("director2.pcap", f"arp src host {lab.made.plan.vip}", "the second director's claim")


@scenario
def failover_unsynced_dr(lab: Lab) -> None:
    """LVS-DR that fails over to a second director which knows nothing of the connections."""
    _pair(lab)
    lab.faults.append({"host": "director2", "cmd": "takes over without the sync daemon"})
    _take_over(lab)
    lab.expect(bool(lab.failed("long")), "connections that outlive the first director fail")
    reset = f"tcp[tcpflags] & tcp-rst != 0 and src host {lab.made.plan.vip}"
    lab.must(
        "connection-expired-at-director",
        "failover-without-sync",
        flows=lab.failed("long"),
        may=lab.flows,
        hosts=["director2"],
        cited={"director2.pcap": reset},
    )
    lab.look("director2.pcap", reset, "resets of the second director")


@scenario
def errors_to_other_director_dr(lab: Lab) -> None:
    """LVS-DR with two directors; who asks decides which gets it, and errors go to the wrong one.

    The router shares the load by source address: near clients belong to the second director, far
    ones to the first, but the ISP's router, which tells of the MTU, to the second.
    """
    second = _pair(lab, "routed-vip", narrow_mtu=1400)
    plan = lab.made.plan
    second.do(f"ip addr add {plan.vip}/32 dev eth0")
    second.interfaces["eth0"].addresses.append(f"{plan.vip}/32")
    lab.fault(
        "router",
        f"ip route add {plan.vip} via {plan.at('lan', 3)} table 7;"
        f"ip rule add from {plan.near} to {plan.vip} lookup 7;"
        f"ip rule add from {plan.wan} to {plan.vip} lookup 7",
    )
    large = lab.browse("far-large", [("get", 9000)], client="client-far", count=5, every=0.8)
    lab.browse("far-small", [("get", 400)], client="client-far", count=3, every=1.1)
    lab.background(8)
    lab.capture("director", "director2", "rs1", "rs2", "router", "client=client-far")
    lab.play()
    lab.expect(lab.failed() == large, "the large transfers fail, and only they")
    hosts = sorted({flow.realserver for flow in large if flow.realserver})
    lab.must(
        "pmtud-blackhole",
        "icmp-not-forwarded",
        flows=large,
        hosts=hosts,
        may_causes=["no-icmp-generated", "icmp-filtered-upstream"],
        direction="to-client",
    )
    lab.must(
        "icmp-unreachable-not-forwarded",
        "no-connection-entry",
        flows=large,
        hosts=["director2"],
        may_hosts=["director"],
        cited={"director2.pcap": TOO_BIG},
    )
    lab.look("director2.pcap", TOO_BIG, "messages about connections of the other director")


def _pair(lab: Lab, plan: str = "public", **shape: Any) -> Host:
    """Build a cluster with a second director that balances the same service."""
    cluster = lab.cluster("dr", plan, **shape)
    second = lab.network.host("director2", "director", forwarding=True, ipv6=False)
    lab.network.plug(second, "eth0", cluster.lan, cluster.plan.on("lan", 3))
    second.run(f"ip route add default via {cluster.plan.at('lan', 1)}")
    vip = f"{cluster.plan.vip}:80"
    second.do(
        f"ipvsadm -A -t {vip} -s rr;"
        + ";".join(f"ipvsadm -a -t {vip} -r {cluster.rip(number)}:80 -g" for number in (1, 2))
    )
    return second


def _take_over(lab: Lab) -> None:
    vip = lab.made.plan.vip
    lab.then("director", f"ip addr del {vip}/32 dev eth0", at=5)
    claim = f"ip addr add {vip}/32 dev eth0; arping -U -q -c 2 -I eth0 {vip} || true"
    lab.then("director2", claim, at=5.1)
    lab.browse("long", LONG, count=6, every=0.3)
    lab.background(11)
    lab.capture("director", "director2", "rs1", "rs2", "router", "client=client-near")
    lab.play()
