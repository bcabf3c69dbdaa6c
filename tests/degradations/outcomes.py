"""What is stored of each pair of a sample and a degradation, and when another is worse.

One line a pair in outcomes.txt, sorted:

    SAMPLE | DEGRADATION | identical
    SAMPLE | none | found: RULE CONFIDENCE, ... | clean: RULE, ...
    SAMPLE | DEGRADATION | found: ... | missed: RULE, ... | lost: RULE, ...

`found` are rules that the truth demands or allows; `missed` are demanded ones that say *not
examined* or are silent; `denied` are demanded ones that say clean; `lost` are rules that say clean
of the unspoiled sample and no longer do; `wrong` are findings that the truth does not know.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import truths
import verdicts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from verdicts import Analysis

    from pcapdiag.result import Clean

CONFIDENCES = ("low", "medium", "high")

UNSPOILED = "none"
"""The degradation that is none."""

Key = tuple[str, str]
"""Sample, degradation."""


@dataclass(frozen=True)
class Outcome:
    """What the analysis of one pair said."""

    found: Mapping[str, str] = field(default_factory=dict)
    """Demanded or allowed rules that reported, by themselves or folded, and their confidence."""
    missed: frozenset[str] = frozenset()
    denied: frozenset[str] = frozenset()
    clean: frozenset[str] = frozenset()
    """Rules that are not demanded and say clean."""
    wrong: tuple[str, ...] = ()
    identical: bool = False
    """A lossless degradation changed nothing; then `found` and the others are the sample's."""


def judge(truth: dict[str, Any], analysis: Analysis, *, spoiled: bool) -> Outcome:
    """Return what an analysis said."""
    result = analysis.result
    demanded = {truths.rule(entry) for entry in truths.demands(truth)}
    known = {truths.rule(entry) for entry in truths.allowances(truth)}
    found: dict[str, str] = {}
    for finding in result.findings:
        for rule in (finding.rule, *(item.rule for item in finding.folded)):
            if rule in known:
                words = (found.get(rule, "low"), str(finding.confidence))
                found[rule] = max(words, key=CONFIDENCES.index)
    clean = {item.rule for item in result.clean} - truths.ALWAYS_ALLOWED
    silent = demanded - set(found)
    denied = silent & {item.rule for item in result.clean if _denies(truth, item)}
    return Outcome(
        found=found,
        missed=frozenset(silent - denied),
        denied=frozenset(denied),
        clean=frozenset(clean - demanded - set(found)),
        wrong=tuple(verdicts.wrong(truth, analysis, spoiled=spoiled)),
    )


def _denies(truth: dict[str, Any], clean: Clean) -> bool:
    """Whether a clean verdict is about a service and direction where its rule must find something.

    Of another service or direction it may be right.
    """
    return any(
        (clean.scope.direction is None or truths.direction(entry) in {None, clean.scope.direction})
        and (clean.scope.service is None or clean.scope.service in truths.services(truth, entry))
        for entry in truths.demands(truth)
        if truths.rule(entry) == clean.rule
    )


def same(unspoiled: Outcome) -> Outcome:
    """Return the outcome of a lossless degradation that changed nothing."""
    return replace(unspoiled, wrong=(), identical=True)


def worse(new: Outcome, old: Outcome) -> list[str]:
    """Return in which ways `new` says less, or less truly, than `old`.

    Rules of which `old` says nothing were not there yet and are not compared.
    """
    said = [f"wrong: {line}" for line in new.wrong]
    if old.identical and not new.identical:
        said.append("no longer identical to the sample's findings")
    for rule, word in sorted(old.found.items()):
        now = new.found.get(rule)
        if now is None:
            said.append(f"{rule} is no longer found")
        elif CONFIDENCES.index(now) < CONFIDENCES.index(word):
            said.append(f"{rule} is found with {now} confidence, no longer {word}")
    said += [
        f"{rule} says clean where it must be found" for rule in sorted(new.denied - old.denied)
    ]
    said += [f"{rule} no longer says clean" for rule in sorted(old.clean - new.clean)]
    return said


