"""Plays scenarios, some at a time: `play.py AT_ONCE NAME...`; results go to /out/NAME."""

from __future__ import annotations

import multiprocessing
import shutil
import sys
import time
import traceback
from pathlib import Path

from lab import Lab
from scenarios import SCENARIOS
from truth import write_state, write_truth

OUT = Path("/out")


def play(name: str) -> str:
    """Play a scenario; a failure is told in its log.txt and leaves no truth.json."""
    began = time.monotonic()
    work = Path("/run/work") / name
    work.mkdir(parents=True)
    scenario = SCENARIOS[name]
    lab = Lab(name, work)
    trouble = ""
    try:
        scenario(lab)
        write_state(lab, work)
        write_truth(lab, work, scenario.__doc__ or "")
    except Exception:  # noqa: BLE001  one broken scenario must not end the others
        trouble = traceback.format_exc()
        (work / "log.txt").write_text(trouble)
        lab.network.stop_captures()
        write_state(lab, work)
    lab.network.remove()
    shutil.rmtree(OUT / name, ignore_errors=True)
    shutil.copytree(work, OUT / name)
    shutil.rmtree(work)
    failed = [f"{flow.label} ({flow.error})" for flow in lab.flows if not flow.ok]
    result = f"FAILED {trouble}" if trouble else "done"
    return f"{name}: {result} in {time.monotonic() - began:.0f} s; failed flows: {failed}"


def main() -> None:
    """Play what the command line names."""
    with multiprocessing.Pool(int(sys.argv[1]), maxtasksperchild=1) as pool:
        for line in pool.imap_unordered(play, sys.argv[2:]):
            print(line, flush=True)


if __name__ == "__main__":
    main()
