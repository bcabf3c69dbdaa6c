"""Nanoseconds UTC to text and back, for every format; local time appears nowhere."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND_NS = 1_000_000_000
_ISO = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{9})Z", re.ASCII)


def iso(time_ns: int) -> str:
    """Return ISO 8601 UTC with nanoseconds, "2024-05-01T12:00:00.000000001Z".

    Any int64 number of nanoseconds since 1970 (the years 1677 to 2262) has one; OverflowError is
    raised outside the years 1 to 9999.
    """
    seconds, fraction = divmod(time_ns, _SECOND_NS)
    moment = _EPOCH + timedelta(seconds=seconds)
    return f"{moment.replace(tzinfo=None).isoformat()}.{fraction:09d}Z"


def from_iso(text: str) -> int:
    """Return the nanoseconds since 1970 of what `iso` wrote.

    ValueError is raised for any other form and for times that no int64 holds.
    """
    match = _ISO.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no time such as 2024-05-01T12:00:00.000000000Z")
    elapsed = datetime.fromisoformat(match[1]).replace(tzinfo=UTC) - _EPOCH
    time_ns = (elapsed.days * 86_400 + elapsed.seconds) * _SECOND_NS + int(match[2])
    if not -(1 << 63) <= time_ns < 1 << 63:
        raise ValueError(f"{text!r} lies outside the years 1677 to 2262")
    return time_ns


def readable(time_ns: int) -> str:
    """Return "2024-05-01 12:00:00.000001 UTC": microseconds are what captures have."""
    text = iso(time_ns)
    return f"{text[:10]} {text[11:26]} UTC"


def seconds(time_ns: int) -> str:
    """Return "2024-05-01 12:00:00 UTC", for what no packet is compared with."""
    text = iso(time_ns)
    return f"{text[:10]} {text[11:19]} UTC"


def clock(time_ns: int) -> str:
    """Return the time of day, "12:00:00.000001", where the date stands nearby."""
    return iso(time_ns)[11:26]


def span(first_ns: int | None, last_ns: int | None) -> str:
    """Return "2024-05-01 12:00:00 to 12:05:00 UTC", with the second date only where it differs."""
    if first_ns is None or last_ns is None:
        return "no times"
    first, last = iso(first_ns), iso(last_ns)
    until = last[11:19] if first[:10] == last[:10] else f"{last[:10]} {last[11:19]}"
    return f"{first[:10]} {first[11:19]} to {until} UTC"


def duration(span_ns: int) -> str:
    """Return a length of time in the unit that reads best: "12 ns" to "3 d 4 h"."""
    size = abs(span_ns)
    sign = "-" if span_ns < 0 else ""
    if size < 120 * _SECOND_NS:
        for unit, scale in (("s", _SECOND_NS), ("ms", 1_000_000), ("µs", 1000)):
            if size >= scale:
                return f"{sign}{size / scale:.3g} {unit}"
        return f"{sign}{size} ns"
    minutes = size // (60 * _SECOND_NS)
    if minutes < 120:
        return f"{sign}{minutes} min"
    hours = minutes // 60
    if hours < 48:
        return f"{sign}{hours} h {minutes % 60} min"
    return f"{sign}{hours // 24} d {hours % 24} h"
