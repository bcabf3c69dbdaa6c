"""Offsets with their bounds: right within them, refused where nothing supports one."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

SECOND = 1_000_000_000
START_NS = 1_700_000_000 * SECOND


def busy(net, seconds: int = 0) -> None:
    """Let traffic flow, over some time where asked."""
    net.arp()
    for _ in range(4 if not seconds else 20):
        net.connect("rs1")
        net.connect("rs2")
        net.wait(seconds * SECOND // 20)


@pytest.mark.parametrize("offset", [0, 7 * SECOND, -86400 * SECOND, 1_234_567])
@pytest.mark.parametrize("kind", [{"method": "dr"}, {"method": "nat", "rport": 8080}])
def test_the_true_offset_is_within_the_bound(cluster, analyse, kind, offset) -> None:
    """Whatever the clocks were, the offset that was put in comes out."""
    net = cluster(**kind)
    net.recorders["rs1"].clock_ns = offset
    net.recorders["router"].clock_ns = -offset // 2
    busy(net)
    names = ("director", "rs1", "rs2", "router")
    found = analyse(net.tables(*names)).clocks
    true = [net.recorders[name].clock_ns for name in names]
    for index in range(len(names)):
        assert found.offset_ns[index] is not None, found.reasons[index]
        error = abs(found.offset_ns[index] - (true[found.reference] - true[index]))
        assert error <= found.error_ns[index] <= SECOND // 100, found.reasons[index]


def test_both_directions_bound_tightly(cluster, analyse) -> None:
    """Director and realserver of NAT exchange packets both ways: half a round trip at most."""
    net = cluster(method="nat", rport=8080)
    busy(net)
    clocks = analyse(net.tables("director", "rs1")).clocks
    assert max(clocks.error_ns) <= 60_000


def test_one_direction_without_help_has_no_bound(cluster, analyse) -> None:
    """Requests alone cannot say how long they took, and the reason says so."""
    net = cluster()
    client, service = net.ends()
    for number in range(5):
        net.request(net.packet(client, service, tcp_seq=number, payload_len=1), "rs1")
        net.wait(SECOND)
    clocks = analyse(net.tables("director", "rs1")).clocks
    assert sorted(clocks.error_ns, key=lambda item: item is None) == [0, None]
    assert any("one direction" in reason for reason in clocks.reasons)


def test_handshakes_bound_where_packets_go_one_way(cluster, analyse) -> None:
    """In DR the acknowledgement at the director was sent after the SYN-ACK left the realserver."""
    net = cluster()
    net.recorders["rs1"].clock_ns = 3 * SECOND
    for _ in range(3):
        net.connect("rs1")
    clocks = analyse(net.tables("director", "rs1")).clocks
    assert None not in clocks.error_ns
    true = 3 * SECOND * (1 if clocks.reference == 1 else -1)
    other = 1 - clocks.reference
    assert abs(clocks.offset_ns[other] - true) <= clocks.error_ns[other]


def test_arp_narrows_the_bound(cluster, analyse) -> None:
    """The realserver's answer goes the other way than all requests."""
    errors = []
    for asked in (False, True):
        net = cluster()
        if asked:
            net.arp()
        for _ in range(3):
            net.connect("rs1")
        errors.append(max(analyse(net.tables("director", "rs1")).clocks.error_ns))
    assert errors[1] < errors[0]


def test_without_shared_packets_there_is_no_offset(cluster, analyse) -> None:
    """Two realservers see nothing of each other's connections."""
    net = cluster()
    busy(net)
    clocks = analyse(net.tables("rs1", "rs2")).clocks
    assert clocks.offset_ns == (0, None)
    assert "no packet was seen both here and at" in clocks.reasons[1]


def test_a_clock_that_was_stepped_is_refused(cluster, analyse) -> None:
    """Half the capture is two seconds off: no one offset fits."""
    net = cluster(method="nat", rport=8080)
    busy(net)
    net.recorders["rs1"].clock_ns = 2 * SECOND
    busy(net)
    clocks = analyse(net.tables("director", "rs1")).clocks
    assert clocks.offset_ns.count(None) == 1
    assert any("contradict each other by" in reason for reason in clocks.reasons)


