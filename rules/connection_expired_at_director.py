"""The director has forgotten connections that their clients still use, and refuses their packets.

Symptom
    Long-lived connections break when they are used again after a pause, or many break at one
    moment: "connection reset by peer", "broken pipe", a database pool whose first query fails in
    the morning. Or: now and then opening a connection takes a second longer.

Mechanism
    ip_vs forgets a connection that said nothing for 900 s (120 s once the client has closed), and
    tells nobody; a director's own timeouts are taken from `ipvsadm -l --timeout`, if that is given
    with --facts. The next packet finds no entry; only a SYN makes a new one, so that the packet is
    given to the director's own TCP, which answers with a reset from the VIP (kernels of the 2.2 age
    with port unreachable, which TCP takes for a hint and repeats for a quarter of an hour). An
    entry is as unknown to a backup that took over without synchronisation, and after the table was
    emptied. With vs.conntrack=1 a SYN from a port used before may be dropped once, so that entry
    and conntrack can go: the client repeats it after a second.

Evidence
    The reset, by the director's own MAC or TTL, the packet it answers, which went no further, the
    packet before it, and the gap in between; for a failover the advertisement or the gratuitous ARP
    of the new master. For a dropped SYN: the SYN that came in and did not leave, its repetition
    that did, and the old connection of the same port.

Not this rule
    - A reset made by the realserver: its MAC, or in NAT its TTL and the same reset behind the
      director. The application or the realserver's own firewall did it.
    - A refused SYN (service-refused), and errors of a firewall (host-prohibited-established).
    - A stray packet without data of a connection that was never seen: a scan.
    - A SYN that is repeated because it was lost before the director, or whose answer was.
    - A pause, however long, after which the packet is forwarded.

Remedy
    Keepalive probes more often than the timeout, or `ipvsadm --set` with a longer one; the sync
    daemon between directors; conn_reuse_mode and conntrack for the dropped SYN.

References
    tcp_timeouts and tcp_conn_schedule in net/netfilter/ipvs/ip_vs_proto_tcp.c; ip_vs_in in
    ip_vs_core.c; kernel commit f0a5e4d7a594 (reuse without delay); RFC 9293 section 3.10.7.1;
    LVS-HOWTO section 35.4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from pcapdiag.kernel import ipvs_remedies
from pcapdiag.protocols import IpProto
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
    counted,
    incidents,
    rule,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pcapdiag.kernel.ipvs_timeouts import Timeouts

MAX_CITED = 12
"""Connections cited in a finding; the full count stands beside them."""

SECOND_NS = 1_000_000_000

REPEATED_AFTER_NS = 900_000_000
"""The first repetition of a SYN comes after 1 s (RFC 6298 section 2.1); a tenth less for coarse
timers. One that comes sooner is a second attempt of something else."""

KEEPALIVE_SHARE = 2 / 3
"""Of the timeout, as interval of keepalive probes: one may be late and still be in time."""

KEPT_S = 2 * 3600
"""Proposed timeout: the two hours after which Linux sends its first keepalive probe."""

REFERENCES = (
    "net/netfilter/ipvs/ip_vs_proto_tcp.c, tcp_timeouts",
    "RFC 9293 section 3.10.7.1",
    "LVS-HOWTO section 35.4",
)

SEVERITIES = {
    "failover-without-sync": Severity.HIGH,
    "entry-expired": Severity.HIGH,
    "entry-gone-early": Severity.HIGH,
    "entry-unknown": Severity.MEDIUM,
    "closing-entry-expired": Severity.LOW,
    "port-reuse-dropped": Severity.MEDIUM,
}


@rule(
    title="Connections that the director has forgotten",
    severity=Severity.HIGH,
    needs=Needs(
        protocols=(IpProto.TCP,),
        text="the director, from before the pause; Ethernet headers tell who sent the reset",
    ),
    since="0.1",
)
def check(case: Case) -> Iterator[Outcome]:
    """Judge refused packets per service and cause, then SYNs that were dropped once."""
    refused = case.forgotten.with_columns(_cause_of().alias("cause")).filter(_is_a_connection())
    for rows in incidents(refused, "service_name", "cause"):
        yield _finding(case, rows.sort("first_ns", "connection"))
    dropped = _dropped_once(case)
    for rows in incidents(dropped.drop_nulls("service_name"), "service_name"):
        yield _dropped_finding(case, rows)
    yield from _rest(case, {*refused["service_name"], *dropped["service_name"]})


def _cause_of() -> pl.Expr:
    """Return why the entry is not there, from the pause and from what happened in it."""
    quiet_s = pl.col("quiet_ns") / SECOND_NS
    return (
        pl.when(pl.col("change_row").is_not_null() | pl.col("turned"))
        .then(pl.lit("failover-without-sync"))
        .when(pl.col("before_row").is_null())
        .then(pl.lit("entry-unknown"))
        .when(pl.col("client_closed"))
        .then(
            pl.when(quiet_s >= pl.col("closing_s"))
            .then(pl.lit("closing-entry-expired"))
            .otherwise(pl.lit("entry-gone-early"))
        )
        .when(quiet_s >= pl.col("established_s"))
        .then(pl.lit("entry-expired"))
        .otherwise(pl.lit("entry-gone-early"))
    )


def _is_a_connection() -> pl.Expr:
    """Whether the refused packet belongs to a connection that had been one.

    A packet without data of which nothing was seen before may be a scan; one that follows the
    client's own FIN or reset at once belongs to nothing that anybody misses.
    """
    lived = (pl.col("before_count") >= 2) | (pl.col("answered_payload").fill_null(0) > 0)
    over = pl.col("client_closed").fill_null(value=False) & (pl.col("cause") == "entry-gone-early")
    return lived & ~over


def _finding(case: Case, rows: pl.DataFrame) -> Finding:
    first = rows.row(0, named=True)
    service, code = first["service_name"], first["cause"]
    quiet = rows["quiet_ns"].drop_nulls()
    shortest, longest = _seconds(quiet.min()), _seconds(quiet.max())
    director = first["emitter_host"] or "the director"
    survived = _seconds(case.longest_survived_ns(service))
    cause = _cause(first, shortest, longest)
    resets = rows.filter(pl.col("kind") == "reset").height
    how = "a reset from the VIP" if resets else "port unreachable"
    went_on = rows.filter(pl.col("client_last_ns") > pl.col("answered_ns") + SECOND_NS).height
    sure = first["emitter_by"] == "mac" and code in {"entry-expired", "failover-without-sync"}
    lasted = (int(rows["first_ns"].max()) - int(rows["first_ns"].min())) / SECOND_NS  # type: ignore[arg-type]
    return Finding(
        title=f"{director} has forgotten {counted(rows.height, 'connection')} of {service}",
        summary=(
            f"{director} answers packets of {counted(rows.height, 'connection')} of {service} "
            f"itself, with {how}, instead of forwarding them: {cause.text}."
        ),
        cause=cause,
        severity=SEVERITIES[code],
        confidence=Confidence.HIGH if sure else Confidence.MEDIUM,
        evidence=_evidence(case, rows),
        evidence_count=int(rows["count"].sum()),
        scope=Scope(service=service, direction="to-realserver"),
        hosts={"director": director},
        flows=case.flow_refs(rows["connection"].to_list()),
        flow_count=rows.height,
        examined_count=case.connection_count(service),
        first_seen_ns=rows["first_ns"].min(),  # type: ignore[arg-type]
        last_seen_ns=rows["first_ns"].max(),  # type: ignore[arg-type]
        count=int(rows["count"].sum()),
        facts={
            "connections": rows.height,
            "refused_with": "reset" if resets else "port-unreachable",
            "shortest_pause_s": shortest,
            "longest_pause_s": longest,
            "longest_pause_survived_s": survived,
            "timeout_s": first["closing_s" if code == "closing-entry-expired" else "established_s"],
            "timeout_stated": first["timeouts_stated"],
            "within_s": round(lasted, 3),
            "clients_that_went_on": went_on,
            "change_of_master": first["change_by"],
        },
        alternatives=_alternatives(first, _likely(rows.height, lasted, shortest, survived)),
        remedies=_remedies(code, director, case.timeouts_of(first["emitter_host"])),
        verify=(
            "ipvsadm -Lcn | grep CLIENT  # director: the entry is there after the pause",
            "nstat -az TcpOutRsts  # director: stands still while the service is used",
        ),
        filters=Filters(
            wireshark="tcp.flags.reset == 1 && ip.id == 0",
            tcpdump="tcp[tcpflags] & tcp-rst != 0 or (icmp[icmptype] == 3 and icmp[icmpcode] == 3)",
        ),
        references=REFERENCES,
    )


def _cause(first: dict[str, Any], shortest: float | None, longest: float | None) -> Cause:
    code, change, timeout_s = first["cause"], first["change_by"], first["established_s"]
    pause = (
        (f"{shortest:g} s" if shortest == longest else f"{shortest:g} to {longest:g} s")
        if shortest is not None
        else "an unknown time"
    )
    moved = {"vrrp": "VRRP says", "arp": "its ARP says"}.get(change or "", "the packets' MAC says")
    return Cause(
        code=code,
        text={
            "entry-expired": (
                f"they had been quiet for {pause}, and ip_vs forgets a connection after "
                f"{timeout_s} s"
            ),
            "closing-entry-expired": (
                f"their clients had closed, and after {pause} of silence the entry was gone"
            ),
            "failover-without-sync": (
                f"the VIP had moved to this director, as {moved}, and it was not told of the "
                "connections"
            ),
            "entry-gone-early": (
                f"they had been quiet for {pause} only, less than the {timeout_s} s that this "
                "director's ipvsadm shows: the entries were removed"
                if first["timeouts_stated"]
                else f"they had been quiet for {pause} only, less than the default timeout: the "
                "entries were removed, or the timeout is shorter here"
            ),
            "entry-unknown": (
                "it has no entry for them, and its captures do not show that it ever had one"
            ),
        }[code],
    )


def _likely(connections: int, lasted: float, shortest: float | None, survived: float | None) -> str:
    """Return what the pauses say about entries that were gone before their time."""
    if shortest is not None and survived is not None and survived < shortest:
        between = f"between {survived:g} and {shortest:g} s"
        return f"likely where the timeout is {between}: no shorter pause broke a connection"
    if connections > 1 and lasted < connections:
        return "less likely here: the connections broke together"
    return "less likely here: others went on after longer pauses"


def _alternatives(first: dict[str, Any], timeout: str) -> tuple[str, ...]:
    code = first["cause"]
    if code == "entry-expired":
        return (
            (
                "A failover without synchronisation: less likely where no change of master was "
                "captured and each connection breaks after its own pause."
            ),
        )
    if code == "failover-without-sync":
        return (
            "Synchronisation runs but leaves young connections out (sync_threshold: 3 packets).",
        )
    if code == "closing-entry-expired":
        return ("A packet that was delayed for that long in the network.",)
    return (
        "Timeouts that were shorter when this was captured than ipvsadm shows: less likely."
        if first["timeouts_stated"]
        else f"Shorter timeouts than the default (ipvsadm -l --timeout tells): {timeout}.",
        "A service deleted and added again empties its part of the table at one moment.",
        "A failover whose VRRP messages and gratuitous ARP these captures do not hold.",
    )


def _remedies(code: str, director: str, now: Timeouts) -> tuple[Remedy, ...]:
    if code == "failover-without-sync":
        return (ipvs_remedies.sync_connections(director),)
    if code in {"entry-gone-early", "entry-unknown"}:
        return (
            ipvs_remedies.find_lost_entries(director),
            ipvs_remedies.sync_connections(director),
        )
    return (
        ipvs_remedies.keep_connections_busy(
            "every realserver", int(now.established_s * KEEPALIVE_SHARE)
        ),
        ipvs_remedies.keep_entries(director, max(KEPT_S, 2 * now.established_s), now),
    )


def _evidence(case: Case, rows: pl.DataFrame) -> tuple[Evidence, ...]:
    cited: list[Evidence] = []
    for row in rows.head(MAX_CITED).iter_rows(named=True):
        said = "reset" if row["kind"] == "reset" else "port unreachable"
        cited.extend(
            case.evidence(
                "primary", row["vantage"], [row["row"]], f"the director's own {said} ends it"
            )
        )
        cited.extend(_around(case, row))
    return tuple(cited)


def _around(case: Case, row: dict[str, Any]) -> Iterator[Evidence]:
    vantage, quiet = row["vantage"], _seconds(row["quiet_ns"])
    if row["answered_row"] is not None:
        note = "the packet it answers, which was not seen to go further"
        yield from case.evidence("related", vantage, [row["answered_row"]], note)
    if row["before_row"] is not None:
        note = f"the packet before it, {quiet:g} s earlier"
        yield from case.evidence("related", vantage, [row["before_row"]], note)
    if row["change_row"] is not None:
        note = "another director speaks for the VIP from here on"
        yield from case.evidence("related", row["change_vantage"], [row["change_row"]], note)


def _dropped_once(case: Case) -> pl.DataFrame:
    """Return first SYNs of reused ports that did not leave the director, but repeated ones did."""
    pause = pl.col("time_ns") - pl.col("closed_ns")
    return (
        case.openings.filter(
            pl.col("attempt") == 0,
            pl.col("visible"),
            pl.col("out_row").is_null(),
            pl.col("next_out").is_not_null(),
            pl.col("next_ns") - pl.col("time_ns") >= REPEATED_AFTER_NS,
            pause >= 0,
            pause <= _reuse_s(case) * SECOND_NS,
        )
        .join(case.members.select("connection", "service_name"), on="connection")
        .sort("time_ns", "vantage", "row")
    )


def _reuse_s(case: Case) -> pl.Expr:
    """Return, per vantage, how long a closed connection's entry is there to be met."""
    return pl.col("vantage").replace_strict(
        {item.index: case.timeouts_of(item.name).reuse_s for item in case.vantages},
        return_dtype=pl.Int64,
    )


