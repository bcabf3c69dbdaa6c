"""The sequence diagram of a finding: one connection over all vantages, the telling packets only.

Shown are the handshake, the first data each way, what the finding cites, what was sent again and
again, the end, and the ICMP errors about the connection. What was repeated is one arrow.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import polars as pl

from pcapdiag import spool
from pcapdiag.case.frames import locate
from pcapdiag.case.shown import sightings
from pcapdiag.protocols import TcpFlag, icmp_name
from pcapdiag.result import LadderStep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcapdiag.case.case import Case
    from pcapdiag.case.shown.sightings import Path
    from pcapdiag.result import Finding

MAX_SEGMENTS: Final = 9
"""TCP segments shown: handshake, request, answer, and a few that were sent again."""

MAX_ASKED: Final = 20
"""Cited frames whose connection is looked for."""

MAX_ERRORS: Final = 3
"""Kinds of ICMP errors shown."""

REPEATED: Final = 3
"""Sends from which a segment is shown for that alone; twice is ordinary loss."""

DOUBLING: Final = (1.6, 2.6)
"""Ratio of waits that RFC 6298 section 5.5 doubles, with a timer's coarseness."""

_KINDS: Final = int(TcpFlag.SYN | TcpFlag.FIN | TcpFlag.RST)
_FLAGS: Final = {TcpFlag.SYN: "SYN", TcpFlag.FIN: "FIN", TcpFlag.RST: "RST"}
_SEGMENT: Final = ("by_client", "tcp_seq", "payload_len", "kind")
Fate = Literal["seen", "lost", "not-visible"]
Visits = dict[int, list[dict[str, Any]]]
"""Rows (frame, time_ns) by place, in the order in which a packet comes by."""


class Ladder(NamedTuple):
    """Columns in the order of the path, and the arrows between them by time."""

    columns: tuple[str, ...] = ()
    steps: tuple[LadderStep, ...] = ()


class _Packet(NamedTuple):
    """One row of the ladder: the arrows of one packet."""

    steps: tuple[LadderStep, ...]
    segment: tuple[bool, int] | None = None
    """(by the client, sequence number) of a segment; of the one it quotes for an error."""
    is_error: bool = False

    @property
    def time_ns(self) -> int:
        return self.steps[0].time_ns or 0


def ladder(case: Case, finding: Finding) -> Ladder:
    """Return the ladder of the first connection that the finding's evidence belongs to."""
    connection, cited = _connection(case, finding)
    if connection is None:
        return Ladder()
    path = sightings.path(case, connection)
    packets = sorted([*_segments(path, cited), *_errors(case, path)], key=lambda item: item.time_ns)
    rows: dict[tuple[bool, int] | None, int] = {}
    steps: list[LadderStep] = []
    for row, packet in enumerate(packets):
        quotes = rows.get(packet.segment) if packet.is_error else None
        if not packet.is_error:
            rows.setdefault(packet.segment, row)
        steps += [replace(step, packet=row, quotes=quotes) for step in packet.steps]
    names = [item.name for item in path.places]
    strangers = dict.fromkeys(step.from_ for step in steps if step.from_ not in names)
    return Ladder((names[0], *strangers, *names[1:]), tuple(steps))


def _connection(case: Case, finding: Finding) -> tuple[int | None, list[tuple[int, int]]]:
    """Return the first connection of the evidence, primary first, and all cited (vantage, row)."""
    ordered = sorted(finding.evidence, key=lambda item: item.role != "primary")
    cited = [place for place in locate(case, ordered) if place is not None]
    for vantage, row in cited[:MAX_ASKED]:
        here = pl.col("vantage") == vantage
        flow = spool.at(case.vantages[vantage].packets, [row], "flow").item()
        legs = case.connections.legs.filter(here, pl.col("flow").eq_missing(flow))
        about = case.errors.sightings.filter(here, pl.col("row") == row).join(
            case.errors.messages, on="message"
        )
        found = [*legs["connection"], *about["connection"].drop_nulls()]
        if found:
            return int(found[0]), cited
    return None, cited


