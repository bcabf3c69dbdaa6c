"""What the engine asks of the tables does not grow with what was captured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
from stories import case

from pcapdiag import engine

if TYPE_CHECKING:
    import pytest

SOME, MANY = 4, 16


def director(connections: int) -> str:
    """Return a capture of so many connections, of each of which a swallowed ICMP error speaks."""
    lines: list[str] = []
    for number in range(connections):
        start, client = number * 0.1, f"c:{40_000 + number}"
        for later, packet in (
            (0.000, "S seq=0 mss=1460"),
            (0.002, "A seq=1 ack=1"),
            (0.003, "PA seq=1 ack=1 len=100"),
        ):
            lines.append(f"{start + later:.4f} {client}>s {packet} mac=x>d")
            lines.append(f"{start + later + 0.0001:.4f} copy {len(lines)} ttl=63 mac=d>rs")
        lines.append(f"{start + 0.004:.4f} s>{client} A seq=1 ack=101 len=1460 mac=rs>x unseen")
        lines.append(
            f"{start + 0.005:.4f} r>s icmp 3/1 quote={len(lines)} mac=x>d ttl=60 id={900 + number}"
        )
    lines.append("30.0 c2>s S seq=0 mss=1460 mac=x>d")
    lines.append(f"30.0001 copy {len(lines)} ttl=63 mac=d>rs")
    return "\n".join(lines)


def asked(monkeypatch: pytest.MonkeyPatch, text: str) -> tuple[int, int]:
    """Return how many queries an analysis takes, and how many connections its finding names."""
    counted = 0
    lazy = pl.DataFrame.lazy

    def counting(frame: pl.DataFrame) -> pl.LazyFrame:
        nonlocal counted
        counted += 1
        return lazy(frame)

    loaded = engine.Loaded(case(director=text), (), {}, ())
    with monkeypatch.context() as patch:
        patch.setattr(pl.DataFrame, "lazy", counting)
        result = engine.analyze(loaded, now_ns=0)
    assert not result.failed_rules
    named = [
        finding.flow_count
        for finding in result.findings
        if finding.rule == "icmp-unreachable-not-forwarded"
    ]
    return counted, sum(named)


def test_more_connections_are_no_more_queries(monkeypatch):
    """Connections of one incident are judged together; each one's frame is looked up to cite it."""
    few, named = asked(monkeypatch, director(SOME))
    many, all_named = asked(monkeypatch, director(MANY))
    assert (named, all_named) == (SOME, MANY)
    assert few > 0
    assert many - few <= MANY - SOME
