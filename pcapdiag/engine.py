"""From inputs to a Result: read every capture, build the case, run the rules, fold, sum up."""

from __future__ import annotations

import difflib
import functools
import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

import polars as pl

from pcapdiag import __version__, beside, folding, registry, spool, workers
from pcapdiag.addresses import ip_text, mac_text
from pcapdiag.capture import linktype
from pcapdiag.case import Case
from pcapdiag.case.shown import figures
from pcapdiag.decode.packets import Decoded
from pcapdiag.errors import CaptureError, RuleError, UnreadableCapture
from pcapdiag.facts import Facts
from pcapdiag.flows import side_tables
from pcapdiag.flows import vantage as vantages
from pcapdiag.result import (
    MAX_EVIDENCE,
    MAX_FLOWS,
    CaptureFile,
    Clean,
    Cluster,
    FailedRule,
    Finding,
    Host,
    NotExamined,
    Result,
    Service,
    Tool,
    Vantage,
    finding_id,
)
from pcapdiag.spool import Spooled, SpoolError
from pcapdiag.text import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor

    from pcapdiag.capture.vantages import VantageInput
    from pcapdiag.flows.vantage import VantageTables
    from pcapdiag.registry import Rule
    from pcapdiag.result import Outcome
    from pcapdiag.site import Site
    from pcapdiag.spool import WorkDirectory
    from pcapdiag.workers import ReadCapture

MAX_ILLUSTRATED: Final = 20
"""Findings that get figures, the worst first: more are not looked at one by one."""

VANTAGES_AT_ONCE: Final = 2
"""Built at a time where they are in memory: one takes up to 0.2 GB beside its tables. Those in
files are built part by part, several parts at a time."""


class Instant(NamedTuple):
    """A moment: nanoseconds UTC, or, where `relative`, after the first packet of all captures."""

    ns: int
    relative: bool = False


@dataclass(frozen=True)
class Loaded:
    """A case ready to be judged, and the inputs that could not be read."""

    case: Case
    failures: tuple[CaptureError, ...]
    sha256: dict[int, str]
    notes: tuple[str, ...]


def load(
    inputs: Sequence[VantageInput],
    *,
    site: Site | None = None,
    facts: Facts | None = None,
    since: Instant | None = None,
    until: Instant | None = None,
    digest: bool = False,
    executor: Executor | None = None,
    progress: Callable[[str, int, int | None], None] | None = None,
    work: WorkDirectory | None = None,
    most_icmp: int | None = None,
) -> Loaded:
    """Read every capture of `inputs`, in `executor` if there is one, and build the case.

    What outgrows memory is spooled into `work`, if there is one, which must outlive the case. Of
    the ICMP messages of a capture no more than `most_icmp` are kept (see decode.alike_errors).

    A capture that cannot be read at all becomes a failure, and the others go on; a vantage of
    which nothing could be read is left out. Vantages are numbered by name: in which order they
    were given changes nothing.
    """
    failures: list[CaptureError] = []
    read: list[tuple[VantageInput, list[ReadCapture]]] = []
    inputs = sorted(inputs, key=lambda entry: entry.name)
    found = workers.read_captures(
        [path for entry in inputs for path in entry.paths],
        executor,
        digest=digest,
        tunnel_ports=site.tunnel_ports if site else frozenset(),
        progress=progress,
        work=work,
        most_icmp=most_icmp,
        split=[
            len(entry.paths) == 1 and since is None and until is None
            for entry in inputs
            for _ in entry.paths
        ],
    )
    for entry in inputs:
        parts = []
        for outcome in itertools.islice(found, len(entry.paths)):
            if isinstance(outcome, CaptureError):
                failures.append(outcome)
            else:
                parts.append(outcome)
        if parts:
            read.append((entry, parts))
    start, end, notes = _span(read, since, until)
    tables: list[VantageTables] = []
    sha256: dict[int, str] = {}
    told = [
        ([part.info.path for part in parts], [part.sha256 for part in parts]) for _, parts in read
    ]
    spooled = any(isinstance(part.decoded.packets, Spooled) for _, parts in read for part in parts)
    most = 1 if spooled else VANTAGES_AT_ONCE
    built = functools.partial(_built, start=start, end=end)
    each = beside.mapped(built, ([read.pop(0)] for _ in told), most)
    for (files, digests), vantage in zip(told, each, strict=True):
        if isinstance(vantage, SpoolError):
            failures += [UnreadableCapture(path, str(vantage)) for path in files]
            continue
        sha256.update(
            (number, value)
            for number, value in zip(vantage.capture_ids, digests, strict=True)
            if value
        )
        tables.append(replace(vantage, index=len(tables)))
    return Loaded(Case(tuple(tables), site, facts or Facts()), tuple(failures), sha256, notes)


