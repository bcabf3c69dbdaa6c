"""What a director did with a connection's packets, and when that cannot be said."""

from __future__ import annotations

import struct
from dataclasses import replace

import polars as pl
import pytest

from pcapdiag.addresses import pack_mac
from pcapdiag.case.case import Case
from pcapdiag.flows import passages

SECOND = 1_000_000_000
MACS = {"router": pack_mac("02:00:00:00:00:01"), "director-inside": pack_mac("02:00:00:00:00:03")}
KINDS = [
    {"method": "nat", "rport": 8080},
    {"method": "dr"},
    {"method": "tun"},
]
RESET = 0x04


def served(net) -> None:
    """Let connections be served, so that both realservers are known."""
    net.arp()
    for name in ("rs1", "rs2", "rs1"):
        net.connect(name)


def quiet_end(net) -> None:
    """Let the captures go on for long enough after what matters."""
    net.wait(3 * SECOND)
    net.connect("rs2")


def suspect(net, *vantages: str, port: int = 49000, **tables) -> tuple[Case, int]:
    """Return the case and the connection of one client port."""
    case = Case(tuple(net.tables(*vantages, **tables)))
    rows = case.connections.connections.filter(pl.col("client_port") == port)
    return case, rows.item(0, "connection")


def judged(net, *vantages: str, port: int = 49000, **tables) -> list[tuple[bool, str, str]]:
    """Return (by_client, verdict, reason) of the packets of one client port."""
    case, number = suspect(net, *vantages, port=port, **tables)
    return case.packet_contract([number]).select("by_client", "verdict", "reason").rows()


def data(net, port: int = 49000, **columns) -> dict:
    """Return a data packet of the suspected connection."""
    client, service = net.ends(port)
    numbers = {"tcp_seq": 100, "tcp_ack": 77, "payload_len": 500}
    return net.packet(client, service, **numbers | columns)


@pytest.mark.parametrize("v6", [False, True])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind["method"])
def test_healthy_packets_were_forwarded(cluster, kind, v6) -> None:
    """All that a client sent, and in NAT all that came back through the director."""
    net = cluster(**kind, v6=v6)
    served(net)
    net.connect("rs1", port=49000)
    nat = kind["method"] == "nat"
    for vantages in (("director",), ("director", "rs1", "rs2"), ("router", "director")):
        rows = judged(net, *vantages)
        assert {row[1:] for row in rows} == {("forwarded", "egress")}
        assert [row[0] for row in rows].count(True) == 4
        assert [row[0] for row in rows].count(False) == (3 if nat else 0)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind["method"])
def test_packets_that_do_not_leave_were_swallowed(cluster, kind) -> None:
    """The service is seen leaving, the capture goes on, nothing answers."""
    net = cluster(**kind)
    served(net)
    last = net.connect("rs1", port=49000, rounds=1)
    for number in range(3):
        following = {"tcp_seq": last["tcp_ack"] + 500 * number, "tcp_ack": last["tcp_seq"] + 1000}
        net.request(data(net, **following), "rs1", forwarded=False)
        net.wait(200_000_000)
    quiet_end(net)
    rows = judged(net, "director")
    assert [row[1:] for row in rows if row[0]][3:] == [("swallowed", "no-egress")] * 3


def test_nothing_of_a_connection_that_leaves_is_a_reason_of_its_own(cluster) -> None:
    """No packet of it was ever handed on: there may never have been an entry."""
    net = cluster()
    served(net)
    net.request(data(net), "rs1", forwarded=False)
    quiet_end(net)
    assert judged(net, "director") == [(True, "swallowed", "none-left")]


def test_absence_needs_a_capture_that_would_have_shown_it(cluster) -> None:
    """Not where it ends at once, dropped frames, or shows no egress of the service."""
    net = cluster(method="nat", rport=8080)
    served(net)
    net.request(data(net), "rs1", forwarded=False)
    assert judged(net, "director") == [(True, "unknown", "capture-ends-too-early")]
    quiet_end(net)
    rows = judged(net, "director", dropped=3)
    assert rows == [(True, "unknown", "capture-dropped-packets")]
    recorder = net.recorders["director"]
    recorder.without({n for n, row in enumerate(recorder.rows) if row["interface"] == 1})
    rows = judged(net, "director", "rs1", "rs2")
    assert rows == [(True, "unknown", "egress-not-captured")]


