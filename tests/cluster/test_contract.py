"""What directors did with ICMP errors, and when absence is called swallowing and when not."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

SECOND = 1_000_000_000

CLUSTERS = [
    {"method": "dr"},
    {"method": "dr", "v6": True},
    {"method": "dr", "ttl_counts": False},
    {"method": "nat", "rport": 8080},
    {"method": "nat", "rport": 8080, "v6": True},
    {"method": "nat", "one_arm": True},
    {"method": "tun", "encapsulation": "ipip"},
    {"method": "tun", "encapsulation": "gre"},
    {"method": "tun", "encapsulation": "gue"},
]
each_cluster = pytest.mark.parametrize(
    "kind", CLUSTERS, ids=lambda kind: "-".join(map(str, kind.values()))
)


def served(net) -> tuple[dict, dict]:
    """Let two connections be served, and return the last packet of each realserver."""
    net.arp()
    first, second = net.connect("rs1"), net.connect("rs2")
    net.connect("rs1")
    return first, second


def goes_on(net) -> None:
    """Let the capture go on long enough, with traffic at its end."""
    net.wait(3 * SECOND)
    net.connect("rs2")


@each_cluster
def test_a_relayed_error_is_forwarded(cluster, analyse, kind) -> None:
    """As it came in DR and TUN, translated outside and in the quote in NAT."""
    net = cluster(**kind)
    first, second = served(net)
    net.error(net.too_big(first), "rs1")
    net.error(net.too_big(second), "rs2")
    goes_on(net)
    for names in (("director",), ("director", "rs1", "rs2"), ("director", "rs2")):
        found = analyse(net.tables(*names))
        assert found.verdicts() == [("forwarded", "egress")] * 2, names
        assert found.contract.get_column("out_row").null_count() == 0


@each_cluster
def test_an_error_that_never_left_is_swallowed(cluster, analyse, kind) -> None:
    """Where the service is seen leaving, the capture goes on and drops nothing."""
    net = cluster(**kind)
    first, _ = served(net)
    net.error(net.too_big(first), None)
    goes_on(net)
    for labels in (True, False):
        found = analyse(net.tables("director", labels=labels))
        assert found.verdicts() == [("swallowed", "no-egress")]
        assert found.contract.get_column("out_row").to_list() == [None]


def test_the_last_second_of_a_capture_proves_nothing(cluster, analyse) -> None:
    """What arrives just before the end may have left just after it."""
    net = cluster()
    first, second = served(net)
    net.error(net.too_big(first), None)
    net.wait(SECOND // 2)
    net.connect("rs1")
    assert analyse(net.tables("director")).verdicts() == [("unknown", "capture-ends-too-early")]
    net.wait(SECOND)
    net.connect("rs1")
    assert analyse(net.tables("director")).verdicts() == [("swallowed", "no-egress")]
    net.error(net.too_big(second), None)
    assert analyse(net.tables("director")).verdicts()[1] == ("unknown", "capture-ends-too-early")


def test_a_capture_that_dropped_proves_nothing(cluster, analyse) -> None:
    """One dropped frame may have been the forwarded error."""
    net = cluster()
    first, _ = served(net)
    net.error(net.too_big(first), None)
    goes_on(net)
    dropping = analyse(net.tables("director", dropped=1))
    assert dropping.verdicts() == [("unknown", "capture-dropped-packets")]
    assert analyse(net.tables("director", dropped=0)).verdicts() == [("swallowed", "no-egress")]


def test_one_side_of_a_nat_director_proves_nothing(cluster, analyse) -> None:
    """The inside was not captured at the director, but a realserver shows the translation."""
    net = cluster(method="nat", rport=8080)
    first, _ = served(net)
    net.error(net.too_big(first), None)
    goes_on(net)
    outside = net.recorders["director"]
    outside.rows = [row for row in outside.rows if row["interface"] == 0 or "op" in row]
    numbers = [n for n, row in enumerate(outside.rows) if row.get("icmp_type") is not None]
    for entry, number in zip(outside.icmp, numbers, strict=True):
        entry["row"] = number
    outside.arp = []
    found = analyse(net.tables("director", "rs1", "rs2"))
    assert found.methods() == ["nat"]
    assert found.verdicts() == [("unknown", "never-forwarded-here")]


@pytest.mark.parametrize("relayed", [True, False])
@each_cluster
def test_a_director_filtered_to_icmp_is_blamed_for_nothing(cluster, analyse, kind, relayed) -> None:
    """The realservers' captures know the connections; what the filter hides is not missing."""
    net = cluster(**kind)
    first, _ = served(net)
    for _ in range(4):
        net.error(net.too_big(first), "rs1" if relayed else None)
    goes_on(net)
    recorder = net.recorders["director"]
    whole = recorder.rows
    recorder.without({n for n, row in enumerate(whole) if row.get("icmp_type") is None})
    found = analyse(net.tables("director", "rs1", "rs2"))
    assert None not in found.realservers()
    if net.method == "nat":  # nothing that is left tells the realservers' connections by the VIP
        assert found.verdicts() == []
        return
    seen = ("forwarded", "egress") if relayed else ("unknown", "never-forwarded-here")
    assert set(found.verdicts()) == {seen}
    assert found.errors.messages.get_column("connection").null_count() == 0


