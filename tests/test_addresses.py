"""Addresses as integers and back."""

from __future__ import annotations

import ipaddress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcapdiag import addresses


@given(st.ip_addresses())
def test_an_address_survives_packing(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    """Text -> two integers -> text is the same address; the mapped form is IPv4's."""
    high, low = addresses.pack_ip(str(address))
    assert 0 <= high < 1 << 64
    assert 0 <= low < 1 << 64
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    assert addresses.ip_text(high, low) == str(mapped or address)


@given(st.integers(0, (1 << 128) - 1))
def test_any_128_bits_have_a_text(value: int) -> None:
    """Whatever a packet holds can be shown, and shown text leads back to it."""
    high, low = value >> 64, value & ((1 << 64) - 1)
    assert addresses.pack_ip(addresses.ip_text(high, low)) == (high, low)


def test_ipv4_lies_in_the_mapped_range() -> None:
    """An IPv4 address is ::ffff:a.b.c.d (RFC 4291 section 2.5.5.2)."""
    assert addresses.pack_ip("192.0.2.1") == (0, 0xFFFF_C000_0201)
    assert addresses.pack_ip("192.0.2.1") == addresses.pack_ip("::ffff:192.0.2.1")
    assert addresses.ip_text(0, addresses.V4_MAPPED) == "0.0.0.0"  # noqa: S104 - an address as text


def test_the_compatible_form_is_not_taken_for_ipv4() -> None:
    """::192.0.2.1 (deprecated, RFC 4291 section 2.5.5.1) stays IPv6."""
    assert ":" in addresses.ip_text(*addresses.pack_ip("::192.0.2.1"))


@pytest.mark.parametrize("text", ["", "192.0.2", "192.0.2.256", "2001:db8::g", "host", "1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    """pack_ip raises instead of guessing."""
    with pytest.raises(ValueError, match="address"):
        addresses.pack_ip(text)


def test_an_endpoint_shows_its_port_unambiguously() -> None:
    """IPv6 gets brackets where a port follows; without a port there is none."""
    v4, v6 = addresses.pack_ip("192.0.2.1"), addresses.pack_ip("2001:db8::1")
    assert addresses.endpoint_text(*v4, 80) == "192.0.2.1:80"
    assert addresses.endpoint_text(*v6, 80) == "[2001:db8::1]:80"
    assert addresses.endpoint_text(*v6, 0) == "[2001:db8::1]:0"
    assert addresses.endpoint_text(*v6, None) == "2001:db8::1"


@given(st.integers(0, (1 << 48) - 1))
def test_a_mac_survives_its_text(mac: int) -> None:
    """Integer -> text -> integer is the same MAC, six lower-case pairs."""
    text = addresses.mac_text(mac)
    assert len(text) == 17
    assert text == text.lower()
    assert addresses.pack_mac(text) == mac


def test_macs_are_read_as_people_write_them() -> None:
    """Dashes, capitals, blanks around and missing zeros are understood."""
    expected = 0x0200_0000_0A01
    for text in ("02:00:00:00:0a:01", "02-00-00-00-0A-01", " 2:0:0:0:a:1 "):
        assert addresses.pack_mac(text) == expected


@pytest.mark.parametrize(
    "text", ["", "02:00:00:00:00", "02:00:00:00:00:001", "02::00:00:00:01", "zz:0:0:0:0:1"]
)
def test_what_is_no_mac_is_refused(text: str) -> None:
    """pack_mac raises ValueError, never a wrong number."""
    with pytest.raises(ValueError, match=r"MAC|base 16"):
        addresses.pack_mac(text)


@given(st.lists(st.sampled_from(["192.0.2.1", "2001:db8::1", "::", "10.0.0.1"]), max_size=20))
def test_many_addresses_are_texts_in_order(texts: list[str]) -> None:
    """ip_texts gives, row by row, what ip_text gives; repeats and no rows included."""
    packed = [addresses.pack_ip(text) for text in texts]
    high = np.array([pair[0] for pair in packed], dtype=np.uint64)
    low = np.array([pair[1] for pair in packed], dtype=np.uint64)
    assert addresses.ip_texts(high, low) == texts
