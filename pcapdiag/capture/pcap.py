"""The pcap format: one file header, then records of a fixed header and the frame's bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from pcapdiag.capture.frames import MAX_BATCH_FRAMES, FrameBatch, Interface
from pcapdiag.capture.lockstep import walk
from pcapdiag.capture.pcap_layout import (
    MAGICS,
    RECORD_HEADER_BYTES,
    PcapLayout,
    parse_header,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pcapdiag.capture.block import Block
    from pcapdiag.capture.notes import Notes

__all__ = ["MAGICS", "PcapFile"]

_GIGA: Final = 1_000_000_000
_HEAD_BYTES: Final = 1 << 20
"""Of the file, to tell the form of its records: more than three packets of the largest size."""


class PcapFile:
    """Frames of one pcap file; `block` stands at the start of the file.

    Raises UnknownFormat and TruncatedHeader for a file header that cannot be used.
    """

    format: Final = "pcap"

    def __init__(self, path: str, block: Block, notes: Notes) -> None:
        self.layout = parse_header(path, block.data[:_HEAD_BYTES].tobytes())
        self._block = block
        self._notes = notes
        if self.layout.header_bytes != RECORD_HEADER_BYTES:
            notes.add(
                f"its first records fit an old form of pcap, with record headers of "
                f"{self.layout.header_bytes} bytes: if that cannot be, its start is damaged"
            )

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
        captured, wire = self.layout.lengths_at(self._block.data.data, position)
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
    records = np.ndarray(len(data) - 15, dtype="V16", buffer=data.data, strides=(1,))
    fields = records[starts].view(layout.dtype).reshape(count, 4)
    captured = fields[:, 2].astype(np.uint32)
    wire = fields[:, 3].astype(np.uint32)
    if layout.length_swapped:
        captured, wire = wire, captured
    elif layout.length_unsure:
        captured, wire = np.minimum(captured, wire), np.maximum(captured, wire)
    time = fields[:, 0].astype(np.int64)
    time *= _GIGA
    fraction = fields[:, 1].astype(np.int64)
    if not layout.nanoseconds:
        fraction *= 1000
    time += fraction
    start = starts + layout.header_bytes
    if layout.fddi_padding:
        padding = np.uint32(layout.fddi_padding)
        start += layout.fddi_padding
        captured -= padding
        wire = np.maximum(wire, padding) - padding
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
