"""Captured text made harmless, once, where it enters a result.

Interface names, capture comments and labels come from strangers. They may hold terminal escapes
(ECMA-48), bidirectional overrides (Unicode Technical Report 36) or megabytes. What leaves here is
one printable line of bounded length; each format still escapes for itself.
"""

from __future__ import annotations

import re
import unicodedata

MAX_TEXT = 200
"""Characters kept of a captured text: more than any interface name or honest comment line."""

_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)?", re.DOTALL)
_SAFE_NAME = re.compile(r"[A-Za-z0-9_.@:][A-Za-z0-9_.@:-]{0,14}\Z")


def clean(text: str, limit: int = MAX_TEXT) -> str:
    """Return `text` as one printable line of at most `limit` characters.

    Escape sequences go, white space folds to single spaces, and control, format (bidi),
    surrogate, private and unassigned characters become U+FFFD.
    """
    head = text[: 4 * limit]
    head = " ".join(_ESCAPE.sub("", head).split())
    printable = "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(char) in _UNSAFE else char
        for char in head
    )
    cut = len(printable) > limit or len(text) > 4 * limit
    return printable[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}" if cut else printable


_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def command_name(name: str, placeholder: str) -> str:
    """Return `name` where it may stand in a root shell command, else `placeholder`.

    Allowed is what a Linux interface or host name may be: at most 15 of [A-Za-z0-9_.@:-] with no
    leading dash (IFNAMSIZ is 16 with the final NUL).
    """
    return name if _SAFE_NAME.match(name) else placeholder
