"""The sequence diagram: columns, fates, relative times, ties."""

from __future__ import annotations

from pcapdiag.report import figure_ladder
from pcapdiag.result import LadderStep


def test_columns_follow_the_path(incident):
    """Places stand in the order of the path; those it does not name follow by appearance."""
    steps = incident.findings[1].ladder
    figure = figure_ladder.lay_out(steps)
    assert [column.name for column in figure.columns] == ["client", "director", "rs1", "router"]
    ordered = figure_ladder.lay_out(steps, ("client", "router", "director", "unused"))
    assert [column.name for column in ordered.columns] == ["client", "router", "director", "rs1"]
    places = [column.x for column in ordered.columns]
    assert places == sorted(places)
    assert 0 < places[0] < places[-1] < ordered.width


def test_arrows_of_one_packet_share_a_row(incident):
    """A packet that passes several places is one row, with the frames under their columns."""
    first, *_ = figure_ladder.lay_out(incident.findings[1].ladder).rows
    (start, middle), (again, end) = [(arrow.x1, arrow.x2 + 2) for arrow in first.arrows]
    assert start < middle == again < end
    assert first.frames == ((middle, "#52 … #53"), (end, "#55"))


def test_fates_are_words_and_forms(incident):
    """A lost arrow ends early with a cross, and its label says where."""
    rows = figure_ladder.lay_out(incident.findings[1].ladder).rows
    lost = rows[1]
    assert lost.label == "seq 1:1449, 1500 bytes, DF (lost before client)"
    assert lost.arrows[-1].cross is not None
    assert lost.arrows[0].x1 > lost.arrows[0].x2 > rows[0].arrows[0].x1 + 40
    assert rows[-1].label.endswith("(not captured at client)")
    assert rows[0].arrows[0].cross is None


def test_an_error_is_tied_to_what_it_quotes(incident):
    """The row of an ICMP error names the row of the quoted packet, and a line joins them."""
    rows = figure_ladder.lay_out(incident.findings[1].ladder).rows
    assert "quotes 2" in rows[2].label
    assert f"V{rows[1].y}" in rows[2].tie
    assert [row.tie for row in rows if row.number != 3] == [""] * (len(rows) - 1)


def test_times_are_relative_and_may_lack(incident):
    """The first step is zero; a step without a time has none."""
    figure = figure_ladder.lay_out(incident.findings[1].ladder)
    times = [row.time for row in figure.rows]
    assert times == ["+0.000000 s", "+0.012000 s", "+0.013000 s", "", "+0.210000 s"]
    assert figure.start == "2024-05-01 12:00:01.200000 UTC"


def test_too_much_or_nothing_makes_no_figure():
    """More places than columns leave it to the table."""
    steps = [LadderStep(from_=f"a{n}", to=f"b{n}", label="x") for n in range(5)]
    assert figure_ladder.lay_out(steps) is None
    assert figure_ladder.lay_out([]) is None


def test_long_ladders_and_labels_are_cut():
    """Only the first packets are drawn, and no label leaves the drawing."""
    steps = [LadderStep(from_="a", to="b", label="W" * 500)] * 100
    figure = figure_ladder.lay_out(steps)
    assert len(figure.rows) == figure_ladder.MAX_ROWS
    assert all(len(row.label) <= 90 for row in figure.rows)
    assert figure.start == ""


def test_hostile_links_between_rows_are_ignored():
    """An error that quotes itself, a later packet or none is not tied."""
    for quotes in (0, 1, 7, -1):
        steps = [
            LadderStep(from_="a", to="b", label="x", packet=0, quotes=quotes),
            LadderStep(from_="b", to="a", label="y", packet=1),
        ]
        assert figure_ladder.lay_out(steps).rows[0].tie == ""


def test_a_host_may_speak_to_itself():
    """A loop is an arrow of some length."""
    arrow = figure_ladder.lay_out([LadderStep(from_="a", to="a", label="x")]).rows[0].arrows[0]
    assert arrow.x2 > arrow.x1
