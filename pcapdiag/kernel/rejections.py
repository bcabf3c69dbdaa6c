"""Why a stateful rule set rejected packets of a connection: conntrack's possible reasons, compared.

A host's settings cannot be seen in a capture, but which of its packets it rejected and which passed
can. Each hypothesis is replayed (netfilter.py) on the packets that the host saw; what it should
have rejected and did, and what it should not have, orders them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from pcapdiag.kernel.netfilter import REASONS, TIMEOUTS_S, Segment, Settings, Verdict, replay
from pcapdiag.protocols import TcpFlag

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

Fate = Literal["rejected", "passed", "unknown"]
"""What became of a packet at the host's firewall. Rejections are rate limited (icmp_ratelimit), so
that a packet without one may have been rejected in silence: unknown, unless it was seen to pass."""

MAX_PACKETS: Final = 20_000
"""Of one connection that are replayed, some tenths of a second: more would hold up the report."""


IDLE_FACTOR: Final = 2
"""How much longer than any silence before it the one before a rejection must be for a timeout to be
the reason: a flush meets a connection in a pause like all its others."""

AT_ONCE: Final = 3
"""Connections whose rejections begin within AT_ONCE_NS before that moment counts as the reason: two
may meet by chance."""

AT_ONCE_NS: Final = 1_000_000_000


class Candidate(NamedTuple):
    """One possible reason. `rejected`, `passed`: how many packets of each fate it gets right."""

    code: str
    text: str
    rejected: int
    passed: int
    of_rejected: int
    of_passed: int

    @property
    def fits(self) -> bool:
        """Whether it gets all of them right."""
        return self.rejected == self.of_rejected and self.passed == self.of_passed


class Onset(NamedTuple):
    """When a host began to reject a connection's packets, and when it last let one pass.

    `passed_ns`: null where no packet before the first rejected one is known to have passed.
    """

    host: int
    passed_ns: int | None
    first_ns: int


@dataclass(frozen=True, slots=True)
class Reason:
    """A reason over several connections; `count`: of how many it explains everything."""

    code: str
    text: str
    count: int


TEXTS: Final = {
    "closing-untracked": "conntrack keeps no entry here (ip_vs takes each packet before it is "
    "confirmed), so that every packet is the first of its connection: data is NEW, FIN and RST are "
    "INVALID",
    "untracked": "conntrack keeps no entry here (ip_vs takes each packet before it is confirmed), "
    "and mid-stream packets are not taken for NEW (nf_conntrack_tcp_loose=0, or a rule that wants "
    "SYN)",
    "lone-syn": "with vs.conntrack=1 the entry saw the client's SYN and, as the answers do not "
    "pass here, nothing else may follow for 120 s: INVALID",
    "timed-out": "the entry had timed out while the connection was idle, and packets without an "
    "entry are not accepted (nf_conntrack_tcp_loose=0, or a rule that wants SYN)",
    "flushed": "the entry was gone without an idle time to explain it (conntrack -F, a reloaded "
    "firewall or module, a full table), and packets without an entry are not accepted",
    "closed": "conntrack had closed the connection already and its entry was gone: a late FIN, RST "
    "or repetition cannot begin a new one",
    "out-of-window": "the packet lay outside the window that conntrack knew: INVALID",
    "out-of-window-old-kernel": "the packet lay below the window that conntrack knew, INVALID in "
    "kernels before 6.2",
    "not-conntrack": "no state of conntrack explains it: a rule that rejects this port, address "
    "or rate whatever the state",
}
"""Code -> in words."""


def candidates(
    segments: Sequence[Segment], fates: Sequence[Fate], *, one_way: bool
) -> tuple[Candidate, ...]:
    """Return the reasons that explain at least one of the rejected packets, the best first.

    `segments` are the packets of one connection that the host's conntrack saw, in order, `fates`
    what became of each; `one_way`: it saw the client's direction only, behind ip_vs.
    """
    first = next((number for number, fate in enumerate(fates) if fate == "rejected"), None)
    if first is None or len(segments) > MAX_PACKETS:
        return ()
    found = []
    for name, verdicts in _hypotheses(segments, first, one_way=one_way):
        old = name == "old"
        right = [
            verdict.refused == (fate == "rejected")
            for verdict, fate in zip(verdicts, fates, strict=True)
        ]
        hits = sum(ok for ok, fate in zip(right, fates, strict=True) if fate == "rejected")
        passes = sum(ok for ok, fate in zip(right, fates, strict=True) if fate == "passed")
        if hits:
            told = next(
                verdict
                for verdict, fate in zip(verdicts, fates, strict=True)
                if fate == "rejected" and verdict.refused
            )
            code = _by_ordinary(told, old=old) if name in {"new", "old"} else name
            found.append(
                Candidate(
                    code,
                    _words(code, told),
                    hits,
                    passes,
                    fates.count("rejected"),
                    fates.count("passed"),
                )
            )
    if not any(item.fits for item in found):
        found.append(
            Candidate(
                "not-conntrack",
                TEXTS["not-conntrack"],
                0,
                fates.count("passed"),
                fates.count("rejected"),
                fates.count("passed"),
            )
        )
    order = list(TEXTS)
    return tuple(
        sorted(
            found,
            key=lambda item: (
                item.of_rejected - item.rejected + item.of_passed - item.passed,
                order.index(item.code),
            ),
        )
    )


LOG_SAYS: Final = {
    "tcp-out-of-window": "outside the window",
    "tcp-without-entry": "without an entry",
    "tcp-invalid": "in a wrong state",
    "tcp-bad-checksum": "with a bad checksum",
}
"""Kind of log line (facts/kernel_log.py) -> why conntrack called a packet INVALID, in words."""

TABLE_FULL: Final = "conntrack-full"
"""The kind of line that says that conntrack had no room for a new entry."""

_BORNE_OUT: Final = {
    "tcp-out-of-window": {"out-of-window", "out-of-window-old-kernel"},
    "tcp-without-entry": {"closing-untracked", "untracked", "timed-out", "flushed", "closed"},
    "tcp-invalid": {"lone-syn", "closed"},
    TABLE_FULL: {"flushed"},
}
"""Kind of log line -> the reasons that would write it."""


def logged(lines: Mapping[str, int]) -> str:
    """Return in words what a host's log holds (kind -> lines) of the packets in question."""
    parts = [f"{count} {LOG_SAYS[kind]}" for kind, count in lines.items() if kind in LOG_SAYS]
    text = f"counts as INVALID {', '.join(parts)}" if parts else ""
    full = lines.get(TABLE_FULL)
    return " and ".join(
        filter(None, (text, f"says {full} times that the table was full" if full else ""))
    )