@pytest.mark.parametrize("pause", [0, 100])
def test_nothing_is_missed_in_a_gap_between_files(cluster, pause) -> None:
    """The file that holds the request ends right behind it, and the next begins late or at once."""
    net = cluster()
    served(net)
    net.request(data(net), "rs1", forwarded=False)
    middle = net.time_ns
    quiet_end(net)
    (tables,) = net.tables("director")
    (info,) = tables.captures
    files = (
        replace(info, last_ns=middle, packets=1000),
        replace(info, first_ns=middle + pause * 1_000_000, packets=100_000),
    )
    packets = tables.packets.with_columns(
        (pl.col("time_ns") > middle).cast(pl.UInt16).alias("capture")
    )
    passed = passages.find(packets, tables.tunnels)
    told = replace(tables, captures=files, capture_ids=(0, 1), packets=packets, passages=passed)
    case = Case((told,))
    row = case.connections.connections.filter(pl.col("client_port") == 49000).item(0, "connection")
    expected = "capture-ends-too-early" if pause else "none-left"
    assert case.packet_contract([row])["reason"].to_list() == [expected]


def test_a_filter_that_hides_a_realserver_is_not_the_directors_fault(cluster, mac) -> None:
    """Captured with "host CLIENT or host RS1": what goes to rs2 leaves unseen, and is answered."""
    net = cluster(method="nat", rport=8080)
    served(net)
    net.request(data(net), "rs2", forwarded=False)
    quiet_end(net)
    assert judged(net, "director") == [(True, "swallowed", "none-left")]
    recorder = net.recorders["director"]
    rs2 = mac["rs2"]
    recorder.without(
        {n for n, row in enumerate(recorder.rows) if rs2 in (row["eth_src"], row["eth_dst"])}
    )
    assert judged(net, "director") == [(True, "unknown", "egress-not-captured")]


def test_a_packet_in_the_wrong_realservers_hands_is_told(cluster) -> None:
    """DR: the MAC is another realserver's; where MACs are not known its capture shows it."""
    net = cluster()
    served(net)
    net.connect("rs1", port=49000)
    net.request(data(net), "rs2")
    net.wait(2 * SECOND)
    net.connect("rs2")
    case, number = suspect(net, "director")
    owner = case.connections.connections.row(number, named=True)
    assert owner["ambiguous"], "sent to both: nobody owns it, and nothing is called wrong"
    assert set(case.packet_contract([number])["verdict"]) == {"forwarded"}


def test_an_untranslated_packet_is_a_wrong_translation(cluster) -> None:
    """NAT: it left as it had come, for the VIP."""
    net = cluster(method="nat", one_arm=True)
    served(net)
    net.connect("rs1", port=49000)
    near = {**data(net), "ttl": 62}
    net.seen("director", near, "router", "director", "in")
    net.wait()
    net.seen("director", {**near, "ttl": 61}, "director", "rs1", "out")
    quiet_end(net)
    rows = judged(net, "director")
    assert rows[-1] == (True, "wrong-translation", "destination-not-translated")


def checksum(packet: dict, *, partial: bool = False) -> int:
    """Return the TCP checksum of a packet without options whose payload is all zero (RFC 9293)."""
    source, target = (
        (packet[f"{side}_lo"] & 0xFFFFFFFF).to_bytes(4, "big") for side in ("src", "dst")
    )
    length = packet["ip_len"] - 20
    pseudo = source + target + struct.pack("!HH", 6, length)
    header = struct.pack(
        "!HHIIHHHH",
        packet["src_port"],
        packet["dst_port"],
        packet["tcp_seq"],
        packet["tcp_ack"],
        8 << 12 | packet["tcp_flags"],
        0,
        0,
        0,
    )
    words = pseudo if partial else pseudo + header
    total = sum(struct.unpack(f"!{len(words) // 2}H", words))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total if partial else total ^ 0xFFFF


def summed(net, spoilt: frozenset[int], *, partial: bool = False) -> None:
    """Give all TCP packets at the director their checksums, right but for some that leave."""
    leaving = 0
    for row in net.recorders["director"].rows:
        if row.get("ip_proto") != 6:
            continue
        row["ip_header_len"] = 20
        out = row["eth_src"] != MACS["router"] and row["eth_dst"] != MACS["director-inside"]
        offloaded = partial and out and row["src_port"] == 49000
        row["transport_checksum"] = checksum(row, partial=offloaded)
        if out and row["src_port"] == 49000 and row["payload_len"]:
            row["transport_checksum"] ^= 0x0400 * (leaving in spoilt)
            leaving += 1


