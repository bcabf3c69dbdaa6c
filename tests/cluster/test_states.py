"""How a connection ended, and who waits for whom, as far as its legs show it."""

from __future__ import annotations

import pytest

SECOND = 1_000_000_000
FIN_ACK = 0x11
KINDS = [{"method": "nat", "rport": 8080}, {"method": "dr"}]


def ended(analyse, vantages, port: int = 49000) -> dict:
    """Return the last connection of a client port."""
    rows = analyse(vantages).connections.connections.rows(named=True)
    return next(row for row in reversed(rows) if row["client_port"] == port)


def opened(net, **more) -> dict:
    """Let other connections be served and one be opened on the port; return its last reply."""
    net.arp()
    net.connect("rs1")
    net.connect("rs2")
    return net.connect("rs1", port=49000, **more)


def following(net, last: dict, **columns) -> tuple[dict, dict]:
    """Return the next packet of the client and the next of the server after a reply."""
    client, service = net.ends(49000)
    end = last["tcp_seq"] + last["payload_len"]
    ask = net.packet(client, service, tcp_seq=last["tcp_ack"], tcp_ack=end, **columns)
    tell = net.packet(service, client, tcp_seq=end, tcp_ack=last["tcp_ack"], **columns)
    return ask, tell


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind["method"])
def test_a_close_from_both_sides_is_closed(cluster, analyse, kind) -> None:
    """Where both halves are seen; the director of DR sees the client's alone."""
    net = cluster(**kind)
    last = opened(net)
    ask, tell = following(net, last, tcp_flags=FIN_ACK)
    net.request(ask, "rs1")
    assert ended(analyse, net.tables("director", "rs1"))["state"] == "closing"
    net.reply(tell, "rs1")
    assert ended(analyse, net.tables("director", "rs1"))["state"] == "closed"
    alone = ended(analyse, net.tables("director"))
    assert alone["state"] == ("closed" if kind["method"] == "nat" else "closing")
    assert alone["waits_for"] is None


def test_an_unanswered_syn_waits_for_the_realserver(cluster, analyse) -> None:
    """Nothing came back; a client that acknowledges was answered, seen or not."""
    net = cluster()
    opened(net, rounds=0)
    client, service = net.ends(50000)
    net.request(net.packet(client, service, tcp_seq=9, tcp_flags=2), "rs1")
    waiting = ended(analyse, net.tables("director", "rs1"), 50000)
    assert (waiting["state"], waiting["waits_for"]) == ("opening", "realserver")
    assert ended(analyse, net.tables("director"))["state"] == "open"


def test_data_without_an_acknowledgement_is_waited_for(cluster, analyse) -> None:
    """The client's request, then the server's answer, then both."""
    for ask_too, tell_too, waits in ((1, 0, "realserver"), (0, 1, "client"), (1, 1, "both")):
        net = cluster(method="nat", rport=8080)
        last = opened(net)
        ask, _ = following(net, last)
        net.request(ask, "rs1")
        ask, tell = following(net, last, payload_len=300)
        if ask_too:
            net.request(ask, "rs1")
        if tell_too:
            net.reply(tell, "rs1")
        row = ended(analyse, net.tables("director", "rs1"))
        assert (row["state"], row["waits_for"]) == ("open", waits)


def test_what_a_vantage_cannot_see_is_not_waited_for(cluster, analyse) -> None:
    """The director of DR never sees an acknowledgement of the client's data."""
    net = cluster()
    opened(net)
    row = ended(analyse, net.tables("director"))
    assert (row["state"], row["waits_for"]) == ("open", None)


def test_a_reset_ends_a_connection(cluster, analyse) -> None:
    """Whichever side sends it."""
    net = cluster(method="nat", rport=8080)
    last = opened(net)
    _, tell = following(net, last, tcp_flags=4)
    net.reply(tell, "rs1")
    assert ended(analyse, net.tables("director"))["state"] == "reset"


def test_the_longest_pause_and_the_earlier_connection_are_told(cluster, analyse) -> None:
    """The port is used again after 400 s; in the second connection there are 40 s of silence."""
    net = cluster(method="nat", rport=8080)
    net.recorders["rs1"].clock_ns = 70 * SECOND
    opened(net)
    net.wait(400 * SECOND)
    last = net.connect("rs1", port=49000)
    net.wait(40 * SECOND)
    ask, _ = following(net, last, payload_len=10)
    net.request(ask, "rs1")
    vantages = net.tables("director", "rs1")
    rows = analyse(vantages).connections.connections.rows(named=True)
    first, second = (row for row in rows if row["client_port"] == 49000)
    assert (first["earlier"], second["earlier"]) == (None, first["connection"])
    assert second["idle_ns"] // SECOND == 40
    assert abs(second["idle_end_ns"] - second["last_ns"]) < SECOND


def test_two_connections_that_one_leg_joins_have_no_realserver(cluster, analyse) -> None:
    """The director's capture lost the SYN of the port's second use: one flow there, two beyond."""
    net = cluster()
    last = opened(net)
    ask, _ = following(net, last, tcp_flags=FIN_ACK)
    net.request(ask, "rs1")
    net.wait(200 * SECOND)
    counts = {name: len(recorder.rows) for name, recorder in net.recorders.items()}
    net.connect("rs1", port=49000)
    net.recorders["director"].without({counts["director"], counts["director"] + 1})
    # The router was captured later, the realserver earlier.
    net.recorders["router"].without(set(range(12, counts["router"])))
    net.recorders["rs1"].without(set(range(counts["rs1"], len(net.recorders["rs1"].rows))))
    (mixed,) = (
        row
        for row in analyse(net.tables("router", "director", "rs1")).connections.connections.rows(
            named=True
        )
        if row["client_port"] == 49000
    )
    assert mixed["ambiguous"]
    assert mixed["realserver_lo"] is None
