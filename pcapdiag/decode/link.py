"""Link headers: from a frame's first byte to its network layer.

Ethernet (IEEE 802.3), PPP (RFC 1661), Cisco HDLC, Linux cooked captures (LINKTYPE_LINUX_SLL and
_SLL2), raw IP and the BSD loopback; what tags.py steps over behind them. Of other link types scapy
is asked, see rare_link.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from pcapdiag.decode import tags
from pcapdiag.decode.columns import Columns
from pcapdiag.decode.tags import TagWalk
from pcapdiag.decode_note import DecodeNote

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from pcapdiag.decode.columns import U8, U16, U32, U64, Bools, Offsets, Rows
    from pcapdiag.decode.fetch import Bytes

IN, OUT, OTHER = 1, 2, 3
"""Codes of directions in arrays: the position in schema.DIRECTIONS plus 1, 0 where unknown."""


@dataclass(slots=True)
class Link(Columns):
    """Columns of the link header; zero where not there."""

    version: U8
    """What begins at `start`: 4 or 6 for IP, 1 for ARP, 0 for nothing that is decoded."""
    start: Offsets
    eth_src: U64
    has_src: Bools
    eth_dst: U64
    has_dst: Bools
    ethertype: U16
    has_type: Bools
    tags: U8
    vlan: U16
    vlan_inner: U16
    direction: U8
    note: U32


def decode(
    source: Bytes, out: Link, linktype: int, rows: Rows, start: Offsets, kept: Offsets
) -> bool:
    """Decode the link headers of `rows`, all of `linktype`; False where the type is not known."""
    reader = _READERS.get(linktype)
    if reader is None:
        return False
    reader(source, out, rows, start, kept)
    return True


def _ethernet(source: Bytes, out: Link, rows: Rows, start: Offsets, kept: Offsets) -> None:
    window = source.window(start, kept, 16)
    whole = window.kept >= 14
    out.eth_dst[rows] = window.mac(0)
    out.eth_src[rows] = window.mac(6)
    out.has_src[rows] = whole
    out.has_dst[rows] = whole
    _follow(source, out, rows, window.u16(12), whole, start + 14, kept)


def _sll(source: Bytes, out: Link, rows: Rows, start: Offsets, kept: Offsets) -> None:
    window = source.window(start, kept, 16)
    _cooked(out, rows, window.kept >= 16, window.u16(0), window.u16(4), window.mac(6))
    _follow(source, out, rows, window.u16(14), window.kept >= 16, start + 16, kept)


def _sll2(source: Bytes, out: Link, rows: Rows, start: Offsets, kept: Offsets) -> None:
    window = source.window(start, kept, 24)
    _cooked(out, rows, window.kept >= 20, window.u8(10), window.u8(11), window.mac(12))
    _follow(source, out, rows, window.u16(0), window.kept >= 20, start + 20, kept)


_SLL_DIRECTIONS: Final = np.array([IN, IN, IN, OTHER, OUT, 0], dtype=np.uint8)
"""By packet type: to us, broadcast, multicast, to another host, sent by us."""


def _cooked(
    out: Link,
    rows: Rows,
    whole: Bools,
    packet_type: NDArray[np.integer],
    address_len: NDArray[np.integer],
    address: U64,
) -> None:
    """Write what both Linux cooked headers hold: the sender's address and the direction."""
    out.eth_src[rows] = address
    out.has_src[rows] = whole & (address_len == 6)
    known = _SLL_DIRECTIONS[np.minimum(packet_type, len(_SLL_DIRECTIONS) - 1)]
    out.direction[rows] = np.where(whole, known, np.uint8(0))


def _raw(source: Bytes, out: Link, rows: Rows, start: Offsets, kept: Offsets) -> None:
    version = tags.version_at(source, start, kept)
    version[version == 0] = 4  # whose decoder then says what is wrong with it
    _put(out, rows, version, start, kept > start)


def _raw_v4(_source: Bytes, out: Link, rows: Rows, start: Offsets, kept: Offsets) -> None:
    _put(out, rows, np.full(len(start), 4, dtype=np.uint8), start, kept > start)


def _raw_v6(_source: Bytes, out: Link, rows: Rows, start: Offsets, kept: Offsets) -> None:
    _put(out, rows, np.full(len(start), 6, dtype=np.uint8), start, kept > start)


_FAMILIES: Final = {2: 4, 10: 6, 23: 6, 24: 6, 28: 6, 30: 6}
"""AF_INET, and AF_INET6 of Linux, Windows, NetBSD and OpenBSD, FreeBSD, macOS."""


