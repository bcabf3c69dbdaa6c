"""No window shows a byte that its row may not see."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pcapdiag.decode import fetch
from pcapdiag.decode.fetch import Bytes

ROWS = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), min_size=1, max_size=20)


def _window(data: bytes, rows, width):
    pairs = np.array([(start, min(end, len(data))) for start, end in rows], dtype=np.int64)
    return Bytes(np.frombuffer(data, np.uint8)).window(pairs[:, 0], pairs[:, 1], width)


def _slice(data: bytes, start: int, end: int, width: int) -> bytes:
    return data[start : min(start + width, end)]


@settings(deadline=None)
@given(st.binary(max_size=200), ROWS, st.sampled_from([8, 24, 40, 64]))
def test_a_window_is_a_slice_padded_with_zeros(data, rows, width):
    """Up to `end` the bytes are the block's, behind it they are zero, wherever the row lies."""
    window = _window(data, rows, width)
    for index, (start, end) in enumerate(rows):
        expected = _slice(data, start, end, width)
        assert bytes(window.raw[index]) == expected.ljust(width, b"\0")
        assert window.kept[index] == len(expected)


@settings(deadline=None)
@given(st.binary(min_size=64, max_size=200), ROWS, st.integers(0, 32))
def test_fields_are_in_network_order(data, rows, offset):
    """Every width of field reads big-endian at its offset."""
    window = _window(data, rows, 40)
    for index in range(len(rows)):
        raw = bytes(window.raw[index])

        def field(size, raw=raw):
            return int.from_bytes(raw[offset : offset + size], "big")

        assert window.u8(offset)[index] == field(1)
        assert window.u16(offset)[index] == field(2)
        assert window.u32(offset)[index] == field(4)
        assert window.u64(offset)[index] == field(8)
        assert window.mac(offset)[index] == field(6)


@settings(deadline=None)
@given(st.binary(min_size=64, max_size=64), st.lists(st.integers(0, 36), min_size=1, max_size=9))
def test_at_reads_at_an_offset_of_each_row(data, offsets):
    """Rows may read at different offsets, one to four bytes."""
    window = _window(data, [(0, 64)] * len(offsets), 40)
    rows = np.arange(len(offsets))
    for size in (1, 2, 3, 4):
        found = window.at(rows, np.array(offsets, dtype=np.intp), size)
        assert found.tolist() == [int.from_bytes(data[o : o + size], "big") for o in offsets]


def _little_endian_sum(piece: bytes) -> int:
    padded = piece.ljust(-(-len(piece) // 4) * 4, b"\0")
    return sum(int.from_bytes(padded[at : at + 4], "little") for at in range(0, len(padded), 4))


@settings(deadline=None)
@given(
    st.binary(min_size=1, max_size=400),
    st.lists(st.tuples(st.integers(0, 399), st.integers(0, 400)), min_size=1, max_size=12),
    st.integers(1, 5),
)
def test_sums_cover_exactly_the_bytes_asked_for(data, pieces, at_once):
    """Whatever the lengths are and however many rows are summed at once."""
    start = np.array([min(first, len(data)) for first, _ in pieces], dtype=np.int64)
    length = np.array([size for _, size in pieces], dtype=np.int64)
    length = np.minimum(length, len(data) - start)
    before = fetch._CELLS_AT_ONCE
    fetch._CELLS_AT_ONCE = at_once
    try:
        sums = Bytes(np.frombuffer(data, np.uint8)).words_summed(start, length)
    finally:
        fetch._CELLS_AT_ONCE = before
    expected = [
        _little_endian_sum(data[first : first + size])
        for first, size in zip(start.tolist(), length.tolist(), strict=True)
    ]
    assert sums.tolist() == expected


def test_an_empty_block_has_empty_windows():
    """No data at all is no special case for the callers."""
    window = _window(b"", [(0, 0), (5, 9)], 16)
    assert window.raw.tolist() == [[0] * 16] * 2
    assert window.kept.tolist() == [0, 0]
