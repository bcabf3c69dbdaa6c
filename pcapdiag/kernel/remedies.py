"""Commands that mend, each with a check before, a way to keep it and a way back.

People paste these as root. Only addresses, integers and names that were parsed may enter a command,
and are looked at here once more: `_address` and text.command_name let nothing else through. What is
not known is a placeholder in capitals (IFACE, GATEWAY). `where` and `action` are prose.
"""

from __future__ import annotations

import ipaddress
import shlex

from pcapdiag.result import Remedy
from pcapdiag.text import clean, command_name

SAVE_SYSCTL = "/etc/sysctl.d/90-lvs.conf"

NFT_SAVE = "nft list ruleset > /etc/nftables.conf"
"""Debian's place; RHEL reads /etc/sysconfig/nftables.conf."""


def accept_icmp_errors(host: str, version: int) -> Remedy:
    """Let ICMP errors reach ip_vs, which sits behind the filter table's INPUT chain."""
    tool, proto = _tool(version), "icmp" if version == 4 else "ipv6-icmp"
    option = "--icmp-type" if version == 4 else "--icmpv6-type"
    types = (
        ("destination-unreachable", "time-exceeded")
        if version == 4
        else ("destination-unreachable", "packet-too-big", "time-exceeded", "parameter-problem")
    )
    rules = [f"INPUT 1 -p {proto} {option} {name} -j ACCEPT" for name in types]
    return Remedy(
        where=clean(host),
        action="Accept ICMP errors in INPUT: ip_vs takes them in LOCAL_IN, after the filter table.",
        check=(
            f"{tool} -vnL INPUT --line-numbers",
            f"{tool} -t mangle -vnL; {tool} -vnL OUTPUT",
            "nft list ruleset | grep -n -i icmp",
        ),
        commands=tuple(f"{tool} -I {rule}" for rule in rules),
        persist=(_save(version),),
        undo=tuple(f"{tool} -D {rule.replace('INPUT 1', 'INPUT')}" for rule in rules),
        risk="None worth naming: these types answer packets that the cluster sent itself.",
    )


def share_entries(host: str) -> Remedy:
    """Let every director know the connections of the others."""
    return Remedy(
        where=clean(host),
        action="Let the directors share their connections, or have the router send ICMP errors by "
        "the quoted flow (Linux routers do, many others do not).",
        check=("ipvsadm -Lcn | wc -l", "ipvsadm -l --daemon"),
        commands=(
            "ipvsadm --start-daemon master --mcast-interface IFACE  # active director",
            "ipvsadm --start-daemon backup --mcast-interface IFACE  # the others",
        ),
        persist=("# keepalived.conf, global_defs: lvs_sync_daemon IFACE INSTANCE",),
        undo=("ipvsadm --stop-daemon master", "ipvsadm --stop-daemon backup"),
        risk="One more multicast stream on IFACE. Entries younger than three packets are not sent.",
    )


def look_at_entries(host: str) -> Remedy:
    """Look at what the director knows of the connections whose errors go astray."""
    return Remedy(
        where=clean(host),
        action="Compare the director's entries with the realservers that hold the sockets; report "
        "the kernel's version where they agree and the errors still go astray.",
        check=("ipvsadm -Lcn", "uname -r", "sysctl net.ipv4.vs"),
        commands=(),
        risk="None: this only looks.",
    )


def probe_mtu(host: str) -> Remedy:
    """Let senders find the path MTU by themselves (RFC 4821) until the path is mended."""
    return Remedy(
        where=clean(host),
        action="Until the path is mended: let TCP recover by itself after about three seconds.",
        check=("sysctl net.ipv4.tcp_mtu_probing",),
        commands=("sysctl -w net.ipv4.tcp_mtu_probing=1",),
        persist=(_persist("net.ipv4.tcp_mtu_probing", 1),),
        undo=(
            "sysctl -w net.ipv4.tcp_mtu_probing=0",
            f"sed -i '/tcp_mtu_probing/d' {SAVE_SYSCTL}",
        ),
        risk="Stalls become short delays; it hides the fault rather than mending it.",
    )


def clamp_mss(host: str, version: int, mtu: int) -> Remedy:
    """Limit the segments that peers send, where the path cannot be mended."""
    tool = _tool(version)
    mss = int(mtu) - (40 if version == 4 else 60)
    rule = f"-p tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss {mss}"
    return Remedy(
        where=clean(host),
        action=f"Announce an MSS that fits an MTU of {int(mtu)}: {mss} bytes.",
        check=(f"{tool} -t mangle -vnL OUTPUT",),
        commands=(f"{tool} -t mangle -A OUTPUT {rule}",),
        persist=(_save(version),),
        undo=(f"{tool} -t mangle -D OUTPUT {rule}",),
        risk="New connections only. Limits what clients send to this host, not what it sends.",
    )


