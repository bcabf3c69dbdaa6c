"""What netfilter's TCP tracker makes of the packets that one host saw, in their order.

A model of nf_conntrack_proto_tcp.c (nf_conntrack_tcp_packet, tcp_new, tcp_in_window): its state
table, window checks, timeouts, and the two ways in which a packet becomes INVALID, by state and by
window. What a capture cannot show of a host stands in `Settings`. Helpers, NAT of sequence numbers
and the challenge ACKs of RFC 5961 are left out: none of them makes a packet INVALID.

How ip_vs changes this: it takes a client's packet in LOCAL_IN, before nf_conntrack_confirm, so that
without net.ipv4.vs.conntrack no entry lives longer than its packet (`Settings.confirms`); and in DR
and TUN only the client's direction passes (leave the other out of what is replayed).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from pcapdiag.protocols import TcpFlag

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

TIMEOUTS_S: Final[Mapping[str, float]] = {
    "SYN_SENT": 120,
    "SYN_RECV": 60,
    "ESTABLISHED": 432000,
    "FIN_WAIT": 120,
    "CLOSE_WAIT": 60,
    "LAST_ACK": 30,
    "TIME_WAIT": 120,
    "CLOSE": 10,
    "SYN_SENT2": 120,
    "RETRANS": 300,
    "UNACK": 300,
}
"""tcp_timeouts: seconds without a packet after which an entry goes."""

MAX_RETRANS: Final = 3
"""nf_conntrack_tcp_max_retrans: equal ACKs after which RETRANS counts instead."""

MAX_ACK_WINDOW: Final = 66000
"""MAXACKWINCONST: how late an acknowledgement may be, at least."""

_SHORT: Final = {
    "SS": "SYN_SENT",
    "SR": "SYN_RECV",
    "ES": "ESTABLISHED",
    "FW": "FIN_WAIT",
    "CW": "CLOSE_WAIT",
    "LA": "LAST_ACK",
    "TW": "TIME_WAIT",
    "CL": "CLOSE",
    "S2": "SYN_SENT2",
}
_STATES: Final = ("NONE", *_SHORT.values())

_TABLE: Final = {
    # In states NONE, SYN_SENT, ... as in _STATES. IG: let through, nothing changes. IV: INVALID.
    (False, "syn"): "SS SS IG IG IG IG IG SS SS S2",
    (False, "syn-ack"): "IV IV SR IV IV IV IV IV IV SR",
    (False, "fin"): "IV IV FW FW LA LA LA TW CL IV",
    (False, "ack"): "ES IV ES ES CW CW TW TW CL IV",
    (False, "rst"): "IV CL CL CL CL CL CL CL CL CL",
    (True, "syn"): "IV S2 IV IV IV IV IV SS IV S2",
    (True, "syn-ack"): "IV SR IG IG IG IG IG IG IG SR",
    (True, "fin"): "IV IV FW FW LA LA LA TW CL IV",
    (True, "ack"): "IV IG SR ES CW CW TW TW CL IG",
    (True, "rst"): "IV CL CL CL CL CL CL CL CL CL",
}
_NEXT: Final = {
    (reply, index, state): _SHORT.get(word, word)
    for (reply, index), row in _TABLE.items()
    for state, word in zip(_STATES, row.split(), strict=True)
}

_MODULUS: Final = 1 << 32
_CONTROL: Final = TcpFlag.FIN | TcpFlag.SYN | TcpFlag.RST | TcpFlag.ACK
_LAWFUL: Final = frozenset(
    {
        TcpFlag.SYN,
        TcpFlag.SYN | TcpFlag.ACK,
        TcpFlag.RST,
        TcpFlag.RST | TcpFlag.ACK,
        TcpFlag.FIN | TcpFlag.ACK,
        TcpFlag.ACK,
    }
)
"""tcp_valid_flags, PSH, URG, ECE and CWR aside."""


class Segment(NamedTuple):
    """One TCP packet. `reply`: sent by the side that did not open the connection."""

    time_ns: int
    reply: bool
    flags: int
    seq: int
    ack: int
    window: int
    """As in the header, unscaled."""
    payload: int
    """Bytes."""
    wscale: int | None = None
    """Of a SYN's option."""
    sacked: int | None = None
    """Highest right edge of its SACK blocks."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a host's kernel and configuration make of it; the defaults are Linux's."""

    loose: bool = True
    """nf_conntrack_tcp_loose: a connection may be picked up in its middle."""
    liberal: bool = False
    """nf_conntrack_tcp_be_liberal: the window does not matter."""
    strict: bool = False
    """Kernels before 6.2: whatever lies outside the window is INVALID; later ones let pass what is
    late, or early by less than a window."""
    confirms: bool = True
    """False: ip_vs takes each packet before its entry is kept."""
    only_syn: bool = False
    """The rule set accepts NEW only with SYN, so that other packets leave no entry."""
    timeouts_s: Mapping[str, float] = field(default_factory=lambda: TIMEOUTS_S)


