"""`pcapdiag analyze` from its arguments to its outputs and its exit code."""

from __future__ import annotations

import json
import textwrap

import pytest

from pcapdiag import spool

HEAD = """
from pcapdiag.rule import Cause, Confidence, Evidence, Finding, Needs, NotExamined, Severity, rule
"""

FINDS = """
@rule(title="It is {severity}", severity=Severity.{upper}, needs=Needs(), since="0.1")
def check(case):
    first = case.vantages[0]
    yield Finding(
        title="It is {severity} at 203.0.113.10",
        summary="Seen.",
        cause=Cause(code="test", text="made for a test"),
        severity=Severity.{upper},
        confidence=Confidence.HIGH,
        evidence=(
            Evidence(
                role="primary",
                vantage=first.name,
                file=first.captures[0].path,
                frame=1,
                note=f"first of {{first.packets.height}} packets",
            ),
        ),
    )
"""

OPEN = """
@rule(title="Open", severity=Severity.HIGH, needs=Needs(), since="0.1")
def check(case):
    yield NotExamined(reason="nobody knows")
"""

RAISES = """
@rule(title="Raises", severity=Severity.HIGH, needs=Needs(), since="0.1")
def check(case):
    raise RuntimeError("a defect\\nin 2 lines")
    yield
"""


@pytest.fixture
def rules(place):
    """Make a folder of rules whose verdicts a test can choose from."""
    folder = place / "mine"
    folder.mkdir()
    for severity in ("critical", "medium", "info"):
        source = FINDS.format(severity=severity, upper=severity.upper())
        (folder / f"finds_{severity}.py").write_text(HEAD + textwrap.dedent(source))
    (folder / "stays_open.py").write_text(HEAD + OPEN)
    (folder / "raises_error.py").write_text(HEAD + RAISES)
    return folder


def _result(place, name="result.json"):
    return json.loads((place / name).read_text())


def test_the_summary_is_printed_and_the_report_written(run, place, rules):
    """Without options the terminal tells the findings and where the HTML report is."""
    ended = run("analyze", "director.pcap", "--rules-dir", rules, "--select", "finds-critical")
    assert ended.code == 0
    assert "It is critical" in ended.out
    assert ended.out.endswith("\nReport: pcapdiag-report.html\n")
    assert ended.err == ""
    html = (place / "pcapdiag-report.html").read_text()
    assert "It is critical" in html
    assert sorted(path.name for path in place.glob("*.*")) == [
        "director.pcap",
        "pcapdiag-report.html",
        "rs1.pcap",
    ]


def test_what_outgrows_memory_is_spooled_and_removed(run, place, tmp_path, monkeypatch):
    """The result is the same, and the work directory holds nothing when all is done."""
    work = tmp_path / "work"
    work.mkdir()
    arguments = ["analyze", "director.pcap", "rs1.pcap", "--no-html", "--json"]
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    assert run(*arguments, "plain.json").code == 0
    made = []
    monkeypatch.setattr("pcapdiag.spool.IN_MEMORY_ROWS", 0)
    write = spool.written
    monkeypatch.setattr(
        "pcapdiag.spool.written", lambda *given: made.append(write(*given)) or made[-1]
    )
    assert run(*arguments, "spooled.json", "--work-dir", str(work)).code == 0
    assert (place / "spooled.json").read_bytes() == (place / "plain.json").read_bytes()
    assert made
    assert all(path.startswith(str(work)) for path in made)
    assert not list(work.iterdir())


def test_every_form_goes_where_it_is_told(run, place):
    """--html, --json and --markdown take a file; the default report is not written then."""
    arguments = ["--html", "a.html", "--json", "a.json", "--markdown", "a.md"]
    ended = run("analyze", "director.pcap", "rs1.pcap", *arguments)
    assert ended.code == 0
    assert (place / "a.html").read_text().lower().startswith("<!doctype html>")
    assert [each["name"] for each in _result(place, "a.json")["vantages"]] == ["director", "rs1"]
    assert (place / "a.md").read_text().startswith("#")
    assert not (place / "pcapdiag-report.html").exists()


@pytest.mark.parametrize("option", ["--json", "--markdown"])
def test_a_document_on_standard_output_stands_alone(run, place, option):
    """`--json -` gives the document and nothing else, the same as the file."""
    ended = run("analyze", "director.pcap", option, "-", "--no-html")
    assert ended.code == 0
    assert ended.err == ""
    if option == "--json":
        assert json.loads(ended.out)["schema"] == 1
    else:
        assert ended.out.startswith("#")
    assert not list(place.glob("*.html"))


