"""Compares every column that pcapdiag decodes with tshark, and says how much was compared.

python tests/oracle/compare.py DIRECTORY-OR-CAPTURE...
"""

from __future__ import annotations

import ipaddress
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import expectation
import tshark

from pcapdiag import schema
from pcapdiag.addresses import V4_MAPPED
from pcapdiag.capture.reader import open_capture
from pcapdiag.decode.packets import decode_capture
from pcapdiag.errors import CaptureError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import polars as pl
    from expectation import Value

    from pcapdiag.decode.packets import Decoded

SEVERAL_ROWS: Final = frozenset({"sacks", "vrrp"})
"""Tables with any number of rows a packet; the others have one at most."""

NOT_CAPTURES: Final = frozenset({".md", ".txt", ".json", ".py", ".toml"})


@dataclass(frozen=True)
class Difference:
    """One value that is not what tshark says."""

    file: str
    frame: int
    column: str
    tshark: Value
    pcapdiag: Value

    def __str__(self) -> str:
        """Return one line."""
        said = f"tshark {self.tshark!s}, pcapdiag {self.pcapdiag!s}"
        return f"{self.file} frame {self.frame} {self.column}: {said}"


@dataclass
class Comparison:
    """What was compared of one capture, or of many."""

    files: int = 0
    frames: int = 0
    compared: Counter[str] = field(default_factory=Counter)
    """Values by column; where both sides had nothing it counts as `empty`."""
    empty: int = 0
    excluded: Counter[str] = field(default_factory=Counter)
    """Values by reason."""
    refused: dict[str, str] = field(default_factory=dict)
    """Files that one side cannot read, and which."""
    differences: list[Difference] = field(default_factory=list)

    def add(self, other: Comparison) -> None:
        """Add another's counts."""
        self.files += other.files
        self.frames += other.frames
        self.compared += other.compared
        self.empty += other.empty
        self.excluded += other.excluded
        self.refused |= other.refused
        self.differences += other.differences


def captures(*places: Path) -> list[Path]:
    """Return the files in folders (however deep) and single files, sorted; no documents."""
    found = []
    for place in places:
        files = place.rglob("*") if place.is_dir() else [place]
        found += [file for file in files if file.is_file() and file.suffix not in NOT_CAPTURES]
    return sorted(found)


def compare(capture: Path, pdml: bytes | None) -> Comparison:
    """Compare what pcapdiag decodes of a capture with its dissection."""
    result = Comparison(files=1)
    try:
        with open_capture(str(capture)) as reader:
            decoded = decode_capture(reader, 0)
    except CaptureError:
        if pdml is not None:
            result.refused[capture.name] = "pcapdiag"
        return result
    if pdml is None:
        result.refused[capture.name] = "tshark"
        return result
    expected = [expectation.expect(packet) for packet in tshark.packets(pdml)]
    ours = list(rows(decoded))
    result.frames = len(ours)
    if len(ours) != len(expected):
        result.differences.append(
            Difference(capture.name, 0, "number of frames", len(expected), len(ours))
        )
    for wanted, found in zip(expected, ours, strict=False):
        _compare_frame(result, capture.name, wanted, found)
    return result


def _compare_frame(
    result: Comparison, name: str, wanted: expectation.Expected, found: dict[str, Value]
) -> None:
    frame = found["packets.frame"]
    assert isinstance(frame, int)
    if wanted.rare and found["packets.ip_version"] is None and found["arp.op"] is None:
        wanted.exclude("rare-link-unknown", *expectation.INSIDE)
    for key, value in wanted.values.items():
        if key in wanted.excluded:
            result.excluded[wanted.excluded[key]] += 1
        elif value is None and found[key] is None:
            result.empty += 1
        elif wanted.cut and (found[key] is None or value is None):
            result.excluded["cut"] += 1
        else:
            result.compared[key] += 1
            if value != found[key]:
                result.differences.append(Difference(name, frame, key, value, found[key]))


def rows(decoded: Decoded) -> Iterator[dict[str, Value]]:
    """Return, frame by frame, what the tables hold, in the forms of `expectation`."""
    blank = dict.fromkeys(expectation.columns())
    found: list[dict[str, Value]] = [dict(blank) for _ in range(decoded.packets.height)]
    for table in ("packets", "tunnels", "sacks", "icmp", "arp", "vrrp"):
        frame: pl.DataFrame = getattr(decoded, table)
        assert dict(frame.schema) == schema.dtypes(table), f"{table} is not as in schema.py"
        at = range(frame.height) if table == "packets" else frame["row"].to_list()
        names = [key.partition(".")[2] for key in blank if key.startswith(f"{table}.")]
        for name in names:
            key = f"{table}.{name}"
            for row, value in zip(at, _values(frame, name), strict=True):
                if table in SEVERAL_ROWS:
                    before = found[row][key]
                    found[row][key] = (*before, value) if isinstance(before, tuple) else (value,)
                else:
                    found[row][key] = value
    return iter(found)


def _values(frame: pl.DataFrame, name: str) -> Iterable[Value]:
    if name in frame.columns:
        values: list[Value] = frame[name].to_list()
        return values
    halves = zip(frame[f"{name}_hi"].to_list(), frame[f"{name}_lo"].to_list(), strict=True)
    return [None if high is None or low is None else _address(high, low) for high, low in halves]


def _address(high: int, low: int) -> expectation.Address:
    if high == 0 and low >> 32 == V4_MAPPED >> 32:
        return ipaddress.IPv4Address(low & 0xFFFFFFFF)
    return ipaddress.IPv6Address(high << 64 | low)


def summary(result: Comparison) -> str:
    """Return how much was compared, and what was left out for which reason."""
    values = sum(result.compared.values())
    what = f"{result.files} captures, {result.frames} frames"
    counts = f"{values} values compared, {result.empty} absent on both sides"
    lines = [f"{what}: {counts}, {len(result.differences)} different"]
    for reason, count in sorted(result.excluded.items()):
        lines.append(f"{count} left out, {reason}: {expectation.REASONS[reason]}")
    for who, count in sorted(Counter(result.refused.values()).items()):
        lines.append(f"{count} files cannot be read by {who}")
    return "\n".join(lines)


def table(result: Comparison) -> str:
    """Return the summary, the files that one side refuses, and the counts by column."""
    lines = [summary(result), ""]
    lines += [f"not read by {who}: {name}" for name, who in sorted(result.refused.items())]
    lines += ["", "values compared, by column:"]
    lines += [f"{result.compared[key]:8}  {key}" for key in expectation.columns()]
    return "\n".join(lines)


def main() -> int:
    """Read the command line; return 1 where something differs."""
    files = captures(*map(Path, sys.argv[1:]))
    if not files:
        print(__doc__)
        return 2
    total = Comparison()
    with ThreadPoolExecutor() as pool:
        for file, pdml in zip(files, pool.map(tshark.dissect, files), strict=True):
            total.add(compare(file, pdml))
    for difference in total.differences:
        print(difference)
    print(table(total))
    return bool(total.differences)


if __name__ == "__main__":
    sys.exit(main())
