"""What the name of a capture file tells: the vantage, the place in a ring, the host's role."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pcapdiag.text import clean

if TYPE_CHECKING:
    from collections.abc import Iterable

_COMPRESSION = re.compile(r"\.(?:gz|zst|zstd|lz4|xz)\Z", re.IGNORECASE)
_CAPTURE = re.compile(r"\.(?:pcapng|pcap|cap|dmp|ntar)(?P<ring>\d*)\Z", re.IGNORECASE)
"""With the number that `tcpdump -C` and `-W` append."""
_ROTATED = re.compile(
    r"(?P<name>.+\.(?:pcapng|pcap|cap|dmp|ntar))\.(?P<ring>\d{1,6})\Z", re.IGNORECASE
)
"""With the number that logrotate appends."""
_DUMPCAP = re.compile(r"_(?P<ring>\d{5,})_\d{14}\Z|_\d{14}_(?P<last>\d{5,})\Z")
"""`dumpcap -b` and `editcap -c`: a running number and a time."""

_WORDS = re.compile(r"[-_.\d]+")
_ROLES: Final = {
    "director": "director",
    "lb": "director",
    "rs": "realserver",
    "realserver": "realserver",
    "real": "realserver",
    "client": "client",
    "router": "router",
    "fw": "router",
}
"""First words of names, and the roles they tell."""

_NAMELESS: Final = "capture"


def looks_like_capture(path: str) -> bool:
    """Tell whether the file's name says that it is a capture."""
    name = uncompressed_name(path)
    return bool(_CAPTURE.search(name) or _ROTATED.match(name))


def uncompressed_name(path: str) -> str:
    """Return the file's name without the suffix of a compression."""
    return _COMPRESSION.sub("", Path(path).name)


def stem_and_ring(path: str) -> tuple[str, int | None]:
    """Return a file's name without capture and compression suffixes, and its ring number.

    `x.pcap`, `x.pcap3`, `x_00003_20240101120000.pcapng.gz` and `x.pcap.3` all have the stem x. The
    stem is cleaned and never empty.
    """
    name = uncompressed_name(path)
    ring: str | None = None
    rotated = _ROTATED.match(name)
    if rotated:
        name, ring = rotated["name"], rotated["ring"]
    suffix = _CAPTURE.search(name)
    if suffix:
        name, ring = name[: suffix.start()], suffix["ring"] or ring
    number = _DUMPCAP.search(name)
    if number and number.start():
        name, ring = name[: number.start()], number["ring"] or number["last"]
    return clean_name(name), int(ring[-9:]) if ring else None


def clean_name(name: str) -> str:
    """Return `name` as one printable line that is not empty."""
    return clean(name) or _NAMELESS


def role_of(name: str) -> str | None:
    """Return the role that a vantage's name begins with, None where it tells none."""
    first = next((word for word in _WORDS.split(name) if word), "")
    return _ROLES.get(first.lower())


def with_folders(base: str, folder: Path, others: Iterable[tuple[str, Path]]) -> str:
    """Return `base` with as many folder names in front as tell it from `others`.

    `folder` is the absolute path of the folder it stands in, `others` the pairs (base, folder)
    that must be told apart.
    """
    parts = folder.parts[1:]  # without the root
    rivals = [rival.parts[1:] for name, rival in others if name == base]
    for count in range(1, len(parts) + 1):
        tail = parts[-count:]
        if all(rival[-count:] != tail for rival in rivals):
            return clean_name("-".join([*tail, base]))
    return clean_name("-".join([*parts, base]))
