"""How the records of a pcap file are laid out, as its header and first records tell.

Format: draft-ietf-opsawg-pcap. What Wireshark makes of old and modified forms: wiretap/libpcap.c.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from pcapdiag.capture.linktype import max_packet_bytes
from pcapdiag.capture.walk import NO_RECORD, thinned
from pcapdiag.errors import TruncatedHeader, UnknownFormat

if TYPE_CHECKING:
    from numpy.typing import NDArray

MICROSECONDS: Final = 0xA1B2C3D4
NANOSECONDS: Final = 0xA1B23C4D
KUZNETZOV: Final = 0xA1B2CD34
"""Linux of the nineties with Kuznetzov's patch: longer record headers."""
IXIA_HARDWARE: Final = 0x1C0001AC
IXIA_SOFTWARE: Final = 0x1C0001AB

MAGICS: Final = {
    magic.to_bytes(4, order): (magic, order == "big")
    for magic in (MICROSECONDS, NANOSECONDS, KUZNETZOV, IXIA_HARDWARE, IXIA_SOFTWARE)
    for order in ("little", "big")
}
"""First four bytes of a file: which form of pcap, and whether big-endian."""

FILE_HEADER_BYTES: Final = 24
_IXIA_EXTRA_BYTES: Final = 4

RECORD_HEADER_BYTES: Final = 16
_NOKIA_HEADER_BYTES: Final = 20
_PATCHED_HEADER_BYTES: Final = 24
_SUSE_HEADER_BYTES: Final = 28

_VARIANTS: Final = {
    MICROSECONDS: (RECORD_HEADER_BYTES, _PATCHED_HEADER_BYTES, _NOKIA_HEADER_BYTES),
    KUZNETZOV: (_PATCHED_HEADER_BYTES, _SUSE_HEADER_BYTES),
}
"""Record header sizes seen with one magic, the likeliest first: Red Hat 6.1 wrote long headers
with the ordinary magic, SuSE 6.3 still longer ones with Kuznetzov's, Nokia firewalls its own."""

_FCS_PRESENT: Final = 1 << 26
_RESERVED: Final = 0x03FF0000

_AIX_IFTYPES: Final = {6: 1, 9: 6, 15: 10, 24: 0}
"""AIX writes version 2.2 and an ifType (RFC 1573) where others write a LINKTYPE_ value."""
_AIX_FDDI_PADDING: Final = 3
_FDDI: Final = 10
_DGUX_MAJOR: Final = 543

_RECORDS_TO_TRY: Final = 3
_UNLIKELY_WIRE_BYTES: Final = 128 << 20

_NEAR_SECONDS: Final = 1 << 17
"""Seconds between records of one block, in the search for records: a day and a half."""


