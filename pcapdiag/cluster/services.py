"""Virtual services and their forwarding method, as traffic proves them.

DR: the same packet comes in and leaves with another MAC, one way only. TUN: it leaves inside a
tunnel, one way only. NAT: it leaves with the server's address rewritten. A router forwards both
ways, and asks by ARP for the very address that a director owns; both tell it from a director.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from pcapdiag.addresses import endpoint_text, ip_text, mac_text
from pcapdiag.cluster import macs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pcapdiag.cluster.observed import Observed
    from pcapdiag.cluster.parts import Address
    from pcapdiag.flows.vantage import VantageTables
    from pcapdiag.site import Site

Key = tuple[int, "Address", int | None]
"""Protocol, VIP, port."""

ENCAPSULATION_OF: Final = {
    "ipip": "ipip",
    "6in4": "ipip",
    "4in6": "ipip",
    "6in6": "ipip",
    "gre": "gre",
    "gue": "gue",
}
"""What ipvsadm calls each tunnel; VXLAN and Geneve are networks below the cluster, not LVS."""

MAX_ENDPOINTS: Final = 1024
"""Server endpoints looked at one by one, busiest first: a scan of a whole port range passes a
director too, and no cluster has more services."""


@dataclass
class Found:
    """One service while evidence comes in."""

    method: str | None = None
    encapsulation: str | None = None
    realservers: set[Address] = field(default_factory=set)
    realserver_ports: set[tuple[Address, int]] = field(default_factory=set)
    realserver_macs: set[int] = field(default_factory=set)
    fwmark: int | None = None
    reasons: list[str] = field(default_factory=list)


@dataclass
class Evidence:
    """What is known of services, and of the hosts behind them, while evidence comes in.

    directors, realservers: MAC -> reason. director_vantages: vantage index -> reason (its own MAC
    did it). director_addresses: addresses that directors use (outer source of a tunnel).
    unproven: MACs of the former that are there because a label said so. twins: MACs of one host.
    """

    services: dict[Key, Found] = field(default_factory=dict)
    directors: dict[int, str] = field(default_factory=dict)
    realservers: dict[int, str] = field(default_factory=dict)
    director_vantages: dict[int, str] = field(default_factory=dict)
    director_addresses: set[Address] = field(default_factory=set)
    unproven: set[int] = field(default_factory=set)
    twins: set[tuple[int, int]] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    def service(self, key: Key, method: str | None, reason: str) -> Found:
        """Return the service of `key`, made if it is new; an earlier method is kept."""
        found = self.services.setdefault(key, Found())
        if method is not None and found.method is None:
            found.method = method
        elif method is not None and found.method != method:
            self.notes.append(
                f"{name_of(key)}: seen as {found.method} and as {method}; {found.method} was kept"
            )
            return found
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


def infer(
    vantages: Sequence[VantageTables],
    observed: Observed,
    labels: Sequence[str | None],
    site: Site | None,
) -> Evidence:
    """Return the services that labels, site and traffic show; labels weigh less than traffic."""
    evidence = Evidence()
    _synchronised(vantages, evidence)
    _translated(vantages, observed, evidence)
    _encapsulated(observed, labels, site, evidence)
    _tunnelled(observed, labels, evidence)
    _routed(observed, labels, site, evidence)
    _returned_directly(vantages, observed, evidence)
    _delivered(vantages, observed, labels, evidence)
    _from_site(site, evidence)
    return evidence


def claimants(observed: Observed, address: Address) -> set[int]:
    """Return the MACs that answered or announced an address in ARP or neighbour discovery."""
    rows = observed.macs.claims.filter(_is(address) & (pl.col("answers") > 0))
    return set(rows.get_column("mac").to_list())


def askers(observed: Observed, address: Address) -> set[int]:
    """Return the MACs that asked for an address: whoever owns it does not."""
    return set(observed.macs.questions.filter(_is(address)).get_column("mac").to_list())


def _is(address: Address) -> pl.Expr:
    return pl.col("hi").eq(address[0]) & pl.col("lo").eq(address[1])


def _wanted(site: Site | None, address: Address, method: str) -> bool:
    """Whether site.toml declares a service of `method` at an address."""
    services = site.services if site is not None else ()
    return any(item.vip == address and item.method == method for item in services)


def _synchronised(vantages: Sequence[VantageTables], evidence: Evidence) -> None:
    """Take the services that IPVS synchronisation messages name: the director's own table."""
    rows = pl.concat([vantage.ipvs_sync for vantage in vantages])
    known = (
        rows.filter(
            pl.col("method").is_in(["nat", "dr", "tun"])
            & pl.col("virtual_lo").is_not_null()
            & pl.col("real_lo").is_not_null()
        )
        .group_by("proto", "virtual_hi", "virtual_lo", "virtual_port", "method")
        .agg(
            pl.struct("real_hi", "real_lo", "real_port").unique().alias("real"), pl.len().alias("n")
        )
        .sort("n", descending=True)
        .head(MAX_ENDPOINTS)
    )
    for row in known.iter_rows(named=True):
        key = (row["proto"], (row["virtual_hi"], row["virtual_lo"]), row["virtual_port"])
        found = evidence.service(
            key, row["method"], f"{row['n']} IPVS synchronisation messages name it"
        )
        for real in row["real"]:
            address = (real["real_hi"], real["real_lo"])
            found.realservers.add(address)
            if row["method"] == "nat" and real["real_port"] is not None:
                found.realserver_ports.add((address, real["real_port"]))


