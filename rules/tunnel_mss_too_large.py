"""Realservers behind a tunnel announce an MSS whose segments do not fit the tunnel.

Symptom
    None yet, or uploads that hang or start late: large forms, file uploads, requests with large
    cookies. Downloads are fine, for answers do not pass the tunnel. Every new client pays a
    round trip, or 200 ms, at its first full-sized segment; where ICMP is filtered it pays with the
    connection.

Mechanism
    The director of LVS-TUN puts 20 (IPIP), 24 (GRE) or 32 bytes (GUE) in front of what clients
    send. A realserver on a 1500-byte Ethernet announces an MSS of 1460, so that clients send
    packets of 1500 bytes, which no longer fit. The SYN-ACK goes straight to the client: no setting
    of the director can lower the MSS in it. All that saves the upload is the director's ICMP
    message to the client (fragmentation needed, MTU 1480).

Evidence
    The SYN-ACK with its MSS, the tunnel's overhead as captured, and the room there is: what ICMP
    messages name, else 1500 bytes less the overhead, unless larger tunnel packets were seen. At
    the director, where no SYN-ACK passes: client packets larger than the room, and the messages
    that refuse them. What follows: announced only (low), refused (medium), stalled (high).

Not this rule
    - An MSS that fits: 1440 for IPIP, 1436 for GRE, 1428 for GUE on 1500-byte links.
    - An MSS that a router lowers on its way to the client: what counts is what clients are told.
    - Room for more inside: tunnel packets above 1500 bytes show jumbo frames.
    - A client's own MSS: it limits the answers, which do not pass the tunnel.
    - Captured segments larger than any MTU: offload; their size on the wire is what counts.

Remedy
    At the realservers: announce an MSS that fits (a route with advmss, or TCPMSS in mangle OUTPUT),
    or give the network between director and realservers a larger MTU. Keep the director's ICMP to
    clients alive in any case.

References
    RFC 2003; RFC 9293 section 3.7.1; ensure_mtu_is_adequate and ip_vs_tunnel_xmit in
    net/netfilter/ipvs/ip_vs_xmit.c; LVS-HOWTO section 35.5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from pcapdiag.kernel import encapsulations, path_remedies, remedies
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
    Scope,
    Severity,
    rule,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
from typing import Any

CARRIER_MTU = encapsulations.ETHERNET_MTU
"""What director and realservers have between them unless something tells otherwise."""

MAX_CITED = 10
"""SYN-ACKs, and messages, cited in a finding; the full counts stand beside them."""

CAUSES = {
    "mss-too-large": "the realservers let clients send packets that do not fit once the director "
    "has put its tunnel header in front",
    "uploads-refused": "clients send packets that do not fit the tunnel and are told so by ICMP, "
    "one by one: uploads depend on those messages",
}

TOLD = (
    "Another link on the way is the narrow one: the same cure, the messages name the room.",
    "The clients cope: most do, at the price of a message and a repetition each.",
)

UNTOLD = (
    "The links inside take more than 1500 bytes: `ip link show IFACE` on both hosts tells.",
    "vs.pmtu_disc=0: the director cuts tunnel packets to pieces; uploads are slow, not stuck.",
)


@rule(
    title="MSS too large for the tunnel",
    severity=Severity.LOW,
    needs=Needs(
        protocols=(IpProto.TCP,),
        text="a realserver or a client (the SYN-ACK), and the director (the tunnel)",
    ),
    since="0.1",
)
def check(case: Case) -> Iterator[Outcome]:
    """Judge each LVS-TUN service by what clients may send and what its tunnel takes."""
    rooms, loads = case.tunnel_rooms, case.tunnel_loads
    if rooms.is_empty():
        yield NotExamined(reason="no TCP service is known to be served through a tunnel (LVS-TUN)")
    for room in rooms.iter_rows(named=True):
        inner = _inner_mtu(room)
        mine = loads.filter(pl.col("service_name") == room["service_name"])
        too_large = mine.filter((pl.col("allowed") > inner) | (pl.col("largest") > inner))
        if too_large.height:
            yield _finding(case, room, inner, too_large, examined=mine.height)
        else:
            yield _fits(case, room, inner, mine)


def _inner_mtu(room: dict[str, Any]) -> int:
    """Return how large a client's packet may be: as told, as seen to fit, else as is usual."""
    if room["told_mtu"] is not None:
        return int(room["told_mtu"])
    carrier = max(CARRIER_MTU, room["largest_outer"] or 0)
    return carrier - int(room["overhead"])


