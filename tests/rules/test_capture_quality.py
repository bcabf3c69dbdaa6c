"""capture-quality remarks on captures, each kind of trouble by itself, and not on what is usual."""

from __future__ import annotations

from dataclasses import replace

import floods
import polars as pl
import pytest
from pcapdiag.rules import capture_quality
from stories import case, cited, marked

from pcapdiag.case import Case
from pcapdiag.result import Clean, Finding, NotExamined, Severity

FORWARDING = """
0.000 c>s S seq=0 mss=1460 mac=x>d
0.0001 copy 1 ttl=63 mac=d>rs
0.002 c>s A seq=1 ack=1 mac=x>d
0.0021 copy 3 ttl=63 mac=d>rs
0.003 c>s PA seq=1 ack=1 len=100 mac=x>d
0.0031 copy 5 ttl=63 mac=d>rs
0.005 c>s icmp 8/0 mac=x>d
"""
SERVED = """
0.0001 c>s S seq=0 mss=1460 ttl=63 mac=d>rs
0.001 s>c SA seq=0 ack=1 mss=1460 mac=rs>x
0.0021 c>s A seq=1 ack=1 ttl=63 mac=d>rs
0.0031 c>s PA seq=1 ack=1 len=100 ttl=63 mac=d>rs
0.004 s>c PA seq=1 ack=101 len=400 mac=rs>x
0.005 c>s A seq=101 ack=401 ttl=63 mac=d>rs
0.006 c>s icmp 8/0 ttl=63 mac=d>rs
"""


def found(made):
    """Return the rule's findings of a case by cause code."""
    outcomes = capture_quality.check(made)
    return {item.cause.code: item for item in outcomes if isinstance(item, Finding)}


def changed(text, *exprs, **info):
    """Return a realserver's case with columns of `packets` or its capture's info changed."""
    (table,) = case(rs1=text).vantages
    captures = tuple(replace(item, **info) for item in table.captures)
    return Case((replace(table, packets=table.packets.with_columns(exprs), captures=captures),))


def test_a_director_in_direct_routing_is_as_it_should_be():
    """One direction, each packet twice with another MAC: neither half nor doubled."""
    outcomes = list(capture_quality.check(case(director=FORWARDING, rs1=SERVED)))
    assert not [item for item in outcomes if isinstance(item, Finding)]
    assert {item.examined.packets for item in outcomes if isinstance(item, Clean)} == {7}


@pytest.mark.parametrize(("dropped", "code"), [(0, None), (1, "dropped-packets")])
def test_what_the_capturing_program_dropped(dropped, code):
    """One dropped packet is one too many to say nothing of; none is none."""
    remarks = found(changed(SERVED, dropped=dropped))
    assert set(remarks) == ({code} if code else set())
    if code:
        assert remarks[code].severity is Severity.LOW
        assert remarks[code].facts["count"] == 1


def holes(count):
    """Return a download of 300 segments of which `count` are not in the capture, though acked."""
    lines = [
        f"{1 + n / 1000:.4f} s>c A seq={401 + n * 100} ack=101 len=100 mac=rs>x"
        for n in range(300)
        if n == 299 or n % 20 or n // 20 >= count
    ]
    return SERVED + "\n".join(lines) + "\n2.0 c>s A seq=101 ack=30401 ttl=63 mac=d>rs\n"


@pytest.mark.parametrize(("count", "expected"), [(3, False), (4, True)])
def test_what_must_have_passed_unseen(count, expected):
    """Three of 301 are below one in a hundred, four are above."""
    assert ("missing-packets" in found(case(rs1=holes(count)))) is expected


def test_frames_cut_behind_their_headers_are_only_remarked_on():
    """A snaplen that keeps the headers costs little."""
    remarks = found(changed(SERVED, pl.lit(54, pl.UInt32).alias("caplen")))
    assert {code: item.severity for code, item in remarks.items()} == {"frames-cut": Severity.INFO}


