"""Wireshark's words: pyshark and tshark in a process of their own that may hang or break."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

TIME_LIMIT_S: Final = 20.0
"""For one slice: tshark starts in under a second and dissects 200 frames in less; a machine under
load gets twenty times as long."""

_CODE: Final = "from pcapdiag.dissect.pyshark_process import run; run({!r}, {!r}, {!r})"
_MAX_ANSWERS: Final = 16 << 20


class Words(NamedTuple):
    """Lines by number of the frame in the slice; `note` says why some are missing."""

    lines: dict[int, list[str]]
    note: str | None = None


def by_wireshark(
    slice_path: Path, folder: Path, count: int, limit_s: float = TIME_LIMIT_S
) -> Words | None:
    """Return the words for the `count` frames of a pcapng; None where tshark is not installed.

    The slice must have no comments, and a time on every frame. `folder` is an empty directory for
    the process's answers, its home and so its configuration. Nothing is raised for what the process
    does; whatever it answered before it failed or the time was over is used.
    """
    tshark = shutil.which("tshark")
    if tshark is None:
        return None
    answers = folder / "answers"
    home = folder / "home"
    home.mkdir()
    code = _CODE.format(str(slice_path), str(answers), os.path.abspath(tshark))  # noqa: PTH100
    failure = _run([sys.executable, "-c", code], home, limit_s)
    lines = _read(answers)
    # pyshark may call a tshark crashed that ended behind its last frame: nothing is missing then
    return Words(lines, failure if len(lines) < count else None)


def _run(command: list[str], home: Path, limit_s: float) -> str | None:
    """Run a command in a session of its own, and end all of it; return what went wrong."""
    environment = {
        "PATH": os.defpath,
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home),
        "PYTHONPATH": os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path),
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
    }
    try:
        process = subprocess.Popen(  # noqa: S603 - this interpreter, and code of this package
            command,
            cwd=home,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        return f"tshark could not be asked: {error.strerror}"
    try:
        code = process.wait(limit_s)
    except subprocess.TimeoutExpired:
        return f"tshark did not answer within {limit_s:g} s"
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return f"tshark failed (the process ended with {code})" if code else None


def _read(answers: Path) -> dict[int, list[str]]:
    """Return the whole lines of the answers; the last one may be half written."""
    found: dict[int, list[str]] = {}
    with contextlib.suppress(OSError), answers.open("rb") as file:
        for row in file.read(_MAX_ANSWERS).split(b"\n")[:-1]:
            with contextlib.suppress(ValueError):
                number, lines = json.loads(row)
                found[number] = lines
    return found
