"""Options of packet blocks: all packets at once and one by one give the same answer."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcapdiag.capture import options


def _option(code, value, order="<"):
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def _read(lists):
    """Return what is read of the option lists, each a pair (bytes, big-endian)."""
    data, begin, end = b"", [], []
    for content, _ in lists:
        begin.append(len(data))
        data += content
        end.append(len(data))
    data += bytes(4)
    array = np.frombuffer(data, dtype=np.uint8)
    found = options.PacketOptions(len(lists))
    found.read(
        array,
        array.view(np.uint32),
        np.array(begin, dtype=np.int64),
        np.array(end, dtype=np.int64),
        np.array([big for _, big in lists], dtype=np.bool_),
    )
    return found


def test_flags_drops_and_comments():
    """What is wanted is found behind other options, in either byte order; the first counts."""
    lists = []
    for order in "<>":
        content = _option(3, b"hash!", order) + _option(2, struct.pack(order + "I", 5), order)
        content += _option(2, struct.pack(order + "I", 6), order)
        content += _option(4, struct.pack(order + "Q", 1 << 33), order) + _option(1, b"hi", order)
        lists.append((content, order == ">"))
    lists.append((b"", False))
    lists.append((_option(0, b"") + _option(2, b"1234"), False))
    found = _read(lists)
    assert found.flags.tolist() == [5, 5, 0, 0]
    assert found.dropped.tolist() == [1 << 33, 1 << 33, 0, 0]
    assert found.commented.tolist() == [True, True, False, False]
    assert found.bad is None


def test_long_lists_are_read_to_their_end():
    """Options behind those that are read for all packets at once count too."""
    many = _option(3, b"x") * 40
    found = _read([(many + _option(2, struct.pack("<I", 2)) + _option(1, b"c"), False)])
    assert (found.flags[0], found.commented[0]) == (2, True)
    found = _read([(many, False), (many + _option(4, b"123"), False)])
    assert found.bad == (1, "packet option 4 has 3 bytes, expected 8")


def test_the_first_packet_at_fault_is_told():
    """A later packet's fault comes to light earlier when it stands in its first option."""
    late = _option(3, b"") * 5 + _option(2, b"")
    early = _option(2, b"12345")
    found = _read([(b"", False), (late, False), (early, False)])
    assert found.bad == (1, "packet option 2 has 0 bytes, expected 4")


_CODES = st.sampled_from([0, 1, 2, 3, 4, 5, 6, 7, 8, 2988, 19373])


@st.composite
def _lists(draw):
    big = draw(st.booleans())
    parts = draw(st.lists(st.tuples(_CODES, st.binary(max_size=10)), max_size=8))
    content = b"".join(_option(code, value, ">" if big else "<") for code, value in parts)
    if content and draw(st.booleans()):
        place = draw(st.integers(0, len(content) - 1))
        content = content[:place] + draw(st.binary(min_size=1, max_size=1)) + content[place + 1 :]
    return content, big


@settings(max_examples=300, deadline=None)
@given(st.lists(_lists(), min_size=1, max_size=5))
def test_all_at_once_is_one_by_one(lists):
    """Both ways of reading agree on flags, drops, comments and on the first fault."""
    with pytest.MonkeyPatch.context() as patch:
        together = _read(lists)
        patch.setattr(options, "_SLOTS", 0)
        apart = _read(lists)
    assert (together.bad is None) == (apart.bad is None)
    good = len(lists) if apart.bad is None else apart.bad[0]
    if apart.bad is not None:
        assert together.bad[0] == good
    for name in ("flags", "dropped", "commented"):
        assert getattr(together, name)[:good].tolist() == getattr(apart, name)[:good].tolist()