def test_the_realserver_shows_what_the_director_does_not(cluster, analyse) -> None:
    """An error that arrived at its realserver was forwarded, wherever it left unseen."""
    net = cluster()
    first, second = served(net)
    net.error(net.too_big(first), "rs1")
    net.error(net.too_big(second), "rs1")
    goes_on(net)
    away = net.recorders["director"]
    gone = [n for n, row in enumerate(away.rows) if row.get("icmp_type") is not None][1::2]
    away.icmp = [entry for entry in away.icmp if entry["row"] not in gone]
    for number in gone:
        away.rows[number] = {**away.rows[number], "icmp_type": 0, "ip_id": 7 + number}
    found = analyse(net.tables("director", "rs1", "rs2"))
    assert found.verdicts() == [
        ("forwarded", "seen-at-realserver"),
        ("wrong-realserver", "seen-at-another-realserver"),
    ]


@each_cluster
def test_an_error_for_another_realserver_is_wrong(cluster, analyse, kind) -> None:
    """The connection is rs1's, the error went to rs2."""
    net = cluster(**kind)
    first, _ = served(net)
    net.error(net.too_big(first), "rs2")
    goes_on(net)
    found = analyse(net.tables("director"))
    assert found.verdicts() == [("wrong-realserver", "egress")]


def test_an_untranslated_quote_is_wrong(cluster, analyse) -> None:
    """NAT must put the realserver into the quote, too: it knows no socket of the VIP."""
    net = cluster(method="nat", rport=8080)
    first, _ = served(net)
    message = net.too_big(first)
    net.error(message, "rs1", _icmp=message["_icmp"])
    goes_on(net)
    found = analyse(net.tables("director"))
    assert found.verdicts() == [("wrong-translation", "quote-not-translated")]


def test_a_quote_with_the_wrong_port_is_wrong(cluster, analyse) -> None:
    """Address translated, port not: the realserver finds no socket either."""
    net = cluster(method="nat", rport=8080)
    first, _ = served(net)
    message = net.too_big(first)
    net.error(message, "rs1", **net.translated(message, "rs1", quoted_src_port=80))
    goes_on(net)
    verdict, reason = analyse(net.tables("director")).verdicts()[0]
    assert verdict in {"wrong-translation", "swallowed", "unknown"}
    assert (verdict, reason) != ("forwarded", "egress")


def test_a_checksum_that_the_translation_broke_is_wrong(cluster, analyse) -> None:
    """Good when it came in, bad when it left."""
    net = cluster(method="nat", rport=8080)
    first, _ = served(net)
    message = net.too_big(first)
    broken = net.translated(message, "rs1", icmp_checksum="bad")
    net.error(message, "rs1", **broken)
    goes_on(net)
    assert analyse(net.tables("director")).verdicts() == [("wrong-translation", "checksum-broken")]


def test_a_bad_checksum_excuses_the_director(cluster, analyse) -> None:
    """IPVS drops it in NAT on every kernel, and in DR on some."""
    for kind in ({"method": "nat", "rport": 8080}, {"method": "dr"}):
        net = cluster(**kind)
        first, second = served(net)
        net.error(net.too_big(first, icmp_checksum="bad"), None)
        net.error(net.too_big(second, icmp_checksum="unverifiable"), None)
        goes_on(net)
        found = analyse(net.tables("director"))
        assert found.verdicts() == [("unknown", "checksum-bad"), ("swallowed", "no-egress")]


def test_a_redirect_is_the_local_stacks(cluster, analyse) -> None:
    """ip_vs_in_icmp looks up types 3, 4 and 11 only; every ICMPv6 error is looked up."""
    net = cluster()
    first, second = served(net)
    net.error(net.too_big(first, icmp_type=5, icmp_code=1), None)
    net.error(net.too_big(second, icmp_type=12, icmp_code=0), None)
    net.error(net.too_big(first, icmp_type=11, icmp_code=0), None)
    net.error(net.too_big(first, icmp_type=4, icmp_code=0), None)
    goes_on(net)
    assert analyse(net.tables("director")).verdicts() == [
        ("local", "type-not-relayed"),
        ("local", "type-not-relayed"),
        ("swallowed", "no-egress"),
        ("swallowed", "no-egress"),
    ]
    six = cluster(v6=True)
    first, _ = served(six)
    six.error(six.too_big(first, icmp_type=4, icmp_code=1), None)
    six.error(six.too_big(first, icmp_type=137, icmp_code=0), None)
    goes_on(six)
    assert analyse(six.tables("director")).verdicts() == [
        ("swallowed", "no-egress"),
        ("local", "type-not-relayed"),
    ]