class Verdict(NamedTuple):
    """What a stateful rule was told of one packet."""

    state: Literal["new", "established", "invalid"]
    reason: str
    """Why it is INVALID, a code: see `REASONS`; "" where it is not."""
    entry: str
    """State of the entry that the packet found; "NONE": there was none."""
    lapsed_s: float | None = None
    """The timeout by which an entry had gone when the packet came; None: none had."""
    refused: bool = False
    """INVALID, or NEW without SYN where the rule set wants one."""


REASONS: Final[Mapping[str, str]] = {
    "flags": "its flags make no TCP packet",
    "first-fin": "a FIN cannot begin an entry",
    "first-rst": "a RST cannot begin an entry",
    "first-syn-ack": "a SYN-ACK cannot begin an entry",
    "not-loose": "there was no entry and nf_conntrack_tcp_loose=0 forbids to pick it up",
    "lone-syn": "the entry saw a SYN and never its answer, so that an ACK cannot follow",
    "state": "the entry's state does not allow it",
    "seq-over": "its sequence number lies beyond the window",
    "seq-under": "it repeats what was acknowledged before",
    "ack-over": "it acknowledges data that this host did not see",
    "ack-under": "its acknowledgement is too old",
    "rst-under": "a RST from before what was acknowledged",
}
"""Reason -> in words."""


@dataclass(slots=True)
class _Side:
    """struct ip_ct_tcp_state."""

    end: int = 0
    max_end: int = 0
    max_window: int = 0
    max_ack: int | None = None
    scale: int | None = None
    unacknowledged: bool = False


class _Entry:
    """One conntrack entry; `sides` by direction, the original one first."""

    def __init__(self, first: Segment, state: str, settings: Settings) -> None:
        self.state = state
        self.sides = (_Side(), _Side())
        self.picked_up = state != "SYN_SENT"
        self.seen_reply = False
        self.closing = [False, False]
        self.last: tuple[str, bool] = ("", False)
        self.last_ack: tuple[int, ...] = ()
        self.retransmitted = 0
        self.expires_ns = first.time_ns
        self.timeout_s = 0.0
        side = self.sides[0]
        side.end = _end(first)
        side.max_window = max(1, first.window)
        side.max_end = side.end + side.max_window if self.picked_up else side.end
        side.scale = first.wscale
        self._settings = settings

    def scale(self, reply: bool) -> int:
        """RFC 7323 section 2.2: no scaling unless both sides offered it."""
        if self.picked_up or None in (self.sides[0].scale, self.sides[1].scale):
            return 0
        return self.sides[reply].scale or 0

    def refresh(self, segment: Segment, index: str, before: str) -> None:
        """Set when the entry goes, as at the end of nf_conntrack_tcp_packet."""
        times = self._settings.timeouts_s
        timeout = times[self.state]
        unacknowledged = self.sides[0].unacknowledged or self.sides[1].unacknowledged
        if self.retransmitted >= MAX_RETRANS or (segment.window == 0 and index == "ack"):
            timeout = min(timeout, times["RETRANS"])
        elif index == "rst":
            timeout = times["CLOSE"]
        elif unacknowledged:
            timeout = min(timeout, times["UNACK"])
        if not self.seen_reply:
            if index == "syn" and before == "SYN_SENT":
                return  # a repeated SYN gives no more time
            if self.state == "ESTABLISHED":
                timeout = min(timeout, times["UNACK"])
        self.timeout_s = timeout
        self.expires_ns = segment.time_ns + round(timeout * 1e9)


