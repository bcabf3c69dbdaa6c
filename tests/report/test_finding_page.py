"""A finding prepared for the page: what is chosen, and under which ids."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pcapdiag.report.finding_page import Limits, finding_pages

LIMITS = Limits(findings=2, evidence=3, flows=5, rows=2, few=1, text=100, command=100)


def test_proof_and_doubt_come_before_support(incident):
    """Where evidence is cut, support goes first; what stays keeps its order and its number."""
    (page,) = finding_pages(incident.findings[1:], LIMITS)
    anchor = incident.findings[1].id
    assert [name for name, _ in page.proofs] == [f"{anchor}-e1", f"{anchor}-e2"]
    assert [name for name, _ in page.counters] == [f"{anchor}-e5"]
    assert page.shown_text == "3 of 112 frames."


def test_lists_are_cut_and_sorted(incident):
    """Facts and hosts stand in the order of their names, so that any order gives equal pages."""
    (page,) = finding_pages(incident.findings[1:], LIMITS)
    assert [name for name, _ in page.facts] == ["direction", "encapsulation"]
    assert page.hosts == (("director", "10.0.0.1"),)
    assert len(finding_pages(incident.findings * 3, LIMITS)) == 2


@pytest.mark.parametrize("odd", ["", "clean", 'a"b-0123456789ab', "x-0123456789AB", "x" * 200])
def test_unsound_ids_become_numbers(odd, incident):
    """An id that is none, or could be one of the page's own, is not used."""
    (page,) = finding_pages([replace(incident.findings[0], id=odd)], LIMITS)
    assert page.anchor == "finding-1"


def test_when_is_as_long_as_it_was(incident):
    """A span, an instant, an end or nothing."""
    base = incident.findings[1]

    def when(first, last):
        finding = replace(base, first_seen_ns=first, last_seen_ns=last)
        return finding_pages([finding], LIMITS)[0].when

    assert when(0, 10**9).endswith("1970-01-01 00:00:01.000000 UTC (1 s)")
    assert when(0, 0) == when(0, None) == "1970-01-01 00:00:00.000000 UTC"
    assert when(None, 0).startswith("until 1970")
    assert when(None, None) == ""
