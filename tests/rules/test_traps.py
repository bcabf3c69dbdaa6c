"""Healthy traffic that looks like a fault to whoever looks once: no rule may fire."""

from __future__ import annotations

import pytest
from stories import case

from pcapdiag import registry
from pcapdiag.result import Finding, Severity

DIRECTOR = """
0.000 c>s S seq=0 mss=1460 mac=x>d
0.0001 copy 1 ttl=63 mac=d>rs
0.002 c>s A seq=1 ack=1 mac=x>d
0.0021 copy 3 ttl=63 mac=d>rs
0.003 c>s PA seq=1 ack=1 len=100 mac=x>d
0.0031 copy 5 ttl=63 mac=d>rs
"""
"""A DR director forwards a connection; 6 frames."""

REALSERVER = """
0.000 c>s S seq=0 mss=1460 ttl=63 mac=d>rs
0.001 s>c SA seq=0 ack=1 mss=1460 mac=rs>x
0.002 c>s A seq=1 ack=1 ttl=63 mac=d>rs
0.003 c>s PA seq=1 ack=1 len=100 ttl=63 mac=d>rs
0.004 s>c PA seq=1 ack=101 len=400 mac=rs>x
0.010 c>s A seq=101 ack=401 ttl=63 mac=d>rs
"""
"""Its realserver answers; 6 frames."""

STUCK = "{t} s>c A seq=401 ack=101 len=1460 mac=rs>x\n"
TOLD = """
{t}01 r>s icmp 3/4 mtu=1400 quote={quote} mac=d>rs ttl=59
{t}02 s>c A seq=401 ack=101 len=1360 mac=rs>x
{t}03 s>c A seq=1761 ack=101 len=100 mac=rs>x
{t}04 c>s A seq=101 ack=1861 ttl=63 mac=d>rs
9 c>s A seq=101 ack=1861 ttl=63 mac=d>rs
"""
REPEATS = ("0.020", "0.220", "0.620", "1.420", "3.020", "6.220", "12.620")

