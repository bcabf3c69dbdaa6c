"""Measures how long three big captures take to become one cluster, without reading the files.

    python tests/benchmarks/correlate.py                      half a million packets each
    python tests/benchmarks/correlate.py --flows 100000       many short connections from one port
    python tests/benchmarks/correlate.py --method dr --v6 --suspects 1000

A director and two realservers captured the same connections, with clocks seconds apart. Tables are
made as a decoder would make them; printed are the seconds of each step of the cluster floor. On two
cores that others shared: nat 1.3 s, dr 2.7 s; 100,000 connections nat 5.0 s, dr 2.3 s, IPv6 3.0 s.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from pcapdiag import schema
from pcapdiag.addresses import pack_ip, pack_mac
from pcapdiag.capture.frames import CaptureInfo
from pcapdiag.case.case import Case
from pcapdiag.decode.packets import Decoded
from pcapdiag.flows import vantage

if TYPE_CHECKING:
    from pcapdiag.flows.vantage import VantageTables

START_NS: Final = 1_700_000_000_000_000_000
PACKETS: Final = 500_000
HOP_NS: Final = 50_000
REPLIES: Final = 6  # data packets a request
MSS: Final = 1448
ROUTER, DIRECTOR = pack_mac("02:00:00:00:00:01"), pack_mac("02:00:00:00:00:02")
INSIDE = pack_mac("02:00:00:00:00:03")
REALSERVERS: Final = (pack_mac("02:00:00:00:00:11"), pack_mac("02:00:00:00:00:12"))
FIXED: Final = {
    "linktype": 1,
    "ip_proto": 6,
    "df": True,
    "mf": False,
    "frag_offset": 0,
    "tunnel_depth": 0,
    "interface": 0,
    "decode_note": 0,
}
TABLES: Final = ("tunnels", "sacks", "icmp", "arp", "vrrp", "ipvs_sync")
NETS: Final = {
    False: ("203.0.113.10", ("203.0.113.11", "203.0.113.12"), "10.0.0.0"),
    True: ("2001:db8:1::10", ("2001:db8:1::11", "2001:db8:1::12"), "2001:db8:9::"),
}


def script(rounds: int) -> pl.DataFrame:
    """Return what one connection does: by_client, flags, seq, ack, size, at (ns)."""
    rows = [(True, 2, 0, 0, 0), (False, 0x12, 0, 1, 0), (True, 0x10, 1, 1, 0)]
    mine, theirs = 1, 1
    for _ in range(rounds):
        rows.append((True, 0x18, mine, theirs, 200))
        mine += 200
        for _ in range(REPLIES):
            rows.append((False, 0x10, theirs, mine, MSS))
            theirs += MSS
        rows.append((True, 0x10, mine, theirs, 0))
    names = ["by_client", "flags", "seq", "ack", "size"]
    made = pl.DataFrame(rows, schema=names, orient="row")
    return made.with_columns((pl.int_range(pl.len()) * 300_000).alias("at"))


def connections(count: int, rounds: int, v6: bool) -> pl.DataFrame:
    """Return all packets of `count` connections, as client and VIP see them."""
    random = np.random.default_rng(1)
    base = pack_ip(NETS[v6][2])
    alone = pl.DataFrame(
        {
            "number": np.arange(count, dtype=np.uint32),
            "client_lo": np.arange(count, dtype=np.uint64) + np.uint64(base[1] + 1),
            # One load tester's plan: every connection comes from the same port.
            "client_port": np.full(count, 40_000, np.uint16),
            "isn": random.integers(0, 2**32, count),
            "isn_back": random.integers(0, 2**32, count),
            "begin": np.sort(random.integers(0, 60_000_000_000, count)),
        }
    )
    packets = alone.join(script(rounds), how="cross")
    own = pl.when("by_client").then("isn").otherwise("isn_back")
    other = pl.when("by_client").then("isn_back").otherwise("isn")
    return packets.with_columns(
        (START_NS + pl.col("begin") + pl.col("at")).alias("time_ns"),
        ((own + pl.col("seq")) % 2**32).alias("tcp_seq"),
        pl.when(pl.col("flags") == 2)
        .then(0)
        .otherwise((other + pl.col("ack")) % 2**32)
        .alias("tcp_ack"),
        ((pl.int_range(pl.len()) % 65535) + 1).alias("ip_id"),
        (pl.col("number") % 2).alias("server"),
    ).sort("time_ns")


def sights(
    packets: pl.DataFrame,
    *,
    v6: bool,
    back: bool,
    hop: int,
    ttl: int,
    macs: tuple[int | None, int | None],
) -> pl.DataFrame:
    """Return packets as one place saw them, between two MACs (None: the realserver's)."""
    vip, rips, clients = NETS[v6]
    network = pl.lit(pack_ip(clients)[0], pl.UInt64)
    addresses = [pl.lit(pack_ip(text)[1], pl.UInt64) for text in (*rips, vip)]
    servers = pl.lit(pack_ip(vip)[0], pl.UInt64)
    server = pl.when(pl.col("server") == 0).then(addresses[0]).otherwise(addresses[1])
    client = {"hi": network, "lo": pl.col("client_lo"), "port": pl.col("client_port")}
    service = {
        "hi": servers,
        "lo": server if back else addresses[2],
        "port": pl.lit(8080 if back else 80, pl.UInt16),
    }
    one, two = (pl.lit(mac, pl.UInt64) for mac in REALSERVERS)
    own = pl.when(pl.col("server") == 0).then(one).otherwise(two)
    asking = pl.col("by_client")
    return packets.select(
        pl.col("time_ns") + hop * HOP_NS,
        *(
            pl.when(asking).then(client[part]).otherwise(service[part]).alias(f"src_{part}")
            for part in client
        ),
        *(
            pl.when(asking).then(service[part]).otherwise(client[part]).alias(f"dst_{part}")
            for part in client
        ),
        *(
            (own if mac is None else pl.lit(mac, pl.UInt64)).alias(name)
            for mac, name in zip(macs, ("eth_src", "eth_dst"), strict=True)
        ),
        "tcp_seq",
        "tcp_ack",
        pl.when(not v6).then("ip_id").alias("ip_id"),
        pl.col("size").alias("payload_len"),
        (pl.col("size") + (72 if v6 else 52)).alias("ip_len"),
        pl.col("flags").alias("tcp_flags"),
        (pl.col("time_ns") // 1_000_000 % 2**32).alias("tcp_tsval"),
        pl.lit(ttl).alias("ttl"),
        *(pl.lit(value).alias(name) for name, value in FIXED.items()),
        pl.lit(6 if v6 else 4).alias("ip_version"),
        pl.lit(40 if v6 else 20).alias("ip_header_len"),
    )


def vantages(method: str, packets: pl.DataFrame, *, v6: bool) -> tuple[VantageTables, ...]:
    """Return what the director and the two realservers captured, half of it each."""
    nat = method == "nat"
    asked, told = packets.filter("by_client"), packets.filter(~pl.col("by_client"))
    side, beyond = (INSIDE, INSIDE) if nat else (DIRECTOR, ROUTER)
    at_director = [
        sights(asked, v6=v6, back=False, hop=0, ttl=62, macs=(ROUTER, DIRECTOR)),
        sights(asked, v6=v6, back=nat, hop=1, ttl=61, macs=(side, None)),
    ]
    if nat:
        at_director += [
            sights(told, v6=v6, back=True, hop=0, ttl=64, macs=(None, INSIDE)),
            sights(told, v6=v6, back=False, hop=1, ttl=63, macs=(DIRECTOR, ROUTER)),
        ]
    made = [_tables(0, "director", at_director)]
    for number in range(2):
        mine = [part.filter(pl.col("server") == number) for part in (asked, told)]
        seen = [
            sights(mine[0], v6=v6, back=nat, hop=2, ttl=61, macs=(side, None)),
            sights(mine[1], v6=v6, back=nat, hop=-1, ttl=64, macs=(None, beyond)),
        ]
        made.append(_tables(number + 1, f"rs{number + 1}", seen))
    return tuple(made)


def _tables(index: int, name: str, parts: list[pl.DataFrame]) -> VantageTables:
    """Return the tables of one vantage, its clock `index` times five seconds ahead."""
    rows = (
        pl.concat(parts)
        .sort("time_ns")
        .head(PACKETS)
        .with_columns(
            pl.col("time_ns") + index * 5_000_000_000,
            pl.lit(index).alias("capture"),
            (pl.int_range(pl.len()) + 1).alias("frame"),
        )
    )
    tables = {item: schema.empty(item) for item in TABLES}
    info = CaptureInfo(
        path=f"{name}.pcap",
        format="pcap",
        packets=len(rows),
        link_types=(1,),
        first_ns=rows.item(0, "time_ns"),
        last_ns=rows.item(-1, "time_ns"),
        snaplen=96,
        dropped=0,
        cut_short=False,
        notes=(),
        interfaces=(),
        size=None,
        mtime_ns=None,
    )
    decoded = Decoded(packets=schema.conform(rows, "packets"), **tables)
    role = "director" if index == 0 else "realserver"
    return vantage.build(index, name, role, [(info, decoded)])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--method", choices=["nat", "dr"], action="append")
    parser.add_argument("--flows", type=int, default=4_000)
    parser.add_argument("--suspects", type=int, default=100)
    parser.add_argument("--v6", action="store_true")
    given = parser.parse_args()
    for method in given.method or ["nat", "dr"]:
        rounds = max(1, round(PACKETS * 2 / given.flows / (REPLIES + 2)))
        made = vantages(method, connections(given.flows, rounds, given.v6), v6=given.v6)
        sizes = ", ".join(f"{item.name} {len(item.packets):,}" for item in made)
        print(f"{method}: {sizes} packets, {given.flows:,} connections")
        measure(Case(made), given.suspects)


def measure(case: Case, suspects: int) -> None:
    """Print the seconds of each step, and what came out."""
    total = 0.0
    steps = {
        "topology": lambda: case.topology,
        "clocks": lambda: case.clocks,
        "connections": lambda: case.connections,
        "errors": lambda: case.errors,
        "contract": lambda: case.contract,
        "losses": lambda: [case.coverage.loss(item.index) for item in case.vantages],
    }
    for name, step in steps.items():
        begin = time.perf_counter()
        step()
        taken = time.perf_counter() - begin
        total += taken
        print(f"  {name:12} {taken:6.2f} s")
    print(f"  {'in all':12} {total:6.2f} s")
    table = case.connections.connections
    known = pl.any_horizontal(pl.col("realserver_lo", "realserver_mac").is_not_null())
    named = len(table.filter(known))
    print(f"  {len(table):,} connections, {named:,} with their realserver")
    begin = time.perf_counter()
    judged = case.packet_contract(range(min(suspects, len(table))))
    taken = time.perf_counter() - begin
    print(f"  {suspects} suspects, {len(judged):,} packets judged in {taken:.2f} s")
    print(f"  {case.clocks.reasons}")


if __name__ == "__main__":
    main()
