"""What is known of services and the hosts behind them, while evidence comes in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag.addresses import endpoint_text, ip_text, mac_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pcapdiag.cluster.cast.observed import Observed
    from pcapdiag.cluster.parts import Address
    from pcapdiag.site import Site

Key = tuple[int, "Address", int | None]
"""Protocol, VIP, port."""

MAX_ENDPOINTS: Final = 1024
"""Server endpoints looked at one by one, busiest first: a scan of a whole port range passes a
director too, and no cluster has more services."""


@dataclass
class Found:
    """One service while evidence comes in; `proven`: packets show its method."""

    method: str | None = None
    encapsulation: str | None = None
    realservers: set[Address] = field(default_factory=set)
    realserver_ports: set[tuple[Address, int]] = field(default_factory=set)
    realserver_macs: set[int] = field(default_factory=set)
    fwmark: int | None = None
    reasons: list[str] = field(default_factory=list)
    proven: bool = False


@dataclass
class Evidence:
    """What is known of services, and of the hosts behind them, while evidence comes in.

    directors, realservers: MAC -> reason. director_vantages: vantage index -> reason (its own MAC
    did it). director_addresses: addresses that directors use (outer source of a tunnel).
    unproven: MACs of the former that are there because a label said so. twins: MACs of one
    host. undecided: addresses whose packets a director or a router forwards.
    """

    services: dict[Key, Found] = field(default_factory=dict)
    directors: dict[int, str] = field(default_factory=dict)
    realservers: dict[int, str] = field(default_factory=dict)
    director_vantages: dict[int, str] = field(default_factory=dict)
    director_addresses: set[Address] = field(default_factory=set)
    unproven: set[int] = field(default_factory=set)
    twins: set[tuple[int, int]] = field(default_factory=set)
    undecided: set[Address] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    def director(self, mac: int, reason: str, *, proven: bool = True) -> None:
        """Note that the owner of a MAC is a director; proof outweighs what a label said."""
        self._host(self.directors, mac, reason, proven)

    def realserver(self, mac: int, reason: str, *, proven: bool = True) -> None:
        """Note that the owner of a MAC is a realserver; proof outweighs what a label said."""
        self._host(self.realservers, mac, reason, proven)

    def _host(self, among: dict[int, str], mac: int, reason: str, proven: bool) -> None:
        if mac not in among:
            among[mac] = reason
            if not proven:
                self.unproven.add(mac)
        elif proven and mac in self.unproven:
            among[mac] = reason
            self.unproven.discard(mac)

    def service(self, key: Key, method: str | None, reason: str, *, proven: bool = True) -> Found:
        """Return the service of `key`, made if it is new; an earlier method is kept."""
        found = self.services.setdefault(key, Found())
        if method is not None and found.method is None:
            found.method = method
        elif method is not None and found.method != method:
            self.notes.append(
                f"{name_of(key)}: seen as {found.method} and as {method}; {found.method} was kept"
            )
            return found
        found.proven |= proven and method is not None
        if reason not in found.reasons:
            found.reasons.append(reason)
        return found

    def vips(self) -> set[Address]:
        """Return the VIPs of services of which more is known than that they exist."""
        return {
            key[1]
            for key, found in self.services.items()
            if found.method is not None or found.realserver_macs
        }


def name_of(key: Key) -> str:
    """Return a service as "203.0.113.10:80"."""
    return endpoint_text(*key[1], key[2])


def claimants(observed: Observed, address: Address) -> set[int]:
    """Return the MACs that answered or announced an address in ARP or neighbour discovery."""
    rows = observed.macs.claims.filter(is_address(address) & (pl.col("answers") > 0))
    return set(rows.get_column("mac").to_list())


def askers(observed: Observed, address: Address) -> set[int]:
    """Return the MACs that asked for an address: whoever owns it does not."""
    return set(observed.macs.questions.filter(is_address(address)).get_column("mac").to_list())


def is_address(address: Address) -> pl.Expr:
    """Whether columns hi, lo are an address."""
    return pl.col("hi").eq(address[0]) & pl.col("lo").eq(address[1])


def wanted(site: Site | None, address: Address, method: str) -> bool:
    """Whether site.toml declares a service of `method` at an address."""
    services = site.services if site is not None else ()
    return any(item.vip == address and item.method == method for item in services)


def by_address(paths: pl.DataFrame, *more: str) -> Iterable[tuple[Address, pl.DataFrame]]:
    """Yield the paths of one server address each, the busiest first, at most MAX_ENDPOINTS."""
    if paths.is_empty():
        return
    keys = ["resp_hi", "resp_lo", *more]
    busiest = (
        paths.group_by(keys).agg(pl.col("packets").sum()).sort("packets", *keys, descending=True)
    )
    for row in busiest.head(MAX_ENDPOINTS).iter_rows(named=True):
        same = [pl.col(key).eq_missing(pl.lit(row[key], paths.schema[key])) for key in keys]
        yield (row["resp_hi"], row["resp_lo"]), paths.filter(*same)


def mac_or_host(mac: int | None) -> str:
    """Return a MAC as text; None stands for a capturing host without MACs."""
    return "the capturing host" if mac is None else mac_text(mac)


def forwards(
    observed: Observed,
    evidence: Evidence,
    index: int,
    forwarder: int | None,
    part: pl.DataFrame,
    address: Address,
    how: str,
    *,
    proven: bool,
) -> None:
    """Note that the owner of `forwarder` is a director, and the vantage if it is that host."""
    own = observed.macs.own[index]
    reason = f"it sends packets to {ip_text(*address)} on, {how}"
    arrived = set(part.get_column("in_dst").drop_nulls().to_list())
    here = own | observed.macs.either[index]
    for mac in sorted((arrived & own) | ({forwarder} if forwarder is not None else set())):
        evidence.director(mac, reason, proven=proven)
    if forwarder is None or forwarder in here:
        evidence.director_vantages.setdefault(index, reason)
