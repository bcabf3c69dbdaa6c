"""Which packets are second sights of another, and which are packets of their own."""

from __future__ import annotations

import pytest
from traces import trace

from pcapdiag.flows.sightings import DOUBLE_NS, NAMED_FORWARD_NS, UNNAMED_FORWARD_NS


def copies(text: str) -> dict[int, int]:
    """Return line -> line of the first sight, for every line that is a second one."""
    column = trace(text).tables().packets.get_column("copy_of").to_list()
    return {row + 1: of + 1 for row, of in enumerate(column) if of is not None}


def test_forwarded_by_a_dr_director() -> None:
    """The same packet with another MAC and a TTL one lower is a copy; counts leave it out."""
    text = """
    0.0000 c>s S seq=0 mac=x>d ttl=60
    0.0001 copy 1 mac=d>rs ttl=59
    0.0500 c>s A seq=1 ack=1 mac=x>d ttl=60
    0.0501 c>s PA seq=1 ack=1 len=100 mac=x>d ttl=60
    0.0502 copy 3 mac=d>rs ttl=59
    0.0503 copy 4 mac=d>rs ttl=59
    """
    assert copies(text) == {2: 1, 5: 3, 6: 4}
    flow = trace(text).tables().flows.row(0, named=True)
    assert (flow["orig_packets"], flow["copies"], flow["orig_retransmitted"]) == (3, 3, 0)
    assert flow["orig_ip_bytes"] == 44 - 4 + 40 + 140


def test_old_directors_leave_the_ttl_alone() -> None:
    """Another MAC alone shows that a packet was handed on."""
    assert copies("0 c>s S seq=0 mac=x>d\n0.001 copy 1 mac=d>rs") == {2: 1}


def test_retransmission_is_no_copy() -> None:
    """A retransmission is a new packet with a new IP ID, even if it comes at once."""
    text = """
    0.0000 c>s PA seq=1 ack=1 len=100
    0.0001 c>s PA seq=1 ack=1 len=100
    """
    assert copies(text) == {}


def test_forwarded_retransmission() -> None:
    """Original and retransmission are each seen twice at a director."""
    text = """
    0.0000 c>s PA seq=1 ack=1 len=100 mac=x>d ttl=60
    0.0001 copy 1 mac=d>rs ttl=59
    0.3000 c>s PA seq=1 ack=1 len=100 mac=x>d ttl=60
    0.3001 copy 3 mac=d>rs ttl=59
    """
    assert copies(text) == {2: 1, 4: 3}
    flow = trace(text).tables().flows.row(0, named=True)
    assert (flow["orig_retransmitted"], flow["orig_timeouts"]) == (1, 1)


def test_syn_acks_without_ip_id() -> None:
    """Linux repeats SYN-ACKs with IP ID 0: equal but for the time, and packets of their own."""
    text = """
    0.0 s>c SA seq=0 ack=1 id=0
    1.0 s>c SA seq=0 ack=1 id=0
    3.0 s>c SA seq=0 ack=1 id=0
    """
    assert copies(text) == {}


def test_syn_acks_without_ip_id_forwarded() -> None:
    """Each repetition pairs with its own second sight, also where one sight is missing."""
    text = """
    0.0000 s>c SA seq=0 ack=1 id=0 ttl=64 mac=rs>d
    1.0000 s>c SA seq=0 ack=1 id=0 ttl=64 mac=rs>d
    1.0001 s>c SA seq=0 ack=1 id=0 ttl=63 mac=d>x
    3.0000 s>c SA seq=0 ack=1 id=0 ttl=64 mac=rs>d
    3.0001 s>c SA seq=0 ack=1 id=0 ttl=63 mac=d>x
    """
    assert copies(text) == {3: 2, 5: 4}


def test_constant_ip_id() -> None:
    """A sender that always uses one IP ID still has its timeouts told from copies."""
    text = """
    0.0000 c>s PA seq=1 ack=1 len=9 id=77 ttl=64 mac=x>d
    0.0001 c>s PA seq=1 ack=1 len=9 id=77 ttl=63 mac=d>rs
    0.2500 c>s PA seq=1 ack=1 len=9 id=77 ttl=64 mac=x>d
    0.2501 c>s PA seq=1 ack=1 len=9 id=77 ttl=63 mac=d>rs
    """
    assert copies(text) == {2: 1, 4: 3}


