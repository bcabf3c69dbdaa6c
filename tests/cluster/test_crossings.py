"""One ICMP error is one message, however often and wherever it was seen."""

from __future__ import annotations

import polars as pl

SECOND = 1_000_000_000


def served(net, **more) -> dict:
    """Let connections be served and return the last packet of rs1's first one."""
    net.arp()
    first = net.connect("rs1", **more)
    net.connect("rs2")
    net.connect("rs1")
    return first


def test_every_sight_of_a_translated_error_is_one_message(cluster, analyse) -> None:
    """Router, director in, director out, realserver: NAT changed destination and quote."""
    for kind in ({"method": "nat", "rport": 8080}, {"method": "dr"}, {"method": "tun"}):
        net = cluster(**kind)
        net.error(net.too_big(served(net)), "rs1")
        found = analyse(net.tables("router", "director", "rs1", "rs2"))
        assert len(found.errors.messages) == 1
        places = found.errors.sightings.sort("time_ns").select("vantage", "place").rows()
        assert places == [(0, "out"), (1, "in"), (1, "out"), (2, "in")]
        nat, tun = kind["method"] == "nat", kind["method"] == "tun"
        sights = found.errors.sightings.sort("time_ns")
        assert sights.get_column("translated").to_list() == [False, False, nat, nat]
        assert sights.get_column("tunnelled").to_list() == [False, False, tun, tun]


def test_a_message_is_what_its_first_sight_shows(cluster, analyse) -> None:
    """Source the router, destination the VIP, the connection it is about, who sent the packet."""
    net = cluster(method="nat", rport=8080)
    net.error(net.too_big(served(net), icmp_checksum="ok"), "rs1")
    found = analyse(net.tables("rs1", "director"))
    (message,) = found.errors.messages.to_dicts()
    assert (message["src_lo"], message["dst_lo"]) == (net.address["isp"][1], net.address["vip"][1])
    assert (message["icmp_type"], message["icmp_code"], message["next_hop_mtu"]) == (3, 4, 1400)
    assert message["quoted_sender"] == "realserver"
    owner = found.connections.connections.row(message["connection"], named=True)
    assert owner["realserver_name"] == "rs1"


def test_errors_about_two_retransmissions_are_two_messages(cluster, analyse) -> None:
    """Each retransmission has its own IP ID, and so has each quote."""
    net = cluster()
    first = served(net)
    for number in range(3):
        net.error(net.too_big({**first, "ip_id": 500 + number}), "rs1")
        net.wait(200_000_000)
    found = analyse(net.tables("director", "rs1"))
    assert len(found.errors.messages) == 3
    assert found.errors.sightings.group_by("message").len().get_column("len").to_list() == [3] * 3


def test_equal_ipv6_errors_are_told_apart_by_time(cluster, analyse) -> None:
    """IPv6 has no IP IDs: what comes again 200 ms later is another message."""
    net = cluster(v6=True)
    first = served(net)
    for relayed in ("rs1", None, "rs1"):
        net.error(net.too_big(first), relayed)
        net.wait(200_000_000)
    net.wait(3 * SECOND)
    net.connect("rs2")
    found = analyse(net.tables("director"))
    assert len(found.errors.messages) == 3
    assert found.verdicts() == [
        ("forwarded", "egress"),
        ("swallowed", "no-egress"),
        ("forwarded", "egress"),
    ]


def test_uneven_sights_of_equal_errors_are_joined_by_the_common_clock(cluster, analyse) -> None:
    """The realserver got two of three; its times say which, though its clock is off."""
    net = cluster(v6=True)
    net.recorders["rs1"].clock_ns = 90 * SECOND
    first = served(net)
    for relayed in ("rs1", None, "rs1"):
        net.error(net.too_big(first), relayed)
        net.wait(200_000_000)
    found = analyse(net.tables("director", "rs1"))
    sights = found.errors.sightings.group_by("message", maintain_order=True).len()
    assert sights.get_column("len").to_list() == [3, 1, 3]


def test_uneven_sights_without_a_common_clock_are_not_joined(cluster, analyse) -> None:
    """Which of them a realserver got cannot be said then, so nothing is."""
    net = cluster(v6=True)
    first = served(net)
    for relayed in ("rs1", None):
        net.error(net.too_big(first), relayed)
        net.wait(200_000_000)
    director, realserver = net.tables("director", "rs1")
    found = analyse([director, realserver])
    blind = found.clocks.__class__((0, None), (0, None), ("", ""))
    from pcapdiag.cluster import crossings

    seen = crossings.errors([director, realserver], found.topology, found.connections, blind)
    both = seen.sightings.group_by("message").agg(pl.col("vantage").n_unique())
    assert both.get_column("vantage").max() == 1


def test_a_frame_captured_twice_is_one_sight_more(cluster, analyse) -> None:
    """Two taps of one interface show one message twice, not two messages."""
    net = cluster()
    message = {**net.too_big(served(net)), "ttl": 62}
    net.seen("director", message, "router", "director", "in")
    net.wait(2_000)
    net.seen("director", message, "router", "director", "in")
    found = analyse(net.tables("director"))
    assert (len(found.errors.messages), len(found.errors.sightings)) == (1, 2)


def test_a_bad_checksum_anywhere_is_the_messages(cluster, analyse) -> None:
    """It was good at the router and bad at the director: the message is bad."""
    net = cluster()
    good = {**net.too_big(served(net)), "ttl": 62}
    bad = {**good, "_icmp": {**good["_icmp"], "icmp_checksum": "bad"}}
    net.seen("router", good, "router", "director", "out")
    net.seen("director", bad, "router", "director", "in")
    found = analyse(net.tables("router", "director"))
    assert found.errors.messages.get_column("icmp_checksum").to_list() == ["bad"]


def test_an_error_about_a_reused_port_belongs_to_the_later_connection(cluster, analyse) -> None:
    """At a vantage that did not see the flow, the one that had begun is meant."""
    net = cluster()
    net.arp()
    net.connect("rs1", port=41000)
    net.wait(400 * SECOND)
    net.connect("rs2", port=41000)
    last = net.connect("rs2", port=41000)
    for name in ("rs1", "rs2"):
        net.connect(name)
    net.error(net.too_big(last), None)
    found = analyse(net.tables("director", "rs1", "rs2"))
    (connection,) = found.errors.messages.get_column("connection").to_list()
    owner = found.connections.connections.row(connection, named=True)
    assert owner["realserver_name"] == "rs2"


def test_icmp_alone_is_messages_without_connections(cluster, analyse) -> None:
    """A capture of nothing but ICMP knows no connection, and invents none."""
    net = cluster()
    net.error(net.too_big(served(net)), "rs1")
    recorder = net.recorders["director"]
    kept = [n for n, row in enumerate(recorder.rows) if row.get("icmp_type") is not None]
    recorder.rows = [recorder.rows[n] for n in kept]
    recorder.icmp = [{**entry, "row": kept.index(entry["row"])} for entry in recorder.icmp]
    recorder.arp = []
    found = analyse(net.tables("director"))
    assert found.errors.messages.get_column("connection").to_list() == [None]
    assert len(found.errors.sightings) == 2
    assert found.contract.is_empty()
