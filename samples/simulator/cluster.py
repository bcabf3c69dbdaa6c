r"""The clusters of the samples.

clients A --- isp --- router --- LAN: director, realservers        DR, TUN, one-armed NAT
|                \--- director --- inside LAN       NAT
clients B --- cpe    the link between isp and cpe takes 1400 bytes
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .clock import MICROSECOND
from .lab import Lab

if TYPE_CHECKING:
    from .hosts import Host

LAN_NS: Final = 220 * MICROSECOND
WAN_NS: Final = 4_100 * MICROSECOND
ACCESS_NS: Final = 6_300 * MICROSECOND
HOME_NS: Final = 700 * MICROSECOND
NARROW_MTU: Final = 1400


def _outside(lab: Lab, *, six: bool = False) -> None:
    """Add router, isp, cpe and the two client networks."""
    lab.segment("wan", WAN_NS)
    lab.segment("clients-a", HOME_NS)
    lab.segment("access", ACCESS_NS)
    lab.segment("clients-b", HOME_NS)
    lab.host("router", "router", forwarding=True)
    lab.host("isp", "router", forwarding=True)
    lab.host("cpe", "router", forwarding=True)
    lab.host("client-a", "client")
    lab.host("client-b", "client")
    if six:
        lab.attach("isp", "eth0", "wan", "2001:db8:0:ff::2/64")
        lab.attach("isp", "eth1", "clients-a", "2001:db8:a::1/64")
        lab.attach("isp", "eth2", "access", "2001:db8:0:fe::1/64", mtu=NARROW_MTU)
        lab.attach("cpe", "eth0", "access", "2001:db8:0:fe::2/64", mtu=NARROW_MTU)
        lab.attach("cpe", "eth1", "clients-b", "2001:db8:b::1/64")
        many = [f"2001:db8:a::{n:x}/64" for n in range(0x20, 0x30)]
        lab.attach("client-a", "eth0", "clients-a", *many)
        many = [f"2001:db8:b::{n:x}/64" for n in range(0x50, 0x58)]
        lab.attach("client-b", "eth0", "clients-b", *many)
        lab.hosts["isp"].add_route("2001:db8:b::/64", "2001:db8:0:fe::2")
        lab.hosts["isp"].add_route("2001:db8:0:1::/64", "2001:db8:0:ff::1", "eth0")
        lab.hosts["cpe"].add_route("::/0", "2001:db8:0:fe::1")
        lab.hosts["client-a"].add_route("::/0", "2001:db8:a::1")
        lab.hosts["client-b"].add_route("::/0", "2001:db8:b::1")
        return
    lab.attach("isp", "eth0", "wan", "192.0.2.2/30")
    lab.attach("isp", "eth1", "clients-a", "198.51.100.1/25")
    lab.attach("isp", "eth2", "access", "192.0.2.5/30", mtu=NARROW_MTU)
    lab.attach("cpe", "eth0", "access", "192.0.2.6/30", mtu=NARROW_MTU)
    lab.attach("cpe", "eth1", "clients-b", "198.51.100.129/25")
    lab.attach("client-a", "eth0", "clients-a", *[f"198.51.100.{n}/25" for n in range(20, 36)])
    lab.attach("client-b", "eth0", "clients-b", *[f"198.51.100.{n}/25" for n in range(150, 162)])
    lab.hosts["isp"].add_route("198.51.100.128/25", "192.0.2.6")
    lab.hosts["isp"].add_route("203.0.113.0/24", "192.0.2.1", "eth0")
    lab.hosts["cpe"].add_route("0.0.0.0/0", "192.0.2.5")
    lab.hosts["client-a"].add_route("0.0.0.0/0", "198.51.100.1")
    lab.hosts["client-b"].add_route("0.0.0.0/0", "198.51.100.129")


def dr(sample: str, *, routed: bool = False) -> Lab:
    """Return an LVS-DR cluster: one LAN, the VIP on every realserver's loopback.

    `routed`: the VIP is no address of the LAN; the router has a route for it to the director, as
    firewall-mark setups do.
    """
    vip, prefix = ("203.0.113.200", 25) if routed else ("203.0.113.10", 24)
    lab = Lab(sample, "dr", vip, ["203.0.113.11", "203.0.113.12"])
    lab.segment("lan", LAN_NS)
    _outside(lab)
    lab.attach("router", "eth0", "lan", f"203.0.113.1/{prefix}")
    lab.attach("router", "eth1", "wan", "192.0.2.1/30")
    lab.hosts["router"].add_route("0.0.0.0/0", "192.0.2.2")
    lab.host("director", "director", forwarding=True)
    if routed:
        lab.attach("director", "eth0", "lan", f"203.0.113.2/{prefix}")
        lab.director.loopback.add(vip)
        lab.hosts["router"].add_route(f"{vip}/32", "203.0.113.2")
    else:
        lab.attach("director", "eth0", "lan", f"203.0.113.2/{prefix}", f"{vip}/32")
    lab.director.add_route("0.0.0.0/0", "203.0.113.1")
    for number, address in enumerate(lab.realserver_addresses, 1):
        host = lab.host(f"rs{number}", "realserver")
        lab.attach(host.name, "eth0", "lan", f"{address}/{prefix}")
        host.loopback.add(vip)
        host.add_route("0.0.0.0/0", "203.0.113.1")
    return lab


def dr6(sample: str) -> Lab:
    """Return the same cluster with IPv6."""
    lab = Lab(sample, "dr", "2001:db8:0:1::10", ["2001:db8:0:1::11", "2001:db8:0:1::12"])
    lab.segment("lan", LAN_NS)
    _outside(lab, six=True)
    lab.attach("router", "eth0", "lan", "2001:db8:0:1::1/64")
    lab.attach("router", "eth1", "wan", "2001:db8:0:ff::1/64")
    lab.hosts["router"].add_route("::/0", "2001:db8:0:ff::2")
    lab.host("director", "director", forwarding=True)
    lab.attach("director", "eth0", "lan", "2001:db8:0:1::2/64", f"{lab.vip}/128")
    lab.director.add_route("::/0", "2001:db8:0:1::1")
    for number, address in enumerate(lab.realserver_addresses, 1):
        host = lab.host(f"rs{number}", "realserver")
        lab.attach(host.name, "eth0", "lan", f"{address}/64")
        host.loopback.add(lab.vip)
        host.add_route("::/0", "2001:db8:0:1::1")
    return lab


def nat(sample: str) -> Lab:
    """Return an LVS-NAT cluster with two arms: realservers behind the director."""
    lab = Lab(sample, "nat", "203.0.113.10", ["10.1.0.11", "10.1.0.12"])
    lab.segment("lan", LAN_NS)
    lab.segment("inside", LAN_NS)
    _outside(lab)
    lab.attach("router", "eth0", "lan", "203.0.113.1/24")
    lab.attach("router", "eth1", "wan", "192.0.2.1/30")
    lab.hosts["router"].add_route("0.0.0.0/0", "192.0.2.2")
    lab.host("director", "director", forwarding=True)
    lab.attach("director", "eth0", "lan", "203.0.113.2/24", f"{lab.vip}/32")
    lab.attach("director", "eth1", "inside", "10.1.0.1/24")
    lab.director.add_route("0.0.0.0/0", "203.0.113.1")
    for number, address in enumerate(lab.realserver_addresses, 1):
        host = lab.host(f"rs{number}", "realserver")
        lab.attach(host.name, "eth0", "inside", f"{address}/24")
        host.add_route("0.0.0.0/0", "10.1.0.1")
    return lab


def nat_one_arm(sample: str) -> Lab:
    """Return an LVS-NAT cluster whose director has one interface, on the realservers' LAN."""
    lab = Lab(sample, "nat", "203.0.113.10", ["10.1.0.11", "10.1.0.12"])
    lab.segment("lan", LAN_NS)
    _outside(lab)
    lab.attach("router", "eth0", "lan", "10.1.0.1/24", "203.0.113.1/24")
    lab.attach("router", "eth1", "wan", "192.0.2.1/30")
    lab.hosts["router"].add_route("0.0.0.0/0", "192.0.2.2")
    lab.host("director", "director", forwarding=True)
    lab.attach("director", "eth0", "lan", "10.1.0.2/24", f"{lab.vip}/32")
    lab.director.add_route("0.0.0.0/0", "10.1.0.1")
    for number, address in enumerate(lab.realserver_addresses, 1):
        host = lab.host(f"rs{number}", "realserver")
        lab.attach(host.name, "eth0", "lan", f"{address}/24")
        host.add_route("0.0.0.0/0", "10.1.0.2")
    return lab


