"""Fragments: IPv4 packets cut to an MTU (ip_do_fragment), and put together again (ip_defrag)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from . import wire
from .checksums import checksum
from .clock import seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from .clock import Clock

MORE: Final = 0x2000
OFFSET: Final = 0x1FFF
WAIT_S: Final = 30  # net.ipv4.ipfrag_time


def is_fragment(data: bytes) -> bool:
    """Whether the packet is a part of one."""
    return data[0] >> 4 == 4 and bool(_field(data) & (MORE | OFFSET))


def split(data: bytes, mtu: int) -> list[bytes]:
    """Return the IPv4 packet in parts of at most `mtu` bytes; as it is where it fits or has DF."""
    header = wire.read(data)
    if header.length <= mtu or header.df or header.version == 6:
        return [data]
    size = (mtu - header.header_len) // 8 * 8
    body = data[header.header_len : header.length]
    begun, more = _field(data) & OFFSET, _field(data) & MORE
    parts = []
    for at in range(0, len(body), size):
        last = at + size >= len(body)
        flags = begun + at // 8 | (more if last else MORE)
        parts.append(_packet(data[: header.header_len], body[at : at + size], flags))
    return parts


def _field(data: bytes) -> int:
    return int(struct.unpack_from("!H", data, 6)[0])


def _packet(header: bytes, body: bytes, flags: int) -> bytes:
    packet = bytearray(header)
    struct.pack_into("!H", packet, 2, len(header) + len(body))
    struct.pack_into("!H", packet, 6, flags)
    packet[10:12] = b"\0\0"
    struct.pack_into("!H", packet, 10, checksum(packet))
    return bytes(packet) + body


@dataclass
class Reassembly:
    """What a host waits for; `expired` is told of a first fragment whose others never came."""

    clock: Clock
    expired: Callable[[bytes], None]
    waiting: dict[tuple[bytes, int, int], dict[int, bytes]] = field(default_factory=dict)

    def add(self, data: bytes) -> bytes | None:
        """Take a fragment; return the whole packet with the one that completes it."""
        header = wire.read(data)
        key = (data[12:20], header.proto, header.ident)
        if key not in self.waiting:
            self.waiting[key] = {}
            self.clock.at(self.clock.now + seconds(WAIT_S), lambda: self._give_up(key))
        parts = self.waiting[key]
        parts[(_field(data) & OFFSET) * 8] = data
        body = b""
        while len(body) in parts:
            part = parts[len(body)]
            body += part[header.header_len : wire.read(part).length]
            if not _field(part) & MORE:
                del self.waiting[key]
                return _packet(parts[0][: header.header_len], body, 0)
        return None

    def _give_up(self, key: tuple[bytes, int, int]) -> None:
        first = self.waiting.pop(key, {}).get(0)
        if first is not None:
            self.expired(first)
