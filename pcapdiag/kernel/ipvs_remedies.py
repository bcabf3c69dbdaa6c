"""What to change in ip_vs and around it, as remedies.py does it: check, command, keep, undo.

The same holds here: only parsed addresses, integers and placeholders in capitals enter a command.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pcapdiag.kernel.remedies import SAVE_SYSCTL
from pcapdiag.result import Remedy

if TYPE_CHECKING:
    from pcapdiag.kernel.ipvs_timeouts import Timeouts

_OPTIONS: Final = {6: "-t", 17: "-u"}
"""ipvsadm's option for a virtual service of a protocol."""


_METHODS: Final = {"nat": "-m", "dr": "-g", "tun": "-i"}
"""And for a forwarding method: `ipvsadm -e` without one changes it to direct routing."""


def _keep(name: str, value: int) -> str:
    return f"echo '{name} = {value}' >> {SAVE_SYSCTL}"


def keep_entries(host: str, seconds: int, now: Timeouts) -> Remedy:
    """Let ip_vs remember quiet connections longer; `now`: what else `ipvsadm --set` must repeat."""
    rest = f"{now.fin_wait_s} {now.udp_s}"
    kept = f"lvs_timeouts tcp {seconds} tcpfin {now.fin_wait_s} udp {now.udp_s}"
    return Remedy(
        where=host,
        action=f"Remember established connections for {seconds} s of silence.",
        check=("ipvsadm -l --timeout", "ipvsadm -Lcn | head"),
        commands=(f"ipvsadm --set {seconds} {rest}",),
        persist=(f"keepalived.conf, global_defs: {kept}",),
        undo=(f"ipvsadm --set {now.established_s} {rest}",),
        risk="Entries of clients that vanished stay as long; each takes some 300 bytes.",
    )


def keep_connections_busy(host: str, seconds: int) -> Remedy:
    """Let keepalive probes pass more often than entries expire; Linux waits two hours."""
    return Remedy(
        where=host,
        action=(
            f"Send the first keepalive probe after {seconds} s: the client's answer passes the "
            "director and keeps the entry. It works for sockets with SO_KEEPALIVE."
        ),
        check=("sysctl net.ipv4.tcp_keepalive_time", "ss -tno state established | head"),
        commands=(f"sysctl -w net.ipv4.tcp_keepalive_time={seconds}",),
        persist=(_keep("net.ipv4.tcp_keepalive_time", seconds),),
        undo=("sysctl -w net.ipv4.tcp_keepalive_time=7200",),
        risk="A probe and its answer per quiet connection and interval.",
    )


def sync_connections(host: str) -> Remedy:
    """Let the backup learn the connections before it has to take them over."""
    return Remedy(
        where=f"{host} and its backup",
        action=(
            "Run the connection synchronisation daemon: one director as master, the other as "
            "backup (both roles on both where either may lead)."
        ),
        check=("ipvsadm -l --daemon", "sysctl net.ipv4.vs.sync_threshold net.ipv4.vs.sync_ports"),
        commands=(
            "ipvsadm --start-daemon master --mcast-interface IFACE --syncid 1",
            "ipvsadm --start-daemon backup --mcast-interface IFACE --syncid 1",
        ),
        persist=("keepalived.conf, global_defs: lvs_sync_daemon IFACE INSTANCE id 1",),
        undo=("ipvsadm --stop-daemon master", "ipvsadm --stop-daemon backup"),
        risk="Multicast to 224.0.0.81, UDP 8848, without authentication: keep it on a trusted net.",
    )


def accept_reused_ports(host: str) -> Remedy:
    """Schedule the SYN of a reused port at once."""
    return Remedy(
        where=host,
        action=(
            "Do not drop the first SYN of a reused port: ip_vs does so where its connections are "
            "in conntrack, too, so that the old entry is gone when the SYN comes again."
        ),
        check=("sysctl net.ipv4.vs.conn_reuse_mode net.ipv4.vs.conntrack", "uname -r"),
        commands=("sysctl -w net.ipv4.vs.conn_reuse_mode=0",),
        persist=(_keep("net.ipv4.vs.conn_reuse_mode", 0),),
        undo=("sysctl -w net.ipv4.vs.conn_reuse_mode=1",),
        risk=(
            "With 0 a reused port stays with its old realserver, also if that is of weight 0 or "
            "gone. From kernel 5.9 on (commit f0a5e4d7a594) 1 mostly works without the delay."
        ),
    )


def find_lost_entries(host: str) -> Remedy:
    """Find out what empties the connection table."""
    return Remedy(
        where=host,
        action=(
            "Find what removed the entries: a service deleted and added again, ipvsadm -C, a "
            "reload of keepalived or kube-proxy, shorter timeouts, another director."
        ),
        check=(
            "ipvsadm -l --timeout",
            "sysctl net.ipv4.vs.expire_nodest_conn net.ipv4.vs.drop_entry",
            "journalctl -k -u keepalived --since -1h",
        ),
        commands=(),
        risk="None: this only looks.",
    )


