"""How likely chance alone is, in numbers."""

from __future__ import annotations

import math
from typing import Final

PROOF: Final = 0.001
"""Chance of being wrong below which something counts as proven."""


def split_by_loss(seen: int, missing: int) -> float:
    """Return the greatest chance that loss spares all of `seen` and takes all of `missing`.

    Each is lost by itself with some chance p, and p^m (1 - p)^n is greatest at p = m / (n + m).
    1.0 where nothing is missing.
    """
    if missing <= 0:
        return 1.0
    share = missing / (seen + missing)
    kept = seen * math.log1p(-share) if seen else 0.0
    return math.exp(missing * math.log(share) + kept)
