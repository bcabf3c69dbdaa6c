"""`--since` and `--until`: a moment as the user writes it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Final, NamedTuple

_SECOND: Final = 1_000_000_000

_LARGEST: Final = 2**62 - 1
"""Nanoseconds, 146 years: tables hold times in 64 bits, and an offset must fit beside a time."""

_RFC3339: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:([Zz])|([+-])(\d\d):(\d\d))?",
    re.ASCII,
)
_RELATIVE: Final = re.compile(r"\+(\d+)(?:\.(\d*))?", re.ASCII)


class Moment(NamedTuple):
    """Nanoseconds since 1970 UTC, or since the first packet where `relative`."""

    ns: int
    relative: bool


def parse(text: str) -> Moment:
    """Return what "2024-05-01T10:00:00.5+02:00" or "+90.25" means.

    RFC 3339 section 5.6, with a blank for the T; a leap second is the second after it; digits
    beyond nanoseconds are cut off. Raises ValueError with a message for the user.
    """
    text = text.strip()
    if relative := _RELATIVE.fullmatch(text):
        return Moment(_in_range(int(relative[1][:20]) * _SECOND + _fraction(relative[2])), True)
    absolute = _RFC3339.fullmatch(text)
    if absolute is None:
        raise ValueError(
            f"{text!r} is neither a time such as 2024-05-01T10:00:00Z nor seconds from the first "
            "packet such as +90"
        )
    year, month, day, hour, minute, second = (int(absolute[index]) for index in range(1, 7))
    if absolute[8] is None and absolute[9] is None:
        raise ValueError(f"{text!r} has no zone: add Z for UTC, or an offset such as +02:00")
    zone = timedelta(hours=int(absolute[10] or 0), minutes=int(absolute[11] or 0))
    if int(absolute[11] or 0) > 59:
        raise ValueError(f"{text!r} is no time: the zone's minutes must be below 60")
    try:
        zone = -zone if absolute[9] == "-" else zone
        start = datetime(year, month, day, hour, minute, min(second, 59), tzinfo=timezone(zone))
        whole = start - datetime(1970, 1, 1, tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text!r} is no time: {error}") from error
    if second > 60:
        raise ValueError(f"{text!r} is no time: second must be in 0..60")
    seconds = whole.days * 86_400 + whole.seconds + (second == 60)
    return Moment(_in_range(seconds * _SECOND + _fraction(absolute[7])), False)


def _fraction(digits: str | None) -> int:
    return int((digits or "")[:9].ljust(9, "0"))


def _in_range(ns: int) -> int:
    if not -_LARGEST <= ns <= _LARGEST:
        raise ValueError("a time must lie within 146 years of 1970 or of the first packet")
    return ns
