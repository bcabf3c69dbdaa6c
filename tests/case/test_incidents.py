"""Suspects become incidents: all that are alike, the worst first, so many and no more."""

from __future__ import annotations

import polars as pl

from pcapdiag.case import incidents as module
from pcapdiag.case.incidents import incidents

SUSPECTS = pl.DataFrame(
    {
        "service": ["b", None, "a", "b", None, "c"],
        "code": ["x", "y", "x", "x", "y", "z"],
        "connection": [5, 4, 3, 2, 1, 0],
    }
)


def test_the_incident_with_most_suspects_comes_first():
    """Rows keep their order; null is a value; what is equal is ordered by the keys."""
    found = [part["connection"].to_list() for part in incidents(SUSPECTS, "service", "code")]
    assert found == [[4, 1], [5, 2], [3], [0]]


def test_columns_stay_as_they_are():
    """Nothing is added to what a rule gets."""
    assert {tuple(part.columns) for part in incidents(SUSPECTS, "code")} == {
        ("service", "code", "connection")
    }


def test_nothing_makes_no_incident():
    """Neither does a table without rows."""
    assert list(incidents(SUSPECTS.clear(), "service", "code")) == []


def test_incidents_are_capped(monkeypatch):
    """Those with fewer suspects are left out."""
    monkeypatch.setattr(module, "MAX_INCIDENTS", 2)
    assert [part.height for part in incidents(SUSPECTS, "service", "code")] == [2, 2]