def service_option(ip_proto: int | None, vip: str | None, port: int | None) -> str:
    """Return how ipvsadm is told of a virtual service; what is not known as a placeholder."""
    address = f"[{vip}]" if vip and ":" in vip else vip
    return f"{_OPTIONS.get(ip_proto or 0, '-t')} {address or 'VIP'}:{port or 'PORT'}"


def restore_destinations(host: str, service: str, method: str | None) -> Remedy:
    """Give a virtual service (see service_option) realservers again."""
    edit = f"ipvsadm -e {service} -r REALSERVER {_METHODS.get(method or '', 'METHOD')}"
    return Remedy(
        where=host,
        action=(
            "Look whether the service is there and has a realserver of a weight above 0; mend the "
            "health check that took them out rather than going round it."
        ),
        check=(
            f"ipvsadm -Ln {service}",
            "journalctl -u keepalived --since -1h | grep -i -e removing -e weight",
            "curl -sv --connect-timeout 3 http://REALSERVER:PORT/",
        ),
        commands=(f"{edit} -w 1",),
        persist=("keepalived.conf: the virtual_server block; sorry_server for when all are gone",),
        undo=(f"{edit} -w 0",),
        risk="A realserver that its check calls dead gets clients.",
    )


def listen_on_vip(host: str, port: int | None) -> Remedy:
    """Let the realserver's daemon listen where the requests arrive."""
    return Remedy(
        where=host,
        action=(
            "See that the daemon runs and listens on the address that requests carry: the VIP in "
            "direct routing and tunnelling, the realserver's own in NAT, or all."
        ),
        check=(
            f"ss -ltnup | grep -w {port}" if port else "ss -ltnup",
            "ip addr show | grep -w VIP",
            "systemctl --failed",
        ),
        commands=("systemctl restart SERVICE",),
        persist=("systemctl enable SERVICE",),
        undo=(),
        risk="A restart ends the connections that the daemon still has.",
    )


def take_out(host: str, service: str, realserver: str | None, method: str | None) -> Remedy:
    """Give a realserver no new connections of a service (see service_option)."""
    address = f"[{realserver}]" if realserver and ":" in realserver else realserver
    edit = (
        f"ipvsadm -e {service} -r {address or 'REALSERVER'} {_METHODS.get(method or '', 'METHOD')}"
    )
    return Remedy(
        where=host,
        action="Give it weight 0 until it answers, and let a health check do so from now on.",
        check=(f"ipvsadm -Ln {service}", f"ping -c 3 {realserver or 'REALSERVER'}"),
        commands=(f"{edit} -w 0",),
        persist=("keepalived.conf: TCP_CHECK or HTTP_GET in the real_server block",),
        undo=(f"{edit} -w 1",),
        risk="The others get its share. With persistence its clients return until templates end.",
    )


def expire_with_destination(host: str) -> Remedy:
    """End connections of realservers that are not available any more, instead of dropping them."""
    names = ("net.ipv4.vs.expire_nodest_conn", "net.ipv4.vs.expire_quiescent_template")
    return Remedy(
        where=host,
        action=(
            "End the connections of a realserver that was removed: their clients get a reset and "
            "connect anew, instead of waiting for a quarter of an hour."
        ),
        check=(f"sysctl {' '.join(names)}",),
        commands=tuple(f"sysctl -w {name}=1" for name in names),
        persist=tuple(_keep(name, 1) for name in names),
        undo=tuple(f"sysctl -w {name}=0" for name in names),
        risk="A realserver that is only out for a moment loses its connections.",
    )


def reschedule_reused(host: str) -> Remedy:
    """Schedule SYNs of reused ports anew, so that a quiesced realserver drains."""
    return Remedy(
        where=host,
        action="Schedule a SYN from a reused port anew: 1 does so where it is safe, 3 in LVS-DR.",
        check=("sysctl net.ipv4.vs.conn_reuse_mode", "uname -r"),
        commands=("sysctl -w net.ipv4.vs.conn_reuse_mode=3",),
        persist=(_keep("net.ipv4.vs.conn_reuse_mode", 3),),
        undo=("sysctl -w net.ipv4.vs.conn_reuse_mode=1",),
        risk="With vs.conntrack=1 and kernels before 5.9 such a SYN may be dropped once.",
    )


def route_by_director(host: str) -> Remedy:
    """Send a NAT realserver's answers to the director."""
    return Remedy(
        where=host,
        action="Make the director's inside address the only way to the clients.",
        check=("ip route get CLIENT", "ip route show", "ip route show cache"),
        commands=("ip route replace default via DIRECTOR", "ip route flush cache"),
        persist=("the interface's configuration: gateway DIRECTOR (the floating one of a pair)",),
        undo=("ip route replace default via GATEWAY",),
        risk="All traffic of this host goes by the director; keep a route for your own session.",
    )


