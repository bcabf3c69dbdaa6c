"""Packets as forwarding and NAT leave them: TTL, addresses, ports, checksums."""

from __future__ import annotations

import ipaddress
import struct

from . import wire
from .checksums import checksum


def lower_ttl(data: bytes) -> bytes:
    """Return the packet one hop later."""
    packet = bytearray(data)
    if packet[0] >> 4 == 6:
        packet[7] -= 1
    else:
        packet[8] -= 1
        _mend_header(packet)
    return bytes(packet)


def _mend_header(packet: bytearray) -> None:
    """Set the IPv4 header checksum."""
    header_len = (packet[0] & 15) * 4
    packet[10:12] = b"\0\0"
    struct.pack_into("!H", packet, 10, checksum(packet[:header_len]))


def translate(
    data: bytes, *, src: tuple[str, int] | None = None, dst: tuple[str, int] | None = None
) -> bytes:
    """Return the IPv4 packet with another source or destination, all its checksums right."""
    packet = bytearray(data)
    header = wire.read(data)
    where = header.header_len
    for place, (at, port_at) in ((src, (12, 0)), (dst, (16, 2))):
        if place is not None:
            packet[at : at + 4] = ipaddress.IPv4Address(place[0]).packed
            if header.proto in {wire.TCP_PROTO, wire.UDP_PROTO}:
                struct.pack_into("!H", packet, where + port_at, place[1])
    _mend_header(packet)
    if header.proto == wire.TCP_PROTO:
        struct.pack_into("!H", packet, where + 16, 0)
        pseudo = bytes(packet[12:20]) + struct.pack("!HH", wire.TCP_PROTO, len(packet) - where)
        struct.pack_into("!H", packet, where + 16, checksum(pseudo + bytes(packet[where:])))
    return bytes(packet)


def translate_quote(
    data: bytes,
    *,
    src: tuple[str, int] | None = None,
    dst: tuple[str, int] | None = None,
    mend_icmp: bool = True,
) -> bytes:
    """Return the IPv4 ICMP error with its quoted packet's endpoints changed (ip_vs_nat_icmp).

    The quoted IP header's checksum is corrected, the quoted TCP checksum is not; the ICMP
    checksum is made anew unless `mend_icmp` is off, which is the fault of a careless NAT box.
    """
    packet = bytearray(data)
    icmp = wire.read(data).header_len
    quoted = bytearray(packet[icmp + 8 :])
    ports = (quoted[0] & 15) * 4
    for place, (at, port_at) in ((src, (12, 0)), (dst, (16, 2))):
        if place is not None:
            quoted[at : at + 4] = ipaddress.IPv4Address(place[0]).packed
            struct.pack_into("!H", quoted, ports + port_at, place[1])
    _mend_header(quoted)
    packet[icmp + 8 :] = quoted
    if mend_icmp:
        struct.pack_into("!H", packet, icmp + 2, 0)
        struct.pack_into("!H", packet, icmp + 2, checksum(packet[icmp:]))
    return bytes(packet)