def likeliest(
    found: Sequence[Sequence[Candidate]],
    onsets: Sequence[Onset],
    lines: Collection[str] = (),
) -> tuple[Reason | None, list[Reason]]:
    """Return the reason that explains most connections, and the others, best first.

    `found` are the candidates of each connection, `onsets` when its rejections began. Of those
    that explain as many, the ones that the host's log bears out come first (`lines`: kinds of line
    it holds). Entries that went at one moment for several connections were flushed, whatever their
    idle times; one flush explains no connection that passed after another of its host had ended,
    and what needs a second one is the weaker of equals.
    """
    borne_out = set().union(*(_BORNE_OUT.get(kind, set()) for kind in lines))
    texts: dict[str, str] = {}
    fitting: dict[str, list[Onset]] = {}
    for connection, onset in zip(found, onsets, strict=True):
        for candidate in connection:
            texts.setdefault(candidate.code, candidate.text)
            fitting.setdefault(candidate.code, []).extend([onset] * candidate.fits)
    first_ns = [onset.first_ns for onset in onsets]
    together = len(first_ns) >= AT_ONCE and max(first_ns) - min(first_ns) < AT_ONCE_NS
    order = list(texts)
    reasons = sorted(
        (
            Reason(code, text, _at_one_moment(met) if code == "flushed" else len(met))
            for (code, text), met in zip(texts.items(), fitting.values(), strict=True)
        ),
        key=lambda item: (
            -item.count,
            item.code not in borne_out,
            item.count < len(fitting[item.code]),
            together and item.code != "flushed",
            order.index(item.code),
        ),
    )
    return (reasons[0], reasons[1:]) if reasons and reasons[0].count else (None, reasons)


