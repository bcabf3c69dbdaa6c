"""LVS-NAT: packets that continue with another server address."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from pcapdiag.addresses import endpoint_text, ip_text
from pcapdiag.cluster.cast.evidence import MAX_ENDPOINTS, claimants

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcapdiag.cluster.cast.evidence import Evidence
    from pcapdiag.cluster.cast.observed import Observed
    from pcapdiag.flows.vantage import VantageTables


def translated(vantages: Sequence[VantageTables], observed: Observed, evidence: Evidence) -> None:
    """Take services whose packets continue with another server address: LVS-NAT."""
    ends = [f"{end}_{part}" for end in ("front", "back") for part in ("hi", "lo", "port")]
    rows = observed.links.translations.sort("packets", "ip_proto", *ends, descending=True)
    rows = rows.head(MAX_ENDPOINTS)
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
        for mac in sorted(claimants(observed, front)):
            evidence.director(
                mac, f"it owns {ip_text(*front)}, whose packets are translated to {ip_text(*back)}"
            )
        for index in row["vantages"]:
            _translating_vantage(vantages, observed, evidence, index, row)
    if len(rows):
        _one_hop_apart(vantages, observed, evidence)
        _behind_translation(observed, evidence)


def _translating_vantage(
    vantages: Sequence[VantageTables],
    observed: Observed,
    evidence: Evidence,
    index: int,
    row: dict[str, Any],
) -> None:
    """Take the MACs around a translation that one vantage saw from both sides."""
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
    for mac in sorted(here or (left & arrived)):
        evidence.director(mac, reason)
    if here or flows.get_column("orig_eth_src").is_null().all():
        evidence.director_vantages.setdefault(index, reason)


def _server(row: dict[str, Any], side: str) -> pl.Expr:
    return (
        pl.col("ip_proto").eq(row["ip_proto"])
        & pl.col("resp_hi").eq(row[f"{side}_hi"])
        & pl.col("resp_lo").eq(row[f"{side}_lo"])
        & pl.col("resp_port").eq(row[f"{side}_port"])
    )


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
            evidence.director(
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
            evidence.realserver(
                mac,
                f"it answers for {endpoint_text(high, low, port)} behind a translation",
            )
