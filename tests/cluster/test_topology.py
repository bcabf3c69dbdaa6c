"""Roles, hosts and services of small clusters, from every set of captures that knows them."""

from __future__ import annotations

import pytest
from stories import case

from pcapdiag import schema
from pcapdiag.addresses import mac_text, pack_ip, pack_mac
from pcapdiag.site import parse

CLUSTERS = [
    {"method": "dr"},
    {"method": "dr", "v6": True},
    {"method": "dr", "ttl_counts": False},
    {"method": "nat", "rport": 8080},
    {"method": "nat", "rport": 8080, "v6": True},
    {"method": "nat", "one_arm": True},
    {"method": "nat", "one_arm": True, "ttl_counts": False},
    {"method": "tun", "encapsulation": "ipip"},
    {"method": "tun", "encapsulation": "gre"},
    {"method": "tun", "encapsulation": "gue"},
    {"method": "tun", "encapsulation": "ipip", "v6": True},
]


def busy(net) -> None:
    """Let the cluster serve three connections side by side and be checked by its director."""
    net.arp()
    net.connect("rs1")
    net.connect("rs2")
    net.connect("rs1")
    net.health_check("rs1")
    net.health_check("rs2")
    net.connect("rs2")


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("kind", CLUSTERS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_a_director_alone_shows_service_method_and_realservers(
    cluster, analyse, kind, labels
) -> None:
    """One capture at the director is enough, whatever the method, with and without a label."""
    net = cluster(**kind)
    busy(net)
    found = analyse(net.tables("director", labels=labels))
    (service,) = found.topology.services
    assert service.method == kind["method"]
    assert service.vip == net.address["vip"]
    assert service.realservers == {net.address["rs1"], net.address["rs2"]}
    assert service.encapsulation == kind.get("encapsulation")
    assert found.roles() == ["director/given" if labels else "director/inferred"]
    assert found.realservers() == [net.address[name] for name in ("rs1", "rs2", "rs1", "rs2")]


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("kind", CLUSTERS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_an_any_capture_has_no_destination_macs(cluster, analyse, kind, labels) -> None:
    """`-i any` at the director tells the method by direction; in DR it cannot tell realservers."""
    net = cluster(**kind)
    net.recorders["director"].any_interface = True
    busy(net)
    found = analyse(net.tables("director", labels=labels))
    (service,) = found.topology.services
    assert service.method == kind["method"]
    assert found.topology.roles[0].role == "director"
    if kind["method"] == "dr":
        assert found.realservers() == [None] * 4
    else:
        assert found.realservers() == [net.address[name] for name in ("rs1", "rs2", "rs1", "rs2")]


@pytest.mark.parametrize("kind", CLUSTERS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_directors_and_realservers_join(cluster, analyse, kind) -> None:
    """With labels, connections carry the realservers' names and health checks are none."""
    net = cluster(**kind)
    busy(net)
    found = analyse(net.tables("director", "rs1", "rs2"))
    names = found.connections.connections.get_column("realserver_name").to_list()
    assert names == ["rs1", "rs2", "rs1", "rs2"]
    per_connection = found.connections.legs.group_by("connection").len().get_column("len")
    assert set(per_connection.to_list()) == {3 if kind["method"] == "nat" else 2}


@pytest.mark.parametrize("kind", CLUSTERS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_realservers_alone_name_themselves(cluster, analyse, kind) -> None:
    """Two labelled realserver captures give each connection its realserver; NAT stays unseen."""
    net = cluster(**kind)
    busy(net)
    found = analyse(net.tables("rs1", "rs2"))
    names = found.connections.connections.get_column("realserver_name").to_list()
    assert sorted(names) == ["rs1", "rs1", "rs2", "rs2"]
    expected = None if kind["method"] == "nat" else kind["method"]
    assert set(found.methods()) == {expected}


def test_one_unlabelled_realserver_is_not_called_one(cluster, analyse) -> None:
    """A host that answers for an address that is not its own may be a plain server."""
    net = cluster()
    busy(net)
    found = analyse(net.tables("rs1", labels=False))
    assert found.roles() == ["unknown/unknown"]
    assert set(found.methods()) == {None}
    assert not [host for host in found.topology.hosts if host.role == "director"]
    assert set(found.realservers()) == {net.address["rs1"]}


def test_one_labelled_realserver_of_dr_knows_its_director(cluster, analyse, mac) -> None:
    """Its label, an address that is not its own and answers that go another way: LVS-DR."""
    net = cluster()
    busy(net)
    found = analyse(net.tables("rs1"))
    assert found.methods() == ["dr"]
    assert found.topology.mac_role(mac["director"]) == "director"
    assert found.topology.mac_role(mac["rs1"]) == "realserver"
    assert found.topology.mac_role(mac["router"]) == "router"


def test_a_router_sees_who_answers_but_not_the_method(cluster, analyse, mac) -> None:
    """Requests to one MAC, answers from others: DR or TUN, and a router cannot see which."""
    net = cluster()
    busy(net)
    found = analyse(net.tables("router", labels=False))
    assert found.roles() == ["router/inferred"]
    assert set(found.methods()) == {None}
    assert found.topology.mac_role(mac["director"]) == "director"
    assert found.topology.mac_role(mac["rs2"]) == "realserver"
    assert set(found.realservers()) == {None}
    macs = found.connections.connections.get_column("realserver_mac").to_list()
    assert macs == [mac["rs1"], mac["rs2"], mac["rs1"], mac["rs2"]]


def test_plain_client_server_traffic_has_no_director(cluster, analyse) -> None:
    """A server with its own address is a service of unknown method at most."""
    net = cluster(method="none")
    for _ in range(3):
        net.connect_plain("rs1")
    for name in ("rs1", "router"):
        for labels in (True, False):
            found = analyse(net.tables(name, labels=labels))
            assert set(found.methods()) <= {None}
            assert not [host for host in found.topology.hosts if host.role == "director"]
            assert found.contract.is_empty()


def test_a_router_is_no_director(cluster, analyse) -> None:
    """It forwards both ways, and asks for the address that a director would own."""
    net = cluster(method="none")
    for _ in range(3):
        net.connect_plain("rs1", through="director")
    for labels in (True, False):
        found = analyse(net.tables("director", labels=labels))
        assert set(found.methods()) <= {None}
        assert not found.topology.observed.forwarded.is_empty()


def test_a_single_realserver_without_arp_is_not_guessed(cluster, analyse) -> None:
    """Packets that leave one way to one MAC may be routed; a label settles it."""
    net = cluster()
    for _ in range(3):
        net.connect("rs1")
    silent = analyse(net.tables("director", labels=False))
    assert set(silent.methods()) == {None}
    assert silent.roles() == ["unknown/unknown"]
    assert any("a label" in note for note in silent.topology.notes)
    said = analyse(net.tables("director"))
    assert said.methods() == ["dr"]


def test_a_next_hop_that_changes_is_no_spread(cluster, analyse) -> None:
    """All connections moving from one MAC to another are a router's failover, not a director."""
    net = cluster()
    for name in ("rs1", "rs1", "rs2", "rs2"):
        net.connect(name)
    assert set(analyse(net.tables("director", labels=False)).methods()) == {None}


def test_swapped_labels_are_refuted(cluster, analyse) -> None:
    """What packets prove outweighs labels: both roles become unknown, and a note cites frames."""
    net = cluster()
    busy(net)
    director, realserver = net.tables("director", "rs1")
    wrong = [relabelled(realserver, "director", 0), relabelled(director, "realserver", 1)]
    found = analyse(wrong)
    assert found.roles() == ["unknown/refuted", "unknown/refuted"]
    assert sum("frame" in note for note in found.topology.notes) == 2
    assert found.contract.is_empty()


def test_a_router_labelled_director_is_refuted_by_arp(cluster, analyse) -> None:
    """Whoever asks for the VIP does not own it."""
    net = cluster()
    busy(net)
    router, realserver = net.tables("router", "rs1")
    found = analyse([relabelled(router, "director", 0), relabelled(realserver, "realserver", 1)])
    assert found.roles()[0] == "unknown/refuted"
    assert "asks who has 203.0.113.10" in found.topology.roles[0].reason


def relabelled(tables, role: str, index: int):
    """Return the tables of a vantage under another label."""
    from dataclasses import replace

    return replace(tables, index=index, name=role, role_given=role)


def test_hosts_are_told_apart_by_mac_where_they_share_the_vip(cluster, analyse, mac) -> None:
    """Director and realservers have the VIP in DR: it names none of them, their MACs do."""
    net = cluster()
    busy(net)
    topology = analyse(net.tables("director", "rs1", "rs2")).topology
    assert topology.host_of_address(net.address["vip"]) is None
    assert topology.host_of_address(net.address["rs1"]).name == "rs1"
    assert topology.host_of_mac(mac["director"]).name == "director"
    assert topology.host_of_mac(mac["rs2"]).name == "rs2"
    assert topology.host_of_mac(pack_mac("02:00:00:00:00:77")) is None


def test_in_nat_the_vip_is_the_directors(cluster, analyse, mac) -> None:
    """Nobody else has it, so the address names the host; both its MACs are known."""
    net = cluster(method="nat", rport=8080)
    busy(net)
    topology = analyse(net.tables("director", "rs1")).topology
    director = topology.host_of_address(net.address["vip"])
    assert director.name == "director"
    assert director.macs == {mac["director"], mac["director-inside"]}, mac_text(min(director.macs))


def test_site_toml_names_what_traffic_cannot_show(cluster, analyse) -> None:
    """A method, realservers and host names come from the site where nothing contradicts them."""
    net = cluster()
    for _ in range(3):
        net.connect("rs1")
    site = parse(
        '[[service]]\nvip = "203.0.113.10"\nport = 80\nmethod = "dr"\n'
        'realservers = ["203.0.113.11"]\n'
        '[host.web1]\nrole = "realserver"\naddresses = ["203.0.113.11"]\n'
        'macs = ["02:00:00:00:00:11"]'
    )
    found = analyse(net.tables("director", labels=False), site)
    assert found.methods() == ["dr"]
    assert set(found.realservers()) == {pack_ip("203.0.113.11")}
    assert set(found.connections.connections.get_column("realserver_name")) == {"web1"}


def test_site_toml_does_not_outweigh_packets(cluster, analyse) -> None:
    """A site that says NAT where packets are handed on unchanged is noted and not believed."""
    net = cluster()
    busy(net)
    site = parse('[[service]]\nvip = "203.0.113.10"\nport = 80\nmethod = "nat"')
    found = analyse(net.tables("director"), site)
    assert found.methods() == ["dr"]
    assert any("seen as dr and as nat" in note for note in found.topology.notes)


def test_a_firewall_mark_is_given_to_the_services_of_its_realservers(cluster, analyse) -> None:
    """The mark itself is on no wire; its realservers are."""
    net = cluster()
    busy(net)
    site = parse(
        '[[service]]\nfwmark = 7\nmethod = "dr"\nrealservers = ["203.0.113.11", "203.0.113.12"]'
    )
    (service,) = analyse(net.tables("director"), site).topology.services
    assert (service.method, service.fwmark) == ("dr", 7)


def test_vrrp_says_who_owns_the_vip(cluster, analyse, mac) -> None:
    """A master that announces the VIP is its owner, so that one realserver is enough to tell DR."""
    net = cluster()
    for _ in range(3):
        net.connect("rs1")
    net.announce("director")
    found = analyse(net.tables("director", labels=False))
    assert found.methods() == ["dr"]
    assert found.topology.mac_role(mac["director"]) == "director"


@pytest.mark.parametrize("announced", [False, True])
def test_a_gratuitous_arp_hints_at_the_director(cluster, analyse, mac, announced) -> None:
    """As keepalived sends it on becoming master: a request of its own for its own address."""
    net = cluster()
    for _ in range(3):
        net.connect("rs1")
    if announced:
        recorder = net.recorders["director"]
        row = net._arp_row(recorder, "director", "vip", "director", answer=False)
        vip = {f"sender_{part}": row[f"target_{part}"] for part in ("hi", "lo")}
        recorder.arp.append({**row, **vip, "gratuitous": True})
    found = analyse(net.tables("director", labels=False))
    assert found.methods() == (["dr"] if announced else [None])
    assert (found.topology.mac_role(mac["director"]) == "director") is announced


def test_synchronisation_messages_name_services(cluster, analyse) -> None:
    """The director's own table, sent to its backup, is believed at once."""
    net = cluster()
    for _ in range(2):
        net.connect("rs1")
    net.synchronise("rs1")
    found = analyse(net.tables("director", labels=False))
    (service,) = found.topology.services
    assert (service.method, service.realservers) == ("dr", {net.address["rs1"]})


def test_health_checks_are_not_client_connections(cluster, analyse) -> None:
    """Neither at the director nor at the realserver that gets them."""
    net = cluster()
    net.arp()
    net.connect("rs1")
    net.connect("rs2")
    net.connect("rs1")
    net.health_check("rs1")
    for names in (("director",), ("director", "rs1"), ("rs1", "rs2")):
        found = analyse(net.tables(*names))
        clients = set(found.connections.connections.get_column("client_lo").to_list())
        assert clients == {net.address["client"][1]}, names
        assert len(found.topology.services) == 1


def test_edges_name_hosts_and_count_a_hop_once(cluster, analyse) -> None:
    """The director's and the realserver's sight of one hop are one arrow's packets."""
    net = cluster()
    busy(net)
    alone = {item[:3]: item[3] for item in edge_rows(analyse(net.tables("director")))}
    both = {item[:3]: item[3] for item in edge_rows(analyse(net.tables("director", "rs1", "rs2")))}
    assert both["director", "rs1", "forwarded"] == alone["director", "203.0.113.11", "forwarded"]
    assert both["rs1", "203.0.113.1", "answers"] > 0


def edge_rows(found) -> list[tuple[str, str, str, int]]:
    """Return the figure's arrows as tuples."""
    return [(edge.source, edge.target, edge.label, edge.packets) for edge in found.topology.edges()]


def test_an_empty_capture_is_no_trouble(cluster, analyse) -> None:
    """Nothing captured at all: no role but the label's, no service, no connection."""
    net = cluster()
    found = analyse(net.tables("director", "rs1"))
    assert found.topology.services == ()
    assert found.connections.connections.schema == schema.empty("connections").schema
    assert found.connections.connections.is_empty()
    assert found.clocks.offset_ns[0] == 0


def test_who_forwards_answers_too_is_not_proven_a_director(cluster, analyse) -> None:
    """Requests spread over two MACs, but answers come back through it: a router may do that."""
    net = cluster()
    for name in ("rs1", "rs2", "rs1", "rs2"):
        answer = net.connect(name)
        net.seen("director", {**answer, "ttl": 64}, name, "director", "in")
        net.wait()
        net.seen("director", {**answer, "ttl": 63}, "director", "router", "out")
    assert set(analyse(net.tables("director", labels=False)).methods()) == {None}


def test_who_asks_for_the_address_is_a_router(cluster, analyse) -> None:
    """It forwards one way to two MACs side by side, but it asked who has the address."""
    net = cluster()
    for name in ("rs1", "rs2", "rs1", "rs2"):
        net.connect(name)
    assert analyse(net.tables("director", labels=False)).methods() == ["dr"]
    for owner in ("rs1", "rs2"):
        for answer in (False, True):
            recorder = net.recorders["director"]
            entry = net._arp_row(recorder, "director", "vip", owner, answer)
            recorder.arp.append(entry)
    assert set(analyse(net.tables("director", labels=False)).methods()) == {None}
    recorder.arp = [entry for entry in recorder.arp if entry["op"] == "request"]
    assert set(analyse(net.tables("director", labels=False)).methods()) == {None}


def test_a_tunnel_that_moves_is_no_director(cluster, analyse) -> None:
    """All connections go to one tunnel end, then all to the other: a gateway failed over."""
    net = cluster(method="tun", encapsulation="gre")
    for name in ("rs1", "rs1", "rs2", "rs2"):
        net.connect(name)
    assert set(analyse(net.tables("director", labels=False)).methods()) == {None}
    net.connect("rs1")
    assert set(analyse(net.tables("director", labels=False)).methods()) == {"tun"}


def test_every_inference_says_how_sure_it_is(cluster, analyse) -> None:
    """High where packets prove it, medium where only a label says so, low where nothing does."""
    net = cluster()
    net.arp()
    for name in ("rs1", "rs2", "rs1"):
        net.connect(name)
    found = analyse(net.tables("director", labels=False)).topology
    assert [service.confidence for service in found.services] == ["high"]
    assert [role.confidence for role in found.roles] == ["high"]
    quiet = cluster()
    for _ in range(3):
        quiet.connect("rs1")
    said = analyse(quiet.tables("director")).topology
    assert [service.confidence for service in said.services] == ["medium"]
    assert [role.confidence for role in said.roles] == ["medium"]
    silent = analyse(quiet.tables("director", labels=False)).topology
    assert [service.confidence for service in silent.services] == ["low"]
    assert [role.confidence for role in silent.roles] == ["low"]


def test_swapped_labels_of_nat_and_tun_are_refuted_with_frames(cluster, analyse) -> None:
    """A "realserver" that translates or wraps packets is none, and the note shows it doing so."""
    for kind in ({"method": "nat", "rport": 8080}, {"method": "tun"}):
        net = cluster(**kind)
        net.arp()
        for name in ("rs1", "rs2", "rs1"):
            net.connect(name)
        net.recorders["director"], net.recorders["rs1"] = (
            net.recorders["rs1"],
            net.recorders["director"],
        )
        found = analyse(net.tables("director", "rs1", "rs2"))
        assert found.roles()[1] == "unknown/refuted"
        (note,) = [note for note in found.topology.notes if note.startswith("rs1")]
        frames = [int(word) for word in note.split("(frame ")[1].rstrip(")").split(", ")]
        assert len(frames) == 2
        rows = [found.coverage.vantages[1].packets.row(each - 1, named=True) for each in frames]
        assert rows[0]["ip_id"] == rows[1]["ip_id"]
        changed = ("dst_lo", "src_lo", "tunnel_depth")
        assert any(rows[0][name] != rows[1][name] for name in changed)
        assert found.contract.is_empty()


def test_a_link_between_two_routers_was_captured_at_a_router() -> None:
    """Which of the two MACs is the capturing host's is not known, and does not matter."""
    director = """
    0.000 c>s S seq=0 mss=1460 ttl=61 mac=x>d
    0.0001 copy 1 ttl=60 mac=d>rs
    0.002 c>s A seq=1 ack=1 ttl=61 mac=x>d
    0.0021 copy 3 ttl=60 mac=d>rs
    0.003 c2>s S seq=0 mss=1460 ttl=61 mac=x>d
    0.0031 copy 5 ttl=60 mac=d>rs2
    """
    wan = """
    0.000 c>s S seq=0 mss=1460 ttl=62 mac=r>c2
    0.001 s>c SA seq=0 ack=1 mss=1460 ttl=63 mac=c2>r
    0.002 c>s A seq=1 ack=1 ttl=62 mac=r>c2
    """
    found = case(director=director, place=wan).topology.roles
    assert [(item.role, item.source) for item in found] == [
        ("director", "given"),
        ("router", "inferred"),
    ]


def test_a_label_that_neither_end_of_a_link_can_have_is_refuted(cluster, analyse) -> None:
    """A "realserver" whose frames all run between the router and the director of NAT is none."""
    net = cluster(method="nat", rport=8080)
    net.arp()
    for name in ("rs1", "rs2", "rs1"):
        net.connect(name)
    outside = net.recorders["director"]
    vips = {net.address["vip"][1]}
    outside.without(
        {
            n
            for n, row in enumerate(outside.rows)
            if not {row.get("src_lo"), row.get("dst_lo")} & vips
        }
    )
    net.recorders["director"], net.recorders["rs2"] = net.recorders["rs2"], outside
    found = analyse(net.tables("rs1", "rs2"))
    assert found.roles() == ["realserver/given", "unknown/refuted"]
    assert any("between a director and a router" in note for note in found.topology.notes)
    found = analyse(net.tables("rs1", "rs2", "router"))
    assert found.roles() == ["realserver/given", "unknown/refuted", "router/given"]
    assert any("its packets show a director" in note for note in found.topology.notes)


def test_a_client_s_link_is_a_client_s_capture_at_either_end() -> None:
    """What arrives there arrives at the client; a director at the other end is none, though."""
    director = """
    0.000 c>s S seq=0 mss=1460 ttl=61 mac=x>d
    0.0001 copy 1 ttl=60 mac=d>rs
    0.002 c>s A seq=1 ack=1 ttl=61 mac=x>d
    0.0021 copy 3 ttl=60 mac=d>rs
    """
    link = """
    0.000 c>s S seq=0 mss=1460 ttl=64 mac=c>{other}
    0.001 s>c SA seq=0 ack=1 mss=1460 ttl=62 mac={other}>c
    0.002 c>s A seq=1 ack=1 ttl=64 mac=c>{other}
    """
    near = case(director=director, place=link.format(other="r")).topology.roles
    assert (near[1].role, near[1].source) == ("client", "inferred")
    member = case(director=director, place=link.format(other="d")).topology.roles
    assert member[1].role != "client"


def test_a_mac_that_frames_prove_is_not_another_capture_s_by_its_label(cluster, analyse) -> None:
    """Where the labels of director and realserver are swapped, "director" names nobody's MAC."""
    net = cluster(method="nat", rport=8080)
    for name in ("rs1", "rs2", "rs1"):
        net.connect(name)
    net.recorders["director"], net.recorders["rs1"] = (
        net.recorders["rs1"],
        net.recorders["director"],
    )
    found = analyse(net.tables("director", "rs1", "rs2")).topology
    proven = found.observed.macs.own[1]
    assert proven
    assert not [host for host in found.hosts if host.name == "director" and host.macs & proven]


def test_who_owns_the_end_of_the_director_s_tunnel_is_a_realserver(cluster, analyse, mac) -> None:
    """It answers ARP for that address and never anything else: it may not unwrap at all."""
    net = cluster(method="tun")
    net.connect("rs1")
    client, service = net.ends()
    for number in range(3):
        net.wait(1_000_000_000)
        net.request(net.packet(client, service, tcp_seq=number, tcp_flags=2), "rs2")
    net.arp()
    found = analyse(net.tables("director", labels=False)).topology
    assert found.mac_role(mac["rs2"]) == "realserver"
