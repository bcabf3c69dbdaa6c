"""From an ethertype, or a PPP frame, over tags and labels to the network layer.

VLAN tags (IEEE 802.1Q, 802.1ad), LLC/SNAP (IEEE 802.2), MPLS (RFC 3032), PPPoE (RFC 2516).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from pcapdiag.decode.columns import ALL_ROWS
from pcapdiag.protocols import EtherType

if TYPE_CHECKING:
    from pcapdiag.decode.columns import U8, U16, U32, Bools, Indices, Offsets, Rows
    from pcapdiag.decode.fetch import Bytes

MAX_TAGS: Final = 16
"""VLAN tags, MPLS labels and the like that are stepped over in one frame. More labels than ten
are unknown in networks; hostile frames may hold hundreds."""

ARP: Final = 1
"""As the version of what follows: ARP. 4 and 6 are IP, 0 is nothing that is decoded."""

_VERSIONS: Final = {EtherType.IPV4: 4, EtherType.IPV6: 6, EtherType.ARP: ARP}
_VLAN_TYPES: Final = (EtherType.VLAN, EtherType.QINQ, EtherType.QINQ_OLD)
_MPLS_TYPES: Final = (EtherType.MPLS, 0x8848)  # unicast, multicast
_IS_VLAN, _IS_MPLS = np.zeros((2, 1 << 16), dtype=np.bool_)
_IS_VLAN[list(_VLAN_TYPES)] = True
_IS_MPLS[list(_MPLS_TYPES)] = True
_LLC_SNAP: Final = 0xAAAA_0300
_LARGEST_LENGTH: Final = 1500  # an ethertype up to this is the length of an 802.3 frame


class TagWalk:
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
        self._judge(ALL_ROWS)
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
        mine = _IS_VLAN[ethertype]
        if not mine.any():
            return rows[:0]
        self._lose(rows[mine & (have < 4)])
        self.typed[rows[mine & (have < 4)]] = False
        mine &= have >= 4
        rows = rows[mine]
        ident = control[mine] & 0x0FFF
        self.vlan[rows] = np.where(self.tags[rows] == 0, ident, self.vlan[rows])
        self.vlan_inner[rows] = np.where(self.tags[rows] == 1, ident, self.vlan_inner[rows])
        self.tags[rows] += 1
        self._advance(rows, following[mine], 4)
        unread: Indices = rows[self.version[rows] == 0]
        return unread

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
        if not mine.any():
            return rows[:0]
        self._lose(rows[mine & (have < 8) & (first >> 16 == _LLC_SNAP >> 16)])
        mine &= (have >= 8) & (first == _LLC_SNAP) & (second >> 16 == 0)
        following = (second[mine] & 0xFFFF).astype(np.uint16)
        rows = rows[mine]
        self._advance(rows, following, 8)
        unread: Indices = rows[(self.version[rows] == 0) & (following > _LARGEST_LENGTH)]
        return unread

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
        mine = _IS_MPLS[ethertype]
        if not mine.any():
            return rows[:0]
        self._lose(rows[mine & (have < 4)])
        mine &= have >= 4
        last = label[mine] & 0x100 != 0
        rows = rows[mine]
        self.start[rows] += 4
        done = rows[last]
        self._lose(done[self.start[done] >= kept[done]])
        self.version[done] = version_at(source, self.start[done], kept[done])
        rest: Indices = rows[~last]
        return rest

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
        if not mine.any():
            return rows[:0]
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


def version_at(source: Bytes, start: Offsets, kept: Offsets) -> U8:
    """Return 4 or 6 by the first four bits, 0 where they are neither."""
    nibble = source.window(start, kept, 8).u8(0) >> 4
    return np.where((nibble == 4) | (nibble == 6), nibble, np.uint8(0))


def ppp_inside(source: Bytes, start: Offsets, kept: Offsets) -> tuple[Offsets, U8, Bools]:
    """Return (start, version, cut) of the IP header in the PPP frames at `start`.

    The version is 0 where the frame holds no IP packet; `cut`: its header was not kept whole.
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
        walk = TagWalk(np.full(some.size, EtherType.MPLS, np.uint16), ~cut[some], begin[some])
        walk.run(source, kept[some])
        begin[some], version[some], cut[some] = walk.start, walk.version, ~walk.whole
    return begin, version, cut
