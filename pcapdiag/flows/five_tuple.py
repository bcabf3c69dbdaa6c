"""Five-tuples as 64-bit keys, equal for both directions, and packets put in order by them.

The five-tuple is that of the innermost packet (tunnels are looked through), so that the same
packet has one key before and behind a tunnel's entrance. Keys are fixed hashes, the same in every
process: they may partition work. Two of a million flows share one with a chance of 3e-8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from pcapdiag.flows.arrays import Rows, present, starts_of, values

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Words = NDArray[np.uint64]

_BLOCK: Final = 1 << 15
"""Rows hashed at once: a dozen columns of so many 8-byte words stay in a 2 MiB cache."""

# Odd words without structure (the golden ratio, and the constants of MurmurHash3 and SplitMix64).
_K: Final = tuple(
    np.uint64(word)
    for word in (
        0x9E3779B97F4A7C15,
        0xC2B2AE3D27D4EB4F,
        0x165667B19E3779F9,
        0xD6E8FEB86659FD93,
        0xFF51AFD7ED558CCD,
        0xC4CEB9FE1A85EC53,
    )
)


@dataclass(frozen=True, slots=True)
class Keys:
    """What identifies each packet's five-tuple; arrays of one length, one element a packet."""

    tuple_key: NDArray[np.uint64]
    """Of the five-tuple, whichever end sent."""
    sent_by_second: NDArray[np.bool_]
    """Which end sent: false for the one with the smaller hash. Only equality means anything."""
    directed: NDArray[np.uint64]
    """Of addresses, ports and protocol as sent."""
    has_ports: NDArray[np.bool_]
    """Whether there is a five-tuple: addresses and ports were decoded."""
    has_addresses: NDArray[np.bool_]
    """Whether the packet is IP at all."""


def mix(words: Words) -> Words:
    """Return each word hashed (the finalizer of MurmurHash3, a bijection of 64 bits)."""
    out = words ^ (words >> np.uint64(33))
    out *= _K[4]
    out ^= out >> np.uint64(33)
    out *= _K[5]
    out ^= out >> np.uint64(33)
    return out


def combine(*fields: NDArray[Any]) -> Words:
    """Return one word per row over integer columns of equal length, their order mattering."""
    total = np.zeros(len(fields[0]), np.uint64)
    for number, field in enumerate(fields):
        total += field.astype(np.uint64, copy=False) * _K[number % 4]
        total = mix(total) if number % 4 == 3 else total
    return mix(total)


def keys_of(
    frame: pl.DataFrame, prefixes: tuple[str, str] = ("src", "dst"), proto: str = "ip_proto"
) -> Keys:
    """Return the keys of a frame with columns {src,dst}_{hi,lo,port} and a protocol.

    `prefixes` are the names' beginnings of sender and receiver, such as ("quoted_src",
    "quoted_dst"); flows have ("orig", "resp"). Where ports are null the key is over port 0.
    """
    first, second = prefixes
    columns = [
        values(frame, f"{side}_{part}") for side in (first, second) for part in ("hi", "lo", "port")
    ]
    protocol = values(frame, proto)
    rows = len(frame)
    tuple_key = np.empty(rows, np.uint64)
    directed = np.empty(rows, np.uint64)
    by_second = np.empty(rows, np.bool_)
    for start in range(0, rows, _BLOCK):
        part = slice(start, start + _BLOCK)
        source = _endpoint(*(column[part] for column in columns[:3]))
        target = _endpoint(*(column[part] for column in columns[3:]))
        tag = protocol[part].astype(np.uint64) * _K[3]
        np.greater(source, target, out=by_second[part])
        tuple_key[part] = mix(source + target + tag)
        directed[part] = mix(source * _K[0] + target + tag)
    has_addresses = present(frame, f"{first}_lo")
    has_ports = has_addresses & present(frame, f"{first}_port") & present(frame, f"{second}_port")
    return Keys(tuple_key, by_second, directed, has_ports, has_addresses)


def _endpoint(hi: NDArray[Any], lo: NDArray[Any], port: NDArray[Any]) -> Words:
    return mix(hi * _K[1] + lo * _K[0] + port.astype(np.uint64) * _K[2])


def endpoint_keys(frame: pl.DataFrame, prefix: str) -> Words:
    """Return a word per row over `{prefix}_hi`, `_lo` and `_port`."""
    return _endpoint(*(values(frame, f"{prefix}_{part}") for part in ("hi", "lo", "port")))


def order_by(keys: Words, rows: Rows | None = None) -> tuple[Rows, Rows]:
    """Return rows in order of key, equal keys in row order, and where each key's run begins.

    `rows` (ascending) says which rows the keys belong to; None: 0, 1, 2 ... The upper bits of a
    key and the row's index are sorted as one word, many times faster than an indirect sort; where
    two keys share those upper bits their runs are taken apart afterwards.
    """
    count = len(keys)
    if not count:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    low = np.uint64((1 << max(1, (count - 1).bit_length())) - 1)
    packed = pl.Series((keys & ~low) | np.arange(count, dtype=np.uint64)).sort().to_numpy()
    order = (packed & low).astype(np.int64)
    upper = packed & ~low
    starts = starts_of(upper)
    lower = (keys & low).astype(np.uint32)[order]
    mixed = np.flatnonzero((upper[1:] == upper[:-1]) & (lower[1:] != lower[:-1]))
    if len(mixed):
        order, starts = _separate(keys, order, starts, mixed)
    return (order if rows is None else rows[order]), starts


def _separate(keys: Words, order: Rows, starts: Rows, mixed: Rows) -> tuple[Rows, Rows]:
    """Sort the few runs that hold several keys by the whole key."""
    runs = np.unique(np.searchsorted(starts, mixed, "right") - 1)
    ends = np.append(starts[1:], len(order))
    inside = np.zeros(len(order) + 1, np.int8)
    inside[starts[runs]] += 1
    inside[ends[runs]] -= 1
    places = np.flatnonzero(np.cumsum(inside[:-1]) > 0)
    chosen = order[places]
    order = order.copy()
    order[places] = chosen[np.lexsort((chosen, keys[chosen]))]
    within = places[1:][keys[order[places[1:]]] != keys[order[places[1:] - 1]]]
    return order, np.unique(np.concatenate((starts, within)))
