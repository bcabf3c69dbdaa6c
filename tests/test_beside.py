"""Work in threads: in order, bounded, and through with it before anything is raised."""

from __future__ import annotations

import threading

import polars as pl
import pytest

from pcapdiag import beside


@pytest.fixture(params=[1, 2], ids=["one core", "two cores"])
def _cores(request, monkeypatch):
    monkeypatch.setattr(pl, "thread_pool_size", lambda: request.param)


@pytest.mark.usefixtures("_cores")
@pytest.mark.parametrize("most", [1, 3])
def test_results_come_in_order(most):
    """Whatever is done when: the n-th result is that of the n-th item."""
    assert list(beside.mapped(str, range(9), most)) == [*"012345678"]
    assert list(beside.mapped(str, [], most)) == []


def test_one_core_has_no_threads(monkeypatch):
    """With one core the caller does it all."""
    monkeypatch.setattr(pl, "thread_pool_size", lambda: 1)
    here = threading.get_ident()
    assert set(beside.mapped(lambda _: threading.get_ident(), range(3), 2)) == {here}


def test_calls_go_on_beside_each_other(monkeypatch):
    """Two calls that wait for one another, and for the next item being taken, come to an end."""
    monkeypatch.setattr(pl, "thread_pool_size", lambda: 2)
    third = threading.Event()
    together = threading.Barrier(3, timeout=60)

    def items():
        yield from range(2)
        together.wait()  # both are under way while this thread makes the third
        third.set()
        yield 2

    def call(item):
        if item < 2:
            together.wait()
        return third.wait(60)

    assert list(beside.mapped(call, items(), 2)) == [True, True, True]


def test_no_more_items_are_held_than_said(monkeypatch):
    """Items are made as they are needed: those under way, and one more."""
    monkeypatch.setattr(pl, "thread_pool_size", lambda: 2)
    made = []
    results = beside.mapped(str, (made.append(number) or number for number in range(99)), 2)
    next(results)
    assert made == [0, 1, 2]
    results.close()


@pytest.mark.usefixtures("_cores")
@pytest.mark.parametrize("source", ["item", "call"])
def test_a_failure_is_raised_when_all_is_through(source):
    """What has begun ends first, so that what it left can be removed; nothing else begins."""
    ended = []

    def items():
        yield from range(3)
        if source == "item":
            raise LookupError
        yield from range(3, 99)

    def call(item):
        if source == "call" and item == 1:
            raise LookupError
        ended.append(item)

    with pytest.raises(LookupError):
        list(beside.mapped(call, items()))
    through = list(ended)
    assert through in ([0], [0, 2]) if source == "call" else through[:2] == [0, 1]
    assert threading.active_count() == len(threading.enumerate())
    assert not any("ThreadPool" in each.name for each in threading.enumerate())
    assert ended == through