def test_headers_that_are_cut():
    """TRANSPORT_CUT is the decoder's word for it."""
    note = pl.when(pl.col("frame") == 5).then(pl.lit(1 << 10, pl.UInt32)).otherwise("decode_note")
    remarks = found(changed(SERVED, note.alias("decode_note")))
    assert cited(remarks["headers-cut"]) == {("rs1", 5)}


def test_icmp_that_is_cut_cannot_be_verified():
    """Messages whose frames were not kept whole, and not fragments."""
    text = SERVED + "0.1 r>s icmp 3/1 quote=5 mac=x>rs !\n"
    (table,) = case(rs1=text).vantages
    icmp = table.icmp.with_columns(
        pl.lit("unverifiable").cast(table.icmp.schema["icmp_checksum"]).alias("icmp_checksum")
    )
    cut = table.packets.with_columns(pl.lit(60, pl.UInt32).alias("caplen"))
    remarks = found(Case((replace(table, icmp=icmp, packets=cut),)))
    assert cited(remarks["icmp-cut"]) == marked(rs1=text)
    assert "frames-cut" not in remarks
    assert found(Case((replace(table, icmp=icmp),))) == {}


@pytest.mark.parametrize(("length", "expected"), [(1480, False), (1481, True)])
def test_segments_larger_than_the_mss_allows(length, expected):
    """1520 bytes are what an MSS of 1460 and full options could make at most."""
    text = SERVED + f"0.1 s>c A seq=401 ack=101 len={length} mac=rs>x\n"
    assert ("offload" in found(case(rs1=text))) is expected


def test_each_frame_twice():
    """A bond and its slave both show every packet; a single double is the network's own."""
    lines = [line for line in SERVED.splitlines() if line]
    twice = "\n".join(
        part
        for number, line in enumerate(lines)
        for part in (line, f"{line.split()[0]}1 copy {2 * number + 1}")
    )
    remarks = found(case(rs1=twice))
    assert remarks["captured-twice"].facts["count"] == 7
    once = (
        SERVED
        + "0.0051 copy 6\n"
        + "".join(
            f"{1 + n / 100:.2f} s>c A seq={401 + n} ack=101 len=1 mac=rs>x\n" for n in range(30)
        )
    )
    assert "captured-twice" not in found(case(rs1=once))


def one_way(silent, answered):
    """Return connections of which some show no answers."""
    lines = []
    for number in range(silent + answered):
        client, at = f"c:{41000 + number}", 1 + number / 10
        lines += [
            f"{at:.3f} {client}>s S seq=0 mss=1460 ttl=63 mac=d>rs",
            f"{at + 0.002:.3f} {client}>s A seq=1 ack=1 ttl=63 mac=d>rs",
            f"{at + 0.003:.3f} {client}>s A seq=1 ack=1 len=9 ttl=63 mac=d>rs",
        ]
        if number >= silent:
            lines.insert(-2, f"{at + 0.001:.3f} s>{client} SA seq=0 ack=1 mss=1460 mac=rs>x")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("silent", "answered", "expected"), [(2, 0, False), (3, 0, True), (9, 1, True), (8, 1, False)]
)
def test_one_direction_only(silent, answered, expected):
    """Nine of ten connections of a realserver, and at least three."""
    assert ("one-sided" in found(case(rs1=one_way(silent, answered)))) is expected
    assert "one-sided" not in found(case(director=one_way(silent, answered)))


def test_syns_without_an_answer_are_no_half_capture():
    """Whoever repeats a SYN got nothing: there is no other direction to miss."""
    text = "".join(
        f"{1 + n}.0 c:{41000 + m}>s S seq=0 mss=1460 ttl=63 mac=d>rs\n"
        for m in range(4)
        for n in range(3)
    )
    assert "one-sided" not in found(case(rs1=text))


