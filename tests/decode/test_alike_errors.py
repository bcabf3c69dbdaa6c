"""Of very many ICMP messages, the first of those that say the same."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from pcapdiag import engine, schema
from pcapdiag.cli.options import resolve_inputs
from pcapdiag.decode.alike_errors import LEAST_OF_EACH, FirstOfAlike
from pcapdiag.decode.packets import Decoded

SAMPLES = Path(__file__).parents[2] / "samples"


EMPTY = {name: schema.empty(name) for name in Decoded.__dataclass_fields__}
PAIR = schema.conform(pl.DataFrame({"icmp_type": pl.Series([None, 3], dtype=pl.UInt8)}), "packets")
"""A packet that is no ICMP message, and one that is."""


def capture(quoted_ports: list[int]) -> list[Decoded]:
    """Return errors in a part each, behind a packet that is none, about flows of these ports."""
    rows = [2 * number + 1 for number in range(len(quoted_ports))]
    told = pl.DataFrame({"row": rows, "quoted_src_port": quoted_ports})
    messages = schema.conform(told, "icmp")
    return [
        Decoded(**(EMPTY | {"packets": PAIR, "icmp": message}))
        for message in messages.iter_slices(1)
    ]


def kept(quoted_ports: list[int], most: int) -> tuple[list[int], FirstOfAlike]:
    """Return the numbers of the errors that are kept."""
    first = FirstOfAlike(most)
    rest = list(first.taken_from(capture(quoted_ports)))
    assert len(rest) == len(quoted_ports)
    assert not any(len(part.icmp) for part in rest)
    assert first.table().columns == list(schema.dtypes("icmp"))
    return ((first.table()["row"] - 1) // 2).to_list(), first


def test_few_are_kept_whole() -> None:
    """What is no more than the limit stays as it is."""
    ports = [5, 5, 6, 5] * 4
    numbers, first = kept(ports, len(ports))
    assert numbers == list(range(len(ports)))
    whole = pl.concat([part.icmp for part in capture(ports)])
    assert_frame_equal(first.table(), whole)


def test_the_first_of_each_kind_are_kept() -> None:
    """A rare kind is kept whole in the midst of a storm, and of the storm its beginning."""
    ports = [5] * 60 + [6, 5, 6] + [5] * 60 + [6]
    numbers, first = kept(ports, 20)
    assert numbers == [*range(16), 60, 62, 123]
    assert first.share == 1


def test_of_too_many_kinds_some_are_kept() -> None:
    """Kinds are dropped whole, and it is said of how many one is left."""
    ports = [port for port in range(100) for _ in range(LEAST_OF_EACH + 1)]
    numbers, first = kept(ports, 50)
    assert 0 < len(numbers) <= 50
    assert first.share > 1
    counts = pl.Series([ports[number] for number in numbers]).value_counts()["count"]
    assert set(counts) == {LEAST_OF_EACH}


def test_how_messages_are_cut_into_batches_changes_nothing() -> None:
    """One batch of all gives what a batch for each gives."""
    ports = [(number * number) % 13 for number in range(200)]
    for most in (8, 40, 90):
        first = FirstOfAlike(most)
        parts = capture(ports)
        together = {
            name: pl.concat([getattr(part, name) for part in parts]) for name in ("packets", "icmp")
        }
        list(first.taken_from([Decoded(**(EMPTY | together))]))
        assert ((first.table()["row"] - 1) // 2).to_list() == kept(ports, most)[0]


@pytest.mark.parametrize("most", [20, 12])
def test_what_is_not_looked_at_is_not_called_missing(most: int) -> None:
    """A director whose relayed errors are not all looked at did not swallow the others."""
    inputs, _ = resolve_inputs((str(SAMPLES / "lab-works-nat"),))
    loaded = engine.load(inputs, most_icmp=most)
    assert sum(loaded.case.coverage.icmp_left_out) > 20
    assert any(loaded.case.icmp_visible) == (most == 20)
    result = engine.analyze(loaded, now_ns=0)
    assert not result.failed_rules
    assert not [item for item in result.findings if item.severity.rank < 3]
    assert any("ICMP messages; the first of those" in note for note in result.notes)
