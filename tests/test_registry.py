"""Rules are found by their files; a file that is no rule is said so in one line."""

from __future__ import annotations

import pytest

from pcapdiag import registry
from pcapdiag.errors import RuleError

GOOD = '''
"""A fault of our own."""
from pcapdiag.rule import Needs, Severity, rule

@rule(title="Ours", severity=Severity.LOW, needs=Needs(), since="1")
def check(case):
    return iter(())
'''


def test_the_five_mission_rules_are_built_in():
    """The ids are the file names with dashes, and each has a docstring of its own."""
    rules = registry.rules()
    assert {
        "pmtud-blackhole",
        "icmp-unreachable-not-forwarded",
        "redirect-to-router",
        "host-prohibited-established",
        "icmp-checksum-burst",
    } <= set(rules)
    assert list(rules) == sorted(rules)
    assert all(rule.doc and rule.title for rule in rules.values())


def test_a_folder_of_rules_is_added(tmp_path):
    """A module of --rules-dir becomes a rule with its file's name; private ones are left alone."""
    (tmp_path / "our_own.py").write_text(GOOD)
    (tmp_path / "_shared.py").write_text("raise RuntimeError")
    rule = registry.rules([str(tmp_path)])["our-own"]
    assert (rule.title, rule.doc) == ("Ours", "A fault of our own.")


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("broken.py", "import nothing_of_this_name", "cannot be loaded: ModuleNotFoundError"),
        ("no_rule.py", "x = 1", "exactly one function decorated with @rule, found 0"),
        ("Upper.py", GOOD, "lower-case name"),
        ("pmtud_blackhole.py", GOOD, "two rule modules have the id pmtud-blackhole"),
    ],
)
def test_what_is_no_rule_is_an_error_in_one_line(tmp_path, name, text, says):
    """The message names the file or id and what is wrong."""
    (tmp_path / name).write_text(text)
    with pytest.raises(RuleError, match=says) as caught:
        registry.rules([str(tmp_path)])
    assert "\n" not in str(caught.value)


def test_a_missing_folder_is_an_error(tmp_path):
    """--rules-dir must exist."""
    with pytest.raises(RuleError, match="no such directory"):
        registry.rules([str(tmp_path / "none")])
