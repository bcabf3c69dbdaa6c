"""Whether a TCP or UDP checksum came through the translation of NAT.

The new checksum follows from the old one and from what was rewritten (RFC 1624, and the kernel's
inet_proto_csum_replace4): no payload is needed, and cut frames will do.
"""

from __future__ import annotations

from typing import Final

import polars as pl

_ONES: Final = 0xFFFF
"""Sums are those of ones' complement: modulo this, whatever the number of words."""

_ADDRESSES: Final = ("src_hi", "src_lo", "dst_hi", "dst_lo")
"""As two UInt64 each. An IPv4 address stands behind ffff, which adds nothing."""

REWRITTEN: Final = (*_ADDRESSES, "src_port", "dst_port")

ALIKE: Final = ("tcp_seq", "tcp_ack", "payload_len", "ip_len")
"""An application helper that changes these (ip_vs_ftp.c) changes the payload as well."""

COLUMNS: Final = (*REWRITTEN, *ALIKE, "ip_header_len", "transport_checksum")

LARGEST: Final = 1500
"""IP length above which a packet may be one that the host merged, with no checksum of its own."""


def broken() -> pl.Expr:
    """Return whether a packet's checksum does not follow from the one that it came with.

    The packet has COLUMNS as it came, and as it left with the prefix out_. False also where that
    cannot be told: no checksum, one that a network card was to complete, other numbers, merged. So
    it is where most packets that left for the same vantage seem broken: a card that sums in
    another way is likelier than a director with which nothing works.
    """
    came, left = (_word(f"{side}transport_checksum") for side in ("", "out_"))
    gained = sum(_word(f"out_{name}") - _word(name) for name in REWRITTEN)
    told = pl.all_horizontal(
        pl.col("transport_checksum") != 0,
        pl.col("out_transport_checksum") != 0,
        ~_partial(""),
        ~_partial("out_"),
        pl.col("ip_len") <= LARGEST,
        *(pl.col(name).eq_missing(pl.col(f"out_{name}")) for name in ALIKE),
    )
    differs = (told & ((left - came + gained) % _ONES != 0)).fill_null(False)
    share = (differs.sum() / told.fill_null(False).sum()).over("out_vantage")
    return differs & (share <= 0.5)


def _partial(side: str) -> pl.Expr:
    """Whether the field holds no more than the pseudo-header's sum (CHECKSUM_PARTIAL)."""
    length = _word(f"{side}ip_len") - _word(f"{side}ip_header_len")
    pseudo = sum(_word(f"{side}{name}") for name in _ADDRESSES) + _word("ip_proto") + length
    return (_word(f"{side}transport_checksum") - pseudo) % _ONES == 0


def _word(name: str) -> pl.Expr:
    return (pl.col(name) % _ONES).cast(pl.Int64)
