r"""The clusters of the samples: hosts, links, services, taps, and the traffic between them.

clients A --- isp --- router --- LAN: director, realservers        DR, TUN, one-armed NAT
               |                \--- director --- inside LAN       NAT
clients B --- cpe    the link between isp and cpe takes 1400 bytes
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from . import wire
from .apps import Browser, Flow, HealthCheck, Step, WebServer
from .capture import SNAPLEN, Tap
from .clock import EPOCH_NS, MICROSECOND, Clock, draw, seconds
from .hosts import Host
from .ipvs import Director
from .links import Segment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .links import Interface

LAN_NS: Final = 220 * MICROSECOND
WAN_NS: Final = 4_100 * MICROSECOND
ACCESS_NS: Final = 6_300 * MICROSECOND
HOME_NS: Final = 700 * MICROSECOND
NARROW_MTU: Final = 1400


@dataclass
class Capture:
    """A capture that is written: where, and how much of each frame."""

    file: str
    vantage: str
    interface: Interface
    tap: Tap
    snaplen: int = SNAPLEN


@dataclass
class Lab:
    """A cluster, its clock, its captures and its flows."""

    sample: str
    method: str
    vip: str
    realserver_addresses: list[str]
    clock: Clock = field(default_factory=Clock)
    hosts: dict[str, Host] = field(default_factory=dict)
    segments: dict[str, Segment] = field(default_factory=dict)
    captures: list[Capture] = field(default_factory=list)
    flows: list[Flow] = field(default_factory=list)

    # --- building

    def host(self, name: str, role: str, *, forwarding: bool = False) -> Host:
        """Add a host; clocks of hosts differ by up to a millisecond, as NTP leaves them."""
        kind = Director if role == "director" else Host
        host = kind(name, role, self.clock, forwarding=forwarding)
        host.clock_error_ns = draw(-900, 900, self.sample, name, "clock") * MICROSECOND
        self.hosts[name] = host
        return host

    def segment(self, name: str, delay_ns: int) -> Segment:
        """Add a LAN or link."""
        self.segments[name] = Segment(name, self.clock, delay_ns)
        return self.segments[name]

    def attach(self, host: str, port: str, segment: str, *addresses: str, mtu: int = 1500) -> None:
        """Connect a host."""
        number = sum(len(item.interfaces) for item in self.segments.values())
        prefix = draw(0, 0xFF, self.sample, "mac")
        mac = f"52:54:00:{prefix:02x}:{number // 16:02x}:{number:02x}"
        self.hosts[host].attach(port, mac, list(addresses), self.segments[segment], mtu)

    @property
    def director(self) -> Director:
        """The director."""
        host = self.hosts["director"]
        if not isinstance(host, Director):
            raise TypeError(host.name)
        return host

    def serve(self, port: int = 80, realserver_port: int | None = None, mss: int = 0) -> None:
        """Make the director balance a port and the realservers answer on it."""
        rport = realserver_port or port
        self.director.serve(self.vip, port, self.realserver_addresses, self.method, rport)  # type: ignore[arg-type]
        for host in self.hosts.values():
            if host.role == "realserver":
                host.tcp.listen(rport, partial(WebServer, host, self._accepted), advertised_mss=mss)

    def _accepted(self, client: tuple[str, int], realserver: str) -> None:
        for flow in self.flows:
            if flow.client == client and flow.started_ns:
                latest = flow
        if any(flow.client == client for flow in self.flows):
            latest.realserver = realserver

    def capture(
        self, file: str, host: str, port: str = "eth0", *, snaplen: int = SNAPLEN
    ) -> Capture:
        """Capture an interface; the vantage is the file's first word, or the host's role."""
        owner = self.hosts[host]
        interface = owner.interfaces[port]
        interface.tap = interface.tap or Tap(owner.clock_error_ns)
        vantage = host if owner.role != "client" else "client"
        capture = Capture(file, vantage, interface, interface.tap, snaplen)
        self.captures.append(capture)
        return capture

    def capture_all(self, *hosts: str, client: str | None = None) -> None:
        """Capture the first interface of each host, and a client's."""
        for name in hosts:
            self.capture(f"{name}.pcap", name)
        if client:
            self.capture("client.pcap", client)

    def captured(self, file: str) -> Capture:
        """Return a capture by its file name."""
        return next(item for item in self.captures if item.file == file)

    # --- traffic

    def flow(
        self,
        label: str,
        client: str,
        port: int,
        start_s: float,
        steps: Sequence[Step],
        *,
        ending: str = "client",
        service_port: int = 80,
        public_port: int | None = None,
    ) -> Flow:
        """Plan a client's connection; `public_port` is the port it uses where a NAT changes it."""
        flow = Flow(
            len(self.flows), label, (client, port), (self.vip, service_port), start_s, steps, ending
        )
        self.flows.append(flow)
        host = next(item for item in self.hosts.values() if item.is_local(client))

        def open_it() -> None:
            flow.started_ns = self.clock.now
            target = (self.vip, public_port or service_port)
            flow.socket = host.tcp.connect(flow.client, target, Browser(flow))

        self.clock.at(EPOCH_NS + seconds(start_s), open_it)
        return flow

    def health_checks(self, *, until_s: float, every_s: float = 5.0, port: int = 80) -> None:
        """Let the director check each realserver."""
        director = self.director
        for number, realserver in enumerate(self.realserver_addresses):
            at = 1.0 + 0.35 * number
            count = 0
            while at < until_s:
                local = (director.source_for(realserver), 40001 + 2 * count + number * 400)
                check = partial(director.tcp.connect, local, (realserver, port), HealthCheck())
                self.clock.at(EPOCH_NS + seconds(at), check)
                at += every_s
                count += 1

    def vrrp(self, *, until_s: float, router_id: int = 51) -> None:
        """Let the director advertise that it owns the VIP, each second."""
        interface = next(iter(self.director.interfaces.values()))
        src = interface.own(4)[0]
        for index in range(int(until_s)):
            packet = wire.vrrp(src, self.vip, router_id, 150, index + 1)
            send = partial(interface.send, "01:00:5e:00:00:12", 0x0800, packet)
            self.clock.at(EPOCH_NS + seconds(0.41 + index), send)

    def at(self, when_s: float, action: Callable[[], object]) -> None:
        """Do something at a time."""
        self.clock.at(EPOCH_NS + seconds(when_s), action)

    def disturb(
        self,
        segment: str,
        wanted: Callable[[wire.Header], bool],
        fate: int | None,
        *,
        skip: int = 0,
        count: int = 1,
    ) -> None:
        """Lose (fate None) or delay by `fate` ns the packets after `skip` that `wanted` likes."""
        seen = 0

        def meddle(_sender: Interface, frame: bytes) -> int | None:
            nonlocal seen
            if int.from_bytes(frame[12:14], "big") not in {0x0800, 0x86DD}:
                return 0
            if not wanted(wire.read(frame[14:])):
                return 0
            seen += 1
            return fate if skip < seen <= skip + count else 0

        self.segments[segment].meddle.append(meddle)

    def run(self, until_s: float) -> None:
        """Let time pass."""
        self.clock.run(EPOCH_NS + seconds(until_s))
        for flow in self.flows:
            if not flow.ok and flow.error is None:
                flow.error = "unfinished when the captures ended"