def _built(
    one: list[tuple[VantageInput, list[ReadCapture]]], start: int | None, end: int | None
) -> VantageTables | SpoolError:
    """Build a vantage, taking it out of `one`, so that what was decoded can go once it is merged.

    Where it cannot be spooled what was made of it is removed.
    """
    entry, parts = one.pop()
    folders = spool.folders(part.decoded.packets for part in parts)
    try:
        captures = [(part.info, _within(part.decoded, start, end)) for part in parts]
        split = parts[0].split
        del parts
        return vantages.build(0, entry.name, entry.role, captures, split=split)
    except SpoolError as error:
        spool.clear(folders)
        return error


def analyze(
    loaded: Loaded,
    *,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    rules_dirs: Sequence[str] = (),
    now_ns: int,
) -> Result:
    """Run the rules over a case and return everything there is to say.

    `select` and `ignore` are rule ids; an unknown one is a RuleError. A rule that raises becomes a
    failed rule, never a lost report.
    """
    chosen = _choose(registry.rules(rules_dirs), select, ignore)
    case = loaded.case
    seen = {
        number
        for vantage in case.vantages
        for number in vantage.packets.lazy()
        .select(pl.col("ip_proto").unique())
        .collect()["ip_proto"]
    }
    outcomes: list[Outcome] = []
    failed: list[FailedRule] = []
    for rule in chosen:
        try:
            outcomes.extend(_run(rule, case, seen))
        except Exception as error:  # noqa: BLE001 - a rule's fault must not cost the report
            failed.append(FailedRule(rule=rule.id, error=clean(f"{type(error).__name__}: {error}")))
    said = [item for item in outcomes if isinstance(item, Finding)]
    findings = folding.doubt(folding.fold(said))
    findings, undrawn = _illustrated(case, sorted(findings, key=_worst_first))
    return Result(
        tool=Tool(version=__version__),
        generated_at_ns=now_ns,
        vantages=_vantages(loaded),
        cluster=_cluster(case, findings),
        findings=tuple(findings),
        not_examined=tuple(item for item in outcomes if isinstance(item, NotExamined)),
        clean=tuple(item for item in outcomes if isinstance(item, Clean)),
        failed_rules=tuple(failed),
        notes=(*loaded.notes, *_case_notes(case), *undrawn),
    )


def _illustrated(case: Case, findings: list[Finding]) -> tuple[list[Finding], list[str]]:
    """Return the findings, the worst with figures, and why some have none."""
    drawn, notes = list(findings), []
    for index, finding in enumerate(findings[:MAX_ILLUSTRATED]):
        try:
            drawn[index] = figures.illustrated(case, finding)
        except Exception as error:  # noqa: BLE001 - a figure's fault must not cost the report
            what = clean(f"{type(error).__name__}: {error}")
            notes.append(f"the figures of {finding.id} could not be drawn: {what}")
    return drawn, notes


def _choose(rules: dict[str, Rule], select: Sequence[str], ignore: Sequence[str]) -> list[Rule]:
    for name in (*select, *ignore):
        if name not in rules:
            near = difflib.get_close_matches(name, rules, n=1)
            hint = f"did you mean {near[0]}?" if near else "see `pcapdiag rules`"
            raise RuleError(f"there is no rule {clean(name)!r}; {hint}")
    return [
        rule
        for name, rule in rules.items()
        if (not select or name in select) and name not in ignore
    ]


def _run(rule: Rule, case: Case, protocols: set[int]) -> list[Outcome]:
    missing = _missing(rule, case, protocols)
    if missing is not None:
        return [missing]
    outcomes: list[Outcome] = []
    seen: dict[str, int] = {}
    for outcome in rule.check(case):
        if isinstance(outcome, Finding):
            outcomes.append(_finish(outcome, rule, seen))
        else:
            outcomes.append(replace(outcome, rule=rule.id))
    if not outcomes:
        outcomes.append(
            NotExamined(rule=rule.id, reason="these captures hold nothing that the rule looks at")
        )
    return outcomes


def _missing(rule: Rule, case: Case, protocols: set[int]) -> NotExamined | None:
    """Return why a rule has nothing to look at; `protocols` are those that packets have."""
    roles = rule.needs.roles
    if roles and not case.vantages_of(*roles):
        return NotExamined(
            rule=rule.id,
            reason=f"no capture is known to be from a {' or a '.join(roles)}",
            needs=tuple(f"a capture taken on the {role}" for role in roles),
            capture_command=case.capture_command(role=roles[0]),
        )
    if rule.needs.protocols and protocols.isdisjoint(rule.needs.protocols):
        return NotExamined(
            rule=rule.id,
            reason="none of the captures holds a packet of the protocols that the rule looks at",
            needs=(rule.needs.text,),
        )
    return None


def _finish(finding: Finding, rule: Rule, seen: dict[str, int]) -> Finding:
    """Name the finding and cap its lists, their full counts kept beside them."""
    name = finding_id(rule.id, finding.cause.code, finding.scope, finding.subject)
    if name in seen:
        raise ValueError(f"two findings with one identity: {name}")
    seen[name] = 1
    return replace(
        finding,
        rule=rule.id,
        id=name,
        evidence=finding.evidence[:MAX_EVIDENCE],
        evidence_count=max(finding.evidence_count, len(finding.evidence)),
        flows=finding.flows[:MAX_FLOWS],
        flow_count=max(finding.flow_count, len(finding.flows)),
    )


