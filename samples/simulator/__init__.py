"""A small packet-level model of an LVS cluster, from which the synthetic samples are made.

Hosts hold real IP packets as bytes, built with scapy; an event loop carries them over links with
delay, size limits and chosen losses; every host that is captured writes down what passes its
interfaces. It models what the samples need of Linux (ARP, ND, forwarding, ICMP errors, IPVS, TCP
with SACK, loss probes and backoff) and imports nothing of pcapdiag, so that it is an independent
witness. Modules from the ground up:

    clock                       time, and numbers that look random but follow from a name
    checksums, wire, rewrite    bytes of packets: build and read them; forward and translate them
    capture                     what a tap saw; pcap and pcapng files
    links, neighbours           interfaces, segments; ARP and neighbour discovery
    receiver, flight, tcp       one end of a TCP connection, after Linux
    stack, hosts                a host's sockets; routing, forwarding, ICMP errors, redirects
    ipvs                        the director: NAT, DR, TUN
    apps                        a web server, its clients, health checks, ping, traceroute
    lab, cluster                taps and planned flows; the clusters of the samples
    traffic, everyday, faults   what clients do, what goes wrong on any network, what is set wrong
    frames, truth               finding frames in a capture; truth.json and README.md
"""
