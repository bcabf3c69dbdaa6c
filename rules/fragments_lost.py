"""Large datagrams are cut into fragments on their way, and not all of the fragments arrive.

Symptom
    Small requests and answers work, large ones time out: DNS with DNSSEC, RADIUS with certificates,
    NFS over UDP, SIP with long headers. The receiver counts IpReasmFails and tells nobody, or sends
    "fragment reassembly time exceeded" half a minute later.

Mechanism
    Only the first fragment has ports. Firewalls that go by ports, and load sharing that hashes
    over them, treat the others differently: they drop them, or send them another way. Some
    networks drop every fragment. ip_vs itself collects all fragments before it looks, so that a
    director that never gets the last one forwards nothing at all.

Evidence
    Datagrams by addresses, protocol and IP ID, along the stations of their connection (client,
    router, director coming in and going out, realserver): whole at one, incomplete or absent at
    the next; at least three of them, and at least half of all. At a single station: first
    fragments whose others never come. And what receivers say of it (ICMP 11/1, ICMPv6 3/1).

Not this rule
    - A capture filter with a port: it keeps later fragments out of the file, wherever they went.
    - One lost fragment now and then: any packet may be lost.
    - A datagram that leaves a director or firewall in one piece: it was put together there.
    - What a capture holds within a second of its beginning or end.
    - A packet with DF that is too large: see pmtud-blackhole.

Remedy
    Accept fragments where ports are asked for, or let conntrack put them together first; hash over
    addresses only; or avoid them: EDNS buffers of 1232 bytes, TCP for large answers, a smaller MTU
    at the application. Where a receiver's reassembly memory is full: net.ipv4.ipfrag_high_thresh.

References
    RFC 791 section 2.3; RFC 8200 section 4.5; RFC 8900; RFC 6864; ip_vs_gather_frags in
    net/netfilter/ipvs/ip_vs_core.c; Documentation/networking/ip-sysctl.rst (ipfrag_*).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from pcapdiag.kernel import chance, path_remedies
from pcapdiag.rule import (
    Case,
    Cause,
    Clean,
    Confidence,
    Evidence,
    Examined,
    Filters,
    Finding,
    Needs,
    NotExamined,
    Outcome,
    Remedy,
    Scope,
    Severity,
    incidents,
    rule,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
from typing import Any

MIN_DATAGRAMS = 3
"""Incomplete datagrams of one service and direction: a path that loses one packet in a hundred
hardly ever hits three datagrams and spares all others."""

LEAST_SHARE = 0.5
"""Of the datagrams of that service and direction: load sharing over two ways loses half of them,
ordinary loss far fewer."""

MAX_CITED = 20
"""Datagrams cited in a finding; the full count stands beside them."""

CAUSES = {
    "dropped-at-director": "the fragments came in at the director, and what it sends on lacks some "
    "or all of them",
    "lost-between-captures": "the datagrams were whole at one capture and are not at the next",
    "incomplete-on-arrival": "the first fragments arrive and the others never do",
    "reassembly-timeout": "the receiver says itself that it waited for fragments in vain",
}

LAST_STATION = 4
"""Rank of the receiver, see case.fragment_sights."""

_RECEIVERS = {"client": "realserver", "realserver": "client"}
"""Where a sender's datagrams go."""

_DATAGRAM = ["connection", "sender", "ip_id", "episode"]


@rule(
    title="Fragments lost",
    severity=Severity.MEDIUM,
    needs=Needs(
        text="both sides of the suspected hop, without a port in the capture filter",
    ),
    since="0.1",
)
def check(case: Case) -> Iterator[Outcome]:
    """Judge fragmented datagrams, one finding per service, direction and place of the loss."""
    names = case.members.select("connection", "service_name", "realserver_name")
    seen = case.fragment_sights.join(names, on="connection", how="left", maintain_order="left")
    told = case.reassembly_timeouts.with_columns(
        pl.col("quoted_sender").cast(pl.String).alias("sender")
    )
    lost = _lost(seen)
    found: set[tuple[str | None, str]] = set()
    unproven: list[str] = []
    for mine in incidents(lost, "service_name", "sender", "station", "before"):
        first = mine.row(0, named=True)
        key = (first["service_name"], first["sender"])
        if key in found:
            continue  # the place where most are lost speaks for the service and direction
        of_service = _of(seen, key).filter(pl.col("station") == first["station"])
        if mine.height < MIN_DATAGRAMS or mine.height < LEAST_SHARE * _count(of_service):
            continue
        timeouts = _of(told, key)
        if not (timeouts.height or _proven(case, mine)):
            unproven.append(first["station"])
            continue
        found.add(key)
        yield _finding(case, mine, timeouts, examined=_count(of_service))
    for service, sender in told.select("service_name", "sender").unique(maintain_order=True).rows():
        timeouts = _of(told, (service, sender))
        if (service, sender) not in found and timeouts.height >= MIN_DATAGRAMS:
            found.add((service, sender))
            yield _finding(case, None, timeouts, examined=timeouts.height)
    yield from _rest(case, seen, lost, found, unproven)


