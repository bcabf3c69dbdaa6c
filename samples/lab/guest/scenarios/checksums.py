"""Checksums that a box in the path breaks; the far clients sit behind an MTU of 1400.

The box is the router in front, with an nftables rule that writes to a packet's bytes as raw
payload: nftables then corrects no checksum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scenarios import scenario

if TYPE_CHECKING:
    from lab import Lab

TOO_BIG = "icmp[0:2] == 0x0304"
TABLE = "nft add table ip box; nft 'add chain ip box out { type filter hook forward priority 0; }'"
RULE = "nft add rule ip box out"
BOX = f"{TABLE}; {RULE}"
QUOTED_SOURCE_PORT = "@th,224,16"
"""Behind 8 bytes of ICMP and 20 of the quoted IP header."""
QUOTED_TARGET_PORT = "@th,240,16"
QUOTED_TOS = "@th,72,8"
UNTOLD = ["no-icmp-generated"]
"""What those see of it whom the messages do not reach."""
MESSAGES = "icmp type destination-unreachable icmp code 4"


def _play(lab: Lab, cause: str, *, box: str = "router") -> None:
    """Let large transfers fail; `cause` is what the box does to the messages about them."""
    large = lab.browse("far-large", [("get", 9000)], client="client-far", count=5, every=0.8)
    lab.browse("far-small", [("get", 400)], client="client-far", count=3, every=1.1)
    lab.background(8)
    nat = lab.made.method == "nat"
    directors = ("director:eth0", "director:eth1") if nat else ("director",)
    lab.capture(*directors, "rs1", "rs2", "router:eth0", "router:eth1", "client=client-far")
    lab.play()
    lab.expect(lab.failed() == large, "the large transfers fail, and only they")
    file = "director-eth0.pcap" if nat else "director.pcap"
    lab.look(file, TOO_BIG, "messages whose ICMP checksum is wrong")
    hosts = sorted({flow.realserver for flow in large if flow.realserver})
    lab.must(
        "pmtud-blackhole",
        "icmp-corrupt",
        flows=large,
        hosts=hosts,
        may_causes=UNTOLD,
        direction="to-client",
    )
    lab.must(
        "icmp-checksum-burst",
        cause,
        hosts=[box],
        may_hosts=["router", "isp"],
        cited={file: TOO_BIG},
    )


@scenario
def checksum_quoted_port_dr(lab: Lab) -> None:
    """LVS-DR; a NAT box rewrites the port quoted in ICMP and leaves the checksum as it was."""
    lab.cluster("dr", "public", narrow_mtu=1400)
    lab.fault("router", f"{BOX} {MESSAGES} {QUOTED_SOURCE_PORT} set 8080")
    _play(lab, "rewrite-without-checksum")


@scenario
def checksum_quoted_port_nat(lab: Lab) -> None:
    """LVS-NAT; a NAT box rewrites the port quoted in ICMP; ip_vs drops what does not add up."""
    lab.cluster("nat", "office", rport=8080, narrow_mtu=1400)
    lab.fault(
        "router",
        f"{BOX} {MESSAGES} {QUOTED_TARGET_PORT} set 40000",
    )
    _play(lab, "rewrite-without-checksum")


@scenario
def checksum_stuck_bit_dr(lab: Lab) -> None:
    """LVS-DR; a memory cell of the router is stuck: one bit of each ICMP error is wrong."""
    lab.cluster("dr", "carrier", narrow_mtu=1400)
    lab.fault("router", f"{BOX} {MESSAGES} {QUOTED_TOS} set 0x20")
    _play(lab, "bit-error")


@scenario
def checksum_truncated_dr(lab: Lab) -> None:
    """LVS-DR; a box cuts ICMP errors to the bytes that RFC 792 asks for, and sums nothing anew."""
    lab.cluster("dr", "routed-vip", narrow_mtu=1400)
    lab.fault("router", f"{BOX} {MESSAGES} ip length set 56")
    _play(lab, "quote-truncated")


@scenario
def checksum_random_bits_dr(lab: Lab) -> None:
    """LVS-DR; the ISP's router fails: in each ICMP message that it sends another bit is wrong."""
    lab.cluster("dr", "routed-vip", narrow_mtu=1400)
    lab.fault(
        "isp",
        "tc qdisc replace dev eth0 root handle 1: prio bands 4;"
        "tc qdisc add dev eth0 parent 1:4 netem delay 2ms corrupt 100%;"
        "tc filter add dev eth0 parent 1: protocol ip u32 match ip protocol 1 0xff flowid 1:4",
    )
    _play(lab, "corruption", box="isp")


@scenario
def checksum_tcp_dr(lab: Lab) -> None:
    """LVS-DR; the router damages what one client network's TCP segments carry as window."""
    lab.cluster("dr", "office")
    first = lab.network.hosts["client-far"].interfaces["eth0"].addresses[0].split("/")[0]
    where = first.rsplit(".", 1)[0] + ".0/24"
    lab.network.hosts["router"].do(TABLE)
    lab.fault("router", f"{RULE} ip saddr {where} tcp dport 80 @th,112,16 set 0x0111", at=4)
    damaged = lab.browse(
        "damaged", [("get", 900), ("pause", 8), ("get", 900)], client="client-far", count=4
    )
    lab.background(10)
    lab.play()
    lab.expect(lab.failed() == damaged, "only the damaged connections fail")
    requests = f"src net {where} and tcp[14:2] == 0x0111"
    lab.must(
        "transport-checksum-burst",
        "rewritten-without-checksum",
        "corrupted",
        flows=damaged,
        cited={"rs1.pcap": requests, "rs2.pcap": requests, "director.pcap": requests},
    )
    lab.look("rs1.pcap", requests, "segments whose TCP checksum is wrong where they arrive")
