"""Measures pcapdiag beside the tools it must not be slower than, on one file.

    python tests/benchmarks/run.py                      a generated capture of 1.5 million packets
    python tests/benchmarks/run.py FILE --runs 5        another one
    python tests/benchmarks/run.py --only analyze,tcpdump --packets 15000000 --snaplen 96
    python tests/benchmarks/run.py --scaling 100000,1000000,syn-flood,icmp-storm    time and memory
    python tests/benchmarks/run.py --cores 2            what more cores are worth

Every process runs alone, start-up and output included; tools take turns, and the median of the
runs counts. Tools too slow for the whole file get its first packets; their rate is over those, and
the table says so. "start" (the import of numpy and polars) and "cat" (the file's bytes, read once)
are what no program like this one can go below. Peak memory is the largest resident set of any
process of the tool (wait4). This process imports nothing big: what it holds counts as a child's
memory until the child's exec.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent

DECODE: Final = """
import sys
from pcapdiag.capture.reader import open_capture
from pcapdiag.decode.packets import decode_parts
with open_capture(sys.argv[1]) as reader:
    for part in decode_parts(reader, 0):
        pass
"""
READ: Final = """
import sys
from pcapdiag.capture.reader import open_capture
with open_capture(sys.argv[1]) as reader:
    for batch in reader:
        pass
"""
SCAPY: Final = """
import sys
from scapy.all import PcapReader
with PcapReader(sys.argv[1]) as packets:
    for packet in packets:
        pass
"""
PYSHARK: Final = """
import sys
import pyshark
with pyshark.FileCapture(sys.argv[1], keep_packets=False) as packets:
    for packet in packets:
        pass