def _segments(path: Path, cited: Sequence[tuple[int, int]]) -> list[_Packet]:
    """Return the telling TCP segments of the connection."""
    marks = pl.DataFrame(
        cited, schema={"vantage": pl.UInt16, "row": pl.UInt32}, orient="row"
    ).unique()
    seen = (
        path.sights.filter(pl.col("tcp_seq").is_not_null())
        .with_columns((pl.col("tcp_flags") & _KINDS).alias("kind"))
        .join(
            marks.with_columns(pl.lit(value=True).alias("cited")),
            on=["vantage", "row"],
            how="left",
            maintain_order="left",
        )
    )
    if seen.is_empty():
        return []
    per_place = seen.group_by(*_SEGMENT, "place").agg(pl.len().alias("sends"))
    sends = per_place.group_by(_SEGMENT).agg(pl.col("sends").max())
    groups = (
        seen.group_by(_SEGMENT, maintain_order=True)
        .agg(pl.col("time_ns").min(), pl.col("cited").any())
        .join(sends, on=list(_SEGMENT), maintain_order="left")
        .filter((pl.col("payload_len") > 0) | (pl.col("kind") > 0) | pl.col("cited"))
    )
    first = pl.int_range(pl.len()).over("by_client", pl.col("payload_len") > 0, "kind") == 0
    chosen = (
        groups.with_columns(
            pl.when("cited")
            .then(0)
            .when(pl.col("sends") >= REPEATED)
            .then(1)
            .when(first)
            .then(2)
            .alias("weight")
        )
        .drop_nulls("weight")
        .sort("weight", -pl.col("sends").cast(pl.Int64), "time_ns")
        .head(MAX_SEGMENTS)
    )
    bases = _bases(seen)
    packets: list[_Packet] = []
    for key in chosen.select(_SEGMENT).iter_rows():
        same = seen.filter(pl.col(name) == value for name, value in zip(_SEGMENT, key, strict=True))
        packets += _sends(path, same, key, bases.get(key[0]))
    return packets


def _bases(seen: pl.DataFrame) -> dict[bool, int]:
    """Return each side's initial sequence number, where its SYN was seen."""
    syns = seen.filter(pl.col("tcp_flags") & int(TcpFlag.SYN) > 0)
    return dict(syns.group_by("by_client").agg(pl.col("tcp_seq").first()).iter_rows())


def _sends(path: Path, same: pl.DataFrame, key: tuple[Any, ...], base: int | None) -> list[_Packet]:
    """Return a segment's first way, and in one row all times that it was sent again."""
    by_client, seq = key[0], key[1]
    end = len(path.places) - 1 if by_client else 0
    rows: Visits = {
        int(place): part.to_dicts()
        for (place,), part in same.group_by("place", maintain_order=True)
    }
    order = sorted(rows, reverse=not by_client)
    sends = rows[order[0]]
    acked = _acked(path, by_client, seq)
    packets = []
    for again in (False, True)[: min(len(sends), 2)]:
        part = slice(1, None) if again else slice(1)
        visited = {place: rows[place][part] for place in order if rows[place][part]}
        lost: Fate = "lost" if len(sends) > 1 and not acked else "not-visible"
        steps = _arrows(path, visited, len(path.places) - 1 - end, end, lost)
        words = _words(key, base)
        if again:
            words += f" again, {_rhythm([send['time_ns'] for send in sends])}"
        shown = sends[part][0]
        steps = tuple(
            replace(
                step,
                label=words,
                ip_length=shown["ip_len"],
                df=shown["df"],
                repeats=len(sends) - 1 if again else 1,
            )
            for step in steps
        )
        packets.append(_Packet(steps, (by_client, seq)))
    return packets


def _arrows(
    path: Path,
    visited: Visits,
    start: int,
    end: int,
    otherwise: Fate,
    *,
    first_too: bool = True,
) -> tuple[LadderStep, ...]:
    """Return the arrows of one packet from `start` over the places that saw it to `end`.

    Where `end` did not see it, `otherwise` says what became of it. An arrow has the frames of where
    it arrives; the first also, if `first_too`, those of where it begins.
    """
    stops = list(dict.fromkeys((start, *visited, end)))
    frames = {place: _frames(path, place, rows) for place, rows in visited.items()}
    time_ns = min(row["time_ns"] for rows in visited.values() for row in rows)
    steps: list[LadderStep] = []
    for source, target in pairwise(stops):
        seen = frames.get(target, ())
        if not steps and first_too:
            seen = (*frames.get(start, ()), *seen)
        steps.append(
            LadderStep(
                from_=path.places[source].name,
                to=path.places[target].name,
                label="",
                fate="seen" if target in visited else otherwise,
                frames=seen,
                time_ns=time_ns,
            )
        )
    return tuple(steps)


