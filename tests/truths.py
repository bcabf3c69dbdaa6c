"""What a truth.json says, in the words in which a result is asked about it."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import TYPE_CHECKING, Any

from pcapdiag import registry

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pcapdiag.result import Finding, Result

ALIASES = {
    "icmp-port-unreachable-expired": "connection-expired-at-director",
    "rst-from-director-expired": "connection-expired-at-director",
    "redirect-to-realserver": "redirect-to-router",
    "fragments-dropped": "fragments-lost",
}
"""Words of older truth files for what is a rule now."""

ALWAYS_ALLOWED = {"capture-quality"}
"""A remark on the captures themselves is never wrong about the cluster."""

ROLE_WORDS = ("director", "lb", "rs", "realserver", "real", "client", "router", "fw")


@cache
def read(folder: Path) -> dict[str, Any]:
    """Return the truth of a sample."""
    return json.loads((folder / "truth.json").read_text())


def vantage(truth: dict[str, Any], capture: dict[str, Any]) -> str:
    """Return the label of a capture: its vantage, or a name that begins with the host's role."""
    if "vantage" in capture:
        return capture["vantage"]
    host = capture["host"]
    first = re.split(r"[-_.\d]", host)[0]
    return host if first in ROLE_WORDS else f"{truth['hosts'][host]['role']}-{host}"


def rule(entry: dict[str, Any]) -> str:
    """Return the rule that an entry of the verdict speaks of."""
    return ALIASES.get(entry["id"], entry["id"])


def causes(entry: dict[str, Any]) -> set[str]:
    """Return the causes that are right for an entry; none where the truth does not know it."""
    named = entry.get("cause") or ()
    return {named} if isinstance(named, str) else set(named)


def direction(entry: dict[str, Any]) -> str | None:
    """Return the direction that an entry is about: to-client, to-realserver, or None."""
    said = entry.get("direction") or entry.get("facts", {}).get("direction")
    return said if said in {"to-client", "to-realserver"} else None


def services(truth: dict[str, Any], entry: dict[str, Any]) -> set[str]:
    """Return the services of the connections of an entry, all where it names none, as scopes do."""
    wanted = set(entry.get("flows") or [flow["id"] for flow in truth["flows"]])
    return {
        f"{flow.get('proto', 'tcp')} {_endpoint(*flow['vip'])}"
        for flow in truth["flows"]
        if flow["id"] in wanted
    }


def demands(truth: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what must be reported, as far as there is a rule for it."""
    return [entry for entry in truth["must_report"] if rule(entry) in registry.rules()]


def allowances(truth: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what must or may be reported."""
    return [*truth["must_report"], *(truth.get("may_report") or [])]


def findings(result: Result, name: str) -> list[Finding]:
    """Return the findings of a rule, and those that it folded into."""
    return [
        finding
        for finding in result.findings
        if finding.rule == name or any(item.rule == name for item in finding.folded)
    ]


def clients(truth: dict[str, Any], ids: Iterable[int]) -> set[str]:
    """Return the client endpoints of flows, as a finding writes them."""
    wanted = set(ids)
    return {_endpoint(*flow["client"]) for flow in truth["flows"] if flow["id"] in wanted}


def _endpoint(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def names(truth: dict[str, Any], host: str) -> set[str]:
    """Return what a finding may call a host: name, addresses, MACs, names of its captures."""
    interfaces = truth["hosts"][host]["ifaces"].values()
    words = {host}
    words |= {item["mac"] for item in interfaces if "mac" in item}
    words |= {address.split("/")[0] for item in interfaces for address in item["addrs"]}
    words |= {vantage(truth, item) for item in truth["captures"] if item["host"] == host}
    return words - set(truth["vips"])


def words_of(values: Iterable[object]) -> set[str]:
    """Return the words in values that name hosts, ports cut off as well as not."""
    flat: list[object] = []
    for value in values:
        flat.extend(value if isinstance(value, tuple) else [value])
    tokens = re.findall(r"[\w.:-]+", " ".join(str(value) for value in flat))
    return {*tokens, *(re.sub(r":\d+$", "", token) for token in tokens)}


def words(finding: Finding) -> set[str]:
    """Return the words in which a finding names hosts."""
    return words_of(
        (
            finding.scope.realserver,
            *(flow.realserver for flow in finding.flows),
            *finding.hosts.values(),
            *finding.facts.values(),
        )
    )
