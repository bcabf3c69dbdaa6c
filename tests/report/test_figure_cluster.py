"""The cluster's figure: roles in columns, arrows that can be told apart."""

from __future__ import annotations

import itertools
import math

from pcapdiag.report import figure_cluster
from pcapdiag.result import Cluster, Edge, Host


def test_roles_are_columns(incident):
    """Strangers, routers, directors, realservers from left to right."""
    figure = figure_cluster.lay_out(incident.cluster)
    place = {node.name: node for node in figure.nodes}
    assert place["client"].x < place["router"].x < place["director"].x < place["rs1"].x
    assert place["rs1"].x == place["rs2"].x
    assert place["rs1"].address == "10.0.0.11"


def test_numbers_follow_the_table_and_do_not_cover_each_other(incident):
    """Each arrow has the number of its row; broken ones are marked."""
    lines = figure_cluster.lay_out(incident.cluster).lines
    assert [line.number for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line.broken for line in lines] == [False] * 5 + [True]
    for one, other in itertools.combinations(lines, 2):
        assert math.dist((one.x, one.y), (other.x, other.y)) > 18


def test_everything_stays_inside():
    """A full column, arrows both ways, around and within a column keep inside the drawing."""
    servers = [f"rs{n}" for n in range(figure_cluster.MAX_NODES)]
    edges = [Edge(from_="director", to=name) for name in servers]
    edges += [Edge(from_=name, to="client") for name in servers]
    edges += [Edge(from_="rs0", to="rs7"), Edge(from_="rs7", to="rs0")]
    cluster = Cluster(
        directors=(Host(name="director"),),
        realservers=tuple(Host(name=name) for name in servers),
        edges=tuple(edges),
    )
    figure = figure_cluster.lay_out(cluster)
    for line in figure.lines:
        assert 9 <= line.x <= figure.width - 9
        assert 9 <= line.y <= figure.height - 9


def test_too_large_or_empty_makes_no_figure():
    """A cluster that cannot be followed by eye is left to the table."""
    many = tuple(Edge(from_="a", to=f"b{n}") for n in range(9))
    assert figure_cluster.lay_out(Cluster(edges=many)) is None
    doubled = (Edge(from_="a", to="b"),) * (figure_cluster.MAX_EDGES + 1)
    assert figure_cluster.lay_out(Cluster(edges=doubled)) is None
    assert figure_cluster.lay_out(Cluster()) is None


def test_one_lonely_host_is_drawn():
    """A host that speaks to itself does not fail."""
    assert figure_cluster.lay_out(Cluster(edges=(Edge(from_="a", to="a"),))).nodes
