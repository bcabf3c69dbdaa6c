"""Values as printable, bounded text."""

from __future__ import annotations

import math

import pytest

from pcapdiag.report import plain


def test_line_is_one_bounded_line():
    """White space folds, escapes go, length is bounded."""
    assert plain.line("a  b\n c\x1b[31m") == "a b c"
    assert plain.line("x" * 50, 10) == "x" * 9 + "…"
    assert plain.line(" as is? ") == "as is?"


def test_command_keeps_its_white_space():
    """A here-document stays one; what cannot be seen is replaced."""
    assert plain.command("cat <<X\n  a  b\nX") == ("cat <<X", "  a  b", "X")
    assert plain.command("ls \u202e\x07") == ("ls \ufffd\ufffd",)
    assert plain.command("") == ()


@pytest.mark.parametrize("text", ["x" * 2001, "a\n" * 50, "a" * 10_000_000])
def test_long_command_becomes_a_comment(text):
    """Half a command would do something else, so none is shown."""
    (row,) = plain.command(text)
    assert row.startswith("# a command of ")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (True, "yes"),
        (False, "no"),
        (None, "unknown"),
        (math.nan, "unknown"),
        (1400, "1400"),
        (0.123456789, "0.123457"),
        (("a", None), "a, unknown"),
        ((), "none"),
    ],
)
def test_facts_in_words(value, words):
    """Truth values and gaps are words."""
    assert plain.fact(value) == words


@pytest.mark.parametrize(
    "text",
    [
        "javascript:alert(1)",
        "http://example.org/",
        'https://example.org/"onclick',
        "https://example.org/ x",
        "https://example.org@evil.example/",
        "https://example.org/" + "a" * 300,
        "HTTPS://example.org\n",
    ],
)
def test_only_plain_https_is_a_link(text):
    """Anything odd is shown as text."""
    assert plain.link(text) is None
    assert plain.link("https://www.rfc-editor.org/rfc/rfc1191#section-4")


def test_anchors_are_unique():
    """Names are ids where they may be, numbers elsewhere."""
    assert plain.anchors(["a", "b c", "d", "d"]) == [
        "vantage.a",
        "vantage-2",
        "vantage-3",
        "vantage-4",
    ]


def test_counts_agree_with_their_nouns():
    """One frame, two frames."""
    assert plain.counted(1, "frame") == "1 frame"
    assert plain.counted(2000, "frame") == "2,000 frames"
    assert plain.counted(0, "reply", "replies") == "0 replies"
