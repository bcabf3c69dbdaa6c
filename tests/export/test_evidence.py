"""The evidence file: cited frames as they were captured, for whoever gets the ticket."""

from __future__ import annotations

import gzip
import io
import subprocess
from dataclasses import replace

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw
from scapy.utils import PcapNgWriter, PcapWriter

from pcapdiag import workers
from pcapdiag.capture.reader import open_capture, read_frames
from pcapdiag.export import evidence
from pcapdiag.flows import vantage
from pcapdiag.result import (
    Cause,
    Cluster,
    Confidence,
    Evidence,
    Finding,
    Host,
    Service,
    Severity,
)

START = 1_714_557_600
CLUSTER = Cluster(
    directors=(Host(name="lb1", addresses=("203.0.113.2",)),),
    realservers=(Host(name="rs1", addresses=("203.0.113.11", "203.0.113.10")),),
    services=(Service(protocol="tcp", vip="203.0.113.10", port=80),),
)


def _frames():
    """Return twenty segments of one connection, an ARP request, an error about the third."""
    there = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    found = []
    for number in range(20):
        ip = IP(src="198.51.100.7", dst="203.0.113.10", id=number, flags="DF")
        segment = there / ip / TCP(sport=4711, dport=80, seq=100 * number, flags="A")
        found.append(segment / Raw(b"password=hunter2"))
    found.insert(9, there / ARP(psrc="203.0.113.1", pdst="203.0.113.10"))
    quote = IP(src="198.51.100.7", dst="203.0.113.10", id=2, flags="DF")
    quote /= TCP(sport=4711, dport=80, seq=200)
    error = IP(src="192.0.2.1", dst="198.51.100.7") / ICMP(type=3, code=4, nexthopmtu=1400) / quote
    found.append(there / error)
    for number, frame in enumerate(found):
        frame.time = START + number / 1000 + 0.000_001
    return found


def _written(path, writer=PcapWriter):
    with writer(str(path)) as file:
        for frame in _frames():
            file.write(frame)
    return path


def _tables(path, name="lb1", index=0):
    read = workers.read_capture(str(path), index)
    return vantage.build(index, name, "director", [(read.info, read.decoded)])


def _finding(path, *frames, name="lb1", note="it vanished"):
    return Finding(
        rule="pmtud-blackhole",
        title="t",
        summary="s",
        cause=Cause(code="c", text="c"),
        severity=Severity.HIGH,
        confidence=Confidence.HIGH,
        evidence=tuple(
            Evidence(role="primary", vantage=name, file=str(path), frame=frame, note=note)
            for frame in frames
        ),
    )


def _file(tmp_path, tables, finding, **options):
    found = evidence.gather([tables], [finding])
    out = tmp_path / "evidence.pcapng"
    with out.open("wb") as file:
        evidence.write(file, [tables], found, CLUSTER, **options)
    return out


def _read(path):
    with open_capture(str(path)) as reader:
        frames = [number for batch in reader for number in batch.frame.tolist()]
        info = reader.info
    return info, read_frames(str(path), frames)


def test_cited_frame_comes_with_five_before_and_after_it(tmp_path):
    """Context is of the same flow: the ARP request between the segments is left out."""
    path = _written(tmp_path / "lb1.pcap")
    found = evidence.gather([_tables(path)], [_finding(path, 8)])
    assert [item.raw.frame for item in found.frames] == [3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14]
    assert [item.raw.frame for item in found.frames if item.comments] == [8]
    assert found.notes == ()


def test_error_comes_with_the_connection_that_it_quotes(tmp_path):
    """Around an ICMP error stand packets of the quoted flow."""
    path = _written(tmp_path / "lb1.pcap")
    found = evidence.gather([_tables(path)], [_finding(path, 22)])
    assert [item.raw.frame for item in found.frames] == [17, 18, 19, 20, 21, 22]


def test_frame_of_no_flow_comes_with_its_neighbours(tmp_path):
    """ARP belongs to no flow: two frames before and two after it are kept, whatever they are."""
    path = _written(tmp_path / "lb1.pcap")
    found = evidence.gather([_tables(path)], [_finding(path, 10)])
    assert [item.raw.frame for item in found.frames] == [8, 9, 10, 11, 12]


def test_payload_is_cut_unless_it_is_asked_for(tmp_path):
    """The file goes into tickets: what TCP carried is not in it, the original length is."""
    path = _written(tmp_path / "lb1.pcap")
    finding = _finding(path, 8, 22)
    cut = _file(tmp_path, _tables(path), finding).read_bytes()
    assert b"hunter2" not in cut
    assert b"hunter2" in _file(tmp_path, _tables(path), finding, payload=True).read_bytes()
    (tmp_path / "cut.pcapng").write_bytes(cut)
    _, frames = _read(tmp_path / "cut.pcapng")
    assert {(len(raw.data), raw.wire_len) for raw in frames.values()} == {(54, 70), (82, 82)}


def test_times_are_the_original_ones(tmp_path):
    """Nanoseconds as in the capture, frames in their order."""
    path = _written(tmp_path / "lb1.pcap")
    _, frames = _read(_file(tmp_path, _tables(path), _finding(path, 10)))
    wanted = [raw.time_ns for raw in read_frames(str(path), [8, 9, 10, 11, 12]).values()]
    assert [raw.time_ns for raw in frames.values()] == wanted


