"""What an encapsulation costs, and which ones explain a path MTU between two bounds.

Overheads are those of the header chain between outer and inner IP packet; sources beside each row.
An inner MTU is the carrier's MTU less the overhead.
"""

from __future__ import annotations

from typing import Final, NamedTuple

ETHERNET_MTU: Final = 1500
"""Of the carriers that most paths consist of (RFC 894)."""


IPIP_OVERHEAD: Final = 20
"""What LVS-TUN adds by default (RFC 2003)."""


class Encapsulation(NamedTuple):
    """A way to wrap packets and the bytes it adds."""

    name: str
    overhead: int
    source: str


ENCAPSULATIONS: Final = (
    Encapsulation("802.1Q or one MPLS label on gear limited to 1500-byte frames", 4, "IEEE 802.1Q"),
    Encapsulation("PPPoE, QinQ or two MPLS labels", 8, "RFC 2516"),
    Encapsulation("PPPoE with a VLAN tag", 12, "RFC 2516"),
    Encapsulation("IPIP (LVS-TUN) or 6in4", 20, "RFC 2003, RFC 4213"),
    Encapsulation("GRE (LVS-TUN)", 24, "RFC 2784"),
    Encapsulation("GRE with a key or a checksum, or FOU over IPIP", 28, "RFC 2890"),
    Encapsulation("GUE (LVS-TUN) or GRE with key and sequence", 32, "ip_vs_xmit.c, RFC 2890"),
    Encapsulation("GTP-U", 36, "3GPP TS 29.281"),
    Encapsulation("GUE with remote checksum offload, or an IPv6 outer header", 40, "RFC 2473"),
    Encapsulation("VXLAN or Geneve over IPv4", 50, "RFC 7348, RFC 8926"),
    Encapsulation("IPsec ESP tunnel with AES-GCM", 54, "RFC 4303, RFC 4106"),
    Encapsulation("WireGuard over IPv4", 60, "WireGuard whitepaper section 5.4.6"),
    Encapsulation("IPsec ESP tunnel with AES-CBC and SHA-1 or SHA-256", 62, "RFC 4303, RFC 3602"),
    Encapsulation("IPsec ESP tunnel with AES-GCM through NAT", 62, "RFC 3948"),
    Encapsulation("VXLAN over IPv6, or VXLAN over IPIP", 70, "RFC 7348"),
    Encapsulation("IPsec ESP tunnel with AES-CBC through NAT", 78, "RFC 3948, RFC 3602"),
    Encapsulation("WireGuard over IPv6, its default", 80, "WireGuard whitepaper section 5.4.6"),
)


SURE_WIDTH: Final = 4
"""Bytes between the bounds up to which a single row is given as the answer: most rows lie four
bytes and more apart, and wider bounds leave room for what no row knows."""


MAX_NAMES: Final = 4
"""Rows that are named at once: bounds with more between them explain nothing."""


def explain_mtu(
    largest_delivered: int | None,
    smallest_lost: int,
    carrier: int = ETHERNET_MTU,
    own: Encapsulation | None = None,
) -> tuple[Encapsulation, ...]:
    """Return the encapsulations whose inner MTU lies in [largest_delivered, smallest_lost).

    Both are IP lengths in bytes; without a lower bound no row is named, since every one would fit.
    An MTU that needs no encapsulation (a carrier's own) is not explained here. `own` is known to be
    on the path: it comes first where it fits, in place of its row.
    """
    least = largest_delivered or 0
    found = [
        row
        for row in (ENCAPSULATIONS if largest_delivered is not None else ())
        if least <= carrier - row.overhead < smallest_lost
    ]
    if own is None or not least <= carrier - own.overhead < smallest_lost:
        return tuple(found)
    return (own, *(row for row in found if row.overhead != own.overhead))


def candidates(
    largest_delivered: int | None, smallest_lost: int, own: Encapsulation | None = None
) -> tuple[str, ...]:
    """Return the names of all rows between two bounds; where there are too many, of `own` alone."""
    found = explain_mtu(largest_delivered, smallest_lost, own=own)
    if len(found) > MAX_NAMES:
        found = tuple(row for row in found if row is own)
    return tuple(row.name for row in found)


def layers(mtu: int, own: Encapsulation | None = None) -> tuple[str, ...]:
    """Return the names of what leaves exactly `mtu` bytes of ETHERNET_MTU."""
    return tuple(row.name for row in explain_mtu(mtu, mtu + 1, own=own))


def worded(
    largest_delivered: int | None, smallest_lost: int, own: Encapsulation | None = None
) -> str:
    """Return a sentence about what explains an MTU between two bounds; "" where nothing does.

    One name alone is given for certain only where the bounds are at most SURE_WIDTH bytes apart.
    """
    names = candidates(largest_delivered, smallest_lost, own)
    if not names:
        return ""
    sure = largest_delivered is not None and smallest_lost - largest_delivered <= SURE_WIDTH
    if sure and len(names) == 1:
        return f"{names[0]} on a path of {ETHERNET_MTU} bytes leaves that much"
    return f"could be {', or '.join(names)}, on a path of {ETHERNET_MTU} bytes"


LVS_OVERHEADS: Final = {"ipip": 20, "gre": 24, "gue": 32}
"""Bytes that ip_vs_tunnel_xmit puts in front of a packet with an IPv4 outer header (GUE without
remote checksum offload, GRE without a checksum)."""

_OUTER_IPV6: Final = 20
"""How much longer an outer IPv6 header is (ip_vs_tunnel_xmit_v6)."""


def lvs_overhead(encapsulation: str | None, version: int) -> int:
    """Return the bytes that LVS-TUN adds by default; None is ipip, what ipvsadm takes unasked."""
    return LVS_OVERHEADS[encapsulation or "ipip"] + (_OUTER_IPV6 if version == 6 else 0)


def of_lvs(encapsulation: str, version: int) -> Encapsulation:
    """Return what a LVS-TUN director puts around the packets of a service."""
    overhead = lvs_overhead(encapsulation, version)
    name = f"the director's own {encapsulation.upper()} header ({overhead} bytes)"
    return Encapsulation(name, overhead, "ip_vs_tunnel_xmit")
