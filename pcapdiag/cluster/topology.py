"""Who is who: roles of vantages, hosts behind MACs and addresses, virtual services.

Everything rests on packets (services.py), link layers (macs.py), labels and site.toml, in this
order of
trust: traffic that proves, site.toml, labels, inference. What nothing tells is None or unknown.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final, cast

import polars as pl

from pcapdiag import spool
from pcapdiag.addresses import ip_text
from pcapdiag.cluster.cast import edges, macs, masquerade, roles, services
from pcapdiag.cluster.cast import hosts as members_of
from pcapdiag.cluster.cast.observed import Observed, observe
from pcapdiag.cluster.matching import identity
from pcapdiag.cluster.orientation import oriented
from pcapdiag.cluster.parts import Address, EdgeInfo, HostInfo, ServiceInfo, VantageRole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from pcapdiag.cluster.cast.evidence import Evidence
    from pcapdiag.flows.vantage import VantageTables
    from pcapdiag.site import Site

__all__ = ["EdgeInfo", "HostInfo", "ServiceInfo", "Topology", "VantageRole", "infer"]

MAX_UNPROVEN: Final = 64
"""Server endpoints listed as services though nothing shows LVS at them, busiest first."""


@dataclass(frozen=True)
class Topology:
    """The cluster.

    roles: one a vantage, in order. hosts: each MAC belongs to at most one. services: those that
    tables mean by index. vantage_macs: per vantage the MACs of the capturing host, where known.
    director_addresses: what directors speak from themselves; no client has one. virtual_addresses:
    VIPs of which more is known than that someone connected.
    notes: one sentence each, for the report.
    """

    roles: tuple[VantageRole, ...]
    hosts: tuple[HostInfo, ...]
    services: tuple[ServiceInfo, ...]
    notes: tuple[str, ...]
    observed: Observed = field(repr=False)
    vantage_macs: tuple[frozenset[int], ...] = ()
    client_macs: frozenset[int] = frozenset()
    director_addresses: frozenset[Address] = frozenset()
    virtual_addresses: frozenset[Address] = frozenset()
    arrows: tuple[EdgeInfo, ...] = ()

    @cached_property
    def _by_mac(self) -> dict[int, HostInfo]:
        return {mac: host for host in self.hosts for mac in host.macs}

    @cached_property
    def _by_address(self) -> dict[Address, HostInfo | None]:
        found: dict[Address, HostInfo | None] = {}
        for host in self.hosts:
            for address in host.addresses:
                found[address] = None if address in found else host
        return found

    def mac_role(self, mac: int) -> str | None:
        """Return director, realserver, router or client for the owner of a MAC; None: not known."""
        host = self._by_mac.get(mac)
        if host is not None:
            return None if host.role == "unknown" else host.role
        return "client" if mac in self.client_macs else None

    def host_of_mac(self, mac: int) -> HostInfo | None:
        """Return the host that owns a MAC; None where it is not known."""
        return self._by_mac.get(mac)

    def host_of_address(self, address: Address) -> HostInfo | None:
        """Return the one host that has an address; None for none, and for one that several have."""
        return self._by_address.get(address)

    @cached_property
    def realserver_of_mac(self) -> dict[int, tuple[Address | None, str]]:
        """Return MAC -> (RIP or None, host name) of the realservers."""
        return {
            mac: (self.rip_of(host), host.name)
            for mac, host in self._by_mac.items()
            if host.role == "realserver"
        }

    def rip_of(self, host: HostInfo) -> Address | None:
        """Return the address that the director knows a realserver by; None if it is not clear."""
        own = host.addresses & {rip for item in self.services for rip in item.realservers}
        if own:
            return next(iter(own)) if len(own) == 1 else None
        claimed = {
            address
            for mac in host.macs
            for family in macs.FAMILIES
            for address in macs.claimed_by(self.observed.macs, mac, family)
        } - self.virtual_addresses
        return next(iter(claimed)) if len(claimed) == 1 else None

    def edges(self) -> tuple[EdgeInfo, ...]:
        """Return the arrows between named hosts for the report's figure, busiest first."""
        return self.arrows


