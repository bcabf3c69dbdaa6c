"""TCP or UDP packets arrive in bursts with checksums that fail, and their receivers drop them.

Symptom
    Connections that never open: SYNs repeated after 1, 3 and 7 seconds, though they arrive. Or
    transfers that stall and crawl. Pods or containers of one node cannot reach those of another,
    while ping between the nodes works. `nstat` counts TcpInCsumErrors or UdpInCsumErrors; nothing
    is logged.

Mechanism
    A box rewrites addresses, ports or options and does not correct the checksum, which covers them;
    memory fails behind a link whose own check is right; or a network card is left to make a
    checksum that it does not understand, as with the UDP header in front of VXLAN packets that
    were translated on their way out. The receiver drops such packets before any socket or ip_vs
    sees them (or after, in LVS-DR and LVS-TUN: those pass them on).

Evidence
    At least five packets within a minute, captured whole, that arrive with a checksum their bytes
    contradict; whether the difference is always the same; the last capture before in which the
    same packet was right. Small captures are verified whole; of large ones the connections that
    repeat packets or get no answer, which is what bad checksums do to them.

Not this rule
    - Packets that leave the capturing host: its card makes the sum later.
    - A field that holds the pseudo-header's sum: the card, or the other end of a virtual wire, was
      to complete it; nobody verifies such packets.
    - Segments merged on receipt: the first one's checksum stands before all of them.
    - Packets that were acknowledged without repetition: the receiver took them.
    - Packets that are right at a place further on, cut frames, fragments, UDP without a checksum.
    - A few bad ones now and then: wires and memory do that.

Remedy
    Find the box: packets enter it in order and leave it broken. Where the outer UDP checksum of a
    tunnel fails: ethtool -K IFACE tx-checksum-ip-generic off on the tunnel interface of the sender,
    or newer drivers and kernels.

References
    RFC 1071; RFC 1624 section 3; RFC 768; RFC 7348 section 5; RFC 9293 section 3.1; Stone and
    Partridge, SIGCOMM 2000; Documentation/networking/checksum-offloads.rst.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from pcapdiag.kernel import path_remedies
from pcapdiag.protocols import IpProto, proto_name
from pcapdiag.rule import (
    MAX_INCIDENTS,
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
    rule,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

BURST = 5
"""Bad packets of one kind at one vantage within WINDOW_NS: single ones are noise, and a box that
breaks checksums breaks all of them."""

WINDOW_NS = 60_000_000_000

LEAST_SHARE = 0.05
"""Of the packets verified there that are of that kind: same service, side, protocol and layer. One
bad in twenty repeats already halves a transfer, and wires that break one in a thousand make no
burst."""

MOST_CUT = 0.5
"""Share of the packets with data, or that open a connection, of which a capture may lack the end
before "every checksum is right" says nothing of what travels."""

MAX_CITED = 20
"""Packets cited in a finding; the full count stands beside them."""

CAUSES = {
    "outer-checksum": "the UDP checksum in front of tunnelled packets is wrong: the card or driver "
    "of the tunnel's sender makes it wrong, and the tunnel's end drops the packets",
    "rewritten-without-checksum": "the difference is always the same: something on the way "
    "rewrites a field and does not correct the checksum",
    "corrupted": "the difference is another each time, as from corruption, truncation, or a field "
    "that is rewritten to one value whatever it was",
}


@rule(
    title="Burst of TCP or UDP packets with bad checksums",
    severity=Severity.HIGH,
    needs=Needs(
        protocols=(IpProto.TCP, IpProto.UDP),
        text="where the packets arrive, whole frames (snaplen 0), as a file",
    ),
    since="0.1",
)
def check(case: Case) -> Iterator[Outcome]:
    """Judge bad sums, one finding per service, direction, protocol and layer."""
    bad = case.bad_sums.filter(~pl.col("accepted"))
    keys = ["service_name", "sender", "ip_proto", "layer"]
    at = (
        bad.group_by(*keys, "vantage")
        .len()
        .sort("len", *keys, "vantage", descending=[True, *[False] * 5], nulls_last=True)
        .unique(keys, keep="first", maintain_order=True)
    )
    verified = case.kinds_verified
    found = 0
    for group in at.head(MAX_INCIDENTS).iter_rows(named=True):
        kind = [pl.col(key).eq_missing(pl.lit(group[key])) for key in keys]
        at_place = pl.col("vantage") == group["vantage"]
        mine = bad.filter(kind)
        here = mine.filter(at_place)
        every = int(verified.filter(*kind, at_place).get_column("verified").sum())
        if not _bursts(here) or here.height < LEAST_SHARE * every:
            continue
        found += 1
        yield _finding(case, mine, here, every)
    total = sum(case.sums_verified)
    for reason in case.sums_unread:
        yield NotExamined(
            reason=f"{reason}, and checksums are verified from the frames themselves",
            needs=("the capture as a file",),
        )
    cut, carrying = case.sums_cut
    if not found and cut > MOST_CUT * carrying:
        yield NotExamined(
            reason=f"{cut} of {carrying} TCP and UDP packets that carry something were not "
            "captured whole, so that their checksums cannot be verified",
            needs=("whole packets (snaplen 0)",),
            capture_command=case.capture_command(role="realserver"),
        )
    elif not found and total:
        yield Clean(
            examined=Examined(packets=total),
            note="too few bad checksums for a burst" if bad.height else "every checksum is right",
        )
    elif not found and not case.sums_unread:
        yield NotExamined(
            reason="no TCP or UDP packet was captured whole, so that no checksum can be verified",
            needs=("whole packets (snaplen 0)",),
            capture_command=case.capture_command(role="realserver"),
        )


def _bursts(bad: pl.DataFrame) -> bool:
    """Return whether BURST of them lie within WINDOW_NS."""
    times = bad["time_ns"].drop_nulls().sort()
    spans = times.shift(-(BURST - 1)) - times
    return bool((spans <= WINDOW_NS).any())


def _finding(case: Case, bad: pl.DataFrame, here: pl.DataFrame, verified: int) -> Finding:
    first = here.row(0, named=True)
    code = _code(here)
    proto = proto_name(first["ip_proto"]).upper()
    what = f"outer UDP in front of {proto}" if first["layer"] == "outer" else proto
    names = {vantage.index: vantage.name for vantage in case.vantages}
    vantage = names[first["vantage"]]
    before = here["good_before"].drop_nulls().unique(maintain_order=True).to_list()
    senders = here.select("src_hi", "src_lo").unique(maintain_order=True)
    sender = case.address_text(first, "src") if senders.height == 1 else None
    mac = case.mac_text(first["eth_src"]) if here["eth_src"].n_unique() == 1 else None
    connections = here["connection"].drop_nulls().unique(maintain_order=True).to_list()
    residuals = here["residual"].unique()
    direction = {"client": "to-realserver", "realserver": "to-client"}.get(first["sender"])
    times = here["time_ns"].drop_nulls()
    where = f" between {before[0]} and {vantage}" if before else f" before {vantage}"
    service = first["service_name"]
    return Finding(
        title=f"{what} packets arrive with bad checksums" + (f" ({service})" if service else ""),
        summary=(
            f"{here.height} {what} packets from {sender or f'{senders.height} hosts'} arrive at "
            f"{vantage} with checksums that fail, and their receiver drops them; they were broken"
            f"{where}: {CAUSES[code]}."
        ),
        cause=Cause(code=code, text=CAUSES[code]),
        severity=Severity.HIGH,
        confidence=Confidence.HIGH,
        evidence=_evidence(case, here),
        evidence_count=here.height,
        scope=Scope(service=service, direction=direction),
        subject=mac or "",
        hosts=_hosts(case, first["eth_src"], mac, vantage, before),
        flows=case.flow_refs(connections),
        flow_count=len(connections),
        examined_count=case.connection_count(service) if service else len(connections),
        first_seen_ns=times.min(),  # type: ignore[arg-type]
        last_seen_ns=times.max(),  # type: ignore[arg-type]
        count=here.height,
        facts={
            "protocol": what,
            "packets": here.height,
            "verified": verified,
            "senders": senders.height,
            "sender": sender,
            "sender_mac": mac,
            "residual": f"0x{residuals[0]:04x}" if residuals.len() == 1 else None,
            "different_residuals": residuals.len(),
            "last_right_at": before[0] if before else None,
            "seen_at": tuple(names[index] for index in sorted(bad["vantage"].unique())),
        },
        alternatives=(
            "The capture shows them otherwise than they came: less likely, for nobody took them.",
            "The last hop shown by the MAC address only passes them on: capture before it.",
        ),
        remedies=_remedies(first["layer"], sender, mac),
        verify=("nstat -az TcpInCsumErrors UdpInCsumErrors Udp6InCsumErrors  # receiver: stand",),
        filters=Filters(
            wireshark='tcp.checksum.status == "Bad" || udp.checksum.status == "Bad"',
            tcpdump=f"src host {sender}" if sender else "tcp or udp",
        ),
        references=("RFC 1624", "checksum-offloads.rst", "SIGCOMM 2000 (Stone, Partridge)"),
    )


def _code(bad: pl.DataFrame) -> str:
    if bad["layer"][0] == "outer":
        return "outer-checksum"
    return "rewritten-without-checksum" if bad["residual"].n_unique() == 1 else "corrupted"


def _hosts(
    case: Case, eth_src: int | None, mac: str | None, vantage: str, before: list[str]
) -> dict[str, str | tuple[str, ...]]:
    hosts: dict[str, str | tuple[str, ...]] = {"seen_at": vantage}
    if mac is not None:
        hosts["last_hop"] = case.host_of_mac(eth_src) or mac
    if before:
        hosts["last_right_at"] = before[0]
    return hosts


def _evidence(case: Case, bad: pl.DataFrame) -> tuple[Evidence, ...]:
    result: list[Evidence] = []
    for row in bad.head(MAX_CITED).iter_rows(named=True):
        layer = "outer UDP" if row["layer"] == "outer" else proto_name(row["ip_proto"]).upper()
        note = f"{layer} checksum off by 0x{row['residual']:04x}"
        result += case.evidence("primary", row["vantage"], [row["row"]], note)
    return tuple(result)


def _remedies(layer: str, sender: str | None, mac: str | None) -> tuple[Remedy, ...]:
    if layer == "outer":
        return (path_remedies.no_generic_checksum_offload("the tunnel's sender"),)
    return (path_remedies.find_corrupter(sender or mac or "the senders"),)
