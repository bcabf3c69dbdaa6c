"""Connections that the director forgot, realservers that are gone, services that refuse."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scenarios import scenario

if TYPE_CHECKING:
    from lab import Lab
    from traffic import Flow

IDLE = [("get", 900), ("pause", 9), ("get", 1100)]
RESET = "tcp[tcpflags] & tcp-rst != 0"
SYN = "tcp[tcpflags] == tcp-syn"
PORT_UNREACHABLE = "icmp[0:2] == 0x0303"


@scenario
def expired_dr(lab: Lab) -> None:
    """LVS-DR whose director forgets connections after five idle seconds."""
    lab.cluster("dr")
    lab.fault("director", "ipvsadm --set 5 5 5")
    idle = lab.browse("idle", IDLE, count=5, every=0.7)
    lab.background()
    lab.play()
    _expired(lab, idle, "director.pcap")


@scenario
def expired_nat(lab: Lab) -> None:
    """LVS-NAT, port 80 to 8080, whose director forgets connections after five idle seconds."""
    lab.cluster("nat", "office", rport=8080)
    lab.fault("director", "ipvsadm --set 5 5 5")
    idle = lab.browse("idle", IDLE, count=6, every=0.6)
    lab.background()
    lab.play()
    _expired(lab, idle, "director-eth0.pcap")


@scenario
def expired_tun(lab: Lab) -> None:
    """LVS-TUN whose director forgets connections after five idle seconds."""
    lab.cluster("tun", "carrier")
    lab.fault("director", "ipvsadm --set 5 5 5")
    idle = lab.browse("idle", IDLE, count=5, every=0.6)
    lab.background()
    lab.play()
    _expired(lab, idle, "director.pcap")


def _expired(lab: Lab, idle: list[Flow], file: str) -> None:
    lab.expect(lab.failed() == idle, "only the idle connections fail")
    reset = f"{RESET} and src host {lab.made.plan.vip}"
    lab.must(
        "connection-expired-at-director",
        "entry-gone-early",
        flows=idle,
        hosts=["director"],
        may_causes=["entry-unknown"],
        cited={file: reset},
    )
    lab.look(file, reset, "resets from the VIP, sent by the director")


@scenario
def realserver_gone_dr(lab: Lab) -> None:
    """LVS-DR one of whose realservers loses its link; nothing takes it out of the service."""
    cluster = lab.cluster("dr", "routed-vip")
    lab.fault("rs2", "ip link set eth0 down", at=4.5)
    lab.background(18)
    lab.browse("late", [("get", 2000)], count=6, start=6, every=0.8)
    lab.capture("director", "rs1", "router", "client=client-near")
    lab.play()
    _gone(lab, "silent", "director.pcap", f"dst host {cluster.plan.vip}")


@scenario
def realserver_gone_nat(lab: Lab) -> None:
    """LVS-NAT one of whose realservers loses its link; nothing takes it out of the service."""
    cluster = lab.cluster("nat", "carrier")
    lab.fault("rs2", "ip link set eth0 down", at=4.5)
    lab.background(18)
    lab.browse("late", [("get", 2000)], count=6, start=6, every=0.8)
    lab.capture("director:eth0", "director:eth1", "rs1", "router", "client=client-near")
    lab.play()
    _gone(lab, "silent", "director-eth0.pcap", f"dst host {cluster.plan.vip}")


@scenario
def realserver_gone_arp_dr(lab: Lab) -> None:
    """LVS-DR one of whose realservers loses its link; the director asks for it by ARP, in vain."""
    cluster = lab.cluster("dr", "public")
    soon = "base_reachable_time_ms=2000 net.ipv4.neigh.eth0.delay_first_probe_time=1"
    cluster.director.do(f"sysctl -qw net.ipv4.neigh.eth0.{soon}")
    lab.fault("rs2", "ip link set eth0 down", at=4.5)
    lab.background(12)
    lab.browse("late", [("get", 2000)], count=8, start=9, every=0.8)
    lab.capture("director", "rs1", "router", "client=client-near")
    lab.play()
    asked = f"arp[6:2] == 1 and arp host {cluster.rip(2)}"
    _gone(lab, "arp-unanswered", "director.pcap", f"dst host {cluster.plan.vip}", also=asked)
    lab.look("director.pcap", asked, "ARP requests for the realserver")
    lab.look("director.pcap", "icmp[0:2] == 0x0301", "what the director tells the clients")


def _gone(lab: Lab, cause: str, file: str, requests: str, *, also: str = "less 0") -> None:
    hit = lab.failed()
    lab.expect(3 <= len(hit) < len(lab.flows) - 5, "some connections meet the dead realserver")
    theirs = f"{requests} and ({' or '.join(_port(flow) for flow in hit)})"
    lab.must(
        "realserver-gone",
        cause,
        flows=hit,
        hosts=["rs2"],
        may_causes=["host-unreachable", "silent"] if cause == "arp-unanswered" else (),
        cited={file: f"({theirs}) or ({also})"},
    )
    lab.look(file, theirs, "requests for the realserver that is gone")


@scenario
def realserver_removed_dr(lab: Lab) -> None:
    """LVS-DR from whose service a realserver is removed while its connections live."""
    cluster = lab.cluster("dr", "office")
    remove = f"ipvsadm -d -t {cluster.plan.vip}:80 -r {cluster.rip(2)}"
    lab.fault("director", remove, at=5)
    lab.browse("long", [("get", 900), ("pause", 7), ("get", 1100)], count=8, every=0.3)
    lab.background()
    lab.play()
    hit = lab.failed()
    lab.expect(len(hit) >= 3, "connections of the removed realserver end")
    lab.expect({flow.realserver for flow in hit} == {"rs2"}, "and no others")
    vip = f"dst host {cluster.plan.vip} and ({' or '.join(_port(flow) for flow in hit)})"
    lab.must(
        "realserver-gone",
        "destination-removed",
        flows=hit,
        hosts=["rs2"],
        cited={"director.pcap": vip},
    )
    lab.notes.append("expire_nodest_conn is 0: what arrives for them is dropped in silence")
    lab.look("director.pcap", vip, "the connections that end; what comes late does not go out")


@scenario
def realserver_quiesced_dr(lab: Lab) -> None:
    """LVS-DR one of whose realservers gets weight 0: old connections go on, nothing is wrong."""
    cluster = lab.cluster("dr", "carrier")
    quiesce = f"ipvsadm -e -t {cluster.plan.vip}:80 -r {cluster.rip(2)} -g -w 0"
    lab.then("director", quiesce, at=4)
    lab.browse("long", [("get", 900), ("pause", 7), ("get", 1100)], count=6, every=0.3)
    lab.background()
    lab.play()
    lab.expect(not lab.failed(), "nothing fails")
    lab.look("rs2.pcap", "tcp[tcpflags] & tcp-push != 0", "requests to the quiesced realserver")


@scenario
def service_empty_dr(lab: Lab) -> None:
    """LVS-DR whose service has lost its last realserver."""
    cluster = lab.cluster("dr", "public")
    lab.background(6)
    removals = [
        f"ipvsadm -d -t {cluster.plan.vip}:80 -r {cluster.rip(number)}" for number in (1, 2)
    ]
    lab.fault("director", "\n".join(removals), at=8.5)
    refused = lab.browse("refused", [("get", 700)], count=8, start=11, every=0.4)
    lab.play()
    _refused(lab, refused, "director", "no-destination", "director.pcap", PORT_UNREACHABLE)


@scenario
def service_empty_nat(lab: Lab) -> None:
    """LVS-NAT whose realservers all have weight 0."""
    cluster = lab.cluster("nat", "public", rport=8080)
    lab.background(6)
    quiesce = [
        f"ipvsadm -e -t {cluster.plan.vip}:80 -r {cluster.rip(number)}:8080 -m -w 0"
        for number in (1, 2)
    ]
    lab.fault("director", "\n".join(quiesce), at=8.5)
    refused = lab.browse("refused", [("get", 700)], count=7, start=11, every=0.4)
    lab.play()
    _refused(lab, refused, "director", "no-destination", "director-eth0.pcap", PORT_UNREACHABLE)


@scenario
def service_refused_by_realserver_dr(lab: Lab) -> None:
    """LVS-DR one of whose realservers' firewalls refuses new connections."""
    lab.cluster("dr", "routed-vip")
    rule = "iptables -A INPUT -p tcp --dport 80 --syn -j REJECT --reject-with icmp-host-prohibited"
    lab.fault("rs2", rule, at=5)
    lab.background(12)
    lab.browse("late", [("get", 700)], count=8, start=6, every=0.5)
    lab.health_checks = False
    lab.play()
    hit = lab.failed()
    lab.expect({flow.realserver for flow in hit} == {None}, "refused connections reach no server")
    _refused(lab, hit, "rs2", "realserver-firewall", "rs2.pcap", "icmp[0:2] == 0x030a")