def infer(vantages: Sequence[VantageTables], site: Site | None) -> Topology:
    """Return the cluster that the vantages show. `vantages` must not be empty."""
    vantages = oriented(vantages)
    observed = observe(vantages)
    labels = _labels(vantages, site)
    evidence = services.infer(vantages, observed, labels, site)
    cast_of, own = roles.cast_macs(vantages, observed, evidence, labels, site)
    given = roles.cast_vantages(vantages, observed, evidence, labels, cast_of, own)
    _name_realservers(observed, evidence)
    services.mark(site, evidence)
    listed = _listed(evidence)
    hosts = members_of.find(vantages, observed, evidence, site, cast_of, given, own)
    known = {service.vip for service in listed}
    own_addresses = _director_addresses(evidence, hosts)
    members = {
        address
        for host in hosts
        if host.role in {"director", "realserver"}
        for address in host.addresses
    }
    own_addresses |= _gateways(observed, given, own)
    listed += _unproven(observed, given, known, members | own_addresses)
    notes = list(dict.fromkeys(evidence.notes))
    if evidence.undecided:
        notes.append(_undecided(evidence.undecided))
    notes += _refutations(vantages, observed, given)
    notes += masquerade.notes(vantages, observed.links)
    if observed.links.refused:
        notes.append(
            f"{observed.links.refused} packet matches between flows were ambiguous and were not"
            " used"
        )
    return Topology(
        roles=given,
        hosts=hosts,
        services=tuple(listed),
        notes=tuple(notes),
        observed=observed,
        vantage_macs=own,
        client_macs=frozenset(
            mac for mac, (role, _, _) in cast_of.roles.items() if role == "client"
        ),
        director_addresses=frozenset(own_addresses),
        virtual_addresses=frozenset(evidence.vips()),
        arrows=edges.find(vantages, observed, hosts, listed),
    )


def _undecided(addresses: set[Address]) -> str:
    """Return a note about addresses whose packets someone forwards one way."""
    some = ", ".join(ip_text(*address) for address in sorted(addresses)[:3])
    more = f" and {len(addresses) - 3} others" if len(addresses) > 3 else ""
    return (
        f"packets to {some}{more} are forwarded one way, by a director or by a router: a label"
        " (director=...) would settle it"
    )


def _refutations(
    vantages: Sequence[VantageTables], observed: Observed, given: Sequence[VantageRole]
) -> list[str]:
    """Return a note for each refuted label, with frames to look at."""
    notes = []
    for index, (vantage, role) in enumerate(zip(vantages, given, strict=True)):
        if role.source != "refuted":
            continue
        passed = vantage.passages.lazy().select("in_row", "out_row").sort("in_row", "out_row")
        rows = passed.head(1).collect().rows() or _translated(vantage, index, observed)
        answered = (
            vantage.packets.lazy()
            .with_row_index("row")
            .filter(pl.col("flow").is_not_null() & pl.col("by_orig").not_())
            .select("row")
            .head(1)
            .collect()
        )
        shown = list(rows[0]) if rows else answered.get_column("row").to_list()
        frames = list(map(str, spool.at(vantage.packets, shown, "frame")["frame"]))
        where = f" (frame {', '.join(frames)})" if frames else ""
        notes.append(f"{role.name}: {role.reason}{where}")
    return notes


def _translated(vantage: VantageTables, index: int, observed: Observed) -> list[tuple[int, ...]]:
    """Return the rows of one packet that a vantage saw before and behind a translation, if any."""
    nodes = observed.links.nodes.with_columns(pl.Series("group", observed.links.group)).filter(
        pl.col("vantage") == index
    )
    several = nodes.filter(pl.col("tuple").n_unique().over("group") > 1)
    one = several.filter(pl.col("group") == pl.col("group").first())
    marks = identity.marks(vantage, one.select("node", "flow"))
    both = marks.join(marks, on="translated", suffix="_2").filter(
        pl.col("node") != pl.col("node_2")
    )
    return both.sort("time_ns", "row").select("row", "row_2").head(1).rows()


def _labels(vantages: Sequence[VantageTables], site: Site | None) -> list[str | None]:
    """Return the role that each vantage was given: by its label, else by the host of its name."""
    by_name = {host.name: host.role for host in (site.hosts if site is not None else ())}
    return [vantage.role_given or by_name.get(vantage.name) for vantage in vantages]