def stop_redirects(host: str, interface: str | None = None) -> Remedy:
    """Stop sending redirects; `all` OR the interface decides, so both have to be 0."""
    name = command_name(interface or "", "IFACE")
    keys = ("net.ipv4.conf.all.send_redirects", f"net.ipv4.conf.{_key(name)}.send_redirects")
    return Remedy(
        where=clean(host),
        action="Stop sending ICMP redirects: 'all' OR the interface decides, so that both, for "
        "every interface, must be 0.",
        check=("sysctl -a 2>/dev/null | grep -E '(send_redirects|shared_media) ='",),
        commands=tuple(f"sysctl -w {key}=0" for key in keys),
        persist=tuple(_persist(key, 0) for key in (*keys, "net.ipv4.conf.default.send_redirects")),
        undo=(
            f"sysctl -w {keys[0]}=1",
            f"sed -i '/send_redirects/d' {SAVE_SYSCTL}",
        ),
        risk="None for a director: hosts that need a better route need it configured.",
    )


def forget_redirects(host: str, interface: str | None = None, *, forwards: bool = False) -> Remedy:
    """Make a host forget redirects it obeyed, and refuse them from now on.

    accept_redirects is `all` AND the interface where the host forwards, `all` OR the interface
    where not (inetdevice.h, IN_DEV_RX_REDIRECTS): a router needs one of them 0, a host both.
    """
    name = command_name(interface or "", "IFACE")
    keys = ("net.ipv4.conf.all.accept_redirects", f"net.ipv4.conf.{_key(name)}.accept_redirects")
    how = (
        "it forwards, so that 'all' AND the interface decide"
        if forwards
        else "'all' OR the interface decides where a host does not forward, so both must be 0"
    )
    return Remedy(
        where=clean(host),
        action="Forget the redirected routes (they last 300 s on Linux) and refuse redirects: "
        f"{how}.",
        check=(
            "ip route show cache",
            "sysctl net.ipv4.ip_forward",
            "sysctl -a 2>/dev/null | grep -E '(accept_redirects|secure_redirects|shared_media) ='",
        ),
        commands=(*(f"sysctl -w {key}=0" for key in keys), "ip route flush cache"),
        persist=tuple(_persist(key, 0) for key in keys),
        undo=(
            *(f"sysctl -w {key}=1" for key in keys),
            f"sed -i '/accept_redirects/d' {SAVE_SYSCTL}",
        ),
        risk="None where the default route is right.",
    )


def accept_before_state(host: str, version: int, vip: str, port: int, proto: str) -> Remedy:
    """Accept a service's packets before any rule that asks conntrack about them."""
    tool = _tool(version)
    accept = f"-d {_address(vip)} -p {command_name(proto, 'PROTO')} --dport {int(port)} -j ACCEPT"
    drop = "-m conntrack --ctstate INVALID -j DROP"
    return Remedy(
        where=clean(host),
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
        persist=(_save(version),),
        undo=(f"{tool} -D INPUT {accept}", f"{tool} -D INPUT {drop}"),
        risk="Packets to this one port are no longer checked against connection state.",
    )


def accept_before_state_nft(host: str, version: int, vip: str, port: int, proto: str) -> Remedy:
    """Do the same where nftables holds the rules; its table and chain have the host's names."""
    family = "ip" if version == 4 else "ip6"
    match = f"{family} daddr {_address(vip)} {command_name(proto, 'PROTO')} dport {int(port)}"
    chain = "inet TABLE CHAIN"
    return Remedy(
        where=clean(host),
        action="The same where the rules are in nftables; the check shows TABLE and CHAIN.",
        check=("nft list chains | grep -B1 'hook input'", f"nft -a list chain {chain}"),
        commands=(
            f"nft insert rule {chain} ct state invalid drop",
            f"nft insert rule {chain} {match} accept",
        ),
        persist=(NFT_SAVE,),
        undo=(
            f"nft -a list chain {chain} | grep -E 'ct state invalid drop|dport {int(port)} accept'",
            f"nft delete rule {chain} handle HANDLE",
        ),
        risk="As with iptables. firewalld builds its own rules anew: use a policy there.",
    )