def replay(segments: Iterable[Segment], settings: Settings | None = None) -> list[Verdict]:
    """Return a verdict for each packet of one connection, in the order in which they came.

    The tracker knows no side as the client: whoever's packet makes the entry is its original
    direction, whatever `Segment.reply` says.
    """
    settings = settings or Settings()
    entry: _Entry | None = None
    turned = False
    verdicts = []
    for segment in segments:
        lapsed = None
        if entry is not None and segment.time_ns >= entry.expires_ns:
            lapsed, entry = entry.timeout_s, None
        index = _index(segment.flags)
        if segment.flags & _CONTROL not in _LAWFUL:
            verdicts.append(_invalid("flags", entry))
            continue
        if entry is not None and _reopens(entry, index, segment.reply != turned):
            entry = None
        if entry is None:
            verdict, entry = _begin(segment, index, settings, lapsed)
            turned = segment.reply
        else:
            verdict = _follow(entry, segment, index, segment.reply != turned, settings)
            if index == "rst" and not entry.seen_reply and not verdict.reason:
                entry = None
        verdicts.append(verdict)
    return verdicts


def _invalid(reason: str, entry: _Entry | None) -> Verdict:
    return Verdict("invalid", reason, entry.state if entry else "NONE", refused=True)


def _begin(
    segment: Segment, index: str, settings: Settings, lapsed: float | None
) -> tuple[Verdict, _Entry | None]:
    """Judge the first packet of an entry, as tcp_new does."""
    state = _NEXT[False, index, "NONE"]
    reason = f"first-{index}" if state == "IV" else ""
    if state == "ESTABLISHED" and not settings.loose:
        reason = "not-loose"
    if reason:
        return Verdict("invalid", reason, "NONE", lapsed, refused=True), None
    refused = settings.only_syn and index != "syn"
    entry = _Entry(segment, state, settings)
    entry.last = (index, False)
    entry.refresh(segment, index, "NONE")
    kept = entry if settings.confirms and not refused else None
    return Verdict("new", "", "NONE", lapsed, refused=refused), kept


def _follow(
    entry: _Entry, segment: Segment, index: str, reply: bool, settings: Settings
) -> Verdict:
    """Judge a packet of an entry that lives, and let it change the entry."""
    before = entry.state
    after = _NEXT[reply, index, before]
    if after == "IV":
        lone = before == "SYN_SENT" and index == "ack"
        return _invalid("lone-syn" if lone else "state", entry)
    side, peer = entry.sides[reply], entry.sides[not reply]
    if after == "IG" or (after == "SYN_SENT" and before in {"TIME_WAIT", "CLOSE"}):
        entry.last = (index, reply)
        return _let_through(entry, before, reply)
    if (
        index == "rst"
        and peer.max_ack is not None
        and not (segment.seq == 0 and before != "ESTABLISHED")
        and _before(segment.seq, peer.max_ack)
    ):
        return _invalid("rst-under", entry)
    reason = _outside(entry, segment, reply)
    if reason and not (settings.liberal or entry.picked_up):
        ahead = (_end(segment) - side.max_end) % _MODULUS
        excused = reason == "seq-over" and ahead <= peer.max_window
        if settings.strict or (reason in {"seq-over", "ack-over"} and not excused):
            return _invalid(reason, entry)
        return _let_through(entry, before, reply)
    if not reason:
        _slide(entry, side, peer, segment, index)
    if before != after == "FIN_WAIT":
        entry.closing[reply] = True
    entry.state = after
    entry.last = (index, reply)
    told = _let_through(entry, before, reply)
    entry.refresh(segment, index, before)
    return told


def _let_through(entry: _Entry, before: str, reply: bool) -> Verdict:
    entry.seen_reply |= reply
    return Verdict("established" if entry.seen_reply else "new", "", before)


