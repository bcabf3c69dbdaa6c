"""When a gateway may send a redirect: the criteria of RFC 1812 section 5.2.7.2, on frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import polars as pl

from pcapdiag import spool

if TYPE_CHECKING:
    from pcapdiag.case.case import Case
    from pcapdiag.spool import Table

MAX_ASKED: Final = 20
"""Redirects of one incident that are looked at: a sender's are alike, Linux sends at most nine."""

FORWARD_NS: Final = 100_000_000
"""Within which a host passes a packet on that it sends a redirect about, at the latest."""

_BARE_HEADER: Final = 20
"""IPv4 header without options; source routing is one (RFC 791 section 3.1)."""

_HOST_BITS: Final = {4: 8, 6: 64}
"""Of addresses in the subnet that two neighbours are taken to share where no mask is known."""


class Criteria(NamedTuple):
    """True where a criterion holds in all redirects that show it, false in any; None: none does.

    same_interface: the packet left by the network card it had come in by. same_subnet: its sender
    is a direct neighbour (the frame came from the MAC that is told), and shares a subnet with the
    gateway that is named. no_source_route: its IP header has no options.
    """

    same_interface: bool | None
    same_subnet: bool | None
    no_source_route: bool | None


def check(case: Case, redirects: pl.DataFrame) -> Criteria:
    """Return how the criteria stand for some of case.redirects."""
    answers: dict[str, list[bool]] = {"interface": [], "subnet": [], "route": []}
    for redirect in redirects.head(MAX_ASKED).iter_rows(named=True):
        tables = case.vantages[redirect["seen_vantage"]]
        error = tables.icmp_errors.filter(pl.col("row") == redirect["seen_row"])
        quoted_row = error["quoted_row"].item() if error.height else None
        if quoted_row is None:
            continue
        quoted = spool.at(tables.packets, [quoted_row]).row(0, named=True)
        _add(answers["interface"], _same_interface(tables.packets, quoted, quoted_row))
        _add(answers["subnet"], _same_subnet(redirect, quoted))
        if redirect["ip_version"] == 4:
            _add(answers["route"], quoted["ip_header_len"] == _BARE_HEADER)
    return Criteria(*(all(found) if found else None for found in answers.values()))


def _add(answers: list[bool], answer: bool | None) -> None:
    if answer is not None:
        answers.append(answer)


def _same_interface(packets: Table, quoted: dict[str, Any], row: int) -> bool | None:
    """Return whether the packet left from the MAC it had come to; None: it was not seen to leave.

    NAT leaves IP ID and sequence number alone.
    """
    if None in (quoted["eth_dst"], quoted["time_ns"], quoted["ip_id"]):
        return None
    left = (
        packets.lazy()
        .with_row_index("row")
        .filter(
            pl.col("row") != row,
            pl.col("ip_id") == quoted["ip_id"],
            pl.col("tcp_seq").eq_missing(quoted["tcp_seq"]),
            pl.col("payload_len").eq_missing(quoted["payload_len"]),
            (pl.col("time_ns") - quoted["time_ns"]).is_between(0, FORWARD_NS),
            pl.col("ttl") == quoted["ttl"] - 1,
        )
    )
    sources = left.select(pl.col("eth_src").drop_nulls().unique()).collect()["eth_src"]
    return None if sources.is_empty() else bool((sources == quoted["eth_dst"]).all())


def _same_subnet(redirect: dict[str, Any], quoted: dict[str, Any]) -> bool | None:
    if quoted["eth_src"] is None or redirect["gateway_lo"] is None:
        return None
    if quoted["eth_src"] != redirect["seen_eth_dst"]:
        return False
    shift = _HOST_BITS[redirect["ip_version"]]

    def subnet(hi: int, lo: int) -> int:
        return ((hi << 64) | lo) >> shift

    source = subnet(quoted["src_hi"], quoted["src_lo"])
    return source == subnet(redirect["gateway_hi"], redirect["gateway_lo"])
