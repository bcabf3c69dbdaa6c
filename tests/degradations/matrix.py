"""Spoil every sample in every way, and say what the analyses made of it.

    python tests/degradations/matrix.py                  precision and recall, what became worse
    python tests/degradations/matrix.py --update         store outcomes.txt, write both READMEs
    python tests/degradations/matrix.py SAMPLE...        some samples only, pair by pair
    python tests/degradations/matrix.py --stored         print from what is stored

`--update` refuses outcomes that are worse than the stored ones, unless `--worse` is given, too.
Wrong findings are refused always. Exit code 1 where anything is worse or wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
os.environ.setdefault("POLARS_MAX_THREADS", "1")  # the tables are small, the processes many
os.environ.setdefault("POLARS_ENGINE_AFFINITY", "in-memory")

import captures  # noqa: E402 - found on the path that is set above
import degradations  # noqa: E402
import outcomes  # noqa: E402
import truths  # noqa: E402
import verdicts  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from degradations import Degradation
    from outcomes import Key, Outcome

SAMPLES = HERE.parent.parent / "samples"
STORED = HERE / "outcomes.txt"
README = SAMPLES / "README.md"
TOP_README = SAMPLES.parent / "README.md"
BEGIN = "<!-- python tests/degradations/matrix.py --update -->\n"
END = "<!-- end -->\n"
CPUS = 2


def samples() -> list[str]:
    """Return the names of all samples."""
    return sorted(path.parent.name for path in SAMPLES.glob("*/truth.json"))


@cache
def pairs(sample: str) -> list[Degradation]:
    """Return the degradations of a sample."""
    return list(degradations.of(sample, captures.listed(SAMPLES / sample)))


@cache
def _demanded(sample: str) -> set[str]:
    """Return the rules that a sample's truth demands findings of."""
    return {truths.rule(entry) for entry in truths.demands(truths.read(SAMPLES / sample))}


def run(sample: str, only: frozenset[str] | None = None) -> dict[Key, Outcome]:
    """Return the outcomes of a sample's pairs, or of those whose degradations are named."""
    truth = truths.read(SAMPLES / sample)
    whole = captures.read(SAMPLES / sample)
    chosen = [item for item in degradations.of(sample, whole) if only is None or item.name in only]
    found: dict[Key, Outcome] = {}
    said = None
    if only is None or outcomes.UNSPOILED in only or any(item.lossless for item in chosen):
        first = verdicts.analyse(whole)
        said = verdicts.findings(truth, first)
        unspoiled = outcomes.judge(truth, first, spoiled=False)
        found[sample, outcomes.UNSPOILED] = unspoiled
    for item in chosen:
        if item.lossless:
            analysis = verdicts.analyse_unless_same(item.change(whole), first)
            if analysis is first or verdicts.findings(truth, analysis) == said:
                found[sample, item.name] = outcomes.same(unspoiled)
                continue
        else:
            analysis = verdicts.analyse(item.change(whole))
        found[sample, item.name] = outcomes.judge(truth, analysis, spoiled=not item.lossless)
    return found


def run_all(names: list[str]) -> Iterator[dict[Key, Outcome]]:
    """Yield the outcomes of all pairs of each sample, two samples at a time."""
    with ProcessPoolExecutor(CPUS, mp_context=get_context("spawn")) as pool:
        yield from pool.map(run, names)


def summary(found: Mapping[Key, Outcome]) -> Iterator[str]:
    """Yield a Markdown table: a line for the samples, one a kind of degradation, one for all."""
    demanded = {sample: _demanded(sample) for sample, _ in found}
    kinds = {(sample, outcomes.UNSPOILED): outcomes.UNSPOILED for sample in demanded}
    for sample in demanded:
        kinds |= {(sample, item.name): item.kind for item in pairs(sample)}
    yield "| degradation | pairs | precision | recall | identical | clean | denied |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    spoiled = [key for key in found if key[1] != outcomes.UNSPOILED]
    groups: dict[str, list[Key]] = {kind: [] for kind in kinds.values()}
    for key in found:
        groups[kinds[key]].append(key)
    for name, keys in (*groups.items(), ("all degradations", spoiled)):
        count = outcomes.tally(
            (found[key] for key in keys), (demanded[sample] for sample, _ in keys)
        )
        identical = f"{count.identical} of {count.pairs}" if count.identical else ""
        yield (
            f"| {name} | {count.pairs} | {count.precision:.3f} | {count.recall:.3f} "
            f"| {identical} | {count.clean} | {count.denied} |"
        )


def stored_summary() -> str:
    """Return the table of samples/README.md, made of what is stored."""
    return "\n".join(summary(outcomes.read(STORED))) + "\n"


def stored_figures() -> str:
    """Return the sentences of the project's README, made of what is stored."""
    return figures(outcomes.read(STORED))


def figures(found: Mapping[Key, Outcome]) -> str:
    """Return precision and recall in two sentences, wrapped as a list item's."""
    demanded = {sample: _demanded(sample) for sample, _ in found}
    plain, spoiled = (
        outcomes.tally((found[key] for key in keys), (demanded[sample] for sample, _ in keys))
        for keys in (
            [key for key in found if (key[1] == outcomes.UNSPOILED) is bare]
            for bare in (True, False)
        )
    )
    text = (
        f"Over {plain.pairs} samples precision is {plain.precision:.3f} and recall"
        f" {plain.recall:.3f}; over their {spoiled.pairs} spoilt forms precision is"
        f" {spoiled.precision:.3f} and recall {spoiled.recall:.3f}."
    )
    return textwrap.fill(text, 98, initial_indent="  ", subsequent_indent="  ") + "\n"


def _between(path: Path, text: str) -> None:
    """Put a text between the marks of a file."""
    before, rest = path.read_text().split(BEGIN)
    _, after = rest.split(END)
    path.write_text(before + BEGIN + text + END + after)


def _stored(stored: Mapping[Key, Outcome], names: list[str]) -> Iterator[dict[Key, Outcome]]:
    yield {key: value for key, value in stored.items() if key[0] in names}


def _update(found: dict[Key, Outcome], names: list[str]) -> None:
    kept = {key: value for key, value in outcomes.read(STORED).items() if key[0] in samples()}
    kept = {key: value for key, value in kept.items() if key[0] not in names}
    outcomes.write(STORED, kept | found)
    _between(README, stored_summary())
    _between(TOP_README, stored_figures())


def main(arguments: list[str]) -> int:
    """Run the command line; 1 where something is worse than stored, or wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("samples", nargs="*", metavar="SAMPLE")
    parser.add_argument("--update", action="store_true", help="store the outcomes and the table")
    parser.add_argument("--worse", action="store_true", help="store worse ones, too")
    parser.add_argument("--stored", action="store_true", help="analyse nothing")
    options = parser.parse_args(arguments)
    stored = outcomes.read(STORED)
    names = options.samples or samples()
    found: dict[Key, Outcome] = {}
    worse: list[str] = []
    for part in _stored(stored, names) if options.stored else run_all(names):
        found |= part
        worse += (bad := outcomes.worsened(part, stored))
        for line in (*(outcomes.lines(part) if options.samples else ()), *bad):
            print(line, flush=True)
    print("\n".join(summary(found)))
    print(figures(found))
    missing = sorted(set(found) - set(stored))
    if missing and not options.update:
        print(f"{len(missing)} pairs are not stored; --update stores them")
    wrong = any(outcome.wrong for outcome in found.values())
    if options.update and not wrong and (options.worse or not worse):
        _update(found, names)
    elif options.update:
        print("nothing was stored")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
