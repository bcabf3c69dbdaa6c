"""Opening a capture of any supported format, and reading its frames batch by batch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from pcapdiag.capture import compressed, pcap, pcapng
from pcapdiag.capture.block import BLOCK_BYTES, Block
from pcapdiag.capture.frames import NO_TIME, CaptureInfo, FrameBatch, RawFrame
from pcapdiag.capture.notes import Notes
from pcapdiag.capture.source import STDIN, FileSource
from pcapdiag.decode_note import DecodeNote
from pcapdiag.errors import TruncatedHeader, UnknownFormat, UnreadableCapture
from pcapdiag.text import clean

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from types import TracebackType
    from typing import Self

__all__ = ["CaptureReader", "RawFrame", "open_capture", "read_frames"]

_SUPPORTED: Final = "pcapdiag reads pcap and pcapng, also inside gzip, zstd, lz4 or xz"
_PROBE_BYTES: Final = 64 << 10
"""Read first, to see whether the file is compressed."""

_OTHER_FORMATS: Final = {
    b"snoop\0\0\0": "a snoop capture (RFC 1761)",
    b"BZh": "a bzip2 file; decompress it with `bunzip2`",
    b"PK\x03\x04": "a zip archive; unpack it with `unzip`",
    b"XCP\0": "a Sniffer capture",
    b"TRSNIFF data": "a Sniffer capture",
    b"GMBU": "a Microsoft Network Monitor capture",
    b"RTSS": "a Microsoft Network Monitor 1 capture",
    b"\x02\x21\x4c\x18": "an old lz4 file; decompress it with `lz4 -d`",
    b"!<arch>": "an archive",
    b"\x7fELF": "a program",
}
"""What else a file may be, by its first bytes."""


class CaptureReader:
    """An open capture: iterate over it once to get its frames as FrameBatch, in file order.

    A batch is valid until the next one: its bytes are then overwritten. `info` grows while reading
    and is complete after the last batch. Leaving the `with` block closes the file.
    """

    def __init__(self, path: str, block_bytes: int = BLOCK_BYTES, *, ahead: bool = False) -> None:
        self._path = path
        self._file = FileSource(path)
        try:
            self._notes = Notes()
            self._block, self._decompressor = _first_block(
                path, self._file, block_bytes, ahead=ahead
            )
            self._format = _format(path, self._block, self._notes, self._decompressor)
        except BaseException:
            self._file.close()
            raise
        self._packets = 0
        self._packet_bytes = 0
        self._link_types: set[int] = set()
        self._first: int | None = None
        self._last: int | None = None
        self._batches = self._read()

    def __iter__(self) -> Iterator[FrameBatch]:
        """Return the iterator over the batches: always the same one."""
        return self._batches

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the file."""
        self._block.close()
        self._file.close()

    @property
    def bytes_read(self) -> int:
        """Bytes of the file that were read so far, compressed where it is."""
        return self._file.bytes_read

    @property
    def expected_packets(self) -> int | None:
        """How many there may be in all, by the mean size so far; None: unknown."""
        if self._decompressor is not None or self._file.size is None or not self._packet_bytes:
            return None
        return self._file.size * self._packets // self._packet_bytes

    @property
    def info(self) -> CaptureInfo:
        """What is known so far of the capture as a whole."""
        interfaces = self._format.interfaces()
        dropped = [found.dropped for found in interfaces if found.dropped is not None]
        limits = [found.snaplen for found in interfaces if found.snaplen is not None]
        kind = f"+{self._decompressor.kind}" if self._decompressor else ""
        return CaptureInfo(
            path=self._path,
            format=self._format.format + kind,
            packets=self._packets,
            link_types=tuple(sorted(self._link_types)),
            first_ns=self._first,
            last_ns=self._last,
            snaplen=min(limits, default=None),
            dropped=sum(dropped) if dropped else None,
            cut_short=self._notes.cut_short,
            notes=self._notes.lines(),
            interfaces=interfaces,
            size=self._file.size,
            mtime_ns=self._file.mtime_ns,
        )

    def _read(self) -> Iterator[FrameBatch]:
        for batch in self._format.batches():
            self._count(batch)
            yield batch
        if self._block.failure is not None:
            self._notes.cut(self._block.failure)
        if self._decompressor is not None and self._decompressor.remark:
            self._notes.add(self._decompressor.remark)
        change = self._file.change()
        if change is not None:
            self._notes.add(f"the file changed while it was read: {change}; read it again")

    def _count(self, batch: FrameBatch) -> None:
        self._packets += len(batch)
        self._packet_bytes += int(batch.start[-1] + batch.caplen[-1] - batch.start[0])
        linktypes = batch.linktype
        if batch.note.any():
            linktypes = linktypes[batch.note & DecodeNote.NO_PACKET == 0]
        if len(linktypes) and (linktypes == linktypes[0]).all():
            self._link_types.add(int(linktypes[0]))
        else:
            self._link_types.update(np.unique(linktypes).tolist())
        times = batch.time_ns
        first = int(times.min())
        if first == NO_TIME:
            times = times[times != NO_TIME]
            if not len(times):
                return
            first = int(times.min())
        last = int(times.max())
        self._first = first if self._first is None else min(first, self._first)
        self._last = last if self._last is None else max(last, self._last)


