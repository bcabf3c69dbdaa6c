"""What an analysis of a sample's captures, spoiled or not, said, held against the truth."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import captures
import truths

from pcapdiag import engine
from pcapdiag.capture.vantages import resolve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from captures import Capture
    from degradations import Captures

    from pcapdiag.capture.frames import CaptureInfo
    from pcapdiag.flows.vantage import VantageTables
    from pcapdiag.result import Finding, Result

NOW_NS = 1_800_000_000 * 10**9

TABLES = ("packets", "tunnels", "sacks", "icmp", "arp", "vrrp", "ipvs_sync")
"""What is decoded; flows and errors are made of it."""

OPEN_CAUSES = {
    *("icmp-not-captured", "icmp-lost-on-the-way", "icmp-not-heeded"),
    *("emitter-unknown", "entry-unknown", "redirect-sent", "unexplained"),
}
"""Causes that say no more than that these captures do not show it: right wherever some is lost."""


@dataclass(frozen=True, slots=True)
class Analysis:
    """A result, and the captures that it came from."""

    result: Result
    captures: Captures
    paths: dict[str, Capture]
    vantages: tuple[VantageTables, ...] = ()


def analyse(given: Captures) -> Analysis:
    """Analyse captures in this process, as the command line would."""
    return _analyse(given, None)


def analyse_unless_same(given: Captures, before: Analysis) -> Analysis:
    """Return `before` where reading the captures gives the very tables that it was made of.

    All that rules see is in them, and a rule has no state: they would say the same again.
    """
    return _analyse(given, before)


def _analyse(given: Captures, before: Analysis | None) -> Analysis:
    with tempfile.TemporaryDirectory() as folder:
        arguments, paths = captures.write(given, Path(folder))
        inputs, errors = resolve(arguments)
        loaded = engine.load(inputs)
        assert not errors
        assert not loaded.failures
        vantages = loaded.case.vantages
        if before is not None and _are_same(vantages, before.vantages):
            return before
        return Analysis(engine.analyze(loaded, now_ns=NOW_NS), given, paths, vantages)


def _are_same(some: Sequence[VantageTables], others: Sequence[VantageTables]) -> bool:
    """Whether vantages hold the same, whatever files it came from."""
    return len(some) == len(others) and all(
        (one.name, one.role_given, one.capture_ids) == (two.name, two.role_given, two.capture_ids)
        and [_told(info) for info in one.captures] == [_told(info) for info in two.captures]
        and all(getattr(one, name).equals(getattr(two, name)) for name in TABLES)
        for one, two in zip(some, others, strict=True)
    )


def _told(info: CaptureInfo) -> CaptureInfo:
    """Return what a file says of its capture, but for where and how it is stored."""
    return replace(info, path="", format="", size=None, mtime_ns=None, interfaces=())


def findings(truth: dict[str, Any], analysis: Analysis) -> list[tuple[Any, ...]]:
    """Return what the findings say, in a form that does not depend on how it was captured.

    Hosts have their true names, frames their numbers in the sample; times are left out, and so are
    remarks on the captures themselves.
    """
    hosts = {word: host for host in truth["hosts"] for word in truths.names(truth, host)}
    hosts |= {item.label: item.host for item in analysis.captures}

    def plain(value: object) -> object:
        if isinstance(value, tuple):
            return tuple(sorted((plain(item) for item in value), key=str))
        if not isinstance(value, str):
            return value
        return re.sub(r"[\w.:-]+", lambda word: hosts.get(word[0], word[0]), value)

    def facts(finding: Finding) -> list[tuple[str, object]]:
        return sorted(
            (name, plain(value))
            for name, value in finding.facts.items()
            if not isinstance(value, float)
        )

    return sorted(
        (
            finding.rule,
            finding.cause.code,
            str(finding.severity),
            str(finding.confidence),
            (finding.scope.service, plain(finding.scope.realserver), finding.scope.direction),
            sorted((name, plain(value)) for name, value in finding.hosts.items()),
            sorted(
                (flow.protocol, flow.client, flow.service, str(plain(flow.realserver)))
                for flow in finding.flows
            ),
            finding.flow_count,
            finding.count,
            facts(finding),
            sorted((item.rule, item.cause.code) for item in finding.folded),
            sorted(_cited(analysis, finding)),
        )
        for finding in analysis.result.findings
        if finding.rule not in truths.ALWAYS_ALLOWED
    )


def _cited(analysis: Analysis, finding: Finding) -> set[tuple[str, int]]:
    """Return the frames that prove a finding; which others support it depends on who took them."""
    cited = set()
    for item in finding.evidence:
        if item.role == "primary":
            capture = analysis.paths[item.file]
            cited.add((capture.file, capture.frames[item.frame - 1].number))
    return cited


def wrong(truth: dict[str, Any], analysis: Analysis, *, spoiled: bool) -> list[str]:
    """Return the findings that the truth neither demands nor allows, a line each.

    A rule is wrong where the truth does not name it; else its cause, a host that it accuses, its
    direction or a connection are wrong where the truth says which are right.
    """
    said = [
        f"{failed.rule}: the rule failed: {failed.error}" for failed in analysis.result.failed_rules
    ]
    hosts = {host: _names(truth, analysis.captures, host) for host in truth["hosts"]}
    for finding in analysis.result.findings:
        if finding.rule not in truths.ALWAYS_ALLOWED:
            entries = _entries(truth, finding.rule)
            reason = _fault(truth, entries, finding, hosts, spoiled=spoiled)
            if reason:
                said.append(f"{finding.rule}: {reason}: {finding.summary}")
        for item in finding.folded:
            entries = _entries(truth, item.rule)
            if not entries or not _is_right_cause(entries, item.cause.code, spoiled=spoiled):
                said.append(f"{item.rule}, folded: cause {item.cause.code}")
    return said


def _entries(truth: dict[str, Any], rule: str) -> list[dict[str, Any]]:
    return [entry for entry in truths.allowances(truth) if truths.rule(entry) == rule]


def _names(truth: dict[str, Any], given: Captures, host: str) -> set[str]:
    """Return the words for a host, with the labels of these captures instead of the sample's."""
    others = {item.label for item in given if item.host != host}
    own = {item.label for item in given if item.host == host}
    return (truths.names(truth, host) - others) | own


