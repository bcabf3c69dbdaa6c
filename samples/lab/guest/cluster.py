"""One cluster: clients behind an ISP, a router, a director and realservers, by forwarding method.

    client-near -- isp -- router -- lan: director, rs1, rs2 ...        (DR, TUN, one-arm NAT)
    client-far -- cpe --'               lan: director -- inner: rs1 ...  (NAT)

The link between isp and cpe may have a lower MTU than the rest.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from network import Host, Network

FLAGS = {"nat": "-m", "onearm": "-m", "dr": "-g", "tun": "-i"}
"""How ipvsadm calls the forwarding methods; one-arm NAT is NAT on one LAN."""

GUE_PORT = 6080
ENCAPSULATIONS = {
    "ipip": ("", "ip link set tunl0 up"),
    "gre": ("--tun-type gre", "ip link set gre0 up"),
    "gue": (
        f"--tun-type gue --tun-port {GUE_PORT} --tun-nocsum",
        f"ip fou add port {GUE_PORT} gue; ip link set tunl0 up",
    ),
    "ip6ip6": ("", "ip link set ip6tnl0 up"),
}
"""ipvsadm's words, and what makes a realserver decapsulate."""
OVERHEADS = {"ipip": 20, "gre": 24, "gue": 32, "ip6ip6": 40}
"""Bytes that the tunnel adds."""
DEVICES = {"ipip": "tunl0", "gre": "gre0", "gue": "tunl0", "ip6ip6": "ip6tnl0"}


@dataclass(frozen=True)
class Plan:
    """An address plan: networks and the VIP."""

    lan: str
    vip: str
    inner: str = "10.11.0.0/24"
    near: str = "198.51.100.0/25"
    far: str = "198.51.100.128/25"
    wan: str = "192.0.2.0/30"
    narrow: str = "192.0.2.4/30"

    def at(self, network: str, number: int) -> str:
        """Return an address of a network, without prefix length."""
        return str(ipaddress.ip_network(getattr(self, network))[number])

    def on(self, network: str, number: int) -> str:
        """Return an address of a network as an interface has it."""
        return f"{self.at(network, number)}/{getattr(self, network).split('/')[1]}"

    @property
    def vip_on_lan(self) -> bool:
        """Whether the router finds the VIP by ARP, not by a route."""
        return ipaddress.ip_address(self.vip) in ipaddress.ip_network(self.lan)

    @property
    def host_bits(self) -> int:
        """The prefix length of a single address."""
        return ipaddress.ip_address(self.vip).max_prefixlen


PLANS = {
    "public": Plan("203.0.113.0/24", "203.0.113.10"),
    "routed-vip": Plan("10.20.30.0/24", "203.0.113.80", inner="172.20.0.0/24"),
    "office": Plan(
        "172.16.5.0/24",
        "172.16.5.100",
        near="172.31.0.0/24",
        far="172.31.1.0/24",
        wan="172.16.255.0/30",
        narrow="172.16.255.4/30",
        inner="192.168.50.0/24",
    ),
    "carrier": Plan(
        "198.18.7.0/24",
        "198.18.7.200",
        near="100.64.10.0/24",
        far="100.64.11.0/24",
        wan="198.18.0.0/30",
        narrow="100.64.255.0/30",
        inner="10.77.0.0/24",
    ),
    "ipv6": Plan(
        "2001:db8:10::/64",
        "2001:db8:10::80",
        inner="2001:db8:11::/64",
        near="2001:db8:a::/64",
        far="2001:db8:b::/64",
        wan="2001:db8:ff::/64",
        narrow="2001:db8:fe::/64",
    ),
}