"""


@dataclass
class Tool:
    """One contender: its command with "F" for the file, and how many packets it is given."""

    name: str
    command: list[str]
    module: str = ""  # that the command imports
    limit: int | None = None  # packets; None: the whole file
    seconds: list[float] = field(default_factory=list)
    peak_kib: int = 0
    packets: int = 0

    @property
    def rate(self) -> float:
        """Return packets a second, of the median run."""
        return self.packets / statistics.median(self.seconds)


_NO_BYTECODE: Final = "PYTHONDONTWRITEBYTECODE"
"""Not given to the tools: no user has it set, and with it every start compiles the package anew."""

_TSHARK: Final = ("tshark", "-2", "-r", "F", "-Y")


def _tools(folder: Path, slice_packets: int, pyshark_packets: int) -> list[Tool]:
    python = sys.executable
    program = str(Path(python).with_name("pcapdiag"))
    report = str(folder / "report.html")
    return [
        Tool("analyze", [program, "analyze", "--quiet", "--html", report, "F"]),
        Tool("decode", [python, "-c", DECODE, "F"], "pcapdiag"),
        Tool("read", [python, "-c", READ, "F"], "pcapdiag"),
        Tool("start", [python, "-c", "import numpy, polars"], "polars"),
        Tool("cat", ["cat", "F"]),
        Tool("tcpdump", ["tcpdump", "-r", "F", "-w", "/dev/null", "icmp"]),
        Tool("tcptrace", ["tcptrace", "-n", "F"]),
        Tool("tshark", [*_TSHARK, "icmp || tcp.analysis.flags"], limit=slice_packets),
        Tool("scapy", [python, "-c", SCAPY, "F"], "scapy", slice_packets),
        Tool("pyshark", [python, "-c", PYSHARK, "F"], "pyshark", pyshark_packets),
    ]


def _present(tool: Tool) -> bool:
    module = tool.module
    return bool(shutil.which(tool.command[0]) and (not module or importlib.util.find_spec(module)))


def _measure(tool: Tool, file: Path) -> None:
    command = [str(file) if word == "F" else word for word in tool.command]
    with tempfile.TemporaryFile() as complaints:
        begin = time.perf_counter()
        process = subprocess.Popen(
            command,
            env={name: value for name, value in os.environ.items() if name != _NO_BYTECODE},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=complaints,
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in {0, 1}:  # 1: analyze found something at --fail-on
            complaints.seek(0)
            words = complaints.read().decode(errors="replace")[-500:]
            raise SystemExit(f"{tool.name} ended with {process.returncode}: {words}")
    tool.seconds.append(seconds)
    tool.peak_kib = max(tool.peak_kib, usage.ru_maxrss)


def _count(file: Path) -> int:
    counted = subprocess.run(
        ["capinfos", "-c", "-M", "-T", "-r", "-m", str(file)],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(counted.stdout.strip().rpartition(",")[2])


def _head(file: Path, packets: int, folder: Path) -> Path:
    """Return a file with the first packets of `file`."""
    head = folder / f"first-{packets}.pcap"
    if not head.exists():
        subprocess.run(
            ["tcpdump", "-r", str(file), "-c", str(packets), "-w", str(head)],
            check=True,
            capture_output=True,
        )
    return head


def _machine() -> str:
    cpu = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            cpu = line.partition(": ")[2]
            break
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{cpu}, {os.cpu_count()} cores, {gib:.0f} GiB, Linux {platform.release()}, "
        f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}"
    )


def _table(tools: list[Tool], file: Path, packets: int) -> str:
    lines = [
        f"{file.name}: {packets:,} packets, {file.stat().st_size / 1e6:,.0f} MB",
        _machine(),
        "",
        "| tool | packets | runs | median s | min-max s | packets/s | peak MB | analyze is |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    ours = next((tool for tool in tools if tool.name == "analyze"), None)
    for tool in tools:
        part = tool.packets < packets
        ratio = f"{ours.rate / tool.rate:.2f} x" if ours is not None else ""
        cells = (
            tool.name,
            f"first {tool.packets:,}" if part else "all",
            str(len(tool.seconds)),
            f"{statistics.median(tool.seconds):.2f}",
            f"{min(tool.seconds):.2f}-{max(tool.seconds):.2f}",
            f"{tool.rate:,.0f}",
            f"{tool.peak_kib / 1024:,.0f}",
            ratio,
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", '"analyze is": its packets/s over the tool\'s. "first": scaled from a part.']
    return "\n".join(lines)


EXTREMES: Final = {
    "syn-flood": (2_000_000, ("--packets=500000", "--syn-flood=500000")),
    "icmp-storm": (5_500_000, ("--packets=500000", "--icmp-storm=5000000")),
    "tunnelled": (15_000_000, ("--packets=15000000", "--tunnelled")),
}
"""Name: packets in all, and what generate.py is told."""


def _scaling(sizes: list[str], snaplen: int, runs: int) -> str:
    """Return a table of what `analyze` takes for generated captures: of growing size, EXTREMES."""
    lines = [
        f"{_machine()}; medians of {runs}, snaplen {snaplen}",
        "",
        "| packets | file MB | median s | min-max s | packets/s | peak MB |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for wanted in sizes:
        size, made = EXTREMES.get(wanted) or (int(wanted), (f"--packets={wanted}",))
        with tempfile.TemporaryDirectory(prefix="pcapdiag-benchmark-") as name:
            file = _generated(Path(name), made, snaplen)
            tool = _tools(Path(name), 0, 0)[0]
            tool.packets = size
            for _ in range(runs):
                _measure(tool, file)
            cells = (
                f"{size:,}" + (f" ({wanted})" if wanted in EXTREMES else ""),
                f"{file.stat().st_size / 1e6:,.0f}",
                f"{statistics.median(tool.seconds):.2f}",
                f"{min(tool.seconds):.2f}-{max(tool.seconds):.2f}",
                f"{tool.rate:,.0f}",
                f"{tool.peak_kib / 1024:,.0f}",
            )
        lines.append(f"| {' | '.join(cells)} |")
        print(lines[-1], file=sys.stderr)
    return "\n".join(lines)


def _cores(count: int, snaplen: int, runs: int) -> str:
    """Return a table of what `--jobs COUNT` takes beside `--jobs 1`: one capture, and four."""
    lines = [
        f"{_machine()}; medians of {runs}, snaplen {snaplen}",
        "",
        f"| captures | packets | 1 job, s | {count} jobs, s | times as fast | peak MB |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for captures, packets in ((1, 5_000_000), (4, 1_000_000)):
        with tempfile.TemporaryDirectory(prefix="pcapdiag-benchmark-") as name:
            folder = Path(name)
            files = [
                _generated(folder, (f"--packets={packets}", f"--seed={number}"), snaplen, number)
                for number in range(captures)
            ]
            analyze = _tools(folder, 0, 0)[0].command[:-1]
            jobs = [
                Tool("analyze", [*analyze, "--jobs", str(some), *map(str, files)])
                for some in (1, count)
            ]
            for _ in range(runs):
                for tool in jobs:
                    _measure(tool, files[0])
        alone, more = (statistics.median(tool.seconds) for tool in jobs)
        peak = max(tool.peak_kib for tool in jobs) / 1024
        cells = (captures, f"{captures * packets:,}", f"{alone:.2f}", f"{more:.2f}")
        lines.append(f"| {' | '.join(map(str, cells))} | {alone / more:.2f} | {peak:,.0f} |")
        print(lines[-1], file=sys.stderr)
    return "\n".join(lines)


def _generated(folder: Path, made: tuple[str, ...], snaplen: int, number: int = 0) -> Path:
    file = folder / f"rs{number + 1}.pcap"
    options = (*made, f"--snaplen={snaplen}", "-o", str(file))
    maker = [sys.executable, str(HERE / "generate.py"), *options]
    subprocess.run(maker, check=True, stdout=subprocess.DEVNULL)
    return file


def main() -> None:
    """Read the command line, measure, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--packets", type=int, default=1_500_000, help="of the generated capture")
    parser.add_argument("--snaplen", type=int, default=262144, help="of it; 96: headers only")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--slice", type=int, default=100_000, help="packets for tshark and scapy")
    parser.add_argument("--pyshark-slice", type=int, default=2_000)
    parser.add_argument("--only", default="", help="tools, with commas between")
    parser.add_argument(
        "--scaling",
        default="",
        help=f"numbers of packets, or {' or '.join(EXTREMES)}, with commas between",
    )
    parser.add_argument("--cores", type=int, default=0, help="compare --jobs 1 with this many")
    asked = parser.parse_args()
    if asked.cores:
        print(_cores(asked.cores, asked.snaplen, asked.runs))
        return
    if asked.scaling:
        print(_scaling(asked.scaling.split(","), asked.snaplen, asked.runs))
        return
    with tempfile.TemporaryDirectory(prefix="pcapdiag-benchmark-") as name:
        folder = Path(name)
        file = asked.file or _generated(folder, (f"--packets={asked.packets}",), asked.snaplen)
        packets = _count(file)
        wanted = set(filter(None, asked.only.split(",")))
        tools = _tools(folder, asked.slice, asked.pyshark_slice)
        unknown = wanted - {tool.name for tool in tools}
        if unknown:
            parser.error(f"--only knows {', '.join(tool.name for tool in tools)}")
        tools = [tool for tool in tools if not wanted or tool.name in wanted]
        for tool in tools:
            if not _present(tool):
                print(f"{tool.name} is not installed", file=sys.stderr)
        tools = [tool for tool in tools if _present(tool)]
        for turn in range(asked.runs):
            for tool in tools:
                tool.packets = min(tool.limit or packets, packets)
                whole = tool.packets == packets
                _measure(tool, file if whole else _head(file, tool.packets, folder))
                print(f"run {turn + 1}: {tool.name} {tool.seconds[-1]:.2f} s", file=sys.stderr)
        print(_table(tools, file, packets))


if __name__ == "__main__":
    main()