def test_an_unknown_connection_is_no_fault(cluster, analyse) -> None:
    """Nobody saw the connection: IPVS may have had no entry for it."""
    net = cluster()
    first, _ = served(net)
    net.error(net.too_big({**first, "dst_port": 61000}), None)
    goes_on(net)
    assert analyse(net.tables("director")).verdicts() == [("unknown", "no-connection-known")]


def test_an_idle_connection_may_have_expired(cluster, analyse) -> None:
    """After 900 s of silence the entry is gone, just before it is not."""
    for seconds, expected in (
        (890, ("swallowed", "no-egress")),
        (910, ("unknown", "entry-may-have-expired")),
    ):
        net = cluster()
        first, _ = served(net)
        net.wait(seconds * SECOND)
        net.error(net.too_big(first), None)
        goes_on(net)
        assert analyse(net.tables("director")).verdicts() == [expected]


def test_another_hosts_error_is_not_the_directors(cluster, analyse) -> None:
    """A promiscuous capture also shows what the switch flooded for another MAC."""
    net = cluster()
    first, _ = served(net)
    for _ in range(20):
        net.connect("rs1")
    message = {**net.too_big(first), "ttl": 62}
    net.seen("director", message, "router", "rs2", "in")
    goes_on(net)
    assert analyse(net.tables("director")).verdicts() == [("unknown", "other-hosts-mac")]


def test_a_quote_without_ports_cannot_be_looked_up(cluster, analyse) -> None:
    """IPVS needs eight bytes behind the quoted IP header."""
    net = cluster()
    first, _ = served(net)
    cut = dict.fromkeys(("quoted_src_port", "quoted_dst_port", "quoted_tcp_seq"))
    net.error(net.too_big(first, **cut, quoted_len=20), None)
    goes_on(net)
    assert analyse(net.tables("director")).verdicts() == [("unknown", "quote-too-short")]


def test_a_director_of_unknown_method_is_not_judged(cluster, analyse) -> None:
    """What IPVS must do depends on the method."""
    net = cluster(method="nat", rport=8080)
    first, _ = served(net)
    net.error(net.too_big(first), None)
    goes_on(net)
    recorder = net.recorders["director"]
    recorder.rows = [{**row, "flow": None} for row in recorder.rows if not row["interface"]]
    numbers = [n for n, row in enumerate(recorder.rows) if row.get("icmp_type") is not None]
    recorder.icmp[0]["row"], recorder.arp = numbers[0], []
    found = analyse(net.tables("director"))
    assert found.methods() == [None]
    assert found.contract.is_empty()


def test_an_error_about_the_tunnel_is_reissued(cluster, analyse) -> None:
    """A router in the tunnel tells the director, which tells the client in its own words."""
    net = cluster(method="tun")
    served(net)
    client, service = net.ends()
    ask = net.packet(client, service, tcp_seq=5, payload_len=1440)
    net.request({**ask, "tcp_flags": 2}, "rs1")
    outer, inner = net.address["director"], net.address["isp"]
    about = net.too_big(ask, quoted_tunnel="ipip", quoted_ttl=60)
    about |= {"dst_hi": outer[0], "dst_lo": outer[1]}
    told = net.too_big(ask, next_hop_mtu=1380)
    told |= {"src_hi": service[0][0], "src_lo": service[0][1]}
    told |= {"dst_hi": client[0][0], "dst_lo": client[0][1], "ttl": 64}
    assert inner != outer
    net.seen("director", {**about, "ttl": 60}, "router", "director", "in")
    net.wait()
    net.seen("director", told, "director", "router", "out")
    net.wait(2 * SECOND)
    second = {**about, "ip_id": 77, "_icmp": {**about["_icmp"], "quoted_df": False}}
    net.seen("director", {**second, "ttl": 60}, "router", "director", "in")
    net.wait()
    third = {**about, "ip_id": 78}
    net.seen("director", {**third, "ttl": 60}, "router", "director", "in")
    goes_on(net)
    assert analyse(net.tables("director")).verdicts() == [
        ("answered", "reissued"),
        ("local", "df-not-set"),
        ("unknown", "outer-error-not-relayed"),
    ]


