"""Work done in threads, beside what the thread that asks for it does next."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")


def mapped(
    function: Callable[[_Item], _Made], items: Iterable[_Item], most: int = 1
) -> Iterator[_Made]:
    """Yield function(item) for each of `items`, in order, `most` of them made at a time.

    Items are taken here, one more than are in the making. What an item or a call raises is raised
    when all calls that have begun are through; no other is begun. A run that may take one core only
    has no threads: everything is done here, one after the other.
    """
    if pl.thread_pool_size() == 1:
        yield from map(function, items)
        return
    calls: deque[Future[_Made]] = deque()
    with ThreadPoolExecutor(most) as threads:
        try:
            for item in items:
                calls.append(threads.submit(function, item))
                del item  # held by its call alone, and no longer than that takes
                if len(calls) > most:
                    yield calls.popleft().result()
            while calls:
                yield calls.popleft().result()
        finally:
            for call in calls:
                call.cancel()
