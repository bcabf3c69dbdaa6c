"""VRRP advertisements: who is master of which addresses."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.vrrp import VRRP, VRRPv3

from pcapdiag.addresses import ip_text
from pcapdiag.decode_note import DecodeNote

RAW = 101
V4 = IP(src="192.0.2.2", dst="224.0.0.18", ttl=255, proto=112)
V6 = IPv6(src="fe80::2", dst="ff02::12", hlim=255, nh=112)
TWO = ["203.0.113.10", "203.0.113.11"]


@pytest.fixture(scope="session")
def virtual(decoded):
    """Return a function: one frame to rows (version, vrid, priority, address)."""

    def rows(*frames, **more):
        return [
            (
                row["version"],
                row["vrid"],
                row["priority"],
                ip_text(row["virtual_hi"], row["virtual_lo"]),
            )
            for row in decoded(*frames, **{"linktype": RAW, **more}).vrrp.rows(named=True)
        ]

    return rows


def v2(addresses, **more):
    """Return an advertisement of version 2."""
    return V4 / VRRP(vrid=51, priority=101, addrlist=addresses, **more)


def test_one_row_an_address(virtual):
    """In the order of the message, for both versions and families."""
    assert virtual(v2(TWO)) == [(2, 51, 101, address) for address in TWO]
    third = VRRPv3(vrid=7, priority=255, ipcount=2)
    four = bytes(third)[:8] + bytes([203, 0, 113, 10, 203, 0, 113, 11])
    assert virtual(V4 / four) == [(3, 7, 255, address) for address in TWO]
    six = bytes(third)[:8] + bytes.fromhex(
        "fe80" + "00" * 13 + "01" + "20010db8" + "00" * 11 + "0a"
    )
    assert virtual(V6 / six) == [(3, 7, 255, "fe80::1"), (3, 7, 255, "2001:db8::a")]


def test_rows_name_their_packet(decoded):
    """Several advertisements in one batch, with others between them."""
    tables = decoded(v2(TWO), V4.copy(), v2(["203.0.113.12"]), linktype=RAW)
    assert tables.vrrp["row"].to_list() == [0, 0, 2]


def test_carp_is_not_vrrp(virtual, decoded):
    """It shares protocol number and version, and would be seven addresses."""
    carp = bytes([0x21, 1, 0, 7, 0, 1]) + bytes(30)
    assert virtual(V4 / carp) == []
    assert decoded(V4 / carp, linktype=RAW).packets["decode_note"].to_list() == [0]


@pytest.mark.parametrize("first", [0x11, 0x41, 0x22, 0x30])
def test_other_versions_and_types_make_no_row(virtual, first):
    """Only advertisements of versions 2 and 3 are known."""
    assert virtual(V4 / (bytes([first]) + bytes(VRRP(addrlist=TWO))[1:])) == []


def test_a_count_beyond_the_packet_makes_no_row(virtual):
    """The message contradicts itself: nothing behind the packet is an address."""
    assert virtual(bytes(v2(TWO, ipcount=200)) + b"\xff" * 200) == []


@pytest.mark.parametrize(("kept", "count"), [(4, 0), (8, 0), (11, 0), (12, 1), (15, 1), (16, 2)])
def test_a_cut_message_gives_what_was_kept(virtual, decoded, kept, count):
    """Whole addresses only, and a note where one is missing."""
    data = bytes(v2(TWO))
    cut = {"wire_len": [len(data)]}
    assert virtual(data[: 20 + kept], **cut) == [(2, 51, 101, address) for address in TWO[:count]]
    note = decoded(data[: 20 + kept], linktype=RAW, **cut).packets["decode_note"].to_list()
    assert note == [DecodeNote.TRANSPORT_CUT if count < 2 else 0]
