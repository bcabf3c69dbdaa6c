"""Large packets vanish on the way and their sender is never told, or does not listen.

Symptom
    Connections open and small answers come, then large transfers hang. Logins work, pages do not.
    Sockets of the sender pile up with unacknowledged data (FIN_WAIT1 at realservers). Only clients
    behind some links are hit: tunnels, DSL, VPNs.

Mechanism
    A sender sets "don't fragment" and learns the path MTU from the ICMP message of the hop that
    could not pass the packet on (3/4, or ICMPv6 type 2). In an LVS cluster that message is
    addressed to the VIP, hence to the director, which must hand it to the realserver that owns the
    connection. Where it is filtered, swallowed, broken or ignored, the sender repeats the same
    large packet with doubling intervals (0.2, 0.4, 0.8 ... s) until it gives up after about 15
    minutes.

Evidence
    The same sequence number sent at least three times, after at least two timeouts, with one large
    size and DF, and never acknowledged, while smaller packets to the same peer were; or, where only
    the director was captured, at least three too-big messages that quote the same sequence number.
    A packet larger than any MTU is a segmentation-offload artefact and counts as its wire size.

Not this rule
    - Packets of at most 576 bytes (IPv4) or 1280 bytes (IPv6): size is not why they were lost.
    - The same size reached the same peer on another connection: ordinary loss.
    - The peer closed its window: the sender probes, it is not black-holed.
    - Another ICMP error answers the packet: it was refused, see host-prohibited-established.
    - A too-big message that arrives and makes the sender shrink: path MTU discovery works.
    - A stall that lies within the last retransmission interval of the capture.

Remedy
    Let the ICMP through: INPUT of the director (NAT, DR, TUN alike: ip_vs looks only behind the
    filter table), INPUT of the realserver, firewalls on the way. In TUN, leave room for the outer
    header: a larger MTU inside, or a smaller MSS announced by the realservers. Until then
    net.ipv4.tcp_mtu_probing=1 at the sender.

References
    RFC 1191, RFC 8201, RFC 2923 section 2.1, RFC 4821 section 7.7; ip_vs_in_icmp in
    net/netfilter/ipvs/ip_vs_core.c; LVS-HOWTO section 35.1 and 35.5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from pcapdiag.kernel import encapsulations, remedies
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
    LadderStep,
    Needs,
    NotExamined,
    Outcome,
    Remedy,
    Scope,
    Severity,
    SizeFate,
    rule,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
from typing import Any

MAX_GROUPS = 1000
"""Incidents judged: far more than a person reads; the rest is counted in the summary."""

EXEMPLARS = 3
"""Connections cited frame by frame in a finding: enough to see that they are alike."""

MIN_CONNECTIONS_WITHOUT_ICMP = 2
"""Stalls that no ICMP message explains are called likely from two connections on: one alone may
be a peer that went away."""

CAUSES = {
    "icmp-corrupt": "the message that names the smaller MTU arrived with a broken ICMP checksum, "
    "so "
    "every host on the way ignores it",
    "icmp-unusable": "the message that should name the smaller MTU names none that the sender can "
    "use",
    "icmp-not-forwarded": "the message that names the smaller MTU reached the director, and the "
    "director did not hand it to the realserver",
    "icmp-ignored-by-sender": "the message that names the smaller MTU reached the sender, which "
    "went "
    "on with the same size: a firewall on that host, or its TCP, discards the message",
    "icmp-filtered-upstream": "the message that names the smaller MTU was sent, but did not come "
    "through to the sender's side",
    "tunnel-overhead": "the packets no longer fit once the director has put its tunnel header "
    "around "
    "them, and the client is not told",
    "no-icmp-generated": "no message about these packets was seen, although it would have been: it "
    "was filtered before these captures, or the hop that drops the packets sends none",
    "icmp-not-captured": "whether anybody told the sender is not known: these captures hold no "
    "ICMP",
}


@rule(
    title="Path MTU discovery black hole",
    severity=Severity.HIGH,
    needs=Needs(
        protocols=(IpProto.TCP,),
        text="the sender's side (a realserver for downloads, a client or router for uploads), and "
        "the director for the cause",
    ),
    since="0.1",
)
def check(case: Case) -> Iterator[Outcome]:
    """Judge the stalls by size, one finding per service, direction and cause."""
    stalls = _proven(case).with_columns(_cause_code(any(case.icmp_visible)).alias("cause"))
    groups = stalls.group_by("service_name", "direction", "cause", maintain_order=True).agg(
        pl.len().alias("connections")
    )
    groups = groups.sort(
        "connections", "service_name", "direction", "cause", descending=[True, *[False] * 3]
    )
    for group in groups.head(MAX_GROUPS).iter_rows(named=True):
        yield _finding(
            case,
            stalls.filter(
                pl.col("service_name").eq_missing(group["service_name"]),
                pl.col("direction") == group["direction"],
                pl.col("cause") == group["cause"],
            ),
        )
    yield from _rest(case, stalls)


def _proven(case: Case) -> pl.DataFrame:
    """Return the stalls of which size is the proven or the likely reason."""
    stalls = case.stalls
    told = (pl.col("ptb_messages") > 0) & (
        (pl.col("ptb_mtu") < pl.col("wire_stuck_len")) | (pl.col("ptb_unusable") > 0)
    )
    sized = pl.col("peer_alive") & pl.col("path_delivered").is_not_null()
    return stalls.filter(told | sized).with_columns(told.alias("told"))


def _cause_code(icmp_visible: bool) -> pl.Expr:
    untold = (
        pl.when((pl.col("method") == "tun") & (pl.col("direction") == "to-realserver"))
        .then(pl.lit("tunnel-overhead"))
        .otherwise(pl.lit("no-icmp-generated" if icmp_visible else "icmp-not-captured"))
    )
    return (
        pl.when(pl.col("ptb_messages") == 0)
        .then(untold)
        .when(pl.col("ptb_bad") == pl.col("ptb_messages"))
        .then(pl.lit("icmp-corrupt"))
        .when(pl.col("ptb_unusable") == pl.col("ptb_messages"))
        .then(pl.lit("icmp-unusable"))
        .when(pl.col("ptb_reached") > 0)
        .then(pl.lit("icmp-ignored-by-sender"))
        .when((pl.col("ptb_swallowed") > 0) | (pl.col("ptb_misdelivered") > 0))
        .then(pl.lit("icmp-not-forwarded"))
        .when(pl.col("ptb_forwarded") > 0)
        .then(pl.lit("icmp-ignored-by-sender"))
        .otherwise(pl.lit("icmp-filtered-upstream"))
    )


def _finding(case: Case, stalls: pl.DataFrame) -> Finding:
    first = stalls.row(0, named=True)
    service, direction, code = first["service_name"], first["direction"], first["cause"]
    smallest_lost = int(stalls["wire_stuck_len"].min())  # type: ignore[arg-type]
    delivered = stalls["path_delivered"].max()
    largest_delivered = None if delivered is None else int(delivered)  # type: ignore[arg-type]
    mtu = stalls.filter("told")["ptb_mtu"].min()
    next_hop_mtu = None if mtu is None else int(mtu)  # type: ignore[arg-type]
    realservers = tuple(sorted(stalls["realserver_name"].drop_nulls().unique()))
    sender = "realserver" if direction == "to-client" else "client"
    exemplars = stalls.sort("told", "stuck_repeats", "connection", descending=[True, True, False])
    evidence, ladder = _proof(case, exemplars.head(EXEMPLARS), sender)
    examined = case.sizes.filter(
        pl.col("service_name").eq_missing(service), pl.col("direction") == direction
    )
    count = stalls.height
    return Finding(
        title=f"Large packets {_towards(direction)} never arrive ({service})",
        summary=(
            f"{count} connection{'s' * (count != 1)} of {service} stalled: packets of "
            f"{smallest_lost} bytes were repeated and never acknowledged"
            + (f", while packets up to {largest_delivered} bytes were" if largest_delivered else "")
            + f". Cause: {CAUSES[code]}."
        ),
        cause=Cause(code=code, text=CAUSES[code]),
        severity=Severity.HIGH,
        confidence=_confidence(stalls),
        evidence=evidence,
        scope=Scope(
            service=service,
            realserver=realservers[0] if len(realservers) == 1 else None,
            direction=direction,
        ),
        hosts=_hosts(case, realservers, code),
        flows=case.flow_refs(exemplars["connection"].to_list()),
        flow_count=count,
        examined_count=max(count, int(examined["connections"].sum())),
        first_seen_ns=stalls["stuck_first_ns"].min(),  # type: ignore[arg-type]
        last_seen_ns=stalls["stuck_last_ns"].max(),  # type: ignore[arg-type]
        count=int(stalls["stuck_repeats"].sum()),
        facts={
            "direction": direction,
            "stalled_connections": count,
            "largest_delivered": largest_delivered,
            "smallest_lost": smallest_lost,
            "next_hop_mtu": next_hop_mtu,
            "icmp_messages": int(stalls["ptb_messages"].sum()),
            "icmp_not_forwarded": int(stalls["ptb_swallowed"].sum()),
            "explained_by": tuple(
                row.name
                for row in encapsulations.explain_mtu(
                    next_hop_mtu or largest_delivered, (next_hop_mtu or smallest_lost - 1) + 1
                )
            ),
        },
        ladder=ladder,
        sizes=_sizes(stalls),
        alternatives=_alternatives(code),
        remedies=_remedies(case, code, direction, realservers, first, next_hop_mtu),
        verify=_verify(service, direction, next_hop_mtu),
        filters=Filters(
            wireshark="icmp.type == 3 && icmp.code == 4 || icmpv6.type == 2 || "
            "tcp.analysis.retransmission",
            tcpdump="icmp[icmptype] == 3 and icmp[icmpcode] == 4 or icmp6[0] == 2",
        ),
        references=("RFC 1191", "RFC 8201", "RFC 2923 section 2.1", "LVS-HOWTO section 35.1"),
    )


def _towards(direction: str) -> str:
    return "to clients" if direction == "to-client" else "to realservers"


def _confidence(stalls: pl.DataFrame) -> Confidence:
    if bool(stalls["told"].any()):
        return Confidence.HIGH
    if stalls.height >= MIN_CONNECTIONS_WITHOUT_ICMP:
        return Confidence.MEDIUM
    return Confidence.LOW


def _proof(
    case: Case, exemplars: pl.DataFrame, sender: str
) -> tuple[tuple[Evidence, ...], tuple[LadderStep, ...]]:
    """Return the frames that prove each exemplar, and the ladder of the first."""
    evidence: list[Evidence] = []
    ladder: tuple[LadderStep, ...] = ()
    for stall in exemplars.iter_rows(named=True):
        steps: list[LadderStep] = []
        packets: tuple[Evidence, ...] = ()
        if stall["source"] == "packets":
            packets = _packets(case, stall)
        messages = _messages(case, stall, primary=not packets)
        evidence.extend((*packets, *messages))
        receiver = "client" if sender == "realserver" else "realserver"
        steps.extend(
            LadderStep(
                from_=sender,
                to=receiver,
                label=f"{stall['wire_stuck_len']} bytes, DF, seq {stall['stuck_seq']}",
                fate="lost",
                frames=(f"{item.vantage}:{item.frame}",),
                time_ns=item.time_ns,
            )
            for item in packets
        )
        steps.extend(
            LadderStep(
                from_="network",
                to="director" if stall["ptb_at_director"] else "network",
                label=f"too big, MTU {stall['ptb_mtu']}",
                fate="seen" if stall["ptb_reached"] else "lost",
                frames=(f"{item.vantage}:{item.frame}",),
                time_ns=item.time_ns,
            )
            for item in messages
        )
        if not ladder:
            ladder = tuple(sorted(steps, key=lambda step: step.time_ns or 0))
    return tuple(evidence), ladder


def _packets(case: Case, stall: dict[str, Any]) -> tuple[Evidence, ...]:
    history = case.history(stall["vantage"], stall["flow"])
    sends = (history.orig if stall["by_orig"] else history.resp).stuck_series
    if not sends:
        return ()
    waits = ", ".join(f"{send.after_ns / 1e9:.1f}" for send in sends if send.after_ns is not None)
    size = stall["wire_stuck_len"]
    note = f"{size} bytes with DF, sent {len(sends)} times, never acknowledged"
    first = case.evidence("primary", stall["vantage"], [sends[0].row], f"{note}: the first time")
    last = case.evidence(
        "primary",
        stall["vantage"],
        [sends[-1].row],
        f"{note}: the last time, after waits of {waits} s",
    )
    return (*first, *last) if len(sends) > 1 else first


def _messages(case: Case, stall: dict[str, Any], *, primary: bool) -> tuple[Evidence, ...]:
    about = case.too_big.filter(
        pl.col("connection") == stall["connection"],
        pl.col("quoted_sender").cast(pl.String) == stall["sender"],
    ).sort((pl.col("quoted_tcp_seq") != stall["stuck_seq"]).fill_null(value=True), "first_ns")
    evidence: list[Evidence] = []
    for message in about.head(2).iter_rows(named=True):
        fate = {
            "swallowed": "it came in and never went out",
            "wrong-realserver": "it went to the wrong realserver",
            "wrong-translation": "it went out with a wrong translation",
            "forwarded": "the director passed it on",
        }.get(message["verdict"] or "", "its further way was not seen")
        broken = "with a bad checksum, " if message["icmp_checksum"] == "bad" else ""
        evidence.extend(
            case.evidence(
                "primary" if primary or message["verdict"] == "swallowed" else "related",
                message["seen_vantage"],
                [message["seen_row"]],
                f"too big, {broken}next-hop MTU {message['next_hop_mtu']}, about a packet of "
                f"{message['quoted_ip_len']} bytes: {fate}",
            )
        )
    return tuple(evidence)


def _hosts(case: Case, realservers: tuple[str, ...], code: str) -> dict[str, str | tuple[str, ...]]:
    hosts: dict[str, str | tuple[str, ...]] = {"realservers": realservers}
    if code == "icmp-not-forwarded":
        hosts["director"] = case.director_names
    return hosts


def _sizes(stalls: pl.DataFrame) -> tuple[SizeFate, ...]:
    lost = stalls.group_by(pl.col("wire_stuck_len").alias("size")).agg(pl.len().alias("lost"))
    delivered = (
        stalls.filter(pl.col("path_delivered").is_not_null())
        .group_by(pl.col("path_delivered").alias("size"))
        .agg(pl.len().alias("delivered"))
    )
    both = lost.join(delivered, on="size", how="full", coalesce=True).fill_null(0).sort("size")
    return tuple(
        SizeFate(ip_length=row["size"], delivered=row["delivered"], lost=row["lost"])
        for row in both.iter_rows(named=True)
    )


def _alternatives(code: str) -> tuple[str, ...]:
    if code in ("no-icmp-generated", "icmp-not-captured", "tunnel-overhead"):
        return (
            (
                "The peer went away in the middle: less likely, since it was heard of after the "
                "stall "
                "began, or other packets of the path came through."
            ),
            (
                "A device that drops large packets for another reason (a faulty link, a policer): "
                "the "
                "sizes cannot tell; a capture behind the suspected hop can."
            ),
        )
    return (
        (
            "Ordinary loss: less likely, since every repetition was lost and none of this size "
            "arrived."
        ),
    )


def _remedies(
    case: Case,
    code: str,
    direction: str,
    realservers: tuple[str, ...],
    first: dict[str, object],
    next_hop_mtu: int | None,
) -> tuple[Remedy, ...]:
    version = 6 if first["ip_version"] == 6 else 4
    director = ", ".join(case.director_names) or "the director"
    senders = ", ".join(realservers) or "the realservers"
    result: list[Remedy] = []
    if code == "icmp-not-forwarded":
        result.append(remedies.accept_icmp_errors(director, version))
    elif code == "icmp-ignored-by-sender" and direction == "to-client":
        result.append(remedies.accept_icmp_errors(senders, version))
    if direction == "to-realserver":
        mtu = next_hop_mtu or encapsulations.ETHERNET_MTU - encapsulations.IPIP_OVERHEAD
        result.append(remedies.clamp_mss(senders, version, mtu))
    else:
        result.append(remedies.probe_mtu(senders))
    return tuple(result)


def _verify(service: str | None, direction: str, next_hop_mtu: int | None) -> tuple[str, ...]:
    if direction == "to-realserver":
        return (f"# from a hit client: an upload of 100 kB to {service} completes",)
    size = (next_hop_mtu or 1400) - 28  # IP and ICMP headers
    return (
        "ss -tnoi state established  # realserver, during a large download: retrans does not grow",
        f"ping -c 3 -M do -s {size} CLIENT  # realserver: a hit client answers",
    )


def _rest(case: Case, stalls: pl.DataFrame) -> Iterator[Outcome]:
    """Say for each service and direction what is clean and what could not be looked at."""
    found = set(stalls.select("service_name", "direction").iter_rows())
    seen = {
        (row["service_name"], row["direction"]): row for row in case.sizes.iter_rows(named=True)
    }
    services = sorted({row[0] for row in (*seen, *found) if row[0]} | set(case.tcp_service_names))
    for service in services:
        for direction in ("to-client", "to-realserver"):
            if (service, direction) in found:
                continue
            scope = Scope(service=service, direction=direction)
            row = seen.get((service, direction))
            if row is None:
                yield _unseen(case, scope)
            elif (row["largest_sent"] or 0) < row["suspect_len"]:
                yield NotExamined(
                    scope=scope,
                    reason=f"nothing larger than {row['largest_sent']} bytes was sent, so the path "
                    "MTU was never tried",
                    needs=("a capture during a large transfer",),
                )
            else:
                yield Clean(
                    scope=scope,
                    examined=Examined(connections=row["connections"]),
                    note=f"packets up to {row['largest_delivered']} bytes were acknowledged, "
                    "none stalled by size",
                )


def _unseen(case: Case, scope: Scope) -> NotExamined:
    role = "realserver" if scope.direction == "to-client" else "client"
    return NotExamined(
        scope=scope,
        reason="no capture holds both the data of this direction and its acknowledgements",
        needs=(f"a capture on a {role}",),
        capture_command=case.capture_command(role=role),
    )
