"""What happens when nobody reads, the disk is full, or no terminal is there."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pcapdiag.cli import streams

# -P: not the folder of this name in the working directory, which may be the sources
PROGRAM = [sys.executable, "-P", "-m", "pcapdiag"]


def _run_with_reader_gone(*arguments: str) -> tuple[int, bytes]:
    """Run with a standard output whose reader has already closed it."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ended = subprocess.run(
            [*PROGRAM, *arguments], stdout=writer, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(writer)
    return ended.returncode, ended.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["analyze", "--help"], ["--version"], ["rules"]])
def test_a_reader_that_goes_away_is_no_error(arguments):
    """`pcapdiag rules | head -1` ends quietly."""
    assert _run_with_reader_gone(*arguments) == (0, b"")


@pytest.mark.parametrize("arguments", [["--help"], ["rules"]])
def test_a_full_disk_behind_standard_output_is_an_error(arguments):
    """What could not be written is not passed over in silence."""
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        ended = subprocess.run(
            [*PROGRAM, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert ended.returncode == 2
    assert ended.stderr.startswith("pcapdiag: error: ")
    assert ended.stderr.endswith("No space left on device\n")
    assert len(ended.stderr.splitlines()) == 1


def test_closed_standard_streams_are_no_error():
    """A daemon may start the program without any of them."""
    shell = f"exec {sys.executable} -P -m pcapdiag rules >&- 2>&- <&-"
    assert subprocess.run(["/bin/sh", "-c", shell], check=False).returncode == 0


def test_an_encoding_that_lacks_a_character_is_no_error(execute):
    """A terminal that knows ASCII only gets an escape instead."""
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    ended = execute("explain", "pmtud-blackhöle", env=env)
    assert ended.code == 2
    assert ended.err.startswith("pcapdiag: error: there is no rule 'pmtud-blackh\\xf6le'")


def _page_text() -> str:
    from rich.text import Text

    console = streams.page(30)
    console.print(Text("word " * 12, "red"))
    return console.file.getvalue()


def test_no_color_is_kept(monkeypatch):
    """Colours are asked for by FORCE_COLOR and taken away by NO_COLOR."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b[31m" in _page_text()
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[31m" not in _page_text()


def test_a_pipe_is_as_wide_as_asked(monkeypatch, capsys):
    """Without a terminal a page has the width it was made for, or that of COLUMNS."""
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)
    assert max(map(len, _page_text().splitlines())) == 30
    monkeypatch.setenv("COLUMNS", "12")
    assert max(map(len, _page_text().splitlines())) <= 12
    console = streams.page(30)
    console.print("a", "b   ", sep="\n")
    streams.show(console)
    assert capsys.readouterr().out == "a\nb\n"


def test_messages_are_one_clean_line(capsys):
    """A file name may hold anything; a terminal must not obey it."""
    streams.warning("a\x1b]0;title\x07\nb\u202e")
    assert capsys.readouterr().err == "pcapdiag: warning: a b\ufffd\n"
