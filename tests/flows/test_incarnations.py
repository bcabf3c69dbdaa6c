"""Where a five-tuple is used anew, and who opened each use."""

from __future__ import annotations

from typing import Any

from traces import trace

CONNECTION = """
0.00 c>s S seq=0
0.01 s>c SA seq=0 ack=1
0.02 c>s A seq=1 ack=1
0.03 c>s FA seq=1 ack=1
0.04 s>c FA seq=1 ack=2
0.05 c>s A seq=2 ack=2
"""


def numbers(text: str) -> list[int | None]:
    """Return each packet's flow."""
    return trace(text).tables().packets.get_column("flow").to_list()


def opener(text: str, flow: int = 0) -> tuple[str, int]:
    """Return why a flow has its originator, and the originator's port."""
    row: dict[str, Any] = trace(text).tables().flows.row(flow, named=True)
    return row["originator_source"], row["orig_port"]


def test_port_reused_after_close() -> None:
    """A SYN with another number after FINs begins a new flow."""
    again = "9.00 c>s S seq=70000\n9.01 s>c SA seq=90000 ack=70001\n9.02 c>s A seq=70001 ack=90001"
    assert numbers(CONNECTION + again) == [0] * 6 + [1] * 3
    flows = trace(CONNECTION + again).tables().flows
    assert flows.get_column("orig_sent").to_list() == [2, 1]
    assert flows.get_column("resp_acked").to_list() == [2, 1]


def test_port_reused_without_a_close() -> None:
    """A SYN with another number begins a new flow even if no FIN was seen."""
    text = "0 c>s S seq=0\n1 s>c SA seq=0 ack=1\n2 c>s A seq=1 ack=1\n9 c>s S seq=500\n"
    assert numbers(text) == [0, 0, 0, 1]


def test_repeated_syn_is_the_same_flow() -> None:
    """A SYN with the same number is a retransmission, before and after answers."""
    text = """
    0 c>s S seq=0
    1 c>s S seq=0
    2 s>c SA seq=0 ack=1
    3 s>c SA seq=0 ack=1
    4 c>s S seq=0
    5 s>c RA seq=1 ack=1
    6 c>s S seq=0
    """
    assert numbers(text) == [0] * 7


def test_syn_answered_twice() -> None:
    """Two SYN-ACKs with different numbers that acknowledge one SYN belong to it."""
    text = "0 c>s S seq=0\n1 s>c SA seq=0 ack=1\n2 c>s S seq=0\n3 s>c SA seq=5555 ack=1"
    assert numbers(text) == [0] * 4


def test_simultaneous_open() -> None:
    """The peer's SYN is no new flow."""
    assert numbers("0 c>s S seq=0\n1 s>c S seq=0\n2 c>s SA seq=0 ack=1") == [0, 0, 0]


def test_roles_change_after_close() -> None:
    """After a close the former responder may open with the same ports."""
    text = (
        CONNECTION + "9 s>c S seq=7000\n9.1 c>s SA seq=8000 ack=7001\n9.2 s>c A seq=7001 ack=8001"
    )
    assert numbers(text) == [0] * 6 + [1] * 3
    assert opener(text, 1) == ("syn", 80)


def test_syn_in_the_middle_of_a_stream() -> None:
    """A SYN from a side that was sending data before is another connection."""
    text = "0 c>s A seq=1 ack=1 len=9\n1 s>c A seq=1 ack=10\n9 c>s S seq=99999\n"
    assert numbers(text) == [0, 0, 1]


def test_syn_captured_behind_its_successor() -> None:
    """A SYN that two queues put behind the packet that follows it belongs to the same flow."""
    assert numbers("0 c>s A seq=1 ack=1\n0 c>s S seq=0\n0 c>s A seq=1 ack=1 len=5") == [0, 0, 0]


def test_one_direction_sees_syn_acks_only() -> None:
    """Where only replies come by, another SYN-ACK number begins a new flow."""
    text = (
        "0 s>c SA seq=0 ack=1\n1 s>c FA seq=1 ack=1\n8 s>c SA seq=0 ack=1\n9 s>c SA seq=700 ack=900"
    )
    assert numbers(text) == [0, 0, 0, 1]
    assert opener(text) == ("syn-ack", 40000)


def test_copies_of_a_syn_do_not_begin_flows() -> None:
    """A forwarded SYN belongs to the flow of its first sight."""
    text = CONNECTION + "9 c>s S seq=500 ttl=64\n9.001 copy 7 ttl=63 mac=d>rs"
    assert numbers(text) == [0] * 6 + [1] * 2


def test_flows_are_numbered_by_first_packet() -> None:
    """Numbers rise with the first packet, new uses of a tuple included."""
    text = """
    0 c:1001>s S seq=0
    1 c:1002>s S seq=0
    2 c:1001>s S seq=5
    3 c:1003>s S seq=0
    4 c:1002>s R seq=1
    """
    assert numbers(text) == [0, 1, 2, 3, 1]


def test_packets_without_ports_have_no_flow() -> None:
    """ICMP and later fragments belong to no flow."""
    text = "0 c>s udp len=1400 mf\n0 c>s udp len=600 frag=1408\n0 r>c icmp 11/0 quote=1"
    assert numbers(text) == [0, None, None]


def test_system_port_is_the_service() -> None:
    """Without a handshake a port below 1024 is the responder's, whoever sends first."""
    assert opener("0 s>c A seq=1 ack=1 len=9") == ("port", 40000)
    assert opener("0 c:999>s:60000 udp len=9") == ("port", 60000)


def test_popular_endpoint_is_the_service() -> None:
    """Among high ports the endpoint with many flows is the service, though its port be higher."""
    text = "\n".join(f"{n} c:{2000 + n}>s:50000 udp len=9" for n in range(4))
    assert opener(text, 3) == ("port", 2003)


def test_endpoint_that_answered_syns_is_the_service() -> None:
    """Flows with a handshake tell which endpoint serves, for those without."""
    text = "\n".join(
        f"{n} c:{2000 + n}>s:50000 S seq=0\n{n}.1 s:50000>c:{2000 + n} SA seq=0 ack=1"
        for n in range(3)
    )
    assert opener(f"{text}\n9 s:50000>c:3000 A seq=1 ack=1", 3) == ("port", 3000)


def test_higher_port_opened() -> None:
    """Among two unknown ports the higher is the client's."""
    assert opener("0 s:8080>c:9090 A seq=1 ack=1") == ("port", 9090)


def test_equal_ports() -> None:
    """With equal ports whoever sent first opened."""
    assert opener("0 c:123>s:123 udp len=48") == ("first", 123)
    row = (
        trace("0 s:123>c:123 udp len=48\n1 c:123>s:123 udp len=48")
        .tables()
        .flows.row(0, named=True)
    )
    assert row["orig_lo"] == 0xFFFF_CB00_710A


def test_packet_to_itself() -> None:
    """A packet from an endpoint to itself (a land attack) is a flow with one side."""
    row = trace("0 c>c S seq=0\n1 c>c S seq=0").tables().flows.row(0, named=True)
    assert (row["orig_packets"], row["resp_packets"]) == (2, 0)
