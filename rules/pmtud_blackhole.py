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
    size and DF, and never acknowledged, while smaller packets to the same peer were: the peer was
    heard of later, or (of two clients at least) its SACKs show smaller packets that were sent after
    the lost ones. Or, where only the director was captured, at least three too-big messages that
    quote the same sequence number.
    A packet larger than any MTU is a segmentation-offload artefact and counts as its wire size.
    Where a sender found a smaller size by itself (tcp_mtu_probing: 1024, 512 bytes of data) the
    finding is of low severity: a delay of seconds, no outage. How the hung sockets stand at the
    realserver (FIN_WAIT1, CLOSE_WAIT, ESTABLISHED) follows from the FINs that were seen.

Not this rule
    - Packets of at most 576 bytes (IPv4) or 1280 bytes (IPv6): size is not why they were lost.
    - The same size reached the same peer on another connection: ordinary loss.
    - The peer closed its window: the sender probes, it is not black-holed.
    - Another ICMP error answers the packet: it was refused, see host-prohibited-established.
    - A too-big message that arrives and makes the sender shrink: path MTU discovery works, and the
      clean verdict says so. Told less than 552 bytes Linux gives up DF: that passes, too.
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

from pcapdiag.kernel import encapsulations, remedies, tcp_sender
from pcapdiag.protocols import IpProto
from pcapdiag.rule import (
    Case,
    Cause,
    Clean,
    Confidence,
    Examined,
    Filters,
    Finding,
    Needs,
    NotExamined,
    Outcome,
    Remedy,
    Scope,
    Severity,
    SizeFate,
    StallTotals,
    counted,
    incidents,
    rule,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

MOSTLY_BAD = 0.5
"""Share of the messages whose checksum is known to be broken where none came through in order: a
capture lacks a sight of some, and those look as if they had vanished."""

EXEMPLARS = 3
"""Connections cited frame by frame in a finding: enough to see that they are alike."""

FEW = 2
"""Lost packets for each message from which the messages are fewer than they should be."""

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
    "through to the sender's side: a filter in front of it takes it away",
    "icmp-not-heeded": "the message that names the smaller MTU reached the sender, which went on "
    "with the same size; the captures cut it too short to tell whether its checksum is right",
    "icmp-lost-on-the-way": "the message that names the smaller MTU was sent, but did not come "
    "through to the sender; whether the director or a filter in front of it took it away is not "
    "known from these captures",
    "tunnel-overhead": "the packets no longer fit once the director has put its tunnel header "
    "around "
    "them, and the client is not told",
    "no-icmp-generated": "no message about these packets was seen, although it would have been: it "
    "was filtered before these captures, or the hop that drops the packets sends none",
    "icmp-not-captured": "whether anybody told the sender is not known from these captures",
}


PEER_GONE = (
    "The peer went away in the middle: less likely, since it was heard of after the stall began, "
    "or other packets of the path came through."
)
OTHER_DROP = (
    "A device that drops large packets for another reason (a faulty link, a policer): the sizes "
    "cannot tell; a capture behind the suspected hop can."
)
ORDINARY_LOSS = (
    "Ordinary loss: less likely, since every repetition was lost and none of this size arrived."
)


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
    stalls = _proven(case).with_columns(
        _cause_code(case).alias("cause"), pl.col("recovered_len").is_not_null().alias("recovered")
    )
    for alike in incidents(stalls, "service_name", "direction", "cause", "recovered"):
        yield _finding(case, alike)
    yield from _rest(case, stalls)


def _proven(case: Case) -> pl.DataFrame:
    """Return the stalls of which size is the proven or the likely reason."""
    stalls = case.stalls
    told = (pl.col("ptb_messages") > 0) & (
        (pl.col("ptb_mtu") < pl.col("wire_stuck_len")) | (pl.col("ptb_unusable") > 0)
    )
    # A SACK beyond the stuck bytes: what was sent after them arrived, being smaller.
    holed = (pl.col("sacked") > pl.col("stuck_offset")).fill_null(value=False)
    several = (
        pl.struct("client_hi", "client_lo")
        .filter(holed)
        .n_unique()
        .over("service_name", "direction")
        >= MIN_CONNECTIONS_WITHOUT_ICMP
    )
    sized = (pl.col("peer_alive") | (holed & several)) & pl.col("path_delivered").is_not_null()
    return stalls.filter(told | sized).with_columns(told.alias("told"))


