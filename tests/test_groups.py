"""Tests that share what takes long to make run in one process, one behind the other.

`xdist_group` says which; where it is not heeded nothing fails, and all is made once a worker.
"""

from __future__ import annotations

import pytest

RAN: list[str] = []


@pytest.mark.xdist_group("one behind the other")
@pytest.mark.parametrize("number", range(4))
def test_a_group_is_not_scattered(request, number):
    """Each of a group finds those before it done in its own process."""
    assert number < 4
    here = [item.name for item in request.session.items if item.path == request.node.path]
    RAN.append(request.node.name)
    assert here[: len(RAN)] == RAN
