"""What the command line's tests share: ways to run it, and captures to run it on."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from pcapdiag.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """The error lines, without what is common to them."""
        prefix = "pcapdiag: error: "
        return [line.removeprefix(prefix) for line in self.err.splitlines() if prefix in line]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Ended]:
    """Run the command line in this process, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "SOURCE_DATE_EPOCH"):
        monkeypatch.delenv(name, raising=False)

    def invoke(*arguments: object, stdin: bytes | None = None) -> Ended:
        ended = CliRunner().invoke(main, [str(item) for item in arguments], input=stdin)
        assert "Traceback" not in ended.stderr
        return Ended(ended.exit_code, ended.stdout, ended.stderr)

    return invoke


@pytest.fixture
def execute(tmp_path: Path) -> Callable[..., Ended]:
    """Run the program as a process of its own, in an empty working directory."""

    def start(*arguments: object, **options: object) -> Ended:
        ended = subprocess.run(
            [sys.executable, "-m", "pcapdiag", *(str(item) for item in arguments)],
            check=False,
            **{"cwd": tmp_path, "capture_output": True, "text": True, **options},
        )
        return Ended(ended.returncode, ended.stdout or "", ended.stderr or "")

    return start
