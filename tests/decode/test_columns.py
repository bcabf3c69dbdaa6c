"""Structs of arrays behave as tables."""

from __future__ import annotations

import numpy as np
import pytest

from pcapdiag.decode.arp import Neighbours
from pcapdiag.decode.columns import ALL_ROWS, mark, rows_where
from pcapdiag.decode.icmp import Icmp
from pcapdiag.decode.ipvs_sync import SyncEntries
from pcapdiag.decode.link import Link
from pcapdiag.decode.network import Network
from pcapdiag.decode.tcp import Sacks
from pcapdiag.decode.transport import Transport
from pcapdiag.decode.tunnel import Outer
from pcapdiag.decode.vrrp import Vrrp
from pcapdiag.decode_note import DecodeNote

TABLES = [Icmp, Link, Neighbours, Network, Outer, Sacks, SyncEntries, Transport, Vrrp]


@pytest.mark.parametrize("table", TABLES)
def test_every_table_can_be_blank(table):
    """Every annotation names a dtype; a blank table is zero throughout."""
    blank = table.blank(3)
    for name in table.__dataclass_fields__:
        values = getattr(blank, name)
        assert values.shape == (3,)
        assert not values.any()


def test_a_part_is_a_view_and_a_taken_row_is_a_copy():
    """Writing to a part writes to the table, writing to taken rows does not."""
    table = Sacks.blank(4)
    table.part(slice(1, 3)).left[:] = 7
    taken = table.take(np.array([1]))
    taken.left[:] = 9
    assert table.left.tolist() == [0, 7, 7, 0]


def test_join_keeps_the_order_of_parts():
    """Joined parts stand end to end; no part at all is an empty table."""
    first, second = Sacks.blank(1), Sacks.blank(2)
    first.left[:] = 1
    second.left[:] = 2
    assert Sacks.join([first, second]).left.tolist() == [1, 2, 2]
    assert Sacks.join([]).left.tolist() == []


def test_rows_where_everything_holds_needs_no_copy():
    """All rows are a slice, some are their numbers."""
    assert rows_where(np.array([True, True])) is ALL_ROWS
    assert np.array_equal(rows_where(np.array([False, True])), [1])


def test_a_mark_is_added_to_other_marks():
    """Bits that are set stay set."""
    note = np.array([1, 2], dtype=np.uint32)
    mark(note, np.array([True, False]), DecodeNote.IP_CUT)
    assert note.tolist() == [1 | DecodeNote.IP_CUT, 2]
