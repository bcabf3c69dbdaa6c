"""How long ip_vs remembers a connection that says nothing (net/netfilter/ipvs/ip_vs_proto_tcp.c).

The timer starts anew with each packet that ip_vs handles; an ICMP error it forwards does not count.
When it runs out nothing is sent: only the next packet tells.
"""

from __future__ import annotations

from typing import Final

SECONDS: Final = {
    "ESTABLISHED": 900,
    "SYN_SENT": 120,
    "SYN_RECV": 60,
    "FIN_WAIT": 120,
    "TIME_WAIT": 120,
    "CLOSE": 10,
    "CLOSE_WAIT": 60,
    "LAST_ACK": 30,
    "UDP": 300,
}
"""tcp_timeouts and udp_timeouts; `ipvsadm --set` changes ESTABLISHED, FIN_WAIT and UDP only."""

ESTABLISHED_S: Final = SECONDS["ESTABLISHED"]

REUSE_S: Final = max(SECONDS["FIN_WAIT"], SECONDS["TIME_WAIT"])
"""How long a closed connection's entry is still there to be met by a SYN from the same port."""


def closing_s(method: str | None) -> int:
    """Return after how many quiet seconds a closing connection may be gone, at the earliest.

    In direct routing and tunnelling ip_vs sees the client's side only (the INPUT_ONLY table): its
    FIN makes the entry FIN_WAIT, whatever the realserver goes on to send. In NAT it sees both FINs
    and may be in LAST_ACK.
    """
    return SECONDS["FIN_WAIT"] if method in ("dr", "tun") else SECONDS["LAST_ACK"]
