"""Every column of every frame of the samples, and of any other captures, is what tshark says.

    PCAPDIAG_CORPUS=DIRECTORY pytest tests/oracle

adds the captures of a directory; PCAPDIAG_LAB adds another one's.
"""

from __future__ import annotations

import fnmatch
import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import compare
import expectation
import pytest
import tshark

from pcapdiag import schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SAMPLES: Final = Path(__file__).resolve().parents[2] / "samples"
PLACES: Final = [
    SAMPLES,
    *(Path(os.environ[name]) for name in ("PCAPDIAG_CORPUS", "PCAPDIAG_LAB") if name in os.environ),
]
CAPTURES: Final = [
    path
    for path in compare.captures(*PLACES)
    if not path.is_relative_to(SAMPLES)
    or not path.parent.name.startswith("lab-")
    or path.name.startswith("director")
    or os.environ.get("PCAPDIAG_ORACLE") == "all"
]
"""Of the lab's samples by default the director's: the other hosts saw the same packets."""

TOGETHER: Final = 16
"""Captures of samples that one tshark dissects: some thousand frames, 100 MB of PDML."""

SNAPLENS: Final = (20, 38, 50, 60, 74, 96)
"""Cuts in the link header, the IP header, TCP and ICMP headers, options and quotes."""

FRACTION = "the file's sub-second part exceeds a second: tshark prints it as it is or wraps it, "
FRACTION += "pcapdiag carries"
PSEUDO = "tshark does not count the pseudo-header of ATM captures, libpcap and pcapdiag do"

KNOWN: Final = {
    ("PcapPlusPlus__clusterfuzz-testcase-*", "packets.time_ns"): FRACTION,
    ("tcpdump__timestamp_invalid_nano.pcap", "packets.time_ns"): FRACTION,
    ("tcpdump__atm-oam-loopback-print-overrun.pcap", "packets.time_ns"): FRACTION,
    ("tcpdump__atm-*", "packets.caplen"): PSEUDO,
    ("tcpdump__atm-*", "packets.wire_len"): PSEUDO,
    ("tcpdump__LINKTYPE_IPV4_invalid.pcap", "packets.*"): "an IPv6 packet in a capture whose link "
    "type says IPv4: tshark follows the packet, pcapdiag calls the header bad",
    ("PcapPlusPlus__solaris.snoop", "file"): "snoop is not a format of pcapdiag's",
}
"""(file, column) that differ, and why that is right. Anything else that differs fails."""


def _known(file: str, column: str) -> str | None:
    for (files, columns), reason in KNOWN.items():
        if fnmatch.fnmatch(file, files) and fnmatch.fnmatch(column, columns):
            return reason
    return None


OF_SAMPLES: Final = [
    path for path in CAPTURES if path.is_relative_to(SAMPLES) and ".pcap" in path.suffixes
]
GROUPS: Final = {path: number // TOGETHER for number, path in enumerate(OF_SAMPLES)}
"""Of the captures of samples, which are dissected together."""


def _captures() -> Iterator[object]:
    """Yield the captures; one worker compares those of samples that are dissected together."""
    for path in CAPTURES:
        name = str(Path(*path.parts[-2:]))
        mark = pytest.mark.xdist_group(f"tshark-{GROUPS.get(path, name)}")
        yield pytest.param(path, id=name, marks=mark)


@lru_cache(maxsize=1)
def _together(group: int) -> dict[Path, bytes]:
    return tshark.dissect_together(OF_SAMPLES[group * TOGETHER :][:TOGETHER])


def _dissected(capture: Path) -> bytes | None:
    if capture not in GROUPS:
        return tshark.dissect(capture)
    return _together(GROUPS[capture])[capture]


@pytest.mark.needs("tshark", "mergecap", "capinfos")
@pytest.mark.parametrize("capture", list(_captures()))
def test_columns_are_what_tshark_says(
    capture: Path,
    counted: Callable[[compare.Comparison], None],
) -> None:
    """Every value agrees with tshark's, or its difference is known and explained."""
    result = compare.compare(capture, _dissected(capture))
    counted(result)
    strange = [str(each) for each in result.differences if not _known(each.file, each.column)]
    assert strange == []
    for name, who in result.refused.items():
        assert who == "tshark" or _known(name, "file"), who


@pytest.mark.needs("tshark", "mergecap", "capinfos")
def test_company_changes_nothing() -> None:
    """What is expected of a capture is the same where tshark dissects it alone."""
    some = [SAMPLES / "fragments-lost-router" / name for name in ("director.pcap", "rs1.pcap")]
    together = tshark.dissect_together(some)
    for capture in some:
        pair = (together[capture], tshark.dissect(capture) or b"")
        one, other = ([expectation.expect(each) for each in tshark.packets(it)] for it in pair)
        assert one == other
        assert len(one) > 10


@pytest.mark.parametrize(("files", "column"), KNOWN)
def test_known_differences_still_exist(files: str, column: str) -> None:
    """An explanation that explains nothing any more is removed from the table."""
    found = [path for path in CAPTURES if fnmatch.fnmatch(path.name, files)]
    if not found:
        pytest.skip("its captures are not here: PCAPDIAG_CORPUS")
    compared = [compare.compare(path, tshark.dissect(path)) for path in found]
    differing = {each.column for result in compared for each in result.differences}
    differing |= {"file" for result in compared if set(result.refused.values()) - {"tshark"}}
    assert fnmatch.filter(differing, column)


@pytest.fixture(scope="module")
def cuts(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[Path, bytes]]:
    """Return by snaplen a sample's capture cut to it, and what tshark says of it."""
    whole = SAMPLES / "pmtud-blackhole-dr" / "director.pcap"
    return tshark.dissect_cut(whole, SNAPLENS, tmp_path_factory.mktemp("cut"))


@pytest.mark.needs("tshark", "editcap", "mergecap", "capinfos")
@pytest.mark.xdist_group("tshark-cuts")
@pytest.mark.parametrize("snaplen", SNAPLENS)
def test_cut_frames_do_not_contradict_tshark(
    snaplen: int,
    cuts: dict[int, tuple[Path, bytes]],
    counted: Callable[[compare.Comparison], None],
) -> None:
    """Of frames cut to a snaplen, what both sides can still say is the same."""
    result = compare.compare(*cuts[snaplen])
    counted(result)
    assert [str(each) for each in result.differences] == []
    assert result.frames > 100


def test_every_wireshark_field_of_the_dictionary_is_compared() -> None:
    """No column that names a Wireshark field is forgotten by the translation."""
    named = {
        f"{table}.{column.name.removesuffix('_hi').removesuffix('_lo')}"
        for table in ("packets", "tunnels", "sacks", "icmp", "arp", "vrrp")
        for column in schema.TABLES[table]
        if column.wireshark
    }
    assert named - set(expectation.columns()) == {"arp.eth_src"}  # exported once, as eth_src
    assert len(named) > 70
