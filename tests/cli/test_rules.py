"""The catalogue as a table."""

from __future__ import annotations

import pytest


def test_each_rule_has_one_line_with_all_that_the_registry_knows(run):
    """A pipe gets every rule in one line, so that grep finds it whole."""
    from pcapdiag import registry

    ended = run("rules")
    assert ended.code == 0
    for rule in registry.rules().values():
        line = next(line for line in ended.out.splitlines() if line.split()[:1] == [rule.id])
        assert line.split()[1] == rule.severity.value
        assert rule.title in line
        assert rule.needs.text in line


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise RuntimeError('no')", "cannot be loaded: RuntimeError: no"),
        ("x = (", "SyntaxError"),
        ("x = 1", "exactly one function decorated with @rule, found 0"),
    ],
)
def test_a_rules_dir_that_is_broken_is_a_usage_error(run, tmp_path, source, said):
    """A rule file that cannot be used is named, and nothing is listed."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "broken.py").write_text(source)
    ended = run("rules", "--rules-dir", "mine")
    assert ended.code == 2
    assert ended.out == ""
    assert "mine/broken.py" in ended.errors[0]
    assert said in ended.errors[0]


def test_a_rules_dir_that_is_missing_is_a_usage_error(run):
    """A folder that is not there is named."""
    ended = run("rules", "--rules-dir", "nowhere")
    assert ended.code == 2
    assert "nowhere" in ended.errors[0]
