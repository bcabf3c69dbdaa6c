"""`pcapdiag rules`: the faults that are looked for."""

from __future__ import annotations

import click

from pcapdiag.cli import streams
from pcapdiag.cli.options import debug_option, rules_dir_option
from pcapdiag.cli.program import Exit


@click.command(short_help="List the faults that are looked for.")
@rules_dir_option
@debug_option
def command(rules_dirs: tuple[str, ...]) -> int:
    """List the faults that are looked for.

    Each with its usual severity and the captures that answer the question best.
    'pcapdiag explain RULE' tells all about one.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from pcapdiag import registry

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("rule", no_wrap=True, style="bold")
    table.add_column("severity", no_wrap=True)
    table.add_column("what is wrong", ratio=2)
    table.add_column("needs", ratio=1, style="dim")
    for rule in registry.rules(rules_dirs).values():
        severity = Text(rule.severity.value, streams.SEVERITY_STYLES[rule.severity.value])
        table.add_row(rule.id, severity, Text(rule.title), Text(rule.needs.text))
    console = streams.page(streams.UNFOLDED)
    console.print(table)
    streams.show(console)
    return Exit.OK
