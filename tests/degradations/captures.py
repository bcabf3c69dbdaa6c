"""The captures of a sample in memory: read from its files, written where an analysis can read them.

Only what samples have: one link type a file, times in every record.
"""

from __future__ import annotations

import gzip
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import truths

from pcapdiag.capture.reader import open_capture

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PCAP_NANOSECONDS = 0xA1B23C4D
LARGEST_SNAPLEN = 262_144
"""What tcpdump and Wireshark take for no limit."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame; `number` is its number in the sample's file, whatever became of it."""

    number: int
    time_ns: int
    data: bytes
    wire_len: int


@dataclass(frozen=True, slots=True)
class Capture:
    """One capture file of a sample, and how it is to be written and given to the program."""

    file: str
    """Its name in the sample, by which findings are compared."""
    host: str
    label: str
    """The vantage, as in LABEL=PATH."""
    stem: str
    """The name it is written under, without suffixes."""
    linktype: int
    snaplen: int
    dropped: int | None
    frames: tuple[Frame, ...]
    pcapng: bool
    packed: bool = False
    """Compressed with gzip."""


def read(folder: Path) -> tuple[Capture, ...]:
    """Return the captures of a sample as its truth lists them."""
    truth = truths.read(folder)
    return tuple(
        read_file(folder / item["file"], host=item["host"], label=truths.vantage(truth, item))
        for item in truth["captures"]
    )


def listed(folder: Path) -> tuple[Capture, ...]:
    """Return the captures of a sample without their frames."""
    truth = truths.read(folder)
    return tuple(
        Capture(
            file=item["file"],
            host=item["host"],
            label=truths.vantage(truth, item),
            stem=item["file"].split(".")[0],
            linktype=1,
            snaplen=LARGEST_SNAPLEN,
            dropped=None,
            frames=(),
            pcapng=False,
        )
        for item in truth["captures"]
    )


def read_file(path: Path, *, host: str, label: str) -> Capture:
    """Return one capture, taken at a host and to be given with a label."""
    frames: list[Frame] = []
    with open_capture(str(path)) as reader:
        for batch in reader:
            data = batch.data.tobytes()
            columns = (batch.frame, batch.time_ns, batch.start, batch.caplen, batch.wire_len)
            frames += [
                Frame(number, time_ns, data[start : start + kept], length)
                for number, time_ns, start, kept, length in zip(
                    *(column.tolist() for column in columns), strict=True
                )
            ]
        info = reader.info
    (linktype,) = info.link_types or (1,)
    return Capture(
        file=path.name,
        host=host,
        label=label,
        stem=path.name.split(".")[0],
        linktype=linktype,
        snaplen=info.snaplen or LARGEST_SNAPLEN,
        dropped=info.dropped,
        frames=tuple(frames),
        pcapng=info.format.startswith("pcapng"),
    )


def write(captures: Sequence[Capture], folder: Path) -> tuple[list[str], dict[str, Capture]]:
    """Write every capture; return the arguments LABEL=PATH, and the captures by path."""
    paths: dict[str, Capture] = {}
    for capture in captures:
        suffix = ".pcapng" if capture.pcapng else ".pcap"
        path = folder / f"{capture.stem}{suffix}{'.gz' if capture.packed else ''}"
        data = _pcapng(capture) if capture.pcapng else _pcap(capture)
        path.write_bytes(gzip.compress(data, 1, mtime=0) if capture.packed else data)
        paths[str(path)] = capture
    return [f"{capture.label}={path}" for path, capture in paths.items()], paths


def _pcap(capture: Capture) -> bytes:
    header = (PCAP_NANOSECONDS, 2, 4, 0, 0, capture.snaplen, capture.linktype)
    parts = [struct.pack("<IHHiIII", *header)]
    for frame in capture.frames:
        second, ns = divmod(frame.time_ns, 10**9)
        parts += [struct.pack("<IIII", second, ns, len(frame.data), frame.wire_len), frame.data]
    return b"".join(parts)


def _pcapng(capture: Capture) -> bytes:
    resolution = struct.pack("<HHB3x", 9, 1, 9)  # if_tsresol: 10^-9 s
    parts = [
        _block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)),
        _block(
            1, struct.pack("<HHI", capture.linktype, 0, capture.snaplen) + resolution + bytes(4)
        ),
    ]
    for frame in capture.frames:
        high, low = divmod(frame.time_ns, 1 << 32)
        head = struct.pack("<IIIII", 0, high, low, len(frame.data), frame.wire_len)
        parts.append(_block(6, head + frame.data))
    if capture.dropped is not None:
        dropped = struct.pack("<HHQ", 5, 8, capture.dropped)  # isb_ifdrop
        parts.append(_block(5, bytes(12) + dropped + bytes(4)))
    return b"".join(parts)


def _block(kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    length = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + length + body + length