def _at_one_moment(onsets: Sequence[Onset]) -> int:
    """Return how many onsets one loss of all entries explains at most, one of each host's."""

    def met(moment: Onset) -> int:
        return sum(
            other.host == moment.host
            and (other.passed_ns is None or other.passed_ns < moment.first_ns)
            and moment.first_ns <= other.first_ns
            for other in onsets
        )

    hosts = {onset.host for onset in onsets}
    return sum(max(met(onset) for onset in onsets if onset.host == host) for host in hosts)


def gap_before(segments: Sequence[Segment], number: int) -> int:
    """Return how long the connection had been silent before a packet, in ns."""
    return segments[number].time_ns - segments[number - 1].time_ns if number else 0


def _hypotheses(
    segments: Sequence[Segment], first: int, *, one_way: bool
) -> list[tuple[str, list[Verdict]]]:
    """Return each hypothesis with the verdicts that it predicts.

    "new" and "old" are ordinary settings on either kernel; the verdicts say which reason it is.
    """
    idle_s = gap_before(segments, first) / 1e9
    longest = max((gap_before(segments, number) for number in range(1, first)), default=0) / 1e9
    idle = longest * IDLE_FACTOR < idle_s < TIMEOUTS_S["ESTABLISHED"]
    strange = Settings(loose=False, only_syn=True)
    if one_way:
        free = Settings(confirms=False)
        known = replay(segments[:first], free)
        lost = [*known, *replay(segments[first:], strange)]
        return [
            ("closing-untracked", replay(segments, free)),
            ("untracked", replay(segments, replace(free, loose=False))),
            ("lone-syn", replay(segments, Settings())),
            *([("timed-out", lost)] if idle else []),
            ("flushed", lost),
        ]
    normal, old = replay(segments, Settings()), replay(segments, Settings(strict=True))
    result = [("new", normal)]
    if old != normal:
        result.append(("old", old))
    if idle:
        times = {**TIMEOUTS_S, "ESTABLISHED": idle_s, "UNACK": idle_s, "RETRANS": idle_s}
        result.append(("timed-out", replay(segments, replace(strange, timeouts_s=times))))
    gone = [*replay(segments[:first], Settings()), *replay(segments[first:], strange)]
    result.append(("flushed", gone))
    return result


def _by_ordinary(verdict: Verdict, *, old: bool) -> str:
    """Return the code for a packet that is refused by ordinary settings."""
    if verdict.entry == "NONE" or verdict.reason in {"state", "rst-under"}:
        return "closed"
    return "out-of-window-old-kernel" if old else "out-of-window"


def _words(code: str, verdict: Verdict) -> str:
    reason = REASONS.get(verdict.reason, "")
    return (
        f"{TEXTS[code]} ({reason})"
        if reason and code.startswith(("out-", "closed"))
        else (TEXTS[code])
    )


def passed_by_answer(segments: Sequence[Segment]) -> list[bool]:
    """Return which client's packets with data the other side acknowledged later: they passed."""
    highest: int | None = None
    result = [False] * len(segments)
    for number in range(len(segments) - 1, -1, -1):
        segment = segments[number]
        if segment.reply and segment.flags & TcpFlag.ACK:
            ahead = highest is None or (segment.ack - highest) % (1 << 32) < 1 << 31
            highest = segment.ack if ahead else highest
        elif segment.payload and highest is not None:
            end = (segment.seq + segment.payload) % (1 << 32)
            result[number] = (highest - end) % (1 << 32) < 1 << 31
    return result
