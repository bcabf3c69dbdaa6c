"""The bytes of packets: TCP written out, the rest built with scapy, read as a kernel reads them."""

from __future__ import annotations

import ipaddress
import socket
import struct
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Final

from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6Unknown,
    IPv6,
)
from scapy.layers.l2 import ARP, Ether
from scapy.layers.vrrp import VRRP
from scapy.packet import Raw

from .checksums import checksum

ICMP_PROTO: Final = 1
IPIP_PROTO: Final = 4
TCP_PROTO: Final = 6
UDP_PROTO: Final = 17
ICMPV6_PROTO: Final = 58

FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
PSH: Final = 0x08
ACK: Final = 0x10

QUOTE_V4: Final = 548  # Linux: 576 in all, less 20 of IP and 8 of ICMP
QUOTE_V6: Final = 1232  # RFC 4443 2.4(c): 1280 in all, less 40 and 8
NETWORK_CONTROL: Final = 0xC0  # TOS of Linux's ICMP errors (RFC 1812 4.3.2.5)


@dataclass(frozen=True, slots=True)
class Header:
    """What forwarding and sockets look at; ports and TCP fields are 0 where there are none."""

    version: int
    src: str
    dst: str
    proto: int
    ttl: int
    df: bool
    length: int
    header_len: int
    ident: int
    sport: int = 0
    dport: int = 0
    seq: int = 0
    ack: int = 0
    flags: int = 0
    window: int = 0
    payload: bytes = b""
    options: bytes = b""
    icmp_type: int = -1
    icmp_code: int = -1
    icmp_word: int = 0
    quote: bytes = b""

    @property
    def is_error(self) -> bool:
        """Whether this is an ICMP error, about which no other error may be sent."""
        if self.proto == ICMP_PROTO:
            return self.icmp_type in {3, 4, 5, 11, 12}
        return self.proto == ICMPV6_PROTO and 0 <= self.icmp_type < 128


@lru_cache(maxsize=4096)
def read(data: bytes) -> Header:
    """Return the header fields of an IP packet; a quote may end early."""
    fields: dict[str, Any]
    if data[0] >> 4 == 4:
        header_len = (data[0] & 15) * 4
        length, ident, fragment = struct.unpack_from("!HHH", data, 2)
        fields = {
            "version": 4,
            "src": str(ipaddress.IPv4Address(data[12:16])),
            "dst": str(ipaddress.IPv4Address(data[16:20])),
            "proto": data[9],
            "ttl": data[8],
            "df": bool(fragment & 0x4000),
            "length": length,
            "header_len": header_len,
            "ident": ident,
        }
    else:
        header_len = 40
        fields = {
            "version": 6,
            "src": str(ipaddress.IPv6Address(data[8:24])),
            "dst": str(ipaddress.IPv6Address(data[24:40])),
            "proto": data[6],
            "ttl": data[7],
            "df": True,
            "length": 40 + int(struct.unpack_from("!H", data, 4)[0]),
            "header_len": header_len,
            "ident": 0,
        }
    body = data[header_len : fields["length"]]
    if fields["version"] == 4 and fragment & 0x1FFF:
        body = b""  # a later fragment: neither ports nor a type
    if fields["proto"] == TCP_PROTO and len(body) >= 8:
        fields["sport"], fields["dport"], fields["seq"] = struct.unpack_from("!HHI", body)
        if len(body) >= 20:
            ack, offset, flags, window = struct.unpack_from("!IBBH", body, 8)
            start = (offset >> 4) * 4
            fields |= {"ack": ack, "flags": flags, "window": window}
            fields |= {"options": body[20:start], "payload": body[start:]}
    elif fields["proto"] == UDP_PROTO and len(body) >= 8:
        fields["sport"], fields["dport"] = struct.unpack_from("!HH", body)
        fields["payload"] = body[8:]
    elif fields["proto"] in {ICMP_PROTO, ICMPV6_PROTO} and len(body) >= 8:
        fields["icmp_type"], fields["icmp_code"] = body[0], body[1]
        fields["icmp_word"] = struct.unpack_from("!I", body, 4)[0]
        fields["quote"] = body[8:]
    return Header(**fields)


