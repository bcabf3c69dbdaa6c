"""tshark's JSON as lines: what is worth reading, under Wireshark's names, without payload."""

from __future__ import annotations

from pcapdiag.dissect import MAX_LINES
from pcapdiag.dissect.layers import lines

TCP = {
    "tcp.srcport": "80",
    "tcp.dstport": "4711",
    "tcp.seq": "901",
    "tcp.flags": "0x0010",
    "tcp.flags_tree": {"tcp.flags.ack": "1", "tcp.flags.syn": "0", "tcp.flags.str": "·A·"},
    "tcp.checksum.status": "0",
    "tcp.payload": "73:65:63:72:65:74",
    "Timestamps": {"tcp.time_relative": "0.0"},
}


def test_fields_stand_under_their_layer():
    """Ends are in the title, bits that are set are indented, repeated fields are left out."""
    assert lines([("tcp", TCP)]) == [
        "Transmission Control Protocol: 80 > 4711",
        "    tcp.seq: 901",
        "    tcp.flags: 0x0010",
        "        tcp.flags.ack: 1",
        "    tcp.checksum.status: bad",
    ]


def test_quoted_packet_is_indented():
    """What an ICMP error quotes is a layer inside it; what that carried is payload."""
    quote = {"ip.src": "192.0.2.1", "ip.dst": "192.0.2.2", "ip.len": "1500"}
    error = {"icmp.type": "3", "ip": quote, "tcp": TCP, "http": {"http.cookie": "secret"}}
    found = lines([("icmp", error)])
    assert found[2:4] == [
        "    Internet Protocol Version 4: 192.0.2.1 > 192.0.2.2",
        "        ip.len: 1500",
    ]
    assert "secret" not in "\n".join(found)


def test_unknown_layers_are_named_only():
    """A layer above the transport is payload: its name is all that is shown."""
    assert lines([("http", {"http.cookie": "secret"})]) == ["http"]


def test_layer_of_layers_is_shown_twice():
    """IP in IP comes as a list."""
    found = lines([("ip", [{"ip.len": "1500"}, {"ip.len": "1480"}])])
    assert [line for line in found if "len" in line] == ["    ip.len: 1500", "    ip.len: 1480"]


def test_endless_answers_end():
    """Neither many fields nor deep ones make more than MAX_LINES lines."""
    many = {f"tcp.option{number}": "x" * 1000 for number in range(1000)}
    found = lines([("tcp", many)])
    assert len(found) == MAX_LINES
    assert found[-1] == "..."
    assert max(map(len, found)) < 200
    deep = {"tcp.leaf": "deep"}
    for _ in range(500):
        deep = {"tcp.tree_tree": deep}
    assert lines([("tcp", deep)]) == ["Transmission Control Protocol"]
