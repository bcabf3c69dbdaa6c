"""Phrases read as English."""

from __future__ import annotations

import pytest

from pcapdiag.case.phrases import counted


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 packets"), (1, "1 packet"), (2, "2 packets"), (21, "21 packets")]
)
def test_only_one_is_singular(count, text):
    """None is many."""
    assert counted(count, "packet") == text
