"""tshark in a process of its own: it may be missing, break, hang or answer half."""

from __future__ import annotations

import json
import os
import select
import sys

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.l2 import Ether

from pcapdiag import dissect
from pcapdiag.dissect import wireshark
from pcapdiag.export import pcapng

FRAMES = [
    bytes(
        Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
        / IP(src="192.0.2.1", dst="192.0.2.2", id=7, flags="DF")
        / ICMP(type=3, code=4, nexthopmtu=1400)
        / IP(src="192.0.2.2", dst="192.0.2.9", len=1500, flags="DF")
        / TCP(sport=80, dport=4711, seq=901)
    ),
    b"",
    b"\xff" * 60,
]


@pytest.fixture
def cited(tmp_path):
    """Return a slice of three frames, one of them empty and one nonsense."""
    path = tmp_path / "cited.pcapng"
    with path.open("wb") as file:
        frames = [
            pcapng.OutFrame(0, number * 10**9, data, len(data))
            for number, data in enumerate(FRAMES, 1)
        ]
        pcapng.write(file, [pcapng.OutInterface("cited", "", 1)], frames, application="test")
    return path


def _stub(tmp_path, monkeypatch, script):
    """Put a tshark on PATH that does what `script` says."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "tshark").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "tshark").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


@pytest.mark.needs("tshark")
@pytest.mark.skipif(sys.version_info >= (3, 14), reason="pyshark 0.6 fails on Python 3.14")
def test_frames_in_wiresharks_words(cited, tmp_path):
    """The quoted packet of an ICMP error is there, under the fields' own names."""
    (tmp_path / "work").mkdir()
    words = dissect.by_wireshark(cited, tmp_path / "work", len(FRAMES))
    assert words.note is None
    first = words.lines[1]
    assert "Internet Protocol Version 4: 192.0.2.1 > 192.0.2.2" in first
    assert "    icmp.mtu: 1400" in first
    assert "    Transmission Control Protocol: 80 > 4711" in first


def test_missing_tshark(cited, tmp_path, monkeypatch):
    """Without tshark there are no words, and nothing is started."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(wireshark, "_run", None)
    assert dissect.by_wireshark(cited, tmp_path, len(FRAMES)) is None


def test_broken_tshark(cited, tmp_path, monkeypatch):
    """A tshark that fails is a note."""
    _stub(tmp_path, monkeypatch, "exit 3")
    (tmp_path / "work").mkdir()
    words = dissect.by_wireshark(cited, tmp_path / "work", len(FRAMES))
    assert words.lines == {}
    assert "tshark failed" in words.note


@pytest.mark.parametrize(("asked", "missing"), [(2, False), (3, True)])
def test_a_failure_behind_the_last_frame_costs_nothing(
    cited, tmp_path, monkeypatch, asked, missing
):
    """Pyshark calls a tshark crashed that was only cut off when all had been said."""

    def answered(_command, home, _limit_s):
        (home.parent / "answers").write_text('[1, ["Ethernet II"]]\n[2, ["Ethernet II"]]\n')
        return "tshark failed (the process ended with 1)"

    monkeypatch.setattr(wireshark, "_run", answered)
    monkeypatch.setattr(wireshark.shutil, "which", lambda name: name)
    (tmp_path / "work").mkdir()
    words = dissect.by_wireshark(cited, tmp_path / "work", asked)
    assert len(words.lines) == 2
    assert (words.note is not None) == missing


def test_hanging_tshark_is_ended_with_its_children(cited, tmp_path, monkeypatch):
    """After the time limit everything is killed that the process started."""
    pid = tmp_path / "pid"
    _stub(tmp_path, monkeypatch, f"/bin/sleep 60 & echo $! > {pid}; wait")
    (tmp_path / "work").mkdir()
    waited = dissect.by_wireshark(cited, tmp_path / "work", len(FRAMES), limit_s=5)
    assert waited.lines == {}
    assert "did not answer within 5 s" in waited.note
    assert _ends(int(pid.read_text()), within_s=30)


def _ends(pid, within_s):
    """Whether a process ends by then: the kernel says when, however busy the machine is."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], within_s)[0])
    finally:
        os.close(handle)


def test_answers_before_a_failure_are_used(tmp_path):
    """Whole lines count; a half-written last one and nonsense do not."""
    answers = tmp_path / "answers"
    answers.write_text(json.dumps([1, ["Ethernet II"]]) + "\nnonsense\n" + '[2, ["half')
    assert wireshark._read(answers) == {1: ["Ethernet II"]}
    assert wireshark._read(tmp_path / "none") == {}


def test_the_process_sees_nothing_of_the_users_configuration(cited, tmp_path, monkeypatch):
    """Home and configuration are an empty folder, and the folder it works in is that."""
    told = tmp_path / "told"
    _stub(tmp_path, monkeypatch, f'echo "$HOME $XDG_CONFIG_HOME $PWD" > {told}; exit 1')
    work = tmp_path / "work"
    work.mkdir()
    dissect.by_wireshark(cited, work, len(FRAMES))
    assert told.read_text().split() == [str(work / "home")] * 3


def test_loads_nothing_of_its_dissectors():
    """Neither pyshark nor scapy is imported by the package: few runs need them."""
    import subprocess

    script = "import sys, pcapdiag.dissect, pcapdiag.exhibits; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"pyshark", "scapy"} & set(ran.stdout.split())
