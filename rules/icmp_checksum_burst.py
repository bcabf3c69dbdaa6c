"""ICMP messages arrive in bursts with checksums that fail, and every receiver ignores them.

Symptom
    Kernel logs of old directors filled with "IP_MASQ:reverse ICMP: failed checksum from ...", new
    ones count IcmpInCsumErrors in silence. Where the messages were frag-needed, clients hang.

Mechanism
    A NAT, firewall or load balancer rewrites the packet quoted inside an ICMP error and does not
    correct the ICMP checksum, which covers the quote; or a box cuts the quote; or memory fails. The
    difference between the checksum found and the one the bytes demand is what was changed: the same
    number over and over for a fixed rewrite.

Evidence
    At least five messages of one sender within a minute whose checksum fails over exactly the bytes
    the IP length names, all of them captured; and what fits the difference in all of them. Where
    the same messages were captured in order before, what changed is read off and the box between
    named. Kernel logs given with --facts are counted in, "last message repeated" included.

Not this rule
    - Cut frames (snaplen) and fragments: their checksums cannot be verified, they count as neither.
    - A bad checksum of the IP header that is quoted: harmless, routers change TTLs.
    - What the capturing host itself sends: its network card may make the sum later.
    - A single message: noise.

Remedy
    Find the box: the messages enter it in order and leave it broken. RFC 5508 asks a NAT to drop or
    mend such messages, never to pass them on.

References
    RFC 792; RFC 1071; RFC 1624 section 3; RFC 5508 section 4.2; Stone and Partridge, SIGCOMM 2000;
    LVS-HOWTO section 35.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from pcapdiag.kernel import remedies
from pcapdiag.protocols import IpProto, icmp_name
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
    Scope,
    Severity,
    Timeline,
    rule,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

BURST = 5
"""Bad messages of one sender within WINDOW_NS: single ones are noise, and a box that breaks
checksums breaks all of them."""

WINDOW_NS = 60_000_000_000

MAX_CITED = 20
"""Messages cited in a finding; the full count stands beside them."""

LOGGED = "icmp-checksum"
"""The kind of log line that counts here, see facts/kernel_log.py."""

MAX_LOGGED = 20
"""Senders of the logs alone that are named; a log with more is better read itself."""

MAX_BEFORE = 3
"""Sights of messages still in order that are cited: enough to find the place between."""

MAX_ID_STEP = 16
"""IP IDs apart that one counter may be for two messages in a row: others go out in between."""

RUN_SHARE = 0.8
"""Share of such steps from which the messages come from one counter, hence one node."""

MAX_TTLS = 8
"""Different TTLs named; one sender has one or two, and more say that there are several."""

MAX_BINS = 120
"""Bars of the timeline: more are not told apart on a page."""


@rule(
    title="Burst of ICMP messages with bad checksums",
    severity=Severity.MEDIUM,
    needs=Needs(
        protocols=(IpProto.ICMP, IpProto.ICMPV6),
        text="any point on the way, whole ICMP packets (snaplen 0)",
    ),
    since="0.1",
)
def check(case: Case) -> Iterator[Outcome]:
    """Judge bad checksums, one finding per sender address."""
    bad = case.bad_checksums
    bursts = bad.filter(_in_burst())
    senders = (
        bursts.group_by("src_hi", "src_lo", "vantage")
        .len()
        .sort("len", "src_hi", "src_lo", "vantage", descending=[True, False, False, False])
        .unique(["src_hi", "src_lo"], keep="first", maintain_order=True)
    )
    for sender in senders.head(MAX_INCIDENTS).iter_rows(named=True):
        yield _finding(
            case,
            bursts.filter(*(pl.col(key) == sender[key] for key in ("src_hi", "src_lo", "vantage"))),
        )
    yield from _logged_only(case, senders)
    verified = case.verified_checksums
    if senders.height == 0 and case.checksums_that_may_be_sent >= BURST:
        yield NotExamined(
            reason=f"{case.checksums_that_may_be_sent} messages with bad checksums leave, or may "
            "leave, the capturing host, whose network card may make the sum later",
            needs=("whole packets (snaplen 0) where they arrive",),
            capture_command=case.capture_command(role="director"),
        )
    elif senders.height == 0 and verified:
        yield Clean(
            examined=Examined(icmp_errors=verified),
            note="too few bad checksums for a burst" if bad.height else "every checksum is right",
        )
    elif senders.height == 0:
        yield NotExamined(
            reason="no ICMP message was captured whole, so that no checksum can be verified",
            needs=("whole packets (snaplen 0)",),
            capture_command=case.capture_command(role="director"),
        )


def _logged_only(case: Case, senders: pl.DataFrame) -> Iterator[NotExamined]:
    """Say which hosts log bad checksums of senders that no capture shows."""
    shown = {case.address_text(row, "src") for row in senders.iter_rows(named=True)}
    logged: dict[tuple[str, str | None], int] = {}
    for log in case.facts.logs:
        for item in log.counts:
            if item.kind == LOGGED and item.sender not in shown and item.lines >= BURST:
                key = (log.host, item.sender)
                logged[key] = logged.get(key, 0) + item.lines
    by_count = sorted(logged.items(), key=lambda item: (-item[1], str(item[0])))
    for (host, sender), lines in by_count[:MAX_LOGGED]:
        if sender is None and shown:
            continue  # these lines may be about the messages that are reported
        whom = f"from {sender}" if sender else "whose sender they do not name"
        yield NotExamined(
            scope=Scope(),
            reason=f"the kernel log of {host} counts {lines} ICMP messages with bad checksums "
            f"{whom}; these captures show no burst of them",
            needs=(f"a capture on {host} while its log grows, whole ICMP packets",),
            capture_command=case.capture_command(role="director"),
        )


def _logs(case: Case, sender: str) -> tuple[dict[str, Any], str]:
    """Return what kernel logs count of this sender's messages, and a sentence about it."""
    lines = case.facts.log_lines(LOGGED, sender)
    unnamed = sum(case.facts.log_lines(LOGGED).values()) - sum(
        item.lines
        for log in case.facts.logs
        for item in log.counts
        if item.kind == LOGGED and item.sender is not None
    )
    facts = {
        "kernel_log_lines": sum(lines.values()) if case.facts.logs else None,
        "kernel_log_lines_without_sender": unnamed if case.facts.logs else None,
    }
    told = ", ".join(f"{count} in that of {host}" for host, count in sorted(lines.items()))
    return facts, f" Kernel logs hold {told}." if told else ""


