"""The program: its help, its start, and the one line that an error becomes."""

from __future__ import annotations

import importlib
import subprocess
import sys
import textwrap
from importlib.metadata import version
from pathlib import Path

import click
import pytest

from pcapdiag.cli import main, program
from pcapdiag.cli.program import COMMANDS, Session, settle
from pcapdiag.errors import RuleError, SiteError, UnknownFormat

HEAVY = {"numpy", "polars", "jinja2", "rich", "scapy", "pyshark", "importlib.metadata"}
"""Each of these alone takes a good part of the time that --help may."""


def _modules_after(script: str) -> set[str]:
    ended = subprocess.run(
        [sys.executable, "-c", f"import sys\n{script}\nprint('\\n'.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(ended.stdout.splitlines())


def test_the_end_collects_no_garbage():
    """What a run leaves goes with the process: to look through it takes as long as to read it."""
    script = """
        import atexit, gc
        atexit.register(lambda: print(gc.get_freeze_count() > 10_000))
        from pcapdiag.cli import main
        main(["--version"])
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    )
    assert ended.stdout.splitlines()[-1] == "True"


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS)])
def test_help_imports_nothing_heavy(arguments):
    """Help answers at once: neither the tables nor the reports are loaded for it."""
    script = f"from pcapdiag.cli import main\nmain({arguments!r}, standalone_mode=False)"
    loaded = _modules_after(script)
    assert "pcapdiag.cli.program" in loaded
    assert loaded & HEAVY == set()
    assert ("pcapdiag.cli.analyze" in loaded) == (arguments[0] == "analyze")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_their_own_help_says(run, name):
    """Each line of `pcapdiag --help` is the first line of the command's help."""
    command = importlib.import_module(f"pcapdiag.cli.{name}").command
    assert command.short_help == COMMANDS[name]
    assert COMMANDS[name] in run("--help").out
    ended = run(name, "--help")
    assert ended.code == 0
    assert f"Usage: pcapdiag {name}" in ended.out


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_fits_a_terminal_and_keeps_its_examples(run, name):
    """Examples stand one a line, and no line is longer than a terminal is wide."""
    out = run(*filter(None, [name]), "--help").out
    assert max(map(len, out.splitlines())) <= 80
    assert "\b" not in out
    if name != "rules":
        assert any(line.startswith("    pcapdiag ") for line in out.splitlines())


def test_the_exit_codes_stand_in_the_help(run):
    """Whoever writes a script finds all of them in --help."""
    for arguments in ([], ["analyze"]):
        out = run(*arguments, "--help").out
        assert all(f"\n    {code}  " in out for code in (0, 1, 2, 3, 130))


def test_later_options_are_unknown_not_ignored(run):
    """An option that does nothing would be worse than none."""
    for option in ("--sarif", "--jobz", "--scheduled"):
        ended = run("analyze", option, "x", "x.pcap")
        assert ended.code == 2
        assert "no such option" in ended.errors[0]
        assert option in ended.errors[0]


def test_the_version_is_the_installed_one(run):
    """--version names the program and the version of the package."""
    assert run("--version").out == f"pcapdiag {version('pcapdiag')}\n"


def test_nothing_asked_for_is_a_usage_error_with_the_help(run):
    """`pcapdiag` alone shows the help on standard error."""
    ended = run()
    assert ended.code == 2
    assert ended.out == ""
    assert ended.err == run("--help").out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["analyse"], "no command 'analyse': did you mean 'analyze'? (see 'pcapdiag --help')"),
        (["xyz"], "no command 'xyz': there are analyze, inspect"),
        (["--nonsense"], "no such option"),
        (["analyze"], "missing argument '[NAME=]CAPTURE...' (see 'pcapdiag analyze --help')"),
        (["analyze", "x.pcap", "--fail-on", "worse"], "invalid value for '--fail-on'"),
        (["analyze", "x.pcap", "--jsn", "y"], "no such option"),
        (["explain"], "missing argument"),
    ],
)
def test_a_usage_error_is_one_line_and_exit_code_2(run, arguments, said):
    """What click finds wrong is said in one line, with where to look."""
    ended = run(*arguments)
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1
    assert said in ended.errors[0]


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (RuleError("there is no rule 'x'"), 2, "there is no rule 'x'"),
        (SiteError("site.toml: key"), 2, "site.toml: key"),
        (UnknownFormat("a.pcap", "begins with text"), 3, "a.pcap: begins with text"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (click.Abort(), 130, "interrupted"),
        (MemoryError(), 70, "out of memory"),
        (OSError(5, "Input/output error", "a.pcap"), 2, "a.pcap: Input/output error"),
        (OSError("refused"), 2, "refused"),
        (ZeroDivisionError("division by zero"), 70, "internal error: ZeroDivisionError: division"),
        (RuleError("two\nlines \x1b[31mred"), 2, "two lines red"),
    ],
)
def test_every_error_becomes_one_line_and_a_code(capsys, error, code, said):
    """No exception leaves the program; --debug adds where it came from."""

    def fail() -> int:
        raise error

    assert settle(fail, Session()) == code
    shown = capsys.readouterr().err
    assert shown.startswith(f"pcapdiag: error: {said}")
    assert len(shown.splitlines()) == 1
    settle(fail, Session(debug=True))
    told_where = "Traceback" in capsys.readouterr().err
    assert told_where == (code in {2, 3, 70})


def test_debug_reaches_the_last_stop(run, monkeypatch):
    """--debug after the command shows the traceback of a defect."""

    def broken(*_arguments: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr("pcapdiag.registry.rules", broken)
    assert run("rules").errors == [
        "internal error: ZeroDivisionError: a defect; --debug shows where, please report it"
    ]
    with pytest.raises(AssertionError, match="Traceback"):
        run("rules", "--debug")


def test_the_installed_program_runs():
    """The entry point that pip makes is this command line."""
    script = Path(sys.executable).with_name("pcapdiag")
    if not script.exists():
        pytest.skip("pcapdiag is not installed beside this Python")
    ended = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert ended.stdout == f"pcapdiag {version('pcapdiag')}\n"


def test_python_m_names_itself_pcapdiag(execute):
    """`python -m pcapdiag` speaks of the program, not of a file."""
    ended = execute("nonsense")
    assert ended.code == 2
    assert ended.err.startswith("pcapdiag: error: no command 'nonsense'")


def test_the_program_is_a_click_group():
    """Shell completion and CliRunner find what they expect."""
    assert isinstance(main, click.Group)
    assert main.list_commands(click.Context(main)) == list(program.COMMANDS)
