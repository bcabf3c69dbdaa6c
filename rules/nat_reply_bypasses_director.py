"""A NAT realserver's answers reach the client from the realserver's own address.

Symptom
    Connections to the VIP time out or are reset at once, though the realservers work and are
    reached; netstat shows SYN_RECV on the realserver and SYN_SENT at the client. Or: a long
    download ends in a reset for no visible reason.

Mechanism
    In LVS-NAT only the director can give answers the VIP as their source. A realserver whose
    default route, or a more specific one, or an obeyed redirect, leads past the director sends
    them to the client as they are; the client, who called the VIP, answers with a reset or drops
    them. The same happens where answers do pass the director and it does not know the connection
    any more, or conntrack calls the packet invalid: it routes them untranslated.

Evidence
    The answer with the realserver's address at the client or a router, best the SYN-ACK that
    acknowledges a SYN which went to the VIP; or, at the realserver, the answer that leaves for a
    router's MAC while its requests come from the director's; or, at the director, the answer that
    comes in and leaves with the same source.

Not this rule
    - A client that speaks to the realserver's address itself, past the VIP or by way of it.
    - LVS-DR and LVS-TUN, where answers go past the director by design and carry the VIP.
    - Health checks of the director, whose answers keep the realserver's address.
    - A redirect explains it: redirect-to-router leads, and this is listed there.

Remedy
    The director as default gateway of the realservers (the floating address of a pair), no route
    past it for client networks; send_redirects=0 on one-arm directors. Where the director itself
    lets packets pass untranslated: longer timeouts, nf_conntrack_tcp_be_liberal, a FORWARD rule
    that drops what has a realserver's address.

References
    ip_vs_out and handle_response in net/netfilter/ipvs/ip_vs_core.c; LVS-HOWTO, LVS-NAT; RFC 9293
    section 3.10.7.3 (reset in SYN-SENT).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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

MAX_CITED = 12
"""Answers cited in a finding; the full count stands beside them."""


@rule(
    title="NAT answers that bypass the director",
    severity=Severity.HIGH,
    needs=Needs(
        protocols=(IpProto.TCP, IpProto.UDP),
        text="a realserver with Ethernet headers, or the client's side",
    ),
    since="0.1",
)
def check(case: Case) -> Iterator[Outcome]:
    """Judge answers with a realserver's address, one finding per service, address and way."""
    every = case.detours.with_columns(
        pl.when(pl.col("way") == "untranslated")
        .then(pl.lit("left-untranslated"))
        .otherwise(pl.lit("reply-bypasses-director"))
        .alias("cause")
    )
    # What went past the director is seen at several places; one that it let pass is seen outside,
    # too, and is its doing.
    let_pass = every.filter(pl.col("cause") == "left-untranslated").select("connection")
    every = every.join(
        let_pass.with_columns(pl.lit(value=True).alias("let_pass")).unique(),
        on="connection",
        how="left",
        maintain_order="left",
    ).filter((pl.col("cause") == "left-untranslated") | pl.col("let_pass").is_null())
    for rows in incidents(every, "service_name", "cause", "src_hi", "src_lo"):
        yield _finding(case, rows.sort("first_ns", "connection", nulls_last=True))
    yield from _rest(case, set(every["service_name"]))


