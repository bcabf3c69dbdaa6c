"""Requests that clients repeat in vain: how far they came, and which realserver they were for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag import spool
from pcapdiag.protocols import IpProto, TcpFlag

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcapdiag.case.case import Case

TIMEOUTS: Final = 2
"""Timeouts that a sender must have had: three transmissions, so that two losses in a row, which any
network has, are not enough."""

_SYN: Final = int(TcpFlag.SYN)

_GROUP_BIT: Final = 1 << 40
"""Of a MAC as a number: set in group addresses (IEEE 802), the lowest bit of the first octet."""

TAIL: Final = {
    "connection": pl.UInt32,
    "vantage": pl.UInt16,
    "flow": pl.UInt32,
    "first_row": pl.UInt32,
    "last_row": pl.UInt32,
    "repeats": pl.UInt32,
    "tail_ip_len": pl.UInt32,
    "opening": pl.Boolean,
    "passed": pl.UInt32,
    "passed_before": pl.Boolean,
    "answers_after": pl.UInt32,
    "delivered": pl.Boolean,
    "first_ns": pl.Int64,
    "last_ns": pl.Int64,
}


def tails(case: Case) -> pl.DataFrame:
    """Return one row per connection and vantage at which a client's last request was repeated.

    Columns: connection, vantage, flow; first_row, last_row, repeats of the packets that carry the
    client's last request, which begins at one sequence number (a SYN, or data), tail_ip_len (the
    smallest IP length it was tried with, bytes), opening (it is a SYN); passed (how many of them
    were seen to leave a host again here), passed_before (an earlier packet was); answers_after (the
    server's packets of this flow since the first of them); delivered (their frames were for this
    host, as far as its MACs are known); first_ns, last_ns (common clock).
    """
    parts = [_at(case, vantage.index) for vantage in case.vantages]
    return pl.concat([pl.DataFrame(schema=TAIL), *parts])


def _at(case: Case, index: int) -> pl.DataFrame:
    tables = case.vantages[index]
    flows = (
        tables.flows.lazy()
        .filter(
            pl.col("ip_proto") == int(IpProto.TCP),
            (pl.col("orig_timeouts") >= TIMEOUTS) | (pl.col("resp_timeouts") >= TIMEOUTS),
        )
        .join(case.connections.legs.lazy().filter(pl.col("vantage") == index), on="flow")
        .filter(pl.when("client_is_orig").then(_repeats("orig")).otherwise(_repeats("resp")))
        .select(case.connections.legs.columns)
        .collect()
    )
    if flows.is_empty():
        return pl.DataFrame(schema=TAIL)
    by_client = pl.col("by_orig") == pl.col("client_is_orig")
    packets = (
        tables.packets_of(flows["flow"], row=True)
        .filter(pl.col("copy_of").is_null())
        .select(
            *("row", "flow", "by_orig", "time_ns", "tcp_flags", "tcp_seq", "payload_len"),
            *("ip_len", "ip_id", "eth_dst"),
        )
        .join(flows.lazy(), on="flow")
        .with_columns(
            by_client.alias("by_client"), ((pl.col("tcp_flags") & _SYN) != 0).alias("syn")
        )
        .collect()
    )
    packets = packets.join(_passed(case, index, packets), on="row", how="left")
    asking = packets.filter("by_client", (pl.col("payload_len") > 0) | pl.col("syn")).sort("row")
    last = asking.group_by("flow", maintain_order=True).agg(pl.col("tcp_seq").last().alias("tail"))
    asking = asking.join(last, on="flow", maintain_order="left")
    mine = pl.col("tcp_seq") == pl.col("tail")
    ours = pl.col("eth_dst").is_null() | pl.col("eth_dst").is_in(_own_macs(case, index))
    found = (
        asking.group_by("flow", maintain_order=True)
        .agg(
            pl.col("connection").first(),
            pl.col("row").filter(mine).first().alias("first_row"),
            pl.col("row").filter(mine).last().alias("last_row"),
            mine.sum().alias("repeats"),
            pl.col("ip_len").filter(mine).min().alias("tail_ip_len"),
            pl.col("syn").filter(mine).first().alias("opening"),
            (mine & pl.col("passed")).sum().alias("passed"),
            (~mine & pl.col("passed")).any().alias("passed_before"),
            (mine & ours).any().alias("delivered"),
            pl.col("time_ns").filter(mine).first().alias("first_time"),
            pl.col("time_ns").filter(mine).last().alias("last_time"),
        )
        .filter(pl.col("repeats") > TIMEOUTS)
    )
    answers = (
        packets.filter(~pl.col("by_client"))
        .join(found.select("flow", "first_row"), on="flow")
        .filter(pl.col("row") > pl.col("first_row"))
        .group_by("flow")
        .agg(pl.len().alias("answers_after"))
    )
    return (
        found.join(answers, on="flow", how="left", maintain_order="left")
        .with_columns(
            pl.lit(index).alias("vantage"),
            pl.col("answers_after").fill_null(0),
            case.clocks.common_time(index, "first_time").alias("first_ns"),
            case.clocks.common_time(index, "last_time").alias("last_ns"),
        )
        .select(pl.col(name).cast(dtype) for name, dtype in TAIL.items())
    )


def _repeats(side: str) -> pl.Expr:
    """Return whether a side of a flow sent anything again often enough."""
    return (pl.col(f"{side}_timeouts") >= TIMEOUTS) | (pl.col(f"{side}_retransmitted") >= TIMEOUTS)


def _own_macs(case: Case, index: int) -> list[int]:
    """Return the MACs of the capturing host; where they are not known, those that speak to others.

    A card in promiscuous mode sees frames for others that a switch floods, and their broadcasts,
    not what they say to somebody.
    """
    own = case.topology.vantage_macs[index]
    if own:
        return sorted(own)
    directed = (pl.col("eth_dst").cast(pl.UInt64) // _GROUP_BIT) % 2 == 0
    packets = case.vantages[index].packets.lazy()
    senders = packets.filter(directed).select(pl.col("eth_src").drop_nulls().unique().sort())
    return senders.collect()["eth_src"].to_list()


def _passed(case: Case, index: int, packets: pl.DataFrame) -> pl.DataFrame:
    """Return per row whether the packet was seen to leave: again, or translated on a back leg."""
    key = ["connection", "tcp_seq", "ip_id"]
    translated = packets.filter(pl.col("kind") == "back", "by_client").select(key).unique()
    front = packets.filter(pl.col("kind") == "front", "by_client")
    return (
        pl.concat(
            [
                front.join(translated, on=key, how="semi", nulls_equal=True).select("row"),
                case.vantages[index].passages_of(packets["row"]).select("row"),
            ]
        )
        .unique()
        .with_columns(pl.lit(value=True).alias("passed"))
    )


def frame(case: Case) -> pl.DataFrame:
    """Return one row per connection whose client repeated its last request and got no answer.

    No vantage shows a packet of the server's since, nor an error about the connection that says
    who refused it. Columns: those of tails at the vantage that tells most (a director first);
    visible (that is a director's, and would have shown the packets leave); reached (how often the
    request was seen at a realserver whose MAC it had), reached_vantage, reached_row (the first time
    there); sighted (a vantage of a realserver, client or router, or in
    NAT a director's, shows the connection, and would have shown an answer); service_name, method,
    vip_hi, vip_lo, vip_port, ip_version, realserver_name, realserver_hi, realserver_lo,
    realserver_mac; error_vantage, error_row (host unreachable that the director sent about it).
    """
    every = case.tails
    answered = every.filter(pl.col("answers_after") > 0).select("connection").unique()
    refused = case.unreachables.filter(pl.col("says") != "host").select("connection").unique()
    rows = every.join(answered, on="connection", how="anti").join(
        refused, on="connection", how="anti"
    )
    roles = pl.DataFrame(
        {"vantage": range(len(case.vantages)), "role": [case.role(i.index) for i in case.vantages]},
        schema={"vantage": pl.UInt16, "role": pl.String},
    )
    rows = rows.join(roles, on="vantage", how="left").join(
        case.members.select(
            *("connection", "service", "service_name", "method", "ip_version"),
            *("vip_hi", "vip_lo", "vip_port", "realserver_name"),
            *("realserver_hi", "realserver_lo", "realserver_mac"),
        ),
        on="connection",
    )
    there = (pl.col("role") == "realserver") & pl.col("delivered")
    reached = pl.col("repeats").filter(there).sum().alias("reached")
    sighted = (
        pl.col("role").is_in(["client", "router", "realserver"])
        | ((pl.col("role") == "director") & (pl.col("method") == "nat").fill_null(value=False))
    ).any()
    told = rows.group_by("connection").agg(
        reached,
        sighted.alias("sighted"),
        pl.col("vantage").filter(there).first().alias("reached_vantage"),
        pl.col("first_row").filter(there).first().alias("reached_row"),
    )
    rows = rows.sort("connection", pl.col("role") != "director", "vantage", "flow").unique(
        "connection", keep="first", maintain_order=True
    )
    return (
        rows.with_columns(_egress_visible(case, rows).alias("visible"))
        .join(told, on="connection", maintain_order="left")
        .join(_unreachable(case), on="connection", how="left", maintain_order="left")
        .drop("service", "role")
    )


def _egress_visible(case: Case, rows: pl.DataFrame) -> pl.Series:
    """Return per row whether its vantage is a director's and shows what of its service leaves.

    From the first of the repeated requests to the last, without a gap.
    """
    parts = [pl.DataFrame(schema={"connection": pl.UInt32})]
    for vantage in case.vantages_of("director"):
        here = rows.filter(pl.col("vantage") == vantage.index)
        asked = here.select("connection", "vantage", "service").with_columns(
            spool.at(vantage.packets, here[f"{end}_row"], "time_ns")["time_ns"].alias(end)
            for end in ("first", "last")
        )
        place = ["vantage", "service"]
        met = asked.join(case.coverage.egress_gaps, on=place).filter(
            pl.col("gap_from_ns") < pl.col("last"), pl.col("gap_until_ns") > pl.col("first")
        )
        parts.append(
            asked.join(case.coverage.egress_spans, on=place)
            .filter(pl.col("first") >= pl.col("from_ns"), pl.col("last") <= pl.col("until_ns"))
            .join(met, on="connection", how="anti")
            .select("connection")
        )
    return rows["connection"].is_in(pl.concat(parts)["connection"].implode())


def _unreachable(case: Case) -> pl.DataFrame:
    """Return per connection the first host unreachable that its director sent the client."""
    return (
        case.unreachables.filter(
            pl.col("says") == "host",
            pl.col("emitter") == "director",
            pl.col("quoted_sender") == "client",
        )
        .sort("first_ns", "message", nulls_last=True)
        .unique("connection", keep="first", maintain_order=True)
        .select(
            "connection",
            pl.col("seen_vantage").alias("error_vantage"),
            pl.col("seen_row").alias("error_row"),
        )
    )


def served(case: Case) -> pl.DataFrame:
    """Return the connections that went well so far: service_name, realserver_name, first_ns.

    The server was seen to speak, or the client went on after its SYN, and nothing was repeated in
    vain.
    """
    went_on = [
        vantage.flows.lazy()
        .filter(
            pl.col("ip_proto") == int(IpProto.TCP),
            (pl.col("resp_packets") > 0) & ~pl.col("resp_rst")
            | (pl.col("orig_sent") > 1) & ~pl.col("orig_rst"),
        )
        .join(case.connections.legs.lazy().filter(pl.col("vantage") == vantage.index), on="flow")
        .select("connection")
        for vantage in case.vantages
    ]
    return (
        pl.concat(pl.collect_all(went_on))
        .unique()
        .join(case.unanswered.select("connection"), on="connection", how="anti")
        .join(
            case.members.select(
                "connection", "service_name", "realserver_name", "first_ns", "last_ns"
            ),
            on="connection",
        )
    )


def arrivals(case: Case, vantage: int, rows: Sequence[int]) -> pl.DataFrame:
    """Return how packets arrived at a vantage.

    Columns: row, tunnel (null: none), outer_src_hi, outer_src_lo, sent_back (the same packet was
    seen to leave the host again, in whatever form, other than bare out of its tunnel), decapsulated
    (it was seen bare as well).
    """
    tables = case.vantages[vantage]
    outer = (
        tables.tunnels.lazy()
        .filter(pl.col("row").is_in(rows))
        .select("row", "outer_src_hi", "outer_src_lo")
        .collect()
    )
    came = pl.DataFrame({"row": list(rows)}, schema={"row": pl.UInt32})
    passed = tables.passages_of(came["row"])
    routed = passed.filter(pl.col("kind") == "routed")["row"]
    bare = passed.filter(pl.col("kind") == "decapsulated")["row"]
    return (
        came.with_columns(spool.at(tables.packets, rows, "tunnel")["tunnel"])
        .join(outer.with_columns(pl.col("row").cast(pl.UInt32)), on="row", how="left")
        .with_columns(
            pl.col("row").is_in(routed.implode()).alias("sent_back"),
            pl.col("row").is_in(bare.implode()).alias("decapsulated"),
        )
    )