def drop_untranslated(host: str) -> Remedy:
    """Keep a NAT director from routing realservers' addresses to clients."""
    rule = "FORWARD -s REALSERVERS -o IFACE -m conntrack --ctstate INVALID -j DROP"
    return Remedy(
        where=host,
        action=(
            "Find out why it does not know them (expired, or invalid for conntrack), and drop what "
            "would leave untranslated: the realserver repeats it, the client is not reset."
        ),
        check=("ipvsadm -Lcn | head", "conntrack -S", "sysctl net.ipv4.vs.conntrack"),
        commands=(f"iptables -I {rule}",),
        persist=("iptables-save > /etc/iptables/rules.v4",),
        undo=(f"iptables -D {rule}",),
        risk="With vs.conntrack=0 conntrack may call more invalid than ip_vs does: watch counters.",
    )


def hide_vip(host: str) -> Remedy:
    """Keep a realserver from answering ARP for the VIP."""
    names = ("net.ipv4.conf.all.arp_ignore", "net.ipv4.conf.all.arp_announce")
    return Remedy(
        where=host,
        action=(
            "Hold the VIP on lo and answer ARP only for addresses of the interface that is asked "
            "(arp_ignore=1, arp_announce=2); then let the others forget what they learned."
        ),
        check=(f"sysctl {' '.join(names)}", "ip addr show | grep -w VIP"),
        commands=(
            f"sysctl -w {names[0]}=1",
            f"sysctl -w {names[1]}=2",
            "ip neigh flush to VIP  # on the router and whoever else shares the LAN",
        ),
        persist=(_keep(names[0], 1), _keep(names[1], 2)),
        undo=tuple(f"sysctl -w {name}=0" for name in names),
        risk="The larger of `all` and the interface counts; other addresses on lo are hidden, too.",
    )


def answer_on_one_card(host: str) -> Remedy:
    """Let a director answer ARP for the VIP on the card that holds it, and on no other."""
    name = "net.ipv4.conf.all.arp_ignore"
    return Remedy(
        where=host,
        action="Answer ARP only on the card that holds the address asked for (arp_ignore=1).",
        check=(f"sysctl {name}", "ip addr show | grep -w VIP"),
        commands=(
            f"sysctl -w {name}=1",
            "ip neigh flush to VIP  # on the router and whoever else shares the LAN",
        ),
        persist=(_keep(name, 1),),
        undo=(f"sysctl -w {name}=0",),
        risk="Where the VIP is on lo, or on a card of another LAN, nobody answers for it any more.",
    )


def one_master(host: str) -> Remedy:
    """Let one director only own the VIP."""
    return Remedy(
        where=host,
        action="See why both directors believe to be master: VRRP does not get from one to other.",
        check=(
            "journalctl -u keepalived --since -1h | grep -i -e master -e backup",
            "tcpdump -Z root -ni IFACE -c 5 vrrp",
            "iptables -vnL INPUT | grep -i -e vrrp -e 112",
        ),
        commands=("iptables -I INPUT 1 -p 112 -j ACCEPT",),
        persist=("iptables-save > /etc/iptables/rules.v4",),
        undo=("iptables -D INPUT -p 112 -j ACCEPT",),
        risk="One of the two gives the VIP up as soon as it hears the other.",
    )


def hold_vip(host: str, tunnelled: bool) -> Remedy:
    """Let a realserver take what comes for the VIP."""
    names = ("net.ipv4.conf.all.rp_filter", "net.ipv4.conf.tunl0.rp_filter")
    device = "tunl0" if tunnelled else "lo"
    commands: tuple[str, ...] = (f"ip addr add VIP/32 dev {device}",)
    if tunnelled:
        commands = (
            "modprobe ipip",
            "ip link set tunl0 up",
            *commands,
            *(f"sysctl -w {name}=0" for name in names),
        )
    return Remedy(
        where=host,
        action=f"Give it the VIP on {device}"
        + (", a tunnel device that is up, and no strict rp_filter on it." if tunnelled else "."),
        check=(
            "ip addr show | grep -w VIP",
            "iptables -vnL INPUT",
            f"sysctl {' '.join(names)}",
            "nstat -az IpReversePathFilter IpExtInNoRoutes IpInAddrErrors",
        ),
        commands=commands,
        persist=("the interface's configuration; keepalived does not do this on realservers",),
        undo=(f"ip addr del VIP/32 dev {device}",),
        risk="Set arp_ignore=1 and arp_announce=2 first, or it answers ARP for the VIP.",
    )


def break_loop(host: str) -> Remedy:
    """Keep two directors from balancing to each other."""
    return Remedy(
        where=host,
        action=(
            "Keep the backup from balancing while it is backup, or take a virtual service off a "
            "host that is a realserver of the same one; mark forwarded packets by MAC where both "
            "roles have to live on one host."
        ),
        check=("ipvsadm -Ln", "sysctl net.ipv4.vs.backup_only", "ip route get VIP"),
        commands=("sysctl -w net.ipv4.vs.backup_only=1",),
        persist=(_keep("net.ipv4.vs.backup_only", 1),),
        undo=("sysctl -w net.ipv4.vs.backup_only=0",),
        risk="It works where the sync daemon runs as backup; on routers mend the routes instead.",
    )
