"""The tables flows and packets_in_flows as a whole."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from traces import START_NS, trace

from pcapdiag import schema
from pcapdiag.flows import flows
from pcapdiag.schema import dtypes


def test_columns_are_those_of_the_dictionary() -> None:
    """Both tables have the names, order and dtypes of schema.py."""
    tables = trace("0 c>s S seq=0\n1 c>s udp len=1\n2 r>c icmp 11/0 quote=1").tables()
    assert dict(tables.flows.schema) == dict(dtypes("flows"))
    wanted = {**dtypes("packets"), **dtypes("packets_in_flows")}
    assert dict(tables.packets.schema) == wanted


def test_no_packets() -> None:
    """A capture without packets makes empty tables."""
    tables = trace("").tables()
    assert len(tables.flows) == len(tables.packets) == len(tables.icmp_errors) == 0
    assert dict(tables.flows.schema) == dict(dtypes("flows"))


def test_no_five_tuples() -> None:
    """A capture of ICMP alone has no flows."""
    tables = trace("0 c>s icmp 8/0\n1 s>c icmp 0/0").tables()
    assert len(tables.flows) == 0
    assert tables.packets.get_column("flow").to_list() == [None, None]


def test_sides_of_packets() -> None:
    """Packets say whether the originator sent them, copies included."""
    tables = trace(
        "0 c>s S seq=0 ttl=9\n0.001 copy 1 ttl=8\n1 s>c SA seq=0 ack=1\n2 r>c icmp 11/0 quote=1"
    ).tables()
    assert tables.packets.get_column("by_orig").to_list() == [True, True, False, None]
    assert tables.packets.get_column("flow").to_list() == [0, 0, 0, None]


def test_longest_pause() -> None:
    """The longest gap of both sides together, and when it ended."""
    row = trace("0 c>s udp len=1\n3 s>c udp len=1\n903 c>s udp len=1\n905 s>c udp len=1").tables()
    flow = row.flows.row(0, named=True)
    assert flow["idle_ns"] == 900 * 10**9
    assert flow["idle_end_ns"] == START_NS + 903 * 10**9


def test_single_packets_have_no_pause() -> None:
    """One packet has no gap."""
    flow = trace("0 c>s udp len=1").tables().flows.row(0, named=True)
    assert flow["idle_ns"] is None
    assert flow["idle_end_ns"] is None


@pytest.mark.parametrize(
    ("text", "who"),
    [
        ("0 c>s FA seq=1 ack=1\n1 s>c RA seq=1 ack=2", "orig-fin"),
        ("0 c>s A seq=1 ack=1\n1 s>c FA seq=1 ack=1\n2 c>s FA seq=1 ack=2", "resp-fin"),
        ("0 c>s R seq=1\n1 s>c FA seq=1 ack=1", "orig-rst"),
        ("0 c>s A seq=1 ack=1\n1 s>c R seq=1", "resp-rst"),
        ("0 c>s A seq=1 ack=1", None),
    ],
)
def test_who_closed(text: str, who: str | None) -> None:
    """The first FIN or RST decides."""
    assert trace(text).tables().flows.row(0, named=True)["closed_by"] == who


def test_most_common_ttl_and_first_macs() -> None:
    """TTL is the most common one, MACs are the first packet's."""
    flow = (
        trace("0 c>s udp ttl=60 mac=c>d\n1 c>s udp ttl=57 mac=x>d\n2 c>s udp ttl=57 mac=x>d")
        .tables()
        .flows.row(0, named=True)
    )
    assert flow["orig_ttl"] == 57
    assert flow["resp_ttl"] is None
    sent = trace("0 c>s udp mac=c>d").packets[0].columns
    assert (flow["orig_eth_src"], flow["orig_eth_dst"]) == (sent["eth_src"], sent["eth_dst"])


def test_dont_fragment() -> None:
    """DF is said of data packets, all of them, and unknown where there are none."""
    flow = trace("0 c>s udp len=9\n1 c>s udp len=9 df=0\n2 s>c udp len=0").tables().flows
    assert flow.item(0, "orig_df") is False
    assert flow.item(0, "resp_df") is None


def test_ipv6() -> None:
    """IPv6 flows carry their version and addresses."""
    flow = trace("0 c6>s6 S seq=0 mss=1440").tables().flows.row(0, named=True)
    assert (flow["ip_version"], flow["orig_hi"], flow["orig_mss"]) == (6, 0x20010DB8 << 32, 1440)
    assert flow["orig_df"] is None


def test_syn_flood() -> None:
    """Many one-packet flows: as many rows, one packet each."""
    packets = trace("0 c>s S seq=0").decoded().packets
    count = 50_000
    many = pl.concat([packets] * count).with_columns(
        src_lo=pl.lit(0xFFFF_0000_0000, dtype=pl.UInt64) + pl.int_range(count, dtype=pl.UInt64),
        ip_id=pl.int_range(count, dtype=pl.UInt32),
        tcp_seq=pl.int_range(count, dtype=pl.UInt32) * 7919,
    )
    made = flows.build(many, schema.empty("sacks"), schema.empty("icmp"))
    assert len(made.flows) == count
    assert made.flows.get_column("orig_packets").to_list() == [1] * count
    assert made.flows.get_column("orig_lo").to_list() == many.get_column("src_lo").to_list()
    assert made.in_flows.get_column("flow").to_list() == list(range(count))


def test_any_numbers_end_in_tables() -> None:
    """Packets of random numbers never raise."""
    random = np.random.default_rng(7)
    packets = trace("0 c>s A seq=0 ack=0 len=1").decoded().packets
    count = 3000
    sacks = pl.DataFrame(
        {
            "row": random.integers(0, count, 2000),
            "block": np.zeros(2000),
            "left": random.integers(0, 2**32, 2000),
            "right": random.integers(0, 2**32, 2000),
        }
    )
    columns = {
        name: pl.Series(random.integers(0, top, count, dtype=np.uint64))
        for name, top in {
            "src_port": 3,
            "dst_port": 3,
            "tcp_seq": 2**32,
            "tcp_ack": 2**32,
            "tcp_flags": 64,
            "tcp_window": 2,
            "payload_len": 2**32,
            "ip_len": 2**32,
            "ip_id": 5,
            "ttl": 256,
            "time_ns": 2**40,
            "tcp_mss": 2**16,
            "ip_proto": 256,
        }.items()
    }
    columns["ip_proto"] = pl.Series(random.choice([6, 17], count))
    missing = pl.Series(random.random(count) < 0.1)
    many = pl.concat([packets] * count).with_columns(
        pl.when(missing).then(None).otherwise(column.cast(dtypes("packets")[name])).alias(name)
        for name, column in columns.items()
    )
    made = flows.build(many, schema.conform(sacks, "sacks"), schema.empty("icmp"))
    ports = many.select(pl.col("src_port").is_not_null() & pl.col("dst_port").is_not_null())
    assert (
        made.in_flows.get_column("flow").is_not_null().equals(ports.to_series(), check_names=False)
    )
    counted = made.flows.select(
        pl.sum_horizontal("orig_packets", "resp_packets", "copies").sum()
    ).item()
    assert counted == ports.to_series().sum()