def _fault(
    truth: dict[str, Any],
    entries: list[dict[str, Any]],
    finding: Finding,
    hosts: dict[str, set[str]],
    *,
    spoiled: bool,
) -> str | None:
    """Return what is wrong with a finding, or None."""
    if not entries:
        return f"cause {finding.cause.code}, nothing of it is so"
    if not _is_right_cause(entries, finding.cause.code, spoiled=spoiled):
        return f"cause {finding.cause.code}"
    directions = {truths.direction(entry) for entry in entries} - {None}
    if directions and finding.scope.direction not in {*directions, None}:
        return f"direction {finding.scope.direction}"
    if all(entry.get("hosts") for entry in entries):
        right = {
            host for entry in entries for host in (*entry["hosts"], *entry.get("may_hosts", ()))
        }
        named = _hosts(hosts, truths.words_of((finding.scope.realserver, *finding.hosts.values())))
        accused = _hosts(
            hosts, truths.words_of((finding.hosts.get("emitter"), finding.hosts.get("sender")))
        )
        if (named and not named & right) or accused - right:
            return f"names {sorted(named)}"
    if all(entry.get("flows") for entry in entries):
        ids = [id_ for entry in entries for id_ in (*entry["flows"], *entry.get("may_flows", ()))]
        others = {flow.client for flow in finding.flows} - truths.clients(truth, ids)
        besides = {address for entry in entries for address in entry.get("may_clients", ())}
        others = {client for client in others if client.rpartition(":")[0] not in besides}
        if others:
            return f"connections {sorted(others)}"
    return None


def _hosts(hosts: dict[str, set[str]], words: set[str]) -> set[str]:
    return {host for host, names in hosts.items() if names & words}


def _is_right_cause(entries: list[dict[str, Any]], code: str, *, spoiled: bool) -> bool:
    right: set[str] = set()
    for entry in entries:
        causes = entry.get("cause")
        if not causes:
            return True
        right |= {causes} if isinstance(causes, str) else set(causes)
        right |= set(entry.get("may_causes", ())) if spoiled else set()
    return code in right or (spoiled and code in OPEN_CAUSES)
