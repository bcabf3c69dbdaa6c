"""What a capture file holds, as values: frames in batches, interfaces, and the file as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

NO_TIME: Final = int(np.iinfo(np.int64).min)
"""`time_ns` of a frame whose block has no time; schema.py's tables hold null instead."""

MAX_BATCH_FRAMES: Final = 1 << 17
"""Frames in one batch at most: keeps the decoder's columns of one batch within a few dozen MiB."""


@dataclass(frozen=True, slots=True)
class FrameBatch:
    """Consecutive frames of one capture, as columns of equal length over one block of bytes.

    `data` may be reused by the reader, see CaptureReader. Columns
    may be read-only. Every frame lies within the data: start + caplen <= len(data).
    """

    data: NDArray[np.uint8]
    """The block of bytes."""
    start: NDArray[np.int64]
    """Offset in `data` of the frame's first byte."""
    caplen: NDArray[np.uint32]
    """Bytes that were kept of the frame."""
    wire_len: NDArray[np.uint32]
    """Bytes of the frame on the wire, as the file says; hostile files say anything."""
    time_ns: NDArray[np.int64]
    """Nanoseconds since 1970 UTC; NO_TIME where the block has none."""
    linktype: NDArray[np.uint16]
    """LINKTYPE_ value (https://www.tcpdump.org/linktypes.html)."""
    fcs_len: NDArray[np.uint8]
    """Bytes of frame check sequence at the end of the frame on the wire; 0 if none or unknown."""
    interface: NDArray[np.uint16]
    """Index into CaptureInfo.interfaces: unique over all sections."""
    frame: NDArray[np.uint32]
    """Wireshark's frame.number."""
    direction: NDArray[np.uint8]
    """0 unknown, 1 inbound, 2 outbound (pcapng epb_flags)."""
    note: NDArray[np.uint32]
    """Bits of decode_note.DecodeNote: NO_PACKET, TIME_MISSING."""

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.start)


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface of a capture; text is cleaned (text.clean), counts are None where unsaid."""

    index: int
    name: str | None
    description: str | None
    linktype: int
    snaplen: int | None
    """Bytes kept of a frame at most; None for no limit."""
    filter: str | None
    dropped: int | None
    """Packets that the interface and the operating system dropped."""
    received: int | None


@dataclass(frozen=True, slots=True)
class CaptureInfo:
    """One capture file as a whole; complete once every batch was read."""

    path: str
    format: str
    """ "pcap" or "pcapng", with "+gzip", "+zstd", "+lz4", "+xz" where compressed."""
    packets: int
    """Frames that were read: the last one's frame number."""
    link_types: tuple[int, ...]
    """LINKTYPE_ values of the frames that were read, ascending."""
    first_ns: int | None
    """Earliest time of a frame; None where no frame has one."""
    last_ns: int | None
    snaplen: int | None
    """The smallest limit of any interface; None for no limit."""
    dropped: int | None
    """Sum over the interfaces that say; None where none does."""
    cut_short: bool
    """The file does not end where a record ends: what was read up to there is kept."""
    notes: tuple[str, ...]
    interfaces: tuple[Interface, ...]
    size: int | None
    """Bytes of the file as stored; None for a stream."""
    mtime_ns: int | None
    icmp_share: int = 1
    """Of the kinds of ICMP messages, one in so many is looked at (decode.alike_errors)."""


class RawFrame(NamedTuple):
    """One frame with its bytes, for evidence."""

    frame: int
    time_ns: int
    """NO_TIME where the block has none."""
    linktype: int
    wire_len: int
    data: bytes
    interface: int