def open_capture(path: str, *, ahead: bool = False) -> CaptureReader:
    """Return a reader of the capture at `path`; "-" is standard input.

    With `ahead` a thread reads a file on while what was read is worked on. Not from a pipe: who
    waits for one cannot be interrupted there.

    Raises UnreadableCapture where the operating system refuses, UnknownFormat for anything that is
    not a capture, TruncatedHeader for a file that ends inside its file header.
    """
    return CaptureReader(path, ahead=ahead)


def open_again(path: str, *, ahead: bool = False) -> CaptureReader:
    """Return a reader of a capture that was read before; `ahead` as for open_capture.

    Raises as open_capture does, and UnreadableCapture for what can be read once only: to open a
    pipe whose writer is gone would wait for ever.
    """
    if path == STDIN:
        message = "standard input cannot be read a second time; give the capture as a file"
        raise UnreadableCapture(path, message)
    if Path(path).exists() and not Path(path).is_file():
        message = "a pipe cannot be read a second time; give the capture as a file"
        raise UnreadableCapture(path, message)
    return open_capture(path, ahead=ahead)


def read_frames(path: str, frames: Collection[int]) -> dict[int, RawFrame]:
    """Return the frames with these numbers and their bytes, in one pass that ends at the last.

    Numbers that the file does not have are left out, and so are blocks that hold no packet. Raises
    as open_again does.
    """
    wanted = np.unique(np.array([number for number in frames if number > 0], dtype=np.int64))
    found: dict[int, RawFrame] = {}
    if not len(wanted):
        return found
    with open_again(path) as reader:
        for batch in reader:
            first, last = int(batch.frame[0]), int(batch.frame[-1])
            for number in wanted[(wanted >= first) & (wanted <= last)].tolist():
                frame = _raw_frame(batch, number - first)
                if frame is not None:
                    found[number] = frame
            if last >= wanted[-1]:
                break
    return found


def _raw_frame(batch: FrameBatch, row: int) -> RawFrame | None:
    if batch.note[row] & DecodeNote.NO_PACKET:
        return None
    start = int(batch.start[row])
    return RawFrame(
        frame=int(batch.frame[row]),
        time_ns=int(batch.time_ns[row]),
        linktype=int(batch.linktype[row]),
        wire_len=int(batch.wire_len[row]),
        data=batch.data[start : start + int(batch.caplen[row])].tobytes(),
        interface=int(batch.interface[row]),
    )


def _first_block(
    path: str, file: FileSource, block_bytes: int, *, ahead: bool
) -> tuple[Block, compressed.Decompressor | None]:
    """Return the first bytes of the capture, and the decompressor they come through, if any."""
    probe = Block(file, size=_PROBE_BYTES)
    probe.advance(0)
    if probe.failure is not None and not probe.end:
        raise UnreadableCapture(path, probe.failure)
    head = probe.data.tobytes()
    ahead = ahead and file.size is not None
    if compressed.kind_of(head) is not None:
        decompressor = compressed.Decompressor(file, head)
        block = Block(decompressor, size=block_bytes, ahead=ahead)
        block.advance(0)
        return block, decompressor
    # One byte more than the file has: then the end is seen without reading again.
    size = block_bytes if file.size is None else min(block_bytes, file.size + 1)
    block = Block(file, head, size, ahead=ahead and not probe.at_end)
    block.advance(0)
    return block, None


def _format(
    path: str, block: Block, notes: Notes, decompressor: compressed.Decompressor | None
) -> pcap.PcapFile | pcapng.PcapngFile:
    """Return the reader of the format that the first bytes tell."""
    head = bytes(block.data[:16])
    if head[:4] in pcap.MAGICS:
        return pcap.PcapFile(path, block, notes)
    if head[:4] == pcapng.MAGIC:
        return pcapng.PcapngFile(path, block, notes)
    inside = f"the {decompressor.kind} stream holds " if decompressor else ""
    if not head:
        if block.failure is not None:
            raise UnreadableCapture(path, block.failure)
        raise TruncatedHeader(path, f"{inside}0 bytes: nothing was captured, or the disk was full")
    magics = [*pcap.MAGICS, pcapng.MAGIC]
    if len(head) < 4 and any(magic.startswith(head) for magic in magics):
        raise TruncatedHeader(path, f"ends at byte {len(head)}, inside its file header")
    raise UnknownFormat(path, inside + _unknown(head))


def _unknown(head: bytes) -> str:
    """Return what a file that starts with `head` is not, and what can be done."""
    if compressed.kind_of(head):
        return "another compressed stream: decompress it once and try again"
    known = next((what for magic, what in _OTHER_FORMATS.items() if head.startswith(magic)), None)
    if known and "`" in known:
        return f"{known}. {_SUPPORTED}"
    if known is None and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        return f'text ("{clean(head.decode())}..."), not a capture. {_SUPPORTED}'
    first = head[:8].hex(" ")
    what = known or "not a capture format that is known"
    return (
        f"{what} (first bytes {first}). {_SUPPORTED}; what Wireshark can open, "
        "`editcap -F pcap IN OUT.pcap` converts"
    )
