"""Options of pcapng blocks: type, length, value, padded to four bytes (pcapng 3.5).

An option list that contradicts itself ends the reading in Wireshark (pcapng_process_options), so
it does here: both functions say why.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

END_OF_OPTIONS: Final = 0
COMMENT: Final = 1
CUSTOM: Final = frozenset({2988, 2989, 19372, 19373})
"""Custom options begin with a private enterprise number (pcapng 3.5.1)."""

EPB_FLAGS: Final = 2
EPB_DROPCOUNT: Final = 4
EPB_PACKETID: Final = 5
EPB_QUEUE: Final = 6
EPB_VERDICT: Final = 7

_FIXED_LENGTHS: Final = {EPB_FLAGS: 4, EPB_DROPCOUNT: 8, EPB_PACKETID: 8, EPB_QUEUE: 4}
_EBPF_VERDICTS: Final = frozenset({1, 2})
_EBPF_VERDICT_BYTES: Final = 9

_SLOTS: Final = 16
"""Options of a packet that are read for all packets at once; the rest of longer lists is read one
by one. Capture programs write four at most."""


class BadBlock(ValueError):  # noqa: N818 - named as what was found
    """A block whose contents contradict themselves; the text says how."""


def each(
    data: memoryview, begin: int, end: int, big_endian: bool
) -> Iterator[tuple[int, int, int]]:
    """Yield (code, offset of the value, length) of the options in `data[begin:end]`.

    Raises BadBlock where an option does not fit. What follows opt_endofopt is ignored.
    """
    header = struct.Struct(">HH" if big_endian else "<HH")
    while begin < end:
        if end - begin < 4:
            raise BadBlock(f"{end - begin} bytes are left for an option header of 4")
        code, length = header.unpack_from(data, begin)
        begin += 4
        if (length + 3 & ~3) > end - begin:
            raise BadBlock(f"an option of {length} bytes has {end - begin} bytes left")
        if code == END_OF_OPTIONS:
            return
        if code in CUSTOM and length < 4:
            raise BadBlock(f"a custom option has {length} bytes, at least 4 are needed")
        yield code, begin, length
        begin += length + 3 & ~3


class PacketOptions:
    """What the options of many packet blocks say; arrays have one element a packet."""

    def __init__(self, count: int) -> None:
        self.flags: NDArray[np.uint32] = np.zeros(count, dtype=np.uint32)
        """epb_flags; 0 without."""
        self.dropped: NDArray[np.uint64] = np.zeros(count, dtype=np.uint64)
        """epb_dropcount; 0 without."""
        self.commented: NDArray[np.bool_] = np.zeros(count, dtype=np.bool_)
        self.bad: tuple[int, str] | None = None
        """The first packet whose options contradict themselves, and how."""
        self._has_flags = np.zeros(count, dtype=np.bool_)
        self._has_dropped = np.zeros(count, dtype=np.bool_)

    def _fault(self, row: int, text: str) -> None:
        if self.bad is None or row < self.bad[0]:
            self.bad = (row, text)

    def read(
        self,
        data: NDArray[np.uint8],
        words: NDArray[np.uint32],
        begin: NDArray[np.int64],
        end: NDArray[np.int64],
        big: NDArray[np.bool_],
    ) -> None:
        """Read the options in `data[begin:end]` of every packet; all offsets are multiples of 4.

        `words` is `data` as native 32-bit words; `big` tells the packets of big-endian sections.
        """
        rows = np.flatnonzero(end > begin)
        at = begin[rows] >> 2
        stop = end[rows] >> 2
        swap = big[rows]
        for _ in range(_SLOTS):
            if not len(rows):
                return
            code, length = _code_and_length(words[at], swap)
            size = (length + 7) >> 2
            fits = at + size <= stop
            self._check(data, rows, at, stop, code, length, fits)
            self._keep(words, rows[fits], at[fits], code[fits], swap[fits])
            more = fits & (code != END_OF_OPTIONS) & (at + size < stop)
            rows, at, stop, swap = rows[more], (at + size)[more], stop[more], swap[more]
        view = data.data
        for row, first, last, order in zip(
            rows.tolist(), (at << 2).tolist(), (stop << 2).tolist(), swap.tolist(), strict=True
        ):
            self._read_one(view, row, first, last, order)

    def _check(
        self,
        data: NDArray[np.uint8],
        rows: NDArray[np.int64],
        at: NDArray[np.int64],
        stop: NDArray[np.int64],
        code: NDArray[np.int64],
        length: NDArray[np.int64],
        fits: NDArray[np.bool_],
    ) -> None:
        """Note the first packet among `rows` whose option at `at` cannot be."""
        bad = ~fits
        for known, wanted in _FIXED_LENGTHS.items():
            bad |= (code == known) & (length != wanted)
        bad |= np.isin(code, list(CUSTOM)) & (length < 4)
        bad |= (code == EPB_VERDICT) & (length != _EBPF_VERDICT_BYTES)
        for index in np.flatnonzero(bad).tolist():
            value = int(at[index] + 1) << 2
            left = int(stop[index] << 2) - value
            text = _complaint(data.data, int(code[index]), value, int(length[index]), left)
            if text:
                self._fault(int(rows[index]), text)
                return

    def _keep(
        self,
        words: NDArray[np.uint32],
        rows: NDArray[np.int64],
        at: NDArray[np.int64],
        code: NDArray[np.int64],
        swap: NDArray[np.bool_],
    ) -> None:
        """Keep what is wanted of the options at `at`; of a repeated one the first counts."""
        self.commented[rows[code == COMMENT]] = True
        is_flags = (code == EPB_FLAGS) & ~self._has_flags[rows]
        if is_flags.any():
            target = rows[is_flags]
            # An option of the wrong length may end with the data: _check has noted its packet.
            value = words[np.minimum(at[is_flags] + 1, len(words) - 1)]
            self.flags[target] = np.where(swap[is_flags], value.byteswap(), value)
            self._has_flags[target] = True
        is_count = (code == EPB_DROPCOUNT) & ~self._has_dropped[rows]
        if is_count.any():
            target = rows[is_count]
            one = words[np.minimum(at[is_count] + 1, len(words) - 1)]
            two = words[np.minimum(at[is_count] + 2, len(words) - 1)]
            low = np.where(swap[is_count], two.byteswap(), one).astype(np.uint64)
            high = np.where(swap[is_count], one.byteswap(), two).astype(np.uint64)
            self.dropped[target] = high << np.uint64(32) | low
            self._has_dropped[target] = True

    def _read_one(self, data: memoryview, row: int, begin: int, end: int, big: bool) -> None:
        """Read the options in `data[begin:end]` of one packet."""
        order = ">" if big else "<"
        try:
            for code, value, length in each(data, begin, end, big):
                text = _complaint(data, code, value, length, end - value)
                if text:
                    self._fault(row, text)
                    return
                if code == COMMENT:
                    self.commented[row] = True
                elif code == EPB_FLAGS and not self._has_flags[row]:
                    self.flags[row] = struct.unpack_from(order + "I", data, value)[0]
                    self._has_flags[row] = True
                elif code == EPB_DROPCOUNT and not self._has_dropped[row]:
                    self.dropped[row] = struct.unpack_from(order + "Q", data, value)[0]
                    self._has_dropped[row] = True
        except BadBlock as error:
            self._fault(row, str(error))


def _code_and_length(
    headers: NDArray[np.uint32], swap: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return code and length of option headers, read as little-endian words."""
    little = np.where(swap, headers.byteswap(), headers).astype(np.int64)
    low, high = little & 0xFFFF, little >> 16
    return np.where(swap, high, low), np.where(swap, low, high)


def _complaint(data: memoryview, code: int, value: int, length: int, left: int) -> str | None:
    """Return what is wrong with a packet's option of `length` bytes at `value`, None if nothing."""
    if (length + 3 & ~3) > left:
        return f"an option of {length} bytes has {left} bytes left"
    wanted = _FIXED_LENGTHS.get(code)
    if wanted is not None and length != wanted:
        return f"packet option {code} has {length} bytes, expected {wanted}"
    if code in CUSTOM and length < 4:
        return f"a custom option has {length} bytes, at least 4 are needed"
    if code == EPB_VERDICT:
        if length < 1:
            return "a packet verdict option is empty"
        if data[value] in _EBPF_VERDICTS and length != _EBPF_VERDICT_BYTES:
            return f"a packet verdict option has {length} bytes, expected {_EBPF_VERDICT_BYTES}"
    return None
