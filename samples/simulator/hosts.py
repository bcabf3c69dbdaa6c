"""A host after Linux: neighbours, routing, forwarding, ICMP errors and redirects."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Final

from . import fragments, rewrite, wire
from .capture import IPV4, IPV6
from .clock import MICROSECOND, MILLISECOND, SECOND, Clock, draw
from .links import Interface, Segment
from .neighbours import ARP, Neighbours
from .stack import Stack

if TYPE_CHECKING:
    from collections.abc import Callable

UNREACHABLE_BURST: Final = 6  # icmpv4_xrlim_allow: six at once, then one a second
MIN_PMTU: Final = 552  # net.ipv4.route.min_pmtu: what is smaller becomes this, without DF
REDIRECTS: Final = 9  # ip_rt_redirect_number
REDIRECT_LOAD_NS: Final = 20 * MILLISECOND  # ip_rt_redirect_load
REDIRECT_SILENCE_NS: Final = 20_480 * MILLISECOND  # ip_rt_redirect_silence

FRAG_NEEDED: Final = (3, 4)
TOO_BIG: Final = (2, 0)
PORT_UNREACHABLE: Final = (3, 3)
NET_UNREACHABLE: Final = (3, 0)
HOST_UNREACHABLE: Final = (3, 1)
TIME_EXCEEDED: Final = (11, 0)
REASSEMBLY_EXCEEDED: Final = (11, 1)
REDIRECT_HOST: Final = (5, 1)
_V6: Final = {
    NET_UNREACHABLE: (1, 0),
    HOST_UNREACHABLE: (1, 3),
    PORT_UNREACHABLE: (1, 4),
    TIME_EXCEEDED: (3, 0),
}

Verdict = str | tuple[int, int]

_address = cache(ipaddress.ip_address)
"""Of a firewall rule: "drop", or the type and code of an ICMP error to reject with."""


@dataclass
class Route:
    """A route; without a gateway the destination is on-link, without an interface unreachable."""

    network: ipaddress.IPv4Network | ipaddress.IPv6Network
    gateway: str | None
    interface: Interface | None


@dataclass
class Host:
    """A host with its interfaces, routes and faults.

    `loopback` holds addresses that it owns but does not answer ARP for (arp_ignore=1);
    `input_rules` is its filter INPUT chain, `rewrites` what its NAT and its
    FORWARD chain do to packets it forwards: nothing comes of those that become empty.
    """

    name: str
    role: str
    clock: Clock
    forwarding: bool = False
    loopback: set[str] = field(default_factory=set)
    send_redirects: bool = True
    accept_redirects: bool = True
    interfaces: dict[str, Interface] = field(default_factory=dict)
    routes: list[Route] = field(default_factory=list)
    input_rules: list[Callable[[wire.Header, Interface], Verdict | None]] = field(
        default_factory=list
    )
    rewrites: list[Callable[[bytes, wire.Header, Interface], bytes]] = field(default_factory=list)
    udp_ports: dict[int, Callable[[wire.Header], None]] = field(default_factory=dict)
    on_icmp: list[Callable[[wire.Header], None]] = field(default_factory=list)
    path_mtu: dict[str, int] = field(default_factory=dict)
    without_df: set[str] = field(default_factory=set)
    redirected: dict[str, str] = field(default_factory=dict)
    limits_errors: bool = True
    clock_error_ns: int = 0

    def __post_init__(self) -> None:
        """Set up what is not configuration."""
        self.tcp = Stack(self)
        self.neighbours = Neighbours(self.clock, self._undelivered)
        self.reassembly = fragments.Reassembly(
            self.clock, lambda first: self.error(REASSEMBLY_EXCEEDED, first)
        )
        self._busy_until = 0
        self._ident = draw(1, 0xFFFF, self.name, "icmp id")
        self._errors_sent: dict[str, tuple[float, int]] = {}
        self._redirects_sent: dict[str, tuple[int, int]] = {}

    # --- configuration

    def attach(
        self, name: str, mac: str, addresses: list[str], segment: Segment, mtu: int = 1500
    ) -> Interface:
        """Give the host an interface; its addresses' networks become on-link."""
        interface = Interface(self, name, mac, addresses, mtu, segment)
        self.interfaces[name] = interface
        segment.interfaces.append(interface)
        self.routes += [Route(network, None, interface) for network in interface.networks()]
        return interface

    def add_route(self, network: str, gateway: str | None, interface: str | None = None) -> None:
        """Add a route; a later one wins over an equal earlier one."""
        target = self.interfaces[interface] if interface else None
        if gateway and target is None:
            target = self.route(gateway)[0]
        self.routes.insert(0, Route(ipaddress.ip_network(network), gateway, target))

    def is_local(self, address: str) -> bool:
        """Whether the address is one of the host's."""
        return address in self.loopback or any(
            address in interface.own(6 if ":" in address else 4)
            for interface in self.interfaces.values()
        )

    def route(self, dst: str) -> tuple[Interface | None, str]:
        """Return the interface and next hop for a destination; no interface: unreachable."""
        wanted = self.redirected.get(dst)
        address = _address(wanted or dst)
        matches = [route for route in self.routes if address in route.network]
        if not matches:
            return None, dst
        best = max(matches, key=lambda route: route.network.prefixlen)
        return best.interface, wanted or best.gateway or dst

    def mtu_to(self, dst: str) -> int:
        """Return the path MTU as far as the host knows it."""
        interface, _ = self.route(dst)
        return min(self.path_mtu.get(dst, 65535), interface.mtu if interface else 1500)

    def learn_mtu(self, dst: str, mtu: int) -> None:
        """Note a path MTU as __ip_rt_update_pmtu does: a tiny one gives up DF instead."""
        if ":" not in dst and mtu < MIN_PMTU:
            self.without_df.add(dst)
            mtu = MIN_PMTU
        self.path_mtu[dst] = mtu

    def source_for(self, dst: str) -> str:
        """Return the primary address of the interface toward `dst`."""
        interface, _ = self.route(dst)
        if interface is None:
            interface = next(iter(self.interfaces.values()))
        return interface.own(6 if ":" in dst else 4)[0]

    # --- receiving

    def receive(self, interface: Interface, frame: bytes) -> None:
        """Take a frame from the wire; it is worked on some microseconds later."""
        target = frame[:6].hex(":")
        if target != interface.mac and not frame[0] & 1:
            return
        ethertype = int.from_bytes(frame[12:14], "big")
        payload = frame[14:]
        if ethertype == ARP:
            self._work(lambda: self.neighbours.arp(interface, payload))
        elif ethertype in {IPV4, IPV6}:
            payload = payload[: wire.read(payload).length]
            self._work(lambda: self._ip_in(interface, payload))

    def _work(self, action: Callable[[], None]) -> None:
        delay = draw(12, 38, self.name, self.clock.now) * MICROSECOND
        self._busy_until = max(self.clock.now + delay, self._busy_until + MICROSECOND)
        self.clock.at(self._busy_until, action)

    def _ip_in(self, interface: Interface, data: bytes) -> None:
        header = wire.read(data)
        if header.proto == wire.ICMPV6_PROTO and header.icmp_type in {135, 136}:
            self.neighbours.discovery(interface, data, header)
        elif self.for_us(header):
            if fragments.is_fragment(data):
                whole = self.reassembly.add(data)
                if whole is None:
                    return
                data, header = whole, wire.read(whole)
            for rule in self.input_rules:
                verdict = rule(header, interface)
                if verdict == "drop":
                    return
                if isinstance(verdict, tuple):
                    self.error(verdict, data)
                    return
            self.local_in(interface, data, header)
        elif self.forwarding and not _address(header.dst).is_multicast:
            self.forward(interface, data, header)

    def for_us(self, header: wire.Header) -> bool:
        """Whether the routing decision is to deliver here."""
        return self.is_local(header.dst)

    def local_in(self, interface: Interface, data: bytes, header: wire.Header) -> None:
        """Deliver a packet to this host's own protocols."""
        if header.proto == wire.TCP_PROTO:
            if not wire.transport_sum(data):  # else TcpInCsumErrors
                self.tcp.receive(header)
        elif header.proto == wire.UDP_PROTO:
            handler = self.udp_ports.get(header.dport)
            if handler is None:
                self.error(PORT_UNREACHABLE, data)
            else:
                handler(header)
        elif header.proto == wire.IPIP_PROTO:
            inner = header_payload(data, header)
            if self.is_local(wire.read(inner).dst):
                self.local_in(interface, inner, wire.read(inner))
        elif header.proto in {wire.ICMP_PROTO, wire.ICMPV6_PROTO}:
            self._icmp_in(data, header)

    def _icmp_in(self, data: bytes, header: wire.Header) -> None:
        if wire.transport_sum(data):
            return  # icmp_rcv: IcmpInCsumErrors
        if header.icmp_type in {8, 128}:
            number = divmod(header.icmp_word, 65536)
            self._ident += 1
            ident = self._ident & 0xFFFF
            self.send(
                wire.echo(
                    header.dst,
                    header.src,
                    reply=True,
                    number=number,
                    payload=header.quote,
                    ident=ident,
                )
            )
        elif header.is_error and len(header.quote) >= 28:
            for listener in self.on_icmp:
                listener(header)
            quoted = wire.read(header.quote)
            if header.icmp_type == 5 and header.version == 4:
                self._redirected(header, quoted)
            elif quoted.proto == wire.TCP_PROTO:
                self.tcp.icmp(header, quoted)

    def _redirected(self, header: wire.Header, quoted: wire.Header) -> None:
        """Obey a redirect as __ip_do_redirect: from the present gateway, for an own socket."""
        _, gateway = self.route(quoted.dst)
        if self.accept_redirects and gateway == header.src and self.tcp.owns(quoted):
            self.redirected[quoted.dst] = str(ipaddress.IPv4Address(header.icmp_word))

    # --- forwarding

    def forward(self, interface: Interface, data: bytes, header: wire.Header) -> None:
        """Forward a packet in the order of ip_forward."""
        out, next_hop = self.route(header.dst)
        if out is None:
            withdrawn = any(_address(header.dst) in route.network for route in self.routes)
            self.error(HOST_UNREACHABLE if withdrawn else NET_UNREACHABLE, data)
        elif header.ttl <= 1:
            self.error(TIME_EXCEEDED, data)
        elif header.length > out.mtu and header.df:
            self.error(FRAG_NEEDED if header.version == 4 else TOO_BIG, data, word=out.mtu)
        else:
            data = rewrite.lower_ttl(data)
            if out is interface and header.version == 4:
                self._redirect(interface, data, header, next_hop)
            for change in self.rewrites:
                data = change(data, wire.read(data), interface)
                if not data:
                    return  # FORWARD dropped it
            self.output(data)

    def _redirect(
        self, interface: Interface, data: bytes, header: wire.Header, next_hop: str
    ) -> None:
        """Send a redirect with the backoff of ip_rt_send_redirect."""
        source = _address(header.src)
        on_link = any(source in network for network in interface.networks())
        if not (self.send_redirects and on_link):
            return
        now = self.clock.now
        count, last = self._redirects_sent.get(header.src, (0, 0))
        if now > last + REDIRECT_SILENCE_NS:
            count = 0
        if count >= REDIRECTS:
            self._redirects_sent[header.src] = (count, now)
        elif count == 0 or now > last + (REDIRECT_LOAD_NS << count):
            self._redirects_sent[header.src] = (count + 1, now)
            self.error(REDIRECT_HOST, data, word=int(ipaddress.IPv4Address(next_hop)))

    # --- sending

    def error(
        self,
        kind: tuple[int, int],
        offending: bytes,
        *,
        word: int = 0,
        src: str | None = None,
    ) -> None:
        """Send an ICMP error about a packet: __icmp_send's source, quote and rate limit."""
        header = wire.read(offending)
        if header.is_error:
            return
        if header.version == 6:
            kind = _V6.get(kind, kind)
        limited = kind not in {FRAG_NEEDED, TOO_BIG} and kind[0] != 5
        if limited and self.limits_errors and not self._may_send_error(header.src):
            return
        if src is None:
            src = header.dst if self.for_us(header) else self.source_for(header.src)
        self._ident += draw(1, 5, self.name, self._ident)
        message = wire.icmp_error(
            src, header.src, kind, offending, word=word, ident=self._ident & 0xFFFF
        )
        self.send(message)

    def _undelivered(self, data: bytes) -> None:
        """Tell the sender of a packet that nobody on the link has its next hop's address."""
        if self.is_local(wire.read(data).src):
            return
        self.error(HOST_UNREACHABLE, data, src=self.source_for(wire.read(data).src))

    def _may_send_error(self, dst: str) -> bool:
        tokens, last = self._errors_sent.get(dst, (float(UNREACHABLE_BURST), self.clock.now))
        tokens = min(UNREACHABLE_BURST, tokens + (self.clock.now - last) / SECOND)
        allowed = tokens >= 1
        self._errors_sent[dst] = (tokens - allowed, self.clock.now)
        return allowed

    def send(self, data: bytes) -> None:
        """Send a packet that this host made."""
        self.output(data)

    def output(self, data: bytes) -> None:
        """Route a packet and hand it to its next hop, asking for the MAC first if need be."""
        interface, next_hop = self.route(wire.read(data).dst)
        if interface is not None:
            self.transmit(interface, next_hop, data)

    def transmit(self, interface: Interface, next_hop: str, data: bytes) -> None:
        """Send a packet to a neighbour, in fragments where it is too large and may be cut."""
        for part in fragments.split(data, interface.mtu):
            self.neighbours.transmit(interface, next_hop, part)


def header_payload(data: bytes, header: wire.Header) -> bytes:
    """Return what follows the IP header."""
    return data[header.header_len : header.length]
