"""Options and arguments that several commands share, and what their values mean."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import click

from pcapdiag.cli import streams
from pcapdiag.cli.program import Session
from pcapdiag.errors import RuleError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from pcapdiag.capture.vantages import VantageInput
    from pcapdiag.errors import CaptureError

NAMING = """\b
How captures get their names:
  NAME=PATH     taken at NAME; several files of one NAME are one place
  PATH          the name is the file's, without .pcap, .gz, ring numbers
  DIRECTORY     each folder in it is one place
  -             standard input
Name a capture after the host it was taken at. The first word says what the
host does: director or lb; rs, realserver or real; client; router or fw. Other
names are fine, the role is then inferred from the traffic. A PATH that exists
is a path, whatever it contains.
"""


def debug_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --debug, which reaches the session and not the function."""

    def remember(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
        if wanted:
            ctx.ensure_object(Session).debug = True

    return click.option(
        "--debug",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=remember,
        help="Show where an error comes from.",
    )(function)


def rules_dir_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --rules-dir, repeatable, as `rules_dirs`."""
    return click.option(
        "--rules-dir",
        "rules_dirs",
        metavar="DIR",
        multiple=True,
        help="Also take the rules in this folder (repeatable).",
    )(function)


def work_dir_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --work-dir, as `work_dir`."""
    return click.option(
        "--work-dir",
        metavar="DIR",
        type=click.Path(exists=True, file_okay=False, writable=True),
        help="Keep here for the while what does not fit into memory: up to 350 bytes a packet.  "
        "[default: where $TMPDIR says]",
    )(function)


def split_list(
    _ctx: click.Context, _param: click.Parameter, values: Iterable[str]
) -> tuple[str, ...]:
    """Return the items of a repeatable option whose values may be lists with commas."""
    return tuple(item for value in values for item in map(str.strip, value.split(",")) if item)


def require_rules(wanted: Iterable[str], known: Collection[str]) -> None:
    """Raise RuleError for the first id that is none, with what may have been meant."""
    for rule in wanted:
        if rule not in known:
            close = get_close_matches(rule.lower().replace("_", "-"), known, n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else "'pcapdiag rules' lists them"
            raise RuleError(f"there is no rule {rule!r}: {hint}")


def resolve_inputs(
    arguments: Sequence[str],
) -> tuple[tuple[VantageInput, ...], tuple[CaptureError, ...]]:
    """Return what the arguments name, by vantage, and what cannot be read.

    Raises UsageError where the arguments contradict themselves, or wait for a keyboard.
    """
    from pcapdiag.capture.vantages import resolve

    for argument in arguments:
        if not argument:
            raise UsageError("a capture's name is empty")
        if "\0" in argument:
            raise UsageError("a capture's name holds a NUL character")
    inputs, failures = resolve(arguments)
    if any("-" in item.paths for item in inputs) and streams.on_keyboard():
        raise UsageError("- reads a capture from standard input, which is a terminal here")
    return inputs, failures
