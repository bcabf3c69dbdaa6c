"""What a reader has to say of a file beside its frames, gathered while reading."""

from __future__ import annotations

from typing import Final

from pcapdiag.text import clean

MAX_NOTES: Final = 50
"""Notes kept of one capture; a file of nothing but comments must not fill memory."""


class Notes:
    """An ordered, bounded collection of cleaned one-line notes without repetitions."""

    def __init__(self) -> None:
        self._lines: dict[str, None] = {}
        self._left_out = 0
        self.cut_short = False
        """Whether the file does not end where a record ends."""

    def add(self, line: str) -> None:
        """Keep `line`, or count it where there are too many already."""
        line = clean(line, 400)
        if line in self._lines:
            return
        if len(self._lines) < MAX_NOTES:
            self._lines[line] = None
        else:
            self._left_out += 1

    def cut(self, line: str) -> None:
        """Keep the note of why reading ended early: always, whatever was kept before."""
        self.cut_short = True
        self._lines[clean(line, 400)] = None

    def lines(self) -> tuple[str, ...]:
        """Return the notes in the order they came."""
        if not self._left_out:
            return tuple(self._lines)
        return (*self._lines, f"{self._left_out} further notes left out")