def _outside(lab: Lab, *, six: bool = False) -> None:
    """Add router, isp, cpe and the two client networks."""
    lab.segment("wan", WAN_NS)
    lab.segment("clients-a", HOME_NS)
    lab.segment("access", ACCESS_NS)
    lab.segment("clients-b", HOME_NS)
    lab.host("router", "router", forwarding=True)
    lab.host("isp", "router", forwarding=True)
    lab.host("cpe", "router", forwarding=True)
    lab.host("client-a", "client")
    lab.host("client-b", "client")
    if six:
        lab.attach("isp", "eth0", "wan", "2001:db8:0:ff::2/64")
        lab.attach("isp", "eth1", "clients-a", "2001:db8:a::1/64")
        lab.attach("isp", "eth2", "access", "2001:db8:0:fe::1/64", mtu=NARROW_MTU)
        lab.attach("cpe", "eth0", "access", "2001:db8:0:fe::2/64", mtu=NARROW_MTU)
        lab.attach("cpe", "eth1", "clients-b", "2001:db8:b::1/64")
        many = [f"2001:db8:a::{n:x}/64" for n in range(0x20, 0x30)]
        lab.attach("client-a", "eth0", "clients-a", *many)
        many = [f"2001:db8:b::{n:x}/64" for n in range(0x50, 0x58)]
        lab.attach("client-b", "eth0", "clients-b", *many)
        lab.hosts["isp"].add_route("2001:db8:b::/64", "2001:db8:0:fe::2")
        lab.hosts["isp"].add_route("2001:db8:0:1::/64", "2001:db8:0:ff::1", "eth0")
        lab.hosts["cpe"].add_route("::/0", "2001:db8:0:fe::1")
        lab.hosts["client-a"].add_route("::/0", "2001:db8:a::1")
        lab.hosts["client-b"].add_route("::/0", "2001:db8:b::1")
        return
    lab.attach("isp", "eth0", "wan", "192.0.2.2/30")
    lab.attach("isp", "eth1", "clients-a", "198.51.100.1/25")
    lab.attach("isp", "eth2", "access", "192.0.2.5/30", mtu=NARROW_MTU)
    lab.attach("cpe", "eth0", "access", "192.0.2.6/30", mtu=NARROW_MTU)
    lab.attach("cpe", "eth1", "clients-b", "198.51.100.129/25")
    lab.attach("client-a", "eth0", "clients-a", *[f"198.51.100.{n}/25" for n in range(20, 36)])
    lab.attach("client-b", "eth0", "clients-b", *[f"198.51.100.{n}/25" for n in range(150, 162)])
    lab.hosts["isp"].add_route("198.51.100.128/25", "192.0.2.6")
    lab.hosts["isp"].add_route("203.0.113.0/24", "192.0.2.1", "eth0")
    lab.hosts["cpe"].add_route("0.0.0.0/0", "192.0.2.5")
    lab.hosts["client-a"].add_route("0.0.0.0/0", "198.51.100.1")
    lab.hosts["client-b"].add_route("0.0.0.0/0", "198.51.100.129")