def _cause_code(case: Case) -> pl.Expr:
    """Return the code: who was told, and how far the message came."""
    upload = pl.col("direction") == "to-realserver"
    untold = (
        pl.when((pl.col("method") == "tun") & upload)
        .then(pl.lit("tunnel-overhead"))
        .otherwise(pl.lit("no-icmp-generated" if any(case.icmp_visible) else "icmp-not-captured"))
    )
    # What a director got about nobody known may be what was seen before it: rewritten, or cut.
    at_director = case.outside_captured and not case.strange_too_big
    spoilt = (pl.col("ptb_bad") >= MOSTLY_BAD * pl.col("ptb_messages")) & (
        pl.col("ptb_sound_onward") == 0
    )
    arrived, missed = pl.col("ptb_at_director") > 0, pl.col("ptb_missed") > 0
    ignored = (
        pl.when(pl.col("ptb_unverified") + pl.col("ptb_bad") == pl.col("ptb_messages"))
        .then(pl.lit("icmp-not-heeded"))
        .otherwise(pl.lit("icmp-ignored-by-sender"))
    )
    return (
        pl.when(pl.col("ptb_messages") == 0)
        .then(untold)
        .when(
            spoilt
            | ((pl.col("ptb_reached") > 0) & (pl.col("ptb_reached_bad") == pl.col("ptb_reached")))
        )
        .then(pl.lit("icmp-corrupt"))
        .when(pl.col("ptb_unusable") == pl.col("ptb_messages"))
        .then(pl.lit("icmp-unusable"))
        # The sender listened, and what it sends now is lost without a word.
        .when((pl.col("reaction") == "shrank").fill_null(value=False))
        .then(untold)
        .when(pl.col("ptb_reached") > 0)
        .then(ignored)
        .when((pl.col("ptb_swallowed") > 0) | (pl.col("ptb_misdelivered") > 0))
        .then(pl.lit("icmp-not-forwarded"))
        .when((pl.col("ptb_forwarded") > 0) & ~missed)
        .then(ignored)
        .when((pl.col("ptb_forwarded") == 0) & arrived & missed & ~upload)
        .then(pl.lit("icmp-not-forwarded"))
        .when((missed & upload) | (~arrived & ~upload & at_director))
        .then(pl.lit("icmp-filtered-upstream"))
        .when(missed)
        .then(pl.lit("icmp-lost-on-the-way"))
        .when((pl.col("method") == "tun") & upload)
        .then(pl.lit("tunnel-overhead"))
        .otherwise(pl.lit("icmp-not-captured"))
    )


