"""The pcap format: one file header, then records of a fixed header and the frame's bytes.

Format: https://www.tcpdump.org/manpages/pcap-savefile.5.html and draft-ietf-opsawg-pcap. What
Wireshark makes of old and modified forms: wiretap/libpcap.c.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from pcapdiag.capture.frames import MAX_BATCH_FRAMES, FrameBatch, Interface
from pcapdiag.capture.linktype import max_packet_bytes
from pcapdiag.capture.walk import walk
from pcapdiag.errors import TruncatedHeader, UnknownFormat

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pcapdiag.capture.block import Block
    from pcapdiag.capture.notes import Notes

MICROSECONDS: Final = 0xA1B2C3D4
NANOSECONDS: Final = 0xA1B23C4D
KUZNETZOV: Final = 0xA1B2CD34
"""Linux of the nineties with Kuznetzov's patch: longer record headers."""
IXIA_HARDWARE: Final = 0x1C0001AC
IXIA_SOFTWARE: Final = 0x1C0001AB

MAGICS: Final = {
    magic.to_bytes(4, order): (magic, order)
    for magic in (MICROSECONDS, NANOSECONDS, KUZNETZOV, IXIA_HARDWARE, IXIA_SOFTWARE)
    for order in ("little", "big")
}
"""First four bytes of a file: which form of pcap, in which byte order."""

FILE_HEADER_BYTES: Final = 24
_IXIA_EXTRA_BYTES: Final = 4

RECORD_HEADER_BYTES: Final = 16
_NOKIA_HEADER_BYTES: Final = 20
_PATCHED_HEADER_BYTES: Final = 24
_SUSE_HEADER_BYTES: Final = 28

_FCS_PRESENT: Final = 1 << 26
_RESERVED: Final = 0x03FF0000

_AIX_IFTYPES: Final = {6: 1, 9: 6, 15: 10, 24: 0}
"""AIX writes version 2.2 and an ifType (RFC 1573) where others write a LINKTYPE_ value."""

_RECORDS_TO_TRY: Final = 3
_UNLIKELY_WIRE_BYTES: Final = 128 << 20


@dataclass(frozen=True, slots=True)
class PcapLayout:
    """How the records of one pcap file are laid out; a walk.Layout."""

    big_endian: bool
    nanoseconds: bool
    header_bytes: int
    linktype: int
    fcs_len: int
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

    def size_at(self, data: memoryview, position: int) -> int:
        """Return the record's size; 0 where its length cannot be."""
        captured, wire = struct.unpack_from(">II" if self.big_endian else "<II", data, position + 8)
        if self.length_swapped or (self.length_unsure and captured > wire):
            captured = wire
        if not self.fddi_padding <= captured <= self.max_bytes:
            return 0
        return self.header_bytes + captured


def parse_header(path: str, head: bytes) -> PcapLayout:
    """Return the layout of a file that starts with `head`, at least 1 MiB of it or all.

    Raises UnknownFormat and TruncatedHeader.
    """
    magic, order = MAGICS[head[:4]]
    ixia = magic in (IXIA_HARDWARE, IXIA_SOFTWARE)
    needed = FILE_HEADER_BYTES + (_IXIA_EXTRA_BYTES if ixia else 0)
    if len(head) < needed:
        raise TruncatedHeader(
            path,
            f"ends at byte {len(head)}, inside its pcap file header of {needed} bytes: "
            "nothing was captured, or the copy is incomplete",
        )
    big = order == "big"
    major, minor, _, _, snaplen, network = struct.unpack_from(
        ">HHiIII" if big else "<HHiIII", head, 4
    )
    if major < 2:
        message = f"pcap version {major}.{minor} at byte 4, expected 2.4: not a capture, or damaged"
        raise UnknownFormat(path, message)
    if network & _RESERVED:
        raise UnknownFormat(
            path,
            f"link type field 0x{network:08x} at byte 20 has reserved bits set, so the link type "
            "is not known; Wireshark and tcpdump refuse it too. Clear bytes 22 and 23 of a copy "
            "if the lower half is known to be right",
        )
    aix = magic == MICROSECONDS and (major, minor) == (2, 2) and network in _AIX_IFTYPES
    linktype = _AIX_IFTYPES[network] if aix else network & 0xFFFF
    old = (major, minor) < (2, 3) or major == 543  # DG/UX writes 543.0 and the old order
    layout = PcapLayout(
        big_endian=big,
        nanoseconds=aix or magic in (NANOSECONDS, IXIA_HARDWARE),
        header_bytes=RECORD_HEADER_BYTES,
        linktype=linktype,
        # In units of 16 bits (draft-ietf-opsawg-pcap section 4).
        fcs_len=2 * (network >> 28) if network & _FCS_PRESENT else 0,
        snaplen=snaplen,
        file_header_bytes=needed,
        length_swapped=old,
        length_unsure=(major, minor) == (2, 3),
        fddi_padding=3 if aix and linktype == 10 else 0,
    )
    if aix or magic not in _VARIANTS:
        return layout
    return _likeliest(layout, _VARIANTS[magic], head)


_VARIANTS: Final = {
    MICROSECONDS: (RECORD_HEADER_BYTES, _PATCHED_HEADER_BYTES, _NOKIA_HEADER_BYTES),
    KUZNETZOV: (_PATCHED_HEADER_BYTES, _SUSE_HEADER_BYTES),
}
"""Record header sizes seen with one magic, the likeliest first: Red Hat 6.1 wrote long headers
with the ordinary magic, SuSE 6.3 still longer ones with Kuznetzov's, Nokia firewalls its own."""