def _translated(vantages: Sequence[VantageTables], observed: Observed, evidence: Evidence) -> None:
    """Take services whose packets continue with another server address: LVS-NAT."""
    rows = observed.links.translations.sort("packets", descending=True).head(MAX_ENDPOINTS)
    for row in rows.iter_rows(named=True):
        front = (row["front_hi"], row["front_lo"])
        back = (row["back_hi"], row["back_lo"])
        key = (row["ip_proto"], front, row["front_port"])
        found = evidence.service(
            key,
            "nat",
            f"{row['packets']} packets continue as packets of"
            f" {endpoint_text(*back, row['back_port'])} with the same IP ID and sequence numbers",
        )
        found.realservers.add(back)
        found.realserver_ports.add((back, row["back_port"]))
        evidence.directors |= {
            mac: f"it owns {ip_text(*front)}, whose packets are translated to {ip_text(*back)}"
            for mac in claimants(observed, front)
        }
        if row["vantage"] is not None:
            _translating_vantage(vantages, observed, evidence, row)
    if len(rows):
        _one_hop_apart(vantages, observed, evidence)
        _behind_translation(observed, evidence)


def _translating_vantage(
    vantages: Sequence[VantageTables], observed: Observed, evidence: Evidence, row: dict[str, Any]
) -> None:
    """Take the MACs around a translation that one vantage saw from both sides."""
    index = row["vantage"]
    own = observed.macs.own[index]
    flows = vantages[index].flows
    fronts = flows.filter(_server(row, "front"))
    backs = flows.filter(_server(row, "back"))
    arrived = set(fronts.get_column("orig_eth_dst").drop_nulls().to_list())
    left = set(backs.get_column("orig_eth_src").drop_nulls().to_list())
    reason = (
        f"it takes packets to {endpoint_text(row['front_hi'], row['front_lo'], row['front_port'])}"
        f" and sends them on to {endpoint_text(row['back_hi'], row['back_lo'], row['back_port'])}"
    )
    here = (arrived | left) & (own | observed.macs.either[index])
    evidence.directors |= dict.fromkeys(here or (left & arrived), reason)
    if here or flows.get_column("orig_eth_src").is_null().all():
        evidence.director_vantages.setdefault(index, reason)


def _ends(translations: pl.DataFrame, side: str) -> pl.DataFrame:
    """Return the front or back endpoints of translations as flows name their responder."""
    return translations.select(
        "ip_proto",
        pl.col(f"{side}_hi").alias("resp_hi"),
        pl.col(f"{side}_lo").alias("resp_lo"),
        pl.col(f"{side}_port").alias("resp_port"),
    ).unique()


