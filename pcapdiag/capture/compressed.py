"""Compressed captures: gzip, zstd, lz4 and xz streams, members one behind the other.

A compressed stream is read like a file, in bounded memory whatever it says of itself.
"""

from __future__ import annotations

import lzma
import zlib
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from pcapdiag.capture.source import ByteSource

_INPUT_BYTES: Final = 64 << 10
"""Compressed bytes given to a decompressor at once."""

_OUTPUT_BYTES: Final = 256 << 10
"""Bytes asked of a decompressor at once, which is what damage costs at most before its place."""

_MEMORY_LIMIT: Final = 256 << 20
"""Bytes that a decompressor's own window may take: xz -9 needs 65 MiB, zstd --ultra -22 128 MiB."""

_BOMB_BYTES: Final = 4 << 30
_BOMB_RATIO: Final = 200
"""A stream that gave 4 GiB at more than 200:1 is taken for a bomb: the bytes that vary in every
header alone keep captures of traffic below that."""

_LONGEST_MAGIC: Final = 6


class BrokenStream(OSError):  # noqa: N818 - named as what was found
    """A compressed stream that cannot be read on; the text says why."""


class _Member(Protocol):
    """One compressed stream of possibly several in a file."""

    error: type[Exception]
    """Raised by `decompress` for damaged bytes."""

    @property
    def eof(self) -> bool:
        """Whether the stream's end was reached."""

    @property
    def unused(self) -> bytes:
        """Bytes behind the stream's end."""

    @property
    def hungry(self) -> bool:
        """Whether no output is to be had without further input."""

    def decompress(self, compressed: bytes) -> bytes:
        """Return some output, bounded; `compressed` is empty where not hungry."""


class _Gzip:
    """RFC 1952. What comes before damage is given before the error."""

    error: type[Exception] = zlib.error

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(wbits=31)
        self._filled = False
        self._damage: zlib.error | None = None

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused(self) -> bytes:
        return self._stream.unused_data

    @property
    def hungry(self) -> bool:
        return not (self._filled or self._stream.unconsumed_tail or self._damage)

    def decompress(self, compressed: bytes) -> bytes:
        if self._damage is not None:
            raise self._damage
        compressed = self._stream.unconsumed_tail + compressed
        before = self._stream.copy()
        try:
            result = self._stream.decompress(compressed, _OUTPUT_BYTES)
        except zlib.error as error:
            self._damage = error
            result, good, bad = b"", 0, len(compressed)
            while good < bad - 1:  # the longest part of the input that is not damaged
                middle = (good + bad) // 2
                try:
                    result = before.copy().decompress(compressed[:middle], _OUTPUT_BYTES)
                    good = middle
                except zlib.error:
                    bad = middle
        self._filled = len(result) == _OUTPUT_BYTES
        return result


class _Xz:
    """The .xz format (https://tukaani.org/xz/xz-file-format.txt)."""

    error: type[Exception] = lzma.LZMAError

    def __init__(self) -> None:
        self._stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY_LIMIT)

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused(self) -> bytes:
        return self._stream.unused_data

    @property
    def hungry(self) -> bool:
        return self._stream.needs_input

    def decompress(self, compressed: bytes) -> bytes:
        return self._stream.decompress(compressed, _OUTPUT_BYTES)


class _Lz4:
    """LZ4 frames (https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md)."""

    error: type[Exception] = RuntimeError

    def __init__(self) -> None:
        import lz4.frame  # noqa: PLC0415 - few captures need it

        self._stream = lz4.frame.LZ4FrameDecompressor()

    @property
    def eof(self) -> bool:
        return bool(self._stream.eof)

    @property
    def unused(self) -> bytes:
        return self._stream.unused_data or b""

    @property
    def hungry(self) -> bool:
        return bool(self._stream.needs_input)

    def decompress(self, compressed: bytes) -> bytes:
        return bytes(self._stream.decompress(compressed, _OUTPUT_BYTES))


