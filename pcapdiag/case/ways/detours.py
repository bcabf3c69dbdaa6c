"""Answers of NAT realservers that reach the client, or leave for it, under their own address."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag.protocols import IpProto, TcpFlag

if TYPE_CHECKING:
    from pcapdiag.case.case import Case

_SYN, _ACK, _RST = (int(flag) for flag in (TcpFlag.SYN, TcpFlag.ACK, TcpFlag.RST))

_SHAPE: Final = {
    "connection": pl.UInt32,
    "way": pl.String,
    "vantage": pl.UInt16,
    "row": pl.UInt32,
    "time_ns": pl.Int64,
    "packets": pl.UInt32,
    "opening": pl.Boolean,
    "payload": pl.UInt64,
    "src_hi": pl.UInt64,
    "src_lo": pl.UInt64,
    "eth_dst": pl.UInt64,
    "client_resets": pl.UInt32,
}


def frame(case: Case) -> pl.DataFrame:
    """Return one row per connection, way and vantage of answers that nobody gave the VIP.

    Columns: connection; way (outside: they were seen at a client or a router; gateway: the
    realserver sent them to the MAC of a router or client; untranslated: a director passed them on
    as they were); vantage, row and time_ns of the first (vantage's clock), packets (how many),
    opening (it is the SYN-ACK), payload (bytes of all), src_hi, src_lo (the realserver's address),
    eth_dst (the MAC they went to), client_resets (what the client said to them); service_name,
    realserver_name, method, first_ns (common clock). A client that itself speaks to the
    realserver's address gets its answers rightly and is left out.
    """
    translated = (case.connections.connections["method"] == "nat").any()
    parts = []
    for vantage in case.vantages:
        role = case.role(vantage.index)
        if role in ("client", "router"):
            if translated:
                parts.append(_outside(case, vantage.index))
            parts.append(_matched(case, vantage.index))
        elif translated and role == "realserver":
            parts.append(_to_gateway(case, vantage.index))
        elif translated and role == "director":
            parts.append(_untranslated(case, vantage.index))
    found = pl.concat([pl.DataFrame(schema=_SHAPE), *parts]).unique(
        ["connection", "way", "vantage"], keep="first", maintain_order=True
    )
    named = case.members.select("connection", "service_name", "realserver_name", "method")
    return case.with_times(found.join(named, on="connection"), "first_ns").sort(
        "connection", "way", "vantage"
    )


def _answers(case: Case, index: int) -> pl.LazyFrame:
    """Return the packets on back legs at a vantage, with by_client and the client's own words.

    `spoke`: the client sent more than resets there, so that it means the realserver's address.
    """
    legs = (
        case.connections.legs.lazy()
        .filter(pl.col("vantage") == index, pl.col("kind") == "back")
        .join(
            case.connections.connections.lazy().filter(pl.col("method") == "nat"),
            on="connection",
            how="semi",
        )
        .select("flow", "connection", "client_is_orig")
    )
    reset = (pl.col("tcp_flags") & _RST) != 0
    return (
        case.vantages[index]
        .packets.lazy()
        .with_row_index("row")
        .filter(pl.col("flow").is_not_null())
        .join(legs, on="flow")
        .with_columns((pl.col("by_orig") == pl.col("client_is_orig")).alias("by_client"))
        .with_columns(
            (pl.col("by_client") & ~reset.fill_null(value=False)).any().over("flow").alias("spoke"),
            (pl.col("by_client") & reset & pl.col("copy_of").is_null())
            .sum()
            .over("flow")
            .alias("resets"),
        )
    )


def _first(packets: pl.LazyFrame, index: int, way: str) -> pl.DataFrame:
    """Return the first of a connection's packets with the counts of all."""
    handshake = _SYN | _ACK
    return (
        packets.sort("row")
        .group_by("connection", maintain_order=True)
        .agg(
            pl.lit(way).first().alias("way"),
            pl.lit(index).first().alias("vantage"),
            pl.col("row", "time_ns", "src_hi", "src_lo", "eth_dst").first(),
            pl.len().alias("packets"),
            ((pl.col("tcp_flags") & handshake) == handshake).first().alias("opening"),
            pl.col("payload_len").sum().alias("payload"),
            pl.col("resets").first().alias("client_resets"),
        )
        .select(pl.col(name).cast(dtype) for name, dtype in _SHAPE.items())
        .collect()
    )


def _outside(case: Case, index: int) -> pl.DataFrame:
    mine = ~pl.col("by_client") & ~pl.col("spoke") & pl.col("copy_of").is_null()
    return _first(_answers(case, index).filter(mine), index, "outside")


def _to_gateway(case: Case, index: int) -> pl.DataFrame:
    """Return what a realserver sent to a MAC that is not the one its requests come from."""
    roles = {mac: case.role_of_mac(mac) for mac in _macs(case, index)}
    past = [mac for mac, role in roles.items() if role in ("router", "client")]
    brought = [mac for mac, role in roles.items() if role == "director"]
    if not past:
        return pl.DataFrame(schema=_SHAPE)
    asked = (
        _answers(case, index)
        .filter(pl.col("by_client"), pl.col("eth_src").is_in(brought))
        .select("connection")
        .unique()
    )
    answers = _answers(case, index).filter(
        ~pl.col("by_client"), pl.col("eth_dst").is_in(past), pl.col("copy_of").is_null()
    )
    return _first(answers.join(asked, on="connection", how="semi"), index, "gateway")


def _macs(case: Case, index: int) -> list[int]:
    """Return the MACs at either end of a vantage's flows."""
    flows = case.vantages[index].flows
    ends = [flows[f"{side}_eth_{end}"] for side in ("orig", "resp") for end in ("src", "dst")]
    # A flow names the MACs of its first packets; a detour that begins later has others.
    later = (
        case.vantages[index].packets.lazy().select(pl.col("eth_dst").unique()).collect()["eth_dst"]
    )
    return pl.concat([*ends, later]).drop_nulls().unique().to_list()


def _untranslated(case: Case, index: int) -> pl.DataFrame:
    """Return answers that a director routed without giving them the VIP.

    The connection must have been seen with the VIP, too: a client may be routed to a realserver.
    """
    passages = case.vantages[index].passages
    if not len(passages):
        return pl.DataFrame(schema=_SHAPE)
    routed = passages.lazy().filter(pl.col("kind") == "routed")
    passed = routed.select(pl.col("out_row").alias("row"))
    fronts = case.connections.legs.filter(pl.col("kind") == "front").select("connection")
    answers = (
        _answers(case, index)
        .filter(~pl.col("by_client"))
        .join(passed, on="row", how="semi")
        .join(fronts.lazy(), on="connection", how="semi")
    )
    return _first(answers, index, "untranslated")


def _matched(case: Case, index: int) -> pl.DataFrame:
    """Return SYN-ACKs that acknowledge a client's SYN to another address than their own.

    They prove the detour where nothing else shows the realserver: 32 bits of sequence number and
    the client's port agree. Packets of TCP only.
    """
    packets = (
        case.vantages[index]
        .packets.lazy()
        .with_row_index("row")
        .filter(
            pl.col("ip_proto") == int(IpProto.TCP),
            pl.col("copy_of").is_null(),
            (pl.col("tcp_flags") & _SYN) != 0,
        )
    )
    answer = (pl.col("tcp_flags") & _ACK) != 0
    asked = packets.filter(~answer).select(
        pl.col("flow").alias("asked_flow"),
        pl.col("row").alias("asked_row"),
        pl.col("src_hi").alias("client_hi"),
        pl.col("src_lo").alias("client_lo"),
        pl.col("src_port").alias("client_port"),
        pl.col("dst_hi").alias("asked_hi"),
        pl.col("dst_lo").alias("asked_lo"),
        ((pl.col("tcp_seq").cast(pl.Int64) + 1) % 2**32).alias("number"),
    )
    given = packets.filter(answer).with_columns(
        pl.col("tcp_ack").cast(pl.Int64).alias("number"),
        pl.lit(0, pl.UInt32).alias("resets"),
    )
    found = (
        given.join(
            asked.unique(["client_hi", "client_lo", "client_port", "number"], keep="first"),
            left_on=["dst_hi", "dst_lo", "dst_port", "number"],
            right_on=["client_hi", "client_lo", "client_port", "number"],
        )
        .filter(
            (pl.col("src_hi") != pl.col("asked_hi")) | (pl.col("src_lo") != pl.col("asked_lo")),
            pl.col("row") > pl.col("asked_row"),
        )
        .join(
            case.connections.legs.lazy()
            .filter(pl.col("vantage") == index)
            .select("flow", "connection"),
            left_on="asked_flow",
            right_on="flow",
        )
    )
    return _first(found, index, "outside")


def translated_answers(case: Case) -> dict[str, int]:
    """Return by service the number of NAT connections whose answers a director gave the VIP."""
    parts = [
        vantage.flows.lazy()
        .join(
            case.connections.legs.lazy().filter(
                pl.col("vantage") == vantage.index, pl.col("kind") == "front"
            ),
            on="flow",
        )
        .filter(
            pl.when("client_is_orig").then("resp_packets").otherwise("orig_packets") > 0,
        )
        .select("connection")
        for vantage in case.vantages_of("director")
    ]
    if not parts:
        return {}
    counted = (
        pl.concat(pl.collect_all(parts))
        .unique()
        .join(
            case.members.filter(pl.col("method") == "nat").select("connection", "service_name"),
            on="connection",
        )
        .drop_nulls("service_name")
        .group_by("service_name")
        .len()
    )
    return dict(counted.iter_rows())
