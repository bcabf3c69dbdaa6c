"""The Internet checksum (RFC 1071) over many packets at once.

Sums are taken over little-endian 32-bit words: one's complement addition does not care for word
size, and byte order turns into a factor of 256 modulo 0xFFFF (RFC 1071 section 2).
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from pcapdiag.decode.columns import U8, U16, U64, Bools, Offsets

    Sums = U64

_ONES: Final = np.uint64(0xFFFF)


class Verdict(IntEnum):
    """Codes in arrays: the position in schema.VERDICTS plus 1, and 0 where there is no checksum."""

    NONE = 0
    OK = 1
    BAD = 2
    UNVERIFIABLE = 3


def verdicts(total: Sums, verifiable: Bools) -> U8:
    """Return Verdict codes of messages that sum, checksum field included, to `total`.

    Right is a sum of 0xFFFF; a message of nothing but zeros sums to 0 and is wrong.
    """
    right = (total % _ONES == 0) & (total != 0)
    codes = np.where(right, np.uint8(Verdict.OK), np.uint8(Verdict.BAD))
    codes[~verifiable] = Verdict.UNVERIFIABLE
    return codes


def residuals(total: Sums) -> U16:
    """Return stored minus expected in one's complement, 0 to 0xFFFE; 0 where right.

    S - 0xFFFF modulo 0xFFFF is S modulo 0xFFFF, S being the sum with the stored field; RFC 1624
    gives the arithmetic of header rewrites that leave such a difference behind.
    """
    return (total % _ONES * np.uint64(256) % _ONES).astype(np.uint16)


def pseudo_header_sum(
    src_hi: Sums, src_lo: Sums, dst_hi: Sums, dst_lo: Sums, length: Offsets, proto: int
) -> Sums:
    """Return the little-endian sum of the IPv6 pseudo-header (RFC 8200 section 8.1).

    For the mapped form of IPv4 addresses it is the IPv4 one but for ::ffff, which sums to zero.
    """
    low = np.uint64(0xFFFF_FFFF)
    total = np.zeros(len(length), dtype=np.uint64)
    for half in (src_hi, src_lo, dst_hi, dst_lo):
        total += (half & low) + (half >> np.uint64(32))
    total += length.astype(np.uint64) + np.uint64(proto)
    return total % _ONES * np.uint64(256)