def _frames(path: Path, place: int, rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """Return the frames of a packet at a place: "director:17"; of many, the first and the last."""
    vantage = path.places[place].vantage_name
    shown = rows if len(rows) <= 2 else (rows[0], rows[-1])
    return tuple(f"{vantage}:{row['frame']}" for row in shown)


def _acked(path: Path, by_client: bool, seq: int) -> bool:
    """Whether the other side was seen to acknowledge the byte at `seq` (RFC 9293 3.4)."""
    acks = path.sights.filter(
        pl.col("by_client") != by_client, pl.col("tcp_flags") & int(TcpFlag.ACK) > 0
    )
    ahead = (acks["tcp_ack"].cast(pl.Int64) - seq) % (1 << 32)
    return bool(((ahead > 0) & (ahead < 1 << 31)).any())


def _words(key: tuple[Any, ...], base: int | None) -> str:
    """Return a segment in words: "SYN", "data 1:1449", counted from the SYN where it was seen."""
    by_client, seq, length, kind = key
    flags = [name for flag, name in _FLAGS.items() if kind & flag]
    if flags == ["SYN"] and not by_client:
        flags = ["SYN-ACK"]
    at = seq if base is None else (seq - base) % (1 << 32)
    data = f"data {at}:{at + length}" if length else ""
    return " ".join(filter(None, (*flags, data))) or f"ACK from {at}"


def _rhythm(times: Sequence[int]) -> str:
    """Return how often and how fast something was repeated: "7 times, doubling from 0.2 s"."""
    gaps = [after - before for before, after in pairwise(times)]
    count = f"{len(gaps)} times" if len(gaps) > 1 else "once"
    start = len(gaps) - 1
    while start > 0 and DOUBLING[0] <= gaps[start] / max(gaps[start - 1], 1) <= DOUBLING[1]:
        start -= 1
    if len(gaps) - start > 2:
        return f"{count}, doubling from {gaps[start] / 1e9:.2g} s"
    return f"{count} within {(times[-1] - times[0]) / 1e9:.3g} s"


def _errors(case: Case, path: Path) -> list[_Packet]:
    """Return the first ICMP error of each kind about the connection, with how many there were."""
    about = case.errors.messages.filter(pl.col("connection") == path.connection)
    kinds = (
        about.sort("first_ns", "message", nulls_last=True)
        .group_by("icmp_type", "icmp_code", "next_hop_mtu", "src_hi", "src_lo", maintain_order=True)
        .agg(pl.all().first(), pl.len().alias("messages"))
        .head(MAX_ERRORS)
    )
    return [
        packet
        for error in kinds.iter_rows(named=True)
        if (packet := _error(case, path, error)) is not None
    ]


def _error(case: Case, path: Path, error: dict[str, Any]) -> _Packet | None:
    """Return the arrows of one ICMP error, from whoever sent it to the end that it is for."""
    to_client = error["quoted_sender"] == "client"
    end = 0 if to_client else len(path.places) - 1
    visited = _visits(case, path, error["message"], to_client=to_client)
    if not visited:
        return None
    begin = next(iter(visited))
    origin, stranger = _origin(case, path, error, begin)
    verdicts = case.contract.filter(pl.col("message") == error["message"])["verdict"]
    otherwise: Fate = "lost" if "swallowed" in verdicts.to_list() else "not-visible"
    steps = _arrows(path, visited, origin, end, otherwise, first_too=stranger is None)
    if stranger is not None:
        frames = _frames(path, begin, visited[begin])
        first = LadderStep(
            from_=stranger,
            to=path.places[begin].name,
            label="",
            frames=frames,
            time_ns=visited[begin][0]["time_ns"],
        )
        steps = (first, *steps)
    words = icmp_name(error["ip_version"], error["icmp_type"], error["icmp_code"])
    if error["next_hop_mtu"] is not None:
        words += f", MTU {error['next_hop_mtu']}"
    if error["messages"] > 1:
        words += f"; {error['messages']} of them"
    steps = tuple(replace(step, label=words, repeats=error["messages"]) for step in steps)
    return _Packet(steps, (to_client, error["quoted_tcp_seq"]), is_error=True)


def _visits(case: Case, path: Path, message: int, *, to_client: bool) -> Visits:
    """Return the first frame of a message at each place that saw it, in the order of its way."""
    visited: Visits = {}
    sights = case.errors.sightings.filter(pl.col("message") == message)
    for sight in sights.sort("time_ns", "vantage", "row").iter_rows(named=True):
        rank = sightings.rank_of(case, sight["vantage"])
        if rank == sightings.DIRECTOR_FRONT and (sight["place"] == "out") != to_client:
            rank = sightings.DIRECTOR_BACK
        at, own = path.at(sight["vantage"], rank), sight["time_ns"]
        common = None if own is None else case.clocks.common(sight["vantage"], own)
        if at is not None and own is not None:
            row = {"frame": sight["frame"], "time_ns": own if common is None else common}
            visited.setdefault(at, [row])
    return {at: visited[at] for at in sorted(visited, reverse=to_client)}


def _origin(case: Case, path: Path, error: dict[str, Any], begin: int) -> tuple[int, str | None]:
    """Return the place that sent an error; where it is none, the first that saw it, and a name.

    An error from the VIP tells nothing: director and realservers all have it.
    """
    host = case.host_of_address(error["src_hi"], error["src_lo"])
    if path.places[begin].vantage_name == host:
        return begin, None
    for at, item in enumerate(path.places):
        if item.vantage_name == host:
            return at, None
    vips = {service.vip for service in case.topology.services}
    if (error["src_hi"], error["src_lo"]) in vips:
        return begin, None
    return begin, host
