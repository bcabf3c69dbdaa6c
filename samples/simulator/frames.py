"""Predicates over captured frames, for `cited` and `look_at`."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from . import wire
from .clock import EPOCH_NS, seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .apps import Flow
    from .capture import Seen
    from .lab import Lab

    Wanted = Callable[[Seen], bool]


def icmp(*kinds: tuple[int, int]) -> Wanted:
    """Return whether a frame is an ICMP message of one of these types and codes."""
    return lambda seen: seen.ip is not None and (seen.ip.icmp_type, seen.ip.icmp_code) in kinds


def arp_for(address: str, *, after_s: float = 0.0) -> Wanted:
    """Return whether a frame asks by ARP for an address, from a moment on."""
    target = ipaddress.IPv4Address(address).packed

    def wanted(seen: Seen) -> bool:
        request = seen.frame[12:14] == b"\x08\x06" and seen.frame[20:22] == b"\0\x01"
        late = seen.time_ns >= EPOCH_NS + seconds(after_s)
        return request and late and seen.frame[38:42] == target

    return wanted


def arp_answers(address: str) -> Wanted:
    """Return whether a frame is an ARP reply that tells who has an address."""
    owner = ipaddress.IPv4Address(address).packed

    def wanted(seen: Seen) -> bool:
        reply = seen.frame[12:14] == b"\x08\x06" and seen.frame[20:22] == b"\0\x02"
        return reply and seen.frame[28:32] == owner

    return wanted


def of(*flows: Flow) -> Wanted:
    """Return whether a TCP segment has the client's end of one of the flows."""
    ends = {flow.client for flow in flows}

    def wanted(seen: Seen) -> bool:
        if seen.ip is None or seen.ip.proto != wire.TCP_PROTO:
            return False
        return bool({(seen.ip.src, seen.ip.sport), (seen.ip.dst, seen.ip.dport)} & ends)

    return wanted


def on(flows: Sequence[Flow], realserver: str) -> list[Flow]:
    """Return the flows that a realserver got."""
    return [flow for flow in flows if flow.realserver == realserver]


def quotes(*flows: Flow) -> Wanted:
    """Return whether an ICMP error quotes a segment of one of the flows, either way."""
    ends = {flow.client for flow in flows}

    def wanted(seen: Seen) -> bool:
        if seen.ip is None or not seen.ip.is_error or len(seen.ip.quote) < 28:
            return False
        quoted = wire.read(seen.ip.quote)
        return bool({(quoted.src, quoted.sport), (quoted.dst, quoted.dport)} & ends)

    return wanted


def ip_length(length: int) -> Wanted:
    """Return whether an IP packet has exactly that length."""
    return lambda seen: seen.ip is not None and seen.ip.length == length


def sent_by(lab: Lab, host: str, port: str = "eth0") -> Wanted:
    """Return whether a frame carries the host's MAC as source."""
    mac = lab.hosts[host].interfaces[port].mac
    return lambda seen: seen.eth_src == mac


def sent_to(lab: Lab, host: str, port: str = "eth0") -> Wanted:
    """Return whether a frame carries the host's MAC as destination."""
    mac = lab.hosts[host].interfaces[port].mac
    return lambda seen: seen.eth_dst == mac


def flags(value: int, mask: int = 0x17) -> Wanted:
    """Return whether a TCP segment has these flags among FIN, SYN, RST and ACK."""
    return lambda seen: (
        seen.ip is not None
        and seen.ip.proto == wire.TCP_PROTO
        and seen.ip.flags & mask == value & mask
    )


def has_data(seen: Seen) -> bool:
    """Return whether a TCP segment has payload."""
    return seen.ip is not None and seen.ip.proto == wire.TCP_PROTO and bool(seen.ip.payload)


def source(address: str) -> Wanted:
    """Return whether an IP packet comes from that address."""
    return lambda seen: seen.ip is not None and seen.ip.src == address


def every(*parts: Wanted) -> Wanted:
    """Return whether all parts hold."""
    return lambda seen: all(part(seen) for part in parts)


def fragment(*, first: bool = False) -> Wanted:
    """Return whether an IPv4 packet is a fragment; `first`: the one with the ports."""

    def wanted(seen: Seen) -> bool:
        if seen.ip is None or seen.ip.version == 6:
            return False
        field = int.from_bytes(seen.frame[20:22], "big")
        return bool(field & 0x3FFF) and not (first and field & 0x1FFF)

    return wanted


def to_port(port: int) -> Wanted:
    """Return whether a segment or datagram has that port at either end."""
    return lambda seen: seen.ip is not None and port in {seen.ip.sport, seen.ip.dport}