def _loopback(source: Bytes, out: Link, rows: Rows, start: Offsets, kept: Offsets) -> None:
    """Read the family in either byte order: LINKTYPE_NULL has the capturing host's."""
    window = source.window(start, kept, 8)
    big = window.u32(0)
    family = np.where(big > 0xFFFF, big.byteswap(), big)
    version = np.zeros(len(big), dtype=np.uint8)
    for number, what in _FAMILIES.items():
        version[family == number] = what
    _put(out, rows, version, start + 4, window.kept >= 4)


def _ppp(source: Bytes, out: Link, rows: Rows, start: Offsets, kept: Offsets) -> None:
    begin, version, cut = tags.ppp_inside(source, start, kept)
    _put(out, rows, version, begin, ~cut)


def _ppp_with_direction(
    source: Bytes, out: Link, rows: Rows, start: Offsets, kept: Offsets
) -> None:
    """Read the byte that LINKTYPE_PPP_WITH_DIR puts before PPP: 0 for received."""
    window = source.window(start, kept, 8)
    direction = np.where(window.u8(0) == 0, np.uint8(IN), np.uint8(OUT))
    out.direction[rows] = np.where(window.kept > 0, direction, np.uint8(0))
    _ppp(source, out, rows, start + 1, kept)


def _serial(source: Bytes, out: Link, rows: Rows, start: Offsets, kept: Offsets) -> None:
    """Read PPP in HDLC-like framing (RFC 1662), or Cisco HDLC, which looks much the same."""
    window = source.window(start, kept, 8)
    cisco = (window.u16(0) == 0x0F00) | (window.u16(0) == 0x8F00)
    places = np.arange(len(out.version))[rows]
    some = np.flatnonzero(~cisco)
    _ppp(source, out, places[some], start[some], kept[some])
    some = np.flatnonzero(cisco)
    whole = window.kept[some] >= 4
    _follow(source, out, places[some], window.u16(2)[some], whole, start[some] + 4, kept[some])


def _pppoe(source: Bytes, out: Link, rows: Rows, start: Offsets, kept: Offsets) -> None:
    begin, version, cut = tags.ppp_inside(source, start + 6, kept)
    _put(out, rows, version, begin, ~cut)


_READERS: Final[dict[int, Callable[[Bytes, Link, Rows, Offsets, Offsets], None]]] = {
    0: _loopback,
    1: _ethernet,
    9: _ppp,
    12: _raw,
    14: _raw,
    50: _serial,
    51: _pppoe,
    101: _raw,
    104: _serial,
    108: _loopback,
    113: _sll,
    204: _ppp_with_direction,
    228: _raw_v4,
    229: _raw_v6,
    276: _sll2,
}
"""By LINKTYPE_ value, https://www.tcpdump.org/linktypes.html."""


def _put(out: Link, rows: Rows, version: U8, start: Offsets, whole: Bools) -> None:
    """Write where the network layer begins; `whole`: the link header was kept."""
    out.version[rows] = np.where(whole, version, np.uint8(0))
    out.start[rows] = start
    note = np.where(version >= 4, np.uint32(0), np.uint32(DecodeNote.NOT_IP))
    out.note[rows] |= np.where(whole, note, np.uint32(DecodeNote.LINK_CUT))


def _follow(
    source: Bytes,
    out: Link,
    rows: Rows,
    ethertype: U16,
    whole: Bools,
    start: Offsets,
    kept: Offsets,
) -> None:
    """Write the network layer behind an ethertype, stepping over tags."""
    walk = TagWalk(ethertype, whole, start)
    walk.run(source, kept)
    _put(out, rows, walk.version, walk.start, walk.whole)
    out.ethertype[rows] = walk.ethertype
    out.has_type[rows] = walk.typed
    out.tags[rows] = walk.tags
    out.vlan[rows] = walk.vlan
    out.vlan_inner[rows] = walk.vlan_inner


def ethernet_inside(source: Bytes, start: Offsets, kept: Offsets) -> tuple[Offsets, U8, Bools]:
    """Return (start, version, cut) of the IP header in Ethernet frames inside a tunnel.

    The version is 0 where the frame holds no IP packet; `cut`: its header was not kept whole.
    """
    window = source.window(start, kept, 16)
    walk = TagWalk(window.u16(12), window.kept >= 14, start + 14)
    walk.run(source, kept)
    version = np.where(walk.version >= 4, walk.version, np.uint8(0))
    return walk.start, version, ~walk.whole
