"""At most one page for a ticket: verdict, what to do, findings with their frames, what is open.

CommonMark with fenced code, which GitHub, GitLab and most ticket systems render. Captured text is
escaped so that it stays text: no link, no image, no HTML, no mention.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from pcapdiag.report import instants, plain, story

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pcapdiag.result import Finding, Result

MAX_FINDINGS: Final = 5
MAX_OPEN: Final = 4
MAX_CLEAN: Final = 12
MAX_FILES: Final = 6
MAX_COMMANDS: Final = 6
"""Lists of this length fit one printed page together."""
MAX_TEXT: Final = 240
"""Characters of a sentence, three lines of the page."""
MAX_COMMAND: Final = 300
"""Characters of a command; a longer one belongs into the report."""

_SPECIAL: Final = re.compile(r"[\\`*_{}\[\]<>|~#&!@$^]|(?<=:)/(?=/)|(?<=www)\.", re.IGNORECASE)


def render(result: Result) -> str:
    """Return the page as Markdown with a final newline."""
    findings = story.worst_first(result.findings)
    tool = escaped(f"{result.tool.name} {result.tool.version}".strip(), 60)
    made = "" if result.generated_at_ns is None else f", {instants.seconds(result.generated_at_ns)}"
    blocks = [
        f"## {escaped(story.verdict(result))}",
        f"{tool}{made}. {escaped(story.captured_text(result.vantages))}",
        *_to_do(result),
        *_findings(findings),
        *_open(result),
        *_clean(result),
        *_captures(result),
    ]
    return "\n\n".join(blocks) + "\n"


def escaped(text: str, limit: int = MAX_TEXT) -> str:
    """Return `text` as one line of Markdown that shows exactly it; not for the start of a line."""
    return _SPECIAL.sub(lambda match: f"\\{match[0]}", plain.line(text, limit))


def code(text: str, limit: int = 80) -> str:
    """Return `text` as a code span, in which nothing is interpreted."""
    shown = plain.line(text, limit)
    ticks = "`" * (_longest_run(shown) + 1)
    pad = " " if shown.startswith("`") or shown.endswith("`") or not shown.strip() else ""
    return f"{ticks}{pad}{shown}{pad}{ticks}"


def fenced(commands: Iterable[str]) -> str:
    """Return commands as a fenced block that no command can end."""
    rows = [row for item in commands for row in plain.command(item, MAX_COMMAND)]
    if len(rows) > MAX_COMMANDS:
        rows = [*rows[:MAX_COMMANDS], f"# and {len(rows) - MAX_COMMANDS} more lines in the report"]
    body = "\n".join(rows)
    fence = "`" * max(3, _longest_run(body) + 1)
    return f"{fence}sh\n{body}\n{fence}"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall(r"`+", text)), default=0)


def _to_do(result: Result) -> list[str]:
    step = story.next_step(result)
    where = f"On {code(step.where)}: " if step.where else ""
    blocks = [f"**What to do now.** {where}{escaped(step.text)}"]
    if step.check:
        blocks += ["Check first:", fenced(step.check)]
    if step.commands:
        blocks += ["Then:"] if step.check else []
        blocks.append(fenced(step.commands))
    if step.finding and step.finding.verify and step.commands != step.finding.verify:
        blocks += ["To see that it is mended:", fenced(step.finding.verify[:2])]
    return blocks


def _findings(findings: tuple[Finding, ...]) -> list[str]:
    if not findings:
        return []
    items = []
    for position, finding in enumerate(findings[:MAX_FINDINGS], 1):
        reach = story.reach_text(finding)
        items.append(
            f"{position}. **{finding.severity.value}**, {finding.confidence.value} confidence: "
            f"{escaped(finding.title)} ({code(finding.rule)}{', ' + reach if reach else ''})\n"
            f"   Cause: {escaped(finding.cause.text)}\n"
            f"   Proof: {escaped(story.proof_text(finding))}"
        )
    if len(findings) > MAX_FINDINGS:
        items.append(f"\nand {len(findings) - MAX_FINDINGS:,} more, less severe, in the report")
    return ["**Findings**", "\n".join(items)]


def _open(result: Result) -> list[str]:
    if not result.not_examined and not result.failed_rules:
        return []
    count = len(result.not_examined) + len(result.failed_rules)
    lines = []
    gaps = story.gaps(result.not_examined)
    for item in [item for gap in gaps for item in gap.questions][:MAX_OPEN]:
        scope = story.scope_text(item.scope)
        about = f" ({escaped(scope, 80)})" if scope else ""
        lines.append(f"- {code(item.rule)}{about}: {escaped(item.reason, 160)}")
    lines += [
        f"- {code(item.rule)} failed: {escaped(item.error, 100)}"
        for item in result.failed_rules[:2]
    ]
    if count > len(lines):
        lines.append(f"- and {count - len(lines):,} more")
    blocks = [f"**Not examined: {plain.counted(count, 'question')}.** A fault may lie there."]
    blocks.append("\n".join(lines))
    wanted = next((gap for gap in gaps if gap.command), None)
    if wanted and result.findings:  # without findings it is what to do now
        answers = plain.counted(len(wanted.questions), "question")
        blocks += [f"This capture would answer {answers}:", fenced([wanted.command or ""])]
    return blocks


def _clean(result: Result) -> list[str]:
    rules = list(dict.fromkeys(item.rule for item in result.clean))
    if not rules:
        return ["**Examined and in order:** nothing."]
    named = ", ".join(code(rule, 40) for rule in rules[:MAX_CLEAN])
    more = f" and {len(rules) - MAX_CLEAN:,} more" if len(rules) > MAX_CLEAN else ""
    return [f"**Examined and in order, in these captures:** {named}{more}."]


def _captures(result: Result) -> list[str]:
    files = [(point, file) for point in result.vantages for file in point.files]
    lines = []
    for point, file in files[:MAX_FILES]:
        faults = [f"{file.dropped:,} dropped"] if file.dropped else []
        faults += ["cut short"] if file.cut_short else []
        lines.append(
            f"- {code(file.path)} at {code(point.name, 40)} ({escaped(point.role, 20)}): "
            f"{', '.join([plain.counted(file.packets, 'packet'), *faults])}"
        )
    if len(files) > MAX_FILES:
        lines.append(f"- and {len(files) - MAX_FILES:,} more files")
    return ["**Captures**", "\n".join(lines)] if lines else []