def _reopens(entry: _Entry, index: str, reply: bool) -> bool:
    """Return whether a SYN begins anew: the old connection was closed, or reset from this side."""
    if _NEXT[reply, index, entry.state] != "SYN_SENT" or entry.state not in {"TIME_WAIT", "CLOSE"}:
        return False
    return any(entry.closing) or entry.last == ("rst", reply)


def _outside(entry: _Entry, segment: Segment, reply: bool) -> str:
    """Return how a packet misses the window, "" where it does not; begins a side's window."""
    side, peer = entry.sides[reply], entry.sides[not reply]
    end = _end(segment)
    acknowledges = bool(segment.flags & TcpFlag.ACK)
    ack = segment.ack if segment.sacked is None else segment.sacked
    syn = bool(segment.flags & TcpFlag.SYN)
    if side.max_window == 0 or (
        syn and _before(side.end, end) and entry.state in {"SYN_SENT", "SYN_RECV"}
    ):
        side.end = end
        side.max_window = max(1, segment.window << (0 if syn else entry.scale(reply)))
        side.max_end = end if syn else end + side.max_window
        if syn:
            side.scale = segment.wscale
        elif peer.max_window == 0:
            peer.end = peer.max_end = ack
        elif ack == (peer.end + 1) % _MODULUS:
            peer.end = ack  # likely the answer to a keepalive
    reset = bool(segment.flags & TcpFlag.RST)
    if not acknowledges or (reset and segment.ack == 0):
        ack = peer.end
    seq = segment.seq
    if reset and seq == 0 and entry.state == "SYN_SENT":
        seq = end = side.end  # a RST that answers a SYN
    if not _before(seq, side.max_end + 1):
        return "seq-over"
    if peer.max_window and not _before(side.end - peer.max_window - 1, end):
        return "seq-under"
    if not _before(ack, peer.end + 1):
        return "ack-over"
    if not _before(peer.end - max(side.max_window, MAX_ACK_WINDOW) - 1, ack):
        return "ack-under"
    return ""


def _slide(entry: _Entry, side: _Side, peer: _Side, segment: Segment, index: str) -> None:
    """Move both windows as a packet within them says."""
    end = _end(segment)
    syn = bool(segment.flags & TcpFlag.SYN)
    window = segment.window << (0 if syn else entry.scale(side is entry.sides[1]))
    acknowledges = bool(segment.flags & TcpFlag.ACK)
    ack = segment.ack if acknowledges and not (index == "rst" and not segment.ack) else peer.end
    sacked = ack if segment.sacked is None else segment.sacked
    side.max_window = max(side.max_window, window + (sacked - ack) % _MODULUS)
    if _before(side.end, end):
        side.end, side.unacknowledged = end, True
    if acknowledges and (side.max_ack is None or _before(side.max_ack, ack)):
        side.max_ack = ack
    if peer.max_window and _before(side.max_end, end):
        peer.max_window += (end - side.max_end) % _MODULUS
    if _before(peer.max_end - 1, sacked + window):
        peer.max_end = sacked + window + (window == 0)
    if ack == peer.end % _MODULUS:
        peer.unacknowledged = False
    if index == "ack":
        told = (side is entry.sides[1], segment.seq, segment.ack, end, segment.window)
        entry.retransmitted = entry.retransmitted + 1 if told == entry.last_ack else 0
        entry.last_ack = told


def _index(flags: int) -> str:
    """Return the row of the state table, as get_conntrack_index does."""
    if flags & TcpFlag.RST:
        return "rst"
    if flags & TcpFlag.SYN:
        return "syn-ack" if flags & TcpFlag.ACK else "syn"
    return "fin" if flags & TcpFlag.FIN else "ack"


def _end(segment: Segment) -> int:
    """Return the sequence number behind a packet; SYN and FIN count one."""
    count = bool(segment.flags & TcpFlag.SYN) + bool(segment.flags & TcpFlag.FIN)
    return (segment.seq + segment.payload + count) % _MODULUS


def _before(one: int, other: int) -> bool:
    """Return whether a sequence number lies before another, modulo 2^32 (RFC 9293 section 3.4)."""
    return (one - other) % _MODULUS >= 1 << 31
