"""An ICMP error arrives, and whoever gets it can do nothing with what it says.

Symptom
    As with a path MTU black hole, but a trace shows the messages: they come, again and again, and
    the sender does not change. Or it changes too much: segments of 512 bytes without DF.

Mechanism
    A host acts on an error only if it names something usable and quotes enough of its own packet to
    find the socket. Some routers name next-hop MTU 0 (from before RFC 1191), or one that is not
    below the packet that did not fit, or count merged segments (receive offload) as one packet.
    Some quote less than eight bytes behind the IP header, or zeros, or addresses that a translation
    on the way left as they were. Some send from an address that filters drop, or to themselves.

Evidence
    The message, and the packet it quotes where that was captured. Causes:
    mtu-zero, mtu-below-minimum (68 bytes in IPv4, 1280 in IPv6), mtu-not-below-quoted,
    receive-offload (the quoted length is more than the MSS lets anyone send, and all that could be
    sent fits), quote-too-short, quote-zeroed, quote-untranslated, source-not-routable,
    self-addressed.

Not this rule
    - The first messages that a tunnelling director relays: they name a stale MTU, the next one is
      right. A smaller MTU soon after, or acknowledged data, shows it.
    - An MTU of 68 to 551 bytes: legal, though Linux answers it with DF cleared.
    - A quote of 28 bytes: RFC 792 asks for no more. A box that wants more is the one at fault.
    - An error from a private address that reached its receiver: ugly, and it worked.
    - A host that talks to itself on its loopback interface.
    - A bad checksum: see icmp-checksum-burst. A quote that the director itself translated wrongly:
      see icmp-unreachable-not-forwarded.

Remedy
    At the box that sends the message: its next-hop MTU, its NAT, its source address. On a director
    with receive offload: ethtool -K IFACE gro off lro off. Until then tcp_mtu_probing=1 at the
    sender, or an MSS that fits.

References
    RFC 792; RFC 1191 section 4; RFC 8201 section 4; RFC 1812 section 4.3.2; RFC 5508 section 4.2;
    RFC 6890; __ip_rt_update_pmtu in net/ipv4/route.c; icmp_socket_deliver in net/ipv4/icmp.c;
    ip_vs_in_icmp in net/netfilter/ipvs/ip_vs_core.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from pcapdiag.kernel import path_remedies, remedies
from pcapdiag.protocols import IPV4_MIN_MTU, IPV6_MIN_MTU, IpProto, icmp_name
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
from typing import Any

LEAST_QUOTE = {4: 20 + 8, 6: 40 + 8}
"""IP header and eight bytes: ports and, for TCP, the sequence number (RFC 792; Linux counts less as
IcmpInErrors, icmp_socket_deliver)."""

LEAST_TUNNEL_QUOTE = 20 + 20 + 8
"""What ip_vs_in_icmp needs of the director's own tunnel packet: outer header, inner header and the
inner ports. GRE and GUE headers come on top."""

MAX_CITED = 20
"""Messages cited in a finding; the full count stands beside them."""

CAUSES = {
    "mtu-zero": "it names next-hop MTU 0, as routers from before RFC 1191 do: Linux then sends 552 "
    "bytes without DF for ten minutes, others guess, some ignore it",
    "mtu-below-minimum": "it names a next-hop MTU below what every link must carry: no sender may "
    "believe it",
    "mtu-not-below-quoted": "it names a next-hop MTU that the packet it is about did not exceed: "
    "the sender has nothing to change",
    "receive-offload": "it is about segments that were merged on receipt: no packet that the "
    "sender may send exceeds the MTU that it names",
    "quote-too-short": "it quotes too little of the packet for anyone to find the connection",
    "quote-zeroed": "what it quotes is no packet: no header, no addresses",
    "quote-untranslated": "it quotes addresses that its receiver never used: a translation on the "
    "way changed the message's own addresses and not the quoted ones",
    "source-not-routable": "it comes from an address that routers and filters do not let through",
    "self-addressed": "it is addressed to the very host that sends it, not to the packet's sender",
}


@rule(
    title="ICMP errors that their receivers cannot use",
    severity=Severity.MEDIUM,
    needs=Needs(
        protocols=(IpProto.ICMP, IpProto.ICMPV6),
        text="where the messages arrive (director, realserver or client), whole ICMP packets",
    ),
    since="0.1",
)
def check(case: Case) -> Iterator[Outcome]:
    """Judge what errors say, one finding per cause, sender and service."""
    errors = case.error_forms.with_columns(_cause(case).alias("cause"))
    suspects = _without_the_harmless(case, errors.filter(pl.col("cause").is_not_null()))
    for same in incidents(suspects, "cause", "service_name", "sight_src_hi", "sight_src_lo"):
        of_service = pl.col("service_name").eq_missing(pl.lit(same["service_name"][0]))
        yield _finding(case, same, examined=errors.filter(of_service))
    if suspects.is_empty():
        yield _nothing(case, errors)


def _cause(case: Case) -> pl.Expr:
    least = pl.when(pl.col("ip_version") == 4).then(IPV4_MIN_MTU).otherwise(IPV6_MIN_MTU)
    mtu, sent = pl.col("next_hop_mtu"), pl.col("sent_len")
    needed = pl.col("ip_version").replace_strict(LEAST_QUOTE, default=48, return_dtype=pl.Int64)
    merged = (sent > pl.col("sender_limit")) & (mtu >= pl.col("sender_limit")) & (mtu < sent)
    # The connection of such a quote is known only by its other end, if at all.
    told_another = (
        (pl.col("sight_dst_hi") != pl.col("quoted_src_hi"))
        | (pl.col("sight_dst_lo") != pl.col("quoted_src_lo"))
    ) & (pl.col("quoted_tunnel").is_null() & ~pl.col("tunnel_end"))
    misjudged = pl.col("verdict").cast(pl.String) == "wrong-translation"
    self_addressed = (
        (pl.col("sight_src_hi") == pl.col("sight_dst_hi"))
        & (pl.col("sight_src_lo") == pl.col("sight_dst_lo"))
        & pl.col("on_wire")
    )
    return (
        pl.when(self_addressed)
        .then(pl.lit("self-addressed"))
        .when(
            pl.col("quoted_version").is_null() & (pl.col("quoted_len") >= 20),
            pl.col("icmp_checksum") == "ok",  # captured whole: a cut quote has no header, either
        )
        .then(pl.lit("quote-zeroed"))
        .when(
            (pl.col("quoted_len") < needed)
            | (pl.col("tunnel_end") & (pl.col("quoted_len") < LEAST_TUNNEL_QUOTE))
        )
        .then(pl.lit("quote-too-short"))
        .when(
            told_another.fill_null(value=False) | pl.col("quote_inside"),
            ~misjudged.fill_null(value=False),
        )
        .then(pl.lit("quote-untranslated"))
        .when(pl.col("is_ptb"), mtu == 0)
        .then(pl.lit("mtu-zero"))
        .when(pl.col("is_ptb"), mtu < least)
        .then(pl.lit("mtu-below-minimum"))
        .when(pl.col("is_ptb"), sent > 0, mtu >= sent)
        .then(pl.lit("mtu-not-below-quoted"))
        .when(pl.col("is_ptb"), merged)
        .then(pl.lit("receive-offload"))
        .when(
            pl.col("src_scope").is_in(["impossible", "link"])
            & (pl.col("dst_scope") != "link")
            & pl.col("on_wire")
        )
        .then(pl.lit("source-not-routable"))
        .when(
            pl.col("src_scope") == "private",
            pl.col("dst_scope") == "global",
            pl.col("reached_sender") == False,  # noqa: E712 - null is neither
            # What came to the director passed every filter before it: what then became of it is
            # the director's doing.
            (pl.col("quoted_sender").cast(pl.String) != "realserver")
            | (pl.lit(case.outside_captured) & ~pl.col("at_director")),
            ~pl.col("behind_nat"),
        )
        .then(pl.lit("source-not-routable"))
    )


def _without_the_harmless(case: Case, suspects: pl.DataFrame) -> pl.DataFrame:
    """Leave out stale MTUs that were set right: by a later message, or as what was sent shows."""
    if suspects.is_empty():
        return suspects.with_columns(pl.lit(None, pl.Boolean).alias("progress"))
    after = case.error_aftermath(suspects)
    stale = pl.col("cause") == "mtu-not-below-quoted"
    relayed = (pl.col("method") == "tun") & (pl.col("quoted_sender").cast(pl.String) == "client")
    return suspects.join(after, on="message", how="left", maintain_order="left").filter(
        ~(stale & pl.col("smaller_later").fill_null(value=False)),
        ~(stale & relayed & pl.col("progress")).fill_null(value=False),
    )


def _finding(case: Case, errors: pl.DataFrame, examined: pl.DataFrame) -> Finding:
    first = errors.row(0, named=True)
    cause, version = first["cause"], first["ip_version"]
    sender = case.address_text(first, "sight_src")
    receiver = case.address_text(first, "sight_dst")
    connections = errors["connection"].drop_nulls().unique(maintain_order=True).to_list()
    stalled = _stalled(case, connections)
    kinds = errors.group_by("ip_version", "icmp_type", "icmp_code").len()
    kinds = kinds.sort("len", "icmp_type", "icmp_code", descending=True)
    words = ", ".join(
        f"{row['len']} x {icmp_name(row['ip_version'], row['icmp_type'], row['icmp_code'])}"
        for row in kinds.iter_rows(named=True)
    )
    service = first["service_name"]
    went_on = bool(errors["progress"].all(ignore_nulls=False))
    return Finding(
        title=f"ICMP errors from {sender} are of no use to their receiver"
        + (f" ({service})" if service else ""),
        summary=(
            f"{counted(errors.height, 'message')} ({words}) from {sender} to "
            f"{receiver}{' and others' * (errors['sight_dst_lo'].n_unique() > 1)}: {CAUSES[cause]}."
        ),
        cause=Cause(code=cause, text=CAUSES[cause]),
        severity=_severity(cause, stalled, went_on=went_on),
        confidence=_confidence(case, cause, errors),
        evidence=_evidence(case, errors),
        evidence_count=errors.height,
        scope=Scope(
            service=service,
            realserver=first["realserver_name"]
            if errors["realserver_name"].n_unique() == 1
            else None,
            direction=_direction(errors),
        ),
        subject=sender,
        hosts=_hosts(case, first, sender, receiver),
        flows=case.flow_refs(connections),
        flow_count=len(connections),
        examined_count=examined["connection"].drop_nulls().n_unique(),
        first_seen_ns=errors["first_ns"].min(),  # type: ignore[arg-type]
        last_seen_ns=errors["first_ns"].max(),  # type: ignore[arg-type]
        count=errors.height,
        facts={
            "messages": errors.height,
            "sender": sender,
            "next_hop_mtu": errors["next_hop_mtu"].max(),  # type: ignore[dict-item]
            "quoted_ip_length": errors["quoted_ip_len"].max(),  # type: ignore[dict-item]
            "quoted_bytes": errors["quoted_len"].min(),  # type: ignore[dict-item]
            "largest_by_mss": errors["sender_limit"].max(),  # type: ignore[dict-item]
            "stalled_connections": stalled,
            "data_went_on": went_on,
        },
        alternatives=_alternatives(cause, sender),
        remedies=_remedies(case, cause, first, sender),
        verify=_verify(version, sender),
        filters=_filters(cause, version, sender),
        references=_references(cause),
    )


def _stalled(case: Case, connections: list[int]) -> int:
    stalls = case.stalls
    return int(stalls.filter(pl.col("connection").is_in(connections))["connection"].n_unique())


def _severity(cause: str, stalled: int, *, went_on: bool) -> Severity:
    if stalled:
        return Severity.HIGH
    if went_on and cause in ("mtu-not-below-quoted", "source-not-routable", "quote-too-short"):
        return Severity.LOW
    return Severity.MEDIUM


def _confidence(case: Case, cause: str, errors: pl.DataFrame) -> Confidence:
    """Most causes can be read off one message; that one never arrived is said by coverage."""
    if cause != "source-not-routable" or errors["src_scope"][0] != "private":
        return Confidence.HIGH
    receivers = [item.index for item in case.vantages_of("client", "realserver")]
    to_servers = errors["quoted_sender"][0] == "realserver"
    proven = any(
        case.absence_is_proof(index, errors.height, by_client=to_servers) for index in receivers
    )
    return Confidence.MEDIUM if proven else Confidence.LOW


def _evidence(case: Case, errors: pl.DataFrame) -> tuple[Evidence, ...]:
    result: list[Evidence] = []
    for row in errors.head(MAX_CITED).iter_rows(named=True):
        vantage = row["seen_vantage"]
        result += case.evidence("primary", vantage, [row["seen_row"]], _note(case, row))
        if row["quoted_row"] is not None:
            note = f"the packet it is about: {row['sent_len']} bytes"
            result += case.evidence("related", vantage, [row["quoted_row"]], note)
    return tuple(dict.fromkeys(result))


def _note(case: Case, row: dict[str, Any]) -> str:
    name = icmp_name(row["ip_version"], row["icmp_type"], row["icmp_code"])
    match row["cause"]:
        case "mtu-zero" | "mtu-below-minimum" | "mtu-not-below-quoted":
            return (
                f"{name}: next-hop MTU {row['next_hop_mtu']} for a packet of {row['sent_len']}"
                " bytes"
            )
        case "receive-offload":
            return (
                f"{name}: quotes {row['quoted_ip_len']} bytes, where the MSS allows"
                f" {row['sender_limit']}, and asks for {row['next_hop_mtu']}"
            )
        case "quote-too-short" | "quote-zeroed":
            return f"{name}: quotes {row['quoted_len']} bytes"
        case "quote-untranslated":
            told = case.address_text(row, "sight_dst")
            source = case.address_text(row, "quoted_src")
            target = case.address_text(row, "quoted_dst")
            return f"{name}: told {told}, about a packet from {source} to {target}"
        case "self-addressed":
            return f"{name}: sent to its own source {case.address_text(row, 'sight_src')}"
        case _:
            return (
                f"{name}: from {case.address_text(row, 'sight_src')} ({row['src_scope']}) to"
                f" {case.address_text(row, 'sight_dst')}"
            )


def _direction(errors: pl.DataFrame) -> str | None:
    senders = errors["quoted_sender"].cast(pl.String).unique().to_list()
    return {"client": "to-realserver", "realserver": "to-client"}.get(
        senders[0] if len(senders) == 1 else None  # type: ignore[arg-type]
    )


def _hosts(
    case: Case, first: dict[str, Any], sender: str, receiver: str
) -> dict[str, str | tuple[str, ...]]:
    hosts: dict[str, str | tuple[str, ...]] = {"sender": sender, "receiver": receiver}
    if first["seen_eth_src"]:
        hosts["last_hop"] = case.host_of_mac(first["seen_eth_src"]) or case.mac_text(
            first["seen_eth_src"]
        )
    return hosts


def _alternatives(cause: str, sender: str) -> tuple[str, ...]:
    if cause == "receive-offload":
        return (
            "A device before the sender merged the segments: the same cure, at that device.",
            f"The capture changed the length: less likely, since {sender} made the quote.",
        )
    if cause == "source-not-routable":
        return (
            "The messages were lost on the way like any packet: less likely the more there are.",
        )
    if cause in ("quote-untranslated", "quote-zeroed"):
        return (f"{sender} itself quotes wrongly: a capture before the last translation tells.",)
    return (
        f"A box behind {sender} changed the message: less likely, for it made its checksum anew.",
    )


def _remedies(case: Case, cause: str, first: dict[str, Any], sender: str) -> tuple[Remedy, ...]:
    version = first["ip_version"]
    receivers = {
        "client": "the clients",
        "realserver": first["realserver_name"] or "the realservers",
    }
    receiver = receivers.get(str(first["quoted_sender"]), "the receiver of the messages")
    if cause == "receive-offload":
        director = ", ".join(case.director_names) or "the director"
        return (path_remedies.no_receive_offload(director),)
    if cause == "source-not-routable":
        return (path_remedies.errors_from_inbound_address(f"the router {sender}"),)
    if cause in ("quote-untranslated", "quote-zeroed", "self-addressed"):
        return (path_remedies.find_rewriter(sender),)
    if cause == "quote-too-short":
        return (remedies.probe_mtu(receiver),)
    return (
        path_remedies.name_next_hop_mtu(f"the router {sender}", version),
        remedies.probe_mtu(receiver),
    )


def _verify(version: int, sender: str) -> tuple[str, ...]:
    counter = "nstat -az IcmpInErrors IcmpInDestUnreachs TcpExtOutOfWindowIcmps"
    if version == 6:
        counter = "nstat -az Icmp6InErrors Icmp6InPktTooBigs"
    look = f"tcpdump -ni IFACE -vv '{'icmp' if version == 4 else 'icmp6'} and src host {sender}'"
    return (f"{counter}  # receiver: errors stand still", f"{look}  # what it sends now")


def _filters(cause: str, version: int, sender: str) -> Filters:
    name, proto, source = (
        ("icmp", "icmp", "ip.src") if version == 4 else ("icmpv6", "icmp6", "ipv6.src")
    )
    extra = {
        "mtu-zero": f" && {name}.mtu == 0",
        "mtu-below-minimum": f" && {name}.mtu < {IPV4_MIN_MTU if version == 4 else IPV6_MIN_MTU}",
    }.get(cause, f" && {name}.type < {12 if version == 4 else 128}")
    return Filters(
        wireshark=f"{source} == {sender}{extra}", tcpdump=f"{proto} and src host {sender}"
    )


def _references(cause: str) -> tuple[str, ...]:
    if cause.startswith("mtu-"):
        return ("RFC 1191 section 4", "RFC 8201 section 4", "__ip_rt_update_pmtu in route.c")
    return {
        "receive-offload": ("ensure_mtu_is_adequate in ip_vs_xmit.c", "RFC 9293 section 3.7.1"),
        "source-not-routable": ("RFC 6890", "RFC 1812 section 4.3.2.4"),
    }.get(cause, ("RFC 792", "RFC 5508 section 4.2", "icmp_socket_deliver in icmp.c"))


def _nothing(case: Case, errors: pl.DataFrame) -> Outcome:
    if errors.height:
        return Clean(
            examined=Examined(icmp_errors=errors.height),
            note="every ICMP error quotes its packet and names what its receiver can use",
        )
    return NotExamined(
        reason="no ICMP error about the cluster's packets was captured with its checksum in order",
        needs=("a capture where the errors arrive, while the fault shows",),
        capture_command=case.capture_command(role="director"),
    )