def _finding(case: Case, stalls: pl.DataFrame) -> Finding:
    first = stalls.row(0, named=True)
    service, direction, code = first["service_name"], first["direction"], first["cause"]
    sender = "realserver" if direction == "to-client" else "client"
    totals = case.stall_totals(stalls)
    next_hop_mtu = totals.bounds["next_hop_mtu"]
    realservers = tuple(sorted(stalls["realserver_name"].drop_nulls().unique()))
    exemplars = stalls.sort("told", "stuck_repeats", "connection", descending=[True, True, False])
    evidence, ladder = case.stall_proof(exemplars.head(EXEMPLARS), sender)
    examined = case.sizes.filter(
        pl.col("service_name").eq_missing(service), pl.col("direction") == direction
    )
    return Finding(
        title=f"Large packets {_towards(direction)} never arrive ({service})",
        summary=_summary(stalls, totals),
        cause=Cause(code=code, text=CAUSES[code]),
        severity=Severity.LOW if first["recovered"] else Severity.HIGH,
        confidence=_confidence(stalls),
        evidence=evidence,
        scope=Scope(
            service=service,
            realserver=realservers[0] if len(realservers) == 1 else None,
            direction=direction,
        ),
        subject="recovered" if first["recovered"] else "",
        hosts=_hosts(case, realservers, code),
        flows=case.flow_refs(exemplars["connection"].to_list()),
        flow_count=stalls.height,
        examined_count=max(stalls.height, int(examined["connections"].sum())),
        first_seen_ns=stalls["stuck_first_ns"].min(),  # type: ignore[arg-type]
        last_seen_ns=stalls["stuck_last_ns"].max(),  # type: ignore[arg-type]
        count=int(stalls["stuck_repeats"].sum()),
        facts={
            "direction": direction,
            "stalled_connections": stalls.height,
            **totals.bounds,
            **totals.messages,
            **totals.ends,
        },
        ladder=ladder,
        sizes=tuple(
            SizeFate(ip_length=row["size"], delivered=row["delivered"], lost=row["lost"])
            for row in case.path_sizes(stalls).iter_rows(named=True)
        ),
        alternatives=_alternatives(stalls, code),
        remedies=_remedies(case, code, direction, realservers, first, next_hop_mtu),
        verify=_verify(service, direction, next_hop_mtu),
        filters=Filters(
            wireshark="icmp.type == 3 && icmp.code == 4 || icmpv6.type == 2 || "
            "tcp.analysis.retransmission",
            tcpdump="icmp[icmptype] == 3 and icmp[icmpcode] == 4 or icmp6[0] == 2",
        ),
        references=("RFC 1191", "RFC 8201", "RFC 2923 section 2.1", "LVS-HOWTO section 35.1"),
    )


def _summary(stalls: pl.DataFrame, totals: StallTotals) -> str:
    first, ends = stalls.row(0, named=True), totals.ends
    largest = totals.bounds["largest_delivered"]
    text = (
        f"{counted(stalls.height, 'connection')} of {first['service_name']} stalled: packets of "
        f"{totals.bounds['smallest_lost']} bytes were repeated and never acknowledged"
        + (f", while packets up to {largest} bytes were" if largest else "")
        + "."
    )
    if first["recovered"]:
        how = " (as tcp_mtu_probing does)" if ends["recovered_by_probing"] else ""
        text += (
            f" After up to {ends['longest_stall_s']:.1f} s the senders found by themselves that "
            f"{ends['recovered_at']} bytes pass{how}."
        )
    elif ends:
        hung = ", ".join(f"{ends[key]} {key[5:].upper()}" for key in ends)
        text += f" Their sockets hang at the realservers: {hung}."
    if totals.explanation:
        text += f" The path MTU {totals.explanation}."
    return f"{text} Cause: {CAUSES[first['cause']]}."


def _towards(direction: str) -> str:
    return "to clients" if direction == "to-client" else "to realservers"


def _confidence(stalls: pl.DataFrame) -> Confidence:
    if bool(stalls["told"].any()):
        return Confidence.HIGH
    if stalls.height >= MIN_CONNECTIONS_WITHOUT_ICMP:
        return Confidence.MEDIUM
    return Confidence.LOW


def _hosts(case: Case, realservers: tuple[str, ...], code: str) -> dict[str, str | tuple[str, ...]]:
    hosts: dict[str, str | tuple[str, ...]] = {"realservers": realservers}
    if code == "icmp-not-forwarded":
        hosts["director"] = case.director_names
    return hosts


