"""Firewalls that answer established connections with 'prohibited' when conntrack lost them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scenarios import scenario

if TYPE_CHECKING:
    from lab import Lab

LONG = [("get", 900), ("pause", 7), ("get", 1100)]
STRICT = "sysctl -qw net.netfilter.nf_conntrack_tcp_loose=0"
"""A connection whose entry is lost is not picked up again."""


RULES_OF_2007 = """
iptables -N RH-Firewall-1-INPUT
iptables -A FORWARD -j RH-Firewall-1-INPUT
iptables -A INPUT -j RH-Firewall-1-INPUT
iptables -A RH-Firewall-1-INPUT -i lo -j ACCEPT
iptables -A RH-Firewall-1-INPUT -p icmp -m icmp --icmp-type any -j ACCEPT
iptables -A RH-Firewall-1-INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT
iptables -A RH-Firewall-1-INPUT -p tcp -m state -m tcp --dport 80 --state NEW -j ACCEPT
iptables -A RH-Firewall-1-INPUT -j REJECT --reject-with icmp-host-prohibited
""".strip()


def _rules(reject: str, *, command: str = "iptables", icmp: str = "-p icmp") -> str:
    """Return the stateful rule set of many distributions, ICMP let in, and its last word."""
    return "\n".join(
        [
            f"{command} -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            f"{command} -A INPUT {icmp} -j ACCEPT",
            f"{command} -A INPUT -p tcp --dport 80 --syn -m conntrack --ctstate NEW -j ACCEPT",
            f"{command} -A INPUT -j REJECT --reject-with {reject}",
        ]
    )


@scenario
def prohibited_realserver_flushed_dr(lab: Lab) -> None:
    """LVS-DR one of whose realservers loses its conntrack table; its firewall says 3/9."""
    lab.cluster("dr", "office")
    lab.fault("rs2", STRICT)
    lab.fault("rs2", _rules("icmp-net-prohibited"))
    lab.fault("rs2", "conntrack -F", at=5)
    lab.browse("long", LONG, count=8, every=0.3)
    lab.background()
    lab.play()
    _prohibited(lab, ["rs2"], "realserver-conntrack", "rs2.pcap", "icmp[0:2] == 0x0309")


@scenario
def prohibited_realserver_idle_nat(lab: Lab) -> None:
    """LVS-NAT whose realservers forget idle connections; their firewalls say 3/13."""
    lab.cluster("nat", "public", rport=80)
    for name in ("rs1", "rs2"):
        lab.fault(name, f"{STRICT} net.netfilter.nf_conntrack_tcp_timeout_established=4")
        lab.fault(name, _rules("icmp-admin-prohibited"))
    lab.browse("idle", LONG, count=6, every=0.4)
    lab.background()
    lab.play()
    _prohibited(
        lab, ["rs1", "rs2"], "realserver-conntrack", "director-eth1.pcap", "icmp[0:2] == 0x030d"
    )


@scenario
def prohibited_realserver_window_dr(lab: Lab) -> None:
    """LVS-DR; a stranger's segments lie outside the window, and their owner gets the 3/10 for them.

    The rule set is the one that the LVS-HOWTO quotes in 2007.
    """
    cluster = lab.cluster("dr", "public")
    for host in cluster.realservers:
        lab.fault(host.name, RULES_OF_2007)
    steady = [("get", 900), ("pause", 1.5)] * 6
    kept = lab.browse("kept", steady, client="client-far", count=4, every=0.3)
    targets = " ".join(f"{flow.client[0]}:{flow.client[1]}" for flow in kept)
    lab.fault(
        "client-near", f"python3 /lab/forge.py inject {cluster.plan.vip} {lab.port} {targets}", at=4
    )
    lab.background(8)
    lab.capture("director", "rs1", "rs2", "router", "client=client-far")
    lab.play()
    lab.expect(not lab.failed(), "nobody heeds it")
    proof = "icmp[0:2] == 0x030a"
    hit = lab.told(kept, "client.pcap", proof, "icmp[28:2]")
    lab.expect(len(hit) >= 2, "they are told")
    hosts = sorted({flow.realserver for flow in hit})
    lab.must(
        "host-prohibited-established",
        "realserver-conntrack",
        flows=hit,
        may=kept,
        hosts=hosts,
        cited={f"{host}.pcap": proof for host in hosts},
        verdict="out-of-window-old-kernel",  # the guest's kernel is 6.1
    )
    lab.look("client.pcap", proof, "told about packets that it never sent")


@scenario
def prohibited_director_fin_dr(lab: Lab) -> None:
    """LVS-DR whose director's firewall is stateful, ip_vs without conntrack: FINs get 3/10."""
    lab.cluster("dr", "carrier")
    lab.fault("director", _rules("icmp-host-prohibited").replace("--syn ", ""))
    lab.background()
    lab.play(quiet_s=4)
    proof = "icmp[0:2] == 0x030a"
    lab.must(
        "host-prohibited-established",
        "director-rejects-closing",
        may=lab.flows,
        hosts=["director"],
        cited={"director.pcap": proof},
    )
    lab.look("director.pcap", proof, "FINs are prohibited")


@scenario
def prohibited_director_all_dr(lab: Lab) -> None:
    """LVS-DR whose director's firewall becomes stateful and strict: all data gets 3/10."""
    lab.cluster("dr", "routed-vip")
    lab.fault("director", f"{STRICT}\n" + _rules("icmp-host-prohibited"), at=6)
    lab.browse("long", LONG, count=5, every=0.3)
    lab.background(5)
    lab.play()
    _prohibited(lab, ["director"], "director-conntrack", "director.pcap", "icmp[0:2] == 0x030a")


@scenario
def prohibited_director_conntrack_nat(lab: Lab) -> None:
    """LVS-NAT, ip_vs with conntrack, whose director forgets idle connections: 3/10."""
    lab.cluster("nat", "office")
    lab.fault("director", "sysctl -qw net.ipv4.vs.conntrack=1")
    lab.fault("director", f"{STRICT} net.netfilter.nf_conntrack_tcp_timeout_established=4")
    lab.fault("director", _rules("icmp-host-prohibited"))
    lab.browse("idle", LONG, count=5, every=0.3)
    lab.background()
    lab.play()
    _prohibited(
        lab, ["director"], "director-conntrack", "director-eth0.pcap", "icmp[0:2] == 0x030a"
    )


@scenario
def prohibited_realserver_ipv6_dr(lab: Lab) -> None:
    """LVS-DR over IPv6 whose first realserver loses its conntrack table; its firewall says 1/1."""
    lab.cluster("dr", "ipv6")
    rules = _rules("icmp6-adm-prohibited", command="ip6tables", icmp="-p icmpv6")
    lab.fault("rs1", STRICT)
    lab.fault("rs1", rules)
    lab.fault("rs1", "conntrack -F -f ipv6", at=5)
    lab.browse("long", LONG, count=8, every=0.3)
    lab.background()
    lab.play()
    _prohibited(lab, ["rs1"], "realserver-conntrack", "rs1.pcap", "icmp6 and ip6[40:2] == 0x0101")


def _prohibited(lab: Lab, hosts: list[str], cause: str, file: str, proof: str) -> None:
    hit = lab.failed()
    lab.expect(len(hit) >= 3, "established connections fail")
    lab.must(
        "host-prohibited-established",
        cause,
        flows=hit,
        may=lab.flows,
        hosts=hosts,
        cited={file: proof},
    )
    lab.look(file, proof, "established connections are prohibited")