def _in_burst() -> pl.Expr:
    """Return whether a message has BURST of its sender within WINDOW_NS, itself among them."""
    over = ["vantage", "src_hi", "src_lo"]
    counts = [
        (
            pl.col("time_ns").shift(-ahead).over(over)
            - pl.col("time_ns").shift(BURST - 1 - ahead).over(over)
        )
        <= WINDOW_NS
        for ahead in range(BURST)
    ]
    return pl.any_horizontal([count.fill_null(value=False) for count in counts])


def _finding(case: Case, bad: pl.DataFrame) -> Finding:
    first = bad.row(0, named=True)
    sender = case.address_text(first, "src")
    macs = tuple(case.mac_text(mac) for mac in sorted(bad["eth_src"].drop_nulls().unique()))
    cause, facts = _cause(case, bad)
    times = bad["time_ns"].drop_nulls()
    logs, logged = _logs(case, sender)
    span_s = (int(times.max()) - int(times.min())) / 1e9 if times.len() else 0.0  # type: ignore[arg-type]
    connections = bad["connection"].drop_nulls().unique(maintain_order=True).to_list()
    return Finding(
        title=f"ICMP from {sender} arrives with bad checksums",
        summary=(
            f"{bad.height} messages ({_kinds(bad)}) from {sender} within {span_s:.1f} s fail their "
            f"checksum and are ignored by whoever they are for: {cause.text}." + logged
        ),
        cause=cause,
        severity=Severity.MEDIUM,
        confidence=Confidence.HIGH,
        evidence=_evidence(case, bad),
        evidence_count=bad.height,
        scope=Scope(),
        subject=sender,
        hosts={"sender": sender, **_breaker(facts)},
        flows=case.flow_refs(connections),
        flow_count=len(connections),
        examined_count=len(connections),
        first_seen_ns=times.min(),  # type: ignore[arg-type]
        last_seen_ns=times.max(),  # type: ignore[arg-type]
        count=bad.height,
        facts={
            "sender": sender,
            "sender_mac": macs[0] if len(macs) == 1 else (macs or None),
            "messages": bad.height,
            "span_s": round(span_s, 6),
            "messages_a_second": round(bad.height / span_s, 3) if span_s else None,
            "explanation": cause.text,
            **facts,
            **_node(bad),
            **_broken(bad),
            **logs,
        },
        timeline=_timeline(times),
        alternatives=(
            (
                "The sender itself makes them wrong: less likely for a fixed difference that is a "
                "known rewrite, excluded where they were seen in order before."
            ),
            "The last hop shown by the MAC address only passes them on: capture before it.",
        ),
        remedies=(remedies.find_checksum_breaker(sender),),
        verify=("nstat -az IcmpInCsumErrors  # receiver: stands still",),
        filters=Filters(
            wireshark='icmp.checksum.status == "Bad" || icmpv6.checksum.status == "Bad"',
            tcpdump=f"icmp and src host {sender}"
            if first["ip_version"] == 4
            else f"icmp6 and src host {sender}",
        ),
        references=("RFC 1624", "RFC 5508 section 4.2", "LVS-HOWTO section 35.3"),
    )