def _network(src: str, dst: str, ttl: int, ident: int, tos: int, *, df: bool) -> Any:
    if ":" in src:
        return IPv6(src=src, dst=dst, hlim=ttl, tc=tos)
    return IP(src=src, dst=dst, ttl=ttl, id=ident, tos=tos, flags="DF" if df else 0)


def tcp(
    src: tuple[str, int],
    dst: tuple[str, int],
    *,
    seq: int,
    ack: int,
    flags: int,
    window: int,
    ident: int,
    options: list[tuple[str, Any]] | None = None,
    payload: bytes = b"",
    ttl: int = 64,
    df: bool = True,
) -> bytes:
    """Return a TCP segment, with DF set as Linux sends it.

    Written byte by byte (RFC 9293 3.1), as most packets are these, and scapy takes 0.4 ms for one.
    """
    body = bytearray(
        struct.pack(
            "!HHIIHHHH", src[1], dst[1], seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, 0, window, 0, 0
        )
        + _options(tuple(options or ()))
    )
    struct.pack_into("!H", body, 12, len(body) // 4 << 12 | flags)
    body += payload
    six = ":" in src[0]
    family = socket.AF_INET6 if six else socket.AF_INET
    addresses = socket.inet_pton(family, src[0]) + socket.inet_pton(family, dst[0])
    covered = addresses + struct.pack("!II", len(body), TCP_PROTO) + body
    struct.pack_into("!H", body, 16, checksum(covered))
    if six:
        return struct.pack("!IHBB", 6 << 28, len(body), TCP_PROTO, ttl) + addresses + body
    network = bytearray(
        struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), ident, df << 14, ttl, TCP_PROTO, 0)
        + addresses
    )
    struct.pack_into("!H", network, 10, checksum(network))
    return bytes(network + body)


def _options(options: tuple[tuple[str, Any], ...]) -> bytes:
    """Return TCP options, named as scapy names them, in whole words."""
    written = b""
    for name, value in options:
        match name:
            case "NOP":
                written += b"\1"
            case "MSS":
                written += struct.pack("!BBH", 2, 4, value)
            case "WScale":
                written += struct.pack("!BBB", 3, 3, value)
            case "SAckOK":
                written += struct.pack("!BB", 4, 2)
            case "SAck":
                written += struct.pack(f"!BB{len(value)}I", 5, 2 + 4 * len(value), *value)
            case "Timestamp":
                written += struct.pack("!BBII", 8, 10, *value)
            case _:
                raise ValueError(name)
    return written + bytes(-len(written) % 4)


def udp(
    src: tuple[str, int],
    dst: tuple[str, int],
    payload: bytes,
    *,
    ident: int = 0,
    df: bool = True,
    ttl: int = 64,
) -> bytes:
    """Return a UDP datagram."""
    network = _network(src[0], dst[0], ttl, ident, 0, df=df)
    return bytes(network / UDP(sport=src[1], dport=dst[1]) / Raw(payload))


def echo(
    src: str, dst: str, *, reply: bool, number: tuple[int, int], payload: bytes, ident: int
) -> bytes:
    """Return an ICMP(v6) echo request or reply; `number` is identifier and sequence."""
    if ":" in src:
        kind = ICMPv6EchoReply if reply else ICMPv6EchoRequest
        return bytes(
            IPv6(src=src, dst=dst, hlim=64) / kind(id=number[0], seq=number[1], data=payload)
        )
    network = _network(src, dst, 64, ident, 0, df=not reply)
    message = ICMP(type=0 if reply else 8, id=number[0], seq=number[1])
    return bytes(network / message / Raw(payload))


def icmp_error(
    src: str,
    dst: str,
    kind: tuple[int, int],
    offending: bytes,
    *,
    word: int = 0,
    ident: int = 0,
    ttl: int = 64,
    quote_len: int | None = None,
) -> bytes:
    """Return an ICMP(v6) error of (type, code) that quotes `offending` as Linux does.

    `word` is the second 32-bit word: next-hop MTU, gateway or pointer.
    """
    if ":" in src:
        quote = offending[: quote_len or QUOTE_V6]
        body = ICMPv6Unknown(type=kind[0], code=kind[1], msgbody=struct.pack("!I", word) + quote)
        return bytes(IPv6(src=src, dst=dst, hlim=ttl) / body)
    quote = offending[: quote_len or QUOTE_V4]
    message = bytearray(struct.pack("!BBHI", *kind, 0, word) + quote)
    struct.pack_into("!H", message, 2, checksum(message))
    network = _network(src, dst, ttl, ident, NETWORK_CONTROL, df=False)
    network.proto = ICMP_PROTO
    return bytes(network / Raw(bytes(message)))