def dr(sample: str, *, routed: bool = False) -> Lab:
    """Return an LVS-DR cluster: one LAN, the VIP on every realserver's loopback.

    `routed`: the VIP is no address of the LAN; the router has a route for it to the director, as
    firewall-mark setups do.
    """
    vip, prefix = ("203.0.113.200", 25) if routed else ("203.0.113.10", 24)
    lab = Lab(sample, "dr", vip, ["203.0.113.11", "203.0.113.12"])
    lab.segment("lan", LAN_NS)
    _outside(lab)
    lab.attach("router", "eth0", "lan", f"203.0.113.1/{prefix}")
    lab.attach("router", "eth1", "wan", "192.0.2.1/30")
    lab.hosts["router"].add_route("0.0.0.0/0", "192.0.2.2")
    lab.host("director", "director", forwarding=True)
    if routed:
        lab.attach("director", "eth0", "lan", f"203.0.113.2/{prefix}")
        lab.director.loopback.add(vip)
        lab.hosts["router"].add_route(f"{vip}/32", "203.0.113.2")
    else:
        lab.attach("director", "eth0", "lan", f"203.0.113.2/{prefix}", f"{vip}/32")
    lab.director.add_route("0.0.0.0/0", "203.0.113.1")
    for number, address in enumerate(lab.realserver_addresses, 1):
        host = lab.host(f"rs{number}", "realserver")
        lab.attach(host.name, "eth0", "lan", f"{address}/{prefix}")
        host.loopback.add(vip)
        host.add_route("0.0.0.0/0", "203.0.113.1")
    return lab


def dr6(sample: str) -> Lab:
    """Return the same cluster with IPv6."""
    lab = Lab(sample, "dr", "2001:db8:0:1::10", ["2001:db8:0:1::11", "2001:db8:0:1::12"])
    lab.segment("lan", LAN_NS)
    _outside(lab, six=True)
    lab.attach("router", "eth0", "lan", "2001:db8:0:1::1/64")
    lab.attach("router", "eth1", "wan", "2001:db8:0:ff::1/64")
    lab.hosts["router"].add_route("::/0", "2001:db8:0:ff::2")
    lab.host("director", "director", forwarding=True)
    lab.attach("director", "eth0", "lan", "2001:db8:0:1::2/64", f"{lab.vip}/128")
    lab.director.add_route("::/0", "2001:db8:0:1::1")
    for number, address in enumerate(lab.realserver_addresses, 1):
        host = lab.host(f"rs{number}", "realserver")
        lab.attach(host.name, "eth0", "lan", f"{address}/64")
        host.loopback.add(lab.vip)
        host.add_route("::/0", "2001:db8:0:1::1")
    return lab


def nat(sample: str) -> Lab:
    """Return an LVS-NAT cluster with two arms: realservers behind the director."""
    lab = Lab(sample, "nat", "203.0.113.10", ["10.1.0.11", "10.1.0.12"])
    lab.segment("lan", LAN_NS)
    lab.segment("inside", LAN_NS)
    _outside(lab)
    lab.attach("router", "eth0", "lan", "203.0.113.1/24")
    lab.attach("router", "eth1", "wan", "192.0.2.1/30")
    lab.hosts["router"].add_route("0.0.0.0/0", "192.0.2.2")
    lab.host("director", "director", forwarding=True)
    lab.attach("director", "eth0", "lan", "203.0.113.2/24", f"{lab.vip}/32")
    lab.attach("director", "eth1", "inside", "10.1.0.1/24")
    lab.director.add_route("0.0.0.0/0", "203.0.113.1")
    for number, address in enumerate(lab.realserver_addresses, 1):
        host = lab.host(f"rs{number}", "realserver")
        lab.attach(host.name, "eth0", "inside", f"{address}/24")
        host.add_route("0.0.0.0/0", "10.1.0.1")
    return lab