@scenario
def service_refused_by_reset_nat(lab: Lab) -> None:
    """LVS-NAT one of whose realservers answers new connections with resets."""
    lab.cluster("nat", "routed-vip")
    rule = "iptables -A INPUT -p tcp --dport 80 --syn -j REJECT --reject-with tcp-reset"
    lab.fault("rs1", rule, at=5)
    lab.background(12)
    lab.browse("late", [("get", 700)], count=8, start=6, every=0.5)
    lab.health_checks = False
    lab.play()
    proof = f"{RESET} and src port 80"
    _refused(lab, lab.failed(), "rs1", "realserver-reset", "director-eth1.pcap", proof)


def _refused(lab: Lab, hit: list[Flow], host: str, cause: str, file: str, proof: str) -> None:
    lab.expect(len(hit) >= 3, "connections are refused")
    lab.expect(
        {flow.error for flow in hit} <= {"connection refused", "no route to host"}, "at once"
    )
    # A capture without MACs or without its sender leaves open whose refusal it was.
    unknown = ["refused", "firewall"]
    lab.must(
        "service-refused", cause, flows=hit, hosts=[host], may_causes=unknown, cited={file: proof}
    )
    lab.look(file, proof, "the refusals")


def _port(flow: Flow) -> str:
    return f"port {flow.client[1]}"
