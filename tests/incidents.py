"""Incidents that were reported in public, as classes: which rule answers, or why none does.

Part of rules/README.md, put there by tests/test_catalogue.py. A rule in an answer stands in
backticks, with the cause it reports where that helps.
"""

from __future__ import annotations

from typing import Final

HOWTO: Final = "LVS-HOWTO section"

INCIDENTS: Final = (
    ("errors for the VIP end at the director", f"{HOWTO} 35.1", "`icmp-unreachable-not-forwarded`; `pmtud-blackhole` (icmp-not-forwarded) where transfers stall"),
    ("an eBPF node does not hand ICMP on to the backend's node", "calico#8854", "`pmtud-blackhole` and `icmp-unreachable-not-forwarded`, where the node forwards as IPVS does and is captured"),
    ("ICMP for a VIP reaches another node than the connection", "calico#13667", "`icmp-unreachable-not-forwarded` (no-connection-entry)"),
    ("frag-needed for a node port is not handled", "cilium#21262, cilium#34380", "`pmtud-blackhole` (icmp-not-forwarded, or icmp-ignored-by-sender where it arrived)"),
    ("routers' ICMP is hashed to another server", "cloudflare/pmtud", "`icmp-unreachable-not-forwarded` (no-connection-entry)"),
    ("the first of two chained directors sinks all ICMP", "glb-director#47", "`pmtud-blackhole` (icmp-not-forwarded)"),
    ("INPUT accepts echo only, so that the size never shrinks", "kube-router#685", "`pmtud-blackhole` (icmp-ignored-by-sender at a realserver, icmp-not-forwarded at a director)"),
    ("an error from an intermediate node matches no connection", "ovn-kubernetes#3696, submariner#1022", "`pmtud-blackhole` (icmp-not-forwarded): the quote decides, not the source"),
    ("a policy drops frag-needed in front of the server", "aws-network-policy-agent#207", "`pmtud-blackhole` (icmp-ignored-by-sender, icmp-filtered-upstream)"),
    ("a quote of 8 bytes is thought too short", "katran#159", "`pmtud-blackhole` and `icmp-unreachable-not-forwarded`: 8 bytes are enough for IPVS and for the join"),
    ("frag-needed with a fragment offset is dropped", "katran#206", "`pmtud-blackhole` (icmp-not-forwarded); the offset itself is not named"),
    ("large uploads vanish behind a tunnelling balancer", "katran#82", "`pmtud-blackhole` (tunnel-overhead), `tunnel-mss-too-large`"),
    ("the director answers frag-needed, the client never shrinks", "opsmonkey's blog on LVS-TUN, 2007", "`pmtud-blackhole` (to-realserver), `tunnel-mss-too-large`"),
    ("200 ms for each first large segment through IPIP", "wenlxie's blog on IPVS and IPIP, 2024", "`tunnel-mss-too-large`; discovery that works stands in the clean verdict of `pmtud-blackhole`"),
    ("frag-needed about packets that only receive offload made large", "RHEL 6.3 with GRO, moby#32023", "`icmp-error-unusable`"),
    ("the quote inside a translated error keeps the backend's address", "cilium#47755", "`icmp-unreachable-not-forwarded` (wrong-translation), `icmp-error-unusable`"),
    ("a checksum that was right before translation and is wrong behind", "cilium#40827, cilium#33844", "`icmp-checksum-burst`; captures of both sides name the box and the field"),
    ("the quoted header is all zeros", "cilium#21234", "`icmp-error-unusable`"),
    ("masquerading misses errors whose source is not the peer", "cilium#12968", "`pmtud-blackhole` (icmp-not-forwarded)"),
    ("a next-hop MTU of 0", "gvisor#12568", "`icmp-error-unusable`, `pmtud-blackhole` (icmp-unusable); DF given up is noted as such"),
    ("a next-hop MTU that is off by a header", "Jool#170", "`icmp-error-unusable` where it is not below the packet; a value too small is not told from a true one"),
    ("a tunnelling balancer advertises too much, or nothing", "dpvs#793, dpvs#810", "`tunnel-mss-too-large`, `icmp-error-unusable`, `pmtud-blackhole` (tunnel-overhead)"),
    ("too-big messages from a private address that nobody can receive", "calico#4439, calico#10640", "`icmp-error-unusable`; where they never arrive `pmtud-blackhole` (no-icmp-generated)"),
    ("an error whose source is its own destination", "calico#7146", "`icmp-error-unusable`"),
    ("the director should answer frag-needed and has no route for it", "Meridio#452", "`pmtud-blackhole` (tunnel-overhead, no-icmp-generated)"),
    ("frag-needed made after translation goes to the firewall itself", "opnsense/core#4094", "`icmp-error-unusable`; on a host that is not captured `pmtud-blackhole` (no-icmp-generated)"),
    ("frag-needed with a bad checksum on an overlay", "moby/libnetwork#2661", "`pmtud-blackhole` (icmp-corrupt), `icmp-checksum-burst` folded into it"),
    ("kernel logs full of failed ICMP checksums", f"{HOWTO} 35.3", "`icmp-checksum-burst`; the logs themselves with --facts"),
    ("bad outer UDP checksums of an overlay at its receiver", "kubernetes#88986, flannel#1279", "`transport-checksum-burst`"),
    ("the same, from a virtual network card's offload", "moby#41775", "`transport-checksum-burst`"),
    ("a redirect moves the VIP to one realserver", f"{HOWTO} 35.2, kube-router#623", "`redirect-to-router`"),
    ("redirects and requests that go in circles", "loxilb#502", "`redirect-to-router`, `forwarding-loop`"),
    ("host prohibited for an established stream, then 15 minutes of silence", f"{HOWTO} 35.6", "`host-prohibited-established`"),
    ("host prohibited for a new connection", "firewalld#1452, keepalived#1876", "`service-refused`"),
    ("port unreachable for a service without realservers", "calico#2024, kube-router#415", "`service-refused`"),
    ("data after 15 idle minutes is answered or swallowed", f"moby#31208, {HOWTO} 35.4", "`connection-expired-at-director`"),
    ("the SYN of a reused port is dropped for a second", "kubernetes#81775, moby#35082", "`connection-expired-at-director` (port-reuse-dropped)"),
    ("packets of old connections go to a removed realserver", "kubernetes#71358, keepalived#1781", "`realserver-gone`"),
    ("a realserver of weight 0 still gets reused connections", "kubernetes#99162", "`realserver-gone` (quiesced)"),
    ("a packet outside the window leaves untranslated and is reset", "kubernetes#74839", "`nat-reply-bypasses-director`"),
    ("the realserver's answer comes with its own address", "reports of asymmetric LVS-NAT", "`nat-reply-bypasses-director`"),
    ("requests reach a realserver that has no VIP", "seesaw#25", "`realserver-ignores-vip`"),
    ("two hosts answer ARP for the VIP", "keepalived#1507, kube-router#561", "`vip-arp-conflict`"),
    ("a packet for the VIP goes round until its TTL ends", "cilium#14118", "`forwarding-loop`"),
    ("tunnel packets from an unexpected source are never unpacked", "katran#116, moby#53004", "`realserver-ignores-vip`"),
)  # fmt: skip
"""What happened, where it was reported, what answers."""

