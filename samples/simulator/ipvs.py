"""The director: what ip_vs does to packets for a virtual service (ip_vs_core.c, ip_vs_xmit.c)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from . import rewrite, wire
from .checksums import checksum
from .clock import SECOND
from .hosts import FRAG_NEEDED, PORT_UNREACHABLE, TIME_EXCEEDED, TOO_BIG, Host, header_payload

if TYPE_CHECKING:
    from collections.abc import Callable

    from .links import Interface

Method = Literal["nat", "dr", "tun"]
OVERHEAD: Final = {"nat": 0, "dr": 0, "tun": 20}
ESTABLISHED_NS: Final = 900 * SECOND  # tcp_timeouts
CLOSING_NS: Final = 120 * SECOND  # FIN_WAIT and TIME_WAIT


@dataclass
class Service:
    """A virtual service; None as port answers for every port (the director looks at no other)."""

    vip: str
    port: int
    realservers: list[str]
    method: Method
    realserver_port: int
    proto: int = wire.TCP_PROTO
    next_one: int = 0


@dataclass
class Entry:
    """A line of `ipvsadm -Lnc`."""

    service: Service
    realserver: str
    closing: bool = False
    heard_ns: int = 0


@dataclass
class Director(Host):
    """A host with ip_vs at LOCAL_IN, that is after the filter INPUT chain.

    `unmarked` says which packets for the VIP a firewall-mark setup does not deliver to ip_vs but
    routes like any other.
    """

    services: list[Service] = field(default_factory=list)
    entries: dict[tuple[str, int, str, int], Entry] = field(default_factory=dict)
    unmarked: list[Callable[[wire.Header], bool]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Set up what is not configuration."""
        super().__post_init__()
        self.rewrites.append(self._back_to_vip)

    def serve(
        self,
        vip: str,
        port: int,
        realservers: list[str],
        method: Method,
        realserver_port: int | None = None,
        proto: int = wire.TCP_PROTO,
    ) -> None:
        """Add a virtual service, scheduled round robin."""
        rport = realserver_port or port
        self.services.append(Service(vip, port, realservers, method, rport, proto))

    def for_us(self, header: wire.Header) -> bool:
        """Whether the packet is delivered here, and so to ip_vs."""
        return super().for_us(header) and not any(rule(header) for rule in self.unmarked)

    def local_in(self, interface: Interface, data: bytes, header: wire.Header) -> None:
        """Let ip_vs look first (ip_vs_in); what it declines goes to the host itself."""
        entry = None
        if header.proto in {service.proto for service in self.services}:
            entry = self._entry_for(header)
            if entry == "none":
                self.error(PORT_UNREACHABLE, data)  # ip_vs_leave
                return
        elif self._is_related(header):
            quoted = wire.read(header.quote)
            if quoted.proto == wire.IPIP_PROTO and self._relay(header, quoted):
                return
            entry = self.entries.get((quoted.dst, quoted.dport, quoted.src, quoted.sport))
        if isinstance(entry, Entry):
            self._transmit(entry, data, header)
        else:
            super().local_in(interface, data, header)

    @staticmethod
    def _is_related(header: wire.Header) -> bool:
        """Whether ip_vs_in_icmp looks at it: types 3, 4 and 11; any ICMPv6 error."""
        if header.proto == wire.ICMP_PROTO:
            return header.icmp_type in {3, 4, 11} and len(header.quote) >= 28
        return header.proto == wire.ICMPV6_PROTO and 0 <= header.icmp_type < 128

    def _entry_for(self, header: wire.Header) -> Entry | Literal["none"] | None:
        """Return the packet's entry, scheduling a SYN or datagram; "none": no realservers."""
        key = (header.src, header.sport, header.dst, header.dport)
        entry = self._living(key)
        opening = header.flags & (wire.SYN | wire.ACK | wire.RST) == wire.SYN
        opening |= header.proto == wire.UDP_PROTO
        # After a close NAT has seen both FINs and schedules anew; DR and TUN keep the entry,
        # which is in FIN_WAIT, and its realserver.
        if entry is not None and opening and entry.closing and entry.service.method == "nat":
            entry = None
        if entry is None and opening:
            for service in self.services:
                asked = (header.proto, header.dst, header.dport)
                if (service.proto, service.vip, service.port) == asked:
                    if not service.realservers:
                        return "none"
                    chosen = service.realservers[service.next_one % len(service.realservers)]
                    service.next_one += 1
                    entry = self.entries[key] = Entry(service, chosen)
                    break
        if entry is not None:
            entry.closing |= bool(header.flags & wire.FIN)
            entry.heard_ns = self.clock.now
        return entry

    def _living(self, key: tuple[str, int, str, int]) -> Entry | None:
        """Return an entry whose timer has not run out."""
        entry = self.entries.get(key)
        if entry is None:
            return None
        limit = CLOSING_NS if entry.closing else ESTABLISHED_NS
        if self.clock.now - entry.heard_ns <= limit:
            return entry
        del self.entries[key]
        return None

    def _transmit(self, entry: Entry, data: bytes, header: wire.Header) -> None:
        """Forward as ip_vs_{nat,dr,tunnel}_xmit and their ICMP twins: TTL, MTU, rewrite."""
        method = entry.service.method
        interface, next_hop = self.route(entry.realserver)
        if interface is None:
            return
        if header.ttl <= 1:
            self.error(TIME_EXCEEDED, data)
            return
        data = rewrite.lower_ttl(data)
        mtu = self.mtu_to(entry.realserver) - OVERHEAD[method]
        if header.length > mtu and header.df and not header.is_error:
            self.error(FRAG_NEEDED if header.version == 4 else TOO_BIG, data, word=mtu)
            return
        if method == "tun":
            related = header.is_error
            self._ident = (self._ident + related) & 0xFFFF
            data = wire.ipip(
                self.source_for(entry.realserver),
                entry.realserver,
                data,
                ident=self._ident if related else 0,
                df=not related,
            )
        elif method == "nat":
            realserver = (entry.realserver, entry.service.realserver_port)
            if header.is_error:
                if checksum(header_payload(data, header)):
                    return  # "Incoming ICMP: failed checksum", a debug message only
                data = rewrite.translate_quote(data, src=realserver)
            data = rewrite.translate(data, dst=realserver)
        self.transmit(interface, next_hop, data)

    def _relay(self, header: wire.Header, outer: wire.Header) -> bool:
        """Re-issue an error about a tunnel packet to the client (ip_vs_in_icmp, tunnel branch).

        A kernel was seen to name the MTU that its cached route had before: one message too late.
        """
        inner = header.quote[outer.header_len :]
        known = any(outer.dst in service.realservers for service in self.services)
        if not known or len(inner) < 28:
            return False
        word = header.icmp_word
        if (header.icmp_type, header.icmp_code) == FRAG_NEEDED:
            known = self.mtu_to(outer.dst)
            self.path_mtu[outer.dst] = word
            word = known - OVERHEAD["tun"]
        self.error((header.icmp_type, header.icmp_code), inner, word=word)
        return True

    def _back_to_vip(self, data: bytes, header: wire.Header, _interface: Interface) -> bytes:
        """Give a reply of a NAT connection the VIP as source (ip_vs_out)."""
        if header.proto != wire.TCP_PROTO:
            return data
        for service in self.services:
            key = (header.dst, header.dport, service.vip, service.port)
            entry = self.entries.get(key)
            if (
                entry is not None
                and entry.service is service
                and service.method == "nat"
                and (header.src, header.sport) == (entry.realserver, service.realserver_port)
            ):
                entry.heard_ns = self.clock.now
                return rewrite.translate(data, src=(service.vip, service.port))
        return data
