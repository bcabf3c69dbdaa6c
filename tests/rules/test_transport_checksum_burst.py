"""transport-checksum-burst reads the frames again and believes a bad sum only where it arrives."""

from __future__ import annotations

import struct
from dataclasses import replace

import floods
import polars as pl
import pytest
from pcapdiag.rules import transport_checksum_burst
from stories import cited
from traces import trace

from pcapdiag import engine
from pcapdiag.capture.vantages import resolve
from pcapdiag.case import Case
from pcapdiag.case.wire import transport_sums
from pcapdiag.result import Clean, Finding, NotExamined, Severity
from pcapdiag.schema import VERDICTS

HEALTHY = """
0.000 c2>s S seq=0 mss=1460 ttl=63 mac=d>rs
0.001 s>c2 SA seq=0 ack=1 mss=1460 mac=rs>x
0.002 c2>s A seq=1 ack=1 ttl=63 mac=d>rs
0.003 c2>s PA seq=1 ack=1 len=100 ttl=63 mac=d>rs
0.004 s>c2 PA seq=1 ack=101 len=400 mac=rs>x
0.005 c2>s A seq=101 ack=401 ttl=63 mac=d>rs
"""
WINDOW = 14 + 20 + 14


def syns(count, step=1.0):
    """Return a SYN and its repetitions, marked."""
    return "".join(
        f"{1 + number * step:.3f} c>s S seq=0 mss=1460 id={100 + number} ttl=63 mac=d>rs !\n"
        for number in range(count)
    )


def written(folder, name, text, *, offset=WINDOW, word=lambda _number: 0x0111, frames=None):
    """Write a capture in which each marked frame has another word at `offset`; return its input."""
    made = trace(text)
    path = made.write(folder / f"{name}.pcap")
    data, at = bytearray(path.read_bytes()), 24
    for number in range(1, len(made.packets) + 1):
        length = struct.unpack_from("<I", data, at + 8)[0]
        if number in (made.marked if frames is None else frames):
            struct.pack_into("!H", data, at + 16 + offset, word(number))
        at += 16 + length
    path.write_bytes(data)
    return f"{name}={path}"


def load(*inputs):
    """Return the case of some captures."""
    entries, errors = resolve(list(inputs))
    assert not errors
    return engine.load(entries).case


def judge(case):
    """Return the rule's findings, clean verdicts and questions not examined."""
    outcomes = list(transport_checksum_burst.check(case))
    return (
        [item for item in outcomes if isinstance(item, Finding)],
        [item for item in outcomes if isinstance(item, Clean)],
        [item for item in outcomes if isinstance(item, NotExamined)],
    )


def test_syns_that_arrive_broken_are_cited(tmp_path):
    """The same field overwritten each time leaves the same difference."""
    text = HEALTHY + syns(5)
    (finding,), _, _ = judge(load(written(tmp_path, "rs1", text)))
    assert finding.cause.code == "rewritten-without-checksum"
    assert cited(finding) == {("rs1", number) for number in trace(text).marked}
    assert finding.facts["residual"] == f"0x{(0x0111 - 64240) % 0xFFFF:04x}"
    assert finding.severity is Severity.HIGH
    assert finding.scope.direction == "to-realserver"
    assert [flow.client for flow in finding.flows] == ["198.51.100.20:40000"]


def test_different_differences_are_corruption(tmp_path):
    """A word that is another each time."""
    made = written(tmp_path, "rs1", HEALTHY + syns(5), word=lambda number: 977 * number)
    (finding,), _, _ = judge(load(made))
    assert finding.cause.code == "corrupted"
    assert finding.facts["residual"] is None


@pytest.mark.parametrize(("count", "step", "found"), [(5, 15.0, 1), (4, 1.0, 0), (5, 15.01, 0)])
def test_five_within_a_minute_make_a_burst(count, step, found, tmp_path):
    """Both sides of both thresholds."""
    findings, clean, _ = judge(load(written(tmp_path, "rs1", HEALTHY + syns(count, step))))
    assert len(findings) == found
    assert len(clean) == 1 - found