SYMPTOMS: Final = (
    ("35", "connections hang, realservers full of FIN_WAIT", "`pmtud-blackhole` (hung sockets by state)"),
    ("35.1", "realservers repeat to clients that are gone, an error for each packet", "`icmp-unreachable-not-forwarded` (the price)"),
    ("35.1", "a server that filters frag-needed", "`pmtud-blackhole`"),
    ("35.2", "redirects to a router or, in NAT, to realservers", "`redirect-to-router`"),
    ("35.2", "two connections of a client to two realservers", "`icmp-unreachable-not-forwarded` (wrong-realserver)"),
    ("35.2", "a realserver goes down, the client waits", "`realserver-gone`"),
    ("35.3", "failed ICMP checksums, sender unknown", "`icmp-checksum-burst`"),
    ("35.4", "port unreachable, or today a reset, for an idle connection", "`connection-expired-at-director`"),
    ("35.5", "path MTU discovery", "`pmtud-blackhole`, `icmp-error-unusable`, `tunnel-mss-too-large`"),
    ("35.6", "host prohibited for long sessions", "`host-prohibited-established`"),
)  # fmt: skip
"""Section of LVS-HOWTO's chapter on ICMP, what it tells of, what answers."""


def section() -> str:
    """Return the section of the catalogue."""
    lines = [
        "## Incidents",
        "",
        "What was reported in public, as classes of incidents, and what answers to each.",
        "",
        "| incident | reported | answer |",
        "|---|---|---|",
        *(f"| {what} | {cite} | {answer} |" for what, cite, answer in INCIDENTS),
        "",
        "The symptoms of the LVS-HOWTO's chapter 35:",
        "",
        "| section | symptom | answer |",
        "|---|---|---|",
        *(f"| {number} | {what} | {answer} |" for number, what, answer in SYMPTOMS),
    ]
    return "\n".join(lines)