class Cluster:
    """The hosts of a cluster, addressed, routed and balanced."""

    def __init__(
        self,
        network: Network,
        method: str,
        plan: Plan,
        *,
        realservers: int = 2,
        encapsulation: str = "ipip",
        narrow_mtu: int = 1500,
        fitting_mss: bool = True,
    ) -> None:
        """Build the hosts and their links; nothing is served yet.

        `narrow_mtu` is that of the link to the far clients. With `fitting_mss`, realservers behind
        a tunnel announce an MSS that fits it.
        """
        self.network, self.method, self.plan = network, method, plan
        self.ipv6 = plan.host_bits == 128
        self.encapsulation = "ip6ip6" if self.ipv6 else encapsulation
        self.fitting_mss = fitting_mss
        self.services: list[dict[str, object]] = []
        self._outside(narrow_mtu)
        self.lan = network.switch("lan")
        self.router, self.isp, self.cpe = (network.hosts[name] for name in ("router", "isp", "cpe"))
        network.plug(self.router, "eth0", self.lan, plan.on("lan", 1))
        self.director = self._host("director", "director", forwarding=True)
        network.plug(self.director, "eth0", self.lan, plan.on("lan", 2))
        self.director.run(f"ip route add default via {plan.at('lan', 1)}")
        inner = network.switch("inner") if method == "nat" else self.lan
        if method == "nat":
            network.plug(self.director, "eth1", inner, plan.on("inner", 1))
        self.realservers = [
            self._realserver(f"rs{number + 1}", inner, 11 + number) for number in range(realservers)
        ]
        self._own_vip()

    def rip(self, number: int) -> str:
        """Return the address of the realserver with that number, from 1."""
        return self.plan.at("inner" if self.method == "nat" else "lan", 10 + number)

    def serve(
        self,
        port: int = 80,
        rport: int | None = None,
        *,
        protocol: str = "tcp",
        scheduler: str = "rr",
    ) -> None:
        """Add a virtual service with all realservers."""
        rport = rport or port
        service = f"-{protocol[0]} {bracket(self.plan.vip)}:{port}"
        flags = FLAGS[self.method]
        if self.method == "tun":
            flags = f"{flags} {ENCAPSULATIONS[self.encapsulation][0]}".strip()
        rips = [self.rip(number + 1) for number in range(len(self.realservers))]
        commands = [f"ipvsadm -A {service} -s {scheduler}"]
        commands += [f"ipvsadm -a {service} -r {bracket(rip)}:{rport} {flags}" for rip in rips]
        self.director.do("\n".join(commands))
        words = {
            "proto": protocol,
            "vip": self.plan.vip,
            "port": port,
            "rport": rport,
            "rips": rips,
        }
        self.services.append({**words, "method": flags.split()[0], "scheduler": scheduler})

    def _host(self, name: str, role: str, *, forwarding: bool = False) -> Host:
        return self.network.host(name, role, forwarding=forwarding, ipv6=self.ipv6)

    def _outside(self, narrow_mtu: int) -> None:
        """Build everything from the router outwards."""
        plan = self.plan
        router = self._host("router", "router", forwarding=True)
        isp = self._host("isp", "router", forwarding=True)
        cpe = self._host("cpe", "router", forwarding=True)
        near, far = self._host("client-near", "client"), self._host("client-far", "client")
        wire = self.network.wire
        wire([(router, "eth1", [plan.on("wan", 1)]), (isp, "eth0", [plan.on("wan", 2)])])
        for client, gateway, net, port, delay_ms in (
            (near, isp, "near", "eth1", 3),
            (far, cpe, "far", "eth1", 1),
        ):
            first = 20 if net == "near" else 50
            addresses = [plan.on(net, first + count) for count in range(10)]
            wire(
                [(client, "eth0", addresses), (gateway, port, [plan.on(net, 1)])], delay_ms=delay_ms
            )
            client.run(f"ip route add default via {plan.at(net, 1)}")
        ends = [(isp, "eth2", [plan.on("narrow", 1)]), (cpe, "eth0", [plan.on("narrow", 2)])]
        wire(ends, mtu=narrow_mtu, delay_ms=6)
        router.run(f"ip route add default via {plan.at('wan', 2)}")
        cpe.run(f"ip route add default via {plan.at('narrow', 1)}")
        isp.run(
            f"ip route add default via {plan.at('wan', 1)};"
            f"ip route add {plan.far} via {plan.at('narrow', 2)}"
        )

    def _realserver(self, name: str, lan: Host, number: int) -> Host:
        net = "inner" if self.method == "nat" else "lan"
        host = self._host(name, "realserver")
        self.network.plug(host, "eth0", lan, self.plan.on(net, number))
        gateway = {"nat": ("inner", 1), "onearm": ("lan", 2)}.get(self.method, ("lan", 1))
        mss = ""
        if self.method == "tun" and self.fitting_mss:
            headers = 60 if self.ipv6 else 40
            mss = f" advmss {1500 - OVERHEADS[self.encapsulation] - headers}"
        host.run(f"ip route add default via {self.plan.at(*gateway)}{mss}")
        if self.method == "dr":
            self.own_silently(host, "lo")
        elif self.method == "tun":
            host.run(ENCAPSULATIONS[self.encapsulation][1])
            self.own_silently(host, DEVICES[self.encapsulation])
        return host

    def own_silently(self, host: Host, device: str) -> None:
        """Give a realserver the VIP without its answering ARP for it."""
        quiet = (
            ""
            if self.ipv6
            else (
                "sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2 "
                f"net.ipv4.conf.{device}.rp_filter=0;"
            )
        )
        host.run(f"{quiet}ip addr add {self.plan.vip}/{self.plan.host_bits} dev {device}")

    def _own_vip(self) -> None:
        """Give the director the VIP, and the router a way to it."""
        plan = self.plan
        lifetime = " preferred_lft 0" if self.ipv6 else ""
        address = f"{plan.vip}/{plan.host_bits}"
        self.director.run(f"ip addr add {address} dev eth0{lifetime}")
        self.director.interfaces["eth0"].addresses.append(address)
        if not plan.vip_on_lan:
            self.router.run(f"ip route add {address} via {plan.at('lan', 2)}")


def bracket(address: str) -> str:
    """Return an address as it stands before a port."""
    return f"[{address}]" if ":" in address else address
