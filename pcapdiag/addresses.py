"""IP and MAC addresses as integers, and back to text.

Tables hold an IP address as two UInt64 columns, `*_hi` and `*_lo`: the 128 bits of an IPv6
address, or an IPv4 address in its mapped form ::ffff:a.b.c.d (RFC 4291 section 2.5.5.2), so that
one pair of columns serves both. `ip_version` tells which was on the wire. A MAC is one UInt64.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

V4_MAPPED = 0xFFFF_0000_0000
"""The low 64 bits of ::ffff:0.0.0.0; an IPv4 address is added to it."""

_MASK64 = (1 << 64) - 1


def pack_ip(text: str) -> tuple[int, int]:
    """Return (hi, lo) of an address in text; ValueError where it is none."""
    address = ipaddress.ip_address(text)
    value = int(address)
    if address.version == 4:
        return 0, V4_MAPPED | value
    return value >> 64, value & _MASK64


def ip_text(hi: int, lo: int) -> str:
    """Return the text of an address: dotted for the mapped form, RFC 5952 otherwise."""
    if hi == 0 and lo >> 32 == 0xFFFF:
        return str(ipaddress.IPv4Address(lo & 0xFFFF_FFFF))
    return str(ipaddress.IPv6Address((hi << 64) | lo))


def endpoint_text(hi: int, lo: int, port: int | None) -> str:
    """Return "192.0.2.1:80" or "[2001:db8::1]:80", or the bare address where `port` is None."""
    address = ip_text(hi, lo)
    if port is None:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def pack_mac(text: str) -> int:
    """Return a MAC such as "02:00:00:00:00:01" as an integer; ValueError where it is none."""
    parts = text.strip().replace("-", ":").split(":")
    if len(parts) != 6 or not all(1 <= len(part) <= 2 for part in parts):
        raise ValueError(f"{text!r} is not a MAC address")
    return int("".join(part.zfill(2) for part in parts), 16)


def mac_text(mac: int) -> str:
    """Return the text of a MAC, lower case with colons."""
    return mac.to_bytes(6, "big").hex(":")


def ip_texts(hi: NDArray[np.uint64], lo: NDArray[np.uint64]) -> list[str]:
    """Return the texts of many addresses; each distinct address is formatted once."""
    pairs = np.empty(len(hi), dtype=[("hi", np.uint64), ("lo", np.uint64)])
    pairs["hi"], pairs["lo"] = hi, lo
    distinct, where = np.unique(pairs, return_inverse=True)
    texts = [ip_text(int(pair["hi"]), int(pair["lo"])) for pair in distinct]
    return [texts[index] for index in where]
