"""What an analysis says: frozen values, complete enough that a report needs no capture.

The JSON form (`"schema": 1`) has the same names. Times are integers in nanoseconds UTC here and
ISO 8601 in JSON; the field metadata says which key a field has there. Lists that reports cap stand
beside their full count.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal

SCHEMA: Final = 1
MAX_EVIDENCE: Final = 200  # per finding; more proves nothing more and makes files unwieldy
MAX_FLOWS: Final = 1000  # per finding, for the same reason

Scalar = str | int | float | bool | None
"""What `facts` may hold: numbers and words that a program can use."""


class Severity(StrEnum):
    """What it costs."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    INFO = "info"

    @property
    def rank(self) -> int:
        """Return 0 for critical to 4 for info."""
        return list(Severity).index(self)


class Confidence(StrEnum):
    """How sure it is."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"

    @property
    def rank(self) -> int:
        """Return 0 for high to 2 for low."""
        return list(Confidence).index(self)


def _time(key: str) -> Any:
    """Return a field of nanoseconds that stands in JSON as ISO 8601 under `key`."""
    return field(default=None, metadata={"json": key, "time": True})


def _named(key: str) -> Any:
    """Return a required field whose JSON key is a Python keyword."""
    return field(metadata={"json": key})


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What an outcome speaks of; None means all."""

    service: str | None = None  # "tcp 203.0.113.10:80"
    realserver: str | None = None
    direction: str | None = None  # to-client | to-realserver


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why it happened: a stable code and a sentence."""

    code: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dissection:
    """A frame in the words of a dissector."""

    tool: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One frame that proves (primary), supports (related) or speaks against (counter)."""

    role: Literal["primary", "related", "counter"]
    vantage: str
    file: str
    frame: int
    note: str
    interface: str | None = None
    time_ns: int | None = _time("time")
    dissection: Dissection | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """A connection as one vantage saw it."""

    vantage: str
    src: str
    dst: str
    community_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowRef:
    """A connection that was hit."""

    protocol: str
    client: str
    service: str
    realserver: str | None = None
    community_id: str | None = None
    legs: tuple[Leg, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LadderStep:
    """One arrow of the sequence diagram; those of one packet share the number `packet`.

    `quotes` is the packet that an ICMP error quotes; `repeats` how many packets the arrow stands
    for.
    """

    from_: str = _named("from")
    to: str
    label: str
    ip_length: int | None = None
    df: bool | None = None
    repeats: int = 1
    packet: int | None = None
    quotes: int | None = None
    fate: Literal["seen", "lost", "not-visible"] = "seen"
    frames: tuple[str, ...] = ()  # "director:17"
    time_ns: int | None = _time("time")


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeFate:
    """How many packets of one IP length arrived and how many were lost."""

    ip_length: int
    delivered: int
    lost: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """Counts per bin from `start`."""

    start_ns: int | None = _time("start")
    bin_s: float = 1.0
    series: dict[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """What to type, where; `check` first, `undo` if it was wrong. Commands are safe to paste."""

    where: str
    action: str
    check: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    persist: tuple[str, ...] = ()
    undo: tuple[str, ...] = ()
    risk: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Display and capture filters that show the incident's packets."""

    wireshark: str = ""
    tcpdump: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Folded:
    """A finding that this one explains."""

    rule: str
    cause: Cause
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A fault, proven by frames.

    A rule leaves `rule` and `id` empty: the engine knows the first and derives the second from
    `scope`, `subject` and the cause, so that an id survives other captures of the same incident.
    """

    title: str
    summary: str
    cause: Cause
    severity: Severity
    confidence: Confidence
    evidence: tuple[Evidence, ...]
    scope: Scope = Scope()
    subject: str = ""  # sender address, emitter MAC, client prefix; never a port or a time
    rule: str = ""
    id: str = ""
    hosts: dict[str, str | tuple[str, ...]] = field(default_factory=dict)
    flows: tuple[FlowRef, ...] = ()
    flow_count: int = 0
    examined_count: int = 0
    first_seen_ns: int | None = _time("first_seen")
    last_seen_ns: int | None = _time("last_seen")
    count: int = 0
    facts: dict[str, Scalar | tuple[Scalar, ...]] = field(default_factory=dict)
    evidence_count: int = 0
    ladder_columns: tuple[str, ...] = ()  # in the order of the path; empty: of appearance
    ladder: tuple[LadderStep, ...] = ()
    sizes: tuple[SizeFate, ...] = ()
    timeline: Timeline | None = None
    folded: tuple[Folded, ...] = ()
    alternatives: tuple[str, ...] = ()
    remedies: tuple[Remedy, ...] = ()
    verify: tuple[str, ...] = ()
    filters: Filters = Filters()
    references: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a finding without proof."""
        if not any(item.role == "primary" for item in self.evidence):
            raise ValueError("a finding needs primary evidence")


@dataclass(frozen=True, slots=True, kw_only=True)
class NotExamined:
    """A question that these captures cannot answer, why, and what would."""

    reason: str
    scope: Scope = Scope()
    rule: str = ""
    needs: tuple[str, ...] = ()  # "a capture on the realserver"
    capture_command: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """How much a clean verdict rests on."""

    packets: int = 0
    connections: int = 0
    icmp_errors: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Clean:
    """A question that was looked at and found in order. Never built on nothing."""

    examined: Examined
    scope: Scope = Scope()
    note: str = ""
    rule: str = ""

    def __post_init__(self) -> None:
        """Refuse a clean verdict on nothing."""
        if not (self.examined.packets or self.examined.connections or self.examined.icmp_errors):
            raise ValueError("clean needs something that was examined")


Outcome = Finding | NotExamined | Clean


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedRule:
    """A rule that raised; its question counts as not examined."""

    rule: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureFile:
    """One input file."""

    path: str
    format: str
    packets: int
    sha256: str | None = None
    link_types: tuple[str, ...] = ()
    first_ns: int | None = _time("first")
    last_ns: int | None = _time("last")
    snaplen: int | None = None
    dropped: int | None = None
    cut_short: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Vantage:
    """A named point where captures were taken."""

    name: str
    role: str  # director | realserver | client | router | unknown
    role_source: Literal["given", "inferred", "refuted", "unknown"]
    role_reason: str = ""
    clock_offset_ns: int | None = None
    clock_error_ns: int | None = None
    files: tuple[CaptureFile, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A member of the cluster."""

    name: str
    addresses: tuple[str, ...] = ()
    macs: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A virtual service."""

    protocol: str
    vip: str
    port: int | None = None
    fwmark: int | None = None
    method: Literal["nat", "dr", "tun", "unknown"] = "unknown"
    encapsulation: Literal["ipip", "gre", "gue"] | None = None
    realservers: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """An arrow of the cluster figure."""

    from_: str = _named("from")
    to: str
    label: str = ""
    packets: int = 0
    broken: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Who is who, as inferred or given."""

    directors: tuple[Host, ...] = ()
    realservers: tuple[Host, ...] = ()
    routers: tuple[Host, ...] = ()
    edges: tuple[Edge, ...] = ()
    services: tuple[Service, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """What made the result."""

    name: str = "pcapdiag"
    version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Everything that an analysis says."""

    schema: int = SCHEMA
    tool: Tool = Tool()
    generated_at_ns: int | None = _time("generated_at")
    vantages: tuple[Vantage, ...] = ()
    cluster: Cluster = Cluster()
    findings: tuple[Finding, ...] = ()
    not_examined: tuple[NotExamined, ...] = ()
    clean: tuple[Clean, ...] = ()
    failed_rules: tuple[FailedRule, ...] = ()
    notes: tuple[str, ...] = ()


def finding_id(rule: str, cause: str, scope: Scope, subject: str) -> str:
    """Return `rule-` and 12 hex digits over what the finding is about; no port, no time."""
    parts = (
        rule,
        cause,
        scope.service or "",
        scope.realserver or "",
        scope.direction or "",
        subject,
    )
    return f"{rule}-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:12]}"
