"""A laboratory: hosts, links, taps, planned traffic; everything that is not one cluster's shape."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from . import wire
from .apps import Browser, Flow, HealthCheck, Step, WebServer, answer
from .capture import SNAPLEN, Tap
from .clock import EPOCH_NS, MICROSECOND, Clock, draw, seconds
from .hosts import Host
from .ipvs import Director
from .links import Segment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .links import Interface


@dataclass
class Capture:
    """A capture that is written: where, and how much of each frame."""

    file: str
    vantage: str
    interface: Interface
    tap: Tap
    snaplen: int = SNAPLEN
    dropped: int = 0  # what the capturing program counts as lost; pcapng keeps it


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

    def serve_datagrams(self, port: int, answer_bytes: int) -> None:
        """Make the director balance a UDP port; realservers answer each datagram."""
        realservers = self.realserver_addresses
        self.director.serve(self.vip, port, realservers, self.method, proto=wire.UDP_PROTO)  # type: ignore[arg-type]
        for host in self.hosts.values():
            if host.role == "realserver":
                host.udp_ports[port] = partial(answer, host, answer_bytes)

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
