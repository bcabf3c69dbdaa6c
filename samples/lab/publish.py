"""Makes samples of what the lab captured: `python samples/lab/publish.py LAB-OUT NAME...`.

Captures are compressed; truth.json and README.md are written as for the simulated samples, and the
sample's line in samples/README.md is made anew.
"""

from __future__ import annotations

import gzip
import json
import shutil
import sys
import textwrap
from pathlib import Path
from typing import Any

SAMPLES = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(SAMPLES))

from simulator.truth import readme  # noqa: E402  a folder beside this one, not a package

METHODS = {"nat": "NAT", "dr": "DR", "tun": "TUN"}
ORIGIN = """Origin: `samples/lab/run {name}`, captured with tcpdump on a real ip_vs kernel (Debian,
{kernel}) in network namespaces inside a virtual machine. `truth.json` holds what was set up, which
command broke it, and what became of each connection, as its client and server saw it."""


def main() -> None:
    """Publish the named scenarios."""
    raw = Path(sys.argv[1])
    for name in sys.argv[2:]:
        publish(raw / name, SAMPLES / f"lab-{name}")
    rewrite_table()


def publish(raw: Path, folder: Path) -> None:
    """Write one sample."""
    truth = json.loads((raw / "truth.json").read_text())
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for capture in truth["captures"]:
        packed = gzip.compress((raw / capture["file"]).read_bytes(), 9, mtime=0)
        (folder / f"{capture['file']}.gz").write_bytes(packed)
    truth = _with_packed_files(truth) | {"scenario": folder.name}
    (folder / "truth.json").write_text(json.dumps(truth, indent=1, ensure_ascii=False) + "\n")
    story = "\n\n".join([truth.get("story", ""), *_fault(truth)])
    origin = textwrap.fill(ORIGIN.format(name=raw.name, kernel=truth["kernel"]), 100)
    (folder / "README.md").write_text(readme(truth, story, origin))


def _with_packed_files(truth: dict[str, Any]) -> dict[str, Any]:
    """Name the compressed files wherever the truth names a capture."""
    for item in (*truth["captures"], *truth["look_at"]):
        item["file"] += ".gz"
    for demand in truth["must_report"]:
        demand["cited"] = {f"{file}.gz": frames for file, frames in demand["cited"].items()}
    return truth


def _fault(truth: dict[str, Any]) -> list[str]:
    """Return the commands that broke it, as a paragraph each."""
    return [f"On {item['host']}: `{item['cmd']}`" for item in truth["fault_commands"]]


def rewrite_table() -> None:
    """Write the lines of all lab samples into the table of samples/README.md."""
    path = SAMPLES / "README.md"
    lines = path.read_text().splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith("| [lab-"))
    others = [line for line in lines if not line.startswith("| [lab-")]
    path.write_text("\n".join([*others[:first], *_rows(), *others[first:]]) + "\n")


def _rows() -> list[str]:
    rows = []
    for path in sorted(SAMPLES.glob("lab-*/truth.json")):
        truth = json.loads(path.read_text())
        name, method = path.parent.name, METHODS[truth["lvs_method"]]
        _, _, what = truth["description"].partition("; ")
        what = what if truth["description"].startswith("LVS-") and what else truth["description"]
        rows.append(f"| [{name}]({name}/) | real kernel: {truth['description']} | {method} |")
    return rows


if __name__ == "__main__":
    main()
