"""The same traces as real files, held against tshark, tcptrace and the project's own decoder."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from traces import trace

from pcapdiag.capture.reader import open_capture
from pcapdiag.decode.packets import decode_capture
from pcapdiag.flows import vantage

if TYPE_CHECKING:
    from pathlib import Path

    from traces import Trace

LOSSY = """
0.000 c>s S seq=0 mss=1460 ws=7 sackok
1.000 c>s S seq=0 mss=1460 ws=7 sackok
1.010 s>c SA seq=0 ack=1 mss=1400 ws=9 sackok
1.020 c>s A seq=1 ack=1
1.030 c>s PA seq=1 ack=1 len=300
1.040 s>c A seq=1 ack=301
1.041 s>c A seq=1 ack=301 len=1400
1.042 s>c A seq=1401 ack=301 len=1400
1.043 s>c A seq=2801 ack=301 len=1400
1.060 c>s A seq=301 ack=1401 sack=2801-4201
1.061 s>c A seq=4201 ack=301 len=1400
1.080 c>s A seq=301 ack=1401 sack=2801-5601
1.100 s>c A seq=1401 ack=301 len=1400
1.120 c>s A seq=301 ack=5601
2.000 s>c PA seq=5601 ack=301 len=900
2.300 s>c PA seq=5601 ack=301 len=900
2.900 s>c PA seq=5601 ack=301 len=900
2.920 c>s A seq=301 ack=6501
63.00 c>s A seq=300 ack=6501
63.01 s>c A seq=6501 ack=301
70.00 c>s FA seq=301 ack=6501
70.30 c>s FA seq=301 ack=6501
70.31 s>c FA seq=6501 ack=302
70.32 c>s A seq=302 ack=6502
"""

MIXED = (
    LOSSY
    + """
80.00 c2>s S seq=0 mss=1460
80.01 s>c2 SA seq=0 ack=1 mss=1460
80.02 c2>s A seq=1 ack=1
80.03 s>c2 A seq=1 ack=1 len=1460
80.04 r>s icmp 3/4 mtu=1400 quote=28
80.05 s>c2 A seq=1 ack=1 len=1360
80.06 s>c2 A seq=1361 ack=1 len=100
80.08 c2>s A seq=1 ack=1461
81.00 c6>s6 S seq=0 mss=1440
81.01 s6>c6 SA seq=0 ack=1 mss=1440
81.02 c6>s6 A seq=1 ack=1
81.03 c6>s6 PA seq=1 ack=1 len=700
81.50 c6>s6 PA seq=1 ack=1 len=700
81.60 s6>c6 RA seq=1 ack=701
82.00 c>s:53 udp len=40
82.01 s:53>c udp len=400
"""
)


def fields(path: Path, *names: str, only: str = "") -> list[list[str]]:
    """Return tshark's fields, one list a frame."""
    command = ["tshark", "-n", "-r", str(path), "-T", "fields", "-E", "occurrence=f"]
    for option in ("tcp.desegment_tcp_streams:FALSE", "tcp.relative_sequence_numbers:FALSE"):
        command += ["-o", option]
    command += ["-Y", only] if only else []
    for name in names:
        command += ["-e", name]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    return [line.split("\t") for line in said.stdout.splitlines()]


def decoded_tables(made: Trace, path: Path) -> vantage.VantageTables:
    """Return the tables of a trace that went through a file and the decoder."""
    with open_capture(str(made.write(path))) as reader:
        decoded = decode_capture(reader, 0)
        return vantage.build(0, "v", None, [(reader.info, decoded)])


def test_notation_and_decoder_agree(tmp_path: Path) -> None:
    """A trace as tables and as a decoded file makes the same flows and errors."""
    made = trace(MIXED)
    direct, decoded = made.tables(), decoded_tables(made, tmp_path / "trace.pcap")
    assert direct.flows.equals(decoded.flows)
    own = {"icmp_checksum_field", "quoted_transport_checksum"}
    assert direct.icmp_errors.drop(own).equals(decoded.icmp_errors.drop(own))


@pytest.mark.needs("tshark")
def test_packets_and_bytes_are_those_of_tshark(tmp_path: Path) -> None:
    """Packets and IP bytes of each side equal sums over tshark's frames."""
    tables = decoded_tables(trace(MIXED), tmp_path / "trace.pcap")
    packets: Counter[tuple[str, str]] = Counter()
    size: Counter[tuple[str, str]] = Counter()
    for number, source, length, plen in fields(
        tmp_path / "trace.pcap",
        "tcp.stream",
        "tcp.srcport",
        "ip.len",
        "ipv6.plen",
        only="tcp && !icmp",
    ):
        packets[number, source] += 1
        size[number, source] += int(length) if length else 40 + int(plen)
    ours_packets, ours_size = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for number, flow in enumerate(tables.flows.filter(ip_proto=6).iter_rows(named=True)):
        for side in ("orig", "resp"):
            key = (str(number), str(flow[f"{side}_port"]))
            ours_packets[key] += flow[f"{side}_packets"]
            ours_size[key] += flow[f"{side}_ip_bytes"]
    assert ours_packets == packets
    assert ours_size == size


@pytest.mark.needs("tshark")
def test_retransmissions_are_those_of_tshark(tmp_path: Path) -> None:
    """What tshark calls a retransmission is one here: more than 3 ms late, and no keepalive.

    The packet that was cut smaller after the ICMP error is in two parts, both repetitions.
    """
    tables = decoded_tables(trace(MIXED), tmp_path / "trace.pcap")
    told = fields(
        tmp_path / "trace.pcap",
        "tcp.analysis.retransmission",
        "tcp.analysis.keep_alive",
        only="tcp.analysis.flags && !icmp",
    )
    assert sum(bool(keep_alive) for _, keep_alive in told) == 1
    retransmitted = tables.flows.get_column("orig_retransmitted").sum()
    retransmitted += tables.flows.get_column("resp_retransmitted").sum()
    assert retransmitted == sum(bool(again) for again, _ in told) == 8


@pytest.mark.needs("tcptrace")
def test_retransmissions_are_those_of_tcptrace(tmp_path: Path) -> None:
    """tcptrace, which follows bytes as well, counts the same packets; SYN and FIN as bytes."""
    tables = decoded_tables(trace(LOSSY), tmp_path / "trace.pcap")
    said = subprocess.run(
        ["tcptrace", "-n", "-l", str(tmp_path / "trace.pcap")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    def both(label: str) -> tuple[int, int]:
        found = re.search(rf"{label}:\s+(\d+)\s+{label}:\s+(\d+)", said)
        assert found
        return int(found[1]), int(found[2])

    flow = tables.flows.row(0, named=True)
    assert both("total packets") == (flow["orig_packets"], flow["resp_packets"])
    assert both("actual data bytes") == (flow["orig_payload_bytes"], flow["resp_payload_bytes"])
    assert both("rexmt data pkts")[1] == flow["resp_retransmitted"] == 3
    assert both("rexmt data bytes")[1] == flow["resp_retransmitted_bytes"] == 3200
