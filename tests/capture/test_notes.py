"""Notes of one capture: cleaned, bounded, each once."""

from __future__ import annotations

from pcapdiag.capture.notes import MAX_NOTES, Notes


def test_notes_are_kept_once_and_in_order():
    """A repetition is not counted; text is one printable line."""
    notes = Notes()
    for line in ("b", "a\n\x1b[1mc", "b"):
        notes.add(line)
    assert notes.lines() == ("b", "a c")
    assert not notes.cut_short


def test_notes_are_bounded_but_the_end_is_told():
    """Beyond the limit notes are counted; why reading ended is kept whatever came before."""
    notes = Notes()
    for number in range(MAX_NOTES + 7):
        notes.add(f"note {number}")
    notes.add("note 0")  # known already, so not left out
    notes.cut("the end")
    lines = notes.lines()
    assert lines[MAX_NOTES - 1 :] == (
        f"note {MAX_NOTES - 1}",
        "the end",
        "7 further notes left out",
    )
    assert notes.cut_short
