"""What tests share: missing programs skip with the reason, or fail where they are required."""

from __future__ import annotations

import os
import shutil

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "any machine",  # how fast it is decides nothing; what CI draws is the same each time
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,
)
settings.load_profile("any machine")

# As the program does for small captures, and before any test imports polars, which reads this once:
# for tables of some rows more threads and the streaming engine only cost time.
os.environ.setdefault("POLARS_MAX_THREADS", "1")
os.environ.setdefault("POLARS_ENGINE_AFFINITY", "in-memory")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that rewrites golden files."""
    parser.addoption("--update-goldens", action="store_true", help="rewrite the golden files")


def pytest_configure(config: pytest.Config) -> None:
    """Keep each of several workers, and what its tests start, on a core of its own.

    Each query goes to polars' thread and back, thousands of times a second; where that thread is on
    another core, which sleeps in between, waking it costs more than most of these queries.
    """
    worker = getattr(config, "workerinput", {}).get("workerid")
    if worker is not None and hasattr(os, "sched_setaffinity"):  # Linux has it
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose program is missing, or fail it where PCAPDIAG_REQUIRE names it."""
    required = set(filter(None, os.environ.get("PCAPDIAG_REQUIRE", "").split(",")))
    for mark in item.iter_markers("needs"):
        for program in mark.args:
            if shutil.which(program) is None:
                message = f"{program} is not installed"
                if program in required:
                    pytest.fail(message)
                pytest.skip(message)


@pytest.fixture
def update_goldens(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be rewritten."""
    return bool(request.config.getoption("--update-goldens"))


@pytest.fixture(scope="session")
def cluster():
    """Start a Dask scheduler and two workers on the loopback.

    Who asks for it is marked `xdist_group("cluster")`, so that there is one, and ignores warnings,
    which are tornado's and distributed's own.
    """
    import distributed

    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, processes=True
    ) as cluster:
        yield cluster
