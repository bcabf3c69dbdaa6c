"""The page for a ticket: short, complete in what counts, nothing interpreted."""

from __future__ import annotations

from dataclasses import replace

import pytest
from markdown_it import MarkdownIt

from pcapdiag.report import json, markdown
from pcapdiag.result import CaptureFile, Clean, Examined, FailedRule, Vantage

PAGE_LINES = 66
"""Lines of a printed page."""


def _shown(text):
    """Return what a renderer shows of inline Markdown."""
    (inline,) = (token for token in MarkdownIt().parse(text) if token.type == "inline")
    return "".join(child.content for child in inline.children)


def test_golden(named, golden):
    """The bytes are those on file."""
    name, result = named
    golden(f"{name}.md", markdown.render(result))


def test_saved_result_gives_the_same_bytes(result):
    """All that the page shows is in the JSON form."""
    assert markdown.render(json.loads(json.dumps(result))) == markdown.render(result)


def test_it_is_one_page(incident):
    """However much there is to say, it fits a page and says how much is left out."""
    finding = incident.findings[1]
    remedy = finding.remedies[0]
    long = tuple(f"command-{n}" for n in range(30))
    remedy = replace(remedy, check=long, commands=long)
    many = replace(
        incident,
        findings=(replace(finding, remedies=(remedy,)),) * 40,
        not_examined=incident.not_examined * 40,
        failed_rules=(FailedRule(rule="forwarding-loop", error="x"),) * 40,
        clean=tuple(Clean(rule=f"rule-{n}", examined=Examined(packets=1)) for n in range(40)),
        vantages=tuple(
            Vantage(
                name=f"rs{n}",
                role="realserver",
                role_source="given",
                files=(CaptureFile(path=f"rs{n}.pcap", format="pcap", packets=1),),
            )
            for n in range(40)
        ),
    )
    text = markdown.render(many)
    assert len([row for row in text.splitlines() if row]) <= PAGE_LINES
    for more in (
        "and 35 more, less severe",
        "# and 24 more lines in the report",
        "- and 154 more",
        "and 28 more.",
        "and 34 more files",
    ):
        assert more in text, more


def test_worst_finding_has_frames_fix_and_check(incident):
    """Verdict, primary frames, commands and verification are on the page."""
    text = markdown.render(incident)
    assert text.startswith("## Full-sized packets to clients vanish")
    assert "Proof: director.pcap frame 57; rs1.pcap frame 61\n" in text
    for command in (*incident.findings[1].remedies[0].commands, *incident.findings[1].verify):
        assert f"\n{command}\n" in text
    assert text.index("**critical**") < text.index("**medium**")


def test_open_questions_are_counted_with_their_command(incident):
    """Failed rules count as not examined; the command that answers most is there."""
    text = markdown.render(incident)
    assert "**Not examined: 4 questions.** A fault may lie there." in text
    assert f"\n{incident.not_examined[0].capture_command}\n" in text


def test_no_findings_names_what_was_examined(results):
    """The page never ends with a mere "nothing found"."""
    text = markdown.render(results["nothing-found"])
    assert "only 3 of 6 questions could be examined" in text
    assert "`vip-arp-conflict`, `redirect-to-router`, `service-refused`" in text
    assert "**Examined and in order:** nothing." in markdown.render(results["blind"])


@pytest.mark.parametrize(
    "text",
    [
        "[click](http://evil.example)",
        "![x](y)",
        "<b>&amp;</b>",
        "*a* _b_ ~~c~~ `d` $e$ ^f^ {g} |h| !i \\j @k #l",
        "www.evil.example http://evil.example",
    ],
)
def test_escaped_text_is_shown_as_it_is(text):
    """A renderer shows exactly the characters, and makes nothing of them."""
    html = MarkdownIt("gfm-like", {"linkify": False}).render(f"x {markdown.escaped(text)}")
    assert html.count("<") == 2  # the paragraph
    assert _shown(f"x {markdown.escaped(text)}") == f"x {text}"


@pytest.mark.parametrize("text", ["a`b", "``", "`", "a``b`", "", "plain"])
def test_code_span_holds_any_ticks(text):
    """Ticks inside do not end the span."""
    shown = MarkdownIt().parse(f"x {markdown.code(text)}")[1].children
    assert [child.type for child in shown] == ["text", "code_inline"]
    assert shown[1].content.strip() == text


def test_fence_cannot_be_ended_from_inside():
    """A command that holds a fence makes the fence longer."""
    text = markdown.fenced(["cat <<X\n```\n# heading\nX"])
    (token,) = MarkdownIt().parse(text)
    assert token.type == "fence"
    assert token.content == "cat <<X\n```\n# heading\nX\n"
