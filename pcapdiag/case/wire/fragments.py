"""Fragmented datagrams along their way: where they were whole, and where a part of them is missing.

A later fragment has no ports, so that filters that go by ports, hashes over ports and firewall
rules without `-f` treat it otherwise than the first one. Stations are the places in a connection's
path where its packets were captured: client, router, director (coming in, going out), realserver.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag.case.sights import with_first
from pcapdiag.cluster.joined.places import place
from pcapdiag.protocols import IcmpType, Icmpv6Type

if TYPE_CHECKING:
    from pcapdiag.case.case import Case
    from pcapdiag.flows.vantage import VantageTables

REASSEMBLY_NS: Final = 30_000_000_000
"""net.ipv4.ipfrag_time: fragments with one IP ID further apart are of two datagrams."""

MARGIN_NS: Final = 1_000_000_000
"""A capture must go on this long after a datagram before a missing fragment means anything: longer
than any queue on the way."""

START_NS: Final = 100_000_000
"""And have begun this long before it: a datagram's fragments are sent back to back, the last one
first by some."""

IS_TIMEOUT: Final = (
    (pl.col("ip_version") == 4)
    & (pl.col("icmp_type") == int(IcmpType.TIME_EXCEEDED))
    & (pl.col("icmp_code") == 1)
) | (
    (pl.col("ip_version") == 6)
    & (pl.col("icmp_type") == int(Icmpv6Type.TIME_EXCEEDED))
    & (pl.col("icmp_code") == 1)
)
"""Fragment reassembly time exceeded (RFC 792, RFC 4443 section 3.3)."""

_RANKS: Final = {"client": 0, "router": 1, "director": 2, "realserver": 4}
"""Stations from the client to the realserver; a director's exit is 3."""

_ENDS: Final = ("src_hi", "src_lo", "dst_hi", "dst_lo")
_TRAIN: Final = ("place", "ip_proto", "ip_id", *_ENDS)

_SIGHTS: Final = {
    "connection": pl.UInt32,
    "sender": pl.String,
    "ip_id": pl.UInt32,
    "episode": pl.UInt32,
    "rank": pl.Int64,
    "vantage": pl.UInt16,
    "place": pl.String,
    "station": pl.String,
    "visibility": pl.String,
    "state": pl.String,
    "row": pl.UInt32,
    "fragments": pl.UInt32,
    "ip_len": pl.Int64,
    "time_ns": pl.Int64,
}


def keeps_fragments(vantage: VantageTables) -> str:
    """Return "seen", "likely" or "unknown": whether a vantage's captures keep later fragments.

    Seen: there is one. Likely: the filter names no port or protocol, or nothing looks like a
    filter: there is ARP, and there are packets for several ports.
    """
    if vantage.packets.lazy().select((pl.col("frag_offset") > 0).any()).collect().item():
        return "seen"
    filters = {
        text
        for info in vantage.captures
        for interface in info.interfaces
        if (text := (interface.filter or "").strip().lower())
    }
    if filters:
        narrow = re.compile(r"\b(port|portrange|tcp|udp|sctp)\b")
        return "unknown" if any(narrow.search(text) for text in filters) else "likely"
    ports = vantage.flows.select("ip_proto", "resp_port").unique()
    several = ports.height > 2 and ports["ip_proto"].n_unique() > 1
    return "likely" if several and vantage.arp.height else "unknown"


def trains(case: Case, vantage: VantageTables) -> pl.DataFrame:
    """Return one row per fragmented datagram and place at a vantage.

    Columns: vantage, place (in | out | at), ip_proto, ip_id, src_*, dst_*, episode (a number
    for each), flow (of the first fragment; null: it is missing), row (of
    the first fragment that was seen), fragments, ip_len (of the whole datagram, as far as known),
    has_first, whole, time_ns (common clock).
    """
    data = pl.col("ip_len").cast(pl.Int64) - pl.col("ip_header_len")
    end = pl.col("frag_offset").cast(pl.Int64) + data
    parts = (
        vantage.packets.lazy()
        .with_row_index("row")
        .filter(pl.col("mf") | (pl.col("frag_offset") > 0), pl.col("ip_id").is_not_null())
        .select(
            "row",
            "flow",
            "mf",
            "frag_offset",
            data.alias("bytes"),
            end.alias("end"),
            pl.col("ip_header_len").cast(pl.Int64),
            place(case.topology, vantage.index).cast(pl.String).alias("place"),
            case.clocks.common_time(vantage.index).alias("time_ns"),
            "ip_proto",
            "ip_id",
            *_ENDS,
        )
        .sort(*_TRAIN, "time_ns", "row", nulls_last=True)
    )
    another = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift(1)) for name in _TRAIN)
    later = pl.col("time_ns") - pl.col("time_ns").shift(1) > REASSEMBLY_NS
    parts = parts.with_columns(
        (another | later.fill_null(value=False)).cum_sum().cast(pl.UInt32).alias("episode")
    )
    first, last = pl.col("frag_offset") == 0, ~pl.col("mf")
    total = pl.col("end").filter(last).max()
    return (
        parts.sort("row")
        .unique(["episode", "frag_offset", "bytes"], keep="first", maintain_order=True)
        .sort("frag_offset", maintain_order=True)
        .group_by("episode", maintain_order=True)
        .agg(
            *(pl.col(name).first() for name in _TRAIN),
            pl.col("flow").filter(first).drop_nulls().first(),
            pl.col("row").first(),
            pl.len().alias("fragments"),
            (pl.col("end").max() + pl.col("ip_header_len").max()).alias("ip_len"),
            first.any().alias("has_first"),
            (first.any() & last.any() & (pl.col("bytes").sum() >= total))
            .fill_null(value=False)
            .alias("whole"),
            pl.col("time_ns").min(),
        )
        .with_columns(pl.lit(vantage.index, dtype=pl.UInt16).alias("vantage"))
        .sort("time_ns", "row")
        .collect()
    )


