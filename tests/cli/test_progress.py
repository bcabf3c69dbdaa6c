"""The progress bar is for people."""

from __future__ import annotations

import io
import os
import pty

from pcapdiag.cli import progress


class _Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


def test_a_pipe_gets_no_progress_bar(monkeypatch):
    """Without a terminal nobody is told anything."""
    monkeypatch.setattr("sys.stderr", io.StringIO())
    with progress.reading() as report:
        assert report is None


def test_a_terminal_gets_one_unless_it_is_unwanted_or_dumb(monkeypatch):
    """A bar is drawn with the file's name; --quiet and TERM=dumb do without."""
    terminal = _Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with progress.reading() as report:
        assert report is not None
        report("folder/[red]a.pcap", 10, 100)
        report("folder/[red]a.pcap", 100, 100)
        report("-", 5, None)
    assert "[red]a.pcap" in terminal.getvalue()
    assert "standard input" in terminal.getvalue()
    with progress.reading(wanted=False) as report:
        assert report is None
    monkeypatch.setenv("TERM", "dumb")
    with progress.reading() as report:
        assert report is None


def test_the_bar_goes_to_standard_error_only(execute, place):
    """On a real terminal the bar comes and goes, and standard output stays a document."""
    assert place.exists()
    outer, inner = pty.openpty()
    env = {**os.environ, "TERM": "xterm"}
    arguments = ["analyze", "director.pcap", "--json", "-", "--no-html"]
    import subprocess

    ended = execute(*arguments, capture_output=False, stdout=subprocess.PIPE, stderr=inner, env=env)
    os.close(inner)
    drawn = os.read(outer, 1 << 16)
    os.close(outer)
    assert ended.code == 0
    assert ended.out.startswith("{")
    assert b"director.pcap" in drawn
    assert b"\x1b[" in drawn
