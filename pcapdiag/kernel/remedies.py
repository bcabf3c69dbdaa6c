"""Commands that mend, each with a check before, a way to keep it and a way back.

People paste these as root. Only addresses, integers and names that were parsed may enter a command;
what is not known is a placeholder in capitals (IFACE, GATEWAY). No captured text comes near.
"""

from __future__ import annotations

from pcapdiag.result import Remedy

SAVE_IPTABLES = "iptables-save > /etc/iptables/rules.v4"
SAVE_SYSCTL = "/etc/sysctl.d/90-lvs.conf"


def accept_icmp_errors(host: str, version: int) -> Remedy:
    """Let ICMP errors reach ip_vs, which sits behind the filter table's INPUT chain."""
    tool, proto = ("iptables", "icmp") if version == 4 else ("ip6tables", "ipv6-icmp")
    option = "--icmp-type" if version == 4 else "--icmpv6-type"
    types = (
        ("destination-unreachable", "time-exceeded")
        if version == 4
        else ("destination-unreachable", "packet-too-big", "time-exceeded", "parameter-problem")
    )
    rules = [f"INPUT 1 -p {proto} {option} {name} -j ACCEPT" for name in types]
    return Remedy(
        where=host,
        action="Accept ICMP errors in INPUT: ip_vs takes them in LOCAL_IN, after the filter table.",
        check=(
            f"{tool} -vnL INPUT --line-numbers",
            f"{tool} -t mangle -vnL; {tool} -vnL OUTPUT",
            "nft list ruleset | grep -n -i icmp",
        ),
        commands=tuple(f"{tool} -I {rule}" for rule in rules),
        persist=(f"{tool}-save > /etc/iptables/rules.v{version}",),
        undo=tuple(f"{tool} -D {rule.replace('INPUT 1', 'INPUT')}" for rule in rules),
        risk="None worth naming: these types answer packets that the cluster sent itself.",
    )


def probe_mtu(host: str) -> Remedy:
    """Let senders find the path MTU by themselves (RFC 4821) until the path is mended."""
    return Remedy(
        where=host,
        action="Until the path is mended: let TCP recover by itself after about three seconds.",
        check=("sysctl net.ipv4.tcp_mtu_probing",),
        commands=("sysctl -w net.ipv4.tcp_mtu_probing=1",),
        persist=(f"echo 'net.ipv4.tcp_mtu_probing = 1' >> {SAVE_SYSCTL}",),
        undo=("sysctl -w net.ipv4.tcp_mtu_probing=0",),
        risk="Stalls become short delays; it hides the fault rather than mending it.",
    )


def clamp_mss(host: str, version: int, mtu: int) -> Remedy:
    """Limit the segments that peers send, where the path cannot be mended."""
    tool = "iptables" if version == 4 else "ip6tables"
    mss = mtu - (40 if version == 4 else 60)
    rule = f"-p tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss {mss}"
    return Remedy(
        where=host,
        action=f"Announce an MSS that fits an MTU of {mtu}: {mss} bytes.",
        check=(f"{tool} -t mangle -vnL OUTPUT",),
        commands=(f"{tool} -t mangle -A OUTPUT {rule}",),
        persist=(f"{tool}-save > /etc/iptables/rules.v{version}",),
        undo=(f"{tool} -t mangle -D OUTPUT {rule}",),
        risk="New connections only. Limits what clients send to this host, not what it sends.",
    )


def stop_redirects(host: str) -> Remedy:
    """Stop sending redirects; `all` OR the interface decides, so both have to be 0."""
    return Remedy(
        where=host,
        action="Stop sending ICMP redirects: 'all' and every interface must be 0.",
        check=("sysctl -a 2>/dev/null | grep send_redirects",),
        commands=(
            "sysctl -w net.ipv4.conf.all.send_redirects=0",
            "sysctl -w net.ipv4.conf.IFACE.send_redirects=0",
        ),
        persist=(
            (
                "printf 'net.ipv4.conf.all.send_redirects = "
                "0\\nnet.ipv4.conf.default.send_redirects = 0"
                f"\\nnet.ipv4.conf.IFACE.send_redirects = 0\\n' >> {SAVE_SYSCTL}"
            ),
        ),
        undo=("sysctl -w net.ipv4.conf.all.send_redirects=1",),
        risk="None for a director: hosts that need a better route need it configured.",
    )


def forget_redirects(host: str) -> Remedy:
    """Make a host forget redirects it obeyed, and refuse them from now on."""
    return Remedy(
        where=host,
        action="Forget the redirected routes and refuse redirects (they last 300 s on Linux).",
        check=("ip route show cache", "sysctl -a 2>/dev/null | grep accept_redirects"),
        commands=(
            "sysctl -w net.ipv4.conf.all.accept_redirects=0",
            "sysctl -w net.ipv4.conf.IFACE.accept_redirects=0",
            "ip route flush cache",
        ),
        persist=(
            (
                "printf 'net.ipv4.conf.all.accept_redirects = "
                "0\\nnet.ipv4.conf.IFACE.accept_redirects "
                f"= 0\\n' >> {SAVE_SYSCTL}"
            ),
        ),
        undo=("sysctl -w net.ipv4.conf.all.accept_redirects=1",),
        risk="None where the default route is right.",
    )


def accept_before_state(host: str, version: int, vip: str, port: int, proto: str) -> Remedy:
    """Accept a service's packets before any rule that asks conntrack about them."""
    tool = "iptables" if version == 4 else "ip6tables"
    accept = f"-d {vip} -p {proto} --dport {port} -j ACCEPT"
    drop = "-m conntrack --ctstate INVALID -j DROP"
    return Remedy(
        where=host,
        action=(
            "Accept the service without asking conntrack, and drop INVALID packets before the "
            "rule that rejects: a REJECT of a late duplicate ends a healthy connection."
        ),
        check=(
            f"{tool} -vnL INPUT --line-numbers",
            "sysctl net.netfilter.nf_conntrack_tcp_loose net.netfilter.nf_conntrack_tcp_be_liberal",
            "conntrack -S",
        ),
        commands=(f"{tool} -I INPUT 1 {accept}", f"{tool} -I INPUT 2 {drop}"),
        persist=(f"{tool}-save > /etc/iptables/rules.v{version}",),
        undo=(f"{tool} -D INPUT {accept}", f"{tool} -D INPUT {drop}"),
        risk="Packets to this one port are no longer checked against connection state.",
    )


def find_checksum_breaker(sender: str) -> Remedy:
    """Find the box that rewrites packets without their checksum."""
    return Remedy(
        where="the network between the sender and this capture",
        action=(
            f"Capture on both sides of each NAT, firewall and load balancer on the way from "
            f"{sender}: the one that the messages enter in order and leave broken is it."
        ),
        check=(f"tcpdump -Z root -ni IFACE -s 0 -vv 'icmp and host {sender}'",),
        commands=(),
        risk="None: this only looks.",
    )
