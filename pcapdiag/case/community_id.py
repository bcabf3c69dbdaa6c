"""Community ID v1: a flow hash that Zeek, Suricata and Wireshark compute alike.

Source: the Community ID specification, version 1.0.
"""

from __future__ import annotations

import base64
import hashlib
import struct

from pcapdiag.addresses import V4_MAPPED
from pcapdiag.protocols import IpProto

_SEED = 0


def community_id(
    ip_proto: int,
    src: tuple[int, int],
    dst: tuple[int, int],
    src_port: int | None,
    dst_port: int | None,
) -> str | None:
    """Return "1:..." for TCP, UDP and SCTP, None for what has no ports."""
    if src_port is None or dst_port is None:
        return None
    if ip_proto not in (IpProto.TCP, IpProto.UDP, IpProto.SCTP):
        return None
    ends = sorted(((_octets(src), src_port), (_octets(dst), dst_port)))
    (first, first_port), (second, second_port) = ends
    packed = (
        struct.pack("!H", _SEED)
        + first
        + second
        + struct.pack("!BBHH", ip_proto, 0, first_port, second_port)
    )
    digest = hashlib.sha1(packed, usedforsecurity=False).digest()
    return "1:" + base64.b64encode(digest).decode()


def _octets(address: tuple[int, int]) -> bytes:
    hi, lo = address
    if hi == 0 and lo & V4_MAPPED == V4_MAPPED and lo >> 48 == 0:
        return struct.pack("!I", lo & 0xFFFF_FFFF)
    return struct.pack("!QQ", hi, lo)
