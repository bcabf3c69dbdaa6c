"""The members of the cluster: hosts behind MACs and addresses, named."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final, cast

import polars as pl

from pcapdiag.addresses import ip_text, mac_text
from pcapdiag.cluster.cast import macs
from pcapdiag.cluster.cast.tunnelling import ENCAPSULATION_OF
from pcapdiag.cluster.parts import Confidence, HostInfo, Role, VantageRole

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from collections.abc import Set as AbstractSet

    from pcapdiag.cluster.cast.evidence import Evidence
    from pcapdiag.cluster.cast.observed import Observed
    from pcapdiag.cluster.cast.roles import Cast
    from pcapdiag.cluster.parts import Address
    from pcapdiag.flows.vantage import VantageTables
    from pcapdiag.site import Site, SiteHost

MAX_HOSTS: Final = 256
"""Hosts named one by one: more routers and clients on one link than this tell nobody anything."""


def find(
    vantages: Sequence[VantageTables],
    observed: Observed,
    evidence: Evidence,
    site: Site | None,
    roles: Cast,
    given: Sequence[VantageRole],
    own: Sequence[frozenset[int]],
) -> tuple[HostInfo, ...]:
    """Return the members of the cluster: vantages' hosts, those known by MAC, those by address."""
    made: list[HostInfo] = []
    taken: set[int] = set()
    vips = evidence.vips()
    served = {
        mac: {key[1] for key, item in evidence.services.items() if mac in item.realserver_macs}
        for mac in roles.roles
    }
    names = {host.name for host in (site.hosts if site is not None else ())}
    for index, vantage in enumerate(vantages):
        claimed = own[index] - _proven_elsewhere(observed, index)
        mine = claimed - taken
        role = given[index]
        nameless = role.role != "director" or claimed != own[index]
        if role.role == "unknown" or (not mine and nameless):
            continue
        taken |= mine
        ends = _tunnel_ends(observed, index, mine) if role.role == "realserver" else frozenset()
        made.append(
            HostInfo(
                vantage.name,
                role.role,
                _addresses(observed, mine, served) | ends,
                frozenset(mine),
                role.reason,
                role.confidence,
            )
        )
        names.add(vantage.name)
    _join_twins(made, taken, evidence)
    for mac, (kind, reason, proven) in sorted(roles.roles.items())[: MAX_HOSTS * 4]:
        if mac in taken or (kind == "client"):
            continue
        mine = frozenset({mac} | {two for one, two in evidence.twins if one == mac} - taken)
        addresses = _addresses(observed, mine, served)
        if kind == "realserver":
            addresses |= _tunnel_ends(observed, None, mine)
        entry = _named(site, mine, addresses)
        name = entry.name if entry else _address_name(addresses - vips, mac)
        sure: Confidence = "high" if proven else "medium"
        made.append(HostInfo(name, cast("Role", kind), addresses, mine, reason, sure))
        taken |= mine
    known = {address for host in made for address in host.addresses}
    for address in sorted(
        {address for item in evidence.services.values() for address in item.realservers} - known
    )[:MAX_HOSTS]:
        entry = _named(site, set(), {address})
        made.append(
            HostInfo(
                entry.name if entry else ip_text(*address),
                "realserver",
                frozenset({address}),
                frozenset(),
                "the director sends requests to this address",
                "high",
            )
        )
    made += _from_site(site, made)
    return tuple(_merged(made))


def _proven_elsewhere(observed: Observed, index: int) -> frozenset[int]:
    """Return the MACs that frames show to be other captures' own, not this one's.

    A label may have chosen such a MAC as one of the two that a capture can be of.
    """
    others = (mine for number, mine in enumerate(observed.macs.own) if number != index)
    return frozenset().union(*others) - observed.macs.own[index]


