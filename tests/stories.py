"""Cases out of inline traces, one a vantage; the hosts of traces.HOSTS stand in one DR cluster."""

from __future__ import annotations

from dataclasses import replace

from traces import Trace, trace

from pcapdiag.case import Case
from pcapdiag.flows import vantage

ROLES = {"director": "director", "rs": "realserver", "router": "router", "client": "client"}


def case(**texts: str) -> Case:
    """Return a case with a vantage for each keyword, its role from the name's first word."""
    return Case(
        tuple(_tables(index, name, trace(text)) for index, (name, text) in enumerate(texts.items()))
    )


def _tables(index: int, name: str, packets: Trace) -> vantage.VantageTables:
    info = replace(packets.info(), path=f"{name}.pcap")
    role = ROLES.get(name.rstrip("0123456789"))
    return vantage.build(index, name, role, [(info, packets.decoded(index))])


def marked(**texts: str) -> set[tuple[str, int]]:
    """Return (vantage, frame) of the lines that end in `!`."""
    return {(name, frame) for name, text in texts.items() for frame in trace(text).marked}


def cited(finding, role: str = "primary") -> set[tuple[str, int]]:
    """Return (vantage, frame) of a finding's evidence of one role."""
    return {(item.vantage, item.frame) for item in finding.evidence if item.role == role}
