"""Captures of one vantage merged into its tables."""

from __future__ import annotations

from traces import START_NS, trace

from pcapdiag.flows import vantage

FIRST = """
0.0 c>s S seq=0 ttl=60 mac=x>d
2.0 r>s icmp 3/4 mtu=1400 quote=1 ttl=60
4.0 c>s A seq=1 ack=1 sack=5-9 ttl=60 mac=x>d
"""


def test_one_capture_stays_in_file_order() -> None:
    """A clock that went backwards does not move packets."""
    tables = trace("5 c>s S seq=0\n1 c>s A seq=1 ack=1").tables()
    assert tables.packets.get_column("frame").to_list() == [1, 2]
    assert tables.capture_ids == (0,)


def test_two_captures_are_merged_by_time() -> None:
    """Rows are in order of time, and side tables count in the merged rows."""
    one, other = trace(FIRST), trace("1.0 c2>s S seq=0\n3.0 c2>s A seq=1 ack=1 sack=7-8")
    tables = vantage.build(
        3, "director", "director", [(one.info(), one.decoded(4)), (other.info(), other.decoded(5))]
    )
    assert (tables.index, tables.name, tables.role_given) == (3, "director", "director")
    assert tables.capture_ids == (4, 5)
    places = tables.packets.select("capture", "frame").rows()
    assert places == [(4, 1), (5, 1), (4, 2), (5, 2), (4, 3)]
    assert tables.sacks.select("row", "left").rows() == [(3, 1007), (4, 1005)]
    assert tables.icmp.get_column("row").to_list() == [2]
    error = tables.icmp_errors.row(0, named=True)
    assert (error["row"], error["capture"], error["frame"]) == (2, 4, 2)
    assert error["quoted_row"] == 0


def test_two_captures_of_one_packet() -> None:
    """A packet that two interfaces saw is one packet."""
    incoming = trace("0.0 c>s S seq=0 ttl=60 mac=x>d\n1.0 c>s A seq=1 ack=1 ttl=60 mac=x>d")
    outgoing = trace("0.001 c>s S seq=0 ttl=59 mac=d>rs\n1.001 c>s A seq=1 ack=1 ttl=59 mac=d>rs")
    tables = vantage.build(
        0,
        "v",
        None,
        [(incoming.info(), incoming.decoded(0)), (outgoing.info(), outgoing.decoded(1))],
    )
    assert tables.packets.get_column("copy_of").to_list() == [None, 0, None, 2]
    assert tables.flows.item(0, "copies") == 2


def test_merging_is_stable() -> None:
    """Equal times keep the order of the files, and frames without a time their predecessor."""
    one, other = trace("0 c>s udp\n- c>s udp\n2 c>s udp"), trace("0 c2>s udp\n1 c2>s udp")
    tables = vantage.build(
        0, "v", None, [(one.info(), one.decoded(0)), (other.info(), other.decoded(1))]
    )
    places = tables.packets.select("capture", "frame").rows()
    assert places == [(0, 1), (0, 2), (1, 1), (1, 2), (0, 3)]


def test_captures_one_after_the_other() -> None:
    """A ring of files joins without moving anything."""
    one, other = trace("0 c>s S seq=0"), trace("1 c>s A seq=1 ack=1 sack=5-9")
    tables = vantage.build(
        0, "v", None, [(one.info(), one.decoded(0)), (other.info(), other.decoded(1))]
    )
    assert tables.sacks.get_column("row").to_list() == [1]
    assert tables.packets.get_column("time_ns").to_list() == [START_NS, START_NS + 10**9]
    assert len(tables.flows) == 1


def test_capture_without_packets() -> None:
    """An empty capture is kept with its number where it is given, and -1 where not."""
    one, empty = trace("0 c>s udp"), trace("")
    captures = [(empty.info(), empty.decoded()), (one.info(), one.decoded(8))]
    assert vantage.build(0, "v", None, captures).capture_ids == (-1, 8)
    assert vantage.build(0, "v", None, captures, (7, 8)).capture_ids == (7, 8)
    assert len(vantage.build(0, "v", None, captures).packets) == 1


def test_no_captures() -> None:
    """A vantage without captures has empty tables."""
    assert len(vantage.build(0, "v", None, []).packets) == 0
