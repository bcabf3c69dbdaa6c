"""What `inspect` counts."""

from __future__ import annotations

import polars as pl
import pytest

from pcapdiag import schema, site
from pcapdiag.addresses import V4_MAPPED, pack_ip
from pcapdiag.cli import inspection
from pcapdiag.cli.inspection import Count, IcmpErrors


def test_protocols_are_named_and_counted():
    """IPv6 is said beside the protocol, other ethertypes by name or number."""
    kinds = [
        (4, 6, 0x0800),
        (4, 6, 0x0800),
        (4, 1, 0x0800),
        (6, 6, 0x86DD),
        (6, 58, 0x86DD),
        (4, 254, None),
        (4, None, 0x0800),
        (None, None, 0x0806),
        (None, None, 0x88B5),
        (None, None, 0x0026),
        (None, None, 0x0800),
        (None, None, None),
    ]
    packets = schema.conform(
        pl.DataFrame(kinds, schema=["ip_version", "ip_proto", "ethertype"], orient="row"), "packets"
    )
    counts = inspection.protocols(packets)
    assert counts[0] == Count("tcp", 2)
    assert {count.name for count in counts[1:]} == {
        "icmp",
        "tcp over IPv6",
        "icmpv6",
        "254",
        "unknown",
        "arp",
        "ethertype 0x88b5",
        "llc",
        "broken ip",
        "no network layer",
    }
    assert all(count.packets == 1 for count in counts[1:])
    assert inspection.protocols(schema.empty("packets")) == ()


def test_decode_notes_are_counted_bit_by_bit():
    """A frame with two notes counts for both; that it is not IP is no fault."""
    notes = pl.Series([0, 2, 6, 4, 8, 12, None, 0], dtype=pl.UInt32)
    assert inspection.decode_notes(notes) == (
        Count("link-cut", 3),
        Count("unknown-linktype", 2),
    )


def _errors(rows: list[dict[str, object]]) -> pl.DataFrame:
    return schema.conform(pl.DataFrame(rows, infer_schema_length=None), "icmp_errors")


def _error(sender: str, **more: object) -> dict[str, object]:
    hi, lo = pack_ip(sender)
    return {
        "ip_version": 4,
        "icmp_type": 3,
        "icmp_code": 4,
        "src_hi": hi,
        "src_lo": lo,
        "time_ns": 1,
        "copy_of": None,
        "icmp_checksum": "ok",
        "next_hop_mtu": None,
        **more,
    }


def test_icmp_errors_are_counted_by_message_and_sender():
    """A second sight is no second message; MTUs, times and bad checksums are summed up."""
    table = _errors(
        [
            _error("192.0.2.1", time_ns=5, next_hop_mtu=1400),
            _error("192.0.2.1", time_ns=9, next_hop_mtu=1300, icmp_checksum="bad"),
            _error("192.0.2.1", time_ns=10, copy_of=1),
            _error("192.0.2.1", icmp_code=3, time_ns=None),
            _error("192.0.2.2", time_ns=7, next_hop_mtu=1400),
        ]
    )
    shown, left_out = inspection.icmp_errors(table)
    assert left_out == 0
    assert shown[0] == IcmpErrors(
        message="fragmentation needed (3/4)",
        sender="192.0.2.1",
        messages=2,
        first_ns=5,
        last_ns=9,
        bad_checksums=1,
        mtus=(1300, 1400),
    )
    assert [(each.message, each.sender) for each in shown[1:]] == [
        ("port unreachable (3/3)", "192.0.2.1"),
        ("fragmentation needed (3/4)", "192.0.2.2"),
    ]
    assert shown[1].first_ns is None


@pytest.mark.parametrize("more", [0, 3])
def test_a_flood_of_senders_is_counted_not_listed(more):
    """At most MAX_ERRORS lines are made, and what they leave out is told."""
    number = inspection.MAX_ERRORS + more
    table = _errors([_error("192.0.2.1", src_lo=V4_MAPPED + index) for index in range(number)])
    shown, left_out = inspection.icmp_errors(table)
    assert len(shown) == inspection.MAX_ERRORS
    assert left_out == more


def _topology():
    from pcapdiag.cluster.topology import HostInfo, ServiceInfo, Topology

    def host(name: str, role: str, address: str, mac: int) -> HostInfo:
        return HostInfo(
            name=name,
            role=role,
            addresses=frozenset({pack_ip(address)}),
            macs=frozenset({mac}),
            reason=f"why {name}\nis",
        )

    service = ServiceInfo(
        ip_proto=6,
        vip=pack_ip("203.0.113.10"),
        port=80,
        fwmark=None,
        method="tun",
        encapsulation="ipip",
        realservers=frozenset({pack_ip("192.0.2.12"), pack_ip("192.0.2.11")}),
        reason="outer headers",
    )
    nat = ServiceInfo(
        ip_proto=6,
        vip=pack_ip("2001:db8::10"),
        port=80,
        fwmark=None,
        method="nat",
        encapsulation=None,
        realservers=frozenset({pack_ip("2001:db8::b"), pack_ip("2001:db8::a")}),
        reason="rewritten addresses",
        realserver_ports=frozenset({(pack_ip("2001:db8::a"), 8080), (pack_ip("2001:db8::b"), 80)}),
    )
    marked = ServiceInfo(
        ip_proto=6,
        vip=None,
        port=None,
        fwmark=7,
        method=None,
        encapsulation=None,
        realservers=frozenset(),
        reason="site.toml",
    )
    hosts = (
        host("rs1", "realserver", "192.0.2.11", 0x11),
        host("rs1", "realserver", "192.0.2.21", 0x12),
        host("odd name", "unknown", "192.0.2.99", 0x13),
    )
    return Topology(roles=(), hosts=hosts, services=(service, nat, marked), notes=(), observed=None)


def test_what_was_inferred_is_a_site_that_can_be_read_again():
    """The written site has the same services and hosts, and its comments the reasons."""
    topology = _topology()
    text = inspection.site_comments(topology) + site.dump(inspection.site_of(topology))
    read = site.parse(text)
    assert read == inspection.site_of(topology)
    assert read.services[0].realservers == (
        (pack_ip("192.0.2.11"), None),
        (pack_ip("192.0.2.12"), None),
    )
    assert read.services[1].realservers == (
        (pack_ip("2001:db8::a"), 8080),
        (pack_ip("2001:db8::b"), None),
    )
    assert (read.services[2].fwmark, read.services[2].vip) == (7, None)
    assert [(host.name, host.role) for host in read.hosts] == [
        ("odd name", None),
        ("rs1", "realserver"),
    ]
    assert read.hosts[1].macs == (0x11, 0x12)
    assert "# tcp 203.0.113.10:80: outer headers\n" in text
    assert "# fwmark 7: site.toml\n" in text
    assert "# rs1: why rs1 is\n" in text


def test_services_and_hosts_are_named_as_a_reader_writes_them():
    """Endpoints have ports only where they differ from the service's, methods their tunnel."""
    topology = _topology()
    tun, nat, marked = (inspection._service(service) for service in topology.services)
    assert (tun.name, tun.method) == ("tcp 203.0.113.10:80", "tun (ipip)")
    assert (nat.name, nat.realservers) == (
        "tcp [2001:db8::10]:80",
        ("[2001:db8::a]:8080", "2001:db8::b"),
    )
    assert (marked.name, marked.method, marked.realservers) == ("fwmark 7", "unknown", ())