def test_a_realservers_error_is_translated_back(cluster, analyse) -> None:
    """In NAT an error about a client's packet must name the VIP again when it leaves."""
    for translated_back, expected in (
        (True, ("forwarded", "egress")),
        (False, ("wrong-translation", "quote-not-translated")),
        (None, ("swallowed", "no-egress")),
    ):
        net = cluster(method="nat", rport=8080)
        served(net)
        client, service = net.ends()
        ask = net.packet(client, service, tcp_seq=5, tcp_flags=2)
        net.request(ask, "rs1")
        answer = net.packet(service, client, tcp_seq=9, tcp_ack=6, tcp_flags=0x12)
        net.reply(answer, "rs1")
        rip = net.address["rs1"]
        inside = {"quoted_dst_hi": rip[0], "quoted_dst_lo": rip[1], "quoted_dst_port": 8080}
        about = net.too_big(ask, icmp_type=3, icmp_code=10)
        about |= {"src_hi": rip[0], "src_lo": rip[1]}
        about |= {"dst_hi": client[0][0], "dst_lo": client[0][1]}
        came = {**about, "_icmp": {**about["_icmp"], **inside}}
        net.seen("director", came, "rs1", "director-inside", "in")
        net.wait()
        if translated_back is not None:
            left = {**(about if translated_back else came), "ttl": 63}
            left |= {"src_hi": service[0][0], "src_lo": service[0][1]}
            net.seen("director", left, "director", "router", "out")
        goes_on(net)
        found = analyse(net.tables("director"))
        assert found.verdicts() == [expected]


def test_a_realservers_own_error_is_not_the_directors_in_dr(cluster, analyse) -> None:
    """It goes straight to the client; a director that overhears it owes it nothing."""
    net = cluster()
    served(net)
    client, service = net.ends()
    ask = net.packet(client, service, tcp_seq=5, tcp_flags=2)
    net.request(ask, "rs1")
    about = net.too_big(ask, icmp_type=3, icmp_code=10)
    about |= {"src_hi": service[0][0], "src_lo": service[0][1]}
    about |= {"dst_hi": client[0][0], "dst_lo": client[0][1]}
    net.seen("director", about, "rs1", "director", "in")
    goes_on(net)
    assert analyse(net.tables("director")).contract.is_empty()


def test_the_clock_does_not_matter(cluster, analyse) -> None:
    """Realservers that are hours off change no verdict."""
    net = cluster(method="nat", rport=8080)
    net.recorders["rs1"].clock_ns = 7200 * SECOND
    net.recorders["rs2"].clock_ns = -3600 * SECOND
    first, second = served(net)
    net.error(net.too_big(first), "rs1")
    net.error(net.too_big(second), None)
    goes_on(net)
    found = analyse(net.tables("director", "rs1", "rs2"))
    assert found.verdicts() == [("forwarded", "egress"), ("swallowed", "no-egress")]
    assert abs(found.clocks.offset_ns[1] + 7200 * SECOND) <= found.clocks.error_ns[1]


def test_two_interfaces_as_two_vantages_are_one_director(cluster, analyse) -> None:
    """What comes in at one interface's capture leaves at the other's."""
    net = cluster(method="nat", rport=8080)
    first, second = served(net)
    net.error(net.too_big(first), "rs1")
    net.error(net.too_big(second), None)
    goes_on(net)
    whole = net.recorders["director"]
    sides = []
    for side in (0, 1):
        kept = [n for n, row in enumerate(whole.rows) if row["interface"] == side]
        recorder = replace(whole, rows=[whole.rows[n] for n in kept], arp=[])
        recorder.icmp = [
            {**entry, "row": kept.index(entry["row"])}
            for entry in whole.icmp
            if entry["row"] in kept
        ]
        sides.append(recorder)
    tables = []
    for number, recorder in enumerate(sides):
        net.recorders["director"] = recorder
        (one,) = net.tables("director")
        tables.append(replace(one, index=number, name=f"director-eth{number}"))
    found = analyse(tables)
    assert found.verdicts() == [("forwarded", "egress"), ("swallowed", "no-egress")]
    assert found.contract.get_column("vantage").to_list() == [0, 0]


def test_verdicts_name_rows_of_the_director(cluster, analyse) -> None:
    """in_row and out_row are rows of the vantage's packets, and hold the error."""
    net = cluster()
    first, _ = served(net)
    net.error(net.too_big(first), "rs1")
    goes_on(net)
    (tables,) = net.tables("director")
    found = analyse([tables])
    row = found.contract.row(0, named=True)
    ttls = tables.packets.select("ttl", "icmp_type")[[row["in_row"], row["out_row"]]]
    assert ttls.rows() == [(62, 3), (61, 3)]
    assert found.contract.schema["verdict"] == pl.Enum(found.contract.schema["verdict"].categories)
