"""Commands that mend what packets meet on their way: MTU, offloads, fragments, translations.

The same care as in remedies.py: only addresses, integers and names that were parsed enter a
command, and what is not known is a placeholder in capitals.
"""

from __future__ import annotations

from pcapdiag.kernel.encapsulations import ETHERNET_MTU
from pcapdiag.kernel.remedies import SAVE_SYSCTL
from pcapdiag.result import Remedy


def no_receive_offload(host: str) -> Remedy:
    """Keep received segments as they were on the wire."""
    return Remedy(
        where=host,
        action="Do not merge received segments on interfaces that forward.",
        check=("ethtool -k IFACE | grep -E 'generic-receive|large-receive|rx-gro'",),
        commands=("ethtool -K IFACE gro off lro off",),
        persist=("# in the interface's configuration, e.g. ETHTOOL_OPTS or a .link file",),
        undo=("ethtool -K IFACE gro on",),
        risk="More work per packet: watch the softirq share of the CPU. lro stays off in any case.",
    )


def errors_from_inbound_address(host: str) -> Remedy:
    """Let a Linux router send ICMP errors from the address its neighbours know it by."""
    return Remedy(
        where=host,
        action="Send ICMP errors from an address that reaches their receivers (Linux routers).",
        check=(
            "ip -br address",
            "sysctl net.ipv4.icmp_errors_use_inbound_ifaddr",
        ),
        commands=("sysctl -w net.ipv4.icmp_errors_use_inbound_ifaddr=1",),
        persist=(f"echo 'net.ipv4.icmp_errors_use_inbound_ifaddr = 1' >> {SAVE_SYSCTL}",),
        undo=("sysctl -w net.ipv4.icmp_errors_use_inbound_ifaddr=0",),
        risk="Traceroutes show other addresses of this router than before.",
    )


def find_rewriter(sender: str) -> Remedy:
    """Find the box that changes an ICMP error without what it quotes."""
    return Remedy(
        where="the network between the sender and this capture",
        action=(
            "Capture on both sides of each NAT and load balancer on the way: the one that changes "
            "the message and not its quote is it (RFC 5508 section 4.2 says what it has to do)."
        ),
        check=(
            f"tcpdump -Z root -ni IFACE -s 0 -vv '(icmp or icmp6) and host {sender}'",
            "iptables -t nat -S; nft list ruleset",
        ),
        risk="None: this only looks.",
    )


def name_next_hop_mtu(host: str, version: int) -> Remedy:
    """Find out what a router sends, where its configuration or software has to be changed."""
    tool = "ping -M do -s 1472" if version == 4 else "ping -6 -M do -s 1452"
    return Remedy(
        where=host,
        action=(
            "Make the router name the MTU of the next hop: mend its interface's MTU or update it. "
            "From a host behind it, the answer shows what it names."
        ),
        check=(f"{tool} -c 1 CLIENT  # the answer has to name an MTU", "ip -d link show"),
        risk="None: this only looks.",
    )


def accept_fragments(where: str, version: int) -> Remedy:
    """Let fragments pass where rules go by ports."""
    tool, match = (
        ("iptables", "-f") if version == 4 else ("ip6tables", "-m ipv6header --header frag --soft")
    )
    return Remedy(
        where=where,
        action=(
            "Let later fragments pass: they have no ports, so that no rule with a port matches "
            "them. With conntrack loaded they are put together first and no rule is needed."
        ),
        check=(
            f"{tool} -vnL --line-numbers; nft list ruleset | grep -n -i frag",
            "lsmod | grep defrag",
            "nstat -az | grep -E 'Reasm|Frag'",
            "sysctl net.ipv4.ipfrag_high_thresh net.ipv4.ipfrag_time",
        ),
        commands=(f"{tool} -I INPUT 1 {match} -j ACCEPT", f"{tool} -I FORWARD 1 {match} -j ACCEPT"),
        persist=(f"{tool}-save > /etc/iptables/rules.v{version}",),
        undo=(f"{tool} -D INPUT {match} -j ACCEPT", f"{tool} -D FORWARD {match} -j ACCEPT"),
        risk="Fragments without a first one are let in; they are dropped after ipfrag_time.",
    )


def avoid_fragments() -> Remedy:
    """Let the application send what needs no fragments."""
    return Remedy(
        where="the application on both sides",
        action=(
            "Avoid fragments: they are fragile on any path (RFC 8900). DNS: an EDNS buffer of 1232 "
            "bytes; RADIUS and SIP: TCP or TLS; NFS: TCP."
        ),
        check=("ss -u -a -n; nstat -az IpFragCreates Ip6FragCreates",),
        risk="None: large answers then take TCP.",
    )


