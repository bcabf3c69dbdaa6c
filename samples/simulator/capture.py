"""What a tap saw, and the files it becomes."""

from __future__ import annotations

import gzip
import io
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from . import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ETHERNET: Final = 1
IPV4: Final = 0x0800
IPV6: Final = 0x86DD
SNAPLEN: Final = 262_144  # tcpdump's default


@dataclass(frozen=True, slots=True)
class Seen:
    """One frame of a tap, with its IP header where it has one."""

    number: int
    time_ns: int
    eth_src: str
    eth_dst: str
    frame: bytes
    ip: wire.Header | None


@dataclass
class Tap:
    """Frames of one interface in the order they passed; `clock_error_ns` is the host's clock."""

    clock_error_ns: int = 0
    frames: list[tuple[int, bytes]] = field(default_factory=list)

    def add(self, time_ns: int, frame: bytes) -> None:
        """Take down a frame at the true time."""
        self.frames.append((time_ns + self.clock_error_ns, frame))

    def seen(self) -> Iterator[Seen]:
        """Iterate over the frames with Wireshark's numbers."""
        for number, (time_ns, frame) in enumerate(self.frames, 1):
            ethertype = int.from_bytes(frame[12:14], "big")
            header = wire.read(frame[14:]) if ethertype in {IPV4, IPV6} else None
            yield Seen(number, time_ns, frame[6:12].hex(":"), frame[:6].hex(":"), frame, header)

    def numbers(self, wanted: Callable[[Seen], bool]) -> list[int]:
        """Return the numbers of the frames that `wanted` likes."""
        return [item.number for item in self.seen() if wanted(item)]


def write(
    path: Path, tap: Tap, *, interface: str, snaplen: int = SNAPLEN, dropped: int = 0
) -> None:
    """Write a capture; the file name says how: `.pcapng` or `.pcap`, `.gz` around it.

    pcap has microseconds as tcpdump writes them, pcapng nanoseconds and the drop counters.
    """
    name = path.name.removesuffix(".gz")
    build = _pcapng if name.endswith(".pcapng") else _pcap
    data = build(tap, interface, snaplen, dropped)
    if path.suffix == ".gz":
        packed = io.BytesIO()
        with gzip.GzipFile(filename="", fileobj=packed, mode="wb", mtime=0) as file:
            file.write(data)
        data = packed.getvalue()
    path.write_bytes(data)


def _pcap(tap: Tap, _interface: str, snaplen: int, _dropped: int) -> bytes:
    parts = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, snaplen, ETHERNET)]
    for time_ns, frame in tap.frames:
        second, fraction = divmod(time_ns, 10**9)
        kept = frame[:snaplen]
        parts.append(struct.pack("<IIII", second, fraction // 1000, len(kept), len(frame)))
        parts.append(kept)
    return b"".join(parts)


def _block(kind: int, body: bytes) -> bytes:
    body += b"\0" * (-len(body) % 4)
    length = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + length + body + length


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + b"\0" * (-len(value) % 4)


def _pcapng(tap: Tap, interface: str, snaplen: int, dropped: int) -> bytes:
    end = _option(0, b"")
    section = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)
    described = _option(2, interface.encode()) + _option(9, b"\x09") + end  # if_tsresol: 10^-9
    parts = [
        _block(0x0A0D0D0A, section + _option(4, b"samples/make.py") + end),
        _block(1, struct.pack("<HHI", ETHERNET, 0, snaplen) + described),
    ]
    for time_ns, frame in tap.frames:
        kept = frame[:snaplen]
        fixed = struct.pack("<IIIII", 0, time_ns >> 32, time_ns & 0xFFFFFFFF, len(kept), len(frame))
        parts.append(_block(6, fixed + kept))
    last = tap.frames[-1][0] if tap.frames else 0
    received = struct.pack("<Q", len(tap.frames) + dropped)
    counters = _option(4, received) + _option(5, struct.pack("<Q", dropped)) + end
    parts.append(_block(5, struct.pack("<III", 0, last >> 32, last & 0xFFFFFFFF) + counters))
    return b"".join(parts)
