"""Blocks of pcapng that say something beside packets: sections, interfaces, counters, others.

Format: draft-ietf-opsawg-pcapng section 4. Which contents end the reading: wiretap/pcapng.c.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Final

from pcapdiag.capture import options
from pcapdiag.capture.frames import Interface
from pcapdiag.capture.options import BadBlock
from pcapdiag.capture.timestamps import DEFAULT_TSRESOL
from pcapdiag.text import clean

SECTION: Final = 0x0A0D0D0A
INTERFACE: Final = 1
PACKET: Final = 2
"""Obsolete."""
SIMPLE_PACKET: Final = 3
NAMES: Final = 4
STATISTICS: Final = 5
ENHANCED_PACKET: Final = 6
JOURNAL: Final = 9
"""An entry of the systemd journal."""
SECRETS: Final = 10
CUSTOM: Final = 0xBAD
CUSTOM_NO_COPY: Final = 0x40000BAD
SYSDIG: Final = 0x204
SYSDIG_V2: Final = 0x216
SYSDIG_V2_LARGE: Final = 0x221

PACKETS: Final = (PACKET, SIMPLE_PACKET, ENHANCED_PACKET)
NUMBERED: Final = (JOURNAL, CUSTOM, CUSTOM_NO_COPY, SYSDIG, SYSDIG_V2, SYSDIG_V2_LARGE)
"""Blocks that Wireshark numbers as frames although they hold no packet."""

LOOKED_INTO: Final = (SECTION, INTERFACE, NAMES, STATISTICS, SECRETS, *NUMBERED)
"""Blocks without a packet whose contents mean something, if only that they cannot be."""

ISB_IFRECV: Final = 4
ISB_DROPS: Final = (5, 7)
"""isb_ifdrop and isb_osdrop: what the interface and what the operating system lost."""

MIN_BYTES: Final = {
    SECTION: 28,
    INTERFACE: 20,
    PACKET: 32,
    SIMPLE_PACKET: 16,
    NAMES: 16,
    STATISTICS: 24,
    ENHANCED_PACKET: 32,
    JOURNAL: 35,
    SECRETS: 20,
    CUSTOM: 16,
    CUSTOM_NO_COPY: 16,
    SYSDIG: 36,
    SYSDIG_V2: 40,
    SYSDIG_V2_LARGE: 40,
}
"""Smallest total length of a block, its fixed fields and both length fields included."""

MIN_BLOCK_BYTES: Final = 12
MAX_BLOCK_BYTES: Final = 32 + (128 << 20) + 131072
"""Largest block that Wireshark reads: a packet of 128 MiB with 128 KiB of options."""

BYTE_ORDER_MAGIC: Final = 0x1A2B3C4D
BIG_ENDIAN: Final = BYTE_ORDER_MAGIC.to_bytes(4, "big")
LITTLE_ENDIAN: Final = BYTE_ORDER_MAGIC.to_bytes(4, "little")

MAX_COMMENTS: Final = 10
"""Comments that are kept of one section, and of all packets of a file."""

_NETFLIX: Final = 10949
"""Private enterprise number of the one custom block whose contents Wireshark looks into."""
_NETFLIX_EVENT: Final = 1
_NETFLIX_SKIP: Final = 2

_REALTIME: Final = re.compile(rb"__REALTIME_TIMESTAMP=(\d{1,20})")
_MIN_JOURNAL_ENTRY: Final = 23


@dataclass(slots=True)
class InterfaceBlock:
    """An interface while its capture is read: counters come later than the description."""

    index: int
    linktype: int
    snaplen: int
    name: str | None = None
    description: str | None = None
    filter: str | None = None
    tsresol: int = DEFAULT_TSRESOL
    tsoffset: int = 0
    fcs_len: int = 0
    """Bytes."""
    dropped: int | None = None
    received: int | None = None
    comment: str | None = None
    lost_before_packets: int | None = None
    """Sum of the drop counts that stand with packets."""

    def freeze(self) -> Interface:
        """Return what CaptureInfo says of it."""
        return Interface(
            index=self.index,
            name=self.name,
            description=self.description,
            linktype=self.linktype,
            snaplen=self.snaplen or None,
            filter=self.filter,
            dropped=self.lost_before_packets if self.dropped is None else self.dropped,
            received=self.received,
        )


def section(data: memoryview, start: int, end: int, big: bool) -> list[str]:
    """Return the comments of a Section Header Block in `data[start:end]`; may raise BadBlock."""
    major, minor = struct.unpack_from(_order(big) + "HH", data, start + 12)
    if major != 1 or minor not in {0, 2}:
        raise BadBlock(f"pcapng version {major}.{minor}, expected 1.0 or 1.2")
    found: list[str] = []
    for code, at, length in options.each(data, start + 24, end - 4, big):
        if code == options.COMMENT and length and len(found) < MAX_COMMENTS:
            found.append(_text(data, at, length))
    return found


def interface(data: memoryview, start: int, end: int, big: bool, index: int) -> InterfaceBlock:
    """Return the interface that `data[start:end]` describes; may raise BadBlock."""
    order = _order(big)
    linktype, _, snaplen = struct.unpack_from(order + "HHI", data, start + 8)
    found = InterfaceBlock(index, linktype, snaplen)
    seen: set[int] = set()
    for code, at, length in options.each(data, start + 16, end - 4, big):
        if code == 11 and length < 1:
            raise BadBlock("an interface filter option is empty")
        if code in seen:  # of a repeated option the first counts
            continue
        seen.add(code)
        if code == options.COMMENT:
            found.comment = _text(data, at, length)
        elif code == 2:
            found.name = _text(data, at, length) or None
        elif code == 3:
            found.description = _text(data, at, length) or None
        elif code == 9 and length == 1:
            found.tsresol = data[at]
        elif code == 11 and data[at] == 0:
            found.filter = _text(data, at + 1, length - 1) or None
        elif code == 13 and length == 1:
            found.fcs_len = fcs_bytes(data[at])
        elif code == 14 and length == 8:
            found.tsoffset = struct.unpack_from(order + "q", data, at)[0]
        else:
            seen.discard(code)
    return found


def fcs_bytes(bits: int) -> int:
    """Return the bytes of an if_fcslen: bits by definition, but small values are bytes."""
    return bits if bits < 8 else bits // 8


def statistics(data: memoryview, start: int, end: int, big: bool) -> tuple[int, dict[int, int]]:
    """Return interface (within the section) and counters by option code; may raise BadBlock."""
    order = _order(big)
    counters: dict[int, int] = {}
    for code, at, length in options.each(data, start + 20, end - 4, big):
        if length == 8:
            counters.setdefault(code, struct.unpack_from(order + "Q", data, at)[0])
    return struct.unpack_from(order + "I", data, start + 8)[0], counters


def names(data: memoryview, start: int, end: int, big: bool) -> None:
    """Hold the records of a Name Resolution Block against its length; may raise BadBlock."""
    header = struct.Struct(_order(big) + "HH")
    at, stop = start + 8, end - 4
    while at < stop:
        kind, length = header.unpack_from(data, at)
        at += 4
        padded = length + 3 & ~3
        if padded > stop - at:
            raise BadBlock(f"a name record of {length} bytes has {stop - at} bytes left")
        if length < {1: 4, 2: 16}.get(kind, 0):
            raise BadBlock(f"a name record of {length} bytes cannot hold its address")
        if kind == 0:
            break
        at += padded
    for _ in options.each(data, at, stop, big):
        pass


def secrets(data: memoryview, start: int, end: int, big: bool) -> None:
    """Hold the length of a Decryption Secrets Block's contents against it; may raise BadBlock."""
    length = struct.unpack_from(_order(big) + "I", data, start + 12)[0]
    if length > end - start - 20:
        raise BadBlock(f"secrets of {length} bytes in a block of {end - start}")