def test_quiet_prints_nothing(run, place):
    """--quiet leaves the outputs and the exit code."""
    ended = run("analyze", "director.pcap", "--quiet")
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    assert (place / "pcapdiag-report.html").exists()


def test_verbose_says_what_is_done_on_standard_error(run, place):
    """--verbose names what was read and written; the summary stays what it is."""
    assert place.exists()
    ended = run("analyze", "director.pcap", "--verbose")
    assert ended.code == 0
    assert "pcapdiag: director: 5 packets of director.pcap\n" in ended.err
    assert "pcapdiag: wrote pcapdiag-report.html\n" in ended.err
    assert ended.out == run("analyze", "director.pcap").out


def test_names_and_order_are_the_users(run, place):
    """NAME= names the vantage, and gives it its role."""
    assert place.exists()
    ended = run("analyze", "rs-a=rs1.pcap", "lb=director.pcap", "--json", "-", "--no-html")
    vantages = json.loads(ended.out)["vantages"]
    assert {(each["name"], each["role"]) for each in vantages} == {
        ("rs-a", "realserver"),
        ("lb", "director"),
    }


def test_standard_input_is_a_capture(execute, place):
    """A capture may come through a pipe, with the result going out by another."""
    with (place / "director.pcap").open("rb") as capture:
        ended = execute("analyze", "director=-", "--json", "-", "--no-html", stdin=capture)
    assert ended.code == 0
    assert json.loads(ended.out)["vantages"][0]["files"][0]["packets"] == 5


def test_a_keyboard_is_no_capture(run, monkeypatch):
    """Nobody types a capture: - at a terminal is a mistake that would wait for ever."""
    monkeypatch.setattr("pcapdiag.cli.streams.on_keyboard", lambda: True)
    ended = run("analyze", "-")
    assert ended.code == 2
    assert "standard input, which is a terminal here" in ended.errors[0]


