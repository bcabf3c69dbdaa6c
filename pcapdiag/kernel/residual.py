"""One's-complement arithmetic on checksums: what a wrong sum tells of who changed what.

The residual of a message is its stored checksum minus the one its bytes demand, modulo 0xFFFF
(RFC 1624 section 3: HC' = ~(~HC + ~m + m')). A box that changed a 16-bit word from m to m' and left
the checksum alone leaves the residual m' - m behind, whatever else the message holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MODULUS: Final = 0xFFFF

_TTL_STEP: Final = 0x0100
"""The quoted TTL is the high byte of its word: one hop changes the word by this much."""


@dataclass(frozen=True, slots=True)
class Rewrite:
    """16-bit words that something could have turned into others: `what` in words."""

    old: tuple[int, ...]
    new: tuple[int, ...]
    what: str


def of_words(old: Iterable[int], new: Iterable[int]) -> int:
    """Return the residual left where the 16-bit words `old` became `new` unaccounted for."""
    return (sum(new) - sum(old)) % MODULUS


def address_words(hi: int, lo: int, version: int) -> tuple[int, ...]:
    """Return the 16-bit words of an address in the form of addresses.py."""
    value = lo & 0xFFFF_FFFF if version == 4 else (hi << 64) | lo
    count = 2 if version == 4 else 8
    return tuple((value >> (16 * index)) & 0xFFFF for index in range(count))


def explain(residuals: Sequence[int], rewrites: Iterable[Rewrite]) -> str:
    """Return what explains *all* of `residuals` (one a message), or words that nothing does.

    A hypothesis that fits only some of a group is no explanation: an honest "unexplained" sends
    people looking, a wrong one sends them to the wrong box.
    """
    distinct = set(residuals)
    if len(distinct) > 1:
        return (
            f"unexplained: {len(distinct)} different residuals in {len(residuals)} messages, "
            "as from corruption or truncation, not from one fixed rewrite"
        )
    residual = distinct.pop()
    fitting = sorted({item.what for item in rewrites if of_words(item.old, item.new) == residual})
    if fitting:
        return "; or ".join(fitting)
    if residual in (MODULUS - _TTL_STEP, _TTL_STEP):
        return "the quoted TTL was changed and the ICMP checksum was not"
    signed = residual if residual < MODULUS // 2 else residual - MODULUS
    if abs(signed).bit_count() == 1:
        return (
            f"one bit (0x{abs(signed):04x}) flipped, always the same: failing memory or a bad link"
        )
    return f"unexplained: always off by 0x{residual:04x}, a fixed rewrite by something not captured"
