"""Phrases that findings share."""

from __future__ import annotations


def counted(count: int, what: str) -> str:
    """Return "1 packet" or "2 packets"; `what` takes an s."""
    return f"{count} {what}{'s' * (count != 1)}"