def test_a_result_does_not_depend_on_the_clock(run, place, monkeypatch):
    """With SOURCE_DATE_EPOCH two runs give the same bytes."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1714557600")
    outputs = []
    for name in ("a.json", "b.json"):
        assert run("analyze", "director.pcap", "--json", name, "--no-html").code == 0
        outputs.append((place / name).read_bytes())
    assert outputs[0] == outputs[1]
    assert b"2024-05-01T10:00:00" in outputs[0]
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    assert run("analyze", "director.pcap").code == 2


@pytest.mark.parametrize(
    ("since", "until", "packets"),
    [
        ("+1", None, 2),
        (None, "+1", 3),
        ("+0.2", "+2", 2),
        ("2024-05-01T10:00:01Z", None, 2),
        ("2024-05-01T12:00:00.1+02:00", "+1", 2),
        ("+100", None, 0),
    ],
)
def test_since_and_until_leave_out_what_lies_outside(run, place, rules, since, until, packets):
    """The span is counted from the first packet or given as a time."""
    assert rules.exists()
    ended = run(
        *("analyze", "director.pcap", "--rules-dir", "mine", "--select", "finds-info"),
        *(("--since", since) if since else ()),
        *(("--until", until) if until else ()),
        *("--json", "result.json", "--no-html"),
    )
    assert ended.code == 0
    evidence = _result(place)["findings"][0]["evidence"][0]
    assert evidence["note"] == f"first of {packets} packets"


def test_digests_are_noted_when_asked_for(run, place, captures):
    """--digest gives the SHA-256 of each file, without it there is none."""
    import hashlib

    run("analyze", "director.pcap", "--json", "a.json", "--no-html", "--digest")
    run("analyze", "director.pcap", "--json", "b.json", "--no-html")
    digest = hashlib.sha256(captures.pcap).hexdigest()
    assert _result(place, "a.json")["vantages"][0]["files"][0]["sha256"] == digest
    assert _result(place, "b.json")["vantages"][0]["files"][0]["sha256"] is None


def test_redact_hides_addresses_in_every_output(run, place, rules):
    """No output has an address of the captures, the terminal included."""
    arguments = ["--rules-dir", rules, "--json", "a.json", "--markdown", "a.md", "--redact"]
    ended = run("analyze", "director.pcap", "rs1.pcap", *arguments)
    assert ended.code == 0
    outputs = [ended.out, *(path.read_text() for path in place.glob("*.[hjm][tsd]*"))]
    assert len(outputs) == 4
    for text in outputs:
        assert "It is critical at ip-" in text
        assert "203.0.113." not in text
        assert "198.51.100." not in text
        assert "02:00:00:00:00:fe" not in text


def test_a_site_is_taken_into_account(run, place):
    """What --site says of a service stands in the result."""
    (place / "site.toml").write_text(
        '[[service]]\nprotocol = "tcp"\nvip = "203.0.113.10"\nport = 80\nmethod = "dr"\n'
    )
    run("analyze", "director.pcap", "--site", "site.toml", "--json", "result.json", "--no-html")
    services = _result(place)["cluster"]["services"]
    assert [(each["vip"], each["port"], each["method"]) for each in services] == [
        ("203.0.113.10", 80, "dr")
    ]


@pytest.mark.parametrize(
    ("fail_on", "selected", "code"),
    [
        (None, "finds-critical", 0),
        ("critical", "finds-critical", 1),
        ("critical", "finds-medium", 0),
        ("high", "finds-critical", 1),
        ("MEDIUM", "finds-medium", 1),
        ("medium", "finds-info", 0),
        ("info", "finds-info,finds-critical", 1),
        ("info", "stays-open", 0),
        ("info", "raises-error", 0),
    ],
)
def test_fail_on_is_a_threshold(run, rules, fail_on, selected, code):
    """A finding at or above it makes the exit code 1; open questions and failures do not."""
    arguments = ["--rules-dir", rules, "--select", selected, "--no-html", "--quiet"]
    threshold = ["--fail-on", fail_on] if fail_on else []
    assert run("analyze", "director.pcap", *arguments, *threshold).code == code


@pytest.mark.parametrize(
    ("selected", "code"), [("stays-open", 1), ("raises-error", 1), ("finds-critical", 0)]
)
def test_fail_on_not_examined_counts_open_questions_and_failed_rules(run, rules, selected, code):
    """A rule that failed has examined nothing."""
    arguments = ["--rules-dir", rules, "--select", selected, "--no-html", "--quiet"]
    assert run("analyze", "director.pcap", *arguments, "--fail-on-not-examined").code == code


def test_a_rule_that_fails_is_told_and_costs_nothing_else(run, place, rules):
    """The report is complete but for that rule, which stands in it as failed."""
    arguments = ["--rules-dir", rules, "--select", "raises-error,finds-medium"]
    ended = run("analyze", "director.pcap", *arguments, "--json", "result.json")
    assert ended.code == 0
    assert ended.err.startswith("pcapdiag: warning: the rule raises-error failed: RuntimeError")
    assert len(ended.err.splitlines()) == 1
    result = _result(place)
    assert [each["rule"] for each in result["failed_rules"]] == ["raises-error"]
    assert [each["rule"] for each in result["findings"]] == ["finds-medium"]


def test_ignore_leaves_a_rule_out(run, place, rules):
    """--ignore takes away from what --select names; both may be lists or repeated."""
    select = ["--select", "finds-info, finds-medium", "--select", "stays-open"]
    ignore = ["--ignore", "stays-open,finds-medium"]
    output = ["--json", "result.json", "--no-html"]
    run("analyze", "director.pcap", "--rules-dir", rules, *select, *ignore, *output)
    result = _result(place)
    assert [each["rule"] for each in result["findings"]] == ["finds-info"]
    assert result["not_examined"] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--select", "finds-inf"], "there is no rule 'finds-inf': did you mean finds-info"),
        (["--ignore", "finds_info"], "did you mean finds-info"),
        (["--select", "qqq"], "there is no rule 'qqq': 'pcapdiag rules' lists them"),
        (["--select", "finds-info", "--ignore", "finds-info"], "no rule is left"),
        (["--rules-dir", "nowhere"], "nowhere"),
        (["--since", "yesterday"], "--since: 'yesterday' is neither a time"),
        (["--until", "2024-05-01T10:00:00"], "--until: '2024-05-01T10:00:00' has no zone"),
        (["--since", "+9", "--until", "+1"], "--since is later than --until"),
        (["--site", "nowhere.toml"], "nowhere.toml"),
        (["--html", "a.html", "--no-html"], "--html and --no-html contradict"),
        (["--quiet", "--verbose"], "--quiet and --verbose contradict"),
        (["--json", "x", "--markdown", "x"], "--markdown x would overwrite --json x"),
        (["--json", "pcapdiag-report.html"], "would overwrite --html pcapdiag-report.html"),
        (["--json", "director.pcap"], "--json director.pcap would overwrite the input"),
        (["--json", "nowhere/a.json"], "there is no directory"),
        (["--html", ""], "--html needs the name of a file"),
    ],
)
def test_a_contradiction_is_a_usage_error_before_any_work(run, place, rules, arguments, said):
    """Nothing is written, and one line says what is wrong; 2 comes before 3."""
    before = sorted(place.iterdir())
    base = ["analyze", "director.pcap", "missing.pcap"]
    base += [] if "nowhere" in arguments else ["--rules-dir", str(rules)]
    ended = run(*base, *arguments)
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1
    assert said in ended.errors[0]
    assert sorted(place.iterdir()) == before


def test_a_site_may_not_be_overwritten(run, place):
    """The file that --site names is an input, too."""
    (place / "site.toml").write_text("")
    ended = run("analyze", "director.pcap", "--site", "site.toml", "--json", "site.toml")
    assert ended.code == 2
    assert "would overwrite the input site.toml" in ended.errors[0]


def test_a_report_that_cannot_be_written_costs_only_itself(run, place):
    """The other outputs are written, the summary printed, and the exit code is 2."""
    ended = run("analyze", "director.pcap", "--html", "/dev/full", "--json", "result.json")
    assert ended.code == 2
    assert ended.errors == [
        "--html /dev/full: cannot be written: No space left on device; nothing was changed"
    ]
    assert _result(place)["schema"] == 1
    assert ended.out != ""
    assert "Report:" not in ended.out


def test_what_cannot_be_read_is_reported_and_the_rest_analysed(run, place, rules):
    """Exit code 3 comes before 1, and the report says what is missing from it."""
    (place / "broken.pcap").write_text("no capture")
    arguments = ["--rules-dir", rules, "--select", "finds-critical", "--fail-on", "low"]
    inputs = ["director.pcap", "broken.pcap", "missing.pcap"]
    ended = run("analyze", *inputs, *arguments, "--json", "result.json", "--no-html")
    assert ended.code == 3
    assert len(ended.errors) == 2
    assert sum("broken.pcap" in line for line in ended.errors) == 1
    assert sum("missing.pcap" in line for line in ended.errors) == 1
    result = _result(place)
    assert [each["rule"] for each in result["findings"]] == ["finds-critical"]
    for name in ("broken.pcap", "missing.pcap"):
        assert any(
            name in note and "missing from this analysis" in note for note in result["notes"]
        )


def test_nothing_readable_leaves_the_old_report(run, place):
    """An analysis of nothing does not replace the one of yesterday."""
    (place / "pcapdiag-report.html").write_text("old")
    ended = run("analyze", "missing.pcap", "--json", "result.json")
    assert ended.code == 3
    assert ended.out == ""
    assert len(ended.errors) == 1
    assert (place / "pcapdiag-report.html").read_text() == "old"
    assert not (place / "result.json").exists()


INTERRUPTS = """
import os, signal

