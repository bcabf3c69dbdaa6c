"""How far an address is good for: which sources a router on the way lets through.

Classes after RFC 6890 (special-purpose address registries), as polars expressions over the two
columns of an address (addresses.py). Documentation networks count as global: they stand in for
real ones.
"""

from __future__ import annotations

import ipaddress
from typing import Final

import polars as pl

from pcapdiag.addresses import pack_ip

_V4: Final = {
    # RFC 1122 section 3.2.1.3, RFC 1112 section 4
    "impossible": ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4"),
    "link": ("169.254.0.0/16",),  # RFC 3927
    "private": (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),  # RFC 1918
        "100.64.0.0/10",  # RFC 6598
    ),
}
_V6: Final = {
    "impossible": ("::/128", "::1/128", "ff00::/8"),  # RFC 4291
    "link": ("fe80::/10",),
    "private": ("fc00::/7",),  # RFC 4193
}


def scope(prefix: str) -> pl.Expr:
    """Return "impossible", "link", "private" or "global" for `prefix`_hi and `prefix`_lo.

    Impossible: no host may send from it on a wire. Link: no router may pass it on (RFC 4291
    section 2.5.6, RFC 3927 section 2.7). Private: filters at the borders of networks drop it
    (RFC 1918 section 3, BCP 38). Null where the address is null.
    """

    def inside(name: str) -> pl.Expr:
        return pl.any_horizontal([_within(prefix, net) for net in (*_V4[name], *_V6[name])])

    return (
        pl.when(pl.col(f"{prefix}_lo").is_null())
        .then(pl.lit(None, pl.String))
        .when(inside("impossible"))
        .then(pl.lit("impossible"))
        .when(inside("link"))
        .then(pl.lit("link"))
        .when(inside("private"))
        .then(pl.lit("private"))
        .otherwise(pl.lit("global"))
    )


def _within(prefix: str, text: str) -> pl.Expr:
    network = ipaddress.ip_network(text)
    first, last = (pack_ip(str(network[end])) for end in (0, -1))
    hi, lo = pl.col(f"{prefix}_hi"), pl.col(f"{prefix}_lo")
    if network.version == 4 or network.prefixlen == 128:
        return (hi == first[0]) & lo.is_between(first[1], last[1])
    return hi.is_between(first[0], last[0])
