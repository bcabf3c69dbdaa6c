"""What outgrows memory gives the same flows, packets and ICMP errors as what does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from traces import trace

from pcapdiag import spool, workers
from pcapdiag.decode.packets import SPOOLED
from pcapdiag.flows import partitions, vantage

SAMPLES = Path(__file__).parents[2] / "samples"

CLIENTS = {f"k{number}": f"198.51.100.{number + 60}:300" for number in range(9)}

MIDSTREAM = "\n".join(
    [f"{n}.0 s>k{n % 7} A seq=9 ack=5 len=10" for n in range(1, 30)]
    + ["40 c>s S seq=0", "41 s>c SA seq=0 ack=1", "42 r>s icmp 3/4 mtu=1400 quote=30"]
)
"""Flows that began before the capture: which end is the service, only their number tells."""


def _habit(count):
    """Return packets without an IP ID, each captured twice."""
    lines = []
    for number in range(count):
        line = f"k{number % 9}>s A seq={number} ack=1 len=10 id=0"
        lines += [f"{number}.0 {line}", f"{number}.001 {line}"]
    return "\n".join(lines)


@pytest.fixture
def small(monkeypatch):
    """Make files and parts of a handful of rows."""
    monkeypatch.setattr(spool, "CHUNK_ROWS", 7)
    monkeypatch.setattr(partitions, "PART_ROWS", 10)


def _same(captures, tmp_path):
    plain = vantage.build(0, "v", None, captures)
    found = vantage.build(0, "v", None, [(info, _kept(part, tmp_path)) for info, part in captures])
    assert len(found.packets.paths) > 1
    assert {str(path) for path in tmp_path.iterdir()} == set(_files(found))
    for name in (*SPOOLED, "passages"):
        assert_frame_equal(getattr(found, name).lazy().collect(), getattr(plain, name))
    for name in ("flows", "icmp_errors", "icmp", "arp", "vrrp"):
        assert_frame_equal(getattr(found, name), getattr(plain, name))
    return plain


def _kept(part, tmp_path):
    return part.kept(lambda table: spool.spooled(spool.frames(table), str(tmp_path)))


def _files(found):
    for name in (*SPOOLED, "passages"):
        table = getattr(found, name)
        assert isinstance(table, spool.Spooled), name
        yield from (*table.paths, *table.more)


@pytest.mark.parametrize(
    "sample",
    ["lab-pmtud-director-input-tun/director.pcap.gz", "lab-port-reuse-dr/director.pcap.gz"],
)
@pytest.mark.usefixtures("small")
def test_samples(sample, tmp_path):
    """Tunnels, reused ports, second sights and ICMP errors come out alike."""
    read = workers.read_capture(str(SAMPLES / sample), 0)
    plain = _same([(read.info, read.decoded)], tmp_path)
    assert len(plain.flows) > 1
    assert len(plain.passages) > 1
    rows = plain.passages.select(
        pl.max_horizontal("in_row", "out_row").alias("later"),
        pl.min_horizontal("in_row", "out_row").alias("first"),
    )
    assert plain.packets[rows["later"]]["copy_of"].to_list() == rows["first"].to_list()


@pytest.mark.usefixtures("small")
def test_what_was_split_while_it_was_read(monkeypatch, tmp_path):
    """A capture that is taken apart meanwhile gives the same, and is not taken apart again."""
    path = str(SAMPLES / "pmtud-blackhole-dr/director.pcap")
    plain = workers.read_capture(path, 0)
    wanted = vantage.build(0, "v", None, [(plain.info, plain.decoded)])
    with spool.WorkDirectory(str(tmp_path)) as work:
        read = workers.read_capture(path, 0, work=work, in_memory_rows=0, split=True)
        assert len(read.split) > 1
        monkeypatch.setattr(partitions, "split", None)
        found = vantage.build(0, "v", None, [(read.info, read.decoded)], split=read.split)
        assert_frame_equal(found.packets.lazy().collect(), wanted.packets)
        assert_frame_equal(found.flows, wanted.flows)
        files = {str(path) for path in Path(found.packets.folder).iterdir()}
        assert files == set(_files(found))


@pytest.mark.parametrize(
    ("expected", "parts"), [(None, 0), (9, 0), (20, 0), (21, 3), (70, 7), (71, 0)]
)
@pytest.mark.usefixtures("small")
def test_an_expectation_that_was_wrong(tmp_path, expected, parts):
    """Half the parts that 40 rows should have, or twice, are removed, to be made anew."""
    packets = trace("\n".join(f"{n}.0 c>s A seq={n} ack=1" for n in range(40))).decoded(0).packets
    with spool.WorkDirectory(str(tmp_path)) as work:
        splitting = partitions.Splitting(work, 0)
        for piece in packets.iter_slices(7):
            splitting.add(piece, expected)
        made = splitting.made()
        assert (0 if made is None else len(made[0].starts) - 1) == parts
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert len(files) == (12 if parts else 0)


@pytest.mark.usefixtures("small")
def test_originators_that_other_flows_tell(tmp_path):
    """An endpoint is popular over all parts, and its flows are turned around."""
    made = trace(MIDSTREAM, hosts=CLIENTS)
    plain = _same([(made.info(), made.decoded(0))], tmp_path)
    assert plain.flows["originator_source"].to_list().count("port") > 2
    assert plain.icmp_errors["flow"].null_count() == 0


@pytest.mark.usefixtures("small")
def test_a_habit_that_all_parts_tell(tmp_path):
    """A capture that doubles every packet does so in each part."""
    made = trace(_habit(40), hosts=CLIENTS)
    plain = _same([(made.info(), made.decoded(0))], tmp_path)
    assert plain.packets["copy_of"].null_count() == 40


@pytest.mark.parametrize("later", [0, 1000])
@pytest.mark.usefixtures("small")
def test_side_tables_of_two_captures(tmp_path, later):
    """Tunnel headers and SACK blocks stay with their packets, whether captures overlap or not."""
    sample = SAMPLES / "lab-pmtud-director-input-tun"
    read = workers.read_capture(str(sample / "director.pcap.gz"), 0)
    shift = pl.col("time_ns") + int((later + 1e-4) * 1e9)
    tunnelled = replace(read.decoded, packets=read.decoded.packets.with_columns(shift))
    step = (read.info.last_ns - read.info.first_ns) / 40e9
    text = [f"{n * step:.6f} c>s A seq=1 ack=9 sack=20-30,40-50" for n in range(40)]
    lossy = trace("\n".join(["0 s>c A seq=1 ack=1 len=60", *text]))
    first = read.info.first_ns - lossy.info().first_ns
    made = lossy.decoded(1)
    made = replace(made, packets=made.packets.with_columns(pl.col("time_ns") + first))
    plain = _same([(lossy.info(), made), (read.info, tunnelled)], tmp_path)
    assert plain.sacks.height > 80
    assert plain.tunnels.height
    known = plain.packets.with_row_index("row").filter(pl.col("tunnel").is_not_null())
    assert plain.tunnels["row"].to_list() == known["row"].to_list()


@pytest.mark.usefixtures("small")
def test_two_captures_are_merged_by_time(tmp_path):
    """Interleaved captures are one table in order of time."""
    made = [
        trace("\n".join(f"{2 * n + at} c>s A seq={n} ack=1" for n in range(20))) for at in (0, 1)
    ]
    captures = [(each.info(), each.decoded(number)) for number, each in enumerate(made)]
    plain = _same(captures, tmp_path)
    assert plain.packets["capture"].head(4).to_list() == [0, 1, 0, 1]


@pytest.mark.usefixtures("small")
def test_captures_behind_one_another(tmp_path):
    """A rotated set is joined file by file; one that fits into memory is among it."""
    made = [trace("\n".join(f"{n + at} c>s A seq={n} ack=1" for n in range(9))) for at in (0, 50)]
    captures = [(each.info(), each.decoded(number)) for number, each in enumerate(made)]
    (info, part), other = captures
    found = vantage.build(0, "v", None, [(info, _kept(part, tmp_path)), other])
    plain = vantage.build(0, "v", None, captures)
    assert_frame_equal(found.packets.lazy().collect(), plain.packets)
