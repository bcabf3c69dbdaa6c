"""The catalogue polices itself: no rule without its docstring sections, test, samples and entry.

rules/README.md is made from the docstrings: `pytest tests/test_catalogue.py --update-goldens`.
"""

from __future__ import annotations

import re
from pathlib import Path

import incidents
import pytest

from pcapdiag import registry

ROOT = Path(__file__).parent.parent
README = ROOT / "rules" / "README.md"
SECTIONS = ["Symptom", "Mechanism", "Evidence", "Not this rule", "Remedy", "References"]
RULES = registry.rules()

INTRODUCTION = """\
# The rules

One fault a file; the id is the file name with dashes. Each rule ends in one of three ways: a
*finding* with frames that prove it, *clean* with what was looked at, or *not examined* with the
reason and the capture that would answer. `pcapdiag explain ID` prints an entry, `pcapdiag rules`
lists them. This page is made from the docstrings by `pytest tests/test_catalogue.py
--update-goldens`.

A rule of your own is a Python file in a folder given with `--rules-dir`, or a module that an
installed package offers under the entry point group `pcapdiag.rules`: one docstring with the
sections below and one function decorated with `pcapdiag.rule.rule`.
"""


def _catalogue() -> str:
    lines = [
        INTRODUCTION,
        "| rule | says | usual severity | best captured at |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| [{name}](#{name}) | {rule.title} | {rule.severity} | {rule.needs.text} |"
        for name, rule in RULES.items()
    ]
    for name, rule in RULES.items():
        head, _, body = rule.doc.partition("\n")
        lines += ["", f"## {name}", "", head, *_sections(body)]
    lines += ["", incidents.section()]
    return "\n".join(lines) + "\n"


def _sections(body: str) -> list[str]:
    lines: list[str] = []
    for line in body.splitlines():
        if line in SECTIONS:
            lines += [f"**{line}**", ""]
        else:
            lines.append(re.sub(r"^ {4}", "", line))
    return lines


def test_the_catalogue_is_what_the_docstrings_say(update_goldens):
    """rules/README.md has every rule with its docstring, and nothing else."""
    if update_goldens:
        README.write_text(_catalogue())
    assert README.read_text() == _catalogue()


@pytest.mark.parametrize("name", RULES)
def test_a_rule_explains_itself_in_all_sections(name):
    """The docstring is a case file: a first line, then the sections in order, each with text."""
    head, *rest = RULES[name].doc.splitlines()
    assert head.endswith(".")
    assert [line for line in rest if re.match(r"\S", line)] == SECTIONS
    for section in SECTIONS:
        after = rest[rest.index(section) + 1]
        assert after.startswith("    ")
        assert after.strip()


@pytest.mark.parametrize("name", RULES)
def test_a_rule_has_a_test_of_its_own(name):
    """tests/rules/test_<rule>.py exists and tests something."""
    test = ROOT / "tests" / "rules" / f"test_{name.replace('-', '_')}.py"
    assert test.is_file()
    assert "def test_" in test.read_text()


@pytest.mark.parametrize("name", RULES)
def test_a_rule_has_a_positive_sample_and_a_near_miss(name):
    """Some sample must report the rule, and one named after it must not."""
    samples = [path.name for path in (ROOT / "samples").glob(f"{name}-*") if path.is_dir()]
    assert f"{name}-near-miss" in samples
    assert len(samples) >= 2


def test_every_known_incident_has_an_answer():
    """Forty-five classes of incidents and the HOWTO's symptoms each name a rule, or say why not."""
    assert len(incidents.INCIDENTS) == 45
    answers = [answer for *_, answer in (*incidents.INCIDENTS, *incidents.SYMPTOMS)]
    named = {name for answer in answers for name in re.findall(r"`([a-z-]+)`", answer)}
    assert named <= set(RULES)
    assert all("`" in answer for answer in answers)


def test_the_rules_of_the_incidents_keep_their_causes():
    """A cause named in brackets is one that the rule's source holds."""
    for *_, answer in incidents.INCIDENTS:
        for name, codes in re.findall(r"`([a-z-]+)` \(([a-z-]+(?:, [a-z-]+)*)[,)]", answer):
            source = (ROOT / "rules" / f"{name.replace('-', '_')}.py").read_text()
            for code in codes.split(", "):
                assert code in source, (name, code)
