"""Who has which MAC: ARP (RFC 826) and neighbour discovery (RFC 4861), as Linux asks."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from . import wire
from .capture import IPV4, IPV6
from .clock import SECOND, Clock
from .links import BROADCAST, Interface

if TYPE_CHECKING:
    from collections.abc import Callable

ARP: Final = 0x0806
TRIES: Final = 3
REACHABLE_NS: Final = 30 * SECOND  # base_reachable_time
DELAY_NS: Final = 5 * SECOND  # delay_first_probe_time
UNKNOWN: Final = "00:00:00:00:00:00"


@dataclass
class Neighbours:
    """A host's neighbour table; `unreachable` is told what could not be delivered.

    `careless` holds addresses of no interface that it answers for all the same (arp_ignore=0).
    """

    clock: Clock
    unreachable: Callable[[bytes], None]
    known: dict[str, tuple[str, int]] = field(default_factory=dict)
    careless: set[str] = field(default_factory=set)
    _waiting: dict[str, list[bytes]] = field(default_factory=dict)

    def transmit(self, interface: Interface, next_hop: str, data: bytes) -> None:
        """Send a packet to a neighbour."""
        known = self.known.get(next_hop)
        if known is None:
            waiting = self._waiting.setdefault(next_hop, [])
            waiting.append(data)
            if len(waiting) == 1:
                self._ask(interface, next_hop, 1)
            return
        mac, confirmed = known
        if self.clock.now - confirmed > REACHABLE_NS:
            self.known[next_hop] = (mac, self.clock.now)
            self.clock.after(DELAY_NS, lambda: self._solicit(interface, next_hop, mac))
        interface.send(mac, IPV6 if ":" in next_hop else IPV4, data)

    def forget(self, address: str) -> None:
        """Lose a neighbour's MAC, as the kernel does some time after it was last confirmed."""
        self.known.pop(address, None)

    def _ask(self, interface: Interface, address: str, attempt: int) -> None:
        """Ask for a neighbour's MAC, again each second, and give up after three times."""
        if address in self.known:
            return
        if attempt > TRIES:
            for data in self._waiting.pop(address, []):
                self.unreachable(data)
            return
        self._solicit(interface, address, None)
        self.clock.after(SECOND, lambda: self._ask(interface, address, attempt + 1))

    def _solicit(self, interface: Interface, address: str, mac: str | None) -> None:
        """Send an ARP request or a neighbour solicitation, unicast where the MAC is known."""
        if ":" in address:
            src = interface.own(6)[0]
            low = ipaddress.IPv6Address(address).packed[-3:]
            group = str(
                ipaddress.IPv6Address(ipaddress.IPv6Address("ff02::1:ff00:0").packed[:13] + low)
            )
            message = wire.neighbour_solicitation(
                interface.mac, src, address, address if mac else group
            )
            interface.send(mac or f"33:33:ff:{low.hex(':')}", IPV6, message)
            return
        src = self._arp_source(interface, address)
        message = wire.arp(1, interface.mac, src, mac or UNKNOWN, address)
        interface.send(mac or BROADCAST, ARP, message)

    def _arp_source(self, interface: Interface, address: str) -> str:
        """Return the interface's address in the target's network (arp_announce=2)."""
        for text in interface.addresses:
            parsed = ipaddress.ip_interface(text)
            if ipaddress.ip_address(address) in parsed.network:
                return str(parsed.ip)
        return interface.own(4)[0]

    def arp(self, interface: Interface, message: bytes) -> None:
        """Answer a request for an own address and learn from what is for this host."""
        op = int.from_bytes(message[6:8], "big")
        sender_mac = message[8:14].hex(":")
        sender = str(ipaddress.IPv4Address(message[14:18]))
        target = str(ipaddress.IPv4Address(message[24:28]))
        if op == 1 and (target in interface.own(4) or target in self.careless):
            reply = wire.arp(2, interface.mac, target, sender_mac, sender)
            interface.send(sender_mac, ARP, reply)
            self._learn(interface, sender, sender_mac)
        elif op == 2:
            self._learn(interface, sender, sender_mac)

    def discovery(self, interface: Interface, data: bytes, header: wire.Header) -> None:
        """Do the same with a neighbour solicitation or advertisement."""
        target = str(ipaddress.IPv6Address(data[48:64]))
        option_mac = data[66:72].hex(":")
        if header.icmp_type == 135 and target in interface.own(6):
            reply = wire.neighbour_advertisement(interface.mac, target, header.src)
            interface.send(option_mac, IPV6, reply)
            self._learn(interface, header.src, option_mac)
        elif header.icmp_type == 136:
            self._learn(interface, target, option_mac)

    def _learn(self, interface: Interface, address: str, mac: str) -> None:
        self.known[address] = (mac, self.clock.now)
        for data in self._waiting.pop(address, []):
            interface.send(mac, IPV6 if ":" in address else IPV4, data)
