"""A capture lost, cut, merged, doubled or mistimed packets, so that it proves less than it seems.

Symptom
    Conclusions that do not hold: packets "never forwarded" that the capture lost, segments of
    14 kB that never were on a wire, retransmissions that are the same frame captured twice.

Mechanism
    The capturing program drops what it cannot write in time; a snaplen cuts what a checksum covers;
    network cards merge and cut segments (GRO, TSO) before or after the tap; two interfaces of one
    host show a packet twice; clocks jump; a capture point on one side of an asymmetric path sees
    one direction.

Evidence
    Per vantage, with example frames: packets dropped by the capturing program's own count; packets
    that TCP shows to have existed and no frame holds; cut frames, cut ICMP messages, cut headers;
    packets larger than the MSS allows; exact doubles; steps back in time and missing times; TCP
    flows with one direction only; frames without a target MAC; a filter that leaves ICMP out;
    clocks that nothing aligns; captures that were not taken at the same time.
    Causes: dropped-packets, missing-packets, icmp-cut, headers-cut, frames-cut, offload,
    captured-twice, time-steps-back, time-missing, one-sided, no-target-macs, icmp-left-out,
    clock-not-aligned, clock-offset, not-simultaneous, cut-short.

Not this rule
    - A director in LVS-DR or LVS-TUN sees one direction only: so it should.
    - A packet that a director passes on is there twice, with another MAC or TTL: no double.
    - A clock that is milliseconds off: NTP does no better, and it is corrected.
    - A snaplen that keeps all headers and whole ICMP messages is only remarked on.

Remedy
    Capture again: -s 0 and -B 65536, on the interface and not on "any", to fast storage, with
    offloads off for the time being, at all points at once, clocks synchronised.

References
    pcap-filter(7), tcpdump(8); draft-ietf-opsawg-pcapng section 4.6; ethtool(8);
    Documentation/networking/segmentation-offloads.rst; Paxson, IMC 2004 ("Strategies for sound
    internet measurement").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pcapdiag.kernel import path_remedies
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
    Severity,
    rule,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pcapdiag.rule import Quality

LOSS_SHARE = 0.01
"""Of the packets that must have passed: with more missing, one absent packet says little."""

MIN_MISSING = 3
"""Fewer may be the tail of a connection."""

DOUBLED_SHARE = 0.05
"""Of all frames: fewer doubles are duplicates of the network's own making."""

ONE_SIDED_SHARE = 0.9
"""Of the TCP flows: fewer one-sided ones are scans and flows that other hosts answered."""

MIN_FLOWS = 3
"""Flows without which nothing is said about sides."""

OFFSET_NS = 1_000_000_000
"""A clock that is off by a second or more was not synchronised."""


@dataclass(frozen=True, slots=True)
class _Remark:
    code: str
    severity: Severity
    count: int
    of: int
    rows: tuple[int, ...]
    text: str
    frame_note: str


@rule(
    title="What the captures are good for",
    severity=Severity.INFO,
    needs=Needs(text="any capture"),
    since="0.1",
)
def check(case: Case) -> Iterator[Outcome]:
    """Remark on each vantage, one finding per vantage and kind of trouble."""
    for quality in case.qualities:
        vantage = case.vantages[quality.vantage]
        if not quality.packets:
            yield NotExamined(
                reason=f"the capture at {vantage.name} is empty",
                needs=(f"a capture at {vantage.name} that holds packets",),
                capture_command=case.capture_command(role=case.role(quality.vantage)),
            )
            continue
        remarks = list(_remarks(case, quality))
        for remark in remarks:
            yield _finding(case, vantage.name, quality, remark)
        if not remarks:
            yield Clean(
                examined=Examined(packets=quality.packets),
                note=f"{vantage.name}: whole frames, no losses known, times in order",
            )


def _remarks(case: Case, quality: Quality) -> Iterator[_Remark]:
    yield from _losses(quality)
    yield from _cuts(quality)
    yield from _views(case, quality)
    yield from _times(case, quality)