@dataclass(frozen=True, slots=True)
class PcapLayout:
    """How the records of one pcap file are laid out; a walk.Layout."""

    big_endian: bool
    nanoseconds: bool
    header_bytes: int
    linktype: int
    fcs_len: int
    """Bytes."""
    snaplen: int
    file_header_bytes: int
    length_swapped: bool = False
    """Before version 2.3 the wire length came first."""
    length_unsure: bool = False
    """In version 2.3 either may: the smaller is the captured length."""
    fddi_padding: int = 0
    """Bytes that AIX puts before an FDDI frame, counted in both lengths."""

    @property
    def max_bytes(self) -> int:
        """Captured bytes of a record at most; a larger length ends the reading."""
        return max_packet_bytes(self.linktype)

    @property
    def dtype(self) -> str:
        """A 32-bit number of this file, for numpy."""
        return ">u4" if self.big_endian else "<u4"

    def size_at(self, data: memoryview, position: int) -> int:
        """Return the record's size; 0 where its length cannot be."""
        captured, _ = self.lengths_at(data, position)
        if not self.fddi_padding <= captured <= self.max_bytes:
            return 0
        return self.header_bytes + captured

    def lengths_at(self, data: memoryview | bytes, position: int) -> tuple[int, int]:
        """Return captured and wire length of the record at `position`."""
        captured: int
        wire: int
        captured, wire = struct.unpack_from(">II" if self.big_endian else "<II", data, position + 8)
        if self.length_swapped or (self.length_unsure and captured > wire):
            return wire, captured
        return captured, wire

    def sizes(self, data: NDArray[np.uint8], positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return size_at for many positions, NO_RECORD instead of 0."""
        size = self._field(data, 8)[positions].astype(np.int64)
        if self.length_swapped or self.length_unsure:
            wire = self._field(data, 12)[positions].astype(np.int64)
            size = wire if self.length_swapped else np.minimum(size, wire)
        impossible = size > self.max_bytes
        if self.fddi_padding:
            impossible |= size < self.fddi_padding
        size += self.header_bytes
        if impossible.any():
            size[impossible] = NO_RECORD
        return size

    def candidates(
        self, data: NDArray[np.uint8], model: int, first: int, spacing: int, width: int
    ) -> NDArray[np.int64]:
        """Return where the upper half of the seconds is the model's: within 18 hours of it."""
        count = max(0, (len(data) - first - width - 4) // spacing + 1)
        if not count:
            return np.zeros(0, dtype=np.int64)
        high, low = (0, 1) if self.big_endian else (3, 2)
        windows = np.ndarray(
            (count, width),
            dtype=np.uint8,
            buffer=data.data,
            offset=first + low,
            strides=(spacing, 1),
        )
        alike = thinned(np.flatnonzero(windows == data[model + low]))
        split, offset = np.divmod(alike, width)
        found = first + split * spacing + offset
        near: NDArray[np.int64] = found[data[found + high] == data[model + high]]
        return near

    def plausible(
        self, data: NDArray[np.uint8], model: int, positions: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Return where time and lengths are such as capture programs write them."""
        seconds = self._field(data, 0)
        fraction = self._field(data, 4)[positions]
        captured = self._field(data, 8)[positions]
        wire = self._field(data, 12)[positions]
        near = np.abs(seconds[positions].astype(np.int64) - int(seconds[model])) < _NEAR_SECONDS
        below = fraction < (1_000_000_000 if self.nanoseconds else 1_000_000)
        lengths = (captured <= self.max_bytes) & (wire <= _UNLIKELY_WIRE_BYTES)
        if not (self.length_swapped or self.length_unsure):
            lengths &= captured <= wire
        return near & below & lengths

    def _field(self, data: NDArray[np.uint8], offset: int) -> NDArray[np.uint32]:
        """Return the header field at `offset`, by the offset of the record: an unaligned view."""
        return np.ndarray(
            max(0, len(data) - RECORD_HEADER_BYTES + 1),
            dtype=self.dtype,
            buffer=data.data,
            offset=offset,
            strides=(1,),
        )


def parse_header(path: str, head: bytes) -> PcapLayout:
    """Return the layout of a file that starts with `head`: all of it, or at least 1 MiB.

    The first four bytes are one of MAGICS. Raises UnknownFormat and TruncatedHeader.
    """
    magic, big = MAGICS[head[:4]]
    ixia = magic in (IXIA_HARDWARE, IXIA_SOFTWARE)
    needed = FILE_HEADER_BYTES + (_IXIA_EXTRA_BYTES if ixia else 0)
    if len(head) < needed:
        raise TruncatedHeader(
            path,
            f"ends at byte {len(head)}, inside its pcap file header of {needed} bytes: "
            "nothing was captured, or the copy is incomplete",
        )
    order = ">HHiIII" if big else "<HHiIII"
    major, minor, _, _, snaplen, network = struct.unpack_from(order, head, 4)
    if major < 2:
        message = f"pcap version {major}.{minor} at byte 4, expected 2.4: not a capture, or damaged"
        raise UnknownFormat(path, message)
    aix = magic == MICROSECONDS and (major, minor) == (2, 2) and network in _AIX_IFTYPES
    if network & _RESERVED:
        raise UnknownFormat(
            path,
            f"the link type field at byte 20 is 0x{network:08x}: with its reserved bits set, the "
            "link type is not known, and Wireshark and tcpdump refuse it too; if the lower half is "
            "known to be right, clear the upper half in a copy",
        )
    linktype = _AIX_IFTYPES[network] if aix else network & 0xFFFF
    layout = PcapLayout(
        big_endian=big,
        nanoseconds=aix or magic in (NANOSECONDS, IXIA_HARDWARE),
        header_bytes=RECORD_HEADER_BYTES,
        linktype=linktype,
        # In units of 16 bits (draft-ietf-opsawg-pcap section 4).
        fcs_len=2 * (network >> 28) if network & _FCS_PRESENT else 0,
        snaplen=snaplen,
        file_header_bytes=needed,
        length_swapped=(major, minor) < (2, 3) or major == _DGUX_MAJOR,
        length_unsure=(major, minor) == (2, 3),
        fddi_padding=_AIX_FDDI_PADDING if aix and linktype == _FDDI else 0,
    )
    if aix or magic not in _VARIANTS:
        return layout
    # As libpcap_try_variants: the first size without a fault, else the first with the fewest. But
    # Wireshark takes some files that are cut inside their second record for one of the old forms.
    choices = [replace(layout, header_bytes=size) for size in _VARIANTS[magic]]
    if _faults(choices[0], head) == _ENDS_EARLY:
        return choices[0]
    return min(choices, key=lambda choice: len(_faults(choice, head)))


_ENDS_EARLY: Final = ("ends",)


def _faults(layout: PcapLayout, head: bytes) -> tuple[str, ...]:
    """Return what is wrong with the first faulty of the first records (libpcap_try_record)."""
    position = layout.file_header_bytes
    for _ in range(_RECORDS_TO_TRY):
        if position == len(head):
            return ()
        if len(head) - position < layout.header_bytes:
            return _ENDS_EARLY
        order = ">I" if layout.big_endian else "<I"
        fraction = struct.unpack_from(order, head, position + 4)[0]
        captured, wire = layout.lengths_at(head, position)
        faults = {
            "fraction of a second": fraction >= 1_000_000,
            "captured length": captured > layout.max_bytes,
            "wire length": wire > _UNLIKELY_WIRE_BYTES,
            "more than the snaplen": captured > layout.snaplen,
            "more than the wire": captured > wire,
        }
        if any(faults.values()):
            return tuple(fault for fault, found in faults.items() if found)
        position += layout.header_bytes + captured
        if position > len(head):
            return _ENDS_EARLY
    return ()
