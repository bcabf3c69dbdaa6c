"""ICMP messages whose checksum fails, without those that only look so where they were captured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag.addresses import ip_text
from pcapdiag.kernel import residual

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pcapdiag.case.case import Case


COMMON_PORTS: Final = frozenset(
    {21, 22, 25, 53, 80, 110, 143, 443, 465, 587, 993, 995, 3128, 8000, 8008, 8080, 8443}
)
"""Ports between which port forwardings commonly translate."""


def frame(case: Case) -> pl.DataFrame:
    """Return one row per bad ICMP or ICMPv6 message and vantage, second sights left out.

    Columns: vantage, row, time_ns, ip_version, src_hi, src_lo, dst_hi, dst_lo, ttl, eth_src,
    icmp_type, icmp_code, icmp_residual, quoted addresses and ports, connection.

    Left out are messages that leave the capturing host, which may leave their sum to the network
    card, and messages that another vantage saw with a good checksum.
    """
    good = _seen_good(case)
    parts = []
    for vantage in case.vantages:
        bad = vantage.icmp.lazy().filter(pl.col("icmp_checksum") == "bad")
        packets = (
            vantage.packets.lazy()
            .with_row_index("row")
            .select(
                "row",
                "time_ns",
                "ip_version",
                "src_hi",
                "src_lo",
                "dst_hi",
                "dst_lo",
                "ttl",
                "eth_src",
                "direction",
                "icmp_type",
                "icmp_code",
                "copy_of",
            )
        )
        links = vantage.icmp_errors.lazy().select(
            "row", "flow", pl.col("copy_of").alias("error_copy_of")
        )
        legs = (
            case.connections.legs.lazy()
            .filter(pl.col("vantage") == vantage.index)
            .select("flow", "connection")
        )
        parts.append(
            bad.select(
                "row",
                "icmp_residual",
                "quoted_version",
                "quoted_src_hi",
                "quoted_src_lo",
                "quoted_dst_hi",
                "quoted_dst_lo",
                "quoted_src_port",
                "quoted_dst_port",
            )
            .join(packets, on="row")
            .join(links, on="row", how="left")
            .join(legs, on="flow", how="left")
            .filter(
                pl.col("copy_of").is_null(),
                pl.col("error_copy_of").is_null(),
                (pl.col("direction") != "out").fill_null(value=True),
                ~pl.col("eth_src")
                .is_in(sorted(case.topology.vantage_macs[vantage.index]))
                .fill_null(value=False),
            )
            .with_columns(pl.lit(vantage.index, dtype=pl.UInt16).alias("vantage"))
            .join(good.lazy(), on=["vantage", "row"], how="anti")
            .drop("flow", "copy_of", "error_copy_of", "direction")
        )
    return pl.concat(pl.collect_all(parts)).sort("vantage", "row")


def rewrites(case: Case, bad: pl.DataFrame) -> Iterator[residual.Rewrite]:
    """Yield the rewrites of the quotes in `bad` (rows of `frame`) that would make sense.

    Only a field that has one value in all messages can have been rewritten alike in all; what it
    was before must be a port or an address that this cluster is known to use, or a port that
    services commonly have: any residual fits *some* old value.
    """
    ports = COMMON_PORTS | {
        port
        for service in case.topology.services
        for port in (service.port, *(port for _, port in service.realserver_ports))
        if port is not None
    }
    for side, word in (("src", "source"), ("dst", "destination")):
        values = bad[f"quoted_{side}_port"].unique()
        if len(values) == 1 and values[0] is not None:
            new = int(values[0])
            for old in sorted(ports - {new}):
                yield residual.Rewrite(
                    (old,),
                    (new,),
                    f"the quoted {word} port was rewritten from {old} to {new} and the ICMP "
                    "checksum was not",
                )
        yield from _addresses(case, bad, side, word)


def _addresses(case: Case, bad: pl.DataFrame, side: str, word: str) -> Iterator[residual.Rewrite]:
    quoted = bad.select(f"quoted_{side}_hi", f"quoted_{side}_lo", "quoted_version").unique()
    if quoted.height != 1 or None in quoted.row(0):
        return
    hi, lo, version = quoted.row(0)
    known = {service.vip for service in case.topology.services if service.vip}
    known |= {rip for service in case.topology.services for rip in service.realservers}
    for old_hi, old_lo in sorted(known - {(hi, lo)}):
        yield residual.Rewrite(
            residual.address_words(old_hi, old_lo, version),
            residual.address_words(hi, lo, version),
            f"the quoted {word} address was rewritten from {ip_text(old_hi, old_lo)} to "
            f"{ip_text(hi, lo)}, and neither the quoted IP checksum nor the ICMP checksum was",
        )


def _seen_good(case: Case) -> pl.DataFrame:
    """Return vantage and row of bad sights whose message another sight shows with a good sum."""
    verdicts = pl.concat(
        [
            vantage.icmp_errors.select(
                pl.lit(vantage.index, dtype=pl.UInt16).alias("vantage"), "row", "icmp_checksum"
            )
            for vantage in case.vantages
        ]
    )
    sights = case.errors.sightings.select("message", "vantage", "row").join(
        verdicts, on=["vantage", "row"]
    )
    mixed = sights.filter(pl.col("icmp_checksum") == "ok").select("message").unique()
    return sights.join(mixed, on="message", how="semi").select("vantage", "row")
