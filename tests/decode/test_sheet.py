"""Tables filled batch by batch: nothing of one batch shows in another, whatever room there was."""

from __future__ import annotations

import mmap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcapdiag import schema
from pcapdiag.decode import sheet
from pcapdiag.decode.sheet import Sheet

BATCHES = st.lists(
    st.lists(
        st.tuples(st.integers(0, 65535), st.booleans(), st.integers(0, 3), st.booleans()),
        max_size=9,
    ),
    min_size=1,
    max_size=6,
)


@settings(deadline=None, max_examples=60)
@given(batches=BATCHES, skipped=st.sets(st.integers(0, 5)), room=st.integers(0, 40))
def test_what_was_put_is_what_the_table_holds(batches, skipped, room):
    """Values where they hold, null elsewhere and in batches that put none."""
    made = Sheet("packets", len(batches[0]), room)
    vlan, mss, direction, df = [], [], [], []
    for number, rows in enumerate(batches):
        if number:
            made.go_on(len(rows))
        values = np.array([row[0] for row in rows], dtype=np.uint16)
        valid = np.array([row[1] for row in rows], dtype=np.bool_)
        made.put(None, vlan=values)
        vlan += values.tolist()
        if number in skipped:
            mss += [None] * len(rows)
            direction += [None] * len(rows)
        else:
            written = made.column("tcp_mss")
            written[:] = values
            made.put(valid, tcp_mss=written)
            made.put_codes("direction", np.array([row[2] for row in rows], dtype=np.uint8))
            mss += [row[0] if row[1] else None for row in rows]
            direction += [(None, "in", "out", "other")[row[2]] for row in rows]
        made.put(valid, df=np.array([row[3] for row in rows], dtype=np.bool_))
        df += [row[3] if row[1] else None for row in rows]
    assert len(made) == len(vlan)
    frame = made.frame()
    assert frame.schema == schema.empty("packets").schema
    for name, values in (("vlan", vlan), ("tcp_mss", mss), ("direction", direction), ("df", df)):
        assert frame[name].to_list() == values, name
    assert frame["eth_src"].null_count() == len(vlan)


@pytest.mark.parametrize("room", [0, 500, 30_000])
def test_columns_that_are_mapped_grow_like_others(monkeypatch, room):
    """Too little room costs a copy and nothing else; what was written but never put is null."""
    monkeypatch.setattr(sheet, "_MAPPED_BYTES", 64)
    made = Sheet("packets", 500, room)
    for number in range(20):
        if number:
            made.go_on(500)
        made.put(None, tcp_seq=np.arange(500, dtype=np.uint32) + number * 500)
        made.column("tcp_ack")[:] = 7
    frame = made.frame()
    assert frame["tcp_seq"].to_list() == list(range(10_000))
    assert frame["tcp_ack"].null_count() == 10_000


@pytest.mark.skipif(sheet._HUGE is None, reason="no huge pages here")
def test_room_to_spare_is_given_back():
    """Of a column's memory the pages behind its last row hold nothing any more, and no other."""
    page = mmap.PAGESIZE
    column = sheet._zeros(1 << 20, np.uint8)
    column[:] = 1
    sheet._trim(column, page + 1)
    assert column[: 2 * page].all()
    assert not column[2 * page :].any()