@pytest.mark.needs("tshark")
@pytest.mark.needs("capinfos")
def test_wireshark_reads_it_without_a_complaint(tmp_path):
    """Comments, interfaces and names arrive; tshark and capinfos say nothing on stderr."""
    path = _written(tmp_path / "lb1.pcapng", PcapNgWriter)
    out = _file(tmp_path, _tables(path), _finding(path, 8))
    fields = ["frame.interface_name", "frame.interface_description", "frame.comment", "ip.src"]
    command = ["tshark", "-n", "-r", out, "-T", "fields", *(f"-e{field}" for field in fields)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [line.split("\t") for line in ran.stdout.splitlines()]
    assert {row[0] for row in rows} == {"lb1"}
    assert {row[1] for row in rows} == {f"vantage lb1, file {path}"}
    assert [row[2] for row in rows if row[2]] == [
        f"pmtud-blackhole (primary evidence): it vanished [{path}, frame 8, vantage lb1]"
    ]
    assert [line for line in ran.stderr.splitlines() if "Running as user" not in line] == []
    told = subprocess.run(["capinfos", out], capture_output=True, text=True, check=True)
    assert told.stderr == ""
    assert "Strict time order:   True" in told.stdout
    assert "Number of resolved IPv4 addresses in file: 3" in told.stdout
    shown = ["tshark", "-r", out, "-Nn", "-T", "fields", "-eip.dst_host"]
    hosts = subprocess.run(shown, capture_output=True, text=True, check=True).stdout.split()
    assert set(hosts) == {"vip-203.0.113.10"}


def test_every_vantage_and_link_type_has_an_interface(tmp_path):
    """Frames of two vantages keep apart under their names."""
    tables = []
    for index, name in enumerate(("lb1", "rs1")):
        tables.append(_tables(_written(tmp_path / f"{name}.pcap"), name, index))
    findings = [
        _finding(tmp_path / "lb1.pcap", 8),
        _finding(tmp_path / "rs1.pcap", 8, 9, name="rs1"),
    ]
    found = evidence.gather(tables, findings, context=False)
    out = tmp_path / "evidence.pcapng"
    with out.open("wb") as file:
        evidence.write(file, tables, found, CLUSTER)
    info, frames = _read(out)
    assert [item.name for item in info.interfaces] == ["lb1", "rs1"]
    assert [raw.interface for raw in frames.values()] == [0, 1, 1]


def test_frame_cited_twice_has_both_comments(tmp_path):
    """Two findings may rest on one frame."""
    path = _written(tmp_path / "lb1.pcap")
    found = evidence.gather(
        [_tables(path)], [_finding(path, 8), _finding(path, 8, note="as well")], context=False
    )
    assert [len(item.comments) for item in found.frames] == [2]


def test_compressed_capture_is_read_again(tmp_path):
    """Evidence of a compressed capture is found like any other."""
    path = _written(tmp_path / "lb1.pcap")
    packed = tmp_path / "lb1.pcap.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    found = evidence.gather([_tables(packed)], [_finding(packed, 8)])
    assert (len(found.frames), found.notes) == (11, ())


def test_capture_that_grew_or_changed_or_went(tmp_path):
    """What was analysed is found in a file that grew; what is no longer so is left out, noted."""
    path = _written(tmp_path / "lb1.pcap")
    tables, finding = _tables(path), _finding(path, 8)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[24:])
    grown = evidence.gather([tables], [finding])
    assert (len(grown.frames), grown.notes) == (11, ())
    path.write_bytes(whole[:24] + whole[-98:] + whole[24:])  # frame 8 is another one now
    changed = evidence.gather([tables], [finding], context=False)
    assert changed.frames == ()
    assert "no longer what was analysed" in changed.notes[0]
    path.unlink()
    gone = evidence.gather([tables], [finding])
    assert gone.frames == ()
    assert "lb1.pcap are missing" in gone.notes[0]


def test_names_that_mean_two_captures_are_refused(tmp_path):
    """Where hostile names clean to the same text, no frame is shown rather than a wrong one."""
    path = _written(tmp_path / "lb1.pcap")
    tables = _tables(path)
    twice = replace(tables, captures=tables.captures * 2, capture_ids=(0, 1))
    found = evidence.gather([twice], [_finding(path, 8)])
    assert found.frames == ()
    assert "several captures are named" in found.notes[0]
    assert "no capture is named" in evidence.gather([], [_finding(path, 8)]).notes[0]


def test_nothing_cited_is_an_empty_file(tmp_path):
    """Without findings the file is valid and holds no frame."""
    path = _written(tmp_path / "lb1.pcap")
    tables = _tables(path)
    out = io.BytesIO()
    evidence.write(out, [tables], evidence.gather([tables], []), CLUSTER)
    (tmp_path / "none.pcapng").write_bytes(out.getvalue())
    assert _read(tmp_path / "none.pcapng")[0].packets == 0


def test_frame_without_a_time_says_so(tmp_path):
    """A simple packet block has no time; its frame comes first and is marked."""
    path = _written(tmp_path / "lb1.pcap")
    tables = _tables(path)
    found = evidence.gather([tables], [_finding(path, 8)], context=False)
    item = found.frames[0]
    from pcapdiag.capture.frames import NO_TIME

    timeless = item._replace(raw=item.raw._replace(time_ns=NO_TIME))
    out = io.BytesIO()
    evidence.write(out, [tables], found._replace(frames=(timeless,)), CLUSTER)
    assert b"the original has no time" in out.getvalue()
