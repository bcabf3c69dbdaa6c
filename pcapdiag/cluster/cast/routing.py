"""LVS-DR: packets that continue unchanged with another MAC, whose answers do not come back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from pcapdiag.addresses import ip_text, mac_text
from pcapdiag.cluster.cast import macs
from pcapdiag.cluster.cast.evidence import (
    askers,
    by_address,
    claimants,
    forwards,
    mac_or_host,
    wanted,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcapdiag.cluster.cast.evidence import Evidence
    from pcapdiag.cluster.cast.observed import Observed
    from pcapdiag.cluster.parts import Address
    from pcapdiag.flows.vantage import VantageTables
    from pcapdiag.site import Site


def routed(
    observed: Observed, labels: Sequence[str | None], site: Site | None, evidence: Evidence
) -> None:
    """Take services whose packets leave unchanged with another MAC, one way only: LVS-DR.

    Who proves nothing by itself may hand packets to realservers that another has proven.
    """
    paths = observed.paths.filter((pl.col("kind") == "routed") & pl.col("by_orig"))
    ways = list(by_address(paths, "vantage", "out_src"))
    left = [way for way in ways if not _taken(observed, labels, site, evidence, *way)]
    for way in left:
        _taken(observed, labels, site, evidence, *way)


def _taken(
    observed: Observed,
    labels: Sequence[str | None],
    site: Site | None,
    evidence: Evidence,
    address: Address,
    part: pl.DataFrame,
) -> bool:
    """Take what one host hands on of one address, if that is LVS-DR; return whether it is."""
    backwards = observed.paths.filter((pl.col("kind") == "routed") & ~pl.col("by_orig"))
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
            return False
    owner = bool((mine | {forwarder}) & claimed)
    if targets and targets <= claimed and not owner:
        return False  # handed back to whom it belongs to: a realserver without the VIP routes so
    label = labels[index]
    spread = (
        len(targets) > 1
        and not observed.spread.filter(
            (pl.col("vantage") == index)
            & pl.col("out_src").eq_missing(pl.lit(forwarder, pl.UInt64))
            & pl.col("resp_hi").eq(address[0])
            & pl.col("resp_lo").eq(address[1])
        ).is_empty()
    )
    known = {
        mac
        for key, found in evidence.services.items()
        if key[1] == address and found.method == "dr"
        for mac in found.realserver_macs
    } - evidence.unproven
    fellow = bool(targets) and targets <= known
    proven = returns.is_empty() and (spread or owner or fellow)
    if label == "router":
        proven = proven and owner
    said = label == "director" and (returns.is_empty() or owner)
    if not (proven or said or wanted(site, address, "dr")):
        if label is None and returns.is_empty():
            evidence.undecided.add(address)
        return False
    where = f"{len(targets)} MACs" if len(targets) > 1 else "another MAC"
    reason = (
        f"packets to it arrive at {mac_or_host(forwarder)} and leave unchanged for {where},"
        " and no answer comes back that way"
        if returns.is_empty()
        else f"packets to it arrive at {mac_or_host(forwarder)} and leave for {where}"
    )
    for proto, port in part.select("ip_proto", "resp_port").unique().sort(pl.all()).iter_rows():
        found = evidence.service((proto, address, port), "dr", reason, proven=proven)
        if found.method == "dr":
            found.realserver_macs |= targets
    how = "unchanged to another MAC"
    forwards(observed, evidence, index, forwarder, part, address, how, proven=proven)
    for mac in sorted(targets):
        evidence.realserver(
            mac,
            f"packets to {ip_text(*address)} are delivered to it by the director",
            proven=proven,
        )
    evidence.undecided.discard(address)
    return True


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


def returned_directly(
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
    for address, part in by_address(turned):
        if address in evidence.vips() and any(
            found.method == "nat" for key, found in evidence.services.items() if key[1] == address
        ):
            continue
        owners = claimants(observed, address)
        for row in part.sort("vantage", "ip_proto", "resp_port", "receiver").iter_rows(named=True):
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
            evidence.director(asked, f"it owns {ip_text(*address)}, and other hosts answer for it")
            for mac in answering:
                evidence.realserver(
                    mac, f"it answers requests for {ip_text(*address)} that went to the director"
                )


def delivered(
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
    for address, part in by_address(served):
        owners = claimants(observed, address)
        one = ("ip_proto", "resp_port", "sender")
        for row in part.sort(*one, "receiver").partition_by(one):
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
            found = evidence.service(key, "dr", reason, proven=together)
            if found.method != "dr":
                continue
            members = receivers if together else labelled
            found.realserver_macs |= members
            evidence.director(
                sender,
                f"it hands requests for {ip_text(*address)} to the realservers",
                proven=together,
            )
            for mac in sorted(members):
                evidence.realserver(
                    mac, f"it gets and answers requests for {ip_text(*address)}", proven=together
                )
