"""Which flows are one connection, and which realserver owns it; never a wrong join."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from pcapdiag import schema

SECOND = 1_000_000_000


def served(net) -> None:
    """Let four connections be served side by side."""
    net.arp()
    for name in ("rs1", "rs2", "rs1", "rs2"):
        net.connect(name)


def test_legs_of_a_translated_connection_are_front_and_back(cluster, analyse) -> None:
    """Router and director see the VIP, director and realserver the realserver's port."""
    net = cluster(method="nat", rport=8080)
    served(net)
    found = analyse(net.tables("router", "director", "rs1"))
    kinds = (
        found.connections.legs.filter(pl.col("connection") == 0)
        .select("vantage", "kind")
        .sort("vantage", "kind")
        .rows()
    )
    assert kinds == [(0, "front"), (1, "front"), (1, "back"), (2, "back")]
    first = found.connections.connections.row(0, named=True)
    assert (first["vip_lo"], first["vip_port"]) == (net.address["vip"][1], 80)
    assert (first["realserver_lo"], first["realserver_port"]) == (net.address["rs1"][1], 8080)


def test_a_router_and_a_realserver_are_joined_across_the_translation(cluster, analyse) -> None:
    """Nobody saw the director, but the same packets continue under another address."""
    net = cluster(method="nat", rport=8080)
    served(net)
    found = analyse(net.tables("router", "rs1", labels=False))
    assert found.methods() == ["nat"]
    assert found.realservers().count(net.address["rs1"]) == 2
    assert found.realservers().count(None) == 2


def test_captures_that_share_no_packet_are_not_joined(cluster, analyse) -> None:
    """Equal five-tuples at other times are other connections."""
    one, other = cluster(), cluster()
    one.connect("rs1", port=40000)
    for _ in range(7):
        next(other._ids)
    other.wait(3600 * SECOND)
    other.connect("rs1", port=40000)
    (director,) = one.tables("director")
    (realserver,) = other.tables("rs1")
    found = analyse([director, replace(realserver, index=1)])
    assert len(found.connections.connections) == 2
    assert found.clocks.offset_ns == (0, None)


def test_clocks_hours_apart_do_not_matter(cluster, analyse) -> None:
    """Packets join flows, clocks do not; times are on the common clock afterwards."""
    net = cluster()
    net.recorders["rs1"].clock_ns = 5 * 3600 * SECOND
    served(net)
    found = analyse(net.tables("director", "rs1", "rs2"))
    assert len(found.connections.connections) == 4
    spans = found.connections.connections.select(pl.col("last_ns") - pl.col("first_ns")).to_series()
    assert spans.max() < SECOND


def test_different_clusters_thrown_together_stay_apart(cluster, analyse) -> None:
    """A director of one cluster and a realserver of another share nothing."""
    dr, nat = cluster(), cluster(method="nat", rport=8080)
    served(dr)
    for _ in range(500):
        next(nat._ids)
    for _ in range(100):
        next(nat._ports)
    served(nat)
    director, *_ = dr.tables("director")
    realserver, *_ = nat.tables("rs1")
    found = analyse([director, replace(realserver, index=1, name="other")])
    assert len(found.connections.connections) == 6
    assert found.topology.services[0].method == "dr"
    assert found.topology.services[0].realservers == {dr.address["rs1"], dr.address["rs2"]}


def test_one_capture_given_twice_changes_nothing(cluster, analyse) -> None:
    """A copy of a file under another name joins with itself and nothing else."""
    net = cluster()
    served(net)
    (director,) = net.tables("director")
    found = analyse([director, replace(director, index=1, name="copy")])
    assert len(found.connections.connections) == 4
    assert found.realservers() == [net.address[name] for name in ("rs1", "rs2", "rs1", "rs2")]


def test_frames_captured_twice_change_nothing(cluster, analyse) -> None:
    """A bond's doubles are neither forwarded packets nor other connections."""
    net = cluster(method="nat", rport=8080)
    served(net)
    single = analyse(net.tables("director", "rs1"))
    for recorder in net.recorders.values():
        numbers = range(len(recorder.rows))
        recorder.rows = [row for row in recorder.rows for _ in range(2)]
        recorder.arp = [{**entry, "row": 2 * entry["row"]} for entry in recorder.arp]
        assert len(recorder.rows) == 2 * len(numbers)
    double = analyse(net.tables("director", "rs1"))
    assert double.realservers() == single.realservers()
    assert len(double.connections.legs) == len(single.connections.legs)


