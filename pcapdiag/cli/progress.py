"""The progress bar: rate and time left, on standard error, on a terminal only, gone when done."""

from __future__ import annotations

import contextlib
import sys
from pathlib import PurePath
from typing import TYPE_CHECKING

from pcapdiag.cli.streams import on_terminal
from pcapdiag.text import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Report = Callable[[str, int, int | None], None]


@contextlib.contextmanager
def reading(wanted: bool = True) -> Iterator[Report | None]:
    """Lend a function that is told (path, bytes done, bytes in all or None); None: no terminal."""
    if not wanted or not on_terminal(sys.stderr):
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.table import Column

    columns = (
        TextColumn("{task.description}", markup=False, table_column=Column(ratio=2, no_wrap=True)),
        BarColumn(bar_width=None, table_column=Column(ratio=3)),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True, expand=True) as bars:
        tasks = {}

        def report(path: str, done: int, total: int | None) -> None:
            if path not in tasks:
                name = "standard input" if path == "-" else clean(PurePath(path).name)
                tasks[path] = bars.add_task(name, total=total)
            bars.update(tasks[path], completed=done, total=total)

        yield report