def sights(case: Case) -> pl.DataFrame:
    """Return each fragmented datagram of a known connection at each station it had to pass.

    Columns: connection, sender (client | realserver), ip_id, episode, rank (in the direction of
    travel, the first station 0), vantage, place, station (name), visibility (keeps_fragments),
    state (whole; incomplete: a part of it; none: nothing of it, though other packets of its sender
    pass there), row (of what there is; null), fragments (how many there are; null), ip_len,
    time_ns.
    """
    parts = [
        trains(case, vantage)
        for vantage in case.vantages
        if vantage.packets.lazy()
        .select((pl.col("mf") | (pl.col("frag_offset") > 0)).any())
        .collect()
        .item()
    ]
    if not parts:
        return pl.DataFrame(schema=_SIGHTS)
    known = pl.concat(parts)
    datagrams = _datagrams(case, known)
    expected = datagrams.join(_stations(case, datagrams), on=["connection", "sender"])
    expected = expected.filter(
        case.coverage.capturing(expected, "time_ns", before_ns=START_NS, after_ns=MARGIN_NS)
    )
    there = _at_stations(known).rename({"time_ns": "seen_ns"}).sort("seen_ns")
    passing, unfragmented = _other_packets(case, expected)
    at = ["vantage", "place", "connection", "sender"]
    state = (
        pl.when(pl.col("whole") | pl.col("whole_row").is_not_null())
        .then(pl.lit("whole"))
        .when(pl.col("row").is_not_null())
        .then(pl.lit("incomplete"))
        .when("passing")
        .then(pl.lit("none"))
    )
    return (
        expected.sort("time_ns")
        .join_asof(
            there,
            left_on="time_ns",
            right_on="seen_ns",
            by=["vantage", *_TRAIN],
            strategy="nearest",
            tolerance=REASSEMBLY_NS,
            check_sortedness=False,
        )
        .join(unfragmented, on=[*at, "ip_id"], how="left")
        .join(passing, on=at, how="left")
        .select(
            *("connection", "sender", "ip_id", "episode", "rank"),
            *("vantage", "place", "station", "visibility"),
            state.alias("state"),
            pl.coalesce("row", "whole_row").alias("row"),
            *("fragments", "ip_len", "time_ns"),
        )
        .filter(pl.col("state").is_not_null())
        .sort("time_ns", "connection", "ip_id", "rank")
    )


def timeouts(case: Case) -> pl.DataFrame:
    """Return the ICMP errors in which a receiver says that fragments did not all come.

    Columns: those of ERROR_MESSAGES, service_name, vantage and row of the first sight.
    """
    messages = case.errors.messages.filter(IS_TIMEOUT, pl.col("connection").is_not_null())
    first = with_first(case, messages).select(
        "message", pl.col("seen_vantage").alias("vantage"), pl.col("seen_row").alias("row")
    )
    names = case.members.select("connection", "service_name", "realserver_name")
    return messages.join(first, on="message", maintain_order="left").join(
        names, on="connection", how="left", maintain_order="left"
    )


def _datagrams(case: Case, found: pl.DataFrame) -> pl.DataFrame:
    """Return the datagrams that a first fragment somewhere ties to a connection, each once.

    Columns: connection, sender, ip_id, episode, ip_proto, ip_len, time_ns.
    """
    clients = case.members.select("connection", "client_hi", "client_lo")
    legs = case.connections.legs.select("vantage", "flow", "connection")
    by_client = (pl.col("src_hi") == pl.col("client_hi")) & (
        pl.col("src_lo") == pl.col("client_lo")
    )
    named = (
        found.filter(pl.col("flow").is_not_null())
        .join(legs, on=["vantage", "flow"])
        .join(clients, on="connection")
        .with_columns(
            pl.when(by_client)
            .then(pl.lit("client"))
            .otherwise(pl.lit("realserver"))
            .alias("sender")
        )
        .sort("connection", "sender", "ip_id", "time_ns")
    )
    keys = ("connection", "sender", "ip_id")
    another = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift(1)) for name in keys)
    later = pl.col("time_ns") - pl.col("time_ns").shift(1) > REASSEMBLY_NS
    return (
        named.with_columns(
            (another | later.fill_null(value=False)).cum_sum().cast(pl.UInt32).alias("episode")
        )
        .group_by(*keys, "episode")
        .agg(pl.col("time_ns").min(), pl.col("ip_len").max(), pl.col("ip_proto").first())
    )


