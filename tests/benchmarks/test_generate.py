"""The generated capture is what it says: a benchmark on broken packets would measure nothing."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

GENERATE: Final = Path(__file__).resolve().parent / "generate.py"
PACKETS: Final = 6000
FLOODS: Final = ("--syn-flood", "300", "--icmp-storm", "700")

PROTOCOLS: Final = "frame.protocols"
FIELDS: Final = (
    "frame.time_epoch",
    "frame.len",
    "frame.cap_len",
    PROTOCOLS,
    "ip.checksum.status",
    "tcp.checksum.status",
    "icmp.checksum.status",
    "icmpv6.checksum.status",
    "ip.src",
    "ip.len",
    "ip.opt.type",
    "tcp.flags.str",
    "tcp.analysis.retransmission",
    "tcp.analysis.fast_retransmission",
)


def _generate(path: Path, *options: str) -> dict:
    command = [sys.executable, str(GENERATE), "-n", str(PACKETS), "-o", str(path), *options]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def _rows(path: Path) -> list[dict[str, str]]:
    checks = [f"-o{name}.check_checksum:TRUE" for name in ("ip", "tcp")]
    fields = [word for name in FIELDS for word in ("-e", name)]
    shown = subprocess.run(
        ["tshark", "-r", str(path), *checks, "-T", "fields", "-E", "header=y", *fields],
        check=True,
        capture_output=True,
        text=True,
    )
    return list(csv.DictReader(shown.stdout.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))


@pytest.mark.needs("tshark")
def test_every_packet_is_sound_and_every_kind_is_there(tmp_path: Path) -> None:
    """All checksums are right, times ascend, and the promised kinds have their shares."""
    truth = _generate(tmp_path / "rs1.pcap")
    rows = _rows(tmp_path / "rs1.pcap")
    assert len(rows) == truth["packets"] == PACKETS
    for name in FIELDS[4:8]:
        # tshark sums what is quoted of a segment as if it were the whole
        own = [row for row in rows if name != "tcp.checksum.status" or "icmp" not in row[PROTOCOLS]]
        assert {word for row in own for word in row[name].split(",")} <= {"", "1"}, name
    times = [row["frame.time_epoch"] for row in rows]
    assert times == sorted(times)
    assert all(row["frame.len"] == row["frame.cap_len"] for row in rows)
    assert not [row for row in rows if "malformed" in row[PROTOCOLS]]

    def share(kind: str, field: str = PROTOCOLS) -> float:
        return sum(kind in row[field] for row in rows) / PACKETS

    assert 0.05 < share("ip:ip:tcp") < 0.2
    assert 0.02 < share("ipv6") < 0.1
    assert 0.05 < share("vlan") < 0.25
    assert share("148", "ip.opt.type") > 0
    repeated = [name for name in FIELDS if "retransmission" in name]
    assert 0.03 < sum(share("1", name) for name in repeated) < 0.08
    assert any(int(row["ip.len"].split(",")[-1] or 0) > 1500 for row in rows)
    errors = [row for row in rows if row["icmp.checksum.status"] + row["icmpv6.checksum.status"]]
    assert len(errors) == truth["icmp_errors"] > 0


@pytest.mark.needs("tshark")
def test_headers_only_keeps_the_lengths(tmp_path: Path) -> None:
    """With a snaplen of 96 the frames are as long on the wire as in full, but cut in the file."""
    _generate(tmp_path / "full.pcap")
    _generate(tmp_path / "cut.pcap", "--snaplen", "96")
    full, cut = _rows(tmp_path / "full.pcap"), _rows(tmp_path / "cut.pcap")
    assert [row["frame.len"] for row in cut] == [row["frame.len"] for row in full]
    assert all(int(row["frame.cap_len"]) == min(96, int(row["frame.len"])) for row in cut)


def test_the_same_seed_gives_the_same_file(tmp_path: Path) -> None:
    """Two runs make the same bytes; another seed makes others."""
    for name, seed in (("a", "7"), ("b", "7"), ("c", "8")):
        _generate(tmp_path / name, "--seed", seed)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


@pytest.mark.needs("tshark")
def test_floods_come_beside_the_packets(tmp_path: Path) -> None:
    """Half-open connections and errors are as many as asked for, sound, and change nothing else."""
    plain = _generate(tmp_path / "plain.pcap", "--snaplen", "700")
    truth = _generate(tmp_path / "rs1.pcap", "--snaplen", "700", *FLOODS)
    rows = _rows(tmp_path / "rs1.pcap")
    assert len(rows) == truth["packets"] == plain["packets"] + 3 * 300 + 700
    assert truth["connections"] == plain["connections"] + 300
    assert truth["icmp_errors"] == plain["icmp_errors"] + 700
    errors = [row["icmp.checksum.status"] + row["icmpv6.checksum.status"] for row in rows]
    assert [*filter(None, errors)] == ["1"] * truth["icmp_errors"]
    assert {word for row in rows for word in row["ip.checksum.status"].split(",")} <= {"", "1"}
    flood = [row for row in rows if row["ip.src"].startswith("198.19.")]
    assert len(flood) == 300
    assert {row["tcp.flags.str"].strip("·") for row in flood} == {"S"}
    routers = {row["ip.src"].split(",")[0] for row in rows if row["icmp.checksum.status"]}
    assert len(routers) > 500


@pytest.mark.parametrize("floods", [(), FLOODS], ids=["plain", "floods"])
def test_the_fault_is_found_and_no_other(tmp_path: Path, floods: tuple[str, ...]) -> None:
    """The whole program, run on the capture, names the one fault with the sizes that were made.

    Beside it stands the remark that segments were captured before they were cut.
    """
    fault = _generate(tmp_path / "rs1.pcap", *floods)["fault"]
    program = Path(sys.executable).with_name("pcapdiag")
    run = subprocess.run(
        [program, "analyze", "--quiet", "--no-html", "--json", "-", "rs1.pcap"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    findings = json.loads(run.stdout)["findings"]
    (finding,) = (item for item in findings if item["severity"] != "info")
    assert finding["rule"] == fault["rule"]
    assert fault["service"] in finding["title"]
    for name in ("stalled_connections", "smallest_lost", "largest_delivered"):
        assert finding["facts"][name] == fault[name], name
