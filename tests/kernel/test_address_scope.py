"""How far an address is good for."""

from __future__ import annotations

import polars as pl
import pytest

from pcapdiag.addresses import pack_ip
from pcapdiag.kernel.address_scope import scope


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("0.255.255.255", "impossible"),
        ("1.0.0.0", "global"),
        ("9.255.255.255", "global"),
        ("10.0.0.0", "private"),
        ("10.255.255.255", "private"),
        ("11.0.0.0", "global"),
        ("100.64.0.0", "private"),
        ("100.128.0.0", "global"),
        ("127.0.0.1", "impossible"),
        ("169.254.255.255", "link"),
        ("172.15.255.255", "global"),
        ("172.31.255.255", "private"),
        ("192.168.0.1", "private"),
        ("198.51.100.1", "global"),
        ("224.0.0.1", "impossible"),
        ("255.255.255.255", "impossible"),
        ("::", "impossible"),
        ("::1", "impossible"),
        ("::2", "global"),
        ("fe80::1", "link"),
        ("febf::1", "link"),
        ("fec0::1", "global"),
        ("fdff::1", "private"),
        ("ff02::1", "impossible"),
        ("2001:db8::1", "global"),
    ],
)
def test_each_class_at_its_edges(address, expected):
    """RFC 6890's networks, first and last addresses and their neighbours."""
    hi, lo = pack_ip(address)
    table = pl.DataFrame(
        {"src_hi": [hi], "src_lo": [lo]}, schema={"src_hi": pl.UInt64, "src_lo": pl.UInt64}
    )
    assert table.select(scope("src")).item() == expected


def test_an_unknown_address_has_no_scope():
    """Null stays null."""
    table = pl.DataFrame(
        {"src_hi": [None], "src_lo": [None]}, schema={"src_hi": pl.UInt64, "src_lo": pl.UInt64}
    )
    assert table.select(scope("src")).item() is None
