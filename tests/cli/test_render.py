"""A saved result in other forms."""

from __future__ import annotations

import pytest


@pytest.fixture
def saved(run, place):
    """Analyse once into every form."""
    assert place.exists()
    forms = ["--json", "result.json", "--html", "a.html", "--markdown", "a.md"]
    ended = run("analyze", "director.pcap", "rs1.pcap", *forms)
    assert ended.code == 0
    return ended


def test_the_report_is_that_of_the_analysis(run, place, saved):
    """The same bytes come from the JSON as from the captures."""
    assert saved.code == 0
    for name in ("director.pcap", "rs1.pcap"):
        (place / name).unlink()
    assert run("render", "result.json", "--html", "b.html", "--markdown", "b.md").code == 0
    assert (place / "b.html").read_bytes() == (place / "a.html").read_bytes()
    assert (place / "b.md").read_bytes() == (place / "a.md").read_bytes()


def test_the_summary_is_that_of_the_analysis(run, saved):
    """Without an output, and with --terminal, the summary is printed."""
    summary = saved.out.removesuffix("\nReport: a.html; JSON: result.json; Markdown: a.md\n")
    assert run("render", "result.json").out == summary
    assert run("render", "result.json", "--terminal", "--markdown", "b.md").out == summary
    assert run("render", "result.json", "--markdown", "c.md").out == ""


def test_a_result_from_standard_input(run, place, saved):
    """`pcapdiag analyze --json - | pcapdiag render -`."""
    assert saved.code == 0
    ended = run("render", "-", "--markdown", "-", stdin=(place / "result.json").read_bytes())
    assert ended.code == 0
    assert ended.out == (place / "a.md").read_text()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "no UTF-8"),
        (b"[]", "no result"),
        (b'{"schema": 99}', "schema 99"),
        (b'{"schema": 1}', "result"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_result_is_unreadable(run, tmp_path, content, said):
    """The file is named, and what was found in it."""
    if content is not None:
        (tmp_path / "odd.json").write_bytes(content)
    ended = run("render", "odd.json", "--html", "x.html")
    assert ended.code == 3
    assert len(ended.errors) == 1
    assert ended.errors[0].startswith("odd.json: ")
    assert said in ended.errors[0]
    assert not (tmp_path / "x.html").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--html", "result.json"], "would overwrite the input result.json"),
        (["--html", "-"], "--html needs the name of a file"),
        (["--terminal", "--markdown", "-"], "both want standard output"),
    ],
)
def test_a_contradiction_is_a_usage_error(run, tmp_path, arguments, said):
    """Outputs are held against each other and against the input."""
    (tmp_path / "result.json").write_text("{}")
    ended = run("render", "result.json", *arguments)
    assert ended.code == 2
    assert said in ended.errors[0]