def _finding(case: Case, rows: pl.DataFrame) -> Finding:
    first = rows.row(0, named=True)
    service, code = first["service_name"], first["cause"]
    rip = case.address_text(first, "src")
    name = first["realserver_name"] or rip
    connections = rows["connection"].unique(maintain_order=True).to_list()
    from_start = rows.filter("opening")["connection"].n_unique()
    # The same answers are seen at several places: the one that shows most counts.
    most = rows.group_by("connection").agg(pl.col("packets", "payload", "client_resets").max())
    answers, payload, resets = (
        int(most[name].sum()) for name in ("packets", "payload", "client_resets")
    )
    where = [case.mac_text(mac) for mac in sorted(rows["eth_dst"].drop_nulls().unique())[:3]]
    harmless = code == "left-untranslated" and not payload and not from_start
    text = (
        "the director passes them on without giving them the VIP: it does not know, or does not "
        "accept, their connection"
        if code == "left-untranslated"
        else "the realserver sends them past the director, which alone could give them the VIP"
    )
    return Finding(
        title=f"Answers of {name} reach clients from {rip} instead of the VIP",
        summary=(
            f"Answers of {counted(len(connections), 'connection')} of {service} "
            f"carry the source {rip}"
            + (f", from the SYN-ACK on in {from_start} of them" if from_start else "")
            + (f"; clients answered with {resets} resets" if resets else "")
            + f": {text}."
        ),
        cause=Cause(code=code, text=text),
        severity=Severity.LOW if harmless else Severity.HIGH,
        confidence=Confidence.HIGH,
        evidence=_evidence(case, rows, rip),
        evidence_count=answers,
        scope=Scope(service=service, realserver=name, direction="to-client"),
        subject=rip,
        hosts={"realserver": name},
        flows=case.flow_refs(connections),
        flow_count=len(connections),
        examined_count=case.connection_count(service),
        first_seen_ns=rows["first_ns"].min(),  # type: ignore[arg-type]
        last_seen_ns=rows["first_ns"].max(),  # type: ignore[arg-type]
        count=answers,
        facts={
            "realserver": rip,
            "connections": len(connections),
            "from_the_start": from_start,
            "client_resets": resets,
            "payload_bytes": payload,
            "sent_to_macs": ", ".join(where) or None,
        },
        alternatives=_alternatives(code, bool(from_start)),
        remedies=_remedies(code, name),
        verify=(
            "ip route get CLIENT  # realserver: via the director",
            "tcpdump -ni IFACE src host REALSERVER  # client's side: silent",
        ),
        filters=Filters(wireshark=f"ip.addr == {rip}", tcpdump=f"host {rip}"),
        references=("ip_vs_core.c, handle_response", "LVS-HOWTO, LVS-NAT", "RFC 9293 3.10.7.3"),
    )


def _alternatives(code: str, from_start: bool) -> tuple[str, ...]:
    if code == "left-untranslated":
        return (
            "The entry expired while the realserver was still sending (ipvsadm -l --timeout).",
            "Conntrack called the packet invalid and undid nothing: out of window, or late.",
        )
    if from_start:
        return ("A route that is right for other traffic and too wide: ip route get CLIENT tells.",)
    return (
        "The realserver obeyed a redirect in the middle of the connection (ip route show cache).",
        "Its default route was changed while the connection lived.",
    )


def _remedies(code: str, name: str) -> tuple[Remedy, ...]:
    if code == "left-untranslated":
        return (ipvs_remedies.drop_untranslated("the director"),)
    return (ipvs_remedies.route_by_director(name),)


def _evidence(case: Case, rows: pl.DataFrame, rip: str) -> tuple[Evidence, ...]:
    notes = {
        "outside": f"an answer from {rip}, which the client never called",
        "gateway": "an answer that leaves for a MAC which is not the director's",
        "untranslated": f"the director passes an answer on with the source {rip}",
    }
    cited: list[Evidence] = []
    for row in rows.head(MAX_CITED).iter_rows(named=True):
        note = f"{notes[row['way']]}; the first of {row['packets']}"
        cited.extend(case.evidence("primary", row["vantage"], [row["row"]], note))
    return tuple(cited)


def _rest(case: Case, found: set[str | None]) -> Iterator[Outcome]:
    """Say what was looked at of the other NAT services; others have no answers to translate."""
    seen = case.connections_at("client", "router", "realserver")
    translated = case.translated_answers
    for service, method in case.service_methods.items():
        if service in found or method != "nat":
            continue
        count = max(seen.get(service, 0), translated.get(service, 0))
        if count:
            yield Clean(scope=Scope(service=service), examined=Examined(connections=count))
        else:
            yield NotExamined(
                scope=Scope(service=service),
                reason="the director shows no answers, and nothing shows where they went",
                needs=("a capture on a realserver, with Ethernet headers",),
                capture_command=case.capture_command(role="realserver", method="nat"),
            )
