"""Datagrams of which only the first fragments pass a firewall."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scenarios import scenario

if TYPE_CHECKING:
    from lab import Lab

FIRST = "ip[6] & 0x20 != 0 and ip[6:2] & 0x1fff == 0"
WAITED_IN_VAIN = "icmp[0:2] == 0x0b01"
REASSEMBLY_S = 30.0
"""How long Linux waits for the rest of a datagram."""
LESS = ["incomplete-on-arrival"]
"""What those see of it who do not see the datagrams whole."""
LATER = "ip[6:2] & 0x1fff != 0"


@scenario
def fragments_lost_request_dr(lab: Lab) -> None:
    """LVS-DR that balances UDP; the router lets first fragments of requests in, no others."""
    lab.cluster("dr", "public", port=5300, udp=True)
    lab.fault("router", "iptables -A FORWARD -i eth1 -f -j DROP")
    _lost(lab, "router-eth1.pcap", "to-realserver", quiet_s=REASSEMBLY_S + 3)
    lab.look("director.pcap", WAITED_IN_VAIN, "the director waited for the rest")


@scenario
def fragments_lost_reply_nat(lab: Lab) -> None:
    """LVS-NAT that balances UDP; the router lets first fragments of replies out, no others."""
    lab.cluster("nat", "carrier", port=5300, udp=True)
    lab.fault("router", "iptables -A FORWARD -i eth0 -f -j DROP")
    _lost(lab, "router-eth0.pcap", "to-client")


@scenario
def fragments_lost_reply_dr(lab: Lab) -> None:
    """LVS-DR that balances UDP; the router lets first fragments of replies out, no others."""
    lab.cluster("dr", "office", port=5300, udp=True)
    lab.fault("router", "iptables -A FORWARD -i eth0 -f -j DROP")
    _lost(lab, "router-eth0.pcap", "to-client")


def _lost(lab: Lab, file: str, direction: str, *, quiet_s: float = 2.0) -> None:
    lab.ask("small", 120, count=14, every=0.7)
    lost = lab.ask("fragmented", 3500, count=6, start=2, every=0.9, patience=4)
    nat = lab.made.method == "nat"
    directors = ("director:eth0", "director:eth1") if nat else ("director",)
    lab.capture(*directors, "rs1", "rs2", "router:eth0", "router:eth1", "client=client-near")
    lab.play(quiet_s=quiet_s)
    lab.expect(lab.failed() == lost, "only fragmented datagrams are lost")
    causes = ["lost-between-captures"]
    cited = {file: f"({FIRST}) or ({LATER})"}
    if quiet_s > REASSEMBLY_S:
        causes.append("reassembly-timeout")
        cited["director.pcap"] = WAITED_IN_VAIN
    lab.must(
        "fragments-lost",
        *causes,
        flows=lost,
        may_causes=LESS,
        cited=cited,
        direction=direction,
    )
    lab.look(file, f"({FIRST}) or ({LATER})", "all fragments still there")
