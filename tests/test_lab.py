"""The laboratory's table of scenarios agrees with the samples and the rules; nothing is booted."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from ipaddress import ip_network
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, IPerror

from pcapdiag import registry

ROOT = Path(__file__).parent.parent
LAB = ROOT / "samples" / "lab"
BEFORE_THE_LAB = {"dr-healthy", "dr-icmp-dropped-at-director", "nat-healthy", "rs-host-prohibited"}
"""Captured on the same kernel with earlier scripts."""


def _scenarios() -> list[str]:
    done = subprocess.run([LAB / "run", "--list"], capture_output=True, text=True, check=True)
    return done.stdout.split()


def _guest(monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.syspath_prepend(LAB / "guest")
    monkeypatch.delitem(sys.modules, name, raising=False)
    return __import__(name)


def test_every_lab_sample_can_be_captured_again():
    """A folder lab-NAME has the scenario NAME, or is known to be older."""
    samples = {path.parent.name for path in (ROOT / "samples").glob("lab-*/truth.json")}
    names = {name.removeprefix("lab-") for name in samples}
    assert names - BEFORE_THE_LAB <= set(_scenarios())


def test_the_lab_forbids_every_rule_that_it_does_not_expect(monkeypatch):
    """The truths' list of rules is the catalogue's, but for remarks on captures."""
    assert set(registry.rules()) - {"capture-quality"} <= set(_guest(monkeypatch, "truth").RULES)


def test_scenarios_tell_what_happens(monkeypatch):
    """A docstring's first line is a sentence that names the forwarding method."""
    scenarios = _guest(monkeypatch, "scenarios").SCENARIOS
    assert list(scenarios) == _scenarios()
    first = {name: (play.__doc__ or "").split("\n")[0] for name, play in scenarios.items()}
    assert {name for name, line in first.items() if not re.match(r".*LVS-\w+.*\.$", line)} == set()


@pytest.mark.needs("tcpdump")
def test_frames_are_numbered_in_the_file_and_not_in_the_selection(monkeypatch):
    """A pcap filter's frames carry the numbers that Wireshark shows."""
    network = _guest(monkeypatch, "network")
    folder = ROOT / "samples" / "lab-rs-host-prohibited"
    truth = json.loads((folder / "truth.json").read_text())
    wanted = next(item for item in truth["look_at"] if item["file"] == "rs1.pcap")
    capture = network.Capture("rs1.pcap", "rs1", None, "eth0", folder / "rs1.pcap", None)
    assert capture.numbers("icmp[0:2] == 0x030a") == wanted["frames"]


def test_plans_do_not_overlap(monkeypatch):
    """An address of a plan's networks belongs to one of them only."""
    for plan in _guest(monkeypatch, "cluster").PLANS.values():
        words = (plan.lan, plan.inner, plan.near, plan.far, plan.wan, plan.narrow)
        nets = [ip_network(word) for word in words]
        pairs = [(left, right) for left in nets for right in nets if left is not right]
        assert not any(left.overlaps(right) for left, right in pairs)


def test_forged_messages_add_up(monkeypatch):
    """What strangers send is well formed: only what it quotes is made up."""
    forge = _guest(monkeypatch, "forge")
    quote = forge.ip("203.0.113.10", "198.51.100.1", 6, 1500) + bytes(range(8))
    made = forge.ip("192.0.2.1", "203.0.113.10", 1, 56) + forge.icmp((3, 4), 576, quote)
    frame, again = IP(made), IP(made)
    del again[IP].chksum, again[ICMP].chksum
    assert bytes(again) == made
    assert (frame[ICMP].nexthopmtu, frame[IPerror].dst) == (576, "198.51.100.1")
