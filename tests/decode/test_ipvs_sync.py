"""Messages of the IPVS synchronisation protocol."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP

from pcapdiag.addresses import endpoint_text
from pcapdiag.decode_note import DecodeNote

RAW = 101
ENDS = ("198.51.100.7", "203.0.113.10", "203.0.113.21")
ENDS6 = ("2001:db8:9::7", "2001:db8::10", "2001:db8::21")


def packed(addresses):
    """Return addresses as on the wire."""
    return b"".join(ipaddress.ip_address(address).packed for address in addresses)


def entry(addresses=ENDS, *, flags=3, state=1, more=b"", version=0, size=None):
    """Return struct ip_vs_sync_v4 or ip_vs_sync_v6 with options behind it."""
    body = packed(addresses)
    size = 24 + len(body) + len(more) if size is None else size
    kind = 1 if ":" in addresses[0] else 0
    head = struct.pack(
        ">BBHIHHHHII", kind, 6, version << 12 | size, flags, state, 4000, 80, 8080, 0, 9
    )
    whole = head + body + more
    return whole.ljust(-(-len(whole) // 4) * 4, b"\0")


def message(*entries, count=None, size=None):
    """Return struct ip_vs_sync_mesg with entries."""
    body = b"".join(entries)
    count = len(entries) if count is None else count
    return (
        struct.pack(">BBHBBH", 0, 42, len(body) + 8 if size is None else size, count, 1, 0) + body
    )


def entry_v0(flags=1, state=2, more=b""):
    """Return struct ip_vs_sync_conn_v0."""
    ports = struct.pack(">BBHHH", 0, 17, 4000, 53, 5353)
    return ports + packed(ENDS) + struct.pack(">HH", flags, state) + more


def datagram(payload):
    """Return a message on its way to the backups."""
    return IP(src="192.0.2.2", dst="224.0.0.81") / UDP(sport=1, dport=8848) / payload


@pytest.fixture(scope="session")
def synced(decoded):
    """Return a function: payloads to rows of `ipvs_sync` in text."""

    def rows(*payloads):
        table = decoded(*map(datagram, payloads), linktype=RAW).ipvs_sync
        return [
            (
                row["row"],
                row["sync_id"],
                row["proto"],
                *(
                    endpoint_text(row[f"{end}_hi"], row[f"{end}_lo"], row[f"{end}_port"])
                    for end in ("client", "virtual", "real")
                ),
                row["method"],
                row["state"],
            )
            for row in table.rows(named=True)
        ]

    return rows


FOUR = (42, 6, "198.51.100.7:4000", "203.0.113.10:80", "203.0.113.21:8080", "dr", 1)
SIX = (42, 6, "[2001:db8:9::7]:4000", "[2001:db8::10]:80", "[2001:db8::21]:8080", "dr", 1)


def test_both_families_in_one_message(synced):
    """Entries stand one behind the other, each padded to four bytes."""
    options = b"\x82\x05abc"  # a PE name, which makes the entry's size odd
    found = synced(message(entry(), entry(ENDS6), entry(more=options), entry()), message(entry()))
    assert found == [(0, *FOUR), (0, *SIX), (0, *FOUR), (0, *FOUR), (1, *FOUR)]


@pytest.mark.parametrize(
    ("flags", "method"),
    [(0, "nat"), (1, "local"), (2, "tun"), (3, "dr"), (4, None), (0x6103, "dr")],
)
def test_the_forwarding_method(synced, flags, method):
    """It is the low three bits of the flags; a bypass has none."""
    assert synced(message(entry(flags=flags)))[0][6] == method


def test_version_0(synced):
    """Its entries are longer where sequence numbers follow."""
    payload = (
        struct.pack(">BBH", 3, 7, 4 + 24 + 48 + 24)
        + entry_v0()
        + (entry_v0(flags=0x0600, more=b"\xee" * 24) + entry_v0(flags=2))
    )
    expected = (7, 17, "198.51.100.7:4000", "203.0.113.10:53", "203.0.113.21:5353")
    assert synced(payload) == [
        (0, *expected, "local", 2),
        (0, *expected, "nat", 2),
        (0, *expected, "tun", 2),
    ]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\0\1",
        message(entry(), size=9),
        message(entry(version=1)),
        message(entry(size=20)),
        message(entry(size=4000)),
        message(b"", count=255),
        struct.pack(">BBH", 255, 1, 4),
    ],
)
def test_messages_that_contradict_themselves_make_no_row(synced, payload):
    """Sizes that differ from the datagram's, entries beyond it, other versions."""
    assert synced(payload) == []


def test_entries_before_a_bad_one_stand(synced):
    """As for the kernel, which takes them one by one."""
    assert synced(message(entry(), entry(size=20), entry())) == [(0, *FOUR)]


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 255), st.sampled_from([0, 1]))
def test_any_message_is_survived(synced, body, count, version):
    """At most as many rows as the count says."""
    head = struct.pack(">BBHBBH", 0, 1, len(body) + 8, count, version, 0)
    assert len(synced(head + body)) <= 255


@pytest.mark.parametrize(("kept", "rows"), [(3, 0), (20, 0), (44, 1), (79, 1), (80, 2)])
def test_a_cut_message_gives_what_was_kept(decoded, kept, rows):
    """Whole entries only, and a note where one is missing."""
    data = bytes(datagram(message(entry(), entry())))
    tables = decoded(data[: 28 + kept], linktype=RAW, wire_len=[len(data)])
    assert tables.ipvs_sync.height == rows
    note = DecodeNote.TRANSPORT_CUT if rows < 2 else 0
    assert tables.packets["decode_note"].to_list() == [note]


def test_other_ports_carry_no_messages(decoded):
    """The port is how the kernel knows them, too."""
    frame = IP() / UDP(sport=8848, dport=9999) / message(entry())
    assert decoded(frame, linktype=RAW).ipvs_sync.height == 0