def _open_question(seen: pl.DataFrame, lost: pl.DataFrame, sender: str) -> str | None:
    """Return why nobody knows whether datagrams arrive whole; None: as far as can be, they do."""
    if lost.height and lost.height >= LEAST_SHARE * _count(seen):
        return (
            f"{lost.height} of {_count(seen)} fragmented datagrams lack a part somewhere: too few "
            "to tell a fault from ordinary loss"
        )
    if seen.filter(pl.col("rank") == LAST_STATION).is_empty():
        last = seen.sort("rank", "station")["station"][-1]
        return (
            f"fragmented datagrams are whole as far as {last}, and no capture shows whether they "
            f"arrive at the {_RECEIVERS[sender]}"
        )
    return None


def _lost(seen: pl.DataFrame) -> pl.DataFrame:
    """Return per datagram the first station that lacks a part, and the last before it that did not.

    A station that may have been captured with a port in its filter cannot lack later fragments,
    and a sender's own capture that lacks some lacks them itself.
    """
    if seen.is_empty():
        return seen
    sure = seen.filter(~((pl.col("state") == "incomplete") & (pl.col("visibility") == "unknown")))
    first = (
        sure.filter(pl.col("state") != "whole", pl.col("rank") > 0)
        .sort("rank", maintain_order=True)
        .unique(_DATAGRAM, keep="first", maintain_order=True)
    )
    before = (
        sure.filter(pl.col("state") == "whole")
        .join(first.select(*_DATAGRAM, pl.col("rank").alias("lost_rank")), on=_DATAGRAM)
        .filter(pl.col("rank") < pl.col("lost_rank"))
        .sort("rank", descending=True, maintain_order=True)
        .unique(_DATAGRAM, keep="first", maintain_order=True)
        .select(
            *_DATAGRAM,
            pl.col("station").alias("before"),
            pl.col("vantage").alias("before_vantage"),
            pl.col("row").alias("before_row"),
            pl.col("fragments").alias("before_fragments"),
        )
    )
    return (
        first.join(before, on=_DATAGRAM, how="left", maintain_order="left")
        .filter(pl.col("before").is_not_null() | (pl.col("state") == "incomplete"))
        .sort("time_ns", "connection", "ip_id")
    )


def _of(table: pl.DataFrame, key: tuple[str | None, str]) -> pl.DataFrame:
    return table.filter(
        pl.col("service_name").eq_missing(pl.lit(key[0])), pl.col("sender") == key[1]
    )


def _count(seen: pl.DataFrame) -> int:
    return seen.select(_DATAGRAM).n_unique() if seen.height else 0


def _proven(case: Case, lost: pl.DataFrame) -> bool:
    """Return whether the capture cannot have lost all that is missing.

    Either it is known to lose too little, or the pattern is not that of loss: first fragments are
    all there and later ones all missing, at least one to each.
    """
    by_client = lost["sender"][0] == "client"
    if case.absence_is_proof(lost["vantage"][0], lost.height, by_client=by_client):
        return True
    partly = lost.filter(pl.col("state") == "incomplete")
    lacking = (pl.col("before_fragments").cast(pl.Int64) - pl.col("fragments").cast(pl.Int64)).clip(
        1
    )
    missing = int(partly.select(lacking.fill_null(1).sum()).item() or 0)
    return chance.split_by_loss(partly.height, missing) < chance.PROOF


