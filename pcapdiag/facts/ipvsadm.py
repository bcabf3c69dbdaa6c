"""What ipvsadm says of time: `ipvsadm -l --timeout`, and the entries of `ipvsadm -lnc`.

The first states the timeouts. An entry of the second shows how many seconds are left to it, so that
the timeout of its state is at least as long; of the entry itself nothing is kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pcapdiag.kernel.ipvs_timeouts import DEFAULT, Timeouts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_STATED: Final = re.compile(
    r"^\s*Timeout \(tcp tcpfin udp\):\s+(\d{1,9})\s+(\d{1,9})\s+(\d{1,9})\s*$"
)
_ENTRY: Final = re.compile(r"^\s*(?:TCP|UDP)\s+(\d{1,7}):([0-5]\d)\s+(ESTABLISHED|FIN_WAIT|UDP)\s")
"""The protocol, minutes and seconds left, and the state; others have fixed timeouts."""


@dataclass(slots=True)
class Output:
    """What the lines that passed `watched` said.

    stated: the timeouts, None where no line states them. left_s: state -> the most seconds that
    any entry in it has left. entries: how many such entries there were.
    """

    stated: Timeouts | None = None
    left_s: dict[str, int] = field(default_factory=dict)
    entries: int = 0

    def watched(self, lines: Iterable[str]) -> Iterator[str]:
        """Yield the lines on, having looked at each."""
        for line in lines:
            self._look(line)
            yield line

    def _look(self, line: str) -> None:
        entry = _ENTRY.match(line)
        if entry:
            minutes, seconds, state = entry.groups()
            left_s = int(minutes) * 60 + int(seconds)
            self.left_s[state] = max(left_s, self.left_s.get(state, 0))
            self.entries += 1
            return
        stated = _STATED.match(line)
        if stated:
            self.stated = Timeouts(*(int(text) for text in stated.groups()))


def together(outputs: Sequence[Output]) -> Timeouts:
    """Return one host's timeouts: as stated last, else the default or the longest time left.

    What is stated wins over entries, which may be older than the last `ipvsadm --set`.
    """
    stated = [output.stated for output in outputs if output.stated]
    if stated:
        return stated[-1]

    def least(state: str, default_s: int) -> int:
        return max(default_s, *(output.left_s.get(state, 0) for output in outputs))

    return Timeouts(
        least("ESTABLISHED", DEFAULT.established_s),
        least("FIN_WAIT", DEFAULT.fin_wait_s),
        least("UDP", DEFAULT.udp_s),
    )
