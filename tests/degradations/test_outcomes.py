"""Stored outcomes come back as they were, and whoever says less than they do is caught."""

from __future__ import annotations

from dataclasses import replace

import outcomes
import pytest
from outcomes import Outcome
from verdicts import Analysis

from pcapdiag.result import Clean, Examined, Result, Scope

BASE = Outcome(
    found={"pmtud-blackhole": "high", "icmp-spoofed": "low"},
    clean=frozenset({"redirect-to-router", "icmp-checksum-burst"}),
)
LESS = Outcome(
    found={"pmtud-blackhole": "medium"},
    missed=frozenset({"service-refused"}),
    denied=frozenset({"vip-arp-conflict"}),
    clean=frozenset({"redirect-to-router"}),
)


TRUTH = {
    "hosts": {},
    "flows": [
        {"id": 0, "proto": "tcp", "client": ["198.51.100.1", 1], "vip": ["203.0.113.10", 80]},
        {"id": 1, "proto": "tcp", "client": ["198.51.100.1", 2], "vip": ["203.0.113.10", 443]},
    ],
    "must_report": [
        {"id": "pmtud-blackhole", "flows": [0], "facts": {"direction": "to-client"}},
    ],
}


@pytest.mark.parametrize(
    ("scope", "denies"),
    [
        (Scope(), True),
        (Scope(service="tcp 203.0.113.10:80"), True),
        (Scope(service="tcp 203.0.113.10:80", direction="to-client"), True),
        (Scope(service="tcp 203.0.113.10:80", direction="to-realserver"), False),
        (Scope(service="tcp 203.0.113.10:443", direction="to-client"), False),
    ],
)
def test_clean_denies_where_it_speaks_of_what_must_be_found(scope, denies):
    """Of another service or direction it may be true; the finding is missing all the same."""
    clean = Clean(rule="pmtud-blackhole", scope=scope, examined=Examined(packets=1))
    said = outcomes.judge(TRUTH, Analysis(Result(clean=(clean,)), (), {}), spoiled=True)
    assert bool(said.denied) is denies
    assert bool(said.missed) is not denies


def test_outcomes_come_back_as_they_were_stored(tmp_path):
    """Reading gives what was written, whatever the order of the lines."""
    pairs = {
        ("zebra", "clock+1s@rs1"): outcomes.same(BASE),
        ("zebra", "none"): BASE,
        ("zebra", "only-icmp"): LESS,
        ("zebra", "first-half"): Outcome(wrong=("a: b", "c")),
        ("ant", "none"): Outcome(clean=frozenset({"redirect-to-router"})),
        ("ant", "last-half"): Outcome(),
    }
    path = tmp_path / "outcomes.txt"
    outcomes.write(path, pairs)
    assert outcomes.read(path) == pairs
    lines = path.read_text().splitlines()
    assert lines == sorted(lines)


@pytest.mark.parametrize(
    ("new", "complaint"),
    [
        (replace(BASE, found={"pmtud-blackhole": "high"}), "icmp-spoofed is no longer found"),
        (
            replace(BASE, found={**BASE.found, "pmtud-blackhole": "low"}),
            "pmtud-blackhole is found with low confidence, no longer high",
        ),
        (
            replace(BASE, clean=frozenset({"redirect-to-router"})),
            "icmp-checksum-burst no longer says clean",
        ),
        (
            replace(BASE, denied=frozenset({"service-refused"})),
            "service-refused says clean where it must be found",
        ),
        (replace(BASE, wrong=("x",)), "wrong: x"),
    ],
)
def test_what_became_worse_is_named(new, complaint):
    """Each way to say less, or less truly, is one complaint."""
    assert outcomes.worse(new, BASE) == [complaint]
    assert outcomes.worse(BASE, replace(new, wrong=())) == []


def test_findings_that_were_identical_must_stay_so():
    """The same words are not enough."""
    assert outcomes.worse(BASE, outcomes.same(BASE)) == [
        "no longer identical to the sample's findings"
    ]


def test_who_never_examines_anything_is_caught():
    """An analysis that says nothing at all is worse than any that said something."""
    pairs = {("zebra", "none"): BASE, ("zebra", "only-icmp"): LESS}
    silent = dict.fromkeys(pairs, Outcome(missed=frozenset({"pmtud-blackhole"})))
    assert {line.split(":")[0] for line in outcomes.worsened(silent, pairs)} == {
        "zebra | none",
        "zebra | only-icmp",
    }


def test_a_wrong_finding_is_worse_even_where_nothing_is_stored():
    """New pairs need no stored outcome to be wrong."""
    assert outcomes.worsened({("ant", "none"): Outcome(wrong=("x",))}, {}) == [
        "ant | none: wrong: x"
    ]


def test_precision_and_recall():
    """Findings that are right of all, and demanded ones that were made of all demanded."""
    pairs = [BASE, LESS, Outcome(wrong=("x",))]
    count = outcomes.tally(
        pairs, [{"pmtud-blackhole"}, {"pmtud-blackhole", "service-refused"}, set()]
    )
    assert (count.right, count.wrong, count.precision) == (3, 1, 0.75)
    assert (count.found, count.demanded) == (2, 3)
    assert count.recall == pytest.approx(2 / 3)
