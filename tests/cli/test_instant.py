"""Moments as users write them."""

from __future__ import annotations

import pytest

from pcapdiag.cli.instant import Moment, parse

MAY_FIRST = 1_714_557_600 * 10**9  # 2024-05-01T10:00:00Z


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-05-01T10:00:00Z", Moment(MAY_FIRST, False)),
        ("2024-05-01t10:00:00z", Moment(MAY_FIRST, False)),
        (" 2024-05-01 12:00:00+02:00 ", Moment(MAY_FIRST, False)),
        ("2024-05-01T04:30:00-05:30", Moment(MAY_FIRST, False)),
        ("2024-05-01T10:00:00.000000001Z", Moment(MAY_FIRST + 1, False)),
        ("2024-05-01T10:00:00.1234567899Z", Moment(MAY_FIRST + 123_456_789, False)),
        ("2016-12-31T23:59:60Z", Moment(1_483_228_800 * 10**9, False)),
        ("1969-12-31T23:59:59.5Z", Moment(-500_000_000, False)),
        ("+0", Moment(0, True)),
        ("+90", Moment(90 * 10**9, True)),
        ("+1.5", Moment(1_500_000_000, True)),
        ("+0.000000001", Moment(1, True)),
    ],
)
def test_a_moment_is_exact_to_the_nanosecond(text, moment):
    """RFC 3339 with any zone, and seconds from the first packet, mean what they say."""
    assert parse(text) == moment


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "neither a time"),
        ("yesterday", "neither a time"),
        ("90", "neither a time"),
        ("-90", "neither a time"),
        ("+", "neither a time"),
        ("+1e3", "neither a time"),
        ("+\u0661", "neither a time"),
        ("2024-05-01", "neither a time"),
        ("2024-05-01T10:00:00", "no zone"),
        ("2024-05-01T10:00:00.5", "no zone"),
        ("2024-02-30T10:00:00Z", "no time"),
        ("2024-05-01T24:00:00Z", "no time"),
        ("2024-05-01T10:00:61Z", "no time"),
        ("2024-05-01T10:00:00+24:00", "no time"),
        ("2024-05-01T10:00:00+01:60", "no time"),
        ("0001-01-01T00:00:00+01:00", "within 146 years"),
        ("9999-12-31T23:59:59-01:00", "within 146 years"),
        ("+99999999999", "within 146 years"),
        ("+" + "9" * 5000, "within 146 years"),
    ],
)
def test_what_is_no_moment_is_refused_with_the_reason(text, said):
    """A time without a zone, a date that is none, and what no table can hold are errors."""
    with pytest.raises(ValueError, match=said):
        parse(text)
