"""Who has which address: ARP and neighbour discovery in one table."""

from __future__ import annotations

import pytest
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptMTU,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether

from pcapdiag.addresses import ip_text, mac_text
from pcapdiag.decode_note import DecodeNote

MAC1, MAC2, NONE = "02:00:00:00:00:01", "02:00:00:00:00:02", "00:00:00:00:00:00"
ASK = ARP(op=1, hwsrc=MAC1, psrc="192.0.2.1", hwdst=NONE, pdst="192.0.2.2")


@pytest.fixture(scope="session")
def neighbours(decoded):
    """Return a function: frames to rows of `arp`, in text."""

    def rows(*frames, **more):
        return [
            (
                row["row"],
                row["op"],
                *(None if row[f] is None else mac_text(row[f]) for f in ("sender_mac",)),
                ip_text(row["sender_hi"], row["sender_lo"]),
                *(None if row[f] is None else mac_text(row[f]) for f in ("target_mac",)),
                ip_text(row["target_hi"], row["target_lo"]),
                row["gratuitous"],
            )
            for row in decoded(*frames, **more).arp.rows(named=True)
        ]

    return rows


def test_requests_and_replies(neighbours):
    """Both ends, with the MACs that the message names; tags do not matter."""
    reply = ARP(op=2, hwsrc=MAC2, psrc="192.0.2.2", hwdst=MAC1, pdst="192.0.2.1")
    found = neighbours(Ether() / ASK, Ether() / Dot1Q(vlan=3) / reply)
    assert found == [
        (0, "request", MAC1, "192.0.2.1", NONE, "192.0.2.2", False),
        (1, "reply", MAC2, "192.0.2.2", MAC1, "192.0.2.1", False),
    ]


def test_gratuitous_announcements(neighbours):
    """Sender and target are one address; a probe from 0.0.0.0 is none."""
    mine = ARP(op=1, hwsrc=MAC1, psrc="192.0.2.1", pdst="192.0.2.1")
    probe = ARP(op=1, hwsrc=MAC1, psrc="0.0.0.0", pdst="192.0.2.1")  # noqa: S104 - an ARP probe
    assert [row[-1] for row in neighbours(Ether() / mine, Ether() / probe)] == [True, False]


def test_the_frames_source_stands_beside(decoded):
    """It may differ from the sender's MAC in the message: that is a finding of its own."""
    tables = decoded(Ether(src=MAC2) / ASK)
    assert mac_text(tables.arp["eth_src"][0]) == MAC2
    assert mac_text(tables.arp["sender_mac"][0]) == MAC1
    assert tables.packets["decode_note"].to_list() == [DecodeNote.NOT_IP]
    assert tables.packets["ip_version"].to_list() == [None]


def test_hardware_type_ieee_802(neighbours):
    """Some hosts on Ethernet say 6 for 1."""
    assert len(neighbours(Ether() / ARP(b"\0\6" + bytes(ASK)[2:]))) == 1


@pytest.mark.parametrize(
    "message",
    [
        ARP(op=3, hwsrc=MAC1),  # reverse ARP
        ARP(op=8, hwsrc=MAC1),  # inverse ARP
        ARP(bytes.fromhex("000108000804") + bytes(30)),
        ARP(bytes.fromhex("000186dd0610") + bytes(50)),
        ARP(bytes.fromhex("001808000604") + bytes(30)),
    ],
)
def test_other_messages_make_no_row(neighbours, message):
    """Another operation, or other than MACs for IPv4 addresses."""
    assert neighbours(Ether(type=0x806) / bytes(message)) == []


def test_a_cut_message_makes_no_row(decoded):
    """It is noted as cut."""
    data = bytes(Ether() / ASK)
    tables = decoded(data[:41], wire_len=[42])
    assert tables.arp.height == 0
    assert tables.packets["decode_note"].to_list() == [DecodeNote.NOT_IP | DecodeNote.LINK_CUT]


ME, YOU, ALL = "fe80::1", "fe80::2", "ff02::1"
NS = IPv6(src=ME, dst="ff02::1:ff00:2", hlim=255) / ICMPv6ND_NS(tgt=YOU)
NA = IPv6(src=YOU, dst=ME, hlim=255) / ICMPv6ND_NA(tgt=YOU, S=1, R=0)


def test_neighbour_discovery(neighbours):
    """A solicitation asks for the target, an advertisement is about its own."""
    found = neighbours(
        NS / ICMPv6NDOptSrcLLAddr(lladdr=MAC1),
        NA / ICMPv6NDOptDstLLAddr(lladdr=MAC2),
        NS,
        NS / ICMPv6NDOptMTU() / ICMPv6NDOptSrcLLAddr(lladdr=MAC1),
        NS / ICMPv6NDOptDstLLAddr(lladdr=MAC2),
        linktype=101,
    )
    assert found == [
        (0, "solicitation", MAC1, ME, None, YOU, False),
        (1, "advertisement", MAC2, YOU, None, ME, False),
        (2, "solicitation", None, ME, None, YOU, False),
        (3, "solicitation", MAC1, ME, None, YOU, False),
        (4, "solicitation", None, ME, None, YOU, False),
    ]


def test_unsolicited_advertisements(neighbours):
    """What a host says unasked, after a failover for example, is gratuitous."""
    unasked = IPv6(src=YOU, dst=ALL, hlim=255) / ICMPv6ND_NA(tgt=YOU, S=0)
    (row,) = neighbours(unasked / ICMPv6NDOptDstLLAddr(lladdr=MAC2), linktype=101)
    assert row == (0, "advertisement", MAC2, YOU, None, ALL, True)


def test_rows_of_both_protocols_are_in_file_order(neighbours):
    """ARP and neighbour discovery stand in one table."""
    frames = (Ether() / NS, Ether() / ASK, Ether() / NA, Ether() / ASK)
    assert [row[0] for row in neighbours(*frames)] == [0, 1, 2, 3]


@pytest.mark.parametrize("options", [b"\1\0" + b"\0" * 6, b"\5\0" * 40, b"\1", b"\1\1\2\2"])
def test_options_that_lead_nowhere(neighbours, options):
    """A length of 0 does not hang, a cut option gives no MAC."""
    (row,) = neighbours(NS / options, linktype=101)
    assert row[2] is None


def test_cut_and_foreign_messages_make_no_row(neighbours, decoded):
    """An echo is no neighbour message, nor is one whose target was not kept."""
    assert neighbours(IPv6() / ICMPv6EchoRequest(), linktype=101) == []
    data = bytes(NS)
    assert decoded(data[:63], linktype=101, wire_len=[64]).arp.height == 0
