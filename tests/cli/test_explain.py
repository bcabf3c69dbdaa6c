"""A rule's docstring as a page."""

from __future__ import annotations

import textwrap

from pcapdiag.cli.explain import Block, blocks

DOC = """\
A fault in the words
of an operator.

Symptom
    Folded lines
    become one.

    A second paragraph.

Mechanism:  On the heading's line
    and below.

Evidence
-------
    - an item
      that goes on
    - another

        ip route show
          table local

    1. numbered

Not this rule
    Remedy: within a line is no heading.
"""


def test_a_docstring_is_taken_apart_by_its_headings():
    """Paragraphs are joined, items and commands keep their form, headings are the known words."""
    assert list(blocks(DOC)) == [
        Block("text", "A fault in the words of an operator."),
        Block("heading", "Symptom"),
        Block("text", "Folded lines become one."),
        Block("text", "A second paragraph."),
        Block("heading", "Mechanism"),
        Block("text", "On the heading's line and below."),
        Block("heading", "Evidence"),
        Block("item", "an item that goes on", 0, "•"),
        Block("item", "another", 0, "•"),
        Block("verbatim", "ip route show\n  table local"),
        Block("item", "numbered", 0, "1."),
        Block("heading", "Not this rule"),
        Block("text", "Remedy: within a line is no heading."),
    ]


def test_a_rule_of_ones_own_is_explained(run, tmp_path):
    """The page has id, severity, title, needs, and every section, one under the other."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "my_rule.py").write_text(
        textwrap.dedent(
            '''
            """It is broken.

            Symptom
                Nothing `works`.

            Remedy
                - Mend it.
            """
            from pcapdiag.rule import Needs, Severity, rule

            @rule(title="A title", severity=Severity.LOW, needs=Needs(text="luck"), since="9.9")
            def check(case):
                yield from ()
            '''
        )
    )
    ended = run("explain", "my-rule", "--rules-dir", "mine")
    assert ended.code == 0
    assert ended.out == textwrap.dedent(
        """\
        my-rule  low
        A title
        Needs: luck.  Since: 9.9.

          It is broken.

        Symptom
          Nothing works.

        Remedy
          • Mend it.
        """
    )


def test_an_unknown_rule_is_a_usage_error_with_a_suggestion(run):
    """A slip of the pen is answered by the rule that was meant."""
    ended = run("explain", "Pmtud_Blackhol")
    assert ended.code == 2
    assert ended.errors == ["there is no rule 'Pmtud_Blackhol': did you mean pmtud-blackhole?"]


def test_every_rule_has_a_page_with_all_headings(run):
    """The catalogue's own case files come out whole: no heading is swallowed by the text."""
    from pcapdiag import registry

    known = registry.rules()
    assert known
    for rule in known:
        ended = run("explain", rule)
        assert ended.code == 0
        lines = ended.out.splitlines()
        for heading in ("Symptom", "Mechanism", "Evidence", "Not this rule", "Remedy"):
            assert lines.count(heading) == 1, (rule, heading)
