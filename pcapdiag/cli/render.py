"""`pcapdiag render`: a saved result in another form, without any capture."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pcapdiag.cli import documents, output, streams
from pcapdiag.cli.options import debug_option
from pcapdiag.cli.output import Target
from pcapdiag.cli.program import Exit
from pcapdiag.errors import PcapdiagError, UsageError


@click.command(
    short_help="Write a report again from a saved result.",
    epilog="""\b
Examples:
  pcapdiag render result.json
  pcapdiag render result.json --html incident.html --markdown incident.md
  ssh host pcapdiag analyze --json - --no-html x.pcap | pcapdiag render -
""",
)
@click.argument("result", metavar="RESULT.json")
@click.option("--html", metavar="FILE", help="Write the HTML report.")
@click.option("--markdown", metavar="FILE|-", help="Write Markdown; - is standard output.")
@click.option("--terminal", is_flag=True, help="Print the summary; so it is without other options.")
@debug_option
def command(result: str, html: str | None, markdown: str | None, terminal: bool) -> int:
    """Write a report again from a saved result.

    RESULT.json is what 'pcapdiag analyze --json' wrote; - is standard input. No capture is
    needed, and the report is the same as that of the analysis.
    """
    targets = [
        *([Target("--html", html)] if html is not None else []),
        *([Target("--markdown", markdown, may_be_stdout=True)] if markdown is not None else []),
    ]
    if terminal and any(target.is_stdout for target in targets):
        raise UsageError("--terminal and --markdown - both want standard output")
    output.check(targets, [result])
    if result == "-" and streams.on_keyboard():
        raise UsageError("- reads a result from standard input, which is a terminal here")
    try:
        text = _read(result)
        from pcapdiag.report import json

        loaded = json.loads(text)
    except UnicodeDecodeError as error:
        streams.error(f"{result}: not JSON: byte {error.start} is no UTF-8")
        return Exit.UNREADABLE
    except OSError as error:
        streams.error(f"{result}: {error.strerror or error}")
        return Exit.UNREADABLE
    except PcapdiagError as error:
        streams.error(f"{result}: {error}")
        return Exit.UNREADABLE
    complete = documents.write(targets, loaded)
    if terminal or not targets:
        documents.summarize(loaded)
    return Exit.OK if complete else Exit.USAGE


def _read(path: str) -> str:
    if path != "-":
        return Path(path).read_text(encoding="utf-8-sig")
    return sys.stdin.buffer.read().decode("utf-8-sig")
