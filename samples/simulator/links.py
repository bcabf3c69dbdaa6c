"""Interfaces and the segments between them: delay, jitter, order, chosen losses."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Final

from . import wire
from .clock import MICROSECOND, Clock, draw

if TYPE_CHECKING:
    from collections.abc import Callable

    from .capture import Tap
    from .hosts import Host

BROADCAST: Final = "ff:ff:ff:ff:ff:ff"
SHORTEST_FRAME: Final = 60  # IEEE 802.3 without FCS; receivers see the padding, senders do not


@cache
def _parsed(text: str) -> tuple[int, str]:
    """Return the IP version and the address of an interface address."""
    parsed = ipaddress.ip_interface(text)
    return parsed.version, str(parsed.ip)


@dataclass
class Interface:
    """A port of a host; `addresses` are interface addresses ("203.0.113.2/24").

    `offload` is how a frame looks to the tap before the card fills in what is left to it.
    """

    host: Host
    name: str
    mac: str
    addresses: list[str]
    mtu: int
    segment: Segment
    tap: Tap | None = None
    offload: Callable[[bytes], bytes] | None = None
    _free_at: int = 0
    _sent: int = 0

    def networks(self) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
        """Return the on-link networks."""
        return [ipaddress.ip_interface(text).network for text in self.addresses]

    def own(self, version: int) -> list[str]:
        """Return the addresses of one IP version, the primary one first."""
        parsed = map(_parsed, self.addresses)
        return [address for of, address in parsed if of == version]

    def send(self, dst_mac: str, ethertype: int, payload: bytes) -> None:
        """Send a frame and let the tap see it; of a burst each some microseconds later."""
        frame = wire.ethernet(self.mac, dst_mac, ethertype, payload)
        clock = self.segment.clock
        when = max(clock.now, self._free_at)
        self._sent += 1
        self._free_at = when + draw(2, 7, self.mac, self._sent) * MICROSECOND

        def leave() -> None:
            if self.tap is not None:
                self.tap.add(clock.now, self.offload(frame) if self.offload else frame)
            self.segment.carry(self, frame)

        clock.at(when, leave)

    def receive(self, frame: bytes) -> None:
        """Take a frame off the wire: the tap sees it padded, then the host gets it."""
        if self.tap is not None:
            self.tap.add(self.segment.clock.now, frame.ljust(SHORTEST_FRAME, b"\0"))
        self.host.receive(self, frame)


@dataclass
class Segment:
    """A LAN or a point-to-point link.

    Frames of one sender arrive in order, `delay_ns` later give or take a few percent.
    `meddle` sees each frame and returns what becomes of it: None loses it, a number delays it
    by so many nanoseconds more, out of order; 0 leaves it alone. `mangle` may change its bytes.
    """

    name: str
    clock: Clock
    delay_ns: int
    interfaces: list[Interface] = field(default_factory=list)
    meddle: list[Callable[[Interface, bytes], int | None]] = field(default_factory=list)
    mangle: list[Callable[[bytes], bytes]] = field(default_factory=list)
    _last: dict[str, int] = field(default_factory=dict)
    _count: int = 0

    def carry(self, sender: Interface, frame: bytes) -> None:
        """Bring a frame to the interface it names, or to all."""
        self._count += 1
        extra = 0
        for meddle in self.meddle:
            fate = meddle(sender, frame)
            if fate is None:
                return
            extra += fate
        for mangle in self.mangle:
            frame = mangle(frame)
        jitter = draw(0, self.delay_ns // 8, self.name, self._count)
        arrival = self.clock.now + self.delay_ns + jitter
        if extra:
            arrival += extra
        else:
            gap = len(frame) // 100 * MICROSECOND  # 0.8 Gbit/s: a burst stays a burst
            arrival = max(arrival, self._last.get(sender.mac, 0) + max(gap, MICROSECOND))
            self._last[sender.mac] = arrival
        target = frame[:6].hex(":")
        group = bool(frame[0] & 1)
        for interface in self.interfaces:
            if interface is not sender and (group or interface.mac == target):
                self.clock.at(arrival, partial(interface.receive, frame))
