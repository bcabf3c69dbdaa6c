"""The parts of a cluster as values: the roles of vantages, hosts, virtual services, edges."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Address = tuple[int, int]
"""An IP address as (hi, lo), see addresses.py."""

Role = Literal["director", "realserver", "client", "router", "unknown"]
Confidence = Literal["high", "medium", "low"]
"""High: packets prove it. Medium: a label or site.toml says it, or packets suggest it, and nothing
contradicts. Low: nothing shows it."""

RoleSource = Literal["given", "inferred", "refuted", "unknown"]


class VantageRole(NamedTuple):
    """What a vantage is, who says so, and why in one sentence."""

    name: str
    role: Role
    source: RoleSource
    reason: str
    confidence: Confidence = "low"


@dataclass(frozen=True, slots=True)
class HostInfo:
    """A member of the cluster. A VIP of LVS-DR or LVS-TUN stands with every host that has it."""

    name: str
    role: Role
    addresses: frozenset[Address]
    macs: frozenset[int]
    reason: str
    confidence: Confidence = "low"


@dataclass(frozen=True, slots=True)
class ServiceInfo:
    """A virtual service. `vip` is None only for a firewall mark without an address.

    `port` None means every port; `method` None means that nothing shows it. `realserver_ports` are
    the ports behind the translation of NAT, as (realserver, port).
    """

    ip_proto: int
    vip: Address | None
    port: int | None
    fwmark: int | None
    method: Literal["nat", "dr", "tun"] | None
    encapsulation: Literal["ipip", "gre", "gue"] | None
    realservers: frozenset[Address]
    reason: str
    realserver_ports: frozenset[tuple[Address, int]] = field(default=frozenset())
    confidence: Confidence = "low"


class EdgeInfo(NamedTuple):
    """An arrow of the cluster figure between two hosts, by name."""

    source: str
    target: str
    label: str
    packets: int