def test_frames_without_a_target():
    """Captures on "any" keep only the sender's address."""
    remarks = found(changed(SERVED, pl.lit(None, pl.UInt64).alias("eth_dst")))
    assert remarks["no-target-macs"].severity is Severity.INFO


def test_frames_without_a_time():
    """A simple packet block has none."""
    text = SERVED + "- c>s A seq=101 ack=401 mac=d>rs !\n"
    assert cited(found(case(rs1=text))["time-missing"]) == marked(rs1=text)


@pytest.mark.parametrize(("back", "expected"), [("0.9000", False), ("0.8999", True)])
def test_time_that_steps_back(back, expected):
    """A tenth of a second is disorder; more is a clock that was set."""
    text = SERVED + "1.0 c>s A seq=101 ack=401 ttl=63 mac=d>rs\n"
    text += f"{back} c>s A seq=102 ack=401 ttl=63 mac=d>rs !\n"
    remarks = found(case(rs1=text))
    assert ("time-steps-back" in remarks) is expected
    if expected:
        assert cited(remarks["time-steps-back"]) == marked(rs1=text)


def test_captures_that_share_nothing_and_captures_of_another_hour():
    """Clocks need packets in common, and captures need a time in common."""
    stranger = SERVED.replace("c>s", "c2>s2").replace("s>c", "s2>c2")
    assert "clock-not-aligned" in found(case(rs1=SERVED, rs2=stranger))
    late = "".join(f"36{line}\n" for line in stranger.splitlines() if line)
    assert "not-simultaneous" in found(case(rs1=SERVED, rs2=late))


@pytest.mark.parametrize(
    ("ahead", "told"),
    [(0.999, None), (1.001, "+1.001 s"), (-0.999, None), (-1.001, "-1.001 s")],
)
def test_a_clock_that_is_off_by_a_second(ahead, told):
    """Less is corrected without a word; the clock that is off is named, and in which direction."""
    shifted = "".join(
        f"{1 + ahead + float(line.split()[0]):.4f} {line.split(maxsplit=1)[1]}\n"
        for line in SERVED.splitlines()
        if line
    )
    before = FORWARDING.replace("\n0.", "\n1.")
    remarks = found(case(director=before, rs1=shifted))
    assert set(remarks) == ({"clock-offset"} if told else set())
    if told:
        assert remarks["clock-offset"].subject == "rs1"
        assert told in remarks["clock-offset"].summary
        assert "clocks" in remarks["clock-offset"].remedies[0].action


def test_a_filter_that_leaves_icmp_out():
    """One echo request shows that it does not; of a host that is not known nothing is expected."""
    without = "\n".join(line for line in SERVED.splitlines() if "icmp" not in line)
    remarks = found(case(rs1=without))
    assert set(remarks) == {"icmp-left-out"}
    assert remarks["icmp-left-out"].severity is Severity.INFO
    assert found(case(rs1=SERVED)) == {}
    assert found(case(nobody=without)) == {}


def test_a_file_that_ends_within_a_record():
    """Cited is the last whole frame; a file that ends with a record is whole."""
    remarks = found(changed(SERVED, cut_short=True))
    assert {code: cited(item) for code, item in remarks.items()} == {"cut-short": {("rs1", 7)}}
    assert found(changed(SERVED, cut_short=False)) == {}


def test_an_empty_capture_is_not_examined():
    """Of nothing nothing can be said, and clean least of all."""
    outcomes = list(capture_quality.check(case(rs1="")))
    assert [type(item) for item in outcomes] == [NotExamined]


def test_many_cut_frames_are_one_remark():
    """Five of them are cited, all are counted."""
    flood = floods.case(SERVED, name="rs1", role="realserver", caplen=pl.lit(30, pl.UInt32))
    remarks = found(flood)
    assert remarks["frames-cut"].count == floods.COUNT
    assert len(remarks["frames-cut"].evidence) == 5
