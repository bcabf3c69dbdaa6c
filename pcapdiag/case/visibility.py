"""Could it have been seen? And the tcpdump command for what could not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pcapdiag.addresses import ip_text

if TYPE_CHECKING:
    from pcapdiag.case.case import Case

_ENCAPSULATED = "ip proto 4 or ip proto 41 or ip proto 47 or udp port 6080"
"""What LVS-TUN may put around a packet: IPIP, 6in4, GRE, GUE."""


def icmp(case: Case) -> tuple[bool, ...]:
    """Return for each vantage whether its capture would have kept ICMP, and it was looked at.

    Where of too many kinds only some were looked at, no vantage tells that a message was not there.
    """
    if any(info.icmp_share > 1 for item in case.vantages for info in item.captures):
        return (False,) * len(case.vantages)
    return tuple(case.coverage.could_see_icmp_at(item.index, None).ok for item in case.vantages)


def capture_command(case: Case, role: str, method: str | None) -> str:
    """Return a tcpdump command to be run on a host of `role`; IFACE is to be filled in.

    Full-length frames, since a cut ICMP message can be neither verified nor matched. The VIPs known
    so far stand in the filter; -Z root, because tcpdump gives up privileges before it opens files.
    """
    vips = sorted({ip_text(*service.vip) for service in case.topology.services if service.vip})
    hosts = " or ".join(f"host {vip}" for vip in vips[:8])
    filters = ["icmp", "icmp6", "arp"]
    if hosts:
        filters.append(hosts)
    if role == "realserver" and method in ("nat", None):
        filters.append("tcp")
    if method in ("tun", None):
        filters.append(_ENCAPSULATED)
    expression = " or ".join(filters)
    return f"tcpdump -Z root -ni IFACE -s 0 -B 65536 -w {role}.pcap '{expression}'"
