"""Virtual services and their forwarding method, as traffic proves them.

DR: the same packet comes in and leaves with another MAC, one way only. TUN: it leaves inside a
tunnel, one way only. NAT: it leaves with the server's address rewritten. A router forwards both
ways, and asks by ARP for the very address that a director owns; both tell it from a director.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from pcapdiag.cluster.cast.evidence import MAX_ENDPOINTS, Evidence
from pcapdiag.cluster.cast.routing import delivered, returned_directly, routed
from pcapdiag.cluster.cast.translation import translated
from pcapdiag.cluster.cast.tunnelling import encapsulated, tunnelled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcapdiag.cluster.cast.observed import Observed
    from pcapdiag.flows.vantage import VantageTables
    from pcapdiag.site import Site


def infer(
    vantages: Sequence[VantageTables],
    observed: Observed,
    labels: Sequence[str | None],
    site: Site | None,
) -> Evidence:
    """Return the services that labels, site and traffic show; labels weigh less than traffic."""
    evidence = Evidence()
    _synchronised(vantages, evidence)
    translated(vantages, observed, evidence)
    encapsulated(observed, labels, site, evidence)
    tunnelled(observed, labels, evidence)
    routed(observed, labels, site, evidence)
    returned_directly(vantages, observed, evidence)
    delivered(vantages, observed, labels, evidence)
    _from_site(site, evidence)
    return evidence


def _synchronised(vantages: Sequence[VantageTables], evidence: Evidence) -> None:
    """Take the services that IPVS synchronisation messages name: the director's own table."""
    rows = pl.concat([vantage.ipvs_sync for vantage in vantages])
    if rows.is_empty():
        return
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
        .sort("n", "proto", "virtual_hi", "virtual_lo", "virtual_port", "method", descending=True)
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


def _from_site(site: Site | None, evidence: Evidence) -> None:
    """Add what site.toml says; where packets prove another method, they are right."""
    for item in site.services if site is not None else ():
        if item.vip is None:
            continue
        keys = [
            key
            for key in evidence.services
            if key[0] == item.ip_proto and key[1] == item.vip and item.port in {None, key[2]}
        ] or [(item.ip_proto, item.vip, item.port)]
        for key in keys:
            found = evidence.service(key, item.method, "site.toml names it", proven=False)
            found.fwmark = item.fwmark
            if found.method == item.method:
                found.encapsulation = found.encapsulation or item.encapsulation
            for address, port in item.realservers:
                found.realservers.add(address)
                if found.method == "nat" and (port or key[2]) is not None:
                    found.realserver_ports.add((address, port or key[2] or 0))


def mark(site: Site | None, evidence: Evidence) -> None:
    """Give firewall marks of site.toml to the services whose realservers are all behind them."""
    for item in site.services if site is not None else ():
        members = {address for address, _ in item.realservers}
        for found in evidence.services.values():
            if item.vip is None and found.realservers and found.realservers <= members:
                found.fwmark = item.fwmark
                found.reasons.append(
                    f"site.toml names its realservers under firewall mark {item.fwmark}"
                )
