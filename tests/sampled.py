"""Samples as they are read: once for all tests of one that a worker runs one behind the other."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import pytest
import truths

from pcapdiag import engine
from pcapdiag.capture.vantages import resolve

if TYPE_CHECKING:
    from pathlib import Path

    from pcapdiag.capture.vantages import VantageInput


def alone(folder: Path) -> pytest.MarkDecorator:
    """Return the mark that sends all tests of a sample to one worker."""
    return pytest.mark.xdist_group(f"{folder.parent.name}-{folder.name}")


def inputs(folder: Path) -> list[VantageInput]:
    """Return the captures of a sample as its truth labels them."""
    truth = truths.read(folder)
    labelled = [
        f"{truths.vantage(truth, item)}={folder / item['file']}" for item in truth["captures"]
    ]
    found, errors = resolve(labelled)
    assert not errors
    return found


def load(folder: Path) -> engine.Loaded:
    """Return a sample read anew, so that nothing is known yet of what its tables say."""
    loaded = engine.load(inputs(folder))
    assert not loaded.failures
    return loaded


@lru_cache(maxsize=1)
def loaded(folder: Path) -> engine.Loaded:
    """Return a sample that is read once, with what other tests made of its case."""
    return load(folder)
