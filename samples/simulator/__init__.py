"""A small packet-level model of an LVS cluster, from which the synthetic samples are made.

Hosts hold real IP packets as bytes, built with scapy; an event loop carries them over links with
delay, size limits and chosen losses; every host that is captured writes down what passes its
interfaces. It models what the samples need of Linux (ARP, ND, forwarding, ICMP errors, IPVS, TCP
with SACK, loss probes and backoff) and imports nothing of pcapdiag, so that it is an independent
witness. Modules from the ground up:

    clock     time, and numbers that look random but follow from a name
    wire      bytes of packets: build, read, rewrite
    capture   what a tap saw; pcap and pcapng files
    links     interfaces and the segments between them
    hosts     ARP/ND, routing, forwarding, ICMP errors, redirects
    tcp       one end of a TCP connection, after Linux
    ipvs      the director: NAT, DR, TUN
    apps      a small web server, its clients, health checks, traceroute
    cluster   the three clusters of the samples and their traffic
    truth     truth.json
"""
