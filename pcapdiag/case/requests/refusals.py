"""What conntrack must have thought: rejected packets replayed on what the rejecting host saw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import polars as pl

from pcapdiag.addresses import ip_text
from pcapdiag.kernel import rejections
from pcapdiag.kernel.netfilter import Segment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcapdiag.case.case import Case
    from pcapdiag.kernel.rejections import Candidate, Fate, Onset

MAX_CONNECTIONS: Final = 20
"""Connections of one finding that are replayed, those with most rejections first: enough to see
whether one reason fits all, few enough to take a second."""

_SEGMENT: Final = ("time_ns", "tcp_flags", "tcp_seq", "tcp_ack", "tcp_window", "payload_len")


class Replayed(NamedTuple):
    """One connection, as the host that rejected its packets saw it.

    gap_ns: how long it had been silent before the first rejected packet; passed_gap_ns: the longest
    silence before a packet that is known to have passed. rejected_row, passed_row: the first packet
    that was rejected, and the last before it that passed (null: none is known to have).
    """

    connection: int
    vantage: int
    candidates: tuple[Candidate, ...]
    gap_ns: int
    passed_gap_ns: int
    onset: Onset
    rejected_row: int
    passed_row: int | None


def replay(case: Case, messages: pl.DataFrame) -> tuple[Replayed, ...]:
    """Return the connections of `messages` (rows of prohibitions.frame) that can be replayed.

    Those are the ones that a capture of the emitting host shows; a DR or TUN realserver's, a NAT
    one's, or the director's, of which only the client's packets count.
    """
    counts = (
        messages.group_by("connection").len().sort("len", "connection", descending=[True, False])
    )
    result = []
    for connection in counts["connection"].head(MAX_CONNECTIONS):
        about = messages.filter(pl.col("connection") == connection)
        vantage = _place(case, connection, about.row(0, named=True))
        if vantage is not None:
            result.append(_one(case, connection, vantage, about))
    return tuple(item for item in result if item is not None)


def logged(case: Case, messages: pl.DataFrame) -> dict[str, int]:
    """Return how many packets of whom `messages` hit the emitting hosts' logs call INVALID, by why.

    The kinds of rejections.LOG_SAYS, lines that name no packet included, and how often the table
    was full; {} where no log of these hosts was given.
    """
    hosts = set(messages["emitter_host"].drop_nulls())
    logs = [log for log in case.facts.logs if log.host in hosts]
    if not logs:
        return {}
    clients = {
        ip_text(hi, lo)
        for hi, lo in case.members.join(messages, on="connection", how="semi")
        .select("client_hi", "client_lo")
        .unique()
        .iter_rows()
    }
    counts: dict[str, int] = {}
    for log in logs:
        for item in log.counts:
            about = item.sender is None or item.sender in clients
            if about and item.kind in (*rejections.LOG_SAYS, rejections.TABLE_FULL):
                counts[item.kind] = counts.get(item.kind, 0) + item.lines
    return dict(sorted(counts.items(), key=lambda entry: -entry[1]))


def _place(case: Case, connection: int, message: dict[str, Any]) -> int | None:
    """Return the vantage of the emitting host that saw the connection."""
    emitter, mac = message["emitter"], message["emitter_mac"]
    if emitter not in {"director", "realserver"}:
        return None
    seen = case.connections.legs.filter(pl.col("connection") == connection)["vantage"].unique()
    for vantage in seen.sort():
        own = case.topology.vantage_macs[vantage]
        if case.role(vantage) == emitter and (mac is None or not own or mac in own):
            return int(vantage)
    return None


def _one(case: Case, connection: int, vantage: int, messages: pl.DataFrame) -> Replayed | None:
    tables = case.vantages[vantage]
    one_way = case.role(vantage) == "director"
    legs = case.connections.legs.filter(
        pl.col("connection") == connection,
        pl.col("vantage") == vantage,
        (pl.col("kind") == "front") | pl.lit(not one_way),
    )
    packets = (
        tables.packets_of(legs["flow"], row=True)
        .join(legs.lazy().select("flow", "client_is_orig"), on="flow")
        .select(
            "row",
            *_SEGMENT,
            "tcp_wscale",
            "copy_of",
            (pl.col("by_orig") != pl.col("client_is_orig")).alias("reply"),
        )
        .filter(pl.col("tcp_flags").is_not_null(), pl.col("time_ns").is_not_null())
        .filter(~pl.col("reply") | pl.lit(not one_way))
        .sort("row")
        .collect()
    )
    packets = packets.filter(pl.col("copy_of").is_null())
    if packets.is_empty() or packets.height > rejections.MAX_PACKETS:
        return None
    if not one_way and not packets["reply"].any():
        return None  # half a connection says nothing of what conntrack knew
    sacked = (
        tables.sacks.lazy()
        .filter(pl.col("row").is_in(packets["row"].implode()))
        .group_by("row")
        .agg(pl.col("right").max())
        .collect()
    )
    right = dict(sacked.iter_rows())
    segments = [
        Segment(time, reply, flags, seq, ack, window, payload, wscale, right.get(row))
        for row, time, flags, seq, ack, window, payload, wscale, reply in packets.drop(
            "copy_of"
        ).iter_rows()
    ]
    rejected = _rejected(case, vantage, messages, packets)
    if not rejected:
        return None
    forwarded = tables.passages_of(packets["row"]).filter(pl.lit(one_way))["row"]
    fates = _fates(segments, rejected, packets["row"].is_in(forwarded.implode()).to_list())
    first = min(rejected)
    passed = [number for number, fate in enumerate(fates) if fate == "passed"]
    last = max((number for number in passed if number <= first), default=None)
    return Replayed(
        connection=connection,
        vantage=vantage,
        candidates=rejections.candidates(segments, fates, one_way=one_way),
        gap_ns=rejections.gap_before(segments, first),
        passed_gap_ns=max((rejections.gap_before(segments, item) for item in passed), default=0),
        onset=rejections.Onset(
            vantage,
            None if last is None else segments[last].time_ns,
            segments[first].time_ns,
        ),
        rejected_row=packets["row"][first],
        passed_row=None if last is None else packets["row"][last],
    )


def _rejected(case: Case, vantage: int, messages: pl.DataFrame, packets: pl.DataFrame) -> set[int]:
    """Return which of `packets`, by number, the messages quote."""
    quoted = (
        case.errors.sightings.filter(pl.col("vantage") == vantage)
        .join(messages.select("message"), on="message", how="semi")
        .select(pl.col("row").alias("error_row"))
        .join(
            case.vantages[vantage].icmp_errors.select(
                pl.col("row").alias("error_row"), "quoted_row", "quoted_tcp_seq"
            ),
            on="error_row",
        )
    )
    numbered = packets.with_row_index("number").filter(~pl.col("reply"))
    exact = numbered.filter(pl.col("row").is_in(quoted["quoted_row"].drop_nulls().implode()))
    # A quote of 28 bytes may fit several packets: the last one before the error was meant.
    loose = (
        quoted.filter(pl.col("quoted_row").is_null())
        .join(numbered, left_on="quoted_tcp_seq", right_on="tcp_seq")
        .filter(pl.col("row") < pl.col("error_row"))
        .group_by("error_row")
        .agg(pl.col("number").max())
    )
    return {*exact["number"].to_list(), *loose["number"].to_list()}


def _fates(
    segments: Sequence[Segment], rejected: set[int], forwarded: Sequence[bool]
) -> list[Fate]:
    """Return what became of each packet; what repeats a rejected one may have been in silence."""
    again = {segments[number].seq for number in rejected}
    answered = rejections.passed_by_answer(segments)
    fates: list[Fate] = []
    for number, segment in enumerate(segments):
        if number in rejected:
            fates.append("rejected")
        elif forwarded[number] or (answered[number] and segment.seq not in again):
            fates.append("passed")
        else:
            fates.append("unknown")
    return fates