def _likeliest(layout: PcapLayout, sizes: tuple[int, ...], head: bytes) -> PcapLayout:
    """Return the layout with the record header size under which the first records look best.

    As libpcap_try_variants: the first size without a fault, else the first with the fewest.
    """
    choices = [replace(layout, header_bytes=size) for size in sizes]
    return min(choices, key=lambda choice: _faults(choice, head))


def _faults(layout: PcapLayout, head: bytes) -> int:
    """Return how much is wrong with the first faulty of the first records (libpcap_try_record)."""
    position = layout.file_header_bytes
    for _ in range(_RECORDS_TO_TRY):
        if position == len(head):
            return 0
        if len(head) - position < layout.header_bytes:
            return 1
        _, fraction, captured, wire = struct.unpack_from(
            ">IIII" if layout.big_endian else "<IIII", head, position
        )
        if layout.length_swapped or (layout.length_unsure and captured > wire):
            captured, wire = wire, captured
        faults = (
            (fraction >= 1_000_000)
            + (captured > layout.max_bytes)
            + (wire > _UNLIKELY_WIRE_BYTES)
            + (captured > layout.snaplen)
            + (captured > wire)
        )
        if faults:
            return faults
        position += layout.header_bytes + captured
        if position > len(head):
            return 1
    return 0


class PcapFile:
    """Frames of one pcap file; `block` stands at the start of the file."""

    format: Final = "pcap"

    def __init__(self, path: str, block: Block, notes: Notes) -> None:
        self.layout = parse_header(path, block.data[: 1 << 20].tobytes())
        self._block = block
        self._notes = notes

    def interfaces(self) -> tuple[Interface, ...]:
        """Return the one interface that a pcap file can tell of."""
        layout = self.layout
        snaplen = layout.snaplen or None
        return (Interface(0, None, None, layout.linktype, snaplen, None, None, None),)

    def batches(self) -> Iterator[FrameBatch]:
        """Yield the frames in file order; ends early, with a note, where a length cannot be."""
        block = self._block
        layout = self.layout
        position = layout.file_header_bytes
        frame = 1
        while True:
            found = walk(layout, block.data, position)
            for first in range(0, len(found.starts), MAX_BATCH_FRAMES):
                starts = found.starts[first : first + MAX_BATCH_FRAMES]
                yield _batch(layout, block.data, starts, frame)
                frame += len(starts)
            rest = block.end - found.end
            if found.size == 0:
                self._notes.cut(self._impossible(found.end, frame))
                return
            if block.at_end:
                if rest:
                    self._notes.cut(self._incomplete(found.end, rest, found.size, frame))
                return
            block.advance(found.end, found.size or layout.header_bytes)
            position = 0

    def _impossible(self, position: int, frame: int) -> str:
        order = ">II" if self.layout.big_endian else "<II"
        captured, wire = struct.unpack_from(order, self._block.data.data, position + 8)
        return (
            f"frame {frame} at byte {self._block.offset + position} cannot be: its header says "
            f"{captured} bytes kept of {wire}, at most {self.layout.max_bytes} are possible; "
            "the file is damaged there and was read up to that byte"
        )

    def _incomplete(self, position: int, rest: int, size: int | None, frame: int) -> str:
        what = "its header" if size is None else f"its record of {size} bytes"
        return (
            f"cut short: frame {frame} starts at byte {self._block.offset + position}, but the "
            f"file ends {rest} bytes later, inside {what}; the capture was copied while it ran, "
            "or the disk was full"
        )


def _batch(
    layout: PcapLayout, data: NDArray[np.uint8], starts: NDArray[np.int64], frame: int
) -> FrameBatch:
    """Return the frames whose records start at `starts`, numbered from `frame` on."""
    count = len(starts)
    dtype = ">u4" if layout.big_endian else "<u4"
    records = np.ndarray(len(data) - 15, dtype="V16", buffer=data, strides=(1,))
    fields = records[starts].view(dtype).reshape(count, 4)
    captured = fields[:, 2].astype(np.uint32)
    wire = fields[:, 3].astype(np.uint32)
    if layout.length_swapped:
        captured, wire = wire, captured
    elif layout.length_unsure:
        captured, wire = np.minimum(captured, wire), np.maximum(captured, wire)
    time = fields[:, 0].astype(np.int64)
    time *= 1_000_000_000
    fraction = fields[:, 1].astype(np.int64)
    if not layout.nanoseconds:
        fraction *= 1000
    time += fraction
    start = starts + layout.header_bytes
    if layout.fddi_padding:
        start += layout.fddi_padding
        captured -= np.uint32(layout.fddi_padding)
        wire = np.maximum(wire, np.uint32(3)) - np.uint32(layout.fddi_padding)
    return FrameBatch(
        data=data,
        start=start,
        caplen=captured,
        wire_len=wire,
        time_ns=time,
        linktype=np.full(count, layout.linktype, dtype=np.uint16),
        fcs_len=np.full(count, layout.fcs_len, dtype=np.uint8),
        interface=np.zeros(count, dtype=np.uint16),
        frame=np.arange(frame, frame + count, dtype=np.uint32),
        direction=np.zeros(count, dtype=np.uint8),
        note=np.zeros(count, dtype=np.uint32),
    )
