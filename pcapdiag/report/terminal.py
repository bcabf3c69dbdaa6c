"""The story in about thirty lines, for whoever typed the command and waits.

Texts are put out as rich Text objects, never as markup: "[red]" in an interface name stays five
characters. Commands are not wrapped, so that they can be copied. Colour only repeats words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.text import Text

from pcapdiag.report import ascii_ladder, plain, story
from pcapdiag.result import Severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from pcapdiag.result import Finding, Result

MAX_FINDINGS: Final = 3
MAX_COMMANDS: Final = 4
MAX_FAILED: Final = 2
MAX_TEXT: Final = 240
"""Characters of a sentence, three lines of a terminal."""
MAX_COMMAND: Final = 400
"""Characters of a command, five lines of a terminal."""

_STYLES: Final = {
    Severity.CRITICAL: "bold red",
    Severity.HIGH: "bold red",
    Severity.MEDIUM: "bold yellow",
    Severity.LOW: "bold cyan",
    Severity.INFO: "bold",
}
_INDENT: Final = 10


def render(result: Result, console: Console, files: Sequence[str] = ()) -> None:
    """Print the summary of `result`; `files` are the reports that were written."""
    out = _Printer(console)
    findings = story.worst_first(result.findings)
    out.line(story.verdict(result), style="bold")
    out.line(story.tally(result))
    out.line(story.captured_text(result.vantages))
    for weakness in story.weaknesses(result.vantages)[:2]:
        out.line(f"Mind: {weakness}")
    remarks = [item for item in findings[1:] if item.severity is Severity.INFO]
    findings = tuple(item for item in findings if item not in remarks)
    for position, finding in enumerate(findings[:MAX_FINDINGS]):
        out.gap()
        _finding(out, finding, in_full=position == 0)
        if position == 0:
            out.drawing(ascii_ladder.draw(finding, console.width))
    if len(findings) > MAX_FINDINGS:
        out.gap()
        out.line(f"and {plain.counted(len(findings) - MAX_FINDINGS, 'more finding')}, less severe")
    if remarks:
        out.gap()
        titles = "; ".join(item.title for item in remarks)
        out.line(f"{plain.counted(len(remarks), 'remark')}: {titles}")
    out.gap()
    _to_do(out, result)
    _open(out, result)
    if files:
        out.gap()
        out.line(f"Written: {', '.join(files)}", limit=1000)


class _Printer:
    """Puts out harmless lines that the console's encoding has characters for."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def line(
        self, text: str, *, head: str = "", style: str = "", indent: int = 0, limit: int = MAX_TEXT
    ) -> None:
        """Print one paragraph, wrapped and indented, with `head` before its first line."""
        shown = Text(self._encodable(plain.line(text, limit)), style="bold" if head else style)
        for row in shown.wrap(self._console, max(20, self._console.width - indent)):
            row.rstrip()
            start = Text(head.ljust(indent), style=style if head else "")
            self._console.print(start + row, highlight=False, soft_wrap=True)
            head = ""

    def commands(self, commands: Sequence[str]) -> None:
        """Print commands on lines of their own, unwrapped."""
        rows = [row for item in commands for row in plain.command(item, MAX_COMMAND)]
        if len(rows) > MAX_COMMANDS:
            rest = plain.counted(len(rows) - MAX_COMMANDS, "more line")
            rows = [*rows[:MAX_COMMANDS], f"# and {rest} in the report"]
        for row in rows:
            shown = Text(f"    {self._encodable(row)}", style="cyan")
            self._console.print(shown, highlight=False, soft_wrap=True)

    def drawing(self, rows: Sequence[str]) -> None:
        """Print lines as they are, where the console has room for them."""
        for row in rows:
            self._console.print(Text(self._encodable(row)), highlight=False, soft_wrap=True)

    def gap(self) -> None:
        """Print an empty line."""
        self._console.print()

    def _encodable(self, text: str) -> str:
        encoding = self._console.encoding
        return text.encode(encoding, "replace").decode(encoding, "replace")


def _finding(out: _Printer, finding: Finding, *, in_full: bool) -> None:
    """Print a finding; the title of the one shown in full is the verdict above it."""
    severity = finding.severity.value.upper()
    scope, reach = story.scope_text(finding.scope), story.reach_text(finding)
    confidence = f"{finding.rule}, {finding.confidence.value} confidence"
    details = "; ".join(part for part in (confidence, scope, reach) if part)
    first = details if in_full else finding.title
    out.line(first, head=severity, style=_STYLES[finding.severity], indent=_INDENT)
    out.line(f"Cause: {finding.cause.text}" if in_full else details, indent=_INDENT)
    out.line(f"Proof: {story.proof_text(finding)}", indent=_INDENT)


def _to_do(out: _Printer, result: Result) -> None:
    step = story.next_step(result)
    where = f", on {plain.line(step.where, 60)}" if step.where else ""
    out.line(f"What to do now{where}: {step.text}")
    if step.check:
        out.line("check first:", indent=2)
        out.commands(step.check)
    if step.commands:
        if step.check:
            out.line("then:", indent=2)
        out.commands(step.commands)


def _open(out: _Printer, result: Result) -> None:
    count = len(result.not_examined) + len(result.failed_rules)
    if not count:
        return
    out.gap()
    wanted = next((gap for gap in story.gaps(result.not_examined) if gap.command), None)
    line = f"Not examined: {plain.counted(count, 'question')}; a fault may lie there."
    if wanted and result.findings:  # without findings it is what to do now
        answers = "one" if len(wanted.questions) == 1 else f"{len(wanted.questions):,} of them"
        out.line(f"{line} This capture would answer {answers}:")
        out.commands([wanted.command or ""])
    else:
        out.line(line)
    for failed in result.failed_rules[:MAX_FAILED]:
        out.line(f"Rule {failed.rule} failed: {failed.error}")