def _finding(
    case: Case, room: dict[str, Any], inner: int, loads: pl.DataFrame, examined: int
) -> Finding:
    service, version = room["service_name"], loads["ip_version"][0]
    fitting = inner - (40 if version == 4 else 60)
    told = case.told_tunnel_clients.filter(pl.col("service_name") == service)
    stalled = case.stalls.filter(
        pl.col("connection").is_in(loads["connection"].implode()),
        pl.col("direction") == "to-realserver",
    )["connection"].n_unique()
    code = "uploads-refused" if told.height else "mss-too-large"
    mss: int | None = loads["mss"].max()  # type: ignore[assignment]
    realservers = tuple(sorted(loads["realserver_name"].drop_nulls().unique()))
    connections = loads.sort(pl.col("largest") <= inner, "connection", nulls_last=True)[
        "connection"
    ]
    allowed = int(loads["allowed"].max() or loads["largest"].max())  # type: ignore[arg-type]
    evidence = _evidence(case, room, inner, connections, told)
    return Finding(
        title=f"The MSS does not fit the tunnel ({service})",
        summary=(
            f"Clients of {service} may send packets of {allowed} bytes"
            f"{f' (MSS {mss})' if mss else ''}; with the {room['overhead']} bytes of the "
            f"{room['encapsulation'] or 'ipip'} header in front, {inner} fit"
            f"{'' if room['told_mtu'] else f' a {CARRIER_MTU}-byte link'}. "
            f"{told.height} messages refused such packets, {stalled} uploads stalled."
        ),
        cause=Cause(code=code, text=CAUSES[code]),
        severity=Severity.HIGH if stalled else Severity.MEDIUM if told.height else Severity.LOW,
        confidence=Confidence.HIGH if room["told_mtu"] is not None else Confidence.LOW,
        evidence=evidence,
        evidence_count=max(len(evidence), loads.height),
        scope=Scope(
            service=service,
            realserver=realservers[0] if len(realservers) == 1 else None,
            direction="to-realserver",
        ),
        hosts={"realservers": realservers, "director": case.director_names},
        flows=case.flow_refs(connections.to_list()),
        flow_count=loads.height,
        examined_count=examined,
        first_seen_ns=told["first_ns"].min(),  # type: ignore[arg-type]
        last_seen_ns=told["first_ns"].max(),  # type: ignore[arg-type]
        count=loads.height,
        facts={
            "direction": "to-realserver",
            "mss": mss,
            "largest_sent": loads["largest"].max(),  # type: ignore[dict-item]
            "overhead": room["overhead"],
            "encapsulation": room["encapsulation"],
            "inner_mtu": inner,
            "mss_that_fits": fitting,
            "messages": told.height,
            "stalled_connections": stalled,
        },
        alternatives=TOLD if told.height else UNTOLD,
        remedies=(
            remedies.clamp_mss(", ".join(realservers) or "the realservers", version, inner),
            path_remedies.larger_inside_mtu("director and realservers", inner, room["overhead"]),
        ),
        verify=(
            "tcpdump -ni IFACE -v 'tcp[13] & 0x12 == 0x12'  # realserver: the MSS in new SYN-ACKs",
            f"# from a client: an upload of 100 kB to {service} completes at once",
        ),
        filters=Filters(
            wireshark=f"tcp.options.mss_val > {fitting} || icmp.type == 3 && icmp.code == 4",
            tcpdump="tcp[13] & 2 != 0 or icmp[0:2] == 0x0304 or ip proto 4 or ip proto 47",
        ),
        references=("RFC 9293 section 3.7.1", "ip_vs_tunnel_xmit in ip_vs_xmit.c"),
    )


def _evidence(
    case: Case, room: dict[str, Any], inner: int, connections: pl.Series, told: pl.DataFrame
) -> tuple[Evidence, ...]:
    result: list[Evidence] = []
    seen = case.mss_announcements(connections)
    for row in seen.filter(pl.col("mss") > inner - 60).head(MAX_CITED).iter_rows(named=True):
        note = f"SYN-ACK: MSS {row['mss']}"
        result += case.evidence("primary", row["vantage"], [row["row"]], note)
    for row in told.head(MAX_CITED).iter_rows(named=True):
        note = (
            f"a client's packet of {row['quoted_ip_len']} bytes refused, MTU {row['next_hop_mtu']}"
        )
        result += case.evidence("primary", row["seen_vantage"], [row["seen_row"]], note)
    if not result:
        rows = case.largest_client_packets(connections.head(MAX_CITED))
        for row in rows.iter_rows(named=True):
            note = f"a client's packet of {row['ip_len']} bytes"
            result += case.evidence("primary", row["vantage"], [row["row"]], note)
    if room["tunnel_row"] is not None:
        note = f"tunnel packet: {room['overhead']} bytes in front, {room['largest_outer']} in all"
        result += case.evidence("related", room["tunnel_vantage"], [room["tunnel_row"]], note)
    return tuple(result)


def _fits(case: Case, room: dict[str, Any], inner: int, loads: pl.DataFrame) -> Outcome:
    scope = Scope(service=room["service_name"], direction="to-realserver")
    known = loads.filter(pl.col("mss").is_not_null())
    if known.is_empty():
        return NotExamined(
            scope=scope,
            reason="no SYN-ACK of the realservers was captured: in LVS-TUN it does not pass the "
            "director",
            needs=("a capture on a realserver, or on a client",),
            capture_command=case.capture_command(role="realserver", method="tun"),
        )
    allowed = int(known["allowed"].max())  # type: ignore[arg-type]
    return Clean(
        scope=scope,
        examined=Examined(connections=known.height),
        note=f"clients may send {allowed} bytes, and {inner} fit the tunnel",
    )
