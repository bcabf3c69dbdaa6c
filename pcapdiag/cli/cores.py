"""How many cores a run takes, here or elsewhere, and which of polars' engines.

Decided before polars is imported, which starts its threads then: a process is never forked with
threads in it, but spawned.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pcapdiag.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from concurrent.futures import Executor

    from pcapdiag.capture.vantages import VantageInput

VARIABLE: Final = "POLARS_MAX_THREADS"

ENGINE: Final = "POLARS_ENGINE_AFFINITY"
"""As pl.Config.set_engine_affinity, which would import polars, sets it."""

ALLOCATOR: Final = "_RJEM_MALLOC_CONF"
"""What polars' allocator, jemalloc, is told by; where polars has another, nothing reads it."""

DECAY: Final = "dirty_decay_ms:200,muzzy_decay_ms:0"
"""How long freed memory is kept for the next query, and that it then is given back at once: by
default ten seconds, in which an analysis frees and takes several hundred MB. A quarter as long as
this and a tenth of the time goes into taking back what was just given."""

SCANS: Final = "POLARS_MAX_CONCURRENT_SCANS"
"""How many files of a spooled table polars maps ahead. One is enough, for each is read by all
threads at once; where a host is busy several stay mapped, and the peak grew from 0.5 to 1.1 GB."""

SMALL_BYTES: Final = 64 << 20
"""Captures of so many bytes together are analysed on one core and by polars' in-memory engine:
waking other cores for tables of some thousand rows costs several times the work itself, and so does
setting up the streaming engine, 0.2 ms a query and some hundred queries."""

LARGE_BYTES: Final = 64 << 20
"""Captures from this size on are read in processes of their own, if there are several: starting one
takes as long as decoding half of this."""

ANSWER_S: Final = 5
"""A scheduler that is there answers within milliseconds."""


def bound(inputs: Iterable[VantageInput], jobs: int | None = None) -> None:
    """Tell polars how many threads to start: `jobs`, or as many as the inputs are worth.

    Without `jobs` a number that the user has set in the environment stands; so does an engine, and
    what the allocator is told: not to hoard.
    """
    os.environ.setdefault(ALLOCATOR, DECAY)
    os.environ.setdefault(SCANS, "1")
    small = _small(inputs)
    if small:
        os.environ.setdefault(ENGINE, "in-memory")
    if jobs is not None:
        os.environ[VARIABLE] = str(jobs)
    elif small:
        os.environ.setdefault(VARIABLE, "1")
    keep_interruptible()


def keep_interruptible() -> None:
    """Import polars, and let Control-C reach what waits for a pipe, a process or a cluster.

    The handler that polars sets has the system take such a call up again, as if nothing had been.
    """
    importlib.import_module("polars")
    signal.siginterrupt(signal.SIGINT, True)


def _small(inputs: Iterable[VantageInput]) -> bool:
    sizes = _sizes(inputs)
    return None not in sizes and sum(filter(None, sizes)) <= SMALL_BYTES


def _sizes(inputs: Iterable[VantageInput]) -> list[int | None]:
    """Return the size of each input; None where that is not known."""
    sizes: list[int | None] = []
    for path in (path for item in inputs for path in item.paths):
        try:
            sizes.append(None if path == "-" else Path(path).stat().st_size)
        except OSError:  # the reader says what is wrong with it; or it lies in an index
            sizes.append(None)
    return sizes


@contextlib.contextmanager
def lent(
    inputs: Iterable[VantageInput], jobs: int | None = None, scheduler: str | None = None
) -> Iterator[Executor | None]:
    """Lend what reads the captures: a cluster, processes of this host, or None for this process.

    Raises UsageError where the cluster cannot be reached.
    """
    if scheduler is not None:
        with _cluster(scheduler) as executor:
            yield executor
        return
    large = sum(size is not None and size >= LARGE_BYTES for size in _sizes(inputs))
    count = min(large, jobs or os.cpu_count() or 1)
    if count < 2:
        yield None
        return
    with pool(count) as processes:
        yield processes


def pool(count: int) -> Executor:
    """Return processes of one thread each, beside this one's own threads."""
    import polars as pl

    from pcapdiag.processes import Processes

    pl.thread_pool_size()  # starts this process's threads; what follows is for its children
    os.environ[VARIABLE] = "1"
    return Processes(count)


@contextlib.contextmanager
def _cluster(address: str) -> Iterator[Executor]:
    try:
        distributed: Any = importlib.import_module("distributed")
    except ImportError as error:
        raise UsageError("--scheduler needs Dask: pip install 'pcapdiag[cluster]'") from error
    logging.disable(logging.CRITICAL)  # what goes wrong there is told of each capture it costs
    try:
        with _client(distributed, address) as client:
            if not client.scheduler_info()["workers"]:
                raise UsageError(f"--scheduler {address}: it has no workers; start some")
            yield client.get_executor()
    finally:
        logging.disable(logging.NOTSET)


def _client(distributed: Any, address: str) -> Any:
    try:
        return distributed.Client(address, timeout=ANSWER_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(
            f"--scheduler {address}: no Dask scheduler answers there ({reason}); check the "
            "address, or leave it out to work here"
        ) from error