def exempt_from_tracking(host: str, version: int, vip: str, port: int, proto: str) -> Remedy:
    """Take a service out of conntrack, in iptables: nothing to time out, nothing INVALID."""
    tool = _tool(version)
    address, word, number = _address(vip), command_name(proto, "PROTO"), int(port)
    rules = (
        ("-t raw ", "PREROUTING", f"-d {address} -p {word} --dport {number} -j CT --notrack"),
        ("-t raw ", "OUTPUT", f"-s {address} -p {word} --sport {number} -j CT --notrack"),
        ("", "INPUT", "-m conntrack --ctstate UNTRACKED -j ACCEPT"),
    )
    return Remedy(
        where=clean(host),
        action="Or keep stateful rules for all else and exempt this service from tracking.",
        check=(f"{tool} -t raw -vnL", f"{tool} -vnL INPUT --line-numbers"),
        commands=tuple(f"{tool} {table}-I {chain} 1 {rule}" for table, chain, rule in rules),
        persist=(_save(version),),
        undo=tuple(f"{tool} {table}-D {chain} {rule}" for table, chain, rule in rules),
        risk="NAT rules no longer see this service; not with vs.conntrack=1 and a NAT service.",
    )


def exempt_from_tracking_nft(host: str, version: int, vip: str, port: int, proto: str) -> Remedy:
    """Do the same with nftables, in a table of its own that can be taken away whole."""
    family = "ip" if version == 4 else "ip6"
    address, word = _address(vip), command_name(proto, "PROTO")
    service, answer = f"{word} dport {int(port)}", f"{word} sport {int(port)}"
    table = "inet lvs_untracked"
    hook = "type filter hook {} priority raw; policy accept;"
    return Remedy(
        where=clean(host),
        action="The same with nftables; the rules that reject must accept what is untracked.",
        check=("nft list ruleset | grep -n -E 'notrack|untracked|reject'",),
        commands=(
            f"nft add table {table}",
            f"nft 'add chain {table} prerouting {{ {hook.format('prerouting')} }}'",
            f"nft 'add chain {table} output {{ {hook.format('output')} }}'",
            f"nft add rule {table} prerouting {family} daddr {address} {service} notrack",
            f"nft add rule {table} output {family} saddr {address} {answer} notrack",
            "nft insert rule inet TABLE CHAIN ct state untracked accept",
        ),
        persist=(NFT_SAVE,),
        undo=(
            f"nft delete table {table}",
            "nft delete rule inet TABLE CHAIN handle HANDLE  # nft -a list chain inet TABLE CHAIN",
        ),
        risk="As with iptables.",
    )


def loosen_tracking(host: str) -> Remedy:
    """Let conntrack on a realserver pick connections up again, and forgive the window."""
    keys = ("net.netfilter.nf_conntrack_tcp_loose", "net.netfilter.nf_conntrack_tcp_be_liberal")
    return Remedy(
        where=clean(host),
        action="Where the service must stay tracked: let conntrack pick up connections that it "
        "lost, forgive the window, and keep entries longer than the connections idle.",
        check=(
            f"sysctl {' '.join(keys)} net.netfilter.nf_conntrack_tcp_timeout_established",
            "conntrack -S; sysctl net.netfilter.nf_conntrack_count net.netfilter.nf_conntrack_max",
        ),
        commands=tuple(f"sysctl -w {key}=1" for key in keys),
        persist=tuple(_persist(key, 1) for key in keys),
        undo=(f"sysctl -w {keys[1]}=0", f"sed -i '/nf_conntrack_tcp_/d' {SAVE_SYSCTL}"),
        risk="Packets outside the window of a tracked connection are accepted.",
    )


def find_checksum_breaker(sender: str) -> Remedy:
    """Find the box that rewrites packets without their checksum."""
    address = _address(sender)
    return Remedy(
        where="the network between the sender and this capture",
        action=(
            f"Capture on both sides of each NAT, firewall and load balancer on the way from "
            f"{address}: the one that the messages enter in order and leave broken is it."
        ),
        check=(f"tcpdump -Z root -ni IFACE -s 0 -vv '(icmp or icmp6) and host {address}'",),
        commands=(),
        risk="None: this only looks.",
    )


def _tool(version: int) -> str:
    return "iptables" if version == 4 else "ip6tables"


def _save(version: int) -> str:
    """Return the command that keeps rules on Debian; RHEL's place stands beside it."""
    path = "iptables" if version == 4 else "ip6tables"
    return f"{_tool(version)}-save > /etc/iptables/rules.v{version}  # RHEL: /etc/sysconfig/{path}"


def _persist(key: str, value: int) -> str:
    return f"echo {shlex.quote(f'{key} = {value}')} >> {SAVE_SYSCTL}"


def _key(interface: str) -> str:
    """Return an interface's name as part of a sysctl key, where "." separates (sysctl(8))."""
    return interface.replace(".", "/")


def _address(text: str) -> str:
    """Return an IP address as parsed, anything else as a placeholder; zones are free text."""
    try:
        return "ADDRESS" if "%" in text else str(ipaddress.ip_address(text))
    except ValueError:
        return "ADDRESS"