def _losses(quality: Quality) -> Iterator[_Remark]:
    if quality.dropped:
        yield _Remark(
            "dropped-packets",
            Severity.LOW,
            quality.dropped,
            quality.dropped + quality.packets,
            (0,),
            f"the capturing program counted {quality.dropped} packets that it dropped",
            "a frame of the capture that dropped packets",
        )
    if quality.missing >= MIN_MISSING and quality.missing > LOSS_SHARE * quality.expected:
        yield _Remark(
            "missing-packets",
            Severity.LOW,
            quality.missing,
            quality.expected,
            (0,),
            f"about {quality.missing} of {quality.expected} packets that passed are not in it: "
            "what TCP acknowledged, or what was forwarded, existed",
            "a frame of the capture that lacks packets",
        )
    if quality.cut_files:
        yield _Remark(
            "cut-short",
            Severity.INFO,
            quality.cut_files,
            quality.cut_files,
            (quality.packets - 1,),
            "the file ends within a record: what came behind is not known",
            "the last frame before the cut",
        )


def _cuts(quality: Quality) -> Iterator[_Remark]:
    if quality.headers_cut.count:
        yield _Remark(
            "headers-cut",
            Severity.LOW,
            quality.headers_cut.count,
            quality.packets,
            quality.headers_cut.rows,
            f"{quality.headers_cut.count} frames end within their headers",
            "ends within its headers",
        )
    if quality.icmp_cut.count:
        yield _Remark(
            "icmp-cut",
            Severity.LOW,
            quality.icmp_cut.count,
            quality.icmp,
            quality.icmp_cut.rows,
            f"{quality.icmp_cut.count} of {quality.icmp} ICMP messages are cut: their checksums "
            "cannot be verified, and what they quote may be incomplete",
            "an ICMP message that is cut",
        )
    elif quality.cut.count and not quality.headers_cut.count:
        yield _Remark(
            "frames-cut",
            Severity.INFO,
            quality.cut.count,
            quality.packets,
            quality.cut.rows,
            f"{quality.cut.count} frames were not kept whole; their headers were",
            "not kept whole",
        )


def _views(case: Case, quality: Quality) -> Iterator[_Remark]:
    if quality.merged.count:
        yield _Remark(
            "offload",
            Severity.INFO,
            quality.merged.count,
            quality.packets,
            quality.merged.rows,
            f"{quality.merged.count} packets are larger than any on the wire: segments before "
            "they were cut, or after they were merged; sizes are counted as on the wire",
            "larger than any packet on the wire",
        )
    if quality.doubled.count > DOUBLED_SHARE * quality.packets:
        yield _Remark(
            "captured-twice",
            Severity.INFO,
            quality.doubled.count,
            quality.packets,
            quality.doubled.rows,
            f"{quality.doubled.count} frames are exact doubles, as from two interfaces of one "
            "host (a bond, a bridge, a VLAN); each packet is counted once",
            "an exact double of a frame before it",
        )
    role = case.role(quality.vantage)
    if (
        role in {"realserver", "client", "router"}
        and quality.flows >= MIN_FLOWS
        and quality.one_sided.count >= ONE_SIDED_SHARE * quality.flows
    ):
        yield _Remark(
            "one-sided",
            Severity.LOW,
            quality.one_sided.count,
            quality.flows,
            quality.one_sided.rows,
            f"{quality.one_sided.count} of {quality.flows} TCP connections show one direction "
            "only: acknowledgements, or data, passed elsewhere",
            "the first packet of a connection of which one side is missing",
        )
    if role in {"director", "realserver"} and quality.without_target.count:
        yield _Remark(
            "no-target-macs",
            Severity.INFO,
            quality.without_target.count,
            quality.packets,
            quality.without_target.rows,
            'captured on "any": frames do not say which MAC they went to, so that the realserver '
            "that a director chose cannot be read from them",
            "does not say which MAC it went to",
        )
    if role != "unknown" and not quality.keeps_icmp:
        yield _Remark(
            "icmp-left-out",
            Severity.INFO,
            quality.packets,
            quality.packets,
            (0,),
            "the filter leaves ICMP out, or may have: that no error came cannot be said",
            "a frame of the capture without ICMP",
        )