@pytest.mark.parametrize(
    ("spoilt", "partial", "reasons"),
    [
        ([], False, ["egress"] * 3),
        ([1], False, ["egress", "checksum-broken", "egress"]),
        ([0, 1, 2], False, ["checksum-broken"] * 3),
        ([], True, ["egress"] * 3),
    ],
)
def test_a_checksum_must_come_through_the_translation(cluster, spoilt, partial, reasons) -> None:
    """It follows from the old one and what NAT rewrote; what a card is to sum says nothing."""
    net = cluster(method="nat", rport=8080)
    served(net)
    net.connect("rs1", port=49000, rounds=3)
    net.connect("rs1", port=49001, rounds=3)
    summed(net, frozenset(spoilt), partial=partial)
    case, number = suspect(net, "director")
    _, other = suspect(net, "director", port=49001)
    table = case.packet_contract([number, other]).filter(pl.col("connection") == number)
    asked = table.filter("by_client")[2:]
    assert asked["reason"].to_list() == reasons
    wrong = asked.filter(pl.col("reason") == "checksum-broken")
    assert set(wrong["verdict"]) <= {"wrong-translation"}
    assert set(table.filter(~pl.col("by_client"))["reason"]) == {"egress"}


def test_checksums_that_nearly_all_differ_are_the_cards(cluster) -> None:
    """A director with which nothing works is less likely than a card that sums otherwise."""
    net = cluster(method="nat", rport=8080)
    served(net)
    net.connect("rs1", port=49000, rounds=9)
    summed(net, frozenset(range(9)))
    for row in net.recorders["director"].rows:
        if row.get("src_port") == 8080 or row.get("payload_len") == 0:
            row["transport_checksum"] = 0
    case, number = suspect(net, "director")
    assert set(case.packet_contract([number])["reason"]) == {"egress"}


def test_a_reply_that_nobody_translated_is_told(cluster) -> None:
    """One-arm NAT: the director passed the realserver's packet on with the realserver's address."""
    net = cluster(method="nat", one_arm=True)
    served(net)
    last = net.connect("rs1", port=49000)
    rip = net.address["rs1"]
    reply = {**last, "src_hi": rip[0], "src_lo": rip[1], "src_port": 80, "ip_id": 7}
    reply |= {"tcp_seq": last["tcp_seq"] + 1000}
    net.seen("director", reply, "rs1", "director", "in")
    net.wait()
    net.seen("director", {**reply, "ttl": 63}, "director", "router", "out")
    quiet_end(net)
    assert judged(net, "director")[-1] == (False, "wrong-translation", "source-not-translated")


def test_the_directors_own_reset_is_an_answer(cluster) -> None:
    """A packet of a forgotten connection: RST from the VIP, its number the client's ACK."""
    for v6 in (False, True):
        net = cluster(v6=v6)
        served(net)
        net.connect("rs1", port=49000, rounds=1)
        net.wait(SECOND)
        lost = data(net)
        net.request(lost, "rs1", forwarded=False)
        net.wait()
        client, service = net.ends(49000)
        reset = net.packet(
            service, client, tcp_seq=lost["tcp_ack"], tcp_flags=RESET, ip_id=None if v6 else 0
        )
        net.seen("director", reset, "director", "router", "out")
        quiet_end(net)
        case, number = suspect(net, "director", "rs1")
        (row,) = case.packet_contract([number]).filter(pl.col("verdict") != "forwarded").to_dicts()
        assert (row["verdict"], row["reason"]) == ("answered", "reset")
        answer = case.vantages[row["out_vantage"]].packets.row(row["out_row"], named=True)
        assert answer["tcp_flags"] == RESET


def test_another_packets_reset_answers_nothing(cluster) -> None:
    """A RST whose numbers fit no packet of the client is none of its answers."""
    net = cluster()
    served(net)
    net.connect("rs1", port=49000, rounds=0)
    net.request(data(net), "rs1", forwarded=False)
    net.wait()
    client, service = net.ends(49000)
    stray = net.packet(service, client, tcp_seq=4_000_000, tcp_flags=RESET, ip_id=0)
    net.seen("director", stray, "director", "router", "out")
    quiet_end(net)
    assert judged(net, "director")[-1] == (True, "swallowed", "no-egress")


