"""What an index says of the captures it was made of: the manifest, and whether it still holds.

An index is a zip archive (stored, not compressed) of `manifest.json` and, per capture N, the tables
of schema.py as N/packets.parquet and so on (export/index.py). A capture inside one is named as if
the index were a folder: `case.pcapidx/0`.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pcapdiag.capture.frames import CaptureInfo, Interface
from pcapdiag.errors import StaleIndex, UnreadableCapture

if TYPE_CHECKING:
    from collections.abc import Iterable

MANIFEST: Final = "manifest.json"

LAYOUT: Final = 1
"""Of archive and manifest; the tables carry their own columns."""

_MAGIC: Final = b"PK\x03\x04"
_FIRST: Final = b"0/packets.parquet"
"""Name of an index's first member, at _NAME_AT: a copy that is cut short has no list of members."""
_NAME_AT: Final = 30
_MAX_MANIFEST_BYTES: Final = 16 << 20
"""Ten thousand captures with all their notes take less."""

_SAMPLES: Final = 16
_SAMPLE_BYTES: Final = 64 << 10
"""A megabyte is read of a capture of any size; a replaced capture differs in its very times."""

AGAIN: Final = "make it anew with `pcapdiag index`"


@dataclass(frozen=True, slots=True)
class IndexedCapture:
    """One capture of an index."""

    vantage: str
    labelled: bool
    """The vantage's name was given as NAME=PATH."""
    info: CaptureInfo
    digest: str
    """sample_digest of the capture."""
    sha256: str | None
    tunnel_ports: tuple[int, ...] = ()
    """That were taken for GUE beside the usual one."""


def is_index(path: str) -> bool:
    """Whether a file is an index of any layout; False where it cannot be read, or only once."""
    if not Path(path).is_file():
        return False
    try:
        with Path(path).open("rb") as file:
            head = file.read(_NAME_AT + len(_FIRST))
            if not head.startswith(_MAGIC):
                return False
            if head[_NAME_AT:] == _FIRST:
                return True
            return MANIFEST in zipfile.ZipFile(file).namelist()
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


def member(path: str) -> tuple[str, int] | None:
    """Return index and number of a capture inside an index; None for any other path."""
    index, _, number = path.rpartition("/")
    if index and number.isascii() and number.isdigit() and Path(index).is_file():
        return index, int(number)
    return None


def pack(captures: Iterable[IndexedCapture]) -> bytes:
    """Return the manifest of some captures."""
    listed = [asdict(capture) for capture in captures]
    return json.dumps({"layout": LAYOUT, "captures": listed}, indent=1).encode()


def captures(path: str) -> tuple[IndexedCapture, ...]:
    """Return the captures of an index. Raises UnreadableCapture for one that cannot be used."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(MANIFEST) as file:
            listed = json.loads(file.read(_MAX_MANIFEST_BYTES))
        layout = listed["layout"]
        if layout == LAYOUT:
            return tuple(_unpack(item) for item in listed["captures"])
    except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise UnreadableCapture(path, f"is a damaged index ({error}); {AGAIN}") from error
    message = f"is an index of layout {layout!r}, and this version reads {LAYOUT}; {AGAIN}"
    raise UnreadableCapture(path, message)


def _unpack(item: dict[str, Any]) -> IndexedCapture:
    info = item["info"]
    info["interfaces"] = tuple(Interface(**each) for each in info["interfaces"])
    for name in ("link_types", "notes"):
        info[name] = tuple(info[name])
    ports = tuple(item["tunnel_ports"])
    return IndexedCapture(**{**item, "info": CaptureInfo(**info), "tunnel_ports": ports})


def sample_digest(path: str) -> str:
    """Return the SHA-256 over a file's size and sixteen pieces spread over it; raises OSError."""
    result = hashlib.sha256()
    with Path(path).open("rb") as file:
        size = file.seek(0, 2)
        result.update(str(size).encode())
        last = max(0, size - _SAMPLE_BYTES)
        for number in range(_SAMPLES):
            file.seek(last * number // (_SAMPLES - 1))
            result.update(file.read(_SAMPLE_BYTES))
    return result.hexdigest()


def require_unchanged(info: CaptureInfo) -> None:
    """Raise UnreadableCapture where a capture is not, or no longer, what was read of it."""
    try:
        status = Path(info.path).stat()
        now = (status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise UnreadableCapture(info.path, f"is gone by now: {error.strerror}") from error
    if now != (info.size, info.mtime_ns):
        message = "changed while it was indexed; index it again once it is complete"
        raise UnreadableCapture(info.path, message)


def require_fresh(index: str, capture: IndexedCapture) -> None:
    """Raise StaleIndex where the capture stands where it did, and is another one by now.

    A capture that is not there proves nothing: an index may be carried home alone.
    """
    info = capture.info
    try:
        status = Path(info.path).stat()
        if (status.st_size, status.st_mtime_ns) == (info.size, info.mtime_ns):
            return
        changed = sample_digest(info.path) != capture.digest
    except OSError:
        return
    if changed:
        raise StaleIndex(
            index,
            f"is stale: {info.path} has {status.st_size} bytes of another content than the "
            f"{info.size} that were indexed; {AGAIN}",
        )