def tun(sample: str) -> Lab:
    """Return an LVS-TUN cluster: IPIP to realservers in another network behind the router."""
    lab = Lab(sample, "tun", "203.0.113.10", ["10.2.0.11", "10.2.0.12"])
    lab.segment("lan", LAN_NS)
    lab.segment("farm", LAN_NS)
    _outside(lab)
    lab.attach("router", "eth0", "lan", "203.0.113.1/24")
    lab.attach("router", "eth1", "wan", "192.0.2.1/30")
    lab.attach("router", "eth2", "farm", "10.2.0.1/24")
    lab.hosts["router"].add_route("0.0.0.0/0", "192.0.2.2")
    lab.host("director", "director", forwarding=True)
    lab.attach("director", "eth0", "lan", "203.0.113.2/24", f"{lab.vip}/32")
    lab.director.add_route("0.0.0.0/0", "203.0.113.1")
    for number, address in enumerate(lab.realserver_addresses, 1):
        host = lab.host(f"rs{number}", "realserver")
        lab.attach(host.name, "eth0", "farm", f"{address}/24")
        host.loopback.add(lab.vip)
        host.add_route("0.0.0.0/0", "10.2.0.1")
    return lab


def second_router(lab: Lab) -> Host:
    """Add a router at 203.0.113.254 with its own line to the isp; nothing uses it yet."""
    lab.segment("wan2", WAN_NS)
    host = lab.host("router2", "router", forwarding=True)
    lab.attach("router2", "eth0", "lan", "203.0.113.254/24")
    lab.attach("router2", "eth1", "wan2", "192.0.2.9/30")
    lab.attach("isp", "eth3", "wan2", "192.0.2.10/30")
    host.add_route("0.0.0.0/0", "192.0.2.10")
    return host