def _cause(case: Case, bad: pl.DataFrame) -> tuple[Cause, dict[str, Any]]:
    """Return what spoilt the checksums: as seen on both sides of it, or by arithmetic."""
    explanation = case.explain_checksums(bad)
    both, changed, mac = case.checksum_changes(bad)
    residuals = bad["icmp_residual"].unique().to_list()
    facts: dict[str, Any] = {
        "residual": f"0x{residuals[0]:04x}" if len(residuals) == 1 else None,
        "seen_in_order_before": both,
        "changed_fields": tuple(changed),
        "breaker_mac": None if mac is None else case.mac_text(mac),
        "breaker": None if mac is None else case.host_of_mac(mac),
    }
    if both < BURST or not changed:
        return Cause(code=explanation.code, text=explanation.text), facts
    code = explanation.code
    if "icmp_len" in changed:
        code = "quote-truncated"
    elif code != "bit-error":
        code = "rewrite-without-checksum"
    seen = f"{', and '.join(changed.values())}, as {both} messages show that were seen before it"
    bit = f" ({explanation.text})" if code == "bit-error" else ""
    return Cause(code=code, text=f"{seen}{bit}, and the ICMP checksum was not made anew"), facts


def _breaker(facts: dict[str, Any]) -> dict[str, str]:
    """Return the host that spoils the checksums, where it is the one hop between two captures."""
    name = facts["breaker"] or facts["breaker_mac"]
    return {"breaker": name} if name else {}


def _node(bad: pl.DataFrame) -> dict[str, Any]:
    """Return what tells the sending node apart: TTLs, a run of IP IDs, what it quotes."""
    ids = bad.sort("time_ns")["ip_id"].drop_nulls().cast(pl.Int64)
    steps = ids.diff().drop_nulls() % (1 << 16)
    run = ((steps > 0) & (steps <= MAX_ID_STEP)).mean() if steps.len() else None
    quoted = {
        side: bad.select(f"quoted_{side}_hi", f"quoted_{side}_lo").drop_nulls().n_unique()
        for side in ("src", "dst")
    }
    return {
        "ttl": tuple(sorted(bad["ttl"].drop_nulls().unique().to_list()))[:MAX_TTLS],
        "ip_ids_run_on": None if run is None else float(run) >= RUN_SHARE,  # type: ignore[arg-type]
        "quoted_sources": quoted["src"],
        "quoted_destinations": quoted["dst"],
    }


def _broken(bad: pl.DataFrame) -> dict[str, Any]:
    """Return what the loss of these messages costs: path MTU discovery, first of all."""
    v4 = pl.col("ip_version") == 4
    too_big = (v4 & (pl.col("icmp_type") == 3) & (pl.col("icmp_code") == 4)) | (
        ~v4 & (pl.col("icmp_type") == 2)
    )
    lost = bad.filter(too_big)
    return {
        "too_big_messages": lost.height,
        "connections_not_told_their_mtu": lost["connection"].drop_nulls().n_unique(),
    }


def _kinds(bad: pl.DataFrame) -> str:
    kinds = bad.group_by("ip_version", "icmp_type", "icmp_code").len()
    return ", ".join(
        f"{row['len']} x {icmp_name(row['ip_version'], row['icmp_type'], row['icmp_code'])}"
        for row in kinds.sort("len", "icmp_type", "icmp_code", descending=True).iter_rows(
            named=True
        )
    )


def _evidence(case: Case, bad: pl.DataFrame) -> tuple[Evidence, ...]:
    cited = [
        item
        for row in bad.head(MAX_CITED).iter_rows(named=True)
        for item in case.evidence(
            "primary",
            row["vantage"],
            [row["row"]],
            f"ICMP checksum off by 0x{row['icmp_residual']:04x}",
        )
    ]
    before = bad.filter(pl.col("good_row").is_not_null()).head(MAX_BEFORE)
    cited += [
        item
        for row in before.iter_rows(named=True)
        for item in case.evidence(
            "counter",
            row["good_vantage"],
            [row["good_row"]],
            "the same message one hop or more before, its checksum right",
        )
    ]
    return tuple(cited)


def _timeline(times: pl.Series) -> Timeline | None:
    if times.is_empty():
        return None
    start, end = int(times.min()), int(times.max())  # type: ignore[arg-type]
    width = max(1_000_000_000, -(-(end - start + 1) // MAX_BINS))
    counts = ((times - start) // width).value_counts().sort("time_ns")
    bins = [0] * ((end - start) // width + 1)
    for number, count in counts.iter_rows():
        bins[number] = count
    return Timeline(start_ns=start, bin_s=width / 1e9, series={"bad checksums": tuple(bins)})