def test_into_a_tunnel() -> None:
    """TUN: the packet is seen plain and then inside the tunnel."""
    text = """
    0.0000 c>s PA seq=1 ack=1 len=100 mac=x>d ttl=60
    0.0001 copy 1 tun=ipip:d>rs mac=d>rs ttl=59
    """
    assert copies(text) == {2: 1}
    flow = trace(text).tables().flows.row(0, named=True)
    assert (flow["tunnel"], flow["orig_packets"]) == ("ipip", 1)


def test_segment_cut_again_on_its_way_out() -> None:
    """A merged segment that leaves in pieces was forwarded, not retransmitted."""
    text = """
    0.0000 c>s A seq=1 ack=1 len=2920 mac=x>d ttl=60 id=5
    0.0001 c>s A seq=1 ack=1 len=1460 tun=ipip:d>rs mac=d>rs ttl=59 id=5
    0.0001 c>s A seq=1461 ack=1 len=1460 tun=ipip:d>rs mac=d>rs ttl=59 id=6
    0.4000 c>s A seq=1 ack=1 len=1460 mac=x>d ttl=60 id=7
    """
    assert copies(text) == {2: 1, 3: 1}
    flow = trace(text).tables().flows.row(0, named=True)
    assert (flow["orig_packets"], flow["orig_retransmitted"], flow["copies"]) == (2, 1, 2)


def test_smaller_repetition_from_the_same_place_is_no_copy() -> None:
    """A sender that cuts its repetition smaller at once, told by an ICMP error, repeats."""
    text = """
    0.0000 s>c A seq=1 ack=1 len=1460
    0.0010 s>c A seq=1 ack=1 len=1360
    """
    assert copies(text) == {}


def test_waiting_for_arp() -> None:
    """A packet with an IP ID may wait until ARP was answered."""
    seconds = NAMED_FORWARD_NS / 1e9
    line = "0.0 c>s S seq=0 mac=x>d ttl=60\n"
    assert copies(f"{line}{seconds - 0.01} copy 1 mac=d>rs ttl=59") == {2: 1}
    assert copies(f"{line}{seconds + 0.01} copy 1 mac=d>rs ttl=59") == {}


def test_unnamed_packets_wait_less() -> None:
    """Without an IP ID a late equal packet may be a repetition by timeout."""
    seconds = UNNAMED_FORWARD_NS / 1e9
    line = "0.0 c6>s6 PA seq=1 ack=1 len=10 mac=x>d ttl=60\n"
    assert copies(f"{line}{seconds - 0.001:.4f} copy 1 mac=d>rs ttl=59") == {2: 1}
    assert copies(f"{line}{seconds + 0.001:.4f} copy 1 mac=d>rs ttl=59") == {}


def test_exact_doubles() -> None:
    """One packet captured twice at one place within milliseconds is one packet."""
    seconds = DOUBLE_NS / 1e9
    assert copies(f"0.0 c>s S seq=0\n{seconds - 0.001:.3f} copy 1") == {2: 1}
    assert copies(f"0.0 c>s S seq=0\n{seconds + 0.001:.3f} copy 1") == {}


@pytest.mark.parametrize("where", ["if=1", "vlan=100", "out", "mac=s>c"])
def test_two_taps_of_one_host(where: str) -> None:
    """Another interface, VLAN or direction is another place."""
    assert copies(f"0.0 c>s S seq=0 in\n0.02 copy 1 {where}") == {2: 1}


def test_routing_loop() -> None:
    """A packet that comes by at every TTL is one packet, and all refer to its first sight."""
    lines = ["0.000 c>s S seq=0 ttl=64 mac=x>d"]
    lines += [
        f"{number / 100:.3f} copy 1 ttl={64 - number} mac={'d>rs' if number % 2 else 'rs>d'}"
        for number in range(1, 60)
    ]
    assert copies("\n".join(lines)) == dict.fromkeys(range(2, 61), 1)


def test_duplicate_acks_without_ip_id() -> None:
    """IPv6 duplicate ACKs are equal to the last bit and still packets of their own."""
    text = """
    0.0000 s6>c6 PA seq=1 ack=1 len=1000
    0.0001 c6>s6 A seq=1 ack=1
    0.0002 c6>s6 A seq=1 ack=1
    0.0003 c6>s6 A seq=1 ack=1
    0.0004 s6>c6 PA seq=1001 ack=1 len=1000
    """
    assert copies(text) == {}


