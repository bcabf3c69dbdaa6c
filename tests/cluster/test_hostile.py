"""Whatever is missing from captures, nothing is joined wrongly and nothing breaks."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

SECOND = 1_000_000_000

HOSTS = ("router", "director", "rs1", "rs2")

KINDS = [
    {"method": "dr"},
    {"method": "nat", "rport": 8080},
    {"method": "tun", "encapsulation": "gre"},
    {"method": "nat", "one_arm": True, "v6": True},
]


def scene(net) -> dict[int, str]:
    """Let a busy cluster run; return client port -> realserver."""
    owners = {}
    net.arp()
    for number in range(12):
        name = ("rs1", "rs2")[number % 2]
        owners[40100 + number] = name
        last = net.connect(name, port=40100 + number)
        if number % 3 == 0:
            net.error(net.too_big(last), name)
        net.health_check(name)
    net.wait(2 * SECOND)
    net.connect("rs1", port=40100 + 12)
    owners[40112] = "rs1"
    return owners


def chosen(made, names, *, labels: bool) -> list:
    """Return some of the vantages that were made, as if these were all."""
    return [
        replace(
            made[name],
            index=index,
            name=name if labels else f"v{index}",
            role_given=made[name].role_given if labels else None,
        )
        for index, name in enumerate(names)
    ]


def check(net, owners, found) -> None:
    """Hold every realserver that was named against the truth, and every verdict."""
    for row in found.connections.connections.iter_rows(named=True):
        if row["client_port"] in owners and row["realserver_lo"] is not None:
            assert row["realserver_lo"] == net.address[owners[row["client_port"]]][1]
    for verdict, reason in found.verdicts():
        assert verdict in {"forwarded", "unknown"}, reason


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_captures_with_holes_weaken_but_never_mislead(cluster, analyse, kind, seed) -> None:
    """A sixth of all frames lost: realservers may become unknown, never another's."""
    dice = random.Random(seed)  # noqa: S311 - a reproducible choice, not a secret
    net = cluster(**kind)
    owners = scene(net)
    for recorder in net.recorders.values():
        numbers = range(len(recorder.rows))
        recorder.without({number for number in numbers if dice.random() < 1 / 6})
    made = dict(zip(HOSTS, net.tables(*HOSTS), strict=True))
    for names in (("director",), ("director", "rs1", "rs2"), ("rs1", "rs2"), ("router", "rs2")):
        for labels in (True, False):
            check(net, owners, analyse(chosen(made, names, labels=labels)))


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_captures_cut_at_either_end_never_mislead(cluster, analyse, kind, share) -> None:
    """One vantage ends early, another begins late."""
    net = cluster(**kind)
    owners = scene(net)
    for name, recorder in net.recorders.items():
        cut = int(len(recorder.rows) * share)
        late = name in {"rs1", "router"}
        recorder.without(set(range(cut) if late else range(cut, len(recorder.rows))))
    made = dict(zip(HOSTS, net.tables(*HOSTS), strict=True))
    for names in (("director", "rs1", "rs2"), ("router", "director"), ("rs1", "rs2")):
        for labels in (True, False):
            check(net, owners, analyse(chosen(made, names, labels=labels)))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_frames_without_time_or_macs_break_nothing(cluster, analyse, kind) -> None:
    """Simple packet blocks have no time, raw IP captures no MACs."""
    net = cluster(**kind)
    owners = scene(net)
    timeless = net.recorders["director"]
    timeless.rows = [
        {**row, "time_ns": None} if n % 3 else row for n, row in enumerate(timeless.rows)
    ]
    bare = net.recorders["rs1"]
    bare.rows = [{**row, "eth_src": None, "eth_dst": None} for row in bare.rows]
    known = [row["time_ns"] for row in timeless.rows if row["time_ns"] is not None]
    assert known
    for labels in (True, False):
        found = analyse(net.tables("director", "rs1", labels=labels))
        for row in found.connections.connections.iter_rows(named=True):
            if row["client_port"] in owners and row["realserver_lo"] is not None:
                assert row["realserver_lo"] == net.address[owners[row["client_port"]]][1]
