"""ICMP that old routers and strangers send; guest/forge.py plays them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scenarios import scenario

if TYPE_CHECKING:
    from lab import Lab

QUENCH = "icmp[0] == 4"
MADE_UP = "icmp[0:2] == 0x0304"


@scenario
def source_quench_dr(lab: Lab) -> None:
    """LVS-DR; an old router outside asks the realservers to slow down, and nobody listens."""
    cluster = lab.cluster("dr", "office")
    lab.fault("isp", f"python3 /lab/forge.py quench eth0 {cluster.plan.vip}")
    steady = [("get", 2500), ("pause", 0.15)] * 25
    lab.browse("steady", steady, client="client-far", count=4, every=0.3)
    lab.background(8)
    lab.capture("director", "rs1", "rs2", "router", "client=client-far")
    lab.play()
    lab.expect(not lab.failed(), "nothing fails")
    lab.must(
        "source-quench",
        "ignored",
        "effect-not-known",
        may=lab.flows,
        hosts=["isp"],
        cited=dict.fromkeys(("director.pcap", "rs1.pcap", "rs2.pcap", "router.pcap"), QUENCH),
    )
    lab.look("director.pcap", QUENCH, "source quenches; ip_vs hands them on")


@scenario
def icmp_spoofed_dr(lab: Lab) -> None:
    """LVS-DR; a stranger claims an MTU of 576, and has to guess the sequence numbers it quotes."""
    cluster = lab.cluster("dr", "carrier")
    steady = [("get", 3000), ("pause", 1.5)] * 6
    kept = lab.browse("kept", steady, client="client-far", count=4, every=0.3)
    targets = " ".join(f"{flow.client[0]}:{flow.client[1]}" for flow in kept)
    source = cluster.plan.at("narrow", 2)
    forge = f"python3 /lab/forge.py spoof 576 {source} {cluster.plan.vip} {lab.port} {targets}"
    lab.fault("client-near", forge, at=4)
    lab.background(8)
    lab.capture("director", "rs1", "rs2", "router", "client=client-far")
    lab.play()
    lab.expect(not lab.failed(), "nothing fails")
    refused = [host.run("nstat -asz TcpExtOutOfWindowIcmps") for host in cluster.realservers]
    lab.expect(any(int(text.split()[-2]) for text in refused), "TCP looks at sequence numbers")
    proof = dict.fromkeys(("director.pcap", "rs1.pcap", "rs2.pcap", "router.pcap"), MADE_UP)
    lab.must("icmp-spoofed", "sequence-never-sent", flows=kept, cited=proof)
    lab.look("director.pcap", MADE_UP, "messages that nobody's packet caused")
