"""What TCP senders do when nothing comes back, in numbers."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

RTO_MIN_NS: Final = 200_000_000
"""Linux TCP_RTO_MIN; RFC 6298 asks for 1 s."""

RETRIES2_SPAN_S: Final = 924.6
"""How long Linux retries with tcp_retries2 = 15 (ip-sysctl.rst); by chance close to the 900 s
after which IPVS forgets an established connection."""

MIN_PMTU: Final = 552
"""net.ipv4.route.min_pmtu: a smaller next-hop MTU is taken as this and DF is given up."""

PMTU_LIFETIME_NS: Final = 600_000_000_000
"""net.ipv4.route.mtu_expires: afterwards the large size is tried again, and that is no fault."""

PROBE_MSS: Final = (1024, 512, 256)
"""What tcp_mtu_probing falls back to, tcp_base_mss first (tcp_timer.c, tcp_mtu_probing)."""

TIMESTAMPS_LEN: Final = 12
"""RFC 7323 appendix A: a segment of that MSS carries so many bytes less with timestamps."""

_DOUBLING: Final = (1.5, 2.6)
"""Between which two waits the second is twice the first: timers fire late, by up to a jiffy or a
delayed capture, and RFC 6298 (5.5) doubles."""


def backs_off(waits_ns: Sequence[int]) -> bool:
    """Return whether waits between repetitions double, as those of a retransmission timer do."""
    steps = [after / before for before, after in pairwise(waits_ns) if before > 0]
    return bool(steps) and all(_DOUBLING[0] <= step <= _DOUBLING[1] for step in steps)


def probing_mss(payload: int) -> int | None:
    """Return the MSS of tcp_mtu_probing that a segment of so many bytes is full at; None: none."""
    return next((mss for mss in PROBE_MSS if mss - TIMESTAMPS_LEN <= payload <= mss), None)