def _dropped_finding(case: Case, rows: pl.DataFrame) -> Finding:
    first = rows.row(0, named=True)
    service = first["service_name"]
    proven = case.absence_is_proof(first["vantage"], rows.height, by_client=True)
    delays = sorted(((rows["next_ns"] - rows["time_ns"]) / SECOND_NS).to_list())
    where = case.vantages[first["vantage"]].name
    within_s = case.timeouts_of(where).reuse_s
    cited: list[Evidence] = []
    for row in rows.head(MAX_CITED).iter_rows(named=True):
        notes = (
            ("primary", "row", "a SYN from a port used before; it does not leave the director"),
            ("related", "next_row", "its repetition"),
            ("related", "next_out", "which leaves"),
        )
        for role, column, note in notes:
            cited.extend(case.evidence(role, row["vantage"], [row[column]], note))
    return Finding(
        title=f"{where} drops the first SYN of {counted(rows.height, 'reused port')} of {service}",
        summary=(
            f"{counted(rows.height, 'connection')} of {service} from ports that had been used "
            f"within {within_s} s before began {delays[0]:.3g} to {delays[-1]:.3g} s "
            "late: the first SYN came in and did not leave, its repetition did."
        ),
        cause=Cause(
            code="port-reuse-dropped",
            text="ip_vs drops a SYN that meets the old connection's entry, so that entry and "
            "conntrack can expire",
        ),
        severity=SEVERITIES["port-reuse-dropped"] if proven else Severity.LOW,
        confidence=Confidence.HIGH if proven and rows.height > 1 else Confidence.LOW,
        evidence=tuple(cited),
        evidence_count=rows.height,
        scope=Scope(service=service, direction="to-realserver"),
        hosts={"director": where},
        flows=case.flow_refs(rows["connection"].to_list()),
        flow_count=rows.height,
        examined_count=case.connection_count(service),
        count=rows.height,
        facts={"connections": rows.height, "longest_delay_s": round(delays[-1], 3)},
        alternatives=(
            "An overloaded director that drops at random: it would drop SYNs of fresh ports, too.",
            "A rate limit in INPUT: likewise.",
        ),
        remedies=(ipvs_remedies.accept_reused_ports(where),),
        verify=("ss -tno state syn-sent  # client: no SYN waits for its repetition",),
        filters=Filters(
            wireshark="tcp.flags.syn == 1 && tcp.flags.ack == 0",
            tcpdump="tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn",
        ),
        references=("kernel commit f0a5e4d7a594", *REFERENCES[:1]),
    )


def _rest(case: Case, found: set[str | None]) -> Iterator[Outcome]:
    """Say what was looked at of the other services."""
    nobody = case.resets.filter(pl.col("emitter") == "unknown", pl.col("answered_syn").not_()).join(
        case.members.select("connection", "service_name"), on="connection"
    )
    seen = case.connections_at("director")
    for service in case.tcp_service_names:
        if service in found:
            continue
        unknown = nobody.filter(pl.col("service_name") == service).height
        count = seen.get(service, 0)
        if unknown:
            yield NotExamined(
                scope=Scope(service=service),
                reason=f"{counted(unknown, 'connection')} were reset in the middle, and the "
                "captures do not show whether the director or the realserver did it",
                needs=("the director's network card with Ethernet headers",),
                capture_command=case.capture_command(role="director"),
            )
        elif count:
            yield Clean(scope=Scope(service=service), examined=Examined(connections=count))
        elif case.connection_count(service):
            yield NotExamined(
                scope=Scope(service=service),
                reason="no capture of a director shows its connections",
                needs=("a capture on the director",),
                capture_command=case.capture_command(role="director"),
            )


def _seconds(value: Any) -> float | None:
    return None if value is None else round(int(value) / SECOND_NS, 3)