class _Zstd:
    """RFC 8878.

    The binding bounds no output, so it is fed in slices that cannot give much: a block of 4 bytes
    stands for 128 KiB at most.
    """

    _SLICE: Final = 512

    def __init__(self) -> None:
        import zstandard  # noqa: PLC0415 - few captures need it

        self.error: type[Exception] = zstandard.ZstdError
        self._stream = zstandard.ZstdDecompressor(max_window_size=_MEMORY_LIMIT).decompressobj()
        self._waiting = memoryview(b"")

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused(self) -> bytes:
        return self._stream.unused_data + bytes(self._waiting)

    @property
    def hungry(self) -> bool:
        return not self._waiting

    def decompress(self, compressed: bytes) -> bytes:
        if compressed:
            self._waiting = memoryview(compressed)
        part, self._waiting = self._waiting[: self._SLICE], self._waiting[self._SLICE :]
        return self._stream.decompress(part)


_KINDS: Final[dict[bytes, tuple[str, Callable[[], _Member]]]] = {
    b"\x1f\x8b": ("gzip", _Gzip),
    b"\xfd7zXZ\0": ("xz", _Xz),
    b"\x04\x22\x4d\x18": ("lz4", _Lz4),
    b"\x28\xb5\x2f\xfd": ("zstd", _Zstd),
    **{bytes([0x50 + number]) + b"\x2a\x4d\x18": ("zstd", _Zstd) for number in range(16)},
}
"""Magic numbers; the last sixteen are zstd's skippable frames, which pzstd writes first."""


def kind_of(head: bytes) -> str | None:
    """Return "gzip", "zstd", "lz4" or "xz" for the first bytes of a file, None for others."""
    found = _find(head)
    return found[0] if found else None


def _find(head: bytes) -> tuple[str, Callable[[], _Member]] | None:
    return next((kind for magic, kind in _KINDS.items() if head.startswith(magic)), None)


class Decompressor:
    """The bytes inside a compressed source, as a source; `head` was already read from it.

    A damaged or truncated stream raises BrokenStream, once all bytes before the damage were given.
    """

    def __init__(self, source: ByteSource, head: bytes) -> None:
        kind = _find(head)
        if kind is None:
            raise BrokenStream("not compressed in a known way")
        self.kind, self._member = kind[0], kind[1]()
        self.remark: str | None = None
        """What is to be said about the stream although it could be read."""
        self._source = source
        self._head = head
        self._input = b""
        self._buffer = bytearray(_INPUT_BYTES)
        self._output = memoryview(b"")
        self._taken = 0
        self._given = 0
        self._at_end = False

    def readinto(self, buffer: memoryview) -> int:
        """Fill the start of `buffer`; return how many bytes, 0 only at the end."""
        while not self._output:
            if self._at_end:
                return 0
            self._output = memoryview(self._next())
        count = min(len(buffer), len(self._output))
        buffer[:count] = self._output[:count]
        self._output = self._output[count:]
        self._given += count
        return count

    def _next(self) -> bytes:
        """Return some more output; empty ones may come before the end."""
        if self._given > max(_BOMB_BYTES, _BOMB_RATIO * self._taken):
            self._at_end = True
            raise BrokenStream(
                f"the {self.kind} stream grows to more than {_BOMB_RATIO} times its size; "
                "decompress the file first if that is what it should do"
            )
        if self._member.eof:
            return self._next_member()
        taken = b""
        if self._member.hungry:
            taken, self._input = self._input or self._read(), b""
            if not taken:
                self._at_end = True
                raise BrokenStream(
                    f"the {self.kind} stream is cut short: it ends at its byte {self._taken}"
                )
        try:
            return self._member.decompress(taken)
        except (self._member.error, EOFError, MemoryError) as error:
            self._at_end = True
            raise BrokenStream(
                f"the {self.kind} stream is damaged before its byte {self._taken}: {error}"
            ) from None

    def _next_member(self) -> bytes:
        """Start the member behind the one that ended, where there is one; return no output."""
        rest = (self._member.unused + self._input).lstrip(b"\0")  # xz and tapes pad with zeros
        self._input = b""
        while len(rest) < _LONGEST_MAGIC:
            more = self._read()
            if not more:
                break
            rest = (rest + more).lstrip(b"\0")
        kind = _find(rest)
        if kind is not None and kind[0] == self.kind:
            self._member = kind[1]()
            self._input = rest
        else:
            self._at_end = True
            if rest:
                self.remark = f"what follows the {self.kind} stream is none and was left out"
        return b""

    def _read(self) -> bytes:
        """Return the next compressed bytes."""
        if self._head:
            found, self._head = self._head[:_INPUT_BYTES], self._head[_INPUT_BYTES:]
        else:
            found = bytes(self._buffer[: self._source.readinto(memoryview(self._buffer))])
        self._taken += len(found)
        return found
