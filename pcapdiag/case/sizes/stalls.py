"""Connections that stall by size: large packets sent again and again, and never acknowledged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag.case import sides, sights
from pcapdiag.case.errors import ptb
from pcapdiag.case.sizes import reactions
from pcapdiag.kernel.tcp_sender import RTO_MIN_NS
from pcapdiag.schema import QUOTED_SENDERS

if TYPE_CHECKING:
    from pcapdiag.case.case import Case

MIN_REPEATS: Final = 3
"""Times the same byte must have been sent: the original and two retransmissions. One
retransmission is ordinary loss; RFC 4821 section 7.7 waits for repeated timeouts as well."""

MIN_TIMEOUTS: Final = 2
"""Of these, so many after a timeout: fast retransmissions come in bursts on healthy paths."""

MIN_SUSPECT_LEN: Final = {4: 577, 6: 1281}
"""IP length from which size can be the reason. Every IPv4 host takes 576 bytes (RFC 791), every
IPv6 link 1280 (RFC 8200 section 5): a smaller packet that is lost is lost for another reason."""

MIN_QUOTE_SPAN_NS: Final = 3 * RTO_MIN_NS
"""Over which errors must repeat for one sequence number when only they are visible: RTO and its
first doubling. Errors for one flight of segments come within a round trip."""


def frame(case: Case) -> pl.DataFrame:
    """Return one row per connection and direction that stalls by size.

    Columns: those of sides.frame of the vantage nearest to the sender, service_name,
    realserver_name, method, client_hi, client_lo (those of case.members), and
    direction (to-client | to-realserver), stuck_seq (UInt32), source ("packets": the stalled
    packets were captured; "quotes": only the errors about them), path_delivered (largest IP length
    that reached the same peer address on any connection, bytes), peer_alive (the peer was heard of
    at least one RTO after the stall began), recovered_len and recovered_payload (where the sender
    found a size that passes by itself: the IP length and the data of that; null: it hangs), those
    of ptb.fates, reaction (of reactions.frame), and realserver_state (of the hung socket there, as
    far as its packets tell: ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, CLOSING; null: not hung,
    or only the errors were seen).
    """
    seen = _from_packets(case)
    quoted = _from_quotes(case, seen)
    reaction = case.reactions.select("connection", "sender", "reaction")
    names = case.members.select(
        "connection", "service_name", "realserver_name", "method", "client_hi", "client_lo"
    )
    return (
        pl.concat([seen, _recovered(case), quoted], how="diagonal_relaxed")
        .join(names, on="connection", how="left", maintain_order="left")
        .join(ptb.fates(case), on=["connection", "sender"], how="left", maintain_order="left")
        .join(reaction, on=["connection", "sender"], how="left", maintain_order="left")
        .with_columns(pl.col("^ptb_.*$").exclude("ptb_mtu").fill_null(0), _REALSERVER_STATE)
        .sort("stuck_first_ns", "connection", nulls_last=True)
    )


def sizes(case: Case) -> pl.DataFrame:
    """Return what was tried, per service and direction, where data and its ACKs are both visible.

    Columns: service_name, direction, connections (UInt32), largest_sent, largest_delivered (IP
    lengths, bytes; wire sizes), suspect_len (from which size a loss could mean an MTU).
    """
    acknowledged = (
        case.tcp_sides.filter(pl.col("data_packets") > 0, pl.col("acked").is_not_null())
        .select("connection", "ip_version", "wire_max_ip_len", "wire_largest_acked", _DIRECTION)
        .collect()
    )
    return (
        acknowledged.join(case.members.select("connection", "service_name"), on="connection")
        .group_by("service_name", "direction")
        .agg(
            pl.col("connection").n_unique().alias("connections"),
            pl.col("wire_max_ip_len").max().alias("largest_sent"),
            pl.col("wire_largest_acked").max().alias("largest_delivered"),
            pl.col("ip_version")
            .max()
            .replace_strict(MIN_SUSPECT_LEN, default=577)
            .alias("suspect_len"),
        )
        .sort("service_name", "direction")
    )


_DIRECTION = (
    pl.when(pl.col("sender") == "client")
    .then(pl.lit("to-realserver"))
    .otherwise(pl.lit("to-client"))
    .alias("direction")
)


_REALSERVER_STATE = (
    pl.when((pl.col("source") != "packets") | pl.col("recovered_len").is_not_null())
    .then(None)
    # Its data is not acknowledged, so that its FIN cannot be either.
    .when((pl.col("sender") == "realserver") & pl.col("fin") & pl.col("peer_fin"))
    .then(pl.lit("CLOSING"))
    .when((pl.col("sender") == "realserver") & pl.col("fin"))
    .then(pl.lit("FIN_WAIT1"))
    .when((pl.col("sender") == "realserver") & pl.col("peer_fin"))
    .then(pl.lit("CLOSE_WAIT"))
    .when((pl.col("sender") == "client") & pl.col("peer_fin"))
    .then(pl.lit("FIN_WAIT2"))
    .otherwise(pl.lit("ESTABLISHED"))
    .alias("realserver_state")
)


def _recovered(case: Case) -> pl.DataFrame:
    """Return senders that were stuck for some timeouts and then went on with smaller packets.

    Where a message had told them so, that is path MTU discovery at work, if a late one.
    """
    large = pl.col("wire_max_ip_len")
    suspects = (
        case.tcp_sides.filter(
            pl.col("stuck_repeats").fill_null(0) < MIN_REPEATS,
            pl.col("timeouts") >= MIN_TIMEOUTS,
            pl.col("df"),
            large >= pl.col("ip_version").replace_strict(MIN_SUSPECT_LEN, default=577),
            pl.col("wire_largest_acked") < large,
        )
        .collect()
        .join(case.reactions, on=["connection", "sender"], how="anti")
    )
    suspects = reactions.nearest_to_sender(case, suspects)
    found = reactions.recovered(case, suspects).with_columns(
        _DIRECTION, pl.lit("packets").alias("source")
    )
    found = _with_path(case, _without_other_errors(case, found))
    return found.filter(pl.col("path_delivered") < pl.col("wire_stuck_len"))


def _from_packets(case: Case) -> pl.DataFrame:
    stuck = case.tcp_sides.filter(
        pl.col("stuck_repeats") >= MIN_REPEATS,
        pl.col("timeouts") >= MIN_TIMEOUTS,
        pl.col("df"),
        pl.col("wire_stuck_len")
        >= pl.col("ip_version").replace_strict(MIN_SUSPECT_LEN, default=577),
        pl.col("wire_largest_acked").fill_null(0) < pl.col("wire_stuck_len"),
    )
    suspects = stuck.collect().with_columns(
        _DIRECTION,
        (pl.col("seq_first").cast(pl.Int64) + pl.col("stuck_offset"))
        .mod(1 << 32)
        .cast(pl.UInt32)
        .alias("stuck_seq"),
        pl.lit("packets").alias("source"),
    )
    suspects = _without_closed_windows(case, suspects)
    suspects = _without_other_errors(case, suspects)
    suspects = _with_path(case, suspects)
    suspects = suspects.filter(
        pl.col("path_delivered").is_null() | (pl.col("path_delivered") < pl.col("wire_stuck_len"))
    )
    return (
        suspects.join(sights.roles(case), on="vantage", how="left")
        .sort(
            pl.col("role") != pl.col("sender").cast(pl.String),
            pl.col("stuck_repeats") * -1,
            "vantage",
            "flow",
        )
        .group_by("connection", "sender", maintain_order=True)
        .first()
        .drop("role")
    )


def _without_closed_windows(case: Case, suspects: pl.DataFrame) -> pl.DataFrame:
    """Leave out senders whose peer closed its window: they probe, they are not black-holed."""
    closed = []
    for vantage in case.vantages:
        here = suspects.filter(pl.col("vantage") == vantage.index)
        if here.is_empty():
            continue
        closed.append(
            vantage.packets_of(here["flow"])
            .filter(pl.col("tcp_window") == 0, pl.col("tcp_flags") & 0b0111 == 0)
            .select("flow", ~pl.col("by_orig").alias("by_orig"), "time_ns")
            .join(
                here.lazy().select("vantage", "flow", "by_orig", "stuck_first_ns"),
                on=["flow", "by_orig"],
            )
            .filter(pl.col("time_ns") >= pl.col("stuck_first_ns"))
            .select("vantage", "flow", "by_orig")
            .unique()
            .collect()
        )
    if not closed:
        return suspects
    return suspects.join(pl.concat(closed), on=["vantage", "flow", "by_orig"], how="anti")


def _without_other_errors(case: Case, suspects: pl.DataFrame) -> pl.DataFrame:
    """Leave out packets that an ICMP error of another kind answers: they were refused, not lost.

    An error whose quote ends before the sequence number may answer any packet of its connection.
    """
    if suspects.is_empty():
        return suspects
    other = (
        case.errors.messages.filter(~ptb.IS_PTB, pl.col("connection").is_not_null())
        .select(
            "connection",
            pl.col("quoted_sender").alias("sender"),
            pl.col("quoted_tcp_seq").alias("stuck_seq"),
        )
        .unique()
    )
    one, any_of = ["connection", "sender", "stuck_seq"], ["connection", "sender"]
    return suspects.join(other.drop_nulls("stuck_seq"), on=one, how="anti").join(
        other.filter(pl.col("stuck_seq").is_null()), on=any_of, how="anti"
    )


def _with_path(case: Case, suspects: pl.DataFrame) -> pl.DataFrame:
    """Add what else is known of the same peer address: sizes it acknowledged, signs of life."""
    peer = ["vantage", "sender", "peer_hi", "peer_lo"]
    peers = (
        sides.to_peers_of(case, suspects)
        .group_by(peer)
        .agg(
            pl.col("wire_largest_acked").max().alias("path_delivered"),
            pl.col("peer_last_ns").max().alias("peer_heard_ns"),
        )
        .collect()
    )
    return suspects.join(peers, on=peer, how="left", maintain_order="left").with_columns(
        (pl.col("peer_heard_ns") > pl.col("stuck_first_ns") + RTO_MIN_NS)
        .fill_null(False)
        .alias("peer_alive")
    )


def _from_quotes(case: Case, seen: pl.DataFrame) -> pl.DataFrame:
    """Find senders that repeat a packet although each repeat is answered by a too-big message."""
    if case.too_big.is_empty():
        return seen.clear()
    keys = ["connection", "quoted_sender", "quoted_tcp_seq"]
    repeated = (
        case.too_big.filter(
            pl.col("quoted_tcp_seq").is_not_null(),
            pl.col("quoted_ip_len") > pl.col("next_hop_mtu"),
        )
        .group_by(keys)
        .agg(
            pl.len().alias("stuck_repeats"),
            pl.col("first_ns").min().alias("stuck_first_ns"),
            pl.col("first_ns").max().alias("stuck_last_ns"),
            pl.col("quoted_ip_len").max().alias("wire_stuck_len"),
        )
        .filter(
            pl.col("stuck_repeats") >= MIN_REPEATS,
            pl.col("stuck_last_ns") - pl.col("stuck_first_ns") >= MIN_QUOTE_SPAN_NS,
        )
        .sort("stuck_repeats", "quoted_tcp_seq", descending=[True, False])
        .group_by("connection", "quoted_sender", maintain_order=True)
        .first()
        .with_columns(pl.col("quoted_sender").alias("sender"))
        .rename({"quoted_tcp_seq": "stuck_seq"})
        .join(seen.select("connection", "sender"), on=["connection", "sender"], how="anti")
    )
    concerned = (
        sides.of(case, repeated["connection"])
        .select("connection", "sender", "vantage", "flow", "by_orig", "ip_version")
        .collect()
    )
    repeated = repeated.join(
        _acknowledged(case, concerned, repeated), on=["connection", "sender"], how="anti"
    )
    about = concerned.unique(["connection", "sender"], keep="first", maintain_order=True)
    return (
        repeated.join(about, on=["connection", "sender"], how="inner")
        .with_columns(
            _DIRECTION,
            pl.lit("quotes").alias("source"),
            pl.lit(True).alias("peer_alive"),
        )
        .drop("quoted_sender")
    )


def _acknowledged(case: Case, concerned: pl.DataFrame, repeated: pl.DataFrame) -> pl.DataFrame:
    """Return connection and sender where the peer acknowledged past the repeated packet's start."""
    parts = [
        pl.DataFrame(schema={"connection": pl.UInt32, "sender": QUOTED_SENDERS}),
    ]
    for vantage in case.vantages:
        legs = concerned.filter(pl.col("vantage") == vantage.index).join(
            repeated.select("connection", "sender", "stuck_seq"), on=["connection", "sender"]
        )
        if legs.is_empty():
            continue
        ahead = (pl.col("tcp_ack").cast(pl.Int64) - pl.col("stuck_seq").cast(pl.Int64)).mod(1 << 32)
        parts.append(
            vantage.packets_of(legs["flow"])
            .select("flow", "by_orig", "tcp_ack", "tcp_flags")
            .filter(pl.col("tcp_flags") & 0b1_0000 != 0)
            .join(
                legs.lazy().select(
                    "flow", ~pl.col("by_orig").alias("by_orig"), "connection", "sender", "stuck_seq"
                ),
                on=["flow", "by_orig"],
            )
            .filter(ahead > 0, ahead < 1 << 31)
            .select("connection", "sender")
            .unique()
            .collect()
        )
    return pl.concat(parts).unique()
