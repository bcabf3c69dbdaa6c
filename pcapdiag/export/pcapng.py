"""Frames to a pcapng file (draft-ietf-opsawg-pcapng): one section, little-endian, nanoseconds."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import BinaryIO

_SECTION, _INTERFACE, _NAMES, _PACKET = 0x0A0D0D0A, 1, 4, 6
_BYTE_ORDER: Final = 0x1A2B3C4D
_COMMENT, _APPLICATION, _NAME, _DESCRIPTION, _RESOLUTION = 1, 4, 2, 3, 9
_NANOSECONDS: Final = b"\x09"  # if_tsresol: 10 to the power of -9
_IPV4_RECORD, _IPV6_RECORD = 1, 2
_MAX_OPTION: Final = 0xFFFF - 3
"""Bytes of an option's value: its length has 16 bits, and padding must not exceed them."""
_MAX_NAME: Final = 255


class OutInterface(NamedTuple):
    """Where frames of one link type were captured."""

    name: str
    description: str
    linktype: int


class OutFrame(NamedTuple):
    """A frame to be written; `wire_len` counts the bytes that it had, not those that are kept."""

    interface: int
    time_ns: int
    data: bytes
    wire_len: int
    comments: tuple[str, ...] = ()


def write(
    file: BinaryIO,
    interfaces: Sequence[OutInterface],
    frames: Iterable[OutFrame],
    *,
    application: str,
    comment: str = "",
    names: Sequence[tuple[str, str]] = (),
) -> None:
    """Write one section; `names` are (address, host name), shown as Wireshark shows its own.

    `OutFrame.interface` is an index into `interfaces`. pcapng's times are unsigned: what lies
    before 1970 is written as 1970.
    """
    head = struct.pack("<IHHq", _BYTE_ORDER, 1, 0, -1)
    about = [(_COMMENT, comment), (_APPLICATION, application)]
    file.write(_block(_SECTION, head + _options(about)))
    for item in interfaces:
        options = _options([(_NAME, item.name), (_DESCRIPTION, item.description)], _NANOSECONDS)
        file.write(_block(_INTERFACE, struct.pack("<HHI", item.linktype, 0, 0) + options))
    if names:
        file.write(_block(_NAMES, b"".join(_record(*each) for each in names) + bytes(4)))
    for frame in frames:
        time_ns = max(0, frame.time_ns)
        fixed = struct.pack(
            "<IIIII",
            frame.interface,
            time_ns >> 32,
            time_ns & 0xFFFF_FFFF,
            len(frame.data),
            min(frame.wire_len, 0xFFFF_FFFF),
        )
        comments = _options([(_COMMENT, text) for text in frame.comments])
        file.write(_block(_PACKET, fixed + _padded(frame.data) + comments))


def _block(kind: int, body: bytes) -> bytes:
    length = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + length + body + length


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _options(texts: Iterable[tuple[int, str]], resolution: bytes = b"") -> bytes:
    found = [(code, text.encode()[:_MAX_OPTION]) for code, text in texts if text]
    if resolution:
        found.append((_RESOLUTION, resolution))
    if not found:
        return b""
    written = [struct.pack("<HH", code, len(data)) + _padded(data) for code, data in found]
    return b"".join(written) + bytes(4)


def _record(address: str, name: str) -> bytes:
    packed = ip_address(address).packed
    kind = _IPV4_RECORD if len(packed) == 4 else _IPV6_RECORD
    value = packed + name.encode()[:_MAX_NAME] + b"\0"
    return struct.pack("<HH", kind, len(value)) + _padded(value)