def _join_twins(made: list[HostInfo], taken: set[int], evidence: Evidence) -> None:
    """Give a director's host its other MAC, and make two hosts one that share a pair."""
    for pair in sorted(evidence.twins):
        owners = [host for host in made if host.role == "director" and host.macs & set(pair)]
        free = set(pair) - taken
        if len(owners) == 1:
            made[made.index(owners[0])] = replace(owners[0], macs=owners[0].macs | free)
            taken |= free
        elif len(owners) == 2:
            one, two = owners
            made[made.index(one)] = replace(
                one,
                name=_common_name(one.name, two.name),
                addresses=one.addresses | two.addresses,
                macs=one.macs | two.macs,
            )
            made.remove(two)


def _common_name(one: str, two: str) -> str:
    """Return the words that two names begin with: "director" of director-eth0, director-eth1."""
    words = [re.split(r"[-_.]", name) for name in (one, two)]
    common = [left for left, right in zip(*words, strict=False) if left == right]
    return "-".join(common) if common and words[0][: len(common)] == common else one


def _addresses(
    observed: Observed,
    mine: Iterable[int],
    served: dict[int, set[Address]],
) -> frozenset[Address]:
    """Return the addresses of a host by its MACs: claimed, sent from, and the VIPs it serves."""
    found: set[Address] = set()
    for mac in mine:
        for family in macs.FAMILIES:
            found |= macs.addresses_of(observed.macs, mac, family)
        found |= served.get(mac, set())
    return frozenset(found)


def _tunnel_ends(observed: Observed, index: int | None, mine: frozenset[int]) -> frozenset[Address]:
    """Return the addresses to which a realserver's tunnelled requests come.

    Those its own capture (of vantage `index`) shows arriving; elsewhere the one that all frames to
    its MAC are for, since a MAC that takes several may be a router's on the way.
    """
    taken = pl.col("eth_dst").is_in(list(mine))
    if index is not None:
        taken = (pl.col("vantage") == index) & (pl.col("eth_dst").is_null() | taken)
    came = observed.tunnelled.filter(
        pl.col("by_orig") & pl.col("tunnel").is_in(list(ENCAPSULATION_OF)) & taken
    )
    ends = came.select("outer_dst_hi", "outer_dst_lo").unique().head(macs.MAX_ADDRESSES)
    found = frozenset(ends.iter_rows())
    return found if index is not None or len(found) == 1 else frozenset()


def _address_name(addresses: Iterable[Address], mac: int) -> str:
    """Return the one address of a host as its name, its MAC where it has none or several."""
    several = sorted(addresses)
    return ip_text(*several[0]) if len(several) == 1 else mac_text(mac)


def _named(
    site: Site | None, mine: AbstractSet[int], addresses: Iterable[Address]
) -> SiteHost | None:
    """Return the host of site.toml with one of these MACs or addresses."""
    for host in site.hosts if site is not None else ():
        if mine & set(host.macs) or set(addresses) & set(host.addresses):
            return host
    return None


def _from_site(site: Site | None, made: Sequence[HostInfo]) -> list[HostInfo]:
    """Return the hosts that only site.toml knows."""
    names = {host.name for host in made}
    return [
        HostInfo(
            host.name,
            cast("Role", host.role or "unknown"),
            frozenset(host.addresses),
            frozenset(host.macs),
            "site.toml names it",
            "medium",
        )
        for host in (site.hosts if site is not None else ())
        if host.name not in names
    ]


def _merged(made: Sequence[HostInfo]) -> list[HostInfo]:
    """Return the hosts with those of one name made one, the first one's role and reason kept."""
    by_name: dict[str, HostInfo] = {}
    for host in made:
        earlier = by_name.get(host.name)
        by_name[host.name] = (
            host
            if earlier is None
            else HostInfo(
                host.name,
                earlier.role,
                earlier.addresses | host.addresses,
                earlier.macs | host.macs,
                earlier.reason,
                earlier.confidence,
            )
        )
    return list(by_name.values())
