"""Segments larger than the wire's: seen before segmentation (TSO, GSO) or after merging (GRO, LRO).

A capture on a host may show 64 kB where 1500-byte packets were sent. No such packet proves that a
path carries its size; what it proves is the size that it was cut into.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pcapdiag.flows.arrays import Rows

MAX_MTU: Final = 9216
"""Largest MTU of Ethernet equipment in use (jumbo frames); a larger packet was never on a wire.
Loopback's 64 kB is known from the MSS in its SYNs."""

ETHERNET_MTU: Final = 1500

MIN_FULL_PAYLOAD: Final = 500
"""Bytes: a smaller payload is no full segment (536 is the default MSS, RFC 9293 section 3.7.1,
less timestamps), so that multiples of it mean nothing."""

NO_LIMIT: Final = int(np.iinfo(np.uint32).max)


def limits(
    peer_mss: NDArray[Any], peer_mss_known: NDArray[np.bool_], ip_version: NDArray[Any]
) -> NDArray[np.int64]:
    """Return, per segment, the IP length that the peer's MSS allows, or NO_LIMIT.

    The MSS counts neither IP nor TCP header, and options come out of it (RFC 6691).
    """
    headers = np.where(ip_version == 6, 60, 40)
    return np.where(peer_mss_known, peer_mss.astype(np.int64) + headers, NO_LIMIT)


def wire_sizes(
    size: NDArray[Any],
    payload: NDArray[Any],
    starts: Rows,
    largest: NDArray[Any],
    limit: NDArray[np.int64],
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return each packet's IP length as it was on the wire, and per segment whether any differed.

    `size` are captured IP lengths, `largest` and `limit` per segment. Without an MSS a packet
    whose payload is a multiple of the side's full segment was merged; one above any MTU is 0: what
    it was cut into is not known.
    """
    limit = np.where(limit == NO_LIMIT, _guessed(size, payload, starts, largest, limit), limit)
    offload = (largest > limit) | ((limit == NO_LIMIT) & (largest > MAX_MTU))
    if not offload.any():
        return size, offload
    lengths = np.diff(starts, append=len(size))
    chosen = np.flatnonzero(np.repeat(offload, lengths))
    cap = np.repeat(limit, lengths)[chosen]
    cut = np.minimum(size[chosen], cap)
    cut[(cap == NO_LIMIT) & (size[chosen] > MAX_MTU)] = 0
    sizes = size.copy()
    sizes[chosen] = cut
    return sizes, offload


def _guessed(
    size: NDArray[Any],
    payload: NDArray[Any],
    starts: Rows,
    largest: NDArray[Any],
    limit: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return limits for sides whose peer's MSS is unknown, from multiples of a full segment."""
    guess = np.full(len(starts), NO_LIMIT, np.int64)
    doubtful = np.flatnonzero((limit == NO_LIMIT) & (largest > ETHERNET_MTU))
    if not len(doubtful):
        return guess
    lengths = np.diff(starts, append=len(size))
    wanted = np.zeros(len(starts), np.bool_)
    wanted[doubtful] = True
    chosen = np.repeat(wanted, lengths)
    part_size, part_payload = size[chosen].astype(np.int64), payload[chosen].astype(np.int64)
    part_lengths = lengths[doubtful]
    part_starts = np.cumsum(part_lengths) - part_lengths
    single = np.where(part_size <= ETHERNET_MTU, part_payload, 0)
    full = np.maximum.reduceat(single, part_starts)
    each = np.repeat(np.maximum(full, 1), part_lengths)
    merged = (part_size > ETHERNET_MTU) & (part_payload % each == 0)
    headers = np.maximum.reduceat(np.where(merged, part_size - part_payload, 0), part_starts)
    found = (headers > 0) & (full >= MIN_FULL_PAYLOAD)
    guess[doubtful[found]] = (full + headers)[found]
    return guess
