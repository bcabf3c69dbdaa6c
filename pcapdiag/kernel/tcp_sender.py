"""What TCP senders do when nothing comes back, in numbers."""

from __future__ import annotations

from typing import Final

RTO_MIN_NS: Final = 200_000_000
"""Linux TCP_RTO_MIN; RFC 6298 asks for 1 s."""

RETRIES2_SPAN_S: Final = 924.6
"""How long Linux retries with tcp_retries2 = 15 (ip-sysctl.rst); by chance close to the 900 s
after which IPVS forgets an established connection."""

MIN_PMTU: Final = 552
"""net.ipv4.route.min_pmtu: a smaller next-hop MTU is taken as this and DF is given up."""
