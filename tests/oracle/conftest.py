"""Says at the end what was compared with tshark, where one process does it all (`-n 0`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import compare
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

TOTAL: Final = pytest.StashKey[compare.Comparison]()


def pytest_configure(config: pytest.Config) -> None:
    """Begin counting."""
    config.stash[TOTAL] = compare.Comparison()


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