def custom(data: memoryview, start: int, end: int, big: bool) -> None:
    """Hold a Custom Block against what Wireshark expects of it; may raise BadBlock."""
    if struct.unpack_from(_order(big) + "I", data, start + 8)[0] != _NETFLIX:
        return
    if end - start < 20:
        raise BadBlock(f"a Netflix block of {end - start} bytes, at least 20 are needed")
    kind = struct.unpack_from("<I", data, start + 12)[0]
    if kind not in {_NETFLIX_EVENT, _NETFLIX_SKIP}:
        raise BadBlock(f"a Netflix block of unknown type {kind}")
    if kind == _NETFLIX_SKIP and end - start < 24:
        raise BadBlock(f"a Netflix block of {end - start} bytes, at least 24 are needed")
    for code, _, _ in options.each(
        data, start + (20 if kind == _NETFLIX_SKIP else 16), end - 4, False
    ):
        if code != options.COMMENT and code not in options.CUSTOM:
            raise BadBlock(f"a Netflix block with an unknown option {code}")


def journal(data: memoryview, start: int, end: int) -> int | None:
    """Return the time in ns of a systemd journal entry, None without; may raise BadBlock."""
    entry = bytes(data[start + 8 : end - 4]).rstrip(b"\0")
    if len(entry) < _MIN_JOURNAL_ENTRY:
        raise BadBlock(f"a journal entry of {len(entry)} bytes, {_MIN_JOURNAL_ENTRY} are needed")
    found = _REALTIME.search(entry.partition(b"\0")[0])
    microseconds = int(found[1]) if found else None
    if microseconds is None or microseconds >= 1 << 53:
        return None
    return microseconds * 1000


def sysdig(data: memoryview, start: int, big: bool) -> int | None:
    """Return the time in ns of a sysdig event; None where it is beyond int64."""
    time = struct.unpack_from(_order(big) + "Q", data, start + 10)[0]
    return time if time < 1 << 63 else None


def packet_comment(data: memoryview, begin: int, end: int, big: bool) -> str | None:
    """Return the first comment among a packet's options."""
    for code, at, length in options.each(data, begin, end, big):
        if code == options.COMMENT:
            return _text(data, at, length)
    return None


def _text(data: memoryview, at: int, length: int) -> str:
    return clean(bytes(data[at : at + length]).partition(b"\0")[0].decode("utf-8", "replace"))


def _order(big: bool) -> str:
    return ">" if big else "<"
