"""The sequence diagram: columns, fates, relative times."""

from __future__ import annotations

from pcapdiag.report import figure_ladder
from pcapdiag.result import LadderStep


def test_columns_follow_appearance(incident):
    """Hosts stand in the order in which they act, inside the drawing."""
    figure = figure_ladder.lay_out(incident.findings[1].ladder)
    assert [actor.name for actor in figure.actors] == ["client", "director", "rs1", "router"]
    places = [actor.x for actor in figure.actors]
    assert places == sorted(places)
    assert 0 < places[0] < places[-1] < figure.width


def test_fates_are_words_and_forms(incident):
    """A lost arrow ends early with a cross, and its label says so."""
    arrows = figure_ladder.lay_out(incident.findings[1].ladder).arrows
    lost = arrows[2]
    assert lost.label.endswith("(lost)")
    assert lost.cross is not None
    assert lost.x1 > lost.x2 > arrows[0].x1 + 40
    assert arrows[5].label.endswith("(not visible in the captures)")
    assert arrows[0].cross is None


def test_times_are_relative_and_may_lack(incident):
    """The first step is zero; a step without a time has none."""
    figure = figure_ladder.lay_out(incident.findings[1].ladder)
    times = [arrow.time for arrow in figure.arrows]
    assert times == [
        "+0.000000 s",
        "+0.001000 s",
        "+0.012000 s",
        "+0.013000 s",
        "",
        "+0.210000 s",
    ]
    assert figure.start == "2024-05-01 12:00:01.200000 UTC"


def test_too_much_or_nothing_makes_no_figure():
    """More hosts than columns leave it to the table."""
    steps = [LadderStep(from_=f"a{n}", to=f"b{n}", label="x") for n in range(4)]
    assert figure_ladder.lay_out(steps) is None
    assert figure_ladder.lay_out([]) is None


def test_long_ladders_and_labels_are_cut():
    """Only the first steps are drawn, and no label leaves the drawing."""
    steps = [LadderStep(from_="a", to="b", label="W" * 500)] * 100
    figure = figure_ladder.lay_out(steps)
    assert len(figure.arrows) == figure_ladder.MAX_STEPS
    assert all(len(arrow.label) <= 84 for arrow in figure.arrows)
    assert figure.start == ""


def test_a_host_may_speak_to_itself():
    """A loop is an arrow of some length."""
    arrow = figure_ladder.lay_out([LadderStep(from_="a", to="a", label="x")]).arrows[0]
    assert arrow.x2 > arrow.x1
