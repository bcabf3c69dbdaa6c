"""What a dissector is given, and how much of its answer is kept."""

from __future__ import annotations

from typing import Final, NamedTuple

MAX_LINES: Final = 60
"""Of one frame: an ICMP error with its quote has about fifty worth reading."""


class Frame(NamedTuple):
    """The bytes of a frame, without payload, its LINKTYPE_ value and its length on the wire."""

    data: bytes
    linktype: int
    wire_len: int
