"""A result in the forms that the user asked for: analyze and render write them alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pcapdiag.cli import output, streams

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcapdiag.cli.output import Target
    from pcapdiag.result import Result


_NAMES: Final = {"--html": "Report", "--json": "JSON"}


def write(targets: Sequence[Target], result: Result, *, verbose: bool = False) -> bool:
    """Write every target, and return whether all of them could be; what could not is told."""
    complete = True
    for target in targets:
        try:
            output.write(target, _render(target.option, result))
        except streams.OutputError as error:
            streams.error(str(error))
            complete = False
        else:
            if verbose and not target.is_stdout:
                streams.notice(f"wrote {target.path}")
    return complete


def _render(option: str, result: Result) -> str:
    if option == "--html":
        from pcapdiag.report import html

        return html.render(result)
    if option == "--json":
        from pcapdiag.report import json

        return json.dumps(result)
    from pcapdiag.report import markdown

    return markdown.render(result)


def summarize(result: Result, written: Sequence[Target] = ()) -> None:
    """Print the summary, and which files were written."""
    from pcapdiag.report import terminal

    console = streams.page()
    terminal.render(result, console)
    if written:
        console.print()
        names = [
            f"{_NAMES.get(item.option, item.option[2:].capitalize())}: {item.path}"
            for item in written
        ]
        console.print("; ".join(names), soft_wrap=True)
    streams.show(console)
