"""Runs tshark ahead of the tests that need its answers, and says at the end what was compared."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import compare
import pytest
import tshark

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TOTAL: Final = pytest.StashKey[compare.Comparison]()


def pytest_configure(config: pytest.Config) -> None:
    """Begin counting."""
    config.stash[TOTAL] = compare.Comparison()


@pytest.fixture(scope="session")
def dissection(request: pytest.FixtureRequest) -> Iterator[Callable[[Path], bytes | None]]:
    """Return what gives a capture's dissection; tshark starts on the next ones meanwhile."""
    parameters = [getattr(item, "callspec", None) for item in request.session.items]
    wanted = [each.params["capture"] for each in parameters if each and "capture" in each.params]
    with ThreadPoolExecutor() as pool:
        answers = {path: pool.submit(tshark.dissect, path) for path in wanted}
        yield lambda path: answers.pop(path).result()
        for answer in answers.values():
            answer.cancel()


@pytest.fixture
def counted(request: pytest.FixtureRequest) -> Callable[[compare.Comparison], None]:
    """Return what adds a comparison to the summary."""
    return request.config.stash[TOTAL].add


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say how much was compared with tshark, and what was left out for which reason."""
    total = config.stash[TOTAL]
    if total.files:
        terminalreporter.section("compared with tshark")
        terminalreporter.write_line(compare.summary(total))