def _one_hop_apart(
    vantages: Sequence[VantageTables], observed: Observed, evidence: Evidence
) -> None:
    """Take the MACs on both sides of a translation that lowered the TTL by one.

    Only one host handled the packet in between, so that the MAC it was sent to and the MAC that it
    was then sent from are that host's.
    """
    parts = [
        vantage.flows.select(
            pl.lit(index, pl.UInt16).alias("vantage"),
            "flow",
            "orig_ttl",
            "orig_eth_src",
            "orig_eth_dst",
        )
        for index, vantage in enumerate(vantages)
    ]
    nodes = (
        observed.links.nodes.with_columns(pl.Series("group", observed.links.group))
        .select("vantage", "flow", "group", "ip_proto", "resp_hi", "resp_lo", "resp_port")
        .join(pl.concat(parts), on=["vantage", "flow"])
    )
    key = ["ip_proto", "resp_hi", "resp_lo", "resp_port"]
    fronts = nodes.join(_ends(observed.links.translations, "front"), on=key, how="semi")
    backs = nodes.join(_ends(observed.links.translations, "back"), on=key, how="semi")
    pairs = (
        fronts.filter(pl.col("orig_eth_dst").is_not_null())
        .join(backs.filter(pl.col("orig_eth_src").is_not_null()), on="group", suffix="_back")
        .filter(pl.col("orig_ttl").cast(pl.Int16) - pl.col("orig_ttl_back").cast(pl.Int16) == 1)
        .select("orig_eth_dst", "orig_eth_src_back", "resp_hi", "resp_lo")
        .unique()
        .sort(pl.all())
        .head(MAX_ENDPOINTS)
    )
    for outside, inside, high, low in pairs.iter_rows():
        for mac in (outside, inside):
            evidence.directors.setdefault(
                mac, f"packets to {ip_text(high, low)} are translated there, one hop on the way"
            )
        if outside != inside:
            evidence.twins.add((outside, inside))


def _behind_translation(observed: Observed, evidence: Evidence) -> None:
    """Take the MACs that answer, their TTL untouched, for an address behind a translation."""
    key = ["ip_proto", "resp_hi", "resp_lo", "resp_port"]
    answering = (
        observed.answers.join(
            observed.links.nodes.select("vantage", "flow", *key), on=["vantage", "flow"]
        )
        .join(_ends(observed.links.translations, "back"), on=key, how="semi")
        .select("mac", "resp_hi", "resp_lo", "resp_port")
        .unique()
        .sort(pl.all())
        .head(MAX_ENDPOINTS)
    )
    for mac, high, low, port in answering.iter_rows():
        if mac not in evidence.directors:
            evidence.realservers.setdefault(
                mac,
                f"it answers for {endpoint_text(high, low, port)} behind a translation",
            )


def _server(row: dict[str, Any], side: str) -> pl.Expr:
    return (
        pl.col("ip_proto").eq(row["ip_proto"])
        & pl.col("resp_hi").eq(row[f"{side}_hi"])
        & pl.col("resp_lo").eq(row[f"{side}_lo"])
        & pl.col("resp_port").eq(row[f"{side}_port"])
    )


def _by_address(paths: pl.DataFrame, *more: str) -> Iterable[tuple[Address, pl.DataFrame]]:
    """Yield the paths of one server address each, the busiest first, at most MAX_ENDPOINTS."""
    keys = ["resp_hi", "resp_lo", *more]
    busiest = (
        paths.group_by(keys).agg(pl.col("packets").sum()).sort("packets", *keys, descending=True)
    )
    for row in busiest.head(MAX_ENDPOINTS).iter_rows(named=True):
        same = [pl.col(key).eq_missing(pl.lit(row[key], paths.schema[key])) for key in keys]
        yield (row["resp_hi"], row["resp_lo"]), paths.filter(*same)


def _routed(
    observed: Observed, labels: Sequence[str | None], site: Site | None, evidence: Evidence
) -> None:
    """Take services whose packets leave unchanged with another MAC, one way only: LVS-DR."""
    routed = observed.paths.filter(pl.col("kind") == "routed")
    backwards = routed.filter(~pl.col("by_orig"))
    for address, paths in _by_address(routed.filter(pl.col("by_orig")), "vantage", "out_src"):
        part = paths
        index, forwarder = part.item(0, "vantage"), part.item(0, "out_src")
        own = observed.macs.own[index]
        mine = own if forwarder in own or forwarder is None else frozenset({forwarder})
        returns = backwards.filter(
            (pl.col("vantage") == index)
            & (pl.col("resp_hi") == address[0])
            & (pl.col("resp_lo") == address[1])
            & (pl.col("out_src").is_in(list(mine)) | (forwarder is None))
        )
        targets = set(part.get_column("out_dst").drop_nulls().to_list()) - mine
        claimed = claimants(observed, address)
        asked = bool((mine | {forwarder}) & askers(observed, address))
        if asked:
            # It asked who has the address and sends there: routing, not IPVS.
            targets = targets - claimed if claimed else set()
            part = part.filter(pl.col("out_dst").is_in(list(targets)))
            if not targets:
                continue
        owner = bool((mine | {forwarder}) & claimed)
        label = labels[index]
        proven = returns.is_empty() and (len(targets) > 1 or owner)
        if label == "router":
            proven = proven and owner
        said = label == "director" and (returns.is_empty() or owner)
        if not (proven or said or _wanted(site, address, "dr")):
            if label is None and returns.is_empty():
                evidence.notes.append(
                    f"packets to {ip_text(*address)} are forwarded one way to a single MAC: a"
                    " director or a router; a label (director=...) would settle it"
                )
            continue
        spread = f"{len(targets)} MACs" if len(targets) > 1 else "another MAC"
        reason = (
            f"packets to it arrive at {_mac(forwarder)} and leave unchanged for {spread},"
            " and no answer comes back that way"
            if returns.is_empty()
            else f"packets to it arrive at {_mac(forwarder)} and leave unchanged for {spread}"
        )
        for proto, port in part.select("ip_proto", "resp_port").unique().sort(pl.all()).iter_rows():
            found = evidence.service((proto, address, port), "dr", reason)
            if found.method == "dr":
                found.realserver_macs |= targets
        _forwards(observed, evidence, index, forwarder, part, address, "unchanged to another MAC")
        for mac in targets:
            evidence.realservers.setdefault(
                mac, f"packets to {ip_text(*address)} are delivered to it by the director"
            )
        if not proven:
            evidence.unproven |= targets | ({forwarder} if forwarder is not None else set())


