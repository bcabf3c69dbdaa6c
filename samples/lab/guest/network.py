"""Hosts as network namespaces, links between them, captures on their interfaces.

A host's commands run in its namespace and are recorded, so that the truth can tell what was done.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import struct
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)

QUIET_IPV6 = "net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 \
net.ipv6.conf.all.accept_ra=0 net.ipv6.conf.default.accept_ra=0"
"""No address waits for duplicate detection, no host asks for routers."""


NO_OFFLOADS = "ethtool -K {} tx off rx off tso off gso off gro off >/dev/null\n"
"""Of hosts that send TCP: frames in the captures are then those of a wire."""


@contextmanager
def inside(namespace: Path) -> Iterator[None]:
    """Let the calling thread make sockets in a namespace, then come back."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(namespace, os.O_RDONLY)
    if _LIBC.setns(there, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), f"setns {namespace}")
    try:
        yield
    finally:
        _LIBC.setns(home, CLONE_NEWNET)
        os.close(there)
        os.close(home)


@dataclass
class Interface:
    """One end of a link."""

    mac: str
    addresses: list[str]
    mtu: int
    segment: str | None


@dataclass
class Host:
    """A network namespace with a role in the story."""

    name: str
    role: str
    namespace: Path
    log: list[tuple[float, str, str]]
    interfaces: dict[str, Interface] = field(default_factory=dict)
    also: str | None = None
    """A second role that a fault gives it."""

    @property
    def inside(self) -> list[str]:
        """The words that run a program here."""
        return ["nsenter", f"--net={self.namespace}"]

    def run(self, commands: str, *, check: bool = True) -> str:
        """Run shell commands here and return what they print."""
        done = subprocess.run(
            [*self.inside, "sh", "-ec", commands],
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode:
            raise RuntimeError(f"{self.name}: {commands}\n{done.stdout}{done.stderr}")
        return done.stdout

    def do(self, commands: str) -> None:
        """Run commands that change the host, and note them."""
        self.log.append((time.time(), self.name, commands))
        self.run(commands)


@dataclass
class Capture:
    """A tcpdump at work."""

    file: str
    vantage: str
    host: Host
    interface: str
    path: Path
    process: subprocess.Popen[str]
    said: str = ""
    frames: int = 0

    def numbers(self, wanted: str) -> list[int]:
        """Return the numbers of the frames that a pcap filter selects."""
        done = subprocess.run(
            ["tcpdump", "-n", "-r", self.path, "-w", "-", wanted], capture_output=True, check=True
        )
        selected = _records(done.stdout)
        here = next(selected, None)
        numbers = []
        for number, record in enumerate(_records(self.path.read_bytes()), 1):
            if record == here:
                numbers.append(number)
                here = next(selected, None)
        return numbers


def _records(pcap: bytes) -> Iterator[bytes]:
    """Yield the records of a pcap of this machine's byte order, header and frame."""
    at = 24
    while at < len(pcap):
        end = at + 16 + struct.unpack_from("=8xI", pcap, at)[0]
        yield pcap[at:end]
        at = end


class Network:
    """The hosts of one scenario and what joins them; names carry a prefix of their own."""

    def __init__(self, prefix: str, folder: Path) -> None:
        """Make an empty network that writes captures into `folder`."""
        self.prefix = prefix
        self.folder = folder
        self.hosts: dict[str, Host] = {}
        self.log: list[tuple[float, str, str]] = []
        self.captures: list[Capture] = []
        self._switches: list[Host] = []
        self._ports = 0

    def host(self, name: str, role: str, *, forwarding: bool, ipv6: bool) -> Host:
        """Add a host."""
        host = self._namespace(name, role)
        self.hosts[name] = host
        host.run(
            f"ip link set lo up; sysctl -qw {QUIET_IPV6} net.ipv4.tcp_no_metrics_save=1 "
            f"net.ipv4.ip_forward={int(forwarding)} net.ipv6.conf.all.forwarding={int(forwarding)} "
            f"net.ipv6.conf.all.disable_ipv6={int(not ipv6)} "
            f"net.ipv6.conf.default.disable_ipv6={int(not ipv6)}"
        )
        return host

    def switch(self, name: str) -> Host:
        """Add a LAN."""
        switch = self._namespace(name, "switch")
        switch.run(
            "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1;"
            "ip link add lan type bridge mcast_snooping 0; ip link set lan up"
        )
        self._switches.append(switch)
        return switch

    def plug(self, host: Host, port: str, lan: Host, *addresses: str, mtu: int = 1500) -> None:
        """Connect a host to a LAN, 1 ms away: zero latency hides what real networks show."""
        mac = self._mac()
        peer = f"p{self._ports}"
        end = f"peer name {peer} netns {lan.namespace.name}"
        host.run(
            _batch(
                f"link add {port} address {mac} type veth {end}",
                *_up(port, mtu, addresses),
            )
            + ("" if host.role == "router" else NO_OFFLOADS.format(port))
        )
        lan.run(
            _batch(f"link set {peer} mtu 9000 master lan up")
            + f"tc qdisc add dev {peer} root netem delay 1ms limit 2000"
        )
        host.interfaces[port] = Interface(mac, list(addresses), mtu, lan.name)

    def wire(
        self, ends: list[tuple[Host, str, list[str]]], *, mtu: int = 1500, delay_ms: int = 2
    ) -> None:
        """Connect two hosts."""
        (left, port, addresses), (right, peer, others) = ends
        mac, other = self._mac(), self._mac()
        added = f"link add {port} address {mac} type veth peer name {peer} address {other}"
        for host, name, commands in (
            (left, port, [f"{added} netns {right.namespace.name}", *_up(port, mtu, addresses)]),
            (right, peer, _up(peer, mtu, others)),
        ):
            host.run(
                _batch(*commands)
                + ("" if host.role == "router" else NO_OFFLOADS.format(name))
                + f"tc qdisc add dev {name} root netem delay {delay_ms}ms limit 2000"
            )
        left.interfaces[port] = Interface(mac, addresses, mtu, None)
        right.interfaces[peer] = Interface(other, others, mtu, None)

    def capture(self, file: str, host: Host, interface: str, vantage: str) -> None:
        """Start a tcpdump and wait until it listens."""
        path = self.folder / file
        where = ("-i", interface, "-w", path)
        process = subprocess.Popen(
            [*host.inside, *("tcpdump", "-Z", "root", "-n", "-U", "-s", "65535"), *where],
            stderr=subprocess.PIPE,
            text=True,
        )
        capture = Capture(file, vantage, host, interface, path, process)
        while "listening on" not in capture.said:
            line = process.stderr.readline()
            if not line:
                raise RuntimeError(f"tcpdump {file}: {capture.said}")
            capture.said += line
        self.captures.append(capture)

    def stop_captures(self) -> None:
        """End the captures and count their frames."""
        for capture in self.captures:
            capture.process.terminate()
        for capture in self.captures:
            capture.said += capture.process.stderr.read()
            capture.process.wait()
            capture.frames = int(capture.said.split(" packets captured")[0].split()[-1])

    def remove(self) -> None:
        """Delete all namespaces, and with them links and rules."""
        for host in [*self.hosts.values(), *self._switches]:
            subprocess.run(["ip", "netns", "del", host.namespace.name], check=False)

    def _namespace(self, name: str, role: str) -> Host:
        full = f"{self.prefix}-{name}"
        subprocess.run(["ip", "netns", "add", full], check=True)
        return Host(name, role, Path("/run/netns") / full, self.log)

    def _mac(self) -> str:
        """Return the next MAC: the scenario decides the vendor part, the count the rest."""
        self._ports += 1
        seed = hashlib.sha256(self.prefix.encode()).digest()
        vendor = ("52:54:00", "00:16:3e", "02:42:ac", "fa:16:3e")[seed[0] % 4]
        return f"{vendor}:{seed[1]:02x}:{seed[2]:02x}:{self._ports:02x}"


def _up(port: str, mtu: int, addresses: Iterable[str]) -> list[str]:
    """Return what brings an interface up."""
    return [
        f"link set {port} mtu {mtu} up",
        *(f"addr add {address} dev {port}" for address in addresses),
    ]


def _batch(*commands: str) -> str:
    """Return shell that runs commands of ip in one process: a slow guest feels each one."""
    return "ip -batch - <<END\n" + "\n".join(commands) + "\nEND\n"
