"""Make the synthetic samples, or check that making them again gives the same bytes.

    python samples/make.py                    all of them
    python samples/make.py healthy-dr ...     some
    python samples/make.py --check            into a temporary folder, and compare

Each sample's own make.py has `build(folder)`; the cluster model is in simulator/. Compressed
captures are compared unpacked, because zlib's output may change between its versions.
"""

from __future__ import annotations

import gzip
import importlib.util
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent


def makers() -> list[str]:
    """Return the names of the samples that have a maker."""
    return sorted(path.parent.name for path in HERE.glob("*/make.py"))


def make(name: str, folder: Path) -> None:
    """Make one sample in `folder`."""
    path = HERE / name / "make.py"
    spec = importlib.util.spec_from_file_location(f"make_{name.replace('-', '_')}", path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.build(folder)


def differences(made: Path, kept: Path) -> list[str]:
    """Return what differs between a fresh sample and the one in the repository."""
    ours = {path.name for path in made.iterdir()}
    theirs = {path.name for path in kept.iterdir() if path.is_file()} - {"make.py"}
    found = [f"{kept.name}/{name}: only on one side" for name in sorted(ours ^ theirs)]
    for name in sorted(ours & theirs):
        if _content(made / name) != _content(kept / name):
            found += [f"{kept.name}/{name}: differs"]
    return found


def _content(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix == ".gz" else data


def main(arguments: list[str]) -> int:
    """Run the command line; 1 where a check failed."""
    check = "--check" in arguments
    names = [name for name in arguments if not name.startswith("--")] or makers()
    found: list[str] = []
    for name in names:
        if not check:
            make(name, HERE / name)
            print(name)
            continue
        with tempfile.TemporaryDirectory() as folder:
            make(name, Path(folder))
            found += differences(Path(folder), HERE / name)
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