def _mac(mac: int | None) -> str:
    return "the capturing host" if mac is None else mac_text(mac)


def _forwards(
    observed: Observed,
    evidence: Evidence,
    index: int,
    forwarder: int | None,
    part: pl.DataFrame,
    address: Address,
    how: str,
) -> None:
    """Note that the owner of `forwarder` is a director, and the vantage if it is that host."""
    own = observed.macs.own[index]
    reason = f"it sends packets to {ip_text(*address)} on, {how}"
    arrived = set(part.get_column("in_dst").drop_nulls().to_list())
    here = own | observed.macs.either[index]
    if forwarder is not None:
        evidence.directors.setdefault(forwarder, reason)
    evidence.directors |= {mac: reason for mac in arrived & own if mac not in evidence.directors}
    if forwarder is None or forwarder in here:
        evidence.director_vantages.setdefault(index, reason)


def _encapsulated(
    observed: Observed, labels: Sequence[str | None], site: Site | None, evidence: Evidence
) -> None:
    """Take services whose packets leave inside a tunnel, one way only: LVS-TUN at the director."""
    wrapped = observed.paths.filter(
        pl.col("kind").is_in(["encapsulated", "decapsulated"])
        & pl.col("tunnel").is_in(list(ENCAPSULATION_OF))
    )
    leaving = wrapped.filter(pl.col("by_orig") & (pl.col("kind") == "encapsulated"))
    backwards = wrapped.filter(~pl.col("by_orig"))
    answered = _answered_bare(observed)
    for address, part in _by_address(leaving, "vantage"):
        index = part.item(0, "vantage")
        returns = backwards.filter(
            (pl.col("vantage") == index)
            & (pl.col("resp_hi") == address[0])
            & (pl.col("resp_lo") == address[1])
        )
        relays = set(part.get_column("out_src").drop_nulls().to_list())
        ends = _outer(part, "outer_dst")
        proven = returns.is_empty() and (
            len(ends) > 1 or bool(relays & claimants(observed, address)) or address in answered
        )
        if not (proven or labels[index] == "director" or _wanted(site, address, "tun")):
            continue
        _tunnel_services(evidence, part, address, ends, "arrive bare and leave inside")
        evidence.director_addresses |= _outer(part, "outer_src")
        for mac in relays or {None}:
            _forwards(observed, evidence, index, mac, part, address, "inside a tunnel")


def _tunnelled(observed: Observed, labels: Sequence[str | None], evidence: Evidence) -> None:
    """Take services whose packets were only seen inside a tunnel, and whose answers were not."""
    seen = observed.tunnelled.filter(pl.col("tunnel").is_in(list(ENCAPSULATION_OF))).join(
        observed.links.nodes.select(
            "vantage", "flow", "ip_proto", "resp_hi", "resp_lo", "resp_port"
        ),
        on=["vantage", "flow"],
    )
    both = seen.filter(~pl.col("by_orig")).select("resp_hi", "resp_lo").unique()
    one_way = seen.filter(pl.col("by_orig")).join(both, on=["resp_hi", "resp_lo"], how="anti")
    answered = _answered_bare(observed)
    for address, part in _by_address(one_way):
        ends = _outer(part, "outer_dst")
        labelled = {labels[index] for index in part.get_column("vantage").unique().to_list()}
        if not (len(ends) > 1 or address in answered or labelled & {"director", "realserver"}):
            continue
        _tunnel_services(evidence, part, address, ends, "are seen inside")
        evidence.director_addresses |= _outer(part, "outer_src")
        for mac in _answering_macs(observed, part):
            evidence.realservers.setdefault(
                mac, f"it unwraps packets to {ip_text(*address)} and answers them itself"
            )


