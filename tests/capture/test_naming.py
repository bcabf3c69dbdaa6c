"""What file names tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from pcapdiag.capture.naming import (
    clean_name,
    looks_like_capture,
    role_of,
    stem_and_ring,
    with_folders,
)


@pytest.mark.parametrize(
    ("name", "stem", "ring"),
    [
        ("director.pcap", "director", None),
        ("a/b/rs1.pcapng.gz", "rs1", None),
        ("RS-2.PCAP.ZST", "RS-2", None),
        ("rs1.eth0.cap.xz", "rs1.eth0", None),
        ("lb.pcap3", "lb", 3),
        ("lb.pcap03.lz4", "lb", 3),
        ("lb.pcap.12", "lb", 12),
        ("lb_00007_20240101120000.pcapng", "lb", 7),
        ("lb_20240101120000_00012.pcapng.gz", "lb", 12),
        ("lb_00001_20240101120000", "lb", 1),
        ("lb_00001.pcap", "lb_00001", None),
        ("director", "director", None),
        ("director.trace", "director.trace", None),
        (".pcap", "capture", None),
        ("_00001_20240101120000.pcap", "_00001_20240101120000", None),
        ("x.pcap99999999999999999999", "x", 999_999_999),
        ("\u202e\x1b[31m.pcap", "\N{REPLACEMENT CHARACTER}", None),
    ],
)
def test_stems_and_ring_numbers(name, stem, ring):
    """Capture and compression suffixes and ring numbers go, the rest is the stem."""
    assert stem_and_ring(name) == (stem, ring)


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("director", "director"),
        ("LB2", "director"),
        ("rs1", "realserver"),
        ("realserver-10.0.0.1", "realserver"),
        ("real_3", "realserver"),
        ("client.eth0", "client"),
        ("router", "router"),
        ("fw-outside", "router"),
        ("2-director", "director"),
        ("rst", None),
        ("the-director", None),
        ("directors", None),
        ("", None),
        ("123", None),
    ],
)
def test_roles_by_the_first_word(name, role):
    """The first word tells the role, whatever follows; a word that only begins so does not."""
    assert role_of(name) == role


def test_names_of_captures():
    """Suffixes tell what is meant to be a capture."""
    for name in ("x.pcap", "x.pcapng.gz", "x.cap", "x.pcap7", "x.pcap.7", "X.PCAP"):
        assert looks_like_capture(name), name
    for name in ("README.md", "truth.json", "state.txt", "x.pcap.txt", "pcap", "logs.tar.gz"):
        assert not looks_like_capture(name), name


def test_a_name_is_never_empty():
    """A name that cleaning leaves nothing of is replaced."""
    assert clean_name("") == clean_name("\x1b[0m \n") == "capture"


def test_folders_tell_equal_names_apart():
    """As many folder names are put in front as are needed."""
    here, there = Path("/a/x"), Path("/a/y")
    assert with_folders("eth0", here, [("eth0", there)]) == "x-eth0"
    assert with_folders("eth0", here, [("eth0", Path("/b/x"))]) == "a-x-eth0"
    assert with_folders("eth0", here, [("eth1", here)]) == "x-eth0"
    assert with_folders("eth0", here, [("eth0", here)]) == "a-x-eth0"
