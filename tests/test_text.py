"""Text from strangers is harmless once cleaned."""

from __future__ import annotations

import shlex
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pcapdiag import text

ANYTHING = st.text(
    st.characters() | st.sampled_from("\x1b\x07\\[];0m\x9b\u202e\u2028\ud800 \t\r\n")
)


@given(ANYTHING, st.integers(1, 300))
@example("\x1b]0;title\x07after", 200)
@example("\x1b" * 1000, 5)
@example(" " * 5000 + "x", 5)
def test_clean_text_is_one_printable_line(captured: str, limit: int) -> None:
    """Whatever comes in, what leaves has no control, format or line character and is bounded."""
    cleaned = text.clean(captured, limit)
    assert len(cleaned) <= limit
    assert len(cleaned.splitlines()) <= 1
    assert not {unicodedata.category(char) for char in cleaned} & text._UNSAFE
    cleaned.encode()  # no lone surrogate left


@given(ANYTHING)
def test_cleaning_twice_changes_nothing(captured: str) -> None:
    """What is clean stays as it is."""
    once = text.clean(captured)
    assert text.clean(once) == once


@given(st.text("abcXYZ019 -_.:äß漢", max_size=text.MAX_TEXT))
def test_honest_text_stays_readable(captured: str) -> None:
    """Only white space is folded in text that has nothing to hide."""
    assert text.clean(captured) == " ".join(captured.split())


@pytest.mark.parametrize(
    ("captured", "cleaned"),
    [
        ("\x1b[31mred\x1b[0m", "red"),  # colours (ECMA-48 control sequence)
        ("\x1b]0;owned\x07title", "title"),  # the window's title
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),  # a hyperlink
        ("a\r\nb\tc", "a b c"),  # several lines
        ("user\u202etxt.exe", "user\ufffdtxt.exe"),  # right-to-left override
        ("nul\0byte", "nul\ufffdbyte"),
        ("\x9b31m", "\ufffd31m"),  # the 8-bit form of the control sequence
    ],
)
def test_known_tricks_are_disarmed(captured: str, cleaned: str) -> None:
    """Escapes go, and what could reorder or end a line becomes a replacement character."""
    assert text.clean(captured) == cleaned


def test_long_text_is_cut_and_says_so() -> None:
    """Megabytes become one short line that ends in an ellipsis; the limit itself is not cut."""
    assert text.clean("x" * text.MAX_TEXT) == "x" * text.MAX_TEXT
    cut = text.clean("x" * 5_000_000)
    assert len(cut) == text.MAX_TEXT
    assert cut.endswith("…")


@pytest.mark.parametrize(
    "name", ["eth0", "bond0.100", "lo:0", "br-lan", "veth@if3", "a" * 15, "_x"]
)
def test_interface_names_may_stand_in_a_command(name: str) -> None:
    """What Linux calls interfaces is kept."""
    assert text.command_name(name, "IFACE") == name


@pytest.mark.parametrize(
    "name",
    ["", "-w", "a b", "eth0;reboot", "$(id)", "`id`", "eth0\n", "a" * 16, "eth0|x", "ëth0", "../x"],
)
def test_other_names_never_reach_a_command(name: str) -> None:
    """Options, blanks, shell characters, line ends and over-long names become the placeholder."""
    assert text.command_name(name, "IFACE") == "IFACE"


@given(ANYTHING)
def test_a_command_name_needs_no_quoting(name: str) -> None:
    """The result is one shell word that the shell leaves alone."""
    word = text.command_name(name, "IFACE")
    assert shlex.quote(word) == word
