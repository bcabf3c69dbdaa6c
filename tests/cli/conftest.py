"""What the command line's tests share: ways to run it, and captures to run it on."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from pcapdiag.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """The error lines, without what is common to them."""
        prefix = "pcapdiag: error: "
        return [line.removeprefix(prefix) for line in self.err.splitlines() if prefix in line]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Ended]:
    """Run the command line in this process, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "SOURCE_DATE_EPOCH"):
        monkeypatch.delenv(name, raising=False)

    def invoke(*arguments: object, stdin: bytes | None = None) -> Ended:
        ended = CliRunner().invoke(main, [str(item) for item in arguments], input=stdin)
        assert "Traceback" not in ended.stderr
        return Ended(ended.exit_code, ended.stdout, ended.stderr)

    return invoke


@pytest.fixture
def execute(tmp_path: Path) -> Callable[..., Ended]:
    """Run the program as a process of its own, in an empty working directory."""

    def start(*arguments: object, **options: object) -> Ended:
        ended = subprocess.run(
            [sys.executable, "-P", "-m", "pcapdiag", *(str(item) for item in arguments)],
            check=False,
            **{"cwd": tmp_path, "capture_output": True, "text": True, **options},
        )
        return Ended(ended.returncode, ended.stdout or "", ended.stderr or "")

    return start


@dataclass(frozen=True)
class Captures:
    """The bytes of small captures of one cluster behind LVS-DR, as files."""

    pcap: bytes
    pcapng: bytes
    realserver: bytes
    user_linktype: bytes


def _frames(next_hop: str, ttl: int) -> list[object]:
    """Return a connection to the VIP and an ICMP error about it, as sent on to `next_hop`."""
    from scapy.layers.inet import ICMP, IP, TCP
    from scapy.layers.l2 import Ether
    from scapy.packet import Raw

    def at(seconds: float, packet: object) -> object:
        packet.time = 1_714_557_600 + seconds
        return packet

    client, vip = "198.51.100.7", "203.0.113.10"
    request = Ether(src="02:00:00:00:00:fe", dst=next_hop) / IP(src=client, dst=vip, ttl=ttl)
    error = Ether(src="02:00:00:00:00:fe", dst=next_hop) / IP(src="192.0.2.254", dst=vip, ttl=ttl)
    quote = IP(src=vip, dst=client, flags="DF", len=1500) / TCP(sport=80, dport=4711, seq=901)
    return [
        at(0.0, request / TCP(sport=4711, dport=80, flags="S", seq=100, options=[("MSS", 1460)])),
        at(0.1, request / TCP(sport=4711, dport=80, flags="A", seq=101, ack=901)),
        at(0.2, request / TCP(sport=4711, dport=80, flags="PA", seq=101, ack=901) / Raw(b"GET /")),
        at(1.0, error / ICMP(type=3, code=4, nexthopmtu=1400) / quote),
        at(2.5, request / TCP(sport=4711, dport=80, flags="FA", seq=106, ack=901)),
    ]


@pytest.fixture(scope="session")
def captures(tmp_path_factory: pytest.TempPathFactory) -> Captures:
    """Build the captures once."""
    from scapy.utils import PcapNgWriter, PcapWriter

    folder = tmp_path_factory.mktemp("captures")

    def written(name: str, writer: object, frames: list[object]) -> bytes:
        for frame in frames:
            writer.write(frame)
        writer.close()
        return (folder / name).read_bytes()

    director = _frames("02:00:00:00:00:01", 62)
    realserver = _frames("02:00:00:00:00:11", 61)
    pcap = written("d.pcap", PcapWriter(str(folder / "d.pcap")), director)
    return Captures(
        pcap=pcap,
        pcapng=written("d.pcapng", PcapNgWriter(str(folder / "d.pcapng")), director),
        realserver=written("r.pcap", PcapWriter(str(folder / "r.pcap")), realserver[:3]),
        user_linktype=pcap[:20] + (147).to_bytes(4, "little") + pcap[24:],
    )


@pytest.fixture
def place(tmp_path: Path, captures: Captures) -> Path:
    """Lay the captures into the working directory, as director.pcap and rs1.pcap."""
    (tmp_path / "director.pcap").write_bytes(captures.pcap)
    (tmp_path / "rs1.pcap").write_bytes(captures.realserver)
    return tmp_path