def _at_stations(found: pl.DataFrame) -> pl.DataFrame:
    """Return the trains with their place, and again as `any` for stations that have no place."""
    kept = found.select("vantage", *_TRAIN, "time_ns", "row", "whole", "fragments")
    return (
        pl.concat([kept, kept.with_columns(pl.lit("any").alias("place"))])
        .sort(~pl.col("whole"), "time_ns", "row")
        .unique(["vantage", *_TRAIN, "time_ns"], keep="first", maintain_order=True)
    )


def _stations(case: Case, datagrams: pl.DataFrame) -> pl.DataFrame:
    """Return where the connections of `datagrams` were captured, in each direction of travel.

    Columns: connection, sender, vantage, place (in | out at a director, else any), rank, station,
    visibility, and the addresses that a packet of this sender has there.
    """
    names = ("client_hi", "client_lo", "vip_hi", "vip_lo", "realserver_hi", "realserver_lo")
    legs = (
        case.connections.legs.join(datagrams, on="connection", how="semi")
        .select("connection", "vantage", "kind")
        .unique()
        .join(case.members.select("connection", "method", *names), on="connection")
        .join(_places(case), on="vantage")
    )
    director, back = pl.col("rank").is_in([2, 3]), pl.col("kind") == "back"
    leaving = pl.col("rank") == 3
    nat = (pl.col("method") == "nat").fill_null(value=False)
    client = [pl.col(f"client_{half}") for half in ("hi", "lo")]
    server = [
        pl.when(back).then(f"realserver_{half}").otherwise(f"vip_{half}") for half in ("hi", "lo")
    ]

    def between(sender: str, source: list[pl.Expr], target: list[pl.Expr]) -> list[pl.Expr]:
        ends = [end.alias(name) for name, end in zip(_ENDS, (*source, *target), strict=True)]
        return [pl.lit(sender).alias("sender"), *ends]

    forth = legs.filter(~director | ~nat | (leaving == back)).with_columns(
        between("client", client, server)
    )
    # What a realserver sends in DR and TUN does not pass the director.
    home = legs.filter(~director | (nat & (leaving != back))).with_columns(
        *between("realserver", server, client),
        (4 - pl.when(director).then(5 - pl.col("rank")).otherwise("rank")).alias("rank"),
    )
    return pl.concat([forth, home]).drop("kind", "method", *names)


def _places(case: Case) -> pl.DataFrame:
    """Return the stations of all vantages, ranked from the client to the realserver."""
    rows = []
    for vantage in case.vantages:
        role = case.role(vantage.index)
        if role not in _RANKS:
            continue
        kept = keeps_fragments(vantage)
        if role == "director" and case.topology.vantage_macs[vantage.index]:
            rows += [
                (vantage.index, "in", 2, f"{vantage.name} (coming in)", kept),
                (vantage.index, "out", 3, f"{vantage.name} (going out)", kept),
            ]
        else:
            rows.append((vantage.index, "any", _RANKS[role], vantage.name, kept))
    return pl.DataFrame(
        rows,
        schema={
            "vantage": pl.UInt16,
            "place": pl.String,
            "rank": pl.Int64,
            "station": pl.String,
            "visibility": pl.String,
        },
        orient="row",
    )


def _other_packets(case: Case, expected: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return at which stations packets pass, and which datagrams passed them in one piece.

    Both by vantage, place, connection and sender; the first has `passing` (true), the second ip_id
    and whole_row. Defragmenting hosts (conntrack, ip_vs) may hand on one large packet; a tunnel
    wraps it.
    """
    at = {
        "vantage": pl.UInt16,
        "place": pl.String,
        "connection": pl.UInt32,
        "sender": pl.String,
    }
    parts = [pl.DataFrame(schema={**at, "ip_id": pl.UInt32, "row": pl.UInt32, "mf": pl.Boolean})]
    senders = expected.select("vantage", "connection", "sender", "src_hi", "src_lo").unique()
    for vantage in case.vantages:
        here = senders.filter(pl.col("vantage") == vantage.index)
        if here.is_empty():
            continue
        legs = case.connections.legs.filter(pl.col("vantage") == vantage.index)
        seen = (
            vantage.packets.lazy()
            .with_row_index("row")
            .filter(pl.col("flow").is_not_null())
            .with_columns(place(case.topology, vantage.index).cast(pl.String).alias("place"))
            .select("row", "flow", "ip_id", "mf", "src_hi", "src_lo", "place")
            .join(legs.lazy().select("flow", "connection").unique(), on="flow")
            .join(here.lazy(), on=["connection", "src_hi", "src_lo"])
            .select(parts[0].columns)
            .collect()
        )
        parts += [seen, seen.with_columns(pl.lit("any").alias("place"))]
    packets = pl.concat(parts)
    passing = packets.select(list(at)).unique().with_columns(pl.lit(value=True).alias("passing"))
    whole = packets.filter(~pl.col("mf")).group_by(*at, "ip_id")
    return passing, whole.agg(pl.col("row").min().alias("whole_row"))
