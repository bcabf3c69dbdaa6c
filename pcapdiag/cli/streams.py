"""Standard output and standard error: what reaches a terminal, a pipe, or nobody.

A reader that goes away (`pcapdiag rules | head -1`) ends the printing, not the analysis. A full
disk behind standard output is an error like any other.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from typing import TYPE_CHECKING, Final

from pcapdiag.errors import UsageError
from pcapdiag.text import clean

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

PIPE_WIDTH: Final = 100
"""Columns of text that goes to a file or a pipe, where no terminal says how wide it is."""

UNFOLDED: Final = 10_000
"""Columns of a list there: an entry stays one line, so that grep finds all of it."""

MAX_MESSAGE: Final = 4000
"""Characters of one message: room for a path of PATH_MAX bytes' usual length and a sentence."""

SEVERITY_STYLES: Final = {
    "critical": "bold red",
    "high": "red",
    "medium": "yellow",
    "low": "cyan",
    "info": "dim",
}
"""Colours of the severities; the words always stand beside them."""


class OutputError(UsageError):
    """Something that was asked for cannot be written (exit code 2, as a usage error)."""


def prepare() -> None:
    """Let no character stop the program: what an encoding cannot say is escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def emit(text: str) -> None:
    """Write to standard output, quietly nothing once its reader is gone.

    Raises OutputError where the operating system refuses otherwise (a full disk).
    """
    if sys.stdout is not None:
        _guarded(lambda: (sys.stdout.write(text), sys.stdout.flush()))


def emit_bytes(data: bytes) -> None:
    """Write bytes to standard output under the rules of `emit`."""
    if sys.stdout is not None:
        sys.stdout.flush()
        _guarded(lambda: (sys.stdout.buffer.write(data), sys.stdout.buffer.flush()))


def finish() -> None:
    """Flush standard output while an error can still be reported. Raises OutputError."""
    if sys.stdout is not None:
        _guarded(sys.stdout.flush)


def _guarded(write: Callable[[], object]) -> None:
    try:
        write()
    except BrokenPipeError:
        silence()
    except OSError as error:
        silence()
        raise OutputError(f"standard output: cannot be written: {error.strerror}") from error


def silence() -> None:
    """Send what is still to come on standard output nowhere, the flush at exit included."""
    with contextlib.suppress(OSError, ValueError):  # no descriptor: a stream in memory
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def error(message: str) -> None:
    """Say on standard error, in one line, what went wrong."""
    _say(f"error: {clean(message, MAX_MESSAGE)}")


def warning(message: str) -> None:
    """Say on standard error, in one line, what the user should know of."""
    _say(f"warning: {clean(message, MAX_MESSAGE)}")


def notice(message: str) -> None:
    """Say on standard error, in one line, what is being done."""
    _say(clean(message, MAX_MESSAGE))


def _say(line: str) -> None:
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):  # nobody is left to be told
            sys.stderr.write(f"pcapdiag: {line}\n")
            sys.stderr.flush()


def on_terminal(stream: object) -> bool:
    """Return whether a stream is a terminal that can move its cursor."""
    try:
        terminal = bool(stream.isatty())  # type: ignore[attr-defined]
    except (AttributeError, ValueError):  # None, or closed
        return False
    return terminal and os.environ.get("TERM", "") not in {"dumb", "unknown"}


def on_keyboard() -> bool:
    """Return whether standard input is somebody's keyboard."""
    return sys.stdin is not None and sys.stdin.isatty()


def page(width_in_pipe: int = PIPE_WIDTH) -> Console:
    """Return a console that collects a page for `show`, in the colours standard output has.

    NO_COLOR, FORCE_COLOR, COLUMNS and TERM mean what they mean everywhere. Without a terminal and
    without COLUMNS the page is `width_in_pipe` columns wide.
    """
    from rich.console import Console

    terminal = sys.stdout is not None and sys.stdout.isatty()
    columns = os.environ.get("COLUMNS", "")
    return Console(
        file=io.StringIO(),
        force_terminal=True if terminal else None,
        width=None if terminal or columns.isdigit() else width_in_pipe,
        highlight=False,
        emoji=False,
        markup=False,
        soft_wrap=False,
    )


def show(console: Console) -> None:
    """Emit what a console from `page` has collected, without blanks at the end of lines."""
    file = console.file
    if not isinstance(file, io.StringIO):
        raise TypeError("not a console from page()")
    emit(re.sub(r" +$", "", file.getvalue(), flags=re.MULTILINE))
