"""Which host is what: MACs to roles, roles to vantages, MACs and addresses to named hosts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, cast

import polars as pl

from pcapdiag.addresses import ip_text
from pcapdiag.cluster.cast.evidence import claimants
from pcapdiag.cluster.cast.hosts import MAX_HOSTS
from pcapdiag.cluster.cast.macs import INITIAL_TTLS, LOWEST_FORWARDED_TTL
from pcapdiag.cluster.parts import Confidence, Role, VantageRole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcapdiag.cluster.cast.evidence import Evidence
    from pcapdiag.cluster.cast.observed import Observed
    from pcapdiag.cluster.parts import Address
    from pcapdiag.flows.vantage import VantageTables
    from pcapdiag.site import Site

PAIR: Final = 2
"""MACs of a link between two hosts."""

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
    _around(vantages, observed, evidence, roles)
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


def _around(
    vantages: Sequence[VantageTables], observed: Observed, evidence: Evidence, roles: Cast
) -> None:
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
    # Who hands requests to a realserver itself is a director, or a router that was led astray.
    # The same holds for who brings them inside a tunnel.
    wrapping = observed.tunnelled.filter("by_orig").get_column("eth_src").drop_nulls().unique()
    past = pl.any_horizontal(
        pl.col("orig_eth_dst").is_in(list(evidence.realservers)),
        pl.col("orig_eth_src").is_in(wrapping.implode()),
    ).fill_null(False)
    found = flows.select(
        pl.col("orig_eth_src").filter(pl.col("far") & ~past).unique().implode().alias("bring"),
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
    """Return the role of one vantage with its reason.

    Where its MAC is one of two, a role that both have is its role, whichever it is. A client's link
    is a client's capture at either end, unless the other end is known to be more than a router.
    """
    held = [roles.roles[mac] for mac in sorted(mine) if mac in roles.roles]
    either = observed.macs.either[index]
    if not mine and len({roles.roles.get(mac, (str(mac),))[0] for mac in either}) == 1:
        held = [roles.roles[mac] for mac in sorted(either)]
    elif not mine and _is_clients_link(either, roles):
        held = [("client", "all its frames run between a client and its next hop", False)]
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
        sure: Confidence = "high" if proven else "medium"
        return VantageRole(name, cast("Role", found), "inferred", reason, sure)
    refuted = _refuted(observed, evidence, index, label, mine, roles, (found, reason, proven))
    if refuted is not None:
        return VantageRole(name, "unknown", "refuted", f"labelled {label}, but {refuted}")
    shown: Confidence = "high" if found == label and proven else "medium"
    return VantageRole(name, cast("Role", label), "given", "its label says so", shown)


def _is_clients_link(either: frozenset[int], roles: Cast) -> bool:
    """Whether all frames run between a client and one host that is no member of the cluster."""
    ends = [roles.roles.get(mac, ("", "", False))[0] for mac in either]
    return len(ends) == PAIR and "client" in ends and set(ends) <= {"client", "router", ""}


def _refuted(
    observed: Observed,
    evidence: Evidence,
    index: int,
    label: str,
    mine: frozenset[int],
    roles: Cast,
    shown: tuple[str, str, bool],
) -> str | None:
    """Return what the packets show instead of what a label says; None: nothing else for sure."""
    found, reason, proven = shown
    if found not in {"unknown", label} and proven:
        if found in {"director", "realserver"}:
            return f"its packets show a {found}: {reason}"
        if found == "router" and label in {"director", "realserver"}:
            return f"its packets show a router: {reason}"
    ends = [roles.roles.get(mac) for mac in sorted(observed.macs.either[index])]
    other = bool(ends) and all(end and end[0] != label for end in ends)
    if not mine and other and any(end and end[2] for end in ends):
        kinds = " and a ".join(sorted({end[0] for end in ends if end}))
        return f"all its frames run between a {kinds}"
    asked = _asks_for_a_vip(observed, evidence, mine)
    if label == "director" and asked is not None and not (found == "director" and proven):
        return f"it asks who has {ip_text(*asked)}, which another host owns"
    return None


def _asks_for_a_vip(observed: Observed, evidence: Evidence, mine: frozenset[int]) -> Address | None:
    """Return a VIP that the host asks for and another host claims, if there is one."""
    for vip in sorted(evidence.vips()):
        rows = observed.macs.questions.filter(
            (pl.col("hi") == vip[0]) & (pl.col("lo") == vip[1]) & pl.col("mac").is_in(list(mine))
        )
        if not rows.is_empty() and claimants(observed, vip) - mine:
            return vip
    return None
