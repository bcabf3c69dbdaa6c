"""One's-complement arithmetic on checksums: what a wrong sum tells of who changed what.

The residual of a message is its stored checksum minus the one its bytes demand, modulo 0xFFFF
(RFC 1624 section 3: HC' = ~(~HC + ~m + m')). A box that changed a 16-bit word from m to m' and left
the checksum alone leaves the residual m' - m behind, whatever else the message holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MODULUS: Final = 0xFFFF

_TTL_STEP: Final = 0x0100
"""The quoted TTL is the high byte of its word: one hop changes the word by this much."""


class Hypothesis(NamedTuple):
    """A change that was not accounted for: `what` in words.

    `expected` is the residual that it leaves in each message of the group, in their order.
    """

    what: str
    expected: tuple[int, ...]


class Explanation(NamedTuple):
    """What fits all messages of a group. `code`: a finding's cause code."""

    code: str
    text: str


def of_words(old: Iterable[int], new: Iterable[int]) -> int:
    """Return the residual left where the 16-bit words `old` became `new` unaccounted for."""
    return (sum(new) - sum(old)) % MODULUS


def address_words(hi: int, lo: int, version: int) -> tuple[int, ...]:
    """Return the 16-bit words of an address in the form of addresses.py."""
    value = lo & 0xFFFF_FFFF if version == 4 else (hi << 64) | lo
    count = 2 if version == 4 else 8
    return tuple((value >> (16 * index)) & 0xFFFF for index in range(count))


def explain(
    residuals: Sequence[int], hypotheses: Iterable[Hypothesis], *, stale_quote: bool = False
) -> Explanation:
    """Return what explains *all* of `residuals` (one a message), or that nothing does.

    A hypothesis that fits only some of a group is no explanation: an honest "unexplained" sends
    people looking, a wrong one sends them to the wrong box. `stale_quote`: the IP header checksum
    inside the quote is wrong as well, as a changed quoted TTL leaves it.
    """
    wanted = tuple(residual % MODULUS for residual in residuals)
    fitting = sorted({item.what for item in hypotheses if item.expected == wanted})
    distinct = set(wanted)
    bit = _bit(distinct)
    flipped = f"one bit (0x{bit or 0:04x}) flipped, always the same: failing memory or a bad link"
    if fitting:
        texts = [*fitting, flipped] if bit is not None else fitting
        return Explanation("rewrite-without-checksum", "; or ".join(texts))
    if stale_quote and distinct <= {_TTL_STEP, MODULUS - _TTL_STEP}:
        text = "the quoted TTL was changed and the ICMP checksum was not"
        return Explanation("rewrite-without-checksum", text)
    if bit is not None:
        return Explanation("bit-error", flipped)
    if len(distinct) > 1 and all(_bit({item}) is not None for item in distinct):
        return Explanation(
            "corruption",
            f"one bit in each message is flipped, in {len(distinct)} ways in {len(residuals)} "
            "messages: failing memory or a bad link",
        )
    if len(distinct) > 1:
        return Explanation(
            "unexplained",
            f"unexplained: {len(distinct)} different residuals in {len(residuals)} messages: "
            "corruption, truncation, or a field that is set to one value whatever it was",
        )
    return Explanation(
        "fixed-rewrite-unexplained",
        f"unexplained: always off by 0x{wanted[0]:04x}, a fixed rewrite by something not captured",
    )


def _bit(distinct: set[int]) -> int | None:
    """Return the one bit whose setting and clearing leaves all of these residuals."""
    bits = {item if item.bit_count() == 1 else MODULUS - item for item in distinct}
    bit = bits.pop()
    return bit if not bits and bit.bit_count() == 1 else None