def _times(case: Case, quality: Quality) -> Iterator[_Remark]:
    if quality.untimed.count:
        yield _Remark(
            "time-missing",
            Severity.LOW,
            quality.untimed.count,
            quality.packets,
            quality.untimed.rows,
            f"{quality.untimed.count} frames have no time",
            "has no time",
        )
    if quality.back.count:
        yield _Remark(
            "time-steps-back",
            Severity.LOW,
            quality.back.count,
            quality.packets,
            quality.back.rows,
            f"time steps back {quality.back.count} times, by {quality.back_ns / 1e9:.3f} s in all: "
            "the clock was set, or files were joined in a wrong order",
            "earlier than the frame before it",
        )
    if len(case.vantages) < 2:
        return
    if quality.alone and quality.offset_ns is None:
        yield _Remark(
            "not-simultaneous",
            Severity.LOW,
            quality.packets,
            quality.packets,
            (0,),
            "no other capture was running at that time: nothing can be followed from one to the "
            "other",
            "the first frame of a capture that stands alone in time",
        )
    elif quality.offset_ns is None:
        yield _Remark(
            "clock-not-aligned",
            Severity.LOW,
            quality.packets,
            quality.packets,
            (0,),
            f"its times cannot be compared with those of other captures: {quality.clock_reason}",
            "a frame whose time stands on a clock of its own",
        )
    elif abs(quality.offset_ns) >= OFFSET_NS:
        yield _Remark(
            "clock-offset",
            Severity.INFO,
            quality.packets,
            quality.packets,
            (0,),
            f"its clock is off by {-quality.offset_ns / 1e9:+.3f} s; times are compared corrected",
            "a frame whose time is off",
        )


def _finding(case: Case, name: str, quality: Quality, remark: _Remark) -> Finding:
    evidence = case.evidence("primary", quality.vantage, remark.rows, remark.frame_note)
    times = [item.time_ns for item in evidence if item.time_ns is not None]
    return Finding(
        title=f"Capture at {name}: {remark.code.replace('-', ' ')}",
        summary=f"{name}: {remark.text}.",
        cause=Cause(code=remark.code, text=remark.text),
        severity=remark.severity,
        confidence=Confidence.HIGH if remark.code != "missing-packets" else Confidence.MEDIUM,
        evidence=evidence,
        evidence_count=max(remark.count, len(evidence)),
        subject=name,
        hosts={"vantage": name},
        first_seen_ns=min(times, default=None),
        last_seen_ns=max(times, default=None),
        count=remark.count,
        facts={
            "vantage": name,
            "count": remark.count,
            "of": remark.of,
            "share": round(remark.count / max(remark.of, 1), 6),
        },
        alternatives=_alternatives(remark.code),
        remedies=_remedies(case, name, quality, remark.code),
        verify=("capinfos FILE; tcpdump's last lines  # dropped by kernel: 0",),
        filters=Filters(
            wireshark={
                "frames-cut": "frame.cap_len < frame.len",
                "headers-cut": "frame.cap_len < frame.len",
                "icmp-cut": "(icmp || icmpv6) && frame.cap_len < frame.len",
                "offload": "ip.len > 1500 || ip.len == 0",
                "time-steps-back": "frame.time_delta < 0",
            }.get(remark.code, "")
        ),
        references=("tcpdump(8)", "pcapng section 4.6", "segmentation-offloads.rst"),
    )


def _alternatives(code: str) -> tuple[str, ...]:
    return {
        "missing-packets": (
            "The packets took another way past the capture point: compare the paths.",
        ),
        "one-sided": ("The other direction takes another interface: capture that one, too.",),
        "captured-twice": ("The network itself doubles packets: a capture elsewhere tells.",),
        "offload": ("Jumbo frames: the MSS in the SYNs does not say so.",),
        "clock-not-aligned": ("The captures share no traffic at all.",),
    }.get(code, ())


def _remedies(case: Case, name: str, quality: Quality, code: str) -> tuple[Remedy, ...]:
    if code == "offload":
        return (path_remedies.capture_without_offload(f"the host of {name}"),)
    if code in ("time-steps-back", "clock-offset", "clock-not-aligned"):
        return (path_remedies.synchronise_clock(f"the host of {name}"),)
    command = case.capture_command(role=case.role(quality.vantage))
    return (path_remedies.capture_again(f"the host of {name}", command),)
