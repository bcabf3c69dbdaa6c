"""How long ip_vs remembers a connection that says nothing (net/netfilter/ipvs/ip_vs_proto_tcp.c).

The timer starts anew with each packet that ip_vs handles; an ICMP error it forwards does not count.
When it runs out nothing is sent: only the next packet tells.
"""

from __future__ import annotations

from typing import Final, NamedTuple

TIME_WAIT_S: Final = 120
LAST_ACK_S: Final = 30
"""tcp_timeouts: fixed, `ipvsadm --set` does not reach them."""


class Timeouts(NamedTuple):
    """The three timeouts that `ipvsadm --set` changes, in seconds; as they are by default."""

    established_s: int = 900
    fin_wait_s: int = 120
    udp_s: int = 300

    def closing_s(self, method: str | None) -> int:
        """Return after how many quiet seconds a closing connection may be gone, at the earliest.

        In direct routing and tunnelling ip_vs sees the client's side only (the INPUT_ONLY table):
        its FIN makes the entry FIN_WAIT, whatever the realserver goes on to send. In NAT it sees
        both FINs and may be in LAST_ACK.
        """
        return self.fin_wait_s if method in ("dr", "tun") else LAST_ACK_S

    @property
    def reuse_s(self) -> int:
        """Return how long a closed connection's entry is there to be met by a SYN of its port."""
        return max(self.fin_wait_s, TIME_WAIT_S)


DEFAULT: Final = Timeouts()