def _worst_first(finding: Finding) -> tuple[int, int, int, str]:
    return (finding.severity.rank, finding.confidence.rank, -finding.flow_count, finding.id)


def _span(
    read: Sequence[tuple[VantageInput, list[ReadCapture]]],
    since: Instant | None,
    until: Instant | None,
) -> tuple[int | None, int | None, tuple[str, ...]]:
    firsts = [
        part.info.first_ns for _, parts in read for part in parts if part.info.first_ns is not None
    ]
    first = min(firsts, default=0)

    def absolute(instant: Instant | None) -> int | None:
        if instant is None:
            return None
        return first + instant.ns if instant.relative else instant.ns

    start, end = absolute(since), absolute(until)
    if start is None and end is None:
        return None, None, ()
    return start, end, ("only a part of the captures was analysed, as --since and --until say",)


def _within(decoded: Decoded, start: int | None, end: int | None) -> Decoded:
    """Return the packets of [start, end), the side tables' rows counted anew."""
    if start is None and end is None:
        return decoded
    keep = pl.lit(value=True)
    if start is not None:
        keep &= pl.col("time_ns") >= start
    if end is not None:
        keep &= pl.col("time_ns") < end
    keep = keep.fill_null(value=True)
    old = decoded.packets.lazy().select("time_ns").with_row_index("row").filter(keep)
    rows = old.select("row").collect()["row"].to_numpy()

    def about_them(side: pl.DataFrame) -> pl.DataFrame:
        return side_tables.renumbered(side, rows)

    return Decoded(
        packets=spool.replaced(decoded.packets, lambda chunk: chunk.filter(keep)),
        tunnels=spool.replaced(decoded.tunnels, about_them),
        sacks=spool.replaced(decoded.sacks, about_them),
        icmp=about_them(decoded.icmp),
        arp=about_them(decoded.arp),
        vrrp=about_them(decoded.vrrp),
        ipvs_sync=about_them(decoded.ipvs_sync),
    )


def _vantages(loaded: Loaded) -> tuple[Vantage, ...]:
    case = loaded.case
    result = []
    for item in case.vantages:
        role = case.topology.roles[item.index]
        result.append(
            Vantage(
                name=item.name,
                role=role.role,
                role_source=role.source,
                role_reason=role.reason,
                clock_offset_ns=case.clocks.offset_ns[item.index],
                clock_error_ns=case.clocks.error_ns[item.index],
                files=tuple(
                    CaptureFile(
                        path=clean(info.path),
                        format=info.format,
                        packets=info.packets,
                        sha256=loaded.sha256.get(number),
                        link_types=tuple(linktype.name(value) for value in info.link_types),
                        first_ns=info.first_ns,
                        last_ns=info.last_ns,
                        snaplen=info.snaplen,
                        dropped=info.dropped,
                        cut_short=info.cut_short,
                        notes=tuple(clean(note) for note in info.notes),
                    )
                    for number, info in zip(item.capture_ids, item.captures, strict=True)
                ),
            )
        )
    return tuple(result)


def _cluster(case: Case, findings: Sequence[Finding]) -> Cluster:
    def hosts(role: str) -> tuple[Host, ...]:
        return tuple(
            Host(
                name=host.name,
                addresses=tuple(ip_text(*address) for address in sorted(host.addresses)),
                macs=tuple(mac_text(mac) for mac in sorted(host.macs)),
                reason=host.reason,
            )
            for host in case.topology.hosts
            if host.role == role
        )

    return Cluster(
        directors=hosts("director"),
        realservers=hosts("realserver"),
        routers=hosts("router"),
        edges=figures.edges(case, findings),
        services=tuple(
            Service(
                protocol={6: "tcp", 17: "udp", 132: "sctp"}.get(service.ip_proto, "any"),
                vip=ip_text(*service.vip) if service.vip else "any",
                port=service.port,
                fwmark=service.fwmark,
                method=service.method or "unknown",
                encapsulation=service.encapsulation,
                realservers=tuple(ip_text(*address) for address in sorted(service.realservers)),
                reason=service.reason,
            )
            for service in case.topology.services
        ),
    )


def _case_notes(case: Case) -> tuple[str, ...]:
    clocks = tuple(
        f"clock of {item.name}: {reason}"
        for item, reason in zip(case.vantages, case.clocks.reasons, strict=True)
        if reason and case.clocks.offset_ns[item.index] is None
    )
    alike = tuple(
        f"{item.name} holds {item.icmp.height + left_out:,} ICMP messages; the first of those that "
        f"say the same of one flow are looked at, {item.icmp.height:,} in all"
        for item, left_out in zip(case.vantages, case.coverage.icmp_left_out, strict=True)
        if left_out
    )
    return (*case.facts.notes, *case.topology.notes, *case.connections.notes, *clocks, *alike)
