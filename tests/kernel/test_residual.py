"""Residuals name a rewrite only where it fits every message."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from pcapdiag.addresses import pack_ip
from pcapdiag.kernel import residual


def _checksum(data: bytes) -> int:
    """Return the Internet checksum by the sum of words, carries added at the end (RFC 1071)."""
    total = sum(word for (word,) in struct.iter_unpack("!H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@given(st.binary(min_size=8, max_size=64).filter(lambda data: len(data) % 2 == 0), st.data())
def test_residual_of_a_rewritten_word_is_the_difference(data, draw):
    """A word that is rewritten behind the checksum's back leaves new minus old."""
    index = draw.draw(st.integers(0, len(data) // 2 - 1))
    new = draw.draw(st.integers(0, 0xFFFF))
    (old,) = struct.unpack_from("!H", data, 2 * index)
    changed = data[: 2 * index] + struct.pack("!H", new) + data[2 * index + 2 :]
    left = (_checksum(data) - _checksum(changed)) % residual.MODULUS
    assert left == residual.of_words([old], [new])


PORT = residual.Hypothesis("port 80 became 8080", (8000,) * 5)


def test_a_known_port_rewrite_is_named():
    """One residual in all messages that equals a known rewrite names it."""
    found = residual.explain([8000] * 5, [PORT])
    assert (found.code, found.text) == ("rewrite-without-checksum", "port 80 became 8080")


def test_a_rewrite_that_fits_some_messages_explains_nothing():
    """Two residuals are never explained by one rewrite, even if it fits most of them."""
    found = residual.explain([8000] * 4 + [17], [PORT])
    assert found.code == "unexplained"
    assert found.text.startswith("unexplained: 2 different residuals in 5 messages")


def test_a_hypothesis_may_expect_another_residual_in_each_message():
    """As where one port replaced many: it names the rewrite although no residual is repeated."""
    each = residual.Hypothesis("others became 80", (1, 2, 3))
    assert residual.explain([1, 2, 3], [each]).text == "others became 80"
    assert residual.explain([1, 2, 4], [each]).code == "corruption"


def test_a_ttl_step_and_a_single_bit_are_told_apart():
    """A changed TTL leaves the quoted header's own checksum stale; without that 0x0100 is a bit."""
    assert "TTL" in residual.explain([0xFFFF - 0x0100] * 3, [], stale_quote=True).text
    assert residual.explain([0xFFFF - 0x0100] * 3, []).code == "bit-error"
    assert "0x0008" in residual.explain([8] * 3, []).text
    assert "0x0008" in residual.explain([0xFFFF - 8] * 3, []).text
    assert residual.explain([0x1234] * 3, []).text.startswith("unexplained: always off by 0x1234")


def test_a_bit_may_be_set_in_some_and_cleared_in_others():
    """The same position both ways is one bad cell, two positions are not."""
    assert residual.explain([8, 0xFFFF - 8, 8], []).code == "bit-error"
    assert residual.explain([0x8000, 0x7FFF], []).code == "bit-error"
    assert residual.explain([8, 16], []).code == "corruption"
    assert residual.explain([8, 24], []).code == "unexplained"


def test_a_rewrite_that_could_be_a_bit_as_well_says_so():
    """1500 made 1492 and a flipped bit of 8 leave the same."""
    found = residual.explain([0xFFFF - 8], [residual.Hypothesis("1500 to 1492", (0xFFFF - 8,))])
    assert found.text.startswith("1500 to 1492; or one bit (0x0008)")


def test_words_of_an_address():
    """An IPv4 address has two words, an IPv6 address eight."""
    hi, lo = pack_ip("192.0.2.1")
    assert sorted(residual.address_words(hi, lo, 4)) == [0x0201, 0xC000]
    hi, lo = pack_ip("2001:db8::1")
    assert sorted(residual.address_words(hi, lo, 6)) == [0] * 5 + [1, 0x0DB8, 0x2001]