def _finding(
    case: Case, lost: pl.DataFrame | None, timeouts: pl.DataFrame, examined: int
) -> Finding:
    some = timeouts if lost is None else lost
    first = some.row(0, named=True)
    code = _code(lost)
    direction = "to-realserver" if first["sender"] == "client" else "to-client"
    connections = some["connection"].unique(maintain_order=True).to_list()
    realservers = tuple(sorted(some["realserver_name"].drop_nulls().unique()))
    count, times = some.height, _times(some, timeouts)
    where = "" if lost is None else _where(first)
    return Finding(
        title=f"Fragments are lost ({first['service_name']}, {direction})",
        summary=(
            f"{count} of {max(examined, count)} fragmented datagrams of {first['service_name']} "
            f"({direction.replace('-', ' the ')}) do not arrive whole{where}: {CAUSES[code]}."
        ),
        cause=Cause(code=code, text=CAUSES[code]),
        severity=Severity.HIGH if count >= examined else Severity.MEDIUM,
        confidence=_confidence(lost, timeouts),
        evidence=_evidence(case, lost, timeouts),
        evidence_count=count + timeouts.height * (lost is not None),
        scope=Scope(
            service=first["service_name"],
            realserver=realservers[0] if len(realservers) == 1 else None,
            direction=direction,
        ),
        hosts=_hosts(case, lost),
        flows=case.flow_refs(connections),
        flow_count=len(connections),
        examined_count=len(connections),
        first_seen_ns=min(times, default=None),
        last_seen_ns=max(times, default=None),
        count=count,
        facts={
            "direction": direction,
            "datagrams_lost": 0 if lost is None else count,
            "datagrams_examined": 0 if lost is None else examined,
            "nothing_arrived": 0 if lost is None else lost.filter(pl.col("state") == "none").height,
            "largest_datagram": some["ip_len" if lost is not None else "quoted_ip_len"].max(),  # type: ignore[dict-item]
            "last_whole_at": None if lost is None else first["before"],
            "missing_at": None if lost is None else first["station"],
            "reassembly_timeouts": timeouts.height,
        },
        alternatives=_alternatives(code),
        remedies=_remedies(case, code, first),
        verify=(
            "nstat -az IpReasmOKs IpReasmFails IpReasmTimeout  # receiver: failures stand still",
            "ping -c 3 -M dont -s 3000 HOST  # across the same hop: answers come",
        ),
        filters=Filters(
            wireshark="ip.flags.mf == 1 || ip.frag_offset > 0 || ipv6.fraghdr.nxt",
            tcpdump="ip[6:2] & 0x3fff != 0 or ip6[6] == 44",
        ),
        references=("RFC 791 section 2.3", "RFC 8900", "ip_vs_gather_frags in ip_vs_core.c"),
    )


def _code(lost: pl.DataFrame | None) -> str:
    if lost is None:
        return "reassembly-timeout"
    first = lost.row(0, named=True)
    if first["before"] is None:
        return "incomplete-on-arrival"
    same = first["before_vantage"] == first["vantage"]
    return "dropped-at-director" if same else "lost-between-captures"


def _hosts(case: Case, lost: pl.DataFrame | None) -> dict[str, str | tuple[str, ...]]:
    if lost is None:
        return {}
    first = lost.row(0, named=True)
    names = {vantage.index: vantage.name for vantage in case.vantages}
    hosts: dict[str, str | tuple[str, ...]] = {"missing_at": names[first["vantage"]]}
    if first["before"] is not None:
        hosts["last_whole_at"] = names[first["before_vantage"]]
    return hosts


def _where(first: dict[str, Any]) -> str:
    if first["before"] is None:
        return f" at {first['station']}"
    return f" between {first['before']} and {first['station']}"


def _times(*tables: pl.DataFrame) -> list[int]:
    columns = [table["time_ns" if "time_ns" in table.columns else "first_ns"] for table in tables]
    return [int(value) for column in columns for value in (column.min(), column.max()) if value]  # type: ignore[arg-type]