@pytest.mark.parametrize(("good", "found"), [(91, 1), (92, 0)])
def test_one_in_twenty_must_be_bad(good, found, tmp_path):
    """Five of a hundred are, five of 101 are not."""
    more = "".join(
        f"{1 + n / 100:.3f} c2>s A seq={101 + n} ack=401 ttl=63 mac=d>rs\n" for n in range(good)
    )
    # What the realserver sends is of another kind.
    more += "".join(f"3.{n:03} s>c2 A seq=401 ack={101 + n} mac=rs>x\n" for n in range(100))
    findings, _, _ = judge(load(written(tmp_path, "rs1", HEALTHY + more + syns(5))))
    assert len(findings) == found


def test_what_the_capturing_host_sends_is_left_to_its_card(tmp_path):
    """The realserver's own segments, without answers for want of a client's capture."""
    own = HEALTHY + "".join(
        f"{1 + n}.0 s>c2 PA seq=401 ack=101 len=300 mac=rs>x id={60 + n} !\n" for n in range(6)
    )
    assert judge(load(written(tmp_path, "rs1", own)))[0] == []


def test_a_sum_to_be_completed_is_no_bad_one(tmp_path):
    """CHECKSUM_PARTIAL: the pseudo-header's sum stands in the field."""
    head = bytes([198, 51, 100, 20, 203, 0, 113, 10]) + struct.pack("!HH", 6, 24)
    total = sum(struct.unpack("!6H", head))
    partial = (total & 0xFFFF) + (total >> 16)
    made = written(
        tmp_path, "rs1", HEALTHY + syns(6), offset=14 + 20 + 16, word=lambda _number: partial
    )
    assert judge(load(made))[0] == []


def test_what_was_acknowledged_was_taken(tmp_path):
    """Data whose capture is wrong and whose receiver is content."""
    text = HEALTHY + "".join(
        f"{1 + n / 10:.2f} c2>s PA seq={101 + n} ack=401 len=1 ttl=63 mac=d>rs !\n"
        for n in range(6)
    )
    text += "2.0 s>c2 A seq=401 ack=107 mac=rs>x\n"
    assert judge(load(written(tmp_path, "rs1", text)))[0] == []


def test_packets_larger_than_any_were_merged(tmp_path):
    """The first segment's checksum stands before all of them."""
    text = HEALTHY + "".join(
        f"{1 + n}.0 c2>s PA seq=101 ack=401 len=2920 ttl=63 mac=d>rs id={70 + n} !\n"
        for n in range(6)
    )
    assert judge(load(written(tmp_path, "rs1", text)))[0] == []


def at_director(count):
    """Return what a director in direct routing sees of HEALTHY and of syns: in, and out again."""
    lines = [line for line in HEALTHY.splitlines() if " c2>s " in line]
    lines += syns(count).replace(" !", "").splitlines()
    both = []
    for number, line in enumerate(lines):
        time = float(line.split()[0])
        both.append(f"{time - 0.0004 if time else 0:.4f} {line.split(' ', 1)[1]}")
        both[-1] = both[-1].replace("ttl=63 mac=d>rs", "mac=x>d")
        both.append(f"{time - 0.0002 if time else 0:.4f} copy {2 * number + 1} ttl=63 mac=d>rs")
    return "\n".join(both) + "\n"


def test_the_last_place_where_they_were_right_is_named(tmp_path):
    """Right at the director, broken at the realserver: between them."""
    good = written(tmp_path, "director", at_director(5))
    (finding,), _, _ = judge(load(good, written(tmp_path, "rs1", HEALTHY + syns(5))))
    assert finding.facts["last_right_at"] == "director"
    assert finding.hosts["last_right_at"] == "director"


def test_right_further_on_is_the_capture_s_fault(tmp_path):
    """Broken at the director's capture, right at the realserver."""
    bad = written(tmp_path, "director", at_director(5), frames=range(9, 19))
    assert judge(load(bad, written(tmp_path, "rs1", HEALTHY + syns(5), frames=())))[0] == []


def test_captures_that_cannot_be_read_again_are_not_examined(tmp_path):
    """Nothing is clean that was not looked at."""
    made = written(tmp_path, "rs1", HEALTHY + syns(5))
    case = load(made)
    (tmp_path / "rs1.pcap").unlink()
    findings, clean, not_examined = judge(case)
    assert (findings, clean) == ([], [])
    assert "cannot be read a second time" in not_examined[0].reason


