"""Two directors for one VIP: side by side (ECMP), one after the other (failover), two clusters."""

from __future__ import annotations

import polars as pl
import pytest
from ipvs_model import START_NS, World, mac
from modelled import modelled

from pcapdiag.addresses import ip_text

METHODS = [("dr", None), ("nat", None), ("tun", "ipip")]


class TwoDirectors(World):
    """`turn` decides which director takes a packet: 0 the first, 1 the second."""

    def __init__(self, method: tuple[str, str | None]) -> None:
        """Put a second director beside the first."""
        super().__init__(7, method, v6=False)
        self.vantages["director2"] = type(self.vantages["director"])("director2")
        self.macs["director2"] = mac(0x20)
        self.macs["inside2"] = mac(0x21 if self.two_arms else 0x20)

    def turn(self, owner: int) -> int:
        """Return which director has a connection: equal-cost paths hash it."""
        return owner % 2

    def tap(self, name, packet, source, target, place, raw=None) -> None:
        """Let the director whose turn it is stand where the model has one."""
        if self.turn(packet.owner):
            name, source, target = (
                {"director": "director2", "inside": "inside2"}.get(each, each)
                for each in (name, source, target)
            )
        super().tap(name, packet, source, target, place, raw)


class Failover(TwoDirectors):
    """The second director takes over, knowing the connections, in the middle of the captures."""

    middle_ns = 4_000_000_000

    def turn(self, owner: int) -> int:
        """Return who is master now."""
        del owner
        return int(self.now > START_NS + self.middle_ns)


@pytest.mark.parametrize("kind", [TwoDirectors, Failover])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method[0])
def test_both_directors_are_directors_and_nothing_is_missed(tmp_path, kind, method) -> None:
    """Each packet is judged where it came, each connection has its one realserver."""
    world = kind(method)
    world.run(8)
    names = ("director", "director2", "rs1", "rs2")
    found = modelled(world, names, tmp_path, labelled=kind is Failover)
    case = found.case
    assert [case.role(index) for index in range(2)] == ["director"] * 2
    assert {item.method for item in case.topology.services} == {method[0]}
    numbers = case.connections.connections.get_column("connection").to_list()
    for row in case.connections.connections.iter_rows(named=True):
        link = next(item for item in world.connections if item.client_port == row["client_port"])
        if row["realserver_lo"] is not None:
            assert ip_text(row["realserver_hi"], row["realserver_lo"]) == link.address
    unknown = case.connections.connections.get_column("realserver_lo").null_count()
    assert unknown <= 1, "UDP of which one realserver alone was seen"
    judged = case.packet_contract(numbers)
    assert set(judged.get_column("vantage")) == {0, 1}
    for row in judged.iter_rows(named=True):
        seen = found.truth[row["vantage"]][row["in_row"]]
        assert row["verdict"] in {"forwarded", "swallowed", "unknown"}
        assert (row["verdict"] != "forwarded") or seen.uid in world.relayed
        assert (row["verdict"] != "swallowed") or seen.uid not in world.relayed


def test_clusters_thrown_together_stay_apart(tmp_path) -> None:
    """Other addresses, other MACs, other hosts; the clocks cannot be compared, and nothing is."""
    worlds = [World(7, ("dr", None), v6=False), World(8, ("dr", None), v6=True)]
    parts = []
    for number, world in enumerate(worlds):
        world.run(6)
        folder = tmp_path / str(number)
        folder.mkdir()
        parts.append(modelled(world, ("director", "rs1"), folder))
    from dataclasses import replace

    from pcapdiag.case.case import Case

    vantages = [
        replace(vantage, index=index, name=f"{vantage.name}-{index}")
        for index, vantage in enumerate(vantage for part in parts for vantage in part.case.vantages)
    ]
    case = Case(tuple(vantages))
    legs = case.connections.legs.with_columns((pl.col("vantage") // 2).alias("cluster"))
    apart = legs.group_by("connection").agg(pl.col("cluster").n_unique())
    assert apart.get_column("cluster").max() == 1
    assert [offset is None for offset in case.clocks.offset_ns].count(True) == 2
    assert len(case.topology.services) >= 2
    before = sum(len(part.case.connections.connections) for part in parts)
    assert len(case.connections.connections) == before
