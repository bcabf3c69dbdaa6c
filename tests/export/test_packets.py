"""The exported table has one row a frame, in text that other programs read."""

from __future__ import annotations

import csv
import json
import subprocess

import polars as pl
import pytest
from traces import trace

from pcapdiag import schema, spool
from pcapdiag.export import packets

TRACE = trace("""
0.000 c>s S seq=0 mss=1460 ws=7 sackok
0.001 s>c SA seq=0 ack=1 mss=1400
0.002 c>s A seq=1 ack=1 sack=10-20,30-40
0.003 c>s PA seq=1 ack=1 len=100 tun=ipip:d>rs
0.004 r>s icmp 3/4 mtu=1300 quote=2
0.005 c6>s6 udp len=3
-     c>s A seq=1 ack=1
""")


def test_one_row_a_frame_with_side_tables_joined():
    """Tunnels, SACK blocks and quotes stand beside the frame they are in."""
    table = packets.join(TRACE.decoded())
    assert table["frame"].to_list() == [1, 2, 3, 4, 5, 6, 7]
    assert table["src"].to_list()[:2] == ["198.51.100.20", "203.0.113.10"]
    assert table["src"][5] == "2001:db8::20"
    assert table["tcp_sack_left"][2] == "1010,1030"
    assert table["tcp_sack_right"][2] == "1020,1040"
    assert table["outer_dst"][3] == "203.0.113.11"
    assert table["tunnel"].to_list()[2:5] == [None, "ipip", None]
    assert table["quoted_src"][4] == "203.0.113.10"
    assert table["next_hop_mtu"][4] == 1300
    assert table["eth_src"][0].count(":") == 5


def test_no_column_of_packets_is_lost():
    """Every column of the schema's packets table is there, an address as one column."""
    columns = set(packets.join(TRACE.decoded()).columns)
    wanted = {name.removesuffix("_hi").removesuffix("_lo") for name in schema.dtypes("packets")} | {
        name.removesuffix("_hi").removesuffix("_lo") for name in schema.dtypes("icmp")
    } - {"row"}
    assert wanted <= columns


def test_an_empty_capture_exports_its_header():
    """No frame is no error, and both forms have the same columns."""
    empty = trace("").decoded()
    assert packets.join(empty).columns == packets.join(TRACE.decoded()).columns


def test_both_forms_hold_the_same(tmp_path):
    """What is written as Parquet is read back unchanged; CSV has a header and as many lines."""
    decoded = TRACE.decoded()
    with (tmp_path / "p.csv").open("wb") as file, spool.WorkDirectory() as work:
        frames = packets.through_csv(packets.joined([decoded]), file.write)
        packets.write_parquet(frames, str(tmp_path / "p.parquet"), work)
    assert pl.read_parquet(tmp_path / "p.parquet").equals(packets.join(decoded))
    with (tmp_path / "p.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["frame"] for row in rows] == ["1", "2", "3", "4", "5", "6", "7"]
    assert rows[6]["time_ns"] == ""


@pytest.mark.needs("tshark")
def test_tshark_reads_the_same_addresses_and_ports(tmp_path):
    """An independent reader agrees on who spoke to whom."""
    written = trace("""
0.000 c>s S seq=0 mss=1460
0.001 s>c SA seq=0 ack=1
0.002 c6>s6 udp len=3
""")
    capture = written.write(tmp_path / "t.pcap")
    fields = ["ip.src", "ipv6.src", "tcp.srcport", "udp.srcport"]
    said = subprocess.run(
        ["tshark", "-r", capture, "-T", "json", *(w for f in fields for w in ("-e", f))],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    theirs = [
        [value[0] for value in frame["_source"]["layers"].values()] for frame in json.loads(said)
    ]
    ours = packets.join(written.decoded()).select("src", pl.col("src_port").cast(pl.String))
    assert [list(row) for row in ours.iter_rows()] == theirs
