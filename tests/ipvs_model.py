"""A model of IPVS and the hosts around it, independent of the program and of the samples' maker.

It writes bytes, and it remembers of every captured frame which packet it is, so that what the
program joins can be held against the truth. Written from RFC 791, 792, 793, 768, 2784, 8200, 4443
and from what a 6.1 kernel was seen to do: ip_vs_dr_xmit, ip_vs_nat_xmit, ip_vs_tunnel_xmit,
ip_vs_nat_icmp.

clients -- router -- director -- realservers. In LVS-DR and LVS-TUN answers go from the realserver
to the router; in LVS-NAT back through the director.
"""

from __future__ import annotations

import ipaddress
import random
import struct
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

START_NS: Final = 1_700_000_000_000_000_000
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16

METHODS: Final = (
    ("nat", None),
    ("dr", None),
    ("tun", "ipip"),
    ("tun", "gre"),
    ("tun", "gue"),
)


def checksum(data: bytes) -> int:
    """Return the internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@dataclass(frozen=True)
class Packet:
    """An IP packet; `uid` stays with it wherever it goes, `owner` is what it is about.

    owner: number of the connection. body: what stands behind the IP header, with checksums of 0
    where `sum_at` says: they are filled in when the bytes are made, since they cover addresses.
    """

    uid: int
    owner: int
    src: str
    dst: str
    proto: int
    body: bytes
    sum_at: int | None
    ip_id: int
    ttl: int = 64
    df: bool = True

    @property
    def v6(self) -> bool:
        """Whether it is IPv6."""
        return ":" in self.src

    def filled(self) -> bytes:
        """Return the body with its checksum."""
        if self.sum_at is None:
            return self.body
        source, target = (ipaddress.ip_address(end).packed for end in (self.src, self.dst))
        pseudo = source + target + struct.pack(">IHH", len(self.body), 0, self.proto)
        covered = (b"" if self.proto == 1 else pseudo) + self.body
        value = checksum(covered)
        if self.proto == 17 and value == 0:
            value = 0xFFFF
        at = self.sum_at
        return self.body[:at] + struct.pack(">H", value) + self.body[at + 2 :]

    def bytes(self) -> bytes:
        """Return the packet as it is on the wire."""
        return ip_header(self, len(self.body)) + self.filled()


def ip_header(packet: Packet, length: int) -> bytes:
    """Return an IP header for a body of some length."""
    source, target = (ipaddress.ip_address(end).packed for end in (packet.src, packet.dst))
    if packet.v6:
        fixed = struct.pack(">IHBB", 6 << 28, length, packet.proto, packet.ttl)
        return fixed + source + target
    flags = 0x4000 if packet.df else 0
    head = struct.pack(
        ">BBHHHBBH", 0x45, 0, 20 + length, packet.ip_id, flags, packet.ttl, packet.proto, 0
    )
    head += source + target
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:]


@dataclass(frozen=True)
class Seen:
    """One captured frame: its packet's uid and owner, "in" or "out" at the capturing host."""

    uid: int
    owner: int
    place: str
    inside: bool
    time_ns: int
    raw: bytes
    source_mac: bytes
    target_mac: bytes
    ethertype: int


@dataclass
class Vantage:
    """A point of capture with all that its captures suffer."""

    name: str
    offset_ns: int = 0
    drift_ppm: float = 0.0
    lost: float = 0.0
    doubled: bool = False
    linktype: int = 1
    snaplen: int = 262_144
    late: float = 0.0
    frames: list[Seen] = field(default_factory=list)


@dataclass
class Connection:
    """What is true of a connection."""

    number: int
    client: str
    client_port: int
    realserver: str
    address: str
    udp: bool
    ids: str
    stamped: bool
    swallowed: set[int] = field(default_factory=set)
    """uids of the packets that the director did not hand on."""


def mac(number: int) -> bytes:
    """Return a locally administered MAC."""
    return bytes([2, 0, 0, 0, number >> 8, number & 0xFF])