def test_a_capture_that_was_replaced_is_not_examined(tmp_path):
    """Another file in its place, as in a ring, proves nothing of the one that was analysed."""
    made = written(tmp_path, "rs1", HEALTHY + syns(5), frames=())
    case = load(made)
    written(tmp_path, "rs1", "\n".join([HEALTHY, syns(5)]).replace("0.", "1."))
    findings, clean, not_examined = judge(case)
    assert (findings, clean) == ([], [])
    assert "cannot be read a second time" in not_examined[0].reason


def test_right_checksums_are_clean_and_cut_frames_not_examined(tmp_path):
    """Clean counts what was verified; cut frames cannot be."""
    _, clean, _ = judge(load(written(tmp_path, "rs1", HEALTHY)))
    assert clean[0].examined.packets == 6
    case = load(written(tmp_path, "rs1", HEALTHY))
    (table,) = case.vantages
    cut = table.packets.with_columns(pl.col("wire_len") + 1)
    findings, clean, not_examined = judge(Case((replace(table, packets=cut),)))
    assert (findings, clean) == ([], [])
    assert "snaplen" in not_examined[0].needs[0]


def test_of_large_captures_the_troubled_connections_are_verified(tmp_path, monkeypatch):
    """Connections that repeat or get no answer, and of these what carries something."""
    monkeypatch.setattr(transport_sums, "VERIFY_ALL", 0)
    case = load(written(tmp_path, "rs1", HEALTHY + syns(5)))
    assert case.sums_verified == (5,)
    assert len(judge(case)[0]) == 1


def test_an_outer_checksum_is_judged_by_itself(tmp_path):
    """VXLAN: the outer UDP checksum fails, and what is inside is right."""
    case = load(written(tmp_path, "rs1", HEALTHY + syns(5), frames=()))
    rows = list(range(6, 11))
    sums = pl.DataFrame(
        {
            "row": pl.Series(rows, dtype=pl.UInt32),
            "layer": ["outer"] * 5,
            "verdict": pl.Series(["bad"] * 5, dtype=VERDICTS),
            "partial": [False] * 5,
            "residual": pl.Series([7] * 5, dtype=pl.UInt16),
            "vantage": pl.Series([0] * 5, dtype=pl.UInt16),
        }
    )
    (old,) = case.verified_sums
    both = pl.concat([old.sums, sums.select(old.sums.columns)])
    case.__dict__["verified_sums"] = (transport_sums.Verified(both, ()),)
    (finding,), _, _ = judge(case)
    assert finding.cause.code == "outer-checksum"
    assert "tx-checksum-ip-generic off" in finding.remedies[0].commands[0]


def test_many_bad_sums_are_one_finding():
    """As many verdicts as that, without the file that it would take."""
    flood = floods.case(HEALTHY + syns(1), name="rs1", role="realserver")
    bad = pl.DataFrame({"row": pl.arange(6, 6 + floods.COUNT, dtype=pl.UInt32, eager=True)}).select(
        pl.lit(0, pl.UInt16).alias("vantage"),
        "row",
        pl.lit("transport").alias("layer"),
        pl.lit("bad").cast(VERDICTS).alias("verdict"),
        pl.lit(value=False).alias("partial"),
        pl.lit(7, pl.UInt16).alias("residual"),
    )
    flood.__dict__["verified_sums"] = (transport_sums.Verified(bad, ()),)
    (finding,) = transport_checksum_burst.check(flood)
    assert finding.count > 0.8 * floods.COUNT
    assert len(finding.evidence) == transport_checksum_burst.MAX_CITED


def test_small_packets_that_are_right_say_nothing_of_those_that_are_cut(tmp_path):
    """A snaplen keeps acknowledgements whole, and none of the packets that carry something."""
    case = load(written(tmp_path, "rs1", HEALTHY))
    (table,) = case.vantages
    carries = (pl.col("payload_len") > 0) | (pl.col("tcp_flags") & 2 != 0)
    cut = table.packets.with_columns(pl.col("wire_len") + carries.cast(pl.UInt32))
    findings, clean, missing = judge(Case((replace(table, packets=cut),)))
    assert (findings, clean) == ([], [])
    assert "were not captured whole" in missing[0].reason
