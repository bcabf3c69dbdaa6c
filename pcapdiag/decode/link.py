"""Link headers: from a frame's first byte to its network layer.

Ethernet (IEEE 802.3), VLAN tags (802.1Q, 802.1ad), LLC/SNAP (802.2), MPLS (RFC 3032), PPPoE
(RFC 2516), PPP (RFC 1661), Cisco HDLC, Linux cooked captures (LINKTYPE_LINUX_SLL and _SLL2), raw
IP and the BSD loopback. Other link types are asked of scapy, see rare_link.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from pcapdiag.decode.columns import Columns
from pcapdiag.protocols import EtherType
from pcapdiag.schema import DecodeNote

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from pcapdiag.decode.columns import U8, U16, U32, U64, Bools, Indices, Offsets, Rows
    from pcapdiag.decode.fetch import Bytes

MAX_TAGS: Final = 16
"""VLAN tags, MPLS labels and the like that are stepped over in one frame. More labels than ten
are unknown in networks; hostile frames may hold hundreds."""

IN, OUT, OTHER = 1, 2, 3
"""Codes of directions in arrays: the position in schema.DIRECTIONS plus 1, 0 where unknown."""

ARP: Final = 1
"""As the version of what follows: ARP. 4 and 6 are IP, 0 is nothing that is decoded."""

_MPLS_MULTICAST: Final = 0x8848
_LLC_SNAP: Final = 0xAAAA
_LARGEST_LENGTH: Final = 1500  # an ethertype up to this is the length of an 802.3 frame


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
    version = _version_at(source, start, kept)
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
    begin, version, cut = ppp_inside(source, start, kept)
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
    begin, version, cut = ppp_inside(source, start + 6, kept)
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
    walk = _Walk(ethertype, whole, start)
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
    walk = _Walk(window.u16(12), window.kept >= 14, start + 14)
    walk.run(source, kept)
    version = np.where(walk.version >= 4, walk.version, np.uint8(0))
    return walk.start, version, ~walk.whole


def ppp_inside(source: Bytes, start: Offsets, kept: Offsets) -> tuple[Offsets, U8, Bools]:
    """Return (start, version, cut) of the IP header in PPP frames; see ethernet_inside.

    Address and control bytes (RFC 1662) and the first byte of the protocol may be left out.
    """
    window = source.window(start, kept, 8)
    framed = window.u16(0) == 0xFF03
    at = np.where(framed, 2, 0).astype(np.intp)
    rows = np.arange(len(at))
    first = window.at(rows, at, 1)
    compressed = first & 1 == 1  # RFC 1661 section 6.5
    protocol = np.where(compressed, first, window.at(rows, at, 2))
    size = at + np.where(compressed, 1, 2)
    version = np.zeros(len(at), dtype=np.uint8)
    version[protocol == 0x0021] = 4
    version[protocol == 0x0057] = 6
    begin = start + size
    cut = window.kept < size
    label = (protocol == 0x0281) | (protocol == 0x0283)
    some = np.flatnonzero(label & ~cut)
    if some.size:
        walk = _Walk(np.full(some.size, EtherType.MPLS, np.uint16), ~cut[some], begin[some])
        walk.run(source, kept[some])
        begin[some], version[some], cut[some] = walk.start, walk.version, ~walk.whole
    return begin, version, cut


def _version_at(source: Bytes, start: Offsets, kept: Offsets) -> U8:
    """Return 4 or 6 by the first four bits, 0 where they are neither."""
    nibble = source.window(start, kept, 8).u8(0) >> 4
    return np.where((nibble == 4) | (nibble == 6), nibble, np.uint8(0))


_VERSIONS: Final = {EtherType.IPV4: 4, EtherType.IPV6: 6, EtherType.ARP: ARP}
_VLAN_TYPES: Final = (EtherType.VLAN, EtherType.QINQ, EtherType.QINQ_OLD)


class _Walk:
    """A walk from an ethertype over tags to the network layer, all rows in lockstep."""

    def __init__(self, ethertype: U16, whole: Bools, start: Offsets) -> None:
        """`start` is behind the ethertype; `whole`: the header up to there was kept."""
        count = len(ethertype)
        self.start = start
        self.whole = whole
        self.ethertype = ethertype
        self.typed = whole & (ethertype > _LARGEST_LENGTH)
        self.version = np.zeros(count, dtype=np.uint8)
        self.tags = np.zeros(count, dtype=np.uint8)
        self.vlan = np.zeros(count, dtype=np.uint16)
        self.vlan_inner = np.zeros(count, dtype=np.uint16)

    def run(self, source: Bytes, kept: Offsets) -> None:
        """Step over tags, at most MAX_TAGS of them."""
        self._judge(slice(None))
        rows = np.flatnonzero((self.version == 0) & self.whole)
        if not rows.size:
            return
        self.whole = self.whole.copy()
        for _ in range(MAX_TAGS):
            rows = self._step(source, rows, kept)
            if not rows.size:
                return

    def _judge(self, rows: Rows) -> None:
        """Set the version where the ethertype tells it."""
        ethertype = self.ethertype[rows]
        version = np.zeros(len(ethertype), dtype=np.uint8)
        for number, what in _VERSIONS.items():
            version[ethertype == number] = what
        self.version[rows] = version

    def _step(self, source: Bytes, rows: Indices, kept: Offsets) -> Indices:
        """Step over one tag of each of `rows`; return those that are not done yet."""
        ethertype = self.ethertype[rows]
        window = source.window(self.start[rows], kept[rows], 8)
        more = [
            self._vlan(rows, window.u16(0), window.u16(2), window.kept, ethertype),
            self._snap(rows, window.u32(0), window.u32(4), window.kept, ethertype),
            self._mpls(source, rows, window.u32(0), window.kept, kept, ethertype),
            self._pppoe(source, rows, window.u8(1), window.kept, kept, ethertype),
        ]
        return np.concatenate(more)

    def _lose(self, rows: Indices) -> None:
        self.whole[rows] = False

    def _vlan(
        self,
        rows: Indices,
        control: U16,
        following: U16,
        have: Offsets,
        ethertype: U16,
    ) -> Indices:
        mine = np.isin(ethertype, _VLAN_TYPES)
        self._lose(rows[mine & (have < 4)])
        self.typed[rows[mine & (have < 4)]] = False
        mine &= have >= 4
        rows = rows[mine]
        ident = control[mine] & 0x0FFF
        self.vlan[rows] = np.where(self.tags[rows] == 0, ident, self.vlan[rows])
        self.vlan_inner[rows] = np.where(self.tags[rows] == 1, ident, self.vlan_inner[rows])
        self.tags[rows] += 1
        self._advance(rows, following[mine], 4)
        return rows[self.version[rows] == 0]

    def _snap(
        self,
        rows: Indices,
        first: U32,
        second: U32,
        have: Offsets,
        ethertype: U16,
    ) -> Indices:
        """Step over LLC and SNAP headers whose organisation is that of ethertypes (RFC 1042)."""
        mine = ethertype <= _LARGEST_LENGTH
        self._lose(rows[mine & (have < 8) & (first >> 16 == _LLC_SNAP)])
        mine &= (have >= 8) & (first == 0xAAAA0300) & (second >> 16 == 0)
        following = (second[mine] & 0xFFFF).astype(np.uint16)
        rows = rows[mine]
        self._advance(rows, following, 8)
        return rows[(self.version[rows] == 0) & (following > _LARGEST_LENGTH)]

    def _mpls(
        self,
        source: Bytes,
        rows: Indices,
        label: U32,
        have: Offsets,
        kept: Offsets,
        ethertype: U16,
    ) -> Indices:
        """Step over a label; behind the last one the first four bits tell the version."""
        mine = (ethertype == EtherType.MPLS) | (ethertype == _MPLS_MULTICAST)
        self._lose(rows[mine & (have < 4)])
        mine &= have >= 4
        last = label[mine] & 0x100 != 0
        rows = rows[mine]
        self.start[rows] += 4
        done = rows[last]
        self.version[done] = _version_at(source, self.start[done], kept[done])
        return rows[~last]

    def _pppoe(
        self,
        source: Bytes,
        rows: Indices,
        code: U8,
        have: Offsets,
        kept: Offsets,
        ethertype: U16,
    ) -> Indices:
        mine = ethertype == EtherType.PPPOE_SESSION
        self._lose(rows[mine & (have < 6)])
        rows = rows[mine & (have >= 6) & (code == 0)]
        begin, version, cut = ppp_inside(source, self.start[rows] + 6, kept[rows])
        self.start[rows], self.version[rows] = begin, version
        self._lose(rows[cut])
        return rows[:0]

    def _advance(self, rows: Indices, ethertype: U16, size: int) -> None:
        self.ethertype[rows] = ethertype
        self.typed[rows] = ethertype > _LARGEST_LENGTH
        self.start[rows] += size
        self._judge(rows)