def test_the_directors_own_icmp_error_is_an_answer(cluster) -> None:
    """Too big for the tunnel: fragmentation needed from the VIP, about the packet that came."""
    net = cluster(method="tun")
    served(net)
    net.connect("rs1", port=49000, rounds=0)
    large = data(net)
    net.request(large, "rs1", forwarded=False)
    net.wait()
    message = net.too_big(large, src_hi=large["dst_hi"], src_lo=large["dst_lo"])
    message |= {"dst_hi": large["src_hi"], "dst_lo": large["src_lo"]}
    net.seen("director", message, "director", "router", "out")
    quiet_end(net)
    assert judged(net, "director")[-1] == (True, "answered", "icmp-error")


def test_an_expired_ttl_is_not_the_services_fault(cluster) -> None:
    """A traceroute's probe ends at the director, answered or not."""
    net = cluster()
    served(net)
    net.connect("rs1", port=49000, rounds=0)
    net.seen("director", {**data(net), "ttl": 1}, "router", "director", "in")
    quiet_end(net)
    assert judged(net, "director")[-1] == (True, "local", "ttl-spent")


def test_a_packet_for_another_hosts_mac_is_not_the_directors(cluster) -> None:
    """A promiscuous capture shows what the switch flooded."""
    net = cluster()
    served(net)
    net.connect("rs1", port=49000, rounds=0)
    net.seen("director", {**data(net), "ttl": 62}, "router", "rs2", "other")
    quiet_end(net)
    assert judged(net, "director")[-1] == (True, "unknown", "other-hosts-mac")


def test_a_director_seen_at_two_vantages_forwards_between_them(cluster) -> None:
    """What comes in at one interface's capture leaves at the other's."""
    net = cluster(method="nat", rport=8080)
    served(net)
    net.connect("rs1", port=49000)
    whole = net.recorders["director"]
    inside = type(whole)()
    import copy

    net.recorders["director-outside"] = copy.deepcopy(whole)
    net.recorders["director-within"] = inside = copy.deepcopy(whole)
    for recorder, interface in ((net.recorders["director-outside"], 0), (inside, 1)):
        recorder.without(
            {n for n, row in enumerate(recorder.rows) if row["interface"] != interface}
        )
    tables = net.tables("director-outside", "director-within")
    case = Case(tuple(replace(item, role_given="director") for item in tables))
    rows = case.connections.connections.filter(pl.col("client_port") == 49000)
    found = case.packet_contract(rows["connection"].to_list())
    assert set(found["verdict"]) == {"forwarded"}
    assert found.filter("by_client").height == 4
    assert set(found.filter("by_client").select("vantage", "out_vantage").rows()) == {(0, 1)}


def test_an_incomplete_datagram_is_not_swallowed(cluster) -> None:
    """IPVS waits for all fragments; what never came whole was never owed."""
    net = cluster()
    served(net)
    for complete in (True, False):
        client, service = net.ends(49000, 5060)
        first = net.packet(client, service, ip_proto=17, payload_len=1472, mf=True, frag_offset=0)
        first |= {"tcp_flags": None, "tcp_seq": None, "tcp_ack": None, "tcp_tsval": None}
        first |= {"tcp_tsecr": None, "ip_len": 1500, "ip_header_len": 20}
        rest = {**first, "src_port": None, "dst_port": None, "mf": False, "frag_offset": 1480}
        rest |= {"ip_len": 120, "payload_len": None}
        net.request(first, "rs1", forwarded=complete)
        if complete:
            net.request(rest, "rs1")
        net.wait(50_000_000)
    quiet_end(net)
    rows = judged(net, "director")
    assert rows == [
        (True, "forwarded", "egress"),
        (True, "forwarded", "egress"),
        (True, "unknown", "datagram-incomplete"),
    ]


def test_services_without_a_method_are_owed_nothing(cluster) -> None:
    """A plain server's captures name no director that could have failed."""
    net = cluster()
    net.connect_plain("rs1")
    case = Case(tuple(net.tables("rs1", labels=False)))
    numbers = case.connections.connections.get_column("connection").to_list()
    assert case.packet_contract(numbers).is_empty()
