"""The figure of packet lengths: exact where the MTU lies, honest about the rest."""

from __future__ import annotations

from pcapdiag.report import figure_sizes
from pcapdiag.result import SizeFate


def _sizes(*rows):
    return [SizeFate(ip_length=length, delivered=ok, lost=lost) for length, ok, lost in rows]


def test_nothing_to_draw():
    """No sizes, or only zeros, make no figure."""
    assert figure_sizes.lay_out([]) is None
    assert figure_sizes.lay_out(_sizes((60, 0, 0))) is None


def test_border_lies_below_the_largest_that_arrived():
    """Rows are sorted, the border stands between what arrived and what never did."""
    figure = figure_sizes.lay_out(_sizes((1500, 0, 9), (60, 5, 0), (1400, 3, 1)))
    assert [row.label for row in figure.rows] == ["60", "1400", "1500"]
    assert figure.rows[1].y < figure.border_y <= figure.rows[2].y
    assert figure.rows[2].delivered_width == 0
    assert figure.rows[0].lost_width == 0


def test_no_border_where_all_sizes_arrived():
    """Losses of all lengths are no matter of length."""
    figure = figure_sizes.lay_out(_sizes((60, 5, 1), (1500, 5, 2)))
    assert figure.border_y is None
    assert figure.sentence == "The longest packet that arrived has 1500 bytes; losses begin at 60."


def test_sentences_say_what_is_seen():
    """A clean cut, no loss and no arrival are told apart."""
    cut = figure_sizes.lay_out(_sizes((1400, 5, 0), (1401, 0, 2)))
    assert cut.sentence.startswith("Up to 1400 bytes everything arrived, from 1401 bytes on noth")
    assert cut.sentence.endswith("the path MTU is 1400.")
    bounded = figure_sizes.lay_out(_sizes((1400, 5, 0), (1500, 0, 2)))
    assert bounded.sentence.endswith("the path MTU is between 1400 and 1499.")
    whole = figure_sizes.lay_out(_sizes((1400, 5, 0)))
    assert whole.sentence == "Packets of all lengths arrived, up to 1400 bytes."
    assert figure_sizes.lay_out(_sizes((99, 0, 2))).sentence == "No packet of any length arrived."


def test_many_sizes_are_merged_away_from_the_border():
    """Next to the border each length keeps its row; no packet is left out."""
    sizes = _sizes(*((n, 1, 0) for n in range(40, 1401)), *((n, 0, 1) for n in range(1401, 1501)))
    figure = figure_sizes.lay_out(sizes)
    labels = [row.label for row in figure.rows]
    assert len(labels) <= 2 * figure_sizes.MAX_SIDE
    assert {"1397", "1398", "1399", "1400", "1401", "1402", "1403", "1404"} <= set(labels)
    assert sum(row.delivered for row in figure.rows) == 1361
    assert sum(row.lost for row in figure.rows) == 100


def test_bars_stay_inside():
    """A huge count beside a single one: both are seen, neither leaves the drawing."""
    figure = figure_sizes.lay_out(_sizes((60, 2**63, 0), (1500, 0, 1)))
    for row in figure.rows:
        assert row.lost_x >= 40
        assert figure.right + row.delivered_width <= figure.width - 60
    assert figure.rows[1].lost_width >= 6