def ipip(src: str, dst: str, inner: bytes, *, ident: int, df: bool) -> bytes:
    """Return `inner` behind an IPv4 header with the inner packet's TTL (ip_vs_tunnel_xmit)."""
    outer = _network(src, dst, read(inner).ttl, ident, inner[1], df=df)
    outer.proto = IPIP_PROTO
    return bytes(outer / Raw(inner))


def vrrp(src: str, vip: str, router_id: int, priority: int, ident: int) -> bytes:
    """Return a VRRP version 2 advertisement (RFC 3768), as keepalived sends it."""
    advertisement = VRRP(vrid=router_id, priority=priority, addrlist=[vip], adv=1)
    network = IP(src=src, dst="224.0.0.18", ttl=255, proto=112, id=ident, tos=NETWORK_CONTROL)
    return bytes(network / advertisement)


def arp(op: int, mac: str, address: str, target_mac: str, target: str) -> bytes:
    """Return an ARP message without its Ethernet header; op 1 asks, 2 answers."""
    return bytes(ARP(op=op, hwsrc=mac, psrc=address, hwdst=target_mac, pdst=target))


def neighbour_solicitation(mac: str, src: str, target: str, dst: str) -> bytes:
    """Return an ICMPv6 neighbour solicitation (RFC 4861 4.3)."""
    return bytes(
        IPv6(src=src, dst=dst, hlim=255)
        / ICMPv6ND_NS(tgt=target)
        / ICMPv6NDOptSrcLLAddr(lladdr=mac)
    )


def neighbour_advertisement(mac: str, target: str, dst: str) -> bytes:
    """Return an ICMPv6 neighbour advertisement (RFC 4861 4.4), solicited."""
    return bytes(
        IPv6(src=target, dst=dst, hlim=255)
        / ICMPv6ND_NA(tgt=target, R=0, S=1, O=1)
        / ICMPv6NDOptDstLLAddr(lladdr=mac)
    )


def ethernet(src: str, dst: str, ethertype: int, payload: bytes) -> bytes:
    """Return an Ethernet frame without padding or FCS."""
    return _ethernet_header(src, dst, ethertype) + payload


@cache
def _ethernet_header(src: str, dst: str, ethertype: int) -> bytes:
    return bytes(Ether(src=src, dst=dst, type=ethertype))


def transport_sum(data: bytes) -> int:
    """Return 0 where the checksum of a whole TCP or ICMP(v6) packet is right."""
    header = read(data)
    body = data[header.header_len : header.length]
    if header.proto == ICMP_PROTO:
        return checksum(body)
    addresses = data[8:40] if header.version == 6 else data[12:20]
    return checksum(addresses + struct.pack("!II", len(body), header.proto) + body)


def unwrap(value: int, near: int) -> int:
    """Return `value` plus the multiple of 2^32 that brings it next to `near`."""
    return near + ((value - near + (1 << 31)) % (1 << 32)) - (1 << 31)


def tcp_options(data: bytes) -> dict[str, Any]:
    """Return the TCP options that matter: mss, tsval, tsecr, sack."""
    found: dict[str, Any] = {}
    at = 0
    while at < len(data) and data[at]:
        if data[at] == 1:
            at += 1
            continue
        body = data[at + 2 : at + data[at + 1]]
        if data[at] == 2:
            found["mss"] = int.from_bytes(body, "big")
        elif data[at] == 8:
            found["tsval"] = int.from_bytes(body[:4], "big")
            found["tsecr"] = int.from_bytes(body[4:], "big")
        elif data[at] == 5:
            edges = [int.from_bytes(body[i : i + 4], "big") for i in range(0, len(body), 4)]
            found["sack"] = list(zip(edges[::2], edges[1::2], strict=True))
        at += data[at + 1]
    return found