def read(path: Path) -> dict[Key, Outcome]:
    """Return what is stored; nothing where there is no file yet."""
    stored: dict[Key, Outcome] = {}
    text = path.read_text() if path.exists() else ""
    rows = [[part.strip() for part in line.split("|")] for line in text.splitlines()]
    for sample, name, *parts in sorted(rows, key=lambda row: row[1] != UNSPOILED):
        base = stored.get((sample, UNSPOILED), Outcome())
        stored[sample, name] = _parse(parts, base)
    return stored


def _parse(parts: list[str], base: Outcome) -> Outcome:
    if parts == ["identical"]:
        return same(base)
    fields = dict(part.split(": ", 1) for part in parts if part)
    rules = {name: frozenset(text.split(", ")) for name, text in fields.items() if name != "wrong"}
    words = [text.split() for text in rules.get("found", ())]
    nothing: frozenset[str] = frozenset()
    return Outcome(
        found={rule: word for rule, word in words},  # noqa: C416 - a list of pairs, not of lists
        missed=rules.get("missed", nothing),
        denied=rules.get("denied", nothing),
        clean=rules.get("clean", base.clean - rules.get("lost", nothing)),
        wrong=tuple(filter(None, fields.get("wrong", "").split(" ;; "))),
    )


def write(path: Path, outcomes: Mapping[Key, Outcome]) -> None:
    """Store the outcomes."""
    path.write_text("".join(f"{line}\n" for line in lines(outcomes)))


def lines(outcomes: Mapping[Key, Outcome]) -> list[str]:
    """Return the outcomes as they are stored."""
    return [_line(key, outcomes[key], outcomes[key[0], UNSPOILED]) for key in sorted(outcomes)]


def _line(key: Key, outcome: Outcome, base: Outcome) -> str:
    if outcome.identical:
        return " | ".join((*key, "identical"))
    unspoiled = key[1] == UNSPOILED
    parts = {
        "found": [f"{rule} {word}" for rule, word in outcome.found.items()],
        "missed": outcome.missed,
        "denied": outcome.denied,
        "clean": outcome.clean if unspoiled else (),
        "lost": () if unspoiled else base.clean - outcome.clean,
    }
    texts = [f"{name}: {', '.join(sorted(rules))}" for name, rules in parts.items() if rules]
    if outcome.wrong:
        texts.append(f"wrong: {' ;; '.join(line.replace('|', '/') for line in outcome.wrong)}")
    return " | ".join((*key, *texts))


def worsened(new: Mapping[Key, Outcome], old: Mapping[Key, Outcome]) -> list[str]:
    """Return a line for each way in which a pair became worse, or is wrong and was never seen."""
    return [
        f"{' | '.join(key)}: {line}"
        for key, outcome in sorted(new.items())
        for line in worse(outcome, old.get(key, Outcome()))
    ]


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts over some pairs."""

    pairs: int
    identical: int
    right: int
    wrong: int
    found: int
    demanded: int
    clean: int
    denied: int

    @property
    def precision(self) -> float:
        """Findings that are right, of all."""
        return self.right / (self.right + self.wrong) if self.right + self.wrong else 1.0

    @property
    def recall(self) -> float:
        """Demanded findings that were made, of all."""
        return self.found / self.demanded if self.demanded else 1.0


def tally(outcomes: Iterable[Outcome], demanded: Iterable[set[str]]) -> Tally:
    """Count over pairs; `demanded` are the rules that the truth of each demands."""
    rows = list(zip(outcomes, demanded, strict=True))
    return Tally(
        pairs=len(rows),
        identical=sum(outcome.identical for outcome, _ in rows),
        right=sum(len(outcome.found) for outcome, _ in rows),
        wrong=sum(len(outcome.wrong) for outcome, _ in rows),
        found=sum(len(set(outcome.found) & wanted) for outcome, wanted in rows),
        demanded=sum(len(wanted) for _, wanted in rows),
        clean=sum(len(outcome.clean) for outcome, _ in rows),
        denied=sum(len(outcome.denied) for outcome, _ in rows),
    )
