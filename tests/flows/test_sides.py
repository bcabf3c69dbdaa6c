"""Packets in order of flow and side, and what is counted of each side."""

from __future__ import annotations

import numpy as np
import pytest
from traces import trace

from pcapdiag.flows import conversations, sides
from pcapdiag.flows.arrays import Columns
from pcapdiag.flows.five_tuple import keys_of
from pcapdiag.flows.sides import Measures, Sides

TEXT = """
0 c:1>s S seq=0
1 c:2>s S seq=0
2 s>c:1 SA seq=0 ack=1
3 s>c:2 SA seq=0 ack=1
4 c:1>s A seq=1 ack=1
5 c:3>s S seq=0
6 s>c:1 FA seq=1 ack=1
"""


def arranged(text: str) -> Sides:
    """Return the sides of a trace without second sights."""
    packets = Columns(trace(text).decoded().packets)
    keys = keys_of(packets)
    return conversations.find(packets, keys, keys.has_ports).sides


def test_order() -> None:
    """Flows by first packet, originator first, rows ascending."""
    made = arranged(TEXT)
    assert made.rows.tolist() == [0, 4, 2, 6, 1, 3, 5]
    assert made.starts.tolist() == [0, 2, 4, 5, 6]
    assert made.side.tolist() == [0, 1, 2, 3, 4]
    assert made.side_of_row().tolist() == [0, 2, 1, 3, 0, 4, 1]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 100])
def test_blocks_hold_whole_flows(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks together are the whole, and no flow is in two of them."""
    monkeypatch.setattr(sides, "BLOCK", size)
    made = arranged(TEXT)
    blocks = list(made.blocks())
    assert np.concatenate([block.rows for block in blocks]).tolist() == made.rows.tolist()
    assert np.concatenate([block.side for block in blocks]).tolist() == made.side.tolist()
    flows = [set((block.side >> 1).tolist()) for block in blocks]
    assert sum(map(len, flows)) == 3
    assert all(block.starts[0] == 0 for block in blocks)
    assert all(len(block.rows) <= max(size, 4) for block in blocks)


def test_values_are_measured_alike_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flows are the same however many packets are measured at once."""
    whole = trace(TEXT).tables().flows
    monkeypatch.setattr(sides, "BLOCK", 2)
    assert trace(TEXT).tables().flows.equals(whole)


def test_unknown_and_otherwise() -> None:
    """A side that was not put is unknown, or has the value that was agreed."""
    measures = Measures(4, {})
    measures.put("a", np.array([1, 3]), np.array([7, 8]), known=np.array([True, False]))
    measures.put("b", np.array([1]), np.array([7]), otherwise=0)
    held, known = measures.columns["a"]
    assert known is not None
    assert (held.tolist(), known.tolist()) == ([0, 7, 0, 8], [False, True, False, False])
    assert measures.columns["b"][0].tolist() == [0, 7, 0, 0]
    assert measures.columns["b"][1] is None
