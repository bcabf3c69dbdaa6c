"""Spoilt samples say what they did when last stored, or more; never anything wrong.

Some samples are spoilt here, each in one way; `PCAPDIAG_DEGRADATIONS=all` tries all ways of all.
`python tests/degradations/matrix.py --update` stores what is new.
"""

from __future__ import annotations

import os

import matrix
import outcomes
import pytest

SAMPLES = matrix.samples()
ALL = os.environ.get("PCAPDIAG_DEGRADATIONS") == "all"
FEW = 30
"""Samples that are spoilt where not all are: a second or two of each."""

CHOSEN = SAMPLES if ALL else SAMPLES[:: -(-len(SAMPLES) // FEW)]


def _one_of(sample):
    """Return the name of one degradation: neighbours get neighbouring ones, so that all occur."""
    names = [item.name for item in matrix.pairs(sample)]
    return frozenset({names[CHOSEN.index(sample) % len(names)]})


@pytest.mark.parametrize("sample", CHOSEN)
def test_spoilt_samples_say_nothing_wrong_and_no_less_than_before(sample):
    """A lossless degradation changes no finding; others may cost some, as stored."""
    found = matrix.run(sample, None if ALL else _one_of(sample))
    assert outcomes.worsened(found, outcomes.read(matrix.STORED)) == []


def test_what_is_stored_is_of_samples_that_are_there():
    """No line is left of a sample or capture that was renamed; where all is tried, none lacks."""
    pairs = {(sample, item.name) for sample in SAMPLES for item in matrix.pairs(sample)}
    pairs |= {(sample, outcomes.UNSPOILED) for sample in SAMPLES}
    stored = set(outcomes.read(matrix.STORED))
    assert stored - pairs == set()
    assert not ALL or pairs - stored == set()


def test_nothing_wrong_is_stored():
    """Precision is 1, and lossless degradations lose nothing."""
    stored = outcomes.read(matrix.STORED)
    assert [key for key, outcome in stored.items() if outcome.wrong] == []
    lossless = {
        (sample, item.name) for sample in SAMPLES for item in matrix.pairs(sample) if item.lossless
    }
    assert sorted(key for key in lossless & set(stored) if not stored[key].identical) == []


def test_both_readmes_say_what_is_stored():
    """They hold the table and the figures that `matrix.py --update` writes."""
    for path, text in (
        (matrix.README, matrix.stored_summary()),
        (matrix.TOP_README, matrix.stored_figures()),
    ):
        assert matrix.BEGIN + text + matrix.END in path.read_text()
