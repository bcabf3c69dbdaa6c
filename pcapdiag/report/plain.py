"""Any value of a Result as plain, printable, bounded text.

Rules clean captured text before it enters a Result, but a Result may also come from a JSON file
that anyone wrote. So each format passes every text through here and then escapes for itself.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import TYPE_CHECKING, Final

from pcapdiag import text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcapdiag.result import Scalar

MAX_LINE: Final = 2000
"""Characters of a sentence; a summary of one long paragraph has about 800."""

MAX_COMMAND: Final = 2000
"""Characters of a command; a longer one cannot be judged by eye."""

MAX_COMMAND_LINES: Final = 40
"""Lines of a command; a here-document for one configuration file has about 20."""

_LINK: Final = re.compile(r"https://[A-Za-z0-9][A-Za-z0-9.-]*(?:/[A-Za-z0-9/._~#?&=%+-]*)?")
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,60}")
_UNSEEN: Final = "\N{REPLACEMENT CHARACTER}"


def line(value: str, limit: int = MAX_LINE) -> str:
    """Return `value` as one printable line of at most `limit` characters, white space folded."""
    sound = len(value) <= limit and value.isascii() and value.isprintable()
    if sound and "  " not in value and value == value.strip():
        return value
    return text.clean(value, limit)


def row(value: str, limit: int = MAX_LINE) -> str:
    """Return `value` with its white space but without characters that cannot be seen.

    Those become U+FFFD, which no shell takes for anything else; what is longer than `limit` is cut.
    """
    head = value[:limit].replace("\t", "    ")
    shown = "".join(char if char.isprintable() else _UNSEEN for char in head)
    return shown if len(value) <= limit else shown[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"


def command(value: str, limit: int = MAX_COMMAND) -> tuple[str, ...]:
    """Return the lines of a command, each as `row` gives it.

    A command that is too long becomes a comment: half of it would do something else.
    """
    lines = value.splitlines() if len(value) <= limit else []
    if value and (not lines or len(lines) > MAX_COMMAND_LINES):
        return (f"# a command of {len(value):,} characters; the JSON form has it",)
    return tuple(row(item, len(item) + 1) for item in lines)


def fact(value: Scalar | tuple[Scalar, ...]) -> str:
    """Return a fact in words: yes and no for truth values, "unknown" for what is not there."""
    if isinstance(value, tuple):
        return ", ".join(fact(item) for item in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "unknown"
    return format(value, ".6g") if isinstance(value, float) else str(value)


def number(value: int) -> str:
    """Return a count with thousands separators."""
    return f"{value:,}"


def counted(value: int, singular: str, plural: str = "") -> str:
    """Return "1 frame" or "2,000 frames"."""
    return f"{value:,} {singular if value == 1 else plural or singular + 's'}"


def link(value: str) -> str | None:
    """Return `value` where it is an https address of harmless characters, else None."""
    return value if len(value) <= 300 and _LINK.fullmatch(value) else None


def anchors(names: Sequence[str]) -> list[str]:
    """Return one id for each vantage: "vantage.NAME" where that is sound, else "vantage-N"."""
    times = Counter(names)
    return [
        f"vantage.{name}" if _NAME.fullmatch(name) and times[name] == 1 else f"vantage-{number}"
        for number, name in enumerate(names, 1)
    ]