def test_duplicate_acks_forwarded() -> None:
    """The n-th duplicate ACK in is the n-th out."""
    text = """
    0.0001 c6>s6 A seq=1 ack=1 ttl=64 mac=x>d
    0.0002 c6>s6 A seq=1 ack=1 ttl=64 mac=x>d
    0.0003 c6>s6 A seq=1 ack=1 ttl=63 mac=d>rs
    0.0004 c6>s6 A seq=1 ack=1 ttl=63 mac=d>rs
    """
    assert copies(text) == {3: 1, 4: 2}


def test_capture_that_doubles_everything() -> None:
    """Where every packet is there twice, packets without an IP ID are doubles, too."""
    text = """
    0.0000 c6>s6 PA seq=1 ack=1 len=100
    0.0001 copy 1
    0.0100 s6>c6 PA seq=1 ack=101 len=1000
    0.0101 copy 3
    0.0200 c6>s6 A seq=101 ack=1001
    0.0201 copy 5
    """
    assert copies(text) == {2: 1, 4: 3, 6: 5}


def test_equal_packets_of_a_capture_that_doubles_everything() -> None:
    """Two answers to a repeated request are equal, and each is there twice: two, not one."""
    text = """
    0.0000 c6>s6 PA seq=1 ack=1 len=100
    0.0001 copy 1
    0.0100 s6>c6 SA seq=0 ack=1
    0.0101 copy 3
    0.0130 copy 3
    0.0131 copy 3
    """
    assert copies(text) == {2: 1, 4: 3, 6: 5}


def test_repeated_datagrams() -> None:
    """Equal datagrams without an IP ID are what an application sent twice."""
    text = """
    0.000 c>s udp len=30 id=0
    0.005 c>s udp len=30 id=0
    0.006 c>s udp len=31 id=0
    """
    assert copies(text) == {}


def test_icmp_errors_forwarded() -> None:
    """An ICMP error that a director forwards keeps its IP ID; another error does not."""
    text = """
    0.000 s>c PA seq=1 ack=1 len=1460
    0.001 s>c PA seq=1461 ack=1 len=1460
    0.002 r>s icmp 3/4 mtu=1400 quote=1 ttl=60 mac=x>d
    0.003 copy 3 ttl=59 mac=d>rs
    0.004 r>s icmp 3/4 mtu=1400 quote=2 ttl=60 mac=x>d
    """
    assert copies(text) == {4: 3}


def test_icmp_errors_without_ip_id_about_other_packets() -> None:
    """Errors without an IP ID are told apart by what they quote."""
    text = """
    0.000 s>c PA seq=1 ack=1 len=1460
    0.001 s>c PA seq=1461 ack=1 len=1460
    0.002 r>s icmp 3/4 mtu=1400 quote=1 id=0 ttl=60
    0.003 r>s icmp 3/4 mtu=1400 quote=2 id=0 ttl=59
    """
    assert copies(text) == {}


def test_fragments() -> None:
    """Fragments of one datagram share its IP ID and are packets of their own."""
    text = """
    0.000 c>s udp len=1472 id=9 mf ttl=60 mac=x>d
    0.000 c>s udp len=1472 id=9 mf frag=1480 ttl=60 mac=x>d
    0.000 c>s udp len=1472 id=9 mf frag=2960 ttl=60 mac=x>d
    0.001 copy 1 ttl=59 mac=d>rs
    0.001 copy 2 ttl=59 mac=d>rs
    """
    assert copies(text) == {4: 1, 5: 2}


def test_times_missing_or_backwards() -> None:
    """Without times, and where two queues were read in the wrong order, sights still join."""
    assert copies("- c>s S seq=0 ttl=60\n- copy 1 ttl=59") == {2: 1}
    assert copies("0.001 c>s S seq=0 ttl=59\n0.000 copy 1 ttl=60") == {2: 1}


def test_translated_packets_are_not_copies() -> None:
    """NAT makes another five-tuple of a packet."""
    assert copies("0 c>s S seq=0 id=7 ttl=60\n0.001 c>rs S seq=0 id=7 ttl=59") == {}
