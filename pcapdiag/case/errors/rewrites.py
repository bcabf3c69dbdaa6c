"""Which changes of an ICMP message would make sense in this cluster: hypotheses for residuals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pcapdiag.addresses import endpoint_text, ip_text
from pcapdiag.kernel import residual
from pcapdiag.kernel.encapsulations import ENCAPSULATIONS, ETHERNET_MTU
from pcapdiag.protocols import icmp_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import polars as pl

    from pcapdiag.case.case import Case

COMMON_PORTS: Final = frozenset(
    {21, 22, 25, 53, 80, 110, 143, 443, 465, 587, 993, 995, 3128, 8000, 8008, 8080, 8443}
)
"""Ports between which port forwardings commonly translate."""

COMMON_MTUS: Final = (
    0,
    ETHERNET_MTU,
    9000,
    *(ETHERNET_MTU - row.overhead for row in ENCAPSULATIONS),
)
"""MTUs that a box may have found in a message and replaced: any residual fits *some* old value."""

REPLACED_CODES: Final = ((3, 0), (3, 1), (3, 3), (3, 9), (3, 10), (3, 13), (11, 0))
"""Types and codes between which firewalls translate what they let out."""

MAX_KINDS: Final = 1000
"""Messages told apart by residual and quote that are looked at: a hypothesis has to fit all, and
what takes more kinds than this to refute is not refuted by more."""

_KIND: Final = (
    "ip_version",
    "icmp_residual",
    "icmp_type",
    "icmp_code",
    "next_hop_mtu",
    "quoted_version",
    "quoted_src_hi",
    "quoted_src_lo",
    "quoted_dst_hi",
    "quoted_dst_lo",
    "quoted_src_port",
    "quoted_dst_port",
)


def explain(case: Case, bad: pl.DataFrame) -> residual.Explanation:
    """Return what explains the residuals of *all* of `bad` (rows of checksums.frame), or nothing.

    What a field was before must be a port, an address or an MTU that this cluster is known to use,
    or that is common.
    """
    kinds = bad.select(_KIND).unique(maintain_order=True).head(MAX_KINDS).rows(named=True)
    stale = bool((bad["quoted_ip_checksum"] == "bad").fill_null(value=False).all())
    return residual.explain(
        [kind["icmp_residual"] for kind in kinds],
        _hypotheses(case, kinds, stale_quote=stale),
        stale_quote=stale,
    )


def _hypotheses(
    case: Case, kinds: Sequence[dict[str, Any]], *, stale_quote: bool
) -> Iterator[residual.Hypothesis]:
    yield from _ports(case, kinds)
    if stale_quote:
        yield from _addresses(case, kinds)
    yield from _next_hop_mtus(kinds)
    yield from _codes(kinds)


def _ports(case: Case, kinds: Sequence[dict[str, Any]]) -> Iterator[residual.Hypothesis]:
    known = COMMON_PORTS | {
        port
        for service in case.topology.services
        for port in (service.port, *(port for _, port in service.realserver_ports))
        if port is not None
    }
    for side, word in (("src", "source"), ("dst", "destination")):
        new = [kind[f"quoted_{side}_port"] for kind in kinds]
        if None in new:
            continue
        shown = str(new[0]) if len(set(new)) == 1 else "others"
        for old in sorted(known - set(new)):
            yield residual.Hypothesis(
                f"the quoted {word} port was rewritten from {old} to {shown} and the ICMP "
                "checksum was not",
                tuple(residual.of_words((old,), (port,)) for port in new),
            )


def _addresses(case: Case, kinds: Sequence[dict[str, Any]]) -> Iterator[residual.Hypothesis]:
    """Yield addresses of the cluster, alone and with their ports, that the quote may have held."""
    known: set[tuple[int, int, int | None]] = set()
    for service in case.topology.services:
        if service.vip:
            known |= {(*service.vip, None), (*service.vip, service.port)}
        known |= {(*address, None) for address in service.realservers}
        known |= {(*address, port) for address, port in service.realserver_ports}
    for side, word in (("src", "source"), ("dst", "destination")):
        fields = [f"quoted_{side}_{part}" for part in ("hi", "lo", "port")]
        new = [tuple(kind[field] for field in fields) for kind in kinds]
        if any(value is None for row in new for value in row):
            continue
        for hi, lo, port in sorted(known, key=str):
            if any((hi, lo) == row[:2] for row in new):
                continue
            old = endpoint_text(hi, lo, port) if port is not None else ip_text(hi, lo)
            yield residual.Hypothesis(
                f"the quoted {word} was rewritten from {old}, and neither the quoted IP checksum "
                "nor the ICMP checksum was made anew",
                tuple(
                    residual.of_words(
                        (*residual.address_words(hi, lo, kind["quoted_version"]), port or 0),
                        (
                            *residual.address_words(row[0], row[1], kind["quoted_version"]),
                            row[2] if port is not None else 0,
                        ),
                    )
                    for kind, row in zip(kinds, new, strict=True)
                ),
            )


def _next_hop_mtus(kinds: Sequence[dict[str, Any]]) -> Iterator[residual.Hypothesis]:
    new = {kind["next_hop_mtu"] for kind in kinds}
    if len(new) != 1 or None in new:
        return
    (mtu,) = new
    for old in COMMON_MTUS:
        if old != mtu:
            yield residual.Hypothesis(
                f"the next-hop MTU was changed from {old} to {mtu} and the ICMP checksum was not",
                (residual.of_words((old,), (mtu,)),) * len(kinds),
            )


def _codes(kinds: Sequence[dict[str, Any]]) -> Iterator[residual.Hypothesis]:
    new = {(kind["ip_version"], kind["icmp_type"], kind["icmp_code"]) for kind in kinds}
    if len(new) != 1:
        return
    ((version, kind, code),) = new
    if version != 4 or (kind, code) not in REPLACED_CODES:
        return
    for old in REPLACED_CODES:
        if old != (kind, code):
            yield residual.Hypothesis(
                f"{icmp_name(4, *old)} was made {icmp_name(4, kind, code)} and the ICMP checksum "
                "was not",
                (residual.of_words((old[0] << 8 | old[1],), (kind << 8 | code,)),) * len(kinds),
            )
