"""Compares every column that `pcapdiag packets` exports with tshark; says how much was compared.

python tests/oracle/compare.py DIRECTORY-OR-CAPTURE...
"""

from __future__ import annotations

import ipaddress
import re
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import expectation
import tshark

from pcapdiag import schema
from pcapdiag.capture.reader import open_capture
from pcapdiag.decode.packets import decode_capture
from pcapdiag.errors import CaptureError
from pcapdiag.export import packets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from expectation import Value

    from pcapdiag.decode.packets import Decoded

NOT_CAPTURES: Final = frozenset({".md", ".txt", ".json", ".py", ".toml", ".png"})


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
        found += [
            file
            for file in files
            if file.is_file()
            and file.suffix not in NOT_CAPTURES
            and "__pycache__" not in file.parts
        ]
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
    """Return, frame by frame, what `pcapdiag packets` exports, in the forms of `expectation`."""
    for name in TABLES:
        assert dict(getattr(decoded, name).schema) == schema.dtypes(name), f"{name} is not as said"
    exported = packets.join(decoded)
    keys = expectation.columns()
    columns = [
        [_value(key, value) for value in exported[exported_name(key)].to_list()] for key in keys
    ]
    for values in zip(*columns, strict=True):
        row = dict(zip(keys, values, strict=True))
        addresses = row["vrrp.virtual"]
        if isinstance(addresses, tuple):  # the export says once what holds for all of them
            for name in ("vrrp.version", "vrrp.vrid", "vrrp.priority"):
                row[name] = (row[name],) * len(addresses)
        yield row


TABLES: Final = ("packets", "tunnels", "sacks", "icmp", "arp", "vrrp", "ipvs_sync")


def exported_name(key: str) -> str:
    """Return the name that a column of a table has in the exported one."""
    table, _, name = key.partition(".")
    if table == "sacks":
        return f"tcp_sack_{name}"
    if key == "vrrp.virtual":
        return "vrrp_addresses"
    return f"{table}_{name}" if table in {"arp", "vrrp"} else name


def _value(key: str, value: object) -> Value:
    """Return an exported value as the one that `expectation` has: text is what it stands for."""
    if not isinstance(value, str):
        return value
    if key.startswith("sacks."):
        return tuple(int(edge) for edge in value.split(","))
    if key == "vrrp.virtual":
        return tuple(ipaddress.ip_address(address) for address in value.split(","))
    if value.count(":") == 5 and MAC.fullmatch(value):
        return int(value.replace(":", ""), 16)
    return value if NO_ADDRESS.fullmatch(value) else ipaddress.ip_address(value)


MAC: Final = re.compile("(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")
NO_ADDRESS: Final = re.compile("[a-z0-9-]*[a-z][a-z0-9-]*")
"""Words of enumerations."""


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