def _answered_bare(observed: Observed) -> set[Address]:
    """Return the server addresses that answered outside any tunnel, the TTL untouched."""
    rows = (
        observed.answers.join(
            observed.tunnelled.select("vantage", "flow"), on=["vantage", "flow"], how="semi"
        )
        .join(
            observed.links.nodes.select("vantage", "flow", "resp_hi", "resp_lo"),
            on=["vantage", "flow"],
        )
        .select("resp_hi", "resp_lo")
        .unique()
    )
    return set(rows.iter_rows())


def _answering_macs(observed: Observed, part: pl.DataFrame) -> set[int]:
    """Return the MACs that answered the flows of some tunnelled rows."""
    rows = observed.answers.join(part, on=["vantage", "flow"], how="semi")
    return set(rows.get_column("mac").unique().to_list())


def _outer(part: pl.DataFrame, side: str) -> set[Address]:
    return set(part.select(f"{side}_hi", f"{side}_lo").drop_nulls().unique().iter_rows())


def _tunnel_services(
    evidence: Evidence, part: pl.DataFrame, address: Address, ends: set[Address], how: str
) -> None:
    """Note the tunnelled services of one VIP."""
    ports = part.select("ip_proto", "resp_port").unique().sort(pl.all())
    for proto, port in ports.iter_rows():
        one = part.filter((pl.col("ip_proto") == proto) & (pl.col("resp_port") == port))
        kinds = sorted(
            {ENCAPSULATION_OF[kind] for kind in one.get_column("tunnel").unique().to_list()}
        )
        reason = (
            f"packets to it {how} {' and '.join(kinds)} to {len(ends)}"
            f" realserver{'s' if len(ends) > 1 else ''}, and no answer comes back that way"
        )
        found = evidence.service((proto, address, port), "tun", reason)
        if found.method == "tun":
            found.encapsulation = kinds[0] if len(kinds) == 1 else found.encapsulation
            found.realservers |= _outer(one, "outer_dst")


def _requests(vantages: Sequence[VantageTables]) -> pl.DataFrame:
    """Return where each flow's requests came from and went to at each vantage."""
    parts = [
        vantage.flows.lazy()
        .filter(pl.col("orig_packets") > 0)
        .select(
            pl.lit(index, pl.UInt16).alias("vantage"),
            "flow",
            "ip_proto",
            "resp_hi",
            "resp_lo",
            "resp_port",
            "first_ns",
            pl.col("orig_eth_src").alias("sender"),
            pl.col("orig_eth_dst").alias("receiver"),
            pl.col("resp_eth_dst").alias("next_hop"),
        )
        for index, vantage in enumerate(vantages)
    ]
    return pl.concat(parts).collect()


def _returned_directly(
    vantages: Sequence[VantageTables], observed: Observed, evidence: Evidence
) -> None:
    """Take services that are answered by another host than the one that was asked.

    A vantage on the clients' side (a router) sees requests go to the owner of the VIP and answers,
    their TTL untouched, come from other MACs: DR or TUN, which of them it cannot see.
    """
    requests = _requests(vantages).filter(pl.col("receiver").is_not_null())
    turned = (
        requests.join(observed.answers, on=["vantage", "flow"])
        .filter((pl.col("mac") != pl.col("receiver")) & (pl.col("mac") != pl.col("sender")))
        .group_by("vantage", "ip_proto", "resp_hi", "resp_lo", "resp_port", "receiver")
        .agg(pl.col("mac").unique(), pl.len().alias("packets"))
    )
    for address, part in _by_address(turned):
        if address in evidence.vips() and any(
            found.method == "nat" for key, found in evidence.services.items() if key[1] == address
        ):
            continue
        owners = claimants(observed, address)
        for row in part.sort("vantage", "ip_proto", "resp_port").iter_rows(named=True):
            answering = set(row["mac"])
            asked = row["receiver"]
            if asked not in owners or answering & owners:
                continue
            key = (row["ip_proto"], address, row["resp_port"])
            evidence.service(
                key,
                None,
                f"requests go to {mac_text(asked)}, which owns it, and {len(answering)} other"
                " hosts answer: DR or TUN",
            ).realserver_macs.update(answering)
            evidence.directors.setdefault(
                asked, f"it owns {ip_text(*address)}, and other hosts answer for it"
            )
            for mac in answering:
                evidence.realservers.setdefault(
                    mac, f"it answers requests for {ip_text(*address)} that went to the director"
                )


