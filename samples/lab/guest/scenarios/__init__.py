"""The scenarios by name: functions that build, break, play and tell the truth."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab import Lab

    Scenario = Callable[[Lab], None]

SCENARIOS: dict[str, Scenario] = {}


def scenario(function: Scenario) -> Scenario:
    """Add a scenario; its name is the function's with dashes."""
    SCENARIOS[function.__name__.replace("_", "-")] = function
    return function


for _path in sorted(Path(__file__).parent.glob("[a-z]*.py")):
    import_module(f"scenarios.{_path.stem}")