def nat_one_arm(sample: str) -> Lab:
    """Return an LVS-NAT cluster whose director has one interface, on the realservers' LAN."""
    lab = Lab(sample, "nat", "203.0.113.10", ["10.1.0.11", "10.1.0.12"])
    lab.segment("lan", LAN_NS)
    _outside(lab)
    lab.attach("router", "eth0", "lan", "10.1.0.1/24", "203.0.113.1/24")
    lab.attach("router", "eth1", "wan", "192.0.2.1/30")
    lab.hosts["router"].add_route("0.0.0.0/0", "192.0.2.2")
    lab.host("director", "director", forwarding=True)
    lab.attach("director", "eth0", "lan", "10.1.0.2/24", f"{lab.vip}/32")
    lab.director.add_route("0.0.0.0/0", "10.1.0.1")
    for number, address in enumerate(lab.realserver_addresses, 1):
        host = lab.host(f"rs{number}", "realserver")
        lab.attach(host.name, "eth0", "lan", f"{address}/24")
        host.add_route("0.0.0.0/0", "10.1.0.2")
    return lab


def tun(sample: str) -> Lab:
    """Return an LVS-TUN cluster: IPIP to realservers in another network behind the router."""
    lab = Lab(sample, "tun", "203.0.113.10", ["10.2.0.11", "10.2.0.12"])
    lab.segment("lan", LAN_NS)
    lab.segment("farm", LAN_NS)
    _outside(lab)
    lab.attach("router", "eth0", "lan", "203.0.113.1/24")
    lab.attach("router", "eth1", "wan", "192.0.2.1/30")
    lab.attach("router", "eth2", "farm", "10.2.0.1/24")
    lab.hosts["router"].add_route("0.0.0.0/0", "192.0.2.2")
    lab.host("director", "director", forwarding=True)
    lab.attach("director", "eth0", "lan", "203.0.113.2/24", f"{lab.vip}/32")
    lab.director.add_route("0.0.0.0/0", "203.0.113.1")
    for number, address in enumerate(lab.realserver_addresses, 1):
        host = lab.host(f"rs{number}", "realserver")
        lab.attach(host.name, "eth0", "farm", f"{address}/24")
        host.loopback.add(lab.vip)
        host.add_route("0.0.0.0/0", "10.2.0.1")
    return lab


def second_router(lab: Lab) -> Host:
    """Add a router at 203.0.113.254 with its own line to the isp; nothing uses it yet."""
    lab.segment("wan2", WAN_NS)
    host = lab.host("router2", "router", forwarding=True)
    lab.attach("router2", "eth0", "lan", "203.0.113.254/24")
    lab.attach("router2", "eth1", "wan2", "192.0.2.9/30")
    lab.attach("isp", "eth3", "wan2", "192.0.2.10/30")
    host.add_route("0.0.0.0/0", "192.0.2.10")
    return host


def browse(
    lab: Lab,
    *,
    clients: Sequence[str],
    start_s: float,
    every_s: float,
    count: int,
    ports: tuple[int, int] = (80, 80),
) -> None:
    """Plan ordinary connections: short pages mostly, some long, some uploads, some kept open.

    `ports` is the service's port in the cluster and, where a NAT in front changes it, outside.
    """
    kinds: list[tuple[str, list[Step], str]] = [
        ("page", [("get", 340)], "server"),
        ("page", [("get", 2100)], "client"),
        ("session", [("get", 700), ("wait", 1.1), ("get", 5200)], "client"),
        ("page", [("get", 9000)], "server"),
        ("upload", [("post", 4000)], "client"),
        ("page", [("get", 120)], "client"),
        (
            "session",
            [("get", 900), ("wait", 2.2), ("get", 450), ("wait", 0.7), ("get", 60)],
            "server",
        ),
        ("page", [("get", 15000)], "client"),
    ]
    for number in range(count):
        label, steps, ending = kinds[number % len(kinds)]
        client = clients[number % len(clients)]
        offset = draw(0, 150, lab.sample, number, "start") / 1000
        port = 32768 + draw(0, 90, lab.sample, number, "port") + 97 * number
        lab.flow(
            label,
            client,
            port,
            start_s + every_s * number + offset,
            steps,
            ending=ending,
            service_port=ports[0],
            public_port=ports[1],
        )
