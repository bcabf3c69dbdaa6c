"""Five-tuples as 64-bit keys, equal for both directions, and packets put in order by them.

The five-tuple is that of the innermost packet (tunnels are looked through), so that the same
packet has one key before and behind a tunnel's entrance. Keys are fixed hashes, the same in every
process: they may partition work. Two of a million flows share one with a chance of 3e-8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pcapdiag.flows.arrays import Columns, Rows

    Words = NDArray[np.uint64]

_BLOCK: Final = 1 << 14
"""Rows hashed at once: a handful of columns of so many 8-byte words stay in a 1 MiB cache."""

_HALF: Final = np.uint64(33)

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


class Keys(NamedTuple):
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
    out = words >> _HALF
    out ^= words
    out *= _K[4]
    out ^= out >> _HALF
    out *= _K[5]
    out ^= out >> _HALF
    return out


def combine(*fields: NDArray[Any]) -> Words:
    """Return one word per row over integer columns of equal length, their order mattering."""
    total = np.zeros(len(fields[0]), np.uint64)
    for number, field in enumerate(fields):
        total += field.astype(np.uint64, copy=False) * _K[number % 4]
        total = mix(total) if number % 4 == 3 else total
    return mix(total)


def keys_of(
    table: Columns, prefixes: tuple[str, str] = ("src", "dst"), proto: str = "ip_proto"
) -> Keys:
    """Return the keys of a table with columns {src,dst}_{hi,lo,port} and a protocol.

    `prefixes` are the names' beginnings of sender and receiver, such as ("quoted_src",
    "quoted_dst"); flows have ("orig", "resp"). Where ports are null the key is over port 0.
    """
    first, second = prefixes
    columns = [
        table.values(f"{side}_{part}") for side in (first, second) for part in ("hi", "lo", "port")
    ]
    protocol = table.values(proto)
    rows = len(table)
    tuple_key = np.empty(rows, np.uint64)
    directed = np.empty(rows, np.uint64)
    by_second = np.empty(rows, np.bool_)
    for start in range(0, rows, _BLOCK):
        part = slice(start, start + _BLOCK)
        source = _endpoint(*(column[part] for column in columns[:3]))
        target = _endpoint(*(column[part] for column in columns[3:]))
        np.greater(source, target, out=by_second[part])
        source += protocol[part].astype(np.uint64) * _K[3]
        np.add(source, target, out=tuple_key[part])
        source *= _K[0]
        np.add(source, target, out=directed[part])
    has_addresses = table.present(f"{first}_lo")
    has_ports = table.present(f"{first}_port") & table.present(f"{second}_port")
    return Keys(tuple_key, by_second, directed, has_ports & has_addresses, has_addresses)


def _endpoint(hi: NDArray[Any], lo: NDArray[Any], port: NDArray[Any]) -> Words:
    total = port.astype(np.uint64)
    total *= _K[2]
    total += lo * _K[0]
    total += hi * _K[1]
    return mix(total)


def endpoint_keys(table: Columns, prefix: str, rows: Rows) -> Words:
    """Return a word for each of `rows` over `{prefix}_hi`, `_lo` and `_port`."""
    return _endpoint(*(table.values(f"{prefix}_{part}")[rows] for part in ("hi", "lo", "port")))


def order_by(keys: Words, rows: Rows | None = None) -> tuple[Rows, Rows]:
    """Return rows in order of key, equal keys in row order, and where each key's run begins.

    `rows` (ascending) says which rows the keys belong to; None: 0, 1, 2 ... The upper bits of a
    key and the row's index are sorted as one word, many times faster than an indirect sort; where
    two keys share those upper bits their runs are taken apart afterwards.
    """
    order, follows = _sorted(keys)
    starts = np.flatnonzero(~follows)
    order, starts = _checked(keys, order, starts, follows)
    return (order if rows is None else rows[order]), starts


def repeated(keys: Words, rows: Rows | None = None) -> tuple[Rows, Rows]:
    """Return what order_by does, but only of keys that occur more than once."""
    order, follows = _sorted(keys)
    second = np.flatnonzero(follows)
    if not len(second):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    chosen = np.zeros(len(order), np.bool_)
    chosen[second] = True
    chosen[second - 1] = True
    order, follows = order[chosen], follows[chosen]
    order, starts = _checked(keys, order, np.flatnonzero(~follows), follows)
    length = np.diff(starts, append=len(order))
    wanted = length > 1
    order = order[np.repeat(wanted, length)]
    length = length[wanted]
    return (order if rows is None else rows[order]), np.cumsum(length) - length


def _sorted(keys: Words) -> tuple[Rows, NDArray[np.bool_]]:
    """Return indices in order of the keys' upper bits, and which share them with the one before."""
    count = len(keys)
    low = _low_bits(count)
    packed = keys & ~low
    packed |= np.arange(count, dtype=np.uint64)
    packed = pl.Series(packed).sort().to_numpy()
    follows = np.zeros(count, np.bool_)
    if count:
        np.less_equal(packed[1:] ^ packed[:-1], low, out=follows[1:])
    return (packed & low).view(np.int64), follows


def _low_bits(count: int) -> np.uint64:
    """Return the bits that an index below `count` needs."""
    return np.uint64((1 << max(1, (count - 1).bit_length())) - 1)


def _checked(
    keys: Words, order: Rows, starts: Rows, follows: NDArray[np.bool_]
) -> tuple[Rows, Rows]:
    """Sort by the whole key those runs that share the upper bits only."""
    lower = (keys & _low_bits(len(keys))).astype(np.uint32)[order]
    mixed = np.flatnonzero(follows[1:] & (lower[1:] != lower[:-1]))
    if not len(mixed):
        return order, starts
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
