"""ICMP errors beside the flow and the packet that they are about."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import polars as pl
import pytest
from traces import trace

from pcapdiag.flows import vantage
from pcapdiag.schema import dtypes

UPLOAD = """
0.0 c>s S seq=0
0.1 s>c SA seq=0 ack=1
0.2 c>s A seq=1 ack=1 len=1460
"""


def errors(text: str) -> list[dict[str, Any]]:
    """Return the ICMP errors of a trace."""
    table = trace(text).tables().icmp_errors
    assert dict(table.schema) == dict(dtypes("icmp_errors"))
    return table.to_dicts()


def test_about_a_packet_of_the_originator() -> None:
    """The quote names flow, side and packet."""
    (seen,) = errors(UPLOAD + "0.3 r>c icmp 3/4 mtu=1400 quote=3")
    assert (seen["flow"], seen["quoted_by_orig"], seen["quoted_row"]) == (0, True, 2)
    assert (seen["row"], seen["frame"], seen["next_hop_mtu"]) == (3, 4, 1400)


def test_about_a_packet_of_the_responder() -> None:
    """A quote from the service to the client is the responder's."""
    (seen,) = errors(UPLOAD + "0.3 r>s icmp 3/4 mtu=1400 quote=2")
    assert (seen["flow"], seen["quoted_by_orig"], seen["quoted_row"]) == (0, False, 1)


def test_quoted_packet_not_seen_here() -> None:
    """A DR director knows the flow of an error about a reply that never came by."""
    text = "0.0 s>c A seq=1 ack=1 len=1460\n0.1 r>s icmp 3/4 mtu=1400 quote=2"
    decoded = trace("0.0 c>s S seq=0\n" + text).decoded()
    cut = replace(
        decoded,
        packets=decoded.packets.filter(pl.col("frame") != 2),
        icmp=decoded.icmp.with_columns(row=pl.lit(1, pl.UInt32)),
    )
    table = vantage.build(0, "v", None, [(trace("").info(), cut)]).icmp_errors
    row = table.row(0, named=True)
    assert (row["flow"], row["quoted_by_orig"], row["quoted_row"]) == (0, False, None)


@pytest.mark.parametrize("kind", ["3/3", "4/0", "5/1", "11/0", "12/0"])
def test_types_of_ipv4(kind: str) -> None:
    """Types 3, 4, 5, 11 and 12 are errors."""
    assert len(errors(UPLOAD + f"0.3 r>c icmp {kind} quote=3")) == 1


@pytest.mark.parametrize(
    ("kind", "count"), [("1/0", 1), ("2/0", 1), ("137/0", 1), ("128/0", 0), ("135/0", 0)]
)
def test_types_of_ipv6(kind: str, count: int) -> None:
    """ICMPv6 below 128 and redirects are errors, echo and neighbour discovery are not."""
    text = f"0.0 c6>s6 A seq=1 ack=1 len=1440\n0.1 r6>c6 icmp {kind} quote=1"
    assert len(errors(text)) == count


def test_echo_is_no_error() -> None:
    """Echo requests and replies are not in the table."""
    assert errors("0 c>s icmp 8/0\n1 s>c icmp 0/0") == []


def test_flow_that_was_alive() -> None:
    """Of flows with reused ports the error belongs to the one that began last before it."""
    text = """
    0.0 c>s S seq=0
    0.1 c>s A seq=1 ack=1 len=1460
    0.2 c>s R seq=1461
    5.0 c>s S seq=900000
    5.1 c>s A seq=900001 ack=1 len=1460
    5.2 r>c icmp 3/4 mtu=1400 quote=5 qlen=24
    """
    (seen,) = errors(text)
    assert (seen["flow"], seen["quoted_row"]) == (1, None)


def test_late_error_about_the_flow_before() -> None:
    """A quote that names one packet belongs to that packet's flow, though ports were reused."""
    text = """
    0.0 c>s S seq=0
    0.1 c>s A seq=1 ack=1 len=1460
    0.2 c>s R seq=1461
    0.3 c>s S seq=900000
    0.4 r>c icmp 3/4 mtu=1400 quote=2
    """
    (seen,) = errors(text)
    assert (seen["flow"], seen["quoted_row"]) == (0, 1)


def test_flow_that_begins_after_the_error() -> None:
    """A capture may begin between a packet and its error: the flow that follows is named."""
    decoded = trace(
        "0 c>s A seq=1 ack=1 len=9\n1 r>c icmp 3/1 quote=1\n2 c>s A seq=1 ack=1"
    ).decoded()
    cut = replace(
        decoded,
        packets=decoded.packets.filter(pl.col("frame") != 1),
        icmp=decoded.icmp.with_columns(row=pl.lit(0, pl.UInt32)),
    )
    table = vantage.build(0, "v", None, [(trace("").info(), cut)]).icmp_errors
    assert table.item(0, "flow") == 0


def test_unknown_flow() -> None:
    """An error about a flow that was never seen has none."""
    text = "0 c>s:99 udp len=9\n1 r>c icmp 3/1 quote=1 qlen=20"
    (seen,) = errors(text)
    assert seen["flow"] is None
    assert seen["quoted_by_orig"] is None


def test_repeated_packets_without_ip_id_are_not_told_apart() -> None:
    """Where several packets fit the quote none is named."""
    text = """
    0.0 c6>s6 A seq=1 ack=1 len=1440
    0.5 c6>s6 A seq=1 ack=1 len=1440
    0.6 r6>c6 icmp 2/0 mtu=1400 quote=2
    """
    (seen,) = errors(text)
    assert (seen["flow"], seen["quoted_row"]) == (0, None)


def test_only_earlier_packets_were_quoted() -> None:
    """A packet after the error is not the one it quotes."""
    text = """
    0.0 c6>s6 A seq=1 ack=1 len=1440
    0.1 r6>c6 icmp 2/0 mtu=1400 quote=1
    0.5 c6>s6 A seq=1 ack=1 len=1440
    """
    (seen,) = errors(text)
    assert seen["quoted_row"] == 0


def test_first_sight_was_quoted() -> None:
    """At a director the quoted packet is the one that came in."""
    text = "0 c>s A seq=1 ack=1 len=9 ttl=9\n0.001 copy 1 ttl=8\n0.1 r>c icmp 3/1 quote=2"
    (seen,) = errors(text)
    assert seen["quoted_row"] == 0


def test_second_sight_of_an_error() -> None:
    """A forwarded error refers to its first sight."""
    text = UPLOAD + "0.3 r>c icmp 3/4 mtu=1400 quote=3 ttl=9\n0.301 copy 4 ttl=8"
    assert [seen["copy_of"] for seen in errors(text)] == [None, 3]


def test_error_inside_a_tunnel() -> None:
    """The outer addresses of a tunnelled error stand beside it."""
    text = UPLOAD + "0.3 r>s icmp 3/4 mtu=1400 quote=2 ttl=9\n0.301 copy 4 ttl=8 tun=ipip:d>rs"
    plain, tunnelled = errors(text)
    assert plain["tunnel_src_lo"] is None
    assert tunnelled["tunnel"] == "ipip"
    assert (tunnelled["tunnel_src_lo"], tunnelled["tunnel_dst_lo"]) == (
        0xFFFF_CB00_7102,
        0xFFFF_CB00_710B,
    )


def test_udp() -> None:
    """A datagram is known again by its IP ID."""
    text = "0 c>s udp len=9\n1 c>s udp len=9\n2 s>c icmp 3/3 quote=2"
    (seen,) = errors(text)
    assert (seen["flow"], seen["quoted_row"]) == (0, 1)
