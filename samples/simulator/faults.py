"""Faults that several samples share."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from . import wire
from .checksums import checksum
from .clock import seconds
from .rewrite import translate, translate_quote
from .wire import SYN, TCP_PROTO

if TYPE_CHECKING:
    from .hosts import Verdict
    from .lab import Lab
    from .links import Interface


HOST_PROHIBITED: Final = (3, 10)


def drop_icmp_errors(lab: Lab, *, at_s: float) -> None:
    """Let the director's filter INPUT drop ICMP but for echo and, in IPv6, neighbour discovery."""

    def rule(header: wire.Header, _interface: Interface) -> Verdict | None:
        return "drop" if header.is_error else None

    lab.at(at_s, lambda: lab.director.input_rules.append(rule))


def stateful_reject(
    lab: Lab,
    host: str,
    *,
    ports: tuple[int, ...],
    forgets_s: float | None = None,
    at_s: float = 0.0,
) -> None:
    """Let a host reject, with host prohibited, TCP that its conntrack knows no connection for.

    A SYN makes an entry, which is forgotten after `forgets_s` quiet seconds; None: no entry is ever
    confirmed, as on a director in direct routing with vs.conntrack=0. tcp_loose is 0.
    """
    last: dict[tuple[str, int, int], int] = {}

    def rule(header: wire.Header, _interface: Interface) -> Verdict | None:
        if header.proto != TCP_PROTO or header.dport not in ports:
            return None
        key = (header.src, header.sport, header.dport)
        if header.flags & SYN:
            last[key] = lab.clock.now
            return None
        if forgets_s is not None and lab.clock.now - last.get(key, 0) <= seconds(forgets_s):
            last[key] = lab.clock.now
            return None
        return HOST_PROHIBITED

    lab.at(at_s, lambda: lab.hosts[host].input_rules.append(rule))


def reject_port(lab: Lab, host: str, port: int) -> None:
    """Let a host reject all TCP to a port with host prohibited."""

    def rule(header: wire.Header, _interface: Interface) -> Verdict | None:
        return HOST_PROHIBITED if (header.proto, header.dport) == (TCP_PROTO, port) else None

    lab.hosts[host].input_rules.append(rule)


def map_port(lab: Lab, public: int, inside: int) -> None:
    """Let the router map a port of the VIP, and forget the checksum of what it changes in ICMP."""
    vip = lab.vip

    def rewrite(data: bytes, header: wire.Header, _interface: Interface) -> bytes:
        if header.proto == TCP_PROTO and (header.dst, header.dport) == (vip, public):
            return translate(data, dst=(vip, inside))
        if header.proto == TCP_PROTO and (header.src, header.sport) == (vip, inside):
            return translate(data, src=(vip, public))
        if header.is_error and header.dst == vip:
            return translate_quote(data, src=(vip, inside), mend_icmp=False)
        return data

    lab.hosts["router"].rewrites.append(rewrite)


def name_mtu(lab: Lab, segment: str, mtu: int) -> None:
    """Let every fragmentation-needed message that passes a segment name another next-hop MTU."""

    def change(frame: bytes) -> bytes:
        if frame[12:14] != b"\x08\x00":
            return frame
        header = wire.read(frame[14:])
        if (header.icmp_type, header.icmp_code) != (3, 4):
            return frame
        packet = bytearray(frame)
        message = 14 + header.header_len
        struct.pack_into("!H", packet, message + 6, mtu)
        struct.pack_into("!H", packet, message + 2, 0)
        struct.pack_into("!H", packet, message + 2, checksum(packet[message:]))
        return bytes(packet)

    lab.segments[segment].mangle.append(change)
