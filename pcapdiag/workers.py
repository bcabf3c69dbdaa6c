"""The work on one capture: from its path to decoded tables. Knows nothing of other captures."""

from __future__ import annotations

import hashlib
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag.capture import indexed
from pcapdiag.capture.reader import open_capture
from pcapdiag.decode import packets
from pcapdiag.export import index

if TYPE_CHECKING:
    from collections.abc import Callable

    from pcapdiag.capture.frames import CaptureInfo
    from pcapdiag.decode.packets import Decoded

_DIGEST_BLOCK = 1 << 20

_ONE_THREAD_BYTES: Final = 8 << 20
"""A capture of so many bytes is one batch: there is nothing to decode beside it."""


@dataclass(frozen=True, slots=True)
class ReadCapture:
    """One capture, read and decoded."""

    info: CaptureInfo
    decoded: Decoded
    sha256: str | None


def read_capture(
    path: str,
    capture: int,
    *,
    digest: bool = False,
    tunnel_ports: frozenset[int] = frozenset(),
    progress: Callable[[str, int, int | None], None] | None = None,
) -> ReadCapture:
    """Read and decode the capture at `path` as number `capture` of the case, or out of an index.

    `tunnel_ports` carry GUE beside the usual one. `progress(path, bytes_done, bytes_total)` is told
    of the start and the end. Raises CaptureError where nothing can be read; what is wrong further
    in stands in the notes.
    """
    found = indexed.member(path)
    if found is not None:
        entry, decoded = index.read(*found, capture)
        return ReadCapture(entry.info, decoded, entry.sha256 if digest else None)
    size = _size(path)
    if progress:
        progress(path, 0, size)
    threads = 1 if size is not None and size <= _ONE_THREAD_BYTES else pl.thread_pool_size()
    with open_capture(path, ahead=threads if threads > 1 else 0) as reader:
        decoded = packets.decode_capture(
            reader, capture, gue_ports=packets.GUE_PORTS | tunnel_ports, threads=threads
        )
        info = reader.info
    sha256 = _sha256(path) if digest and size is not None else None
    if progress:
        progress(path, size or 0, size)
    return ReadCapture(info, decoded, sha256)


def _size(path: str) -> int | None:
    """Return a regular file's size; None for what has none, as a pipe, or is not there."""
    try:
        status = Path(path).stat()
    except OSError:  # the reader says what is wrong with it
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _sha256(path: str) -> str:
    result = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(_DIGEST_BLOCK):
            result.update(block)
    return result.hexdigest()
