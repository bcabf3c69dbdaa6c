"""Names and limits of link types."""

from __future__ import annotations

from pcapdiag.capture import linktype


def test_names_and_numbers():
    """A link type without a name is told by its number."""
    assert linktype.name(1) == "ETHERNET"
    assert linktype.name(276) == "LINUX_SLL2"
    assert (linktype.name(147), linktype.name(162)) == ("USER0", "USER15")
    assert linktype.name(9999) == "link type 9999"


def test_a_few_link_types_have_larger_packets():
    """As in Wireshark: 256 KiB, but 128 MiB for D-Bus and USB, 8 MiB for EBHSCR."""
    assert linktype.max_packet_bytes(1) == 262_144
    assert linktype.max_packet_bytes(231) == linktype.max_packet_bytes(249) == 128 << 20
    assert linktype.max_packet_bytes(279) == 8 << 20
