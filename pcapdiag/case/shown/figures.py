"""What the figures of a finding show, for whatever rule it is of."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag.addresses import endpoint_text
from pcapdiag.case.shown.ladder import ladder
from pcapdiag.case.shown.size_fates import size_fates
from pcapdiag.case.shown.timeline import timeline
from pcapdiag.case.shown.words import described
from pcapdiag.result import Edge, SizeFate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pcapdiag.case.case import Case
    from pcapdiag.result import Finding

MAX_BROKEN: Final = 6
"""Broken hops in the cluster's figure: those of the worst findings."""

_METHODS: Final = {
    "forwarded": "requests forwarded (DR)",
    "translated": "requests translated (NAT)",
    "tunnelled": "requests tunnelled (TUN)",
}


def illustrated(case: Case, finding: Finding) -> Finding:
    """Return `finding` with its frames in words, ladder, timeline and, where they matter, sizes.

    What a rule filled in itself stays where nothing better is found.
    """
    finding = described(case, finding)
    if not finding.flows:  # it is about no connection: of a capture, or of a host
        return finding
    drawn = ladder(case, finding)
    if drawn.steps:
        finding = replace(finding, ladder=drawn.steps, ladder_columns=drawn.columns)
    connections = _connections(case, finding)
    if finding.timeline is None:
        finding = replace(finding, timeline=timeline(case, connections))
    if finding.sizes and finding.scope.direction is not None:
        sizes = size_fates(case, connections, finding.scope.direction)
        if any(item.lost for item in sizes):
            finding = replace(finding, sizes=_merged(sizes, finding.sizes))
    return finding


def _merged(counted: Iterable[SizeFate], told: Iterable[SizeFate]) -> tuple[SizeFate, ...]:
    """Return what was counted, and what a rule knows besides: SACKs tell of arrivals, too."""
    sizes = {item.ip_length: item for item in told}
    for item in counted:
        known = sizes.get(item.ip_length, item)
        sizes[item.ip_length] = SizeFate(
            ip_length=item.ip_length,
            delivered=max(item.delivered, known.delivered),
            lost=max(item.lost, known.lost),
        )
    return tuple(sizes[length] for length in sorted(sizes))


def _connections(case: Case, finding: Finding) -> list[int]:
    """Return the connections that a finding lists, found again by their endpoints."""
    hit = {(flow.client, flow.service) for flow in finding.flows}
    rows = case.members.select(
        "connection", "client_hi", "client_lo", "client_port", "vip_hi", "vip_lo", "vip_port"
    )
    ports = [client.rpartition(":")[2] for client, _ in hit]
    known = rows.filter(pl.col("client_port").cast(pl.String).is_in(ports))
    return [
        row[0]
        for row in known.iter_rows()
        if (endpoint_text(*row[1:4]), endpoint_text(*row[4:7])) in hit
    ]


def edges(case: Case, findings: Iterable[Finding]) -> tuple[Edge, ...]:
    """Return the arrows of the cluster's figure, then the hops on which findings lost packets.

    What a director sent on by its method is not shown once more as requests that it sent.
    """
    found = case.topology.edges()
    sent_on = {(edge.source, edge.target) for edge in found if edge.label in _METHODS}
    arrows = [
        Edge(
            from_=edge.source,
            to=edge.target,
            label=_METHODS.get(edge.label, edge.label),
            packets=edge.packets,
        )
        for edge in found
        if edge.label != "requests" or (edge.source, edge.target) not in sent_on
    ]
    hosts = {f"{item.name} {word}": item.name for item in case.vantages for word in ("in", "out")}
    broken: dict[tuple[str, str], Edge] = {}
    for step in (step for finding in findings for step in finding.ladder if step.fate == "lost"):
        hop = (hosts.get(step.from_, step.from_), hosts.get(step.to, step.to))
        known = broken.get(hop)
        broken[hop] = Edge(
            from_=hop[0],
            to=hop[1],
            label=known.label if known else f"lost: {step.label}",
            packets=step.repeats + (known.packets if known else 0),
            broken=True,
        )
    return (*arrows, *list(broken.values())[:MAX_BROKEN])
