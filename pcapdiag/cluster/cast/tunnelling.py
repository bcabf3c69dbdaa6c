"""LVS-TUN: packets that continue inside a tunnel, whose answers do not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag.addresses import ip_text
from pcapdiag.cluster.cast.evidence import MAX_ENDPOINTS, by_address, claimants, forwards, wanted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcapdiag.cluster.cast.evidence import Evidence
    from pcapdiag.cluster.cast.observed import Observed
    from pcapdiag.cluster.parts import Address
    from pcapdiag.site import Site

ENCAPSULATION_OF: Final = {
    "ipip": "ipip",
    "6in4": "ipip",
    "4in6": "ipip",
    "6in6": "ipip",
    "gre": "gre",
    "gue": "gue",
}
"""What ipvsadm calls each tunnel; VXLAN and Geneve are networks below the cluster, not LVS."""


def encapsulated(
    observed: Observed, labels: Sequence[str | None], site: Site | None, evidence: Evidence
) -> None:
    """Take services whose packets leave inside a tunnel, one way only: LVS-TUN at the director."""
    wrapped = observed.paths.filter(
        pl.col("kind").is_in(["encapsulated", "decapsulated"])
        & pl.col("tunnel").is_in(list(ENCAPSULATION_OF))
    )
    leaving = wrapped.filter(pl.col("by_orig") & (pl.col("kind") == "encapsulated"))
    if leaving.is_empty():
        return
    backwards = wrapped.filter(~pl.col("by_orig"))
    answered = _answered_bare(observed)
    spread = set(observed.tunnel_spread.iter_rows())
    for address, part in by_address(leaving, "vantage"):
        index = part.item(0, "vantage")
        returns = backwards.filter(
            (pl.col("vantage") == index)
            & (pl.col("resp_hi") == address[0])
            & (pl.col("resp_lo") == address[1])
        )
        relays = set(part.get_column("out_src").drop_nulls().to_list())
        ends = _outer(part, "outer_dst")
        proven = returns.is_empty() and (
            address in spread or bool(relays & claimants(observed, address)) or address in answered
        )
        if not (proven or labels[index] == "director" or wanted(site, address, "tun")):
            continue
        _tunnel_services(
            evidence, part, address, ends, "arrive bare and leave inside", proven=proven
        )
        evidence.director_addresses |= _outer(part, "outer_src")
        _at_the_ends(observed, evidence, ends, proven=proven)
        for mac in relays or {None}:
            forwards(
                observed, evidence, index, mac, part, address, "inside a tunnel", proven=proven
            )


def tunnelled(observed: Observed, labels: Sequence[str | None], evidence: Evidence) -> None:
    """Take services whose packets were only seen inside a tunnel, and whose answers were not."""
    if observed.tunnelled.is_empty():
        return
    seen = observed.tunnelled.filter(pl.col("tunnel").is_in(list(ENCAPSULATION_OF))).join(
        observed.links.nodes.select(
            "vantage", "flow", "ip_proto", "resp_hi", "resp_lo", "resp_port"
        ),
        on=["vantage", "flow"],
    )
    both = seen.filter(~pl.col("by_orig")).select("resp_hi", "resp_lo").unique()
    one_way = seen.filter(pl.col("by_orig")).join(both, on=["resp_hi", "resp_lo"], how="anti")
    answered = _answered_bare(observed)
    spread = set(observed.tunnel_spread.iter_rows())
    for address, part in by_address(one_way):
        ends = _outer(part, "outer_dst")
        labelled = {labels[index] for index in part.get_column("vantage").unique().to_list()}
        proven = address in spread or address in answered
        if not (proven or labelled & {"director", "realserver"}):
            continue
        _tunnel_services(evidence, part, address, ends, "are seen inside", proven=proven)
        evidence.director_addresses |= _outer(part, "outer_src")
        for mac in _answering_macs(observed, part):
            evidence.realserver(
                mac, f"it unwraps packets to {ip_text(*address)} and answers them itself"
            )


def _at_the_ends(
    observed: Observed, evidence: Evidence, ends: set[Address], *, proven: bool
) -> None:
    """Take the one owner of each address that a director's tunnel leads to for a realserver."""
    for end in sorted(ends)[:MAX_ENDPOINTS]:
        owners = claimants(observed, end)
        if len(owners) == 1:
            reason = f"it owns {ip_text(*end)}, where the director's tunnel ends"
            evidence.realserver(owners.pop(), reason, proven=proven)


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
    evidence: Evidence,
    part: pl.DataFrame,
    address: Address,
    ends: set[Address],
    how: str,
    *,
    proven: bool,
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
        found = evidence.service((proto, address, port), "tun", reason, proven=proven)
        if found.method == "tun":
            found.encapsulation = kinds[0] if len(kinds) == 1 else found.encapsulation
            found.realservers |= _outer(one, "outer_dst")
