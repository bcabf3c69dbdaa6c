"""Checksums over many packets at once agree with scapy's over one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcapdiag.addresses import pack_ip
from pcapdiag.decode import checksum
from pcapdiag.decode.checksum import Verdict
from pcapdiag.decode.fetch import Bytes


def _total(message: bytes):
    source = Bytes(np.frombuffer(message, np.uint8))
    return source.words_summed(np.array([0]), np.array([len(message)]))


def _verdict(message: bytes) -> Verdict:
    return Verdict(checksum.verdicts(_total(message), np.array([True]))[0])


@settings(deadline=None)
@given(st.binary(min_size=2, max_size=200))
def test_a_message_with_scapys_checksum_is_right(payload):
    """And its residual is 0, for even and odd lengths."""
    from scapy.utils import checksum as scapy_checksum

    blank = b"\x03\x04\x00\x00" + payload
    message = blank[:2] + scapy_checksum(blank).to_bytes(2, "big") + payload
    assert _verdict(message) == Verdict.OK
    assert checksum.residuals(_total(message)).tolist() == [0]


@settings(deadline=None)
@given(st.binary(min_size=2, max_size=60), st.integers(1, 0xFFFE))
def test_the_residual_is_what_was_added_to_the_field(payload, wrong_by):
    """Stored minus expected, in one's complement (RFC 1624)."""
    from scapy.utils import checksum as scapy_checksum

    blank = b"\x03\x04\x00\x00" + payload
    stored = scapy_checksum(blank) + wrong_by
    stored = (stored & 0xFFFF) + (stored >> 16)
    message = blank[:2] + stored.to_bytes(2, "big") + payload
    assert _verdict(message) == Verdict.BAD
    assert checksum.residuals(_total(message)).tolist() == [wrong_by]


def test_a_port_that_was_rewritten_shows_as_the_residual():
    """80 to 8080 in a quote, with the ICMP checksum left alone, is +8000."""
    from scapy.utils import checksum as scapy_checksum

    quote = b"\x45\x00" + (80).to_bytes(2, "big")
    right = scapy_checksum(b"\x03\x04\x00\x00" + quote).to_bytes(2, "big")
    rewritten = b"\x03\x04" + right + b"\x45\x00" + (8080).to_bytes(2, "big")
    assert checksum.residuals(_total(rewritten)).tolist() == [8000]


def test_nothing_but_zeros_is_wrong():
    """The sum 0 is no sum of 0xFFFF, though both are zero in one's complement."""
    assert _verdict(bytes(8)) == Verdict.BAD


def test_what_cannot_be_verified_is_neither_right_nor_wrong():
    """The third answer wins over the sum."""
    codes = checksum.verdicts(_total(b"\xff\xff"), np.array([False]))
    assert codes.tolist() == [Verdict.UNVERIFIABLE]


@pytest.mark.parametrize("length", [8, 1280, 70_000])
@settings(deadline=None)
@given(src=st.ip_addresses(v=6), dst=st.ip_addresses(v=6))
def test_the_pseudo_header_is_that_of_rfc_8200(length, src, dst):
    """Its sum is that of its 40 bytes, little-endian, modulo 0xFFFF."""
    header = src.packed + dst.packed + length.to_bytes(4, "big") + bytes([0, 0, 0, 58])
    halves = [np.array([half], np.uint64) for one in (src, dst) for half in pack_ip(str(one))]
    total = checksum.pseudo_header_sum(*halves, np.array([length]), 58)
    assert int(total[0]) % 0xFFFF == int(_total(header)[0]) % 0xFFFF