def time_of(net) -> str:
    """Return the cluster's time as reasons write it."""
    moment = datetime.fromtimestamp(net.time_ns // 1000 / 1_000_000, UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03} UTC"


@pytest.mark.parametrize("step", [2 * SECOND, -3 * SECOND])
@pytest.mark.parametrize("names", [("director", "rs1"), ("rs1", "director")])
def test_the_moment_of_a_step_is_named(cluster, analyse, step, names) -> None:
    """It lies between the last packet before and the first ones after, by the clock named."""
    net = cluster(method="nat", rport=8080)
    busy(net, 40)
    before = time_of(net)
    net.recorders["rs1"].clock_ns = step
    net.wait(10 * SECOND)
    after = net.time_ns
    busy(net, 40)
    clocks = analyse(net.tables(*names)).clocks
    (reason,) = (item for item in clocks.reasons if "contradict each other" in item)
    first, last, clock = re.search(
        r"stepped between (.* UTC) and (.* UTC) by the clock of (\w+)", reason
    ).groups()
    if clock == "director":
        assert first <= before
        assert before < last
        net.time_ns = after + 5 * SECOND
        assert last < time_of(net)
        net.time_ns = after - 15 * SECOND
        assert first > time_of(net)
    else:
        assert first < last


def test_two_steps_have_no_one_moment(cluster, analyse) -> None:
    """There and back again: nothing is named that would explain a half of it."""
    net = cluster(method="nat", rport=8080)
    for offset in (0, 2 * SECOND, 0):
        net.recorders["rs1"].clock_ns = offset
        busy(net)
        net.wait(SECOND)
    clocks = analyse(net.tables("director", "rs1")).clocks
    assert any("more than once or runs unevenly" in reason for reason in clocks.reasons)


@pytest.mark.parametrize("ppm", [40.0, -80.0])
def test_a_drift_is_found_and_taken_out(cluster, analyse, ppm) -> None:
    """Over twenty minutes 40 ppm are 48 ms, far more than the delays of a LAN."""
    net = cluster(method="nat", rport=8080)
    net.recorders["rs1"].drift_ppm = ppm
    busy(net, seconds=1200)
    found = analyse(net.tables("director", "rs1"))
    clocks = found.clocks
    other = 1 - clocks.reference
    sign = 1 if other == 1 else -1
    assert clocks.drift_ppb[other] == pytest.approx(sign * ppm * 1000, rel=0.05)
    for row in (0, -1):
        (rs1,) = (found.coverage.vantages[1],)
        seen = rs1.packets.get_column("time_ns").drop_nulls()[row]
        true = round((seen - 1_700_000_000_000_000_000) / (1 + ppm / 1e6))
        common = clocks.common(1, seen) if other == 1 else seen
        if other == 1:
            assert abs(common - 1_700_000_000_000_000_000 - true) < 2_000_000


@pytest.mark.parametrize(("ppm", "aligned"), [(150.0, True), (-150.0, True), (400.0, False)])
def test_what_two_crystals_may_drift_in_a_short_capture_is_no_step(
    cluster, analyse, ppm, aligned
) -> None:
    """In twenty seconds 150 ppm are 3 ms: too little to measure, too much for one offset."""
    net = cluster(method="nat", rport=8080)
    net.recorders["rs1"].drift_ppm = ppm
    busy(net, seconds=20)
    found = analyse(net.tables("director", "rs1"))
    clocks, reference = found.clocks, found.clocks.reference
    assert (clocks.offset_ns[1 - reference] is not None) is aligned
    if aligned:
        packets = found.coverage.vantages[1].packets
        for row in (0, -1):
            seen = packets.get_column("time_ns").drop_nulls()[row]
            true = START_NS + round((seen - START_NS) / (1 + ppm / 1e6))
            drifting = clocks.common(1, seen) - clocks.common(0, true)
            assert abs(drifting) <= clocks.error_ns[1 - reference]


def test_a_steady_clock_has_no_drift(cluster, analyse) -> None:
    """Jitter over twenty minutes is not taken for one."""
    net = cluster(method="nat", rport=8080)
    busy(net, seconds=1200)
    clocks = analyse(net.tables("director", "rs1")).clocks
    assert clocks.drift_ppb == (0, 0)


def test_a_chain_adds_its_errors(cluster, analyse) -> None:
    """Two realservers are compared through the director."""
    net = cluster()
    net.recorders["rs2"].clock_ns = SECOND
    busy(net)
    clocks = analyse(net.tables("rs1", "director", "rs2")).clocks
    assert None not in clocks.offset_ns
    difference = clocks.offset_ns[2] - clocks.offset_ns[0]
    assert abs(difference + SECOND) <= clocks.error_ns[2] + clocks.error_ns[0]


def test_a_slow_link_that_both_ends_captured_is_no_contradiction(cluster, analyse) -> None:
    """Router and director of NAT speak with each other only: one way round alone fits."""

    class Slow(cluster):
        def wait(self, nanoseconds: int = 5_000_000) -> None:
            """Let five milliseconds pass on every hop."""
            super().wait(nanoseconds)

    net = Slow(method="nat", rport=8080)
    net.recorders["router"].clock_ns = 3 * SECOND
    for name in ("rs1", "rs2", "rs1", "rs2"):
        net.connect(name)
    recorder = net.recorders["director"]
    recorder.without({n for n, row in enumerate(recorder.rows) if row["interface"] == 1})
    clocks = analyse(net.tables("router", "director")).clocks
    apart = clocks.offset_ns[1] - clocks.offset_ns[0]
    assert abs(apart - 3 * SECOND) <= max(clocks.error_ns) < 6_000_000


def test_arp_narrows_the_bound_though_it_was_captured_twice(cluster, analyse) -> None:
    """A double follows within microseconds: it does not make an answer ambiguous."""
    errors = []
    for doubled in (False, True):
        net = cluster()
        net.arp()
        if doubled:
            for recorder in net.recorders.values():
                for number, entry in enumerate(list(recorder.arp)):
                    row = recorder.rows[entry["row"]]
                    recorder.rows.append({**row, "time_ns": row["time_ns"] + 1000})
                    recorder.arp.insert(2 * number + 1, {**entry, "row": len(recorder.rows) - 1})
        for _ in range(3):
            net.connect("rs1")
        errors.append(max(analyse(net.tables("director", "rs1")).clocks.error_ns))
    assert errors[0] == errors[1]
