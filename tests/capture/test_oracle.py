"""Frame numbers, times, lengths and interfaces of captures by others, against tshark.

PCAPDIAG_CORPUS names a folder of captures. What differs is listed by file name, with its reason.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pcapdiag.capture.frames import NO_TIME
from pcapdiag.capture.reader import open_capture
from pcapdiag.decode_note import DecodeNote
from pcapdiag.errors import CaptureError

_FOLDER = os.environ.get("PCAPDIAG_CORPUS")
_FILES = sorted(path for path in Path(_FOLDER).iterdir() if path.is_file()) if _FOLDER else []
_FIELDS = ("number", "time_epoch", "len", "cap_len", "interface_id", "section_number")

_FUZZ = "PcapPlusPlus__clusterfuzz-testcase-"
_SPOILED_TIMES = {
    "tcpdump__timestamp_invalid_nano.pcap",
    "tcpdump__atm-oam-loopback-print-overrun.pcap",
    f"{_FUZZ}FuzzTarget-5781142119907328",
    f"{_FUZZ}minimized-FuzzTarget-4829420752470016",
    f"{_FUZZ}minimized-FuzzTarget-5114733584449536",
    f"{_FUZZ}minimized-FuzzTarget-5165927376355328",
    f"{_FUZZ}minimized-FuzzTarget-5421416466481152",
    f"{_FUZZ}minimized-FuzzTarget-5468403752632320",
    f"{_FUZZ}minimized-FuzzTarget-5669109772845056",
    f"{_FUZZ}minimized-FuzzTarget-5723611632762880",
    f"{_FUZZ}minimized-FuzzTarget-5766939894087680",
}
"""Their sub-second fields say a second or more: tshark multiplies them in 32 bits, which wraps;
here the seconds are carried over."""

_SUNATM = 123
_SUNATM_HEADER = 4
_INT_MAX = 2**31 - 1


def _tshark(path: Path) -> tuple[list[dict[str, str]], str]:
    command = ["tshark", "-n", "-r", str(path), "-T", "fields", "-E", "occurrence=f"]
    command += [word for name in _FIELDS for word in ("-e", f"frame.{name}")]
    answer = subprocess.run(command, capture_output=True, check=False)
    lines = answer.stdout.decode().splitlines()
    rows = [dict(zip(_FIELDS, line.split("\t"), strict=True)) for line in lines]
    return rows, answer.stderr.decode(errors="replace")


def _ours(path: Path) -> tuple[list[dict[str, int]], object]:
    rows = []
    names = ("frame", "time_ns", "wire_len", "caplen", "interface", "linktype", "note")
    with open_capture(str(path)) as reader:
        for batch in reader:
            columns = [getattr(batch, name).tolist() for name in names]
            rows += [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
        return rows, reader.info


def _time(epoch: str) -> int:
    """Return tshark's time in ns, NO_TIME where that is beyond int64."""
    whole, _, fraction = epoch.partition(".")
    assert len(fraction) == 9
    time = int(whole + fraction)
    return time if time < 1 << 63 else NO_TIME


@pytest.mark.needs("tshark")
@pytest.mark.skipif(_FOLDER is None, reason="PCAPDIAG_CORPUS names no folder of captures")
@pytest.mark.parametrize("path", _FILES, ids=lambda path: path.name)
def test_the_same_frames_as_tshark(path):
    """Every frame has tshark's number, time, lengths and interface."""
    theirs, message = _tshark(path)
    try:
        rows, info = _ours(path)
    except CaptureError:
        # tshark reads formats that are none of ours, and opens any text.
        assert not theirs or path.suffix in {".snoop", ".md"}
        return
    if "unknown or unsupported" in message:
        # Link types that tshark does not know are read all the same; it reads nothing of the file.
        assert not theirs
        return
    assert info.cut_short == ("cut short" in message or "damaged or corrupt" in message)
    assert [row["frame"] for row in rows] == [int(their["number"]) for their in theirs]
    first_interface: dict[str, int] = {}
    for row, their in zip(rows, theirs, strict=True):
        if their["time_epoch"] == "":
            assert row["time_ns"] == NO_TIME
        elif path.name not in _SPOILED_TIMES:
            assert row["time_ns"] == _time(their["time_epoch"])
        if row["note"] & DecodeNote.NO_PACKET:
            assert row["caplen"] == 0
            continue
        # tshark does not count the pseudo-header of SunATM, which the link type defines.
        extra = _SUNATM_HEADER if row["linktype"] == _SUNATM else 0
        assert row["caplen"] == int(their["cap_len"]) + extra
        assert min(row["wire_len"], _INT_MAX) == int(their["len"]) + extra
        if info.format.startswith("pcapng"):
            section = their["section_number"]
            first = row["interface"] - int(their["interface_id"])
            assert first_interface.setdefault(section, first) == first
    assert not first_interface or min(first_interface.values()) == 0
    assert len(set(first_interface.values())) == len(first_interface)
