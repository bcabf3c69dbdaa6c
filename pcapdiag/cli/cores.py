"""How many cores a run takes: decided before polars is imported, which starts its threads then."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pcapdiag.capture.vantages import VantageInput

VARIABLE: Final = "POLARS_MAX_THREADS"

SMALL_BYTES: Final = 16 << 20
"""Captures of so many bytes together are analysed on one core: waking others for tables of some
thousand rows costs several times the work itself."""


def bound(inputs: Iterable[VantageInput], jobs: int | None = None) -> None:
    """Tell polars how many threads to start: `jobs`, or as many as the inputs are worth.

    Without `jobs` a number that the user has set in the environment stands.
    """
    if jobs is not None:
        os.environ[VARIABLE] = str(jobs)
    elif VARIABLE not in os.environ and _small(inputs):
        os.environ[VARIABLE] = "1"


def _small(inputs: Iterable[VantageInput]) -> bool:
    try:
        sizes = [Path(path).stat().st_size for item in inputs for path in item.paths if path != "-"]
    except OSError:  # the reader says what is wrong with it
        return False
    piped = any(path == "-" for item in inputs for path in item.paths)
    return not piped and sum(sizes) <= SMALL_BYTES