def _name_realservers(observed: Observed, evidence: Evidence) -> None:
    """Find the RIP of each realserver that is known by its MAC: one address that is no VIP."""
    vips = evidence.vips()
    asked = observed.macs.questions.filter(pl.col("mac").is_in(list(evidence.directors)))
    wanted = set(asked.select("hi", "lo").unique().iter_rows())
    for (_, vip, _), found in evidence.services.items():
        for mac in found.realserver_macs:
            own = macs.addresses_of(observed.macs, mac, vip) - vips
            sure = own & found.realservers or own & wanted or own
            if len(sure) == 1:
                found.realservers |= sure


def _listed(evidence: Evidence) -> list[ServiceInfo]:
    """Return the services as values, sorted."""
    return [
        ServiceInfo(
            ip_proto=proto,
            vip=vip,
            port=port,
            fwmark=found.fwmark,
            method=cast('Literal["nat", "dr", "tun"] | None', found.method),
            encapsulation=cast('Literal["ipip", "gre", "gue"] | None', found.encapsulation),
            realservers=frozenset(found.realservers),
            reason="; ".join(found.reasons[:4]),
            realserver_ports=frozenset(found.realserver_ports),
            confidence="high" if found.proven else "medium" if found.method else "low",
        )
        for (proto, vip, port), found in sorted(
            evidence.services.items(), key=lambda item: (item[0][0], item[0][1], item[0][2] or 0)
        )
    ]


def _unproven(
    observed: Observed,
    given: Sequence[VantageRole],
    known: set[Address | None],
    members: set[Address],
) -> list[ServiceInfo]:
    """Return server endpoints whose method nothing shows.

    Where LVS was found elsewhere only those at directors and realservers are listed: the other
    conversations of a client or a router are none of the cluster's, and neither are those that its
    members open themselves.
    """
    inside = [index for index, role in enumerate(given) if role.role in {"director", "realserver"}]
    anywhere = not known and not inside
    nodes = observed.links.nodes
    behind = observed.links.translations.select(
        "ip_proto",
        pl.col("back_hi").alias("resp_hi"),
        pl.col("back_lo").alias("resp_lo"),
        pl.col("back_port").alias("resp_port"),
    )
    own = pl.DataFrame(
        sorted(members), schema={"orig_hi": pl.UInt64, "orig_lo": pl.UInt64}, orient="row"
    )
    found = (
        nodes.filter(
            pl.col("originator_source").is_in(["syn", "syn-ack"])
            & (pl.lit(anywhere) | pl.col("vantage").is_in(inside))
        )
        .join(behind, on=["ip_proto", "resp_hi", "resp_lo", "resp_port"], how="anti")
        .join(own, on=["orig_hi", "orig_lo"], how="anti")
        .group_by("ip_proto", "resp_hi", "resp_lo", "resp_port")
        .agg(pl.len().alias("flows"))
        .sort("flows", "ip_proto", "resp_hi", "resp_lo", "resp_port", descending=True)
    )
    listed = []
    for proto, high, low, port, flows in found.head(MAX_UNPROVEN).iter_rows():
        if (high, low) in known:
            continue
        listed.append(
            ServiceInfo(
                ip_proto=proto,
                vip=(high, low),
                port=port,
                fwmark=None,
                method=None,
                encapsulation=None,
                realservers=frozenset(),
                reason=f"{flows} connections were opened to it; nothing shows how it is served",
            )
        )
    return sorted(listed, key=lambda item: (item.ip_proto, item.vip or (0, 0), item.port or 0))


def _gateways(
    observed: Observed, given: Sequence[VantageRole], own: Sequence[frozenset[int]]
) -> set[Address]:
    """Return the addresses from which those who bring realservers their clients speak themselves.

    In LVS-NAT that is the director, where only realservers were captured: its health checks.
    """
    inside = [index for index, role in enumerate(given) if role.role == "realserver"]
    mine = [mac for index in inside for mac in own[index]]
    rows = observed.macs.sources.filter(
        pl.col("vantage").is_in(inside) & ~pl.col("mac").is_in(mine)
    )
    bringing = rows.filter(pl.col("forwarded") > 0).select("mac").unique()
    found = rows.filter(pl.col("fresh") > 0).join(bringing, on="mac", how="semi")
    return set(found.select("hi", "lo").unique().head(macs.MAX_ADDRESSES).iter_rows())


def _director_addresses(evidence: Evidence, hosts: Sequence[HostInfo]) -> set[Address]:
    """Return the addresses that directors speak with themselves: their health checks come from."""
    own = {address for host in hosts if host.role == "director" for address in host.addresses}
    return (own | evidence.director_addresses) - evidence.vips()
