"""Virtual time, and numbers that look random but depend on nothing but their name."""

from __future__ import annotations

import hashlib
import heapq
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

EPOCH_NS: Final = 1_767_603_600 * 10**9
"""2026-01-05 09:00:00 UTC: all samples start here, so that a rebuild gives the same bytes."""

MICROSECOND: Final = 1_000
MILLISECOND: Final = 1_000_000
SECOND: Final = 1_000_000_000


def seconds(value: float) -> int:
    """Return nanoseconds, exact to the microsecond."""
    return round(value * 1_000_000) * MICROSECOND


def draw(low: int, high: int, *name: object) -> int:
    """Return an integer in [low, high] that follows from the name alone.

    A hash and not a generator: adding a connection to a sample leaves the others' numbers alone,
    and no version of Python can change them.
    """
    digest = hashlib.sha256("/".join(map(str, name)).encode()).digest()
    return low + int.from_bytes(digest[:8], "big") % (high - low + 1)


class Clock:
    """An event loop in integer nanoseconds; equal times run in the order they were asked for."""

    def __init__(self) -> None:
        self.now = EPOCH_NS
        self._events: list[tuple[int, int, Callable[[], object]]] = []
        self._count = 0

    def at(self, when: int, action: Callable[[], object]) -> None:
        """Run `action` at `when`, now if that has passed."""
        self._count += 1
        heapq.heappush(self._events, (max(when, self.now), self._count, action))

    def after(self, delay: int, action: Callable[[], object]) -> None:
        """Run `action` in `delay` nanoseconds."""
        self.at(self.now + delay, action)

    def run(self, until: int) -> None:
        """Run all events up to `until`; later ones are dropped."""
        while self._events and self._events[0][0] <= until:
            self.now, _, action = heapq.heappop(self._events)
            action()
        self._events.clear()
        self.now = until
