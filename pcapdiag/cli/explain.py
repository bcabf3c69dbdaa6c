"""`pcapdiag explain RULE`: the docstring of a rule, its case file, as a page."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

import click

from pcapdiag.cli import streams
from pcapdiag.cli.options import debug_option, require_rules, rules_dir_option
from pcapdiag.cli.program import Exit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, RenderableType

    from pcapdiag.registry import Rule

_HEADING: Final = re.compile(
    r"[*#_ ]*(Symptom|Mechanism|Evidence|Not this rule|Remedy|References)\b[*_]*"
    r"(?:[:.][*_]*\s*|\s*\Z)"
)
_ITEM: Final = re.compile(r"(\s*)([-*]|\d+\.)\s+")
_UNDERLINE: Final = re.compile(r"[-=~]{3,}\Z")
_INLINE: Final = re.compile(r"``?([^`]+)``?")


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of a docstring; `indent` columns to the right, an item with its `marker`."""

    kind: Literal["heading", "text", "item", "verbatim"]
    text: str
    indent: int = 0
    marker: str = ""


@click.command(
    short_help="Explain one of them: symptom, mechanism, evidence, remedy.",
    epilog="""\b
Examples:
  pcapdiag explain pmtud-blackhole
  pcapdiag explain my-rule --rules-dir ./rules
""",
)
@click.argument("rule")
@rules_dir_option
@debug_option
def command(rule: str, rules_dirs: tuple[str, ...]) -> int:
    """Explain a rule: symptom, mechanism, evidence, remedy.

    Says, too, what looks alike and is not meant. 'pcapdiag rules' lists the rules.
    """
    from pcapdiag import registry

    known = registry.rules(rules_dirs)
    require_rules([rule], known)
    console = streams.page()
    _print(console, known[rule])
    streams.show(console)
    return Exit.OK


def _print(console: Console, rule: Rule) -> None:
    from rich.text import Text

    style = streams.SEVERITY_STYLES[rule.severity.value]
    console.print(Text.assemble((rule.id, "bold"), "  ", (rule.severity.value, style)))
    console.print(Text(rule.title))
    console.print(Text(f"Needs: {rule.needs.text}.  Since: {rule.since}.", "dim"))
    before = Block("text", "")
    for block in blocks(rule.doc):
        if block.kind == "heading" or (block.kind != "item" and before.kind != "heading"):
            console.print()
        console.print(_renderable(block))
        before = block


def _renderable(block: Block) -> RenderableType:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    if block.kind == "heading":
        return Text(block.text, "bold")
    if block.kind == "verbatim":
        return Padding(Text(block.text, "cyan", no_wrap=True, overflow="ignore"), (0, 0, 0, 4))
    text = Text()
    at = 0
    for match in _INLINE.finditer(block.text):
        text.append(block.text[at : match.start()])
        text.append(match[1], "cyan")
        at = match.end()
    text.append(block.text[at:])
    if block.kind == "text":
        return Padding(text, (0, 0, 0, 2))
    line = Table.grid(padding=(0, 1, 0, 0))
    line.add_column(no_wrap=True)
    line.add_column(ratio=1)
    line.add_row(block.marker, text)
    return Padding(line, (0, 0, 0, 2 + block.indent))


def blocks(doc: str) -> Iterator[Block]:
    """Yield the pieces of a rule's docstring, its folded lines joined.

    A heading is one of the words that a rule's docstring is made of (Symptom, Mechanism, ...), at
    the left margin, alone or before a colon. Below it, items begin with a dash or a number, and
    what stands four columns further in than the rest stays as it is.
    """
    body: list[str] = []
    for line in doc.expandtabs().splitlines():
        heading = _HEADING.match(line) if line[:1].strip() else None
        if heading is None:
            body.append("" if _UNDERLINE.match(line) else line)
            continue
        yield from _pieces(body)
        yield Block("heading", heading[1])
        body = [" " * 4 + line[heading.end() :]]
    yield from _pieces(body)


def _pieces(body: list[str]) -> Iterator[Block]:
    """Yield paragraphs, items and verbatim blocks of a section."""
    pending: Block | None = None
    for line in textwrap.dedent("\n".join(body)).splitlines():
        item = _ITEM.match(line)
        indent = len(line) - len(line.lstrip())
        ends = not line.strip() or item
        if ends and pending is not None:
            yield pending
            pending = None
        if item:
            marker = "•" if item[2] in "-*" else item[2]
            pending = Block("item", line[item.end() :].strip(), len(item[1]), marker)
        elif ends:
            continue
        elif pending is None:
            kind: Literal["text", "verbatim"] = "verbatim" if indent >= 4 else "text"
            pending = Block(kind, line[4:] if indent >= 4 else line.strip())
        elif pending.kind == "verbatim":
            pending = replace(pending, text=f"{pending.text}\n{line[4:]}")
        else:
            pending = replace(pending, text=f"{pending.text} {line.strip()}")
    if pending is not None:
        yield pending
