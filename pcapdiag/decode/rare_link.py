"""Link types without a decoder of their own: scapy is asked where the network layer begins.

Decoding goes on in columns from there. scapy dissects some thousand frames a second, so only the
first frames of a capture are asked about; frames that begin with the same bytes as an earlier one
up to its network layer are not asked about again.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pcapdiag.decode_note import DecodeNote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pcapdiag.decode.columns import Indices, Offsets
    from pcapdiag.decode.fetch import Bytes
    from pcapdiag.decode.link import Link

MAX_FRAMES: Final = 200_000
"""Frames of one capture that scapy dissects: about half a minute."""

_LAYERS: Final = ("l2", "inet", "inet6", "dot11", "dot15d4", "ppi", "ppp", "pflog")
"""scapy modules that know links which carry IP; all of them take over a second to import."""

_MAX_BYTES: Final = 512
"""Given to scapy of a frame: the network layer begins well before that."""

_MAX_LAYERS: Final = 32
_HEADER_BYTES: Final = 20
"""Of a network layer, by which it is found in the frame: scapy tells no offsets."""

_KNOWN_PREFIXES: Final = 4096
_KNOWN_LENGTHS: Final = 8
"""Link headers remembered, and their lengths: more means that they hold counters or times and
never repeat."""


class RareLinks:
    """Asks scapy, and counts how often; one object serves one capture."""

    def __init__(self, limit: int = MAX_FRAMES) -> None:
        """`limit` is how many frames may be asked about."""
        self._left = limit
        self._classes: dict[int, Any] = {}
        self._known: dict[tuple[int, bytes], int] = {}
        self._lengths: dict[int, set[int]] = {}

    def decode(
        self,
        source: Bytes,
        out: Link,
        linktype: int,
        rows: Indices,
        start: Offsets,
        kept: Offsets,
    ) -> None:
        """Write version and start of the network layer of `rows`, all of `linktype`."""
        dissector = self._dissector(linktype)
        asked = rows[: self._left] if dissector is not None else rows[:0]
        self._left -= asked.size
        with _quiet():
            found = [
                self._ask(dissector, linktype, source.frame(first, min(first + _MAX_BYTES, end)))
                for first, end in zip(
                    start[: asked.size].tolist(), kept[: asked.size].tolist(), strict=True
                )
            ]
        answers = np.array(found, dtype=np.int64).reshape(-1, 2)
        out.version[asked] = answers[:, 0]
        out.start[asked] = start[: asked.size] + answers[:, 1]
        note = np.full(rows.size, np.uint32(DecodeNote.UNKNOWN_LINKTYPE), dtype=np.uint32)
        if dissector is not None:
            note[asked.size :] = np.uint32(DecodeNote.BEYOND_SCAPY_LIMIT)
        note[: asked.size][answers[:, 0] >= 4] = 0
        note[: asked.size][answers[:, 0] == 1] = np.uint32(DecodeNote.NOT_IP)
        out.note[rows] |= note

    def _dissector(self, linktype: int) -> Any:
        """Return scapy's class for a link type, None where it has none."""
        if linktype not in self._classes:
            self._classes[linktype] = _scapy_class(linktype)
        return self._classes[linktype]

    def _ask(self, dissector: Any, linktype: int, data: bytes) -> tuple[int, int]:
        """Return (version, offset) of the network layer; version 1 is ARP, 0 none."""
        for length in self._lengths.get(linktype, ()):
            version = self._known.get((linktype, data[:length]))
            if version is not None and _plausible(version, data, length):
                return version, length
        version, offset = _network_layer(dissector, data)
        lengths = self._lengths.setdefault(linktype, set())
        if version and len(self._known) < _KNOWN_PREFIXES and len(lengths) < _KNOWN_LENGTHS:
            self._known[linktype, data[:offset]] = version
            lengths.add(offset)
        return version, offset


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep scapy's warnings, which are about hostile bytes, off the user's terminal."""
    logger = logging.getLogger("scapy")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _scapy_class(linktype: int) -> Any:
    with _quiet():
        for name in _LAYERS:
            importlib.import_module(f"scapy.layers.{name}")
        config = importlib.import_module("scapy.config")
    return config.conf.l2types.num2layer.get(linktype)


def _network_layer(dissector: Any, data: bytes) -> tuple[int, int]:
    """Dissect one frame; whatever scapy raises on hostile bytes, there is no network layer."""
    try:
        layer = dissector(data)
        for _ in range(_MAX_LAYERS):
            version = {"IP": 4, "IPv6": 6, "ARP": 1}.get(type(layer).__name__, 0)
            if version:
                offset = data.find(layer.original[:_HEADER_BYTES])
                return (version, offset) if _plausible(version, data, offset) else (0, 0)
            layer = layer.payload
    except Exception:  # noqa: BLE001 - scapy's dissectors raise anything
        return 0, 0
    return 0, 0


def _plausible(version: int, data: bytes, offset: int) -> bool:
    """Whether the byte at `offset` may begin that layer: it may be another one's that is alike."""
    if not 0 <= offset < len(data):
        return False
    return version == 1 or data[offset] >> 4 == version