def larger_inside_mtu(where: str, inner: int, overhead: int) -> Remedy:
    """Give the links between director and realservers room for the tunnel header."""
    wanted = ETHERNET_MTU + overhead
    return Remedy(
        where=where,
        action=(
            f"Or give the links in between an MTU of at least {wanted}, switches included: then "
            f"packets of {ETHERNET_MTU} bytes fit, and not only those of {inner}."
        ),
        check=("ip -d link show IFACE", f"ping -c 3 -M do -s {wanted - 28} REALSERVER"),
        commands=(f"ip link set dev IFACE mtu {wanted}",),
        persist=("# in the interface's configuration, on every host of that network",),
        undo=(f"ip link set dev IFACE mtu {ETHERNET_MTU}",),
        risk="Hosts with different MTUs on one network lose large packets in silence.",
    )


def capture_again(where: str, command: str) -> Remedy:
    """Take the capture once more, whole and without losses; `command` is a tcpdump command."""
    return Remedy(
        where=where,
        action="Capture again: whole frames, a large buffer, fast storage, one interface.",
        check=("df -h .; ip -s link show IFACE",),
        commands=(command,),
        persist=("# keep what tcpdump prints at its end: packets dropped by kernel",),
        undo=("# end it with Ctrl-C",),
        risk="Load and disk space: watch both on a busy host.",
    )


def capture_without_offload(where: str) -> Remedy:
    """Show packets as they are on the wire while a capture runs."""
    return Remedy(
        where=where,
        action="While capturing, let neither card nor kernel merge or cut segments.",
        check=("ethtool -k IFACE | grep -E 'segmentation|receive-offload'",),
        commands=("ethtool -K IFACE tso off gso off gro off lro off",),
        persist=("# not wanted: only while the capture runs",),
        undo=("ethtool -K IFACE tso on gso on gro on",),
        risk="More work per packet for the time being.",
    )


def synchronise_clock(where: str) -> Remedy:
    """Let all capturing hosts have one time."""
    return Remedy(
        where=where,
        action="Synchronise the clocks of all hosts that capture, and let them slew, not step.",
        check=("chronyc tracking || timedatectl timesync-status",),
        commands=("systemctl enable --now chronyd",),
        persist=("# enabled above",),
        undo=("systemctl disable --now chronyd",),
        risk="None; the unit is called chrony on some systems.",
    )


def no_generic_checksum_offload(where: str) -> Remedy:
    """Let the kernel make the checksums of a tunnel's packets."""
    return Remedy(
        where=where,
        action=(
            "Let the kernel make the checksums of tunnelled packets, not the card; IFACE is the "
            "tunnel interface (flannel.1, vxlan.calico, docker's vxlan in its namespace)."
        ),
        check=("ethtool -k IFACE | grep tx-checksum-ip-generic", "nstat -az UdpInCsumErrors"),
        commands=("ethtool -K IFACE tx-checksum-ip-generic off",),
        persist=("# from the unit or hook that brings the interface up",),
        undo=("ethtool -K IFACE tx-checksum-ip-generic on",),
        risk="More work per packet on this interface.",
    )


def find_corrupter(source: str) -> Remedy:
    """Find the box that breaks packets whose link check is right."""
    return Remedy(
        where="the network between the sender and this capture",
        action=(
            f"Capture on both sides of each hop on the way from {source}: the one that packets "
            "enter in order and leave broken is it. Then its NAT rules, its offloads, its memory."
        ),
        check=(
            "tcpdump -Z root -ni IFACE -s 0 -vv 'tcp or udp' | grep -E 'incorrect|bad udp cksum'",
            "ethtool -S IFACE | grep -i -E 'csum|crc|err'",
            "nft list ruleset; tc filter show dev IFACE",
        ),
        risk="None: this only looks.",
    )


def drop_source_quench(where: str, sender: str) -> Remedy:
    """Keep source quench out; nothing needs it (RFC 6633)."""
    rule = f"-s {sender} -p icmp --icmp-type source-quench -j DROP"
    return Remedy(
        where=where,
        action=f"Mend {sender}, which must not send it; until then drop it on its way in.",
        check=("iptables -vnL FORWARD --line-numbers", "iptables -vnL INPUT --line-numbers"),
        commands=(f"iptables -I FORWARD 1 {rule}",),
        persist=("iptables-save > /etc/iptables/rules.v4",),
        undo=(f"iptables -D FORWARD {rule}",),
        risk="None: RFC 6633 lets everybody drop it.",
    )


def keep_forged_errors_out(where: str) -> Remedy:
    """Let errors in only where conntrack knows the packet that they quote."""
    rules = (
        "-p icmp -m conntrack --ctstate RELATED -j ACCEPT",
        "-p icmp -m conntrack --ctstate INVALID -j DROP",
    )
    return Remedy(
        where=where,
        action=(
            "Let ICMP errors in only about connections that exist. Only on a firewall that sees "
            "both directions: on a director of LVS-DR or LVS-TUN this would drop the real ones."
        ),
        check=("iptables -vnL FORWARD --line-numbers", "conntrack -S"),
        commands=tuple(
            f"iptables -I FORWARD {place} {rule}" for place, rule in enumerate(rules, 1)
        ),
        persist=("iptables-save > /etc/iptables/rules.v4",),
        undo=tuple(f"iptables -D FORWARD {rule}" for rule in rules),
        risk="Errors about packets that took another way are dropped as well.",
    )
