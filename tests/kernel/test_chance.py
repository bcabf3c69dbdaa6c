"""What chance alone would do."""

from __future__ import annotations

import pytest

from pcapdiag.kernel.chance import PROOF, split_by_loss


@pytest.mark.parametrize(
    ("seen", "missing", "chance"), [(1, 1, 0.25), (2, 2, 1 / 16), (0, 5, 1.0), (5, 0, 1.0)]
)
def test_the_chance_at_the_worst_loss(seen, missing, chance):
    """One spared and one lost is most likely at a loss of one half: a quarter."""
    assert split_by_loss(seen, missing) == pytest.approx(chance)


def test_no_other_loss_makes_it_likelier():
    """The bound holds for every share of losses."""
    for percent in range(1, 100):
        loss = percent / 100
        assert loss**8 * (1 - loss) ** 4 <= split_by_loss(4, 8) + 1e-12


def test_five_pairs_prove_and_four_do_not():
    """(1/4)^5 is below one in a thousand, (1/4)^4 is not."""
    assert split_by_loss(5, 5) < PROOF < split_by_loss(4, 4)