def _confidence(lost: pl.DataFrame | None, timeouts: pl.DataFrame) -> Confidence:
    """Return how sure it is: what the receiver says or two captures show is, one is less."""
    if timeouts.height >= MIN_DATAGRAMS or (lost is not None and lost["before"][0] is not None):
        return Confidence.HIGH
    seen = lost is not None and lost["visibility"][0] == "seen"
    return Confidence.MEDIUM if seen else Confidence.LOW


def _evidence(
    case: Case, lost: pl.DataFrame | None, timeouts: pl.DataFrame
) -> tuple[Evidence, ...]:
    result: list[Evidence] = []
    told = "primary" if lost is None else "related"
    for row in () if lost is None else lost.head(MAX_CITED).iter_rows(named=True):
        if row["before_row"] is not None:
            note = f"IP ID {row['ip_id']}: {row['ip_len']} bytes, whole here"
            result += case.evidence("primary", row["before_vantage"], [row["before_row"]], note)
        if row["row"] is not None:
            note = f"IP ID {row['ip_id']}: a fragment of it, and the others never"
            result += case.evidence("primary", row["vantage"], [row["row"]], note)
    for row in timeouts.head(MAX_CITED).iter_rows(named=True):
        note = f"the receiver gave up waiting for fragments of IP ID {row['quoted_ip_id']}"
        result += case.evidence(told, row["vantage"], [row["row"]], note)
    return tuple(result)


def _alternatives(code: str) -> tuple[str, ...]:
    if code == "incomplete-on-arrival":
        return (
            "The capture's filter keeps later fragments out: less likely by what else it holds.",
            "The sender never sent them: a capture on its side tells.",
        )
    if code == "reassembly-timeout":
        return ("The fragments came too late rather than never: a capture at the receiver tells.",)
    return (
        "The second capture lost them: less likely, since it holds the packets around them.",
        "Ordinary loss: less likely, for small packets pass and these do not.",
    )


def _remedies(case: Case, code: str, first: dict[str, Any]) -> tuple[Remedy, ...]:
    version = 6 if "[" in (first["service_name"] or "") else 4
    if code == "dropped-at-director":
        where = ", ".join(case.director_names) or "the director"
    elif code == "lost-between-captures":
        where = f"the hosts and the network between {first['before']} and {first['station']}"
    else:
        where = "the hosts and the network before the receiver"
    return (path_remedies.accept_fragments(where, version), path_remedies.avoid_fragments())


def _rest(
    case: Case,
    seen: pl.DataFrame,
    lost: pl.DataFrame,
    found: set[tuple[str | None, str]],
    unproven: list[str],
) -> Iterator[Outcome]:
    command = case.capture_command(role="realserver")
    for station in sorted(set(unproven)):
        yield NotExamined(
            reason=f"datagrams are incomplete at {station}, whose capture may have lost the rest",
            needs=("a capture there that drops nothing",),
            capture_command=command,
        )
    blind = seen.filter(pl.col("visibility") == "unknown", pl.col("state") == "incomplete")
    blinded = set(blind.select("service_name", "sender").unique().rows())
    whole = seen.filter((pl.col("state") == "whole") & (pl.col("rank") > 0))
    looked_at = set(whole.select("service_name", "sender").unique().rows()) | blinded
    for key in sorted(looked_at - found, key=str):
        scope = Scope(
            service=key[0], direction="to-realserver" if key[1] == "client" else "to-client"
        )
        if key in blinded:
            yield NotExamined(
                scope=scope,
                reason="first fragments were captured and no later ones: a capture filter with a "
                "port keeps those out, wherever they went",
                needs=("captures without a port in the filter",),
                capture_command=command,
            )
        elif reason := _open_question(_of(seen, key), _of(lost, key), key[1]):
            yield NotExamined(
                scope=scope,
                reason=reason,
                needs=(f"a capture on the {_RECEIVERS[key[1]]}, while large datagrams are sent",),
                capture_command=case.capture_command(role=_RECEIVERS[key[1]]),
            )
        elif not unproven:
            yield Clean(
                scope=scope,
                examined=Examined(packets=_count(_of(whole, key))),
                note="fragmented datagrams arrive whole, but for what any network loses",
            )
    if not (looked_at or found or unproven):
        yield NotExamined(
            reason="no fragmented datagram of the cluster was captured where it should arrive",
            needs=("captures without a port in the filter, while large datagrams are sent",),
            capture_command=command,
        )