class World:
    """A cluster of one service and the traffic of its clients, made from a seed."""

    ttl_step = 1
    """By how much the director lowers a TTL; kernels before 4.10 and XDP programs do not."""

    def __init__(
        self, seed: int, method: tuple[str, str | None] | None = None, v6: bool | None = None
    ) -> None:
        """Build the cluster, of a method and IP version or what the seed says; run() fills it."""
        self.random = random.Random(seed)  # noqa: S311 - a seed is the point
        chance = self.random
        self.method, self.encapsulation = method or METHODS[seed % len(METHODS)]
        self.v6 = (seed // len(METHODS)) % 2 == 1 if v6 is None else v6
        self.two_arms = self.method == "nat" and chance.random() < 0.6
        self.port = 80
        self.rport = chance.choice([80, 8080]) if self.method == "nat" else 80
        net = "2001:db8:{}::" if self.v6 else "203.0.{}."
        wan, lan = net.format(113), net.format(114 if self.two_arms else 113)
        self.vip = f"{wan}{10}"
        self.director = f"{wan}{2}"
        self.realservers = {
            f"rs{number}": f"{lan}{10 + number}" for number in range(1, chance.choice([3, 4]))
        }
        self.macs = {
            "router": mac(1),
            "director": mac(2),
            "inside": mac(3 if self.two_arms else 2),
            "client": mac(0x900),
            "cpe": mac(0x901),
            **{name: mac(0x10 + number) for number, name in enumerate(self.realservers)},
        }
        self.vantages = {
            name: Vantage(name) for name in ("client", "router", "director", *self.realservers)
        }
        self.connections: list[Connection] = []
        self.relayed: set[int] = set()
        self.now = START_NS
        self._uids = 0
        self._ids: dict[str, int] = {}

    # Packets.

    def uid(self) -> int:
        """Return the next packet's number."""
        self._uids += 1
        return self._uids

    def ip_id(self, sender: str, ids: str) -> int:
        """Return an IP ID as the sender's stack chooses it."""
        if ids == "zero":
            return 0
        if ids == "random":
            return self.random.randrange(1, 65536)
        self._ids[sender] = self._ids.get(sender, self.random.randrange(65536)) + 1
        return self._ids[sender] % 65535 + 1

    def tcp(self, link: Connection, by_client: bool, flags: int, seq: int, ack: int, size: int):
        """Return a segment of a connection, as its sender sends it."""
        options = b""
        if flags & SYN:
            options = struct.pack(">BBH", 2, 4, 1460)
        if link.stamped:
            options += struct.pack(">BBBBII", 1, 1, 8, 10, self.now // 1_000_000 % 2**32, 7)
        ends = (link.client_port, self.port) if by_client else (self.port, link.client_port)
        offset = (20 + len(options)) // 4 << 4
        head = struct.pack(">HHIIBBHHH", *ends, seq % 2**32, ack % 2**32, offset, flags, 502, 0, 0)
        return self._packet(link, by_client, 6, head + options + bytes(size), 16)

    def udp(self, link: Connection, by_client: bool, payload: bytes) -> Packet:
        """Return a datagram of a conversation."""
        ends = (link.client_port, self.port) if by_client else (self.port, link.client_port)
        head = struct.pack(">HHHH", *ends, 8 + len(payload), 0)
        return self._packet(link, by_client, 17, head + payload, 6)

    def _packet(self, link: Connection, by_client: bool, proto: int, body: bytes, at: int):
        ends = (link.client, self.vip) if by_client else (self.vip, link.client)
        # Linux numbers SYN-ACKs and stateless resets 0.
        ids = "zero" if proto == 6 and not by_client and body[13] & SYN else link.ids
        number = 0 if self.v6 else self.ip_id(ends[0] if by_client else link.address, ids)
        return Packet(self.uid(), link.number, *ends, proto, body, at, number)

    # Ways.

    def tap(self, name: str, packet: Packet, source: str, target: str, place: str, raw=None):
        """Let a vantage capture a frame from one host's MAC to another's."""
        data = packet.bytes() if raw is None else raw
        vantage = self.vantages[name]
        vantage.frames.append(
            Seen(
                packet.uid,
                packet.owner,
                place,
                self.two_arms and any(end.startswith("inside") for end in (source, target)),
                self.now,
                data,
                self.macs[source],
                self.macs[target],
                0x0800 if data[0] >> 4 == 4 else 0x86DD,
            )
        )

    def step(self, low: int = 20_000, high: int = 200_000) -> None:
        """Let the time of one hop pass."""
        self.now += self.random.randrange(low, high)

    def to_director(self, packet: Packet) -> Packet:
        """Let a client's packet run to the director; return it as it arrives."""
        self.tap("client", packet, "client", "cpe", "out")
        self.step(5_000_000, 9_000_000)
        near = replace(packet, ttl=packet.ttl - 3)
        self.tap("router", near, "router", "director", "out")
        self.step()
        self.tap("director", near, "router", "director", "in")
        return near

    def hand_on(self, packet: Packet, name: str, translated: Packet | None = None) -> None:
        """Let the director send a packet to a realserver as its method does."""
        self.relayed.add(packet.uid)
        self.step(3_000, 60_000)
        away = replace(packet, ttl=packet.ttl - self.ttl_step)
        side, raw = "director", None
        if self.method == "nat":
            side = "inside"
            away = replace(translated or self.translated(packet, name), ttl=away.ttl)
        elif self.method == "tun":
            raw = self.tunnelled(away, name)
        self.tap("director", away, side, name, "out", raw)
        self.step()
        self.tap(name, away, side, name, "in", raw)

    def translated(self, packet: Packet, name: str) -> Packet:
        """Return a client's packet for the realserver's address and port."""
        body = packet.body[:2] + struct.pack(">H", self.rport) + packet.body[4:]
        return replace(packet, dst=self.realservers[name], body=body)

    def tunnelled(self, packet: Packet, name: str) -> bytes:
        """Return a packet inside a tunnel from the director to a realserver."""
        inner = packet.bytes()
        version = 6 if self.v6 else 4
        number = {4: 4, 6: 41}[version]
        if self.encapsulation == "gre":
            number, inner = 47, struct.pack(">HH", 0, {4: 0x0800, 6: 0x86DD}[version]) + inner
        elif self.encapsulation == "gue":
            head = struct.pack(">HHHH", 40_000 + packet.uid % 9_000, 6080, 12 + len(inner), 0)
            number, inner = 17, head + struct.pack(">BBH", 0, number, 0) + inner
        outer = Packet(
            0, 0, self.director, self.realservers[name], number, b"", None, 0, packet.ttl
        )
        return ip_header(outer, len(inner)) + inner

    def to_client(self, packet: Packet, link: Connection) -> None:
        """Let a realserver's packet run to its client; `packet` is as the client sees it."""
        name = link.realserver
        if self.method == "nat":
            ports = struct.pack(">H", self.rport) + packet.body[2:]
            inside = replace(packet, src=self.realservers[name], body=ports)
            self.tap(name, inside, name, "inside", "out")
            self.step()
            self.tap("director", inside, name, "inside", "in")
            self.relayed.add(packet.uid)
            self.step(3_000, 60_000)
            packet = replace(packet, ttl=packet.ttl - self.ttl_step)
            self.tap("director", packet, "director", "router", "out")
            self.step()
            self.tap("router", packet, "director", "router", "in")
        else:
            self.tap(name, packet, name, "router", "out")
            self.step()
            self.tap("router", packet, name, "router", "in")
        self.step(5_000_000, 9_000_000)
        self.tap("client", replace(packet, ttl=packet.ttl - 3), "cpe", "client", "in")

    # Traffic.

    def ask(self, link: Connection, packet: Packet) -> None:
        """Let a client's packet run; the director swallows a few."""
        near = self.to_director(packet)
        if self.random.random() < 0.02:
            link.swallowed.add(packet.uid)
        else:
            self.hand_on(near, link.realserver)

    def run(self, connections: int = 14) -> None:
        """Let clients be served, one after another and side by side."""
        begins = sorted(self.random.uniform(0, 8e9) for _ in range(connections))
        if self.random.random() < 0.7 and not self.v6:
            self.resolve()
        for number, begin in enumerate(begins):
            self.now = START_NS + 1_000_000 + int(begin)
            self.connection(number)
        for vantage in self.vantages.values():
            vantage.frames.sort(key=lambda seen: seen.time_ns)

    def resolve(self) -> None:
        """Let the router ask for the VIP, the director for the realservers (RFC 826)."""
        self.now = START_NS
        pairs = [("router", f"{self.vip.rsplit('.', 1)[0]}.1", "director", self.vip)]
        pairs += [
            ("inside", self.director, name, address) for name, address in self.realservers.items()
        ]
        for asker, own, owner, wanted in pairs:
            places = [name if name != "inside" else "director" for name in (asker, owner)]
            for answer in (False, True):
                ends = (
                    ((owner, wanted), (asker, own)) if answer else ((asker, own), (owner, wanted))
                )
                (sender, source), (target, address) = ends
                frame = struct.pack(">HHBBH", 1, 0x0800, 6, 4, 2 if answer else 1)
                frame += self.macs[sender] + ipaddress.ip_address(source).packed
                frame += (self.macs[target] if answer else bytes(6)) + ipaddress.ip_address(
                    address
                ).packed
                for place in places if not answer else reversed(places):
                    self.step()
                    self.vantages[place].frames.append(
                        Seen(
                            0,
                            -1,
                            "out" if (place == places[0]) != answer else "in",
                            "inside" in {asker, owner} and self.two_arms,
                            self.now,
                            frame,
                            self.macs[sender],
                            self.macs[target] if answer else b"\xff" * 6,
                            0x0806,
                        )
                    )

    def connection(self, number: int) -> None:
        """Let one client be served from first to last packet."""
        chance = self.random
        name = chance.choice(list(self.realservers))
        again = chance.choice(self.connections) if chance.random() < 0.1 and number else None
        net = "2001:db8:9::{}" if self.v6 else "198.51.100.{}"
        link = Connection(
            number,
            net.format(chance.randrange(20, 24)),
            chance.randrange(40_000, 60_000),
            name,
            self.realservers[name],
            chance.random() < 0.2,
            chance.choice(["count", "count", "random", "zero"]),
            chance.random() < 0.7,
        )
        if again is not None and again.udp == link.udp is False:
            # Port reuse: long after the first connection has closed.
            link.client, link.client_port = again.client, again.client_port
            self.now += 130_000_000_000 * (1 + number)
        self.connections.append(link)
        if link.udp:
            self.converse(link)
        else:
            self.serve(link)

    def converse(self, link: Connection) -> None:
        """Let a client and a realserver exchange datagrams."""
        for _ in range(self.random.randrange(2, 6)):
            payload = self.random.randbytes(self.random.randrange(20, 400))
            self.ask(link, self.udp(link, True, payload))
            self.step()
            self.to_client(self.udp(link, False, self.random.randbytes(64)), link)
            self.now += self.random.randrange(20_000_000, 90_000_000)

    def serve(self, link: Connection) -> None:
        """Let a client open a connection, send requests, be answered, and close."""
        chance = self.random
        mine, theirs = chance.randrange(2**32), chance.randrange(2**32)
        self.ask(link, self.tcp(link, True, SYN, mine, 0, 0))
        self.step()
        self.to_client(self.tcp(link, False, SYN | ACK, theirs, mine + 1, 0), link)
        mine, theirs = mine + 1, theirs + 1
        self.ask(link, self.tcp(link, True, ACK, mine, theirs, 0))
        for _ in range(chance.randrange(1, 5)):
            self.now += chance.randrange(1_000_000, 40_000_000)
            size = chance.randrange(50, 900)
            self.ask(link, self.tcp(link, True, PSH | ACK, mine, theirs, size))
            if chance.random() < 0.15:
                # Repeated after a timeout: a new packet with the same bytes.
                self.now += 210_000_000
                self.ask(link, self.tcp(link, True, PSH | ACK, mine, theirs, size))
            mine += size
            for _ in range(chance.randrange(1, 4)):
                self.step()
                answer = self.tcp(link, False, PSH | ACK, theirs, mine, 1200)
                self.to_client(answer, link)
                if chance.random() < 0.1:
                    self.error(answer, link)
                theirs += 1200
            self.ask(link, self.tcp(link, True, ACK, mine, theirs, 0))
        self.ask(link, self.tcp(link, True, FIN | ACK, mine, theirs, 0))
        self.to_client(self.tcp(link, False, FIN | ACK, theirs, mine + 1, 0), link)
        self.ask(link, self.tcp(link, True, ACK, mine + 1, theirs + 1, 0))

    def error(self, about: Packet, link: Connection) -> None:
        """Let a router on the client's side tell the sender that a packet was too big."""
        quote = replace(about, ttl=60).bytes()[: 1232 if self.v6 else 548]
        source = "2001:db8:7::1" if self.v6 else "192.0.2.1"
        head = (
            struct.pack(">BBHI", 2, 0, 0, 1400)
            if self.v6
            else struct.pack(">BBHHH", 3, 4, 0, 0, 1400)
        )
        message = Packet(
            self.uid(),
            link.number,
            source,
            self.vip,
            58 if self.v6 else 1,
            head + quote,
            2,
            0 if self.v6 else self.ip_id(source, "count"),
            61,
            df=False,
        )
        self.step()
        self.tap("router", message, "router", "director", "out")
        self.step()
        self.tap("director", message, "router", "director", "in")
        if self.random.random() < 0.15:
            return
        meant = replace(
            about,
            src=link.address,
            body=struct.pack(">H", self.rport) + about.body[2:],
            ttl=60,
        )
        # ip_vs_nat_icmp corrects the quoted addresses and port, not the quoted TCP checksum.
        stale = replace(meant, body=meant.body[:16] + about.filled()[16:18] + meant.body[18:])
        inside = replace(stale, sum_at=None).bytes()[: len(quote)]
        self.hand_on(
            message, link.realserver, replace(message, dst=link.address, body=head + inside)
        )


@dataclass(frozen=True)
class Capture:
    """A written capture; `truth` tells what each frame is, in file order."""

    path: Path
    truth: tuple[Seen, ...]


def capture(world: World, vantage: Vantage, folder: Path) -> list[Capture]:
    """Write what a vantage captured, with its clock, its losses and its doubles, as pcap.

    A director with two arms is captured on each of them, unless on all interfaces at once.
    """
    chance = world.random
    last = max((seen.time_ns for seen in vantage.frames), default=START_NS)
    begin = START_NS + int(vantage.late * (last - START_NS))
    kept = [
        seen for seen in vantage.frames if seen.time_ns >= begin and chance.random() >= vantage.lost
    ]
    sides = [kept]
    if vantage.linktype == 1 and any(seen.inside for seen in kept):
        sides = [[seen for seen in kept if seen.inside == side] for side in (False, True)]
    return [
        _written(vantage, frames, folder / f"{vantage.name}-eth{number}.pcap")
        for number, frames in enumerate(sides)
    ]


def _written(vantage: Vantage, frames: list[Seen], path: Path) -> Capture:
    """Write frames, each twice where the vantage doubles them."""
    header = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, vantage.snaplen, vantage.linktype)
    truth = []
    with path.open("wb") as file:
        file.write(header)
        for seen in frames:
            drift = int((seen.time_ns - START_NS) * vantage.drift_ppm / 1e6)
            frame = _link(vantage, seen) + seen.raw
            data = frame[: vantage.snaplen]
            for again in range(2 if vantage.doubled else 1):
                time = seen.time_ns + vantage.offset_ns + drift + 3_000 * again
                file.write(struct.pack("<IIII", *divmod(time, 10**9), len(data), len(frame)) + data)
                truth.append(seen)
    return Capture(path, tuple(truth))


def _link(vantage: Vantage, seen: Seen) -> bytes:
    """Return the link header: Ethernet, SLL (113) or SLL2 (276) as `-i any` writes them."""
    if vantage.linktype == 1:
        return seen.target_mac + seen.source_mac + struct.pack(">H", seen.ethertype)
    kind = 4 if seen.place == "out" else 1 if seen.target_mac == b"\xff" * 6 else 0
    if vantage.linktype == 113:
        return struct.pack(">HHH6s2xH", kind, 1, 6, seen.source_mac, seen.ethertype)
    index = 3 if seen.inside else 2
    return struct.pack(">HHIHBB6s2x", seen.ethertype, 0, index, 1, kind, 6, seen.source_mac)