def _alternatives(stalls: pl.DataFrame, code: str) -> tuple[str, ...]:
    if code in ("no-icmp-generated", "icmp-not-captured", "tunnel-overhead"):
        return (PEER_GONE, OTHER_DROP)
    messages, sends = int(stalls["ptb_messages"].sum()), int(stalls["stuck_repeats"].sum())
    if messages * FEW < sends:
        few = f"The hop limits the rate of its ICMP ({messages} messages, {sends} lost packets)"
        return (ORDINARY_LOSS, f"{few}: that delays a sender and does not stop it.")
    return (ORDINARY_LOSS,)


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
    elif code in ("icmp-ignored-by-sender", "icmp-not-heeded") and direction == "to-client":
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
            elif (stopped := _unclear(case, service, direction, row["suspect_len"])) > 0:
                yield NotExamined(
                    scope=scope,
                    reason=f"{stopped} connections stopped at large packets, and what would tell "
                    "why stood in header bytes that the captures cut off",
                    needs=("whole packets (snaplen 0)",),
                    capture_command=case.capture_command(role="director"),
                )
            elif (heedless := _heedless(case, service, direction)) > 0:
                yield NotExamined(
                    scope=scope,
                    reason=f"{counted(heedless, 'sender')} went on with larger packets though told "
                    "of a smaller MTU; the captures end before it shows whether these arrive",
                    needs=("captures that go on for a minute or more",),
                    capture_command=case.capture_command(role="director"),
                )
            else:
                yield Clean(
                    scope=scope,
                    examined=Examined(connections=row["connections"]),
                    note=f"packets up to {row['largest_delivered']} bytes were acknowledged, "
                    f"none stalled by size{_discovery(case, service, direction)}",
                )


def _unclear(case: Case, service: str, direction: str, suspect_len: int) -> int:
    """Count the connections that stopped for a reason which cut headers may have hidden."""
    if not any(quality.headers_cut.count for quality in case.qualities):
        return 0
    return case.stalls.filter(
        pl.col("service_name") == service,
        pl.col("direction") == direction,
        pl.col("wire_stuck_len") >= suspect_len,
    ).height


def _heedless(case: Case, service: str, direction: str) -> int:
    """Count the senders that kept their size though told of a smaller path MTU, in vain so far."""
    sender = "realserver" if direction == "to-client" else "client"
    kept = case.reactions.filter(pl.col("sender") == sender, pl.col("reaction") == "kept")
    if kept.is_empty():
        return 0
    names = case.members.select("connection", "service_name")
    told = case.error_forms.filter("is_ptb", pl.col("quoted_sender").cast(pl.String) == sender)
    went_on = case.error_aftermath(told).filter("progress").select("message")
    through = told.join(went_on, on="message", how="semi").select("connection")
    return (
        kept.join(through, on="connection", how="anti")
        .join(names, on="connection")
        .filter(pl.col("service_name") == service)
        .height
    )


def _discovery(case: Case, service: str, direction: str) -> str:
    """Return what senders did that were told of a smaller path MTU, for a clean verdict's note."""
    if case.reactions.is_empty():
        return ""
    sender = "realserver" if direction == "to-client" else "client"
    names = case.members.select("connection", "service_name")
    told = case.reactions.join(names, on="connection").filter(
        pl.col("sender") == sender, pl.col("service_name") == service
    )
    shrank = told.filter(pl.col("reaction") == "shrank")
    without_df = told.filter(pl.col("reaction") == "df-cleared")
    text = ""
    if shrank.height:
        least = int(shrank["told_mtu"].min())  # type: ignore[arg-type]
        text += (
            f"; path MTU discovery works: {shrank.height} senders were told of {least} bytes or "
            "more and keep to it"
        )
    if without_df.height:
        least = int(without_df["told_mtu"].min())  # type: ignore[arg-type]
        text += (
            f"; {without_df.height} senders were told of {least} bytes and gave up DF, as Linux "
            f"does below {tcp_sender.MIN_PMTU}"
        )
    return text


def _unseen(case: Case, scope: Scope) -> NotExamined:
    role = "realserver" if scope.direction == "to-client" else "client"
    return NotExamined(
        scope=scope,
        reason="no capture holds both the data of this direction and its acknowledgements",
        needs=(f"a capture on a {role}",),
        capture_command=case.capture_command(role=role),
    )