@rule(title="Interrupts", severity=Severity.HIGH, needs=Needs(), since="0.1")
def check(case):
    os.kill(os.getpid(), signal.SIGINT)
    yield NotExamined(reason="not reached")
"""


def test_an_interrupt_ends_with_130_and_leaves_the_old_report(execute, place, rules):
    """Control-C is one line, and no file is half written."""
    (rules / "interrupts.py").write_text(HEAD + INTERRUPTS)
    (place / "pcapdiag-report.html").write_text("old")
    before = sorted(place.iterdir())
    ended = execute("analyze", "director.pcap", "--rules-dir", rules, "--select", "interrupts")
    assert (ended.code, ended.out, ended.errors) == (130, "", ["interrupted"])
    assert len(ended.err.split("\n")) <= 3  # a terminal shows ^C first: the line after it is ours
    assert sorted(place.iterdir()) == before
    assert (place / "pcapdiag-report.html").read_text() == "old"


def test_a_reader_that_goes_away_costs_neither_report_nor_code(execute, place, rules):
    """`pcapdiag analyze ... | head -1` still writes the report and ends with the verdict's code."""
    import os

    reader, writer = os.pipe()
    os.close(reader)
    arguments = ["--rules-dir", rules, "--select", "finds-critical", "--fail-on", "high"]
    ended = execute("analyze", "director.pcap", *arguments, stdout=writer, capture_output=False)
    os.close(writer)
    assert ended.code == 1
    assert (place / "pcapdiag-report.html").exists()