def _delivered(
    vantages: Sequence[VantageTables],
    observed: Observed,
    labels: Sequence[str | None],
    evidence: Evidence,
) -> None:
    """Take services that realservers' own captures show: requests in, answers out.

    Two hosts that get requests for one address from the same MAC at the same time, and answer them
    with an untouched TTL, are realservers of DR, and that MAC is the director. One capture shows
    as much only if it is labelled, the address is not the host's own, and answers go another way.
    """
    requests = _requests(vantages).join(
        observed.tunnelled.filter(pl.col("by_orig")).select("vantage", "flow"),
        on=["vantage", "flow"],
        how="anti",
    )
    served = (
        requests.join(observed.answers, on=["vantage", "flow"])
        .filter(pl.col("mac") == pl.col("receiver"))
        .group_by("ip_proto", "resp_hi", "resp_lo", "resp_port", "sender", "receiver")
        .agg(
            pl.col("vantage").unique(),
            pl.col("first_ns").min().alias("first"),
            pl.col("first_ns").max().alias("last"),
            pl.len().alias("packets"),
            (pl.col("next_hop") != pl.col("sender")).all().alias("around"),
        )
        .filter(pl.col("sender").is_not_null())
    )
    for address, part in _by_address(served):
        owners = claimants(observed, address)
        for row in part.partition_by("ip_proto", "resp_port", "sender"):
            receivers = set(row.get_column("receiver").to_list())
            key = (row.item(0, "ip_proto"), address, row.item(0, "resp_port"))
            sender = row.item(0, "sender")
            inside = {index for found in row.get_column("vantage").to_list() for index in found}
            around = set(row.filter(pl.col("around")).get_column("receiver").to_list())
            labelled = {
                mac
                for mac in (receivers & around) - owners
                if any(
                    labels[index] == "realserver"
                    and mac in observed.macs.own[index] | observed.macs.either[index]
                    for index in inside
                )
                and macs.addresses_of(observed.macs, mac, address) - {address}
            }
            overlap = len(receivers) > 1 and (
                max(row.get_column("first").to_list()) < min(row.get_column("last").to_list())
            )
            together = overlap and not receivers & owners
            if not (together or labelled):
                continue
            reason = (
                f"{mac_text(sender)} hands requests for it to {len(receivers)} hosts at a time,"
                " which answer them"
                if together
                else "requests for it are delivered, untranslated and untunnelled, to a realserver"
                " whose own address is another"
            )
            found = evidence.service(key, "dr", reason)
            if found.method != "dr":
                continue
            members = receivers if together else labelled
            found.realserver_macs |= members
            evidence.directors.setdefault(
                sender, f"it hands requests for {ip_text(*address)} to the realservers"
            )
            for mac in members:
                evidence.realservers.setdefault(
                    mac, f"it gets and answers requests for {ip_text(*address)}"
                )
            if not together:
                evidence.unproven |= members | {sender}


def _from_site(site: Site | None, evidence: Evidence) -> None:
    """Add what site.toml says; where packets prove another method, they are right."""
    for item in site.services if site is not None else ():
        if item.vip is None:
            _fwmark(item.fwmark, item.realservers, evidence)
            continue
        keys = [
            key
            for key in evidence.services
            if key[0] == item.ip_proto and key[1] == item.vip and item.port in {None, key[2]}
        ] or [(item.ip_proto, item.vip, item.port)]
        for key in keys:
            found = evidence.service(key, item.method, "site.toml names it")
            found.fwmark = item.fwmark
            if found.method == item.method:
                found.encapsulation = found.encapsulation or item.encapsulation
            for address, port in item.realservers:
                found.realservers.add(address)
                if found.method == "nat" and (port or key[2]) is not None:
                    found.realserver_ports.add((address, port or key[2] or 0))


def _fwmark(
    mark: int | None, realservers: Iterable[tuple[Address, int | None]], evidence: Evidence
) -> None:
    """Give the mark to the services whose realservers are all behind it."""
    members = {address for address, _ in realservers}
    for found in evidence.services.values():
        if found.realservers and found.realservers <= members:
            found.fwmark = mark
            found.reasons.append(f"site.toml names its realservers under firewall mark {mark}")
