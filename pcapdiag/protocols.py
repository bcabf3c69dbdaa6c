"""Numbers on the wire and the names they go by. No layouts here: those stand in decode/."""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final


class EtherType(IntEnum):
    """IEEE 802 numbers that the decoder follows."""

    IPV4 = 0x0800
    ARP = 0x0806
    VLAN = 0x8100  # IEEE 802.1Q
    TEB = 0x6558  # transparent Ethernet bridging, inside GRE, VXLAN and Geneve
    IPV6 = 0x86DD
    PPPOE_SESSION = 0x8864  # RFC 2516
    QINQ = 0x88A8  # IEEE 802.1ad
    QINQ_OLD = 0x9100
    MPLS = 0x8847


class IpProto(IntEnum):
    """IANA protocol numbers, and IPv6 extension headers, which share the number space."""

    HOP_BY_HOP = 0
    ICMP = 1
    IPIP = 4
    TCP = 6
    UDP = 17
    IPV6 = 41
    ROUTING = 43
    FRAGMENT = 44
    GRE = 47
    ESP = 50
    AH = 51
    ICMPV6 = 58
    NO_NEXT = 59
    DEST_OPTIONS = 60
    VRRP = 112
    SCTP = 132
    MOBILITY = 135
    HIP = 139
    SHIM6 = 140


class TcpFlag(IntFlag):
    """TCP header flags (RFC 9293 section 3.1), as in Wireshark's tcp.flags."""

    FIN = 0x01
    SYN = 0x02
    RST = 0x04
    PSH = 0x08
    ACK = 0x10
    URG = 0x20
    ECE = 0x40
    CWR = 0x80
    AE = 0x100


class IcmpType(IntEnum):
    """ICMP for IPv4 (RFC 792)."""

    ECHO_REPLY = 0
    UNREACHABLE = 3
    SOURCE_QUENCH = 4
    REDIRECT = 5
    ECHO_REQUEST = 8
    TIME_EXCEEDED = 11
    PARAMETER_PROBLEM = 12


class Icmpv6Type(IntEnum):
    """ICMPv6 (RFC 4443) and neighbour discovery (RFC 4861)."""

    UNREACHABLE = 1
    PACKET_TOO_BIG = 2
    TIME_EXCEEDED = 3
    PARAMETER_PROBLEM = 4
    ECHO_REQUEST = 128
    ECHO_REPLY = 129
    NEIGHBOR_SOLICITATION = 135
    NEIGHBOR_ADVERTISEMENT = 136
    REDIRECT = 137


FRAG_NEEDED: Final = 4
"""ICMP type 3 code 4 (RFC 1191)."""

ICMP_ERRORS: Final = frozenset({3, 4, 5, 11, 12})
"""IPv4 types that quote the packet they are about (RFC 1122 section 3.2.2)."""

ICMP_ERRORS_FORWARDED_BY_IPVS: Final = frozenset({3, 4, 11})
"""Types that ip_vs_in_icmp looks up; redirects and parameter problems stay with the director."""

ICMPV6_ERROR_LIMIT: Final = 128
"""ICMPv6 types below this are errors (RFC 4443 section 2.1)."""

PROHIBITED_CODES: Final = frozenset({9, 10, 13})
"""Codes of ICMP type 3 that say "administratively prohibited" (RFC 1812 section 5.2.7.1)."""

ICMPV6_PROHIBITED_CODE: Final = 1
"""Code of ICMPv6 type 1 that says the same (RFC 4443 section 3.1)."""

UDP_PORT_VXLAN: Final = 4789  # RFC 7348
UDP_PORT_GENEVE: Final = 6081  # RFC 8926
UDP_PORT_GUE: Final = 6080  # what ipvsadm's GUE examples and the kernel's fou use
UDP_PORT_IPVS_SYNC: Final = 8848  # IP_VS_SYNC_PORT

VRRP_MAC_V4: Final = 0x00005E000100
"""Virtual router MAC of VRID 0 for IPv4; the VRID is the last byte (RFC 9568 section 7.3)."""
VRRP_MAC_V6: Final = 0x00005E000200

IPV4_MIN_MTU: Final = 68  # RFC 791
IPV6_MIN_MTU: Final = 1280  # RFC 8200 section 5

_PROTO_NAMES: Final = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}

_ICMP_NAMES: Final = {
    (3, 0): "network unreachable",
    (3, 1): "host unreachable",
    (3, 2): "protocol unreachable",
    (3, 3): "port unreachable",
    (3, 4): "fragmentation needed",
    (3, 5): "source route failed",
    (3, 6): "destination network unknown",
    (3, 7): "destination host unknown",
    (3, 9): "network administratively prohibited",
    (3, 10): "host administratively prohibited",
    (3, 13): "communication administratively prohibited",
    (4, 0): "source quench",
    (5, 0): "redirect for network",
    (5, 1): "redirect for host",
    (5, 2): "redirect for service and network",
    (5, 3): "redirect for service and host",
    (11, 0): "time to live exceeded",
    (11, 1): "fragment reassembly time exceeded",
    (12, 0): "parameter problem",
}

_ICMPV6_NAMES: Final = {
    (1, 0): "no route to destination",
    (1, 1): "communication administratively prohibited",
    (1, 2): "beyond scope of source address",
    (1, 3): "address unreachable",
    (1, 4): "port unreachable",
    (1, 5): "source address failed policy",
    (1, 6): "reject route",
    (2, 0): "packet too big",
    (3, 0): "hop limit exceeded",
    (3, 1): "fragment reassembly time exceeded",
    (4, 0): "parameter problem",
    (137, 0): "redirect",
}


def proto_name(number: int) -> str:
    """Return "tcp", "udp", ... or the number itself as text."""
    return _PROTO_NAMES.get(number, str(number))


def icmp_name(version: int, icmp_type: int, code: int) -> str:
    """Return an ICMP message in words, with its numbers: "fragmentation needed (3/4)"."""
    names = _ICMP_NAMES if version == 4 else _ICMPV6_NAMES
    words = names.get((icmp_type, code), "ICMP" if version == 4 else "ICMPv6")
    return f"{words} ({icmp_type}/{code})"