TRAPS = {
    "discovery works": {"rs1": REALSERVER + STUCK.format(t=0.02) + TOLD.format(t=0.02, quote=7)},
    "its message is limited in rate and comes after a second": {
        "rs1": REALSERVER
        + "".join(STUCK.format(t=t) for t in REPEATS[:4])
        + TOLD.format(t=1.42, quote=10)
    },
    "its message comes three times": {
        "rs1": REALSERVER
        + STUCK.format(t=0.02)
        + "0.0201 r>s icmp 3/4 mtu=1400 quote=7 mac=d>rs ttl=59 id=1\n"
        "0.0202 r>s icmp 3/4 mtu=1400 quote=7 mac=d>rs ttl=59 id=2\n" + TOLD.format(t=0.03, quote=7)
    },
    "packet too big with the least MTU of IPv6": {
        "rs1": """
0.000 c6>s6 S seq=0 mss=1440 ttl=63 mac=d>rs
0.001 s6>c6 SA seq=0 ack=1 mss=1440 mac=rs>x
0.002 c6>s6 A seq=1 ack=1 ttl=63 mac=d>rs
0.003 c6>s6 PA seq=1 ack=1 len=100 ttl=63 mac=d>rs
0.010 s6>c6 A seq=1 ack=101 len=1440 mac=rs>x
0.020 r6>s6 icmp 2/0 mtu=1280 quote=5 mac=d>rs ttl=59
0.021 s6>c6 A seq=1 ack=101 len=1220 mac=rs>x
0.022 s6>c6 A seq=1221 ack=101 len=220 mac=rs>x
0.030 c6>s6 A seq=101 ack=1441 ttl=63 mac=d>rs
9.000 c6>s6 A seq=101 ack=1441 ttl=63 mac=d>rs
"""
    },
    "a client closes its window for a minute": {
        "rs1": REALSERVER
        + STUCK.format(t=0.02)
        + "0.021 c>s A seq=101 ack=1861 win=0 ttl=63 mac=d>rs\n"
        + "".join(
            f"{t} s>c A seq=1861 ack=101 len=1460 mac=rs>x\n"
            f"{t}1 c>s A seq=101 ack=1861 win=0 ttl=63 mac=d>rs\n"
            for t in REPEATS[1:]
        )
    },
    "a client vanishes in the middle of a transfer": {
        "rs1": REALSERVER
        + "".join(STUCK.format(t=t) for t in REPEATS)
        + "90.0 c2>s S seq=0 ttl=63 mac=d>rs\n90.1 s>c2 SA seq=0 ack=1 mac=rs>x\n"
    },
    "small packets are repeated": {
        "rs1": REALSERVER
        + "".join(f"{t} s>c PA seq=401 ack=101 len=60 mac=rs>x\n" for t in REPEATS)
        + "20.0 c>s A seq=101 ack=461 ttl=63 mac=d>rs\n"
    },
    "offload shows packets larger than any MTU": {
        "rs1": REALSERVER
        + """
0.020 s>c A seq=401 ack=101 len=14480 mac=rs>x
0.220 s>c A seq=401 ack=101 len=1448 mac=rs>x
0.221 c>s A seq=101 ack=14881 ttl=63 mac=d>rs
0.300 s>c A seq=14881 ack=101 len=14480 mac=rs>x
0.310 c>s A seq=101 ack=29361 ttl=63 mac=d>rs
"""
    },
    "a capture begins in the middle and sees the end": {
        "director": """
0.000 c>s A seq=5000 ack=9000 mac=x>d
0.0001 copy 1 ttl=63 mac=d>rs
0.500 c>s FA seq=5000 ack=9500 mac=x>d
0.5001 copy 3 ttl=63 mac=d>rs
1.900 c>s R seq=5001 mac=x>d
1.9001 copy 5 ttl=63 mac=d>rs
3.000 c2>s S seq=0 mac=x>d
3.0001 copy 7 ttl=63 mac=d>rs2
"""
    },
    "a capture ends right behind a packet": {
        "director": DIRECTOR + "4.0 c>s PA seq=101 ack=401 len=10 mac=x>d\n",
        "rs1": REALSERVER,
    },
    "a port is used again at once": {
        "director": DIRECTOR
        + """
1.0 c>s FA seq=101 ack=401 mac=x>d
1.0001 copy 7 ttl=63 mac=d>rs
3.0 c>s S seq=90000 mss=1460 mac=x>d
3.0001 copy 9 ttl=63 mac=d>rs2
3.1 c>s A seq=90001 ack=1 mac=x>d
3.1001 copy 11 ttl=63 mac=d>rs2
"""
    },
    "keepalive probes keep a connection for an hour": {
        "director": DIRECTOR
        + "".join(
            f"{600 * n} c>s A seq=100 ack=401 mac=x>d\n{600 * n}.0001 copy {5 + 2 * n} ttl=63 "
            "mac=d>rs\n"
            for n in range(1, 7)
        )
    },
    "an application resets after a long pause": {
        "director": DIRECTOR
        + "905.0 c>s PA seq=101 ack=401 len=10 mac=x>d\n905.0001 copy 7 ttl=63 mac=d>rs\n",
        "rs1": REALSERVER + "905.0 c>s PA seq=101 ack=401 len=10 ttl=63 mac=d>rs\n"
        "905.1 s>c RA seq=401 ack=111 mac=rs>x\n",
    },
    "health checks of a realserver that is down": {
        "director": DIRECTOR
        + """
1.0 d>rs2 S seq=0 mac=d>rs2
3.0 d>rs2 S seq=0 mac=d>rs2
7.0 d>rs2 S seq=0 mac=d>rs2
8.0 d:50001>rs S seq=0 mac=d>rs
8.1 rs>d:50001 RA seq=-1000 ack=1 mac=rs>d
"""
    },
    "traceroute to the VIP, with UDP and with TCP": {
        "director": DIRECTOR
        + """
1.0 c>s:33434 udp len=32 ttl=1 mac=x>d
1.0001 s>c icmp 3/3 quote=7 mac=d>x
1.1 c>s:33435 udp len=32 ttl=1 mac=x>d
1.1001 s>c icmp 3/3 quote=9 mac=d>x
2.0 c2>s S seq=0 ttl=1 mac=x>d
2.0001 s>c2 icmp 11/0 quote=11 mac=d>x
"""
    },
    "a port scan of the VIP": {
        "director": DIRECTOR
        + "".join(
            f"1.{n} c2>s:{20 + n} S seq=0 mac=x>d\n1.{n}1 s:{20 + n}>c2 RA seq=-1000 ack=1 id=0 "
            "mac=d>x\n"
            for n in range(1, 7)
        )
    },
    "a VIP moves between two answers to ARP": {
        "director": DIRECTOR,
        "router": """
0.000 c>s S seq=0 mss=1460 mac=x>d
5.000 x>* arp request who=s
5.001 d>x arp reply is=s
5.300 r>* arp announce is=s
5.600 r>x arp reply is=s
6.000 c>s PA seq=1 ack=1 len=10 mac=x>r
""",
    },
    "a request is lost before the director": {
        "director": """
0.000 c>s S seq=0 mss=1460 mac=x>d
1.000 c>s S seq=0 mss=1460 mac=x>d
1.0001 copy 2 ttl=63 mac=d>rs
1.010 c>s A seq=1 ack=1 mac=x>d
1.0101 copy 4 ttl=63 mac=d>rs
""",
        "rs1": """
1.0001 c>s S seq=0 mss=1460 ttl=63 mac=d>rs
1.001 s>c SA seq=0 ack=1 mss=1460 mac=rs>x
1.0101 c>s A seq=1 ack=1 ttl=63 mac=d>rs
""",
    },
    "clocks go back, and a frame has no time": {
        "director": DIRECTOR
        + """
- c>s A seq=101 ack=401 mac=x>d
0.0005 c>s A seq=101 ack=401 mac=x>d
0.0006 copy 8 ttl=63 mac=d>rs
5.000 c2>s S seq=0 mac=x>d
4.9999 copy 10 ttl=63 mac=d>rs2
"""
    },
    "the director is told of a better router for itself": {
        "director": DIRECTOR
        + "1.0 x>d icmp 5/1 gw=r quote=1 mac=x>d\n2.0 c>s A seq=101 ack=401 mac=x>d\n"
        "2.0001 copy 8 ttl=63 mac=d>rs\n"
    },
    "pings of the VIP": {
        "director": DIRECTOR + "1.0 c>s icmp 8/0 mac=x>d\n1.0001 s>c icmp 0/0 mac=d>x\n"
    },
}


@pytest.mark.parametrize("name", TRAPS)
def test_no_rule_fires_on(name):
    """What captures themselves are short of may be told, as a remark."""
    judged = case(**TRAPS[name])
    findings = [
        (name, item)
        for name, rule in registry.rules().items()
        for item in rule.check(judged)
        if isinstance(item, Finding)
    ]
    assert [(name, item.summary) for name, item in findings if name != "capture-quality"] == []
    assert all(item.severity in {Severity.LOW, Severity.INFO} for _, item in findings)
