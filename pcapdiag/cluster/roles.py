"""Which host is what: MACs to roles, roles to vantages, MACs and addresses to named hosts."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, cast

import polars as pl

from pcapdiag.addresses import ip_text, mac_text
from pcapdiag.cluster import macs
from pcapdiag.cluster.evidence import claimants
from pcapdiag.cluster.macs import INITIAL_TTLS, LOWEST_FORWARDED_TTL
from pcapdiag.cluster.parts import HostInfo, Role, VantageRole

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from collections.abc import Set as AbstractSet

    from pcapdiag.cluster.evidence import Evidence
    from pcapdiag.cluster.observed import Observed
    from pcapdiag.cluster.parts import Address
    from pcapdiag.flows.vantage import VantageTables
    from pcapdiag.site import Site, SiteHost

MAX_HOSTS: Final = 256
"""Hosts named one by one: more routers and clients on one link than this tell nobody anything."""

_FAMILIES: Final = ((0, 0xFFFF_0000_0000), (0, 0))
"""An address of each family: 0.0.0.0 in its mapped form, and ::."""

_RANK: Final = ("director", "realserver", "router", "client")


@dataclass
class Cast:
    """MAC -> (role, reason, proven by traffic rather than said by a label)."""

    roles: dict[int, tuple[str, str, bool]] = field(default_factory=dict)

    def give(self, mac: int, role: str, reason: str, proven: bool) -> None:
        """Give a MAC a role unless it has one."""
        self.roles.setdefault(mac, (role, reason, proven))


def cast_macs(
    vantages: Sequence[VantageTables],
    observed: Observed,
    evidence: Evidence,
    labels: Sequence[str | None],
    site: Site | None,
) -> tuple[Cast, tuple[frozenset[int], ...]]:
    """Return the roles of MACs, and per vantage the MACs of the capturing host.

    Given are first the roles that packets prove, then those that labels and site.toml say, then
    those that follow from labels, then those of who is left around the cluster.
    """
    roles = Cast()
    _inferred(evidence, roles, proven=True)
    own = tuple(
        _resolve(vantage, observed, evidence, index, labels[index], roles)
        for index, vantage in enumerate(vantages)
    )
    for host in site.hosts if site is not None else ():
        for mac in host.macs:
            if host.role is not None:
                roles.give(mac, host.role, "site.toml says so", proven=False)
    for vantage, label, mine in zip(vantages, labels, own, strict=True):
        for mac in mine if label is not None else ():
            roles.give(mac, str(label), f'the capture "{vantage.name}" is its own', proven=False)
    _inferred(evidence, roles, proven=False)
    _around(vantages, evidence, roles)
    # Who is a router or a client may settle whose capture one of two MACs took.
    own = tuple(
        mine or _resolve(vantage, observed, evidence, index, labels[index], roles)
        for index, (vantage, mine) in enumerate(zip(vantages, own, strict=True))
    )
    return roles, own


def _inferred(evidence: Evidence, roles: Cast, *, proven: bool) -> None:
    """Give the roles that services.py found, those that packets prove or the others."""
    for role, found in (("director", evidence.directors), ("realserver", evidence.realservers)):
        for mac, reason in found.items():
            if (mac not in evidence.unproven) == proven:
                roles.give(mac, role, reason, proven)


def _around(vantages: Sequence[VantageTables], evidence: Evidence, roles: Cast) -> None:
    """Give roles to routers and clients: who brings requests for a VIP and takes its answers."""
    vips = pl.DataFrame(
        sorted(evidence.vips()), schema={"resp_hi": pl.UInt64, "resp_lo": pl.UInt64}, orient="row"
    )
    parts = [
        vantage.flows.lazy().select(
            "resp_hi",
            "resp_lo",
            "orig_eth_src",
            "orig_eth_dst",
            "resp_eth_src",
            "resp_eth_dst",
            _fresh("orig").alias("near"),
            _lowered("orig").alias("far"),
            _lowered("resp").alias("relayed"),
        )
        for vantage in vantages
    ]
    flows = pl.concat(parts).join(vips.lazy(), on=["resp_hi", "resp_lo"], how="semi")
    # Behind a translation the director itself relays answers with a lowered TTL.
    direct = {key[1] for key, found in evidence.services.items() if found.method in {"dr", "tun"}}
    is_nat = ~pl.col("resp_lo").is_in([low for _, low in direct])
    found = flows.select(
        pl.col("orig_eth_src").filter(pl.col("far")).unique().implode().alias("bring"),
        pl.col("resp_eth_dst").filter(pl.col("far")).unique().implode().alias("take"),
        pl.col("resp_eth_src")
        .filter(pl.col("relayed") & ~is_nat)
        .unique()
        .implode()
        .alias("relay"),
        pl.col("orig_eth_src").filter(pl.col("near")).unique().implode().alias("ask"),
    ).collect()
    for name, role, reason in (
        ("bring", "router", "it brings requests whose TTL was lowered on the way"),
        ("take", "router", "it takes answers for clients that are further away"),
        ("relay", "router", "it relays answers whose TTL was lowered on the way"),
        ("ask", "client", "it sends requests of its own to the VIP"),
    ):
        for mac in sorted(found.get_column(name).explode().drop_nulls().to_list())[:MAX_HOSTS]:
            roles.give(mac, role, reason, proven=True)


def _fresh(side: str) -> pl.Expr:
    return pl.col(f"{side}_ttl").is_in(INITIAL_TTLS).fill_null(False)


def _lowered(side: str) -> pl.Expr:
    ttl = pl.col(f"{side}_ttl")
    return ((ttl >= LOWEST_FORWARDED_TTL) & ~ttl.is_in(INITIAL_TTLS)).fill_null(False)


def cast_vantages(
    vantages: Sequence[VantageTables],
    observed: Observed,
    evidence: Evidence,
    labels: Sequence[str | None],
    roles: Cast,
    own: Sequence[frozenset[int]],
) -> tuple[VantageRole, ...]:
    """Return the role of each vantage. A label wins over an inference and yields to proof."""
    return tuple(
        _cast_vantage(vantage.name, observed, evidence, index, labels[index], own[index], roles)
        for index, vantage in enumerate(vantages)
    )


def _resolve(
    vantage: VantageTables,
    observed: Observed,
    evidence: Evidence,
    index: int,
    label: str | None,
    roles: Cast,
) -> frozenset[int]:
    """Return the capturing host's MACs, one of a pair chosen where something chooses.

    That is the only one with the vantage's role; else, with a label, the only one that may have
    it: an end of connections is no director or router, and a relay is no end.
    """
    own, either = observed.macs.own[index], observed.macs.either[index]
    wanted = "director" if index in evidence.director_vantages else label
    if not either or wanted is None:
        return own
    held = {mac: roles.roles[mac][0] for mac in either if mac in roles.roles}
    fitting = {mac for mac, role in held.items() if role == wanted}
    if len(fitting) == 1 or index in evidence.director_vantages:
        return own | fitting
    if fitting:
        return own
    answering = observed.answers.filter(pl.col("vantage") == index).get_column("mac")
    asking = vantage.flows.filter(_fresh("orig")).get_column("orig_eth_src")
    natures = {"realserver": set(answering.to_list()), "client": set(asking.to_list())}
    ends = natures["realserver"] | natures["client"]
    possible = either - set(held)
    possible &= natures[wanted] if wanted in natures else either - ends
    return own | possible if len(possible) == 1 else own


def _cast_vantage(
    name: str,
    observed: Observed,
    evidence: Evidence,
    index: int,
    label: str | None,
    mine: frozenset[int],
    roles: Cast,
) -> VantageRole:
    """Return the role of one vantage with its reason."""
    held = [roles.roles[mac] for mac in sorted(mine) if mac in roles.roles]
    held.sort(key=lambda item: _RANK.index(item[0]))
    found, reason, proven = held[0] if held else ("unknown", "", False)
    if index in evidence.director_vantages:
        found, reason = "director", evidence.director_vantages[index]
        proven = not mine & evidence.unproven
    if label is None:
        if found == "unknown":
            return VantageRole(
                name, "unknown", "unknown", "nothing in its packets tells which host it is"
            )
        return VantageRole(name, cast("Role", found), "inferred", reason)
    if found not in {"unknown", label} and proven:
        if found in {"director", "realserver"}:
            return VantageRole(
                name,
                "unknown",
                "refuted",
                f"labelled {label}, but its packets show a {found}: {reason}",
            )
        if found == "router" and label in {"director", "realserver"}:
            return VantageRole(
                name,
                "unknown",
                "refuted",
                f"labelled {label}, but its packets show a router: {reason}",
            )
    asked = _asks_for_a_vip(observed, evidence, mine)
    if label == "director" and asked is not None and not (found == "director" and proven):
        return VantageRole(
            name,
            "unknown",
            "refuted",
            f"labelled director, but it asks who has {ip_text(*asked)}, which another host owns",
        )
    return VantageRole(name, cast("Role", label), "given", "its label says so")


def _asks_for_a_vip(observed: Observed, evidence: Evidence, mine: frozenset[int]) -> Address | None:
    """Return a VIP that the host asks for and another host claims, if there is one."""
    for vip in sorted(evidence.vips()):
        rows = observed.macs.questions.filter(
            (pl.col("hi") == vip[0]) & (pl.col("lo") == vip[1]) & pl.col("mac").is_in(list(mine))
        )
        if not rows.is_empty() and claimants(observed, vip) - mine:
            return vip
    return None


def hosts(
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
        mine = own[index] - taken
        role = given[index]
        if role.role == "unknown" or (not mine and role.role != "director"):
            continue
        taken |= mine
        made.append(
            HostInfo(
                vantage.name,
                role.role,
                _addresses(observed, mine, served),
                frozenset(mine),
                role.reason,
            )
        )
        names.add(vantage.name)
    _join_twins(made, taken, evidence)
    for mac, (kind, reason, _) in sorted(roles.roles.items())[: MAX_HOSTS * 4]:
        if mac in taken or (kind == "client"):
            continue
        mine = frozenset({mac} | {two for one, two in evidence.twins if one == mac} - taken)
        addresses = _addresses(observed, mine, served)
        entry = _named(site, mine, addresses)
        name = entry.name if entry else _address_name(addresses - vips, mac)
        made.append(HostInfo(name, cast("Role", kind), addresses, mine, reason))
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
            )
        )
    made += _from_site(site, made)
    return tuple(_merged(made))


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
        for family in _FAMILIES:
            found |= macs.addresses_of(observed.macs, mac, family)
        found |= served.get(mac, set())
    return frozenset(found)


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
            )
        )
    return list(by_name.values())