def test_a_connection_at_two_realservers_is_ambiguous(cluster, analyse) -> None:
    """Half of it went to rs1, half to rs2: none is chosen, and a note says so."""
    net = cluster()
    served(net)
    client, service = net.ends()
    net.request(net.packet(client, service, tcp_seq=5, tcp_flags=2), "rs1")
    net.reply(net.packet(service, client, tcp_seq=8, tcp_ack=6, tcp_flags=0x12), "rs1")
    net.request(net.packet(client, service, tcp_seq=6, tcp_ack=9, payload_len=10), "rs2")
    net.reply(net.packet(service, client, tcp_seq=9, tcp_ack=16, payload_len=10), "rs2")
    found = analyse(net.tables("director", "rs1", "rs2"))
    last = found.connections.connections.row(4, named=True)
    assert last["ambiguous"]
    assert last["realserver_lo"] is last["realserver_mac"] is last["realserver_name"] is None
    assert any("1 connections" in note for note in found.connections.notes)
    assert found.connections.connections.get_column("ambiguous").sum() == 1


def test_a_rst_for_a_strangers_connection_owns_nothing(cluster, analyse) -> None:
    """After a redirect, packets of rs1's connection reach rs2, which only knows to reset it."""
    net = cluster()
    served(net)
    client, service = net.ends()
    stray = net.packet(client, service, tcp_seq=5, tcp_ack=9, payload_len=10, ttl=62)
    net.seen("rs2", stray, "router", "rs2", "in")
    net.seen("rs2", net.packet(service, client, tcp_seq=9, tcp_flags=4), "rs2", "router", "out")
    found = analyse(net.tables("rs1", "rs2"))
    assert found.realservers().count(None) == 1


def test_a_guessed_originator_at_the_vip_is_turned_round(cluster, analyse) -> None:
    """A probe to a high port of the VIP comes from the client, whatever the ports suggest."""
    net = cluster()
    served(net)
    client, _ = net.ends(port=30000)
    probe = net.packet(client, (net.address["vip"], 60000), tcp_seq=1, tcp_flags=0x10, ttl=62)
    net.seen("director", probe, "router", "director", "in")
    found = analyse(net.tables("director"))
    last = found.connections.connections.row(4, named=True)
    assert last["client_lo"] == net.address["client"][1]
    assert found.connections.legs.get_column("client_is_orig").to_list()[-1] is False


def test_udp_is_joined_across_a_translation_by_its_payload_sum(cluster, analyse) -> None:
    """No sequence numbers: IP ID, length and the checksum less the addresses."""
    net = cluster(method="nat", rport=8080)
    for name in ("rs1", "rs2", "rs1"):
        client, service = net.ends()
        for number in range(2):
            payload = 30 + number
            ask = udp(net.packet(client, service, payload_len=payload), 1000 + number)
            net.request(ask, name)
            net.reply(udp(net.packet(service, client, payload_len=payload), 2000 + number), name)
    for recorder in net.recorders.values():
        recorder.rows = [summed(row) for row in recorder.rows]
    found = analyse(net.tables("director"))
    assert found.methods() == ["nat"]
    assert found.realservers() == [net.address[name] for name in ("rs1", "rs2", "rs1")]


def udp(packet: dict, payload: int) -> dict:
    """Return a TCP packet of the cluster as UDP; `payload` is what its bytes sum to."""
    gone = dict.fromkeys(key for key in packet if key.startswith("tcp_"))
    return packet | gone | {"ip_proto": 17, "ip_id": 0, "transport_checksum": payload}


def summed(row: dict) -> dict:
    """Return a row whose payload sum has become a checksum over addresses and ports."""
    if row.get("ip_proto") != 17:
        return row
    ends = ("src_hi", "src_lo", "src_port", "dst_hi", "dst_lo", "dst_port")
    total = row["transport_checksum"] + sum(row[name] for name in ends)
    return {**row, "transport_checksum": 65535 - total % 65535}


def test_tables_have_the_columns_of_the_dictionary(cluster, analyse) -> None:
    """Names, order and types are schema.py's, whatever was found."""
    net = cluster()
    served(net)
    for names in (("director",), ("client",), ("director", "rs1")):
        found = analyse(net.tables(*names))
        tables = {
            "connections": found.connections.connections,
            "legs": found.connections.legs,
            "error_messages": found.errors.messages,
            "error_sightings": found.errors.sightings,
            "contract": found.contract,
        }
        for name, table in tables.items():
            assert dict(table.schema) == dict(schema.empty(name).schema), name
