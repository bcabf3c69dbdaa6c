"""Times as text: exact, UTC, in units that read well."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcapdiag.report import instants

NOON = 1_714_564_800_000_000_000


def test_iso_has_nanoseconds_and_z():
    """The form is the one of the JSON Schema, before 1970 too."""
    assert instants.iso(NOON + 1) == "2024-05-01T12:00:00.000000001Z"
    assert instants.iso(-1) == "1969-12-31T23:59:59.999999999Z"
    assert instants.iso(np.iinfo(np.int64).min)[:4] == "1677"


@given(st.integers(-(2**63), 2**63 - 1))
def test_iso_reads_back(time_ns):
    """Every int64 comes back exactly."""
    assert instants.from_iso(instants.iso(time_ns)) == time_ns


@pytest.mark.parametrize(
    "text",
    [
        "2024-05-01T12:00:00Z",
        "2024-05-01T12:00:00.000000000+00:00",
        "2024-13-01T12:00:00.000000000Z",
        "2024-05-01T12:00:00.000000000Z\n",
        "2263-05-01T12:00:00.000000000Z",
        "٢٠٢٤-05-01T12:00:00.000000000Z",
    ],
)
def test_other_forms_are_refused(text):
    """A time that was not written by pcapdiag is no time."""
    with pytest.raises(ValueError, match=r"2024|2263|month"):
        instants.from_iso(text)


def test_readable_forms():
    """People get microseconds, and the date once."""
    assert instants.readable(NOON + 1_234_567) == "2024-05-01 12:00:00.001234 UTC"
    assert instants.clock(NOON + 1_234_567) == "12:00:00.001234"
    assert instants.span(NOON, NOON + 10**9) == "2024-05-01 12:00:00 to 12:00:01 UTC"
    assert instants.span(NOON, NOON + 86_400 * 10**9) == (
        "2024-05-01 12:00:00 to 2024-05-02 12:00:00 UTC"
    )
    assert instants.span(None, NOON) == "no times"


@pytest.mark.parametrize(
    ("span_ns", "text"),
    [
        (0, "0 ns"),
        (-40_000, "-40 µs"),
        (1_250_000, "1.25 ms"),
        (119 * 10**9, "119 s"),
        (120 * 10**9, "2 min"),
        (7200 * 10**9, "2 h 0 min"),
        (3 * 86_400 * 10**9, "3 d 0 h"),
    ],
)
def test_duration_picks_its_unit(span_ns, text):
    """Three digits in the unit that reads best."""
    assert instants.duration(span_ns) == text
