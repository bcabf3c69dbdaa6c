"""Makes a big capture with one known fault, as a realserver of an LVS cluster would take it.

    python tests/benchmarks/generate.py -n 1500000 -o /tmp/rs1.pcap [--snaplen 96] [--seed 1]
    python tests/benchmarks/generate.py -n 500000 --syn-flood 500000 -o /tmp/flood.pcap
    python tests/benchmarks/generate.py -n 500000 --icmp-storm 5000000 -o /tmp/storm.pcap
    python tests/benchmarks/generate.py -n 5000000 --tunnelled --snaplen 96 -o /tmp/tunnelled.pcap

Four virtual services: plain DR, DR in a VLAN, IPIP, and DR over IPv6. Clients download from them,
75 packets a connection; a twentieth of the packets are retransmissions, some of the clients sit
behind a smaller MTU and learn it from ICMP. The fault: clients of one prefix acknowledge what is
small and nothing of full size, and no ICMP ever says why. All checksums are right, payload is
zeros. The truth is printed as JSON.

Two floods can be had beside that: half-open connections, which hosts that nobody asked are said to
have begun; and ICMP errors from many routers about packets that arrived nevertheless. And all
packets, of either direction, can be in a tunnel between director and realserver (IPIP, 6in4), and
be seen bare as well, as an interface "any" shows them where the tunnel ends.

What a connection does is scripted packet by packet, in a handful of scripts; numpy then plays the
scripts for all connections at once, sorts by time and lays out the bytes.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
from dataclasses import dataclass, field, fields, replace
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

PACKETS_PER_CONNECTION: Final = 75
CONNECTIONS_PER_SECOND: Final = 70
SHORTEST_S: Final = 90  # the stalled connections' retransmissions must be over by the end
STALLED_SHARE: Final = 1 / 500
CHUNK: Final = 1 << 16

FIN, SYN, PSH, ACK = 1, 2, 8, 16
NET_UNREACHABLE, HOST_UNREACHABLE, TOO_BIG, TTL_EXCEEDED = 0x0300, 0x0301, 0x0304, 0x0B00
MSS: Final = 1448  # 1500 - 20 - 20 - 12 of timestamps
SMALL_MSS: Final = 1348  # behind an MTU of 1400
PATH_MTU: Final = 1400
RTT_S: Final = 0.02
DECAPSULATION_NS: Final = 3_000

ROUTER_MAC, DIRECTOR_MAC, REALSERVER_MAC = "020000000001", "020000000002", "020000000011"
DIRECTOR, REALSERVER, ROUTER = "203.0.113.2", "203.0.113.11", "192.0.2.1"
ROUTER6: Final = "2001:db8:ffff::1"
STALLED_PREFIX, SMALL_MTU_PREFIX, FLOODED_PREFIX, STORM_PREFIX = (
    *("198.51.100.0", "198.18.0.0", "198.19.0.0", "192.88.0.0"),
)
STORM_ROUTERS: Final = 4096


@dataclass(frozen=True)
class Service:
    """A virtual service and how its packets reach this realserver."""

    vip: str
    port: int
    share: float
    vlan: int = 0
    tunnel: bool = False
    advertised_mss: int = 1460

    @property
    def v6(self) -> bool:
        """Whether it is an IPv6 service."""
        return ":" in self.vip


SERVICES: Final = (
    Service("203.0.113.10", 80, 0.61),
    Service("203.0.113.20", 443, 0.12, vlan=100),
    # 20 bytes less, so that what clients send fits behind the outer header
    Service("203.0.113.30", 80, 0.22, tunnel=True, advertised_mss=1440),
    Service("2001:db8:113::10", 80, 0.05),
)


@dataclass
class Script:
    """What one connection does: parallel lists, one entry a packet."""

    mss: int = MSS
    columns: dict[str, list[float]] = field(
        default_factory=lambda: {name: [] for name in _SCRIPT_COLUMNS}
    )
    sent: list[int] = field(default_factory=lambda: [0, 0])
    at: float = 0.0

    def send(
        self,
        server: int,
        payload: int = 0,
        flags: int = ACK,
        *,
        after: float = 0.0002,
        seq: int | None = None,
        ack: int | None = None,
        sack: tuple[int, int] = (0, 0),
    ) -> int:
        """Add a TCP packet of the server (1) or the client (0); return its sequence number."""
        self.at += after
        if seq is None:
            seq = self.sent[server]
            self.sent[server] += payload + bool(flags & (SYN | FIN))
        ack = self.sent[1 - server] if ack is None else ack
        self._add(server, seq, ack, flags, payload, *sack, 0, 0, len(self), 0, 0, 0)
        return seq

    def too_big(self, step: int) -> None:
        """Add the router's "fragmentation needed" about the server's packet at `step`."""
        self.at += 0.002
        age_ns = (self.at - self.columns["at"][step]) * 1e9
        quoted = [self.columns[name][step] for name in ("seq", "ack", "flags", "payload")]
        self._add(0, *quoted, 0, 0, TOO_BIG, PATH_MTU, step, age_ns, 0, 0)

    def open(self) -> None:
        """Add the handshake, the request and the start of the answer, acknowledged."""
        self.send(0, flags=SYN)
        self.send(1, flags=SYN | ACK)
        self.send(0, after=RTT_S)
        self.send(0, 180, PSH | ACK)
        self.send(1)
        self.send(1, 240, PSH | ACK, after=0.003)
        self.send(0, after=RTT_S)

    def close(self) -> None:
        """Add FINs of both sides."""
        self.send(1, flags=FIN | ACK)
        self.send(0, flags=FIN | ACK, after=RTT_S)
        self.send(1)

    def data(self, segments: int = 1) -> None:
        """Add data, one packet however many segments (the sender's offload cuts it later)."""
        self.send(1, segments * self.mss)

    def loss(self) -> None:
        """Add a lost segment, three duplicate acknowledgements and the fast retransmission."""
        hole = self.send(1, self.mss)
        for _ in range(3):
            self.data()
        for got in (1, 2, 3):
            block = (hole + self.mss, hole + (got + 1) * self.mss)
            self.send(0, ack=hole, sack=block, after=RTT_S / 4)
        self.send(1, self.mss, seq=hole)
        self.send(0, after=RTT_S)

    def timeout(self) -> None:
        """Add a small answer that is lost and repeated after the retransmission timeout."""
        lost = self.send(1, 90, PSH | ACK)
        self.send(1, 90, PSH | ACK, seq=lost, after=0.22)
        self.send(0, after=RTT_S)

    def fill(self, want: int, segments: int) -> None:
        """Add data and its acknowledgements until `want` packets with the close are there."""
        while len(self) < want - 3:
            self.data(segments)
            if len(self) % 3 == 0:
                self.send(0, after=RTT_S / 2)

    def __len__(self) -> int:
        """Return the number of packets so far."""
        return len(self.columns["at"])

    def _add(self, *values: float) -> None:
        for column, value in zip(self.columns.values(), (self.at, *values), strict=True):
            column.append(value)


_SCRIPT_COLUMNS: Final = (
    "at",
    "server",
    "seq",
    "ack",
    "flags",
    "payload",
    "sack_left",
    "sack_right",
    "icmp",  # type and code, of IPv4; 0: it is TCP
    "next_hop_mtu",
    "step",  # what the IP ID counts; an ICMP error has that of the packet it quotes
    "age_ns",  # of the quoted packet
    "storm",  # 0, or the number of an error of the storm
    "bare",  # 1: not in the tunnel that all packets are in
)


def _download(segments: int, losses: int) -> Script:
    script = Script()
    script.open()
    for _ in range(losses):
        script.loss()
        script.timeout()
    script.fill(PACKETS_PER_CONNECTION, segments)
    script.close()
    return script


def _chat() -> Script:
    script = Script()
    script.open()
    while len(script) < PACKETS_PER_CONNECTION - 8:
        script.send(0, 120, PSH | ACK, after=0.4)
        script.send(1, 400, PSH | ACK, after=0.004)
        script.send(0, after=RTT_S)
        if len(script) % 10 == 0:
            script.timeout()
    script.close()
    return script


def _learns_its_mtu() -> Script:
    script = Script()
    script.open()
    first = script.send(1, MSS)
    script.send(1, MSS)
    script.too_big(len(script) - 2)
    script.mss = SMALL_MSS
    script.sent[1] = first
    script.fill(PACKETS_PER_CONNECTION, 1)
    script.close()
    return script


def _stalls() -> Script:
    """Two full segments vanish, the short last one arrives; after ten seconds the client leaves."""
    script = Script()
    script.open()
    first = script.send(1, MSS)
    script.send(1, MSS)
    last = script.send(1, 300, PSH | ACK)
    script.send(0, ack=first, sack=(last, last + 300), after=RTT_S)
    wait, gives_up = 0.2, script.at + 10
    for _ in range(7):  # the last after 25 s
        if script.at < gives_up < script.at + wait:
            at = script.at
            script.send(0, flags=FIN | ACK, after=gives_up - at, ack=first)
            script.send(1, MSS, seq=first, after=wait - (gives_up - at))
        else:
            script.send(1, MSS, seq=first, after=wait)
        wait *= 2
    return script


def _half_open() -> Script:
    """Answer a SYN that nobody sent: the answer and its repetition go unheard."""
    script = Script()
    script.send(0, flags=SYN)
    answer = script.send(1, flags=SYN | ACK)
    script.send(1, flags=SYN | ACK, seq=answer, after=1.0)
    return script


SCRIPTS: Final = (
    _download(1, 2),
    _download(1, 3),
    _download(4, 2),
    _chat(),
    _learns_its_mtu(),
    _stalls(),
    _half_open(),
)
SHARES: Final = (0.30, 0.22, 0.04, 0.41, 0.03)
STALLS, HALF_OPEN = 5, 6


@dataclass(frozen=True)
class Cast:
    """The connections: parallel arrays, one entry each."""

    script: NDArray[np.int64]
    service: NDArray[np.int64]
    start: NDArray[np.float64]
    client: NDArray[np.uint16]  # eight words of the address; IPv4 in the last two
    port: NDArray[np.int64]
    isn: NDArray[np.int64]  # client, server
    ip_id: NDArray[np.int64]  # client, server
    options: NDArray[np.bool_]
    end_s: float


def _cast(packets: int, random: np.random.Generator) -> Cast:
    # more than needed, for some are shorter; the capture stops after `packets`
    count = max(int(packets / PACKETS_PER_CONNECTION * 1.06) + 4, 12)
    end_s = max(SHORTEST_S, count / CONNECTIONS_PER_SECOND)
    script = random.choice(len(SHARES), count, p=SHARES)
    service = random.choice(len(SERVICES), count, p=[each.share for each in SERVICES])
    start = random.uniform(0, end_s, count)
    stalled = np.arange(max(4, int(count * STALLED_SHARE)))
    script[stalled], service[stalled] = STALLS, 0
    start[stalled] = random.uniform(5, 25, len(stalled))
    # a tunnelled sender would also have to know the tunnel: keep the MTU lesson to DR
    script[(script == 4) & (service == 2)] = 0
    number = np.arange(count)
    prefix = np.select(
        [script == STALLS, script == 4],
        [int(ip_address(STALLED_PREFIX)), int(ip_address(SMALL_MTU_PREFIX))],
        int(ip_address("100.64.0.0")),
    )
    client = np.zeros((count, 8), dtype=np.uint16)
    hosts = prefix + 1 + number % 250 + (number // 250 % 64 * 256) * (script != STALLS)
    client[:, 6], client[:, 7] = hosts >> 16, hosts & 0xFFFF
    v6 = service == 3
    client[v6, :4] = (0x2001, 0xDB8, 0xC, 0)
    return Cast(
        script,
        service,
        start,
        client,
        1024 + number % 64000,
        random.integers(0, 1 << 32, (count, 2)),
        random.integers(0, 1 << 16, (count, 2)),
        (service == 0) & (random.random(count) < 0.02),
        end_s,
    )


@dataclass(frozen=True)
class Play:
    """The packets in order of time: parallel arrays."""

    connection: NDArray[np.int64]
    ns: NDArray[np.int64]
    columns: dict[str, NDArray[np.int64]]

    def __getitem__(self, rows: NDArray[np.int64]) -> Play:
        """Return some packets, in the order given."""
        columns = {name: column[rows] for name, column in self.columns.items()}
        return Play(self.connection[rows], self.ns[rows], columns)

    def beside(self, other: Play) -> Play:
        """Return the packets of both, in order of time."""
        columns = {
            name: np.concatenate((column, other.columns[name]))
            for name, column in self.columns.items()
        }
        both = Play(
            np.concatenate((self.connection, other.connection)),
            np.concatenate((self.ns, other.ns)),
            columns,
        )
        return both[np.argsort(both.ns, kind="stable")]


def _play(cast: Cast, packets: int) -> Play:
    lengths = np.array([len(script) for script in SCRIPTS])
    begins = np.concatenate(([0], np.cumsum(lengths)[:-1]))
    flat = {
        name: np.concatenate([np.asarray(script.columns[name]) for script in SCRIPTS])
        for name in _SCRIPT_COLUMNS
    }
    per_connection = lengths[cast.script]
    connection = np.repeat(np.arange(len(cast.script)), per_connection)
    ends = np.cumsum(per_connection)
    step = np.arange(ends[-1]) - np.repeat(ends - per_connection, per_connection)
    line = begins[cast.script][connection] + step
    seconds = cast.start[connection] + flat["at"][line]
    order = np.argsort(seconds, kind="stable")[:packets]
    line = line[order]
    columns = {name: flat[name][line].astype(np.int64) for name in _SCRIPT_COLUMNS[1:]}
    ns = 1_700_000_000_000_000_000 + (seconds[order] * 1e9).astype(np.int64)
    return Play(connection[order], ns, columns)


def _flood(count: int, end_s: float, random: np.random.Generator) -> Cast:
    """Return half-open connections with the first service, all over the time of the others."""
    number = np.arange(count)
    hosts = int(ip_address(FLOODED_PREFIX)) + number % (1 << 16)
    client = np.zeros((count, 8), dtype=np.uint16)
    client[:, 6], client[:, 7] = hosts >> 16, hosts & 0xFFFF
    return Cast(
        np.full(count, HALF_OPEN),
        np.zeros(count, dtype=np.int64),
        random.uniform(0, end_s, count),
        client,
        1024 + (number >> 16) * 40 + random.integers(0, 40, count),
        random.integers(0, 1 << 32, (count, 2)),
        random.integers(0, 1 << 16, (count, 2)),
        np.zeros(count, dtype=np.bool_),
        end_s,
    )


def _together(cast: Cast, more: Cast) -> Cast:
    """Return the connections of both; those of `more` are numbered behind the others."""
    arrays = (
        np.concatenate((getattr(cast, each.name), getattr(more, each.name)))
        for each in fields(Cast)
        if each.name != "end_s"
    )
    return Cast(*arrays, cast.end_s)


def _storm(cast: Cast, play: Play, count: int, random: np.random.Generator) -> Play:
    """Return ICMP errors about packets of the play, none of them of a connection that stalls.

    Two in five repeat a "fragmentation needed" that its receiver had and obeys; the others call the
    network or host unreachable, or the packet's TTL exceeded, and TCP has no use for that.
    """
    v6 = np.array([each.v6 for each in SERVICES])[cast.service[play.connection]]
    told = ~v6 & (cast.script[play.connection] != STALLS)
    too_big = np.flatnonzero(told & (play.columns["icmp"] == TOO_BIG))
    data = np.flatnonzero(told & (play.columns["server"] == 1) & (play.columns["payload"] > 0))
    about_size = count * 2 // 5 if len(too_big) else 0
    chosen = np.concatenate(
        (random.choice(too_big, about_size), random.choice(data, count - about_size))
    )
    storm = play[chosen]
    later = random.integers(10**6, 3 * 10**8, count)
    code = random.choice([NET_UNREACHABLE, HOST_UNREACHABLE, TTL_EXCEEDED], count)
    code[:about_size] = TOO_BIG
    columns = {
        **storm.columns,
        **dict.fromkeys(("server", "sack_left", "sack_right"), np.zeros(count, dtype=np.int64)),
        "icmp": code,
        "next_hop_mtu": np.where(code == TOO_BIG, PATH_MTU, 0),
        "age_ns": storm.columns["age_ns"] + later,
        "storm": 1 + random.permutation(count),
    }
    return Play(storm.connection, storm.ns + later, columns)


def _also_bare(play: Play) -> Play:
    """Return every packet twice: what comes leaves the tunnel, what goes enters it."""
    server = play.columns["server"]
    first = Play(play.connection, play.ns, play.columns | {"bare": server})
    again = Play(play.connection, play.ns + DECAPSULATION_NS, play.columns | {"bare": 1 - server})
    return first.beside(again)


def _fold(total: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the Internet checksum (RFC 1071) of sums of 16-bit words."""
    for _ in range(3):
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _words(address: str) -> list[int]:
    return list(
        struct.unpack(f">{len(ip_address(address).packed) // 2}H", ip_address(address).packed)
    )


class _Frames:
    """The headers of one chunk of packets, as 16-bit words, written layer by layer."""

    WORDS = 100  # record header 8, Ethernet 9, outer 10, IP 22, ICMP 4, quote 20 + 22

    def __init__(self, count: int) -> None:
        self.words = np.zeros((count, self.WORDS), dtype=np.int64)
        self.at = np.full(count, 8)  # behind the record header

    def put(self, rows: NDArray[np.int64], columns: list[NDArray[np.int64] | int]) -> None:
        """Append words to `rows`; a word is one number for all of them or an array."""
        at = self.at[rows]
        for offset, column in enumerate(columns):
            self.words[rows, at + offset] = column
        self.at[rows] += len(columns)


def _ipv4(
    length: NDArray[np.int64] | int,
    ip_id: NDArray[np.int64] | int,
    ttl_proto: NDArray[np.int64] | int,
    src: list[NDArray[np.int64] | int],
    dst: list[NDArray[np.int64] | int],
    *,
    df: bool,
    options: bool = False,
) -> list[NDArray[np.int64] | int]:
    """Return the words of an IPv4 header with its checksum (RFC 791 section 3.1)."""
    words = [0x4600 if options else 0x4500, length, ip_id, 0x4000 * df, ttl_proto, 0, *src, *dst]
    if options:
        words += [0x9404, 0]  # router alert, RFC 2113
    words[5] = _fold(np.asarray(sum(words), dtype=np.int64))
    return words


class _Builder:
    """Turns a slice of the play into pcap records."""

    def __init__(
        self, cast: Cast, play: Play, rows: slice, snaplen: int, *, tunnelled: bool
    ) -> None:
        self.cast, self.snaplen = cast, snaplen
        self.connection = play.connection[rows]
        self.step = play.columns["step"][rows]
        self.ns = play.ns[rows]
        self.play = {name: column[rows] for name, column in play.columns.items()}
        self.server = self.play["server"] == 1
        self.icmp = self.play["icmp"] > 0
        service = cast.service[self.connection]
        self.service = service
        self.v6 = np.array([each.v6 for each in SERVICES])[service]
        self.options = cast.options[self.connection] & ~self.server & ~self.icmp
        by_service = np.array([each.tunnel for each in SERVICES])[service]
        self.tunnel = by_service & ~self.server | (tunnelled & (self.play["bare"] == 0))
        self.vlan = np.array([each.vlan for each in SERVICES])[service]
        sack = self.play["sack_right"] > 0
        syn = (self.play["flags"] & SYN) > 0
        self.tcp_len = np.select([syn, sack], [40, 44], 32)
        self.sack, self.syn = sack, syn
        header = np.where(self.v6, 40, 20) + self.tcp_len
        #: of the TCP packet, or of the one that an ICMP error quotes
        self.tcp_ip_len = header + self.play["payload"]
        quote = np.minimum(self.tcp_ip_len, np.where(self.v6, 1280 - 48, 548))
        icmp_len = np.where(self.v6, 48, 28) + quote
        self.ip_len = np.where(self.icmp, icmp_len, self.tcp_ip_len + 4 * self.options)

    def records(self) -> bytes:
        """Return the pcap records of the slice."""
        frames = _Frames(len(self.ns))
        self._link(frames)
        self._outer(frames)
        self._icmp(frames)
        for server in (False, True):
            for v6 in (False, True):
                self._tcp(frames, server=server, v6=v6)
        wire = 14 + 4 * (self.vlan > 0) + 20 * self.tunnel + self.ip_len
        caplen = np.minimum(wire, self.snaplen)
        header = np.stack((self.ns // 10**9, self.ns % 10**9, caplen, wire), axis=1)
        ends = np.cumsum(caplen + 16)
        width = 2 * frames.WORDS
        rows = np.empty((len(self.ns), width), dtype=np.uint8)
        rows[:] = frames.words.astype(">u2").view(np.uint8)
        rows[:, :16] = header.astype("<u4").view(np.uint8)
        out = np.zeros(ends[-1] + width, dtype=np.uint8)
        # what of a row lies beyond its record is overwritten by the next one: rows go in order
        starts = ends - caplen - 16
        out[starts[:, None] + np.arange(width)] = rows
        return out[: ends[-1]].tobytes()

    def _link(self, frames: _Frames) -> None:
        everyone = np.arange(len(self.ns))
        to_client = [bytes.fromhex(mac) for mac in (ROUTER_MAC, REALSERVER_MAC)]
        to_server = [bytes.fromhex(mac) for mac in (REALSERVER_MAC, DIRECTOR_MAC)]
        out, into = (struct.unpack(">6H", b"".join(each)) for each in (to_client, to_server))
        frames.put(everyone, [np.where(self.server, a, b) for a, b in zip(out, into, strict=True)])
        tagged = np.flatnonzero(self.vlan)
        frames.put(tagged, [0x8100, self.vlan[tagged]])
        frames.put(everyone, [np.where(self.v6 & ~self.tunnel, 0x86DD, 0x0800)])

    def _outer(self, frames: _Frames) -> None:
        for source, target, server in (
            (DIRECTOR, REALSERVER, False),
            (REALSERVER, DIRECTOR, True),
        ):
            rows = np.flatnonzero(self.tunnel & (self.server == server))
            ttl_proto = 63 << 8 | np.where(self.v6[rows], 41, 4)
            length = self.ip_len[rows] + 20
            ends = _words(source), _words(target)
            frames.put(rows, _ipv4(length, 0, ttl_proto, *ends, df=True))

    def _ends(self, rows: NDArray[np.int64], *, server: bool, v6: bool) -> tuple[list, list]:
        """Return source and destination address words of the TCP packet."""
        client = self.cast.client[self.connection[rows]].astype(np.int64)
        vips = np.array([_words(each.vip) for each in SERVICES if each.v6 == v6])
        of_family = np.cumsum([each.v6 == v6 for each in SERVICES]) - 1
        vip = vips[of_family[self.service[rows]]]
        theirs, ours = list(client[:, 0 if v6 else 6 :].T), list(vip.T)
        return (ours, theirs) if server else (theirs, ours)

    def _icmp(self, frames: _Frames) -> None:
        for v6 in (False, True):
            rows = np.flatnonzero(self.icmp & (self.v6 == v6))
            src, _ = self._ends(rows, server=True, v6=v6)
            quoted_ip = self._ip_header(rows, server=True, v6=v6, length=self.tcp_ip_len[rows])
            tcp = self._tcp_header(rows, server=True, v6=v6)
            router = self._router(rows, v6=v6)
            mtu = self.play["next_hop_mtu"][rows]
            if v6:
                message = [0x0200, 0, 0, mtu, *quoted_ip, *tcp]
                length = self.ip_len[rows] - 40
                message[1] = _fold(sum([*message, *router, *src, length, 58], start=0 * mtu))
                ip = [0x6000, 0, length, 58 << 8 | 60, *router, *src]
            else:
                message = [self.play["icmp"][rows], 0, 0, mtu, *quoted_ip, *tcp]
                message[1] = _fold(sum(message, start=0 * mtu))
                ip_id = self.step[rows] + self.play["storm"][rows] & 0xFFFF
                ip = _ipv4(self.ip_len[rows], ip_id, 60 << 8 | 1, router, src, df=False)
            frames.put(rows, [*ip, *message])

    def _router(self, rows: NDArray[np.int64], *, v6: bool) -> list[NDArray[np.int64] | int]:
        """Return the address words of who sends ICMP errors."""
        if v6:
            return _words(ROUTER6)
        storm = self.play["storm"][rows]
        address = int(ip_address(STORM_PREFIX)) + storm % STORM_ROUTERS
        address[storm == 0] = int(ip_address(ROUTER))
        return [address >> 16, address & 0xFFFF]

    def _ip_header(
        self, rows: NDArray[np.int64], *, server: bool, v6: bool, length: NDArray[np.int64]
    ) -> list:
        src, dst = self._ends(rows, server=server, v6=v6)
        ttl = 64 if server else 55
        if v6:
            return [0x6000, 0, length - 40, 6 << 8 | ttl, *src, *dst]
        ip_id = self.cast.ip_id[self.connection[rows], int(server)] + self.step[rows]
        return _ipv4(length, ip_id & 0xFFFF, ttl << 8 | 6, src, dst, df=True)

    def _tcp(self, frames: _Frames, *, server: bool, v6: bool) -> None:
        mine = (self.server == server) & (self.v6 == v6) & ~self.icmp
        plain = np.flatnonzero(mine & ~self.options)
        frames.put(plain, self._ip_header(plain, server=server, v6=v6, length=self.ip_len[plain]))
        rows = np.flatnonzero(mine & self.options)
        if len(rows):
            src, dst = self._ends(rows, server=server, v6=v6)
            ip_id = (self.cast.ip_id[self.connection[rows], 0] + self.step[rows]) & 0xFFFF
            frames.put(
                rows, _ipv4(self.ip_len[rows], ip_id, 55 << 8 | 6, src, dst, df=True, options=True)
            )
        for tcp_len in (32, 40, 44):
            rows = np.flatnonzero(mine & (self.tcp_len == tcp_len))
            frames.put(rows, self._tcp_header(rows, server=server, v6=v6, tcp_len=tcp_len))

    def _tcp_header(
        self, rows: NDArray[np.int64], *, server: bool, v6: bool, tcp_len: int = 32
    ) -> list:
        """Return the words of a TCP header with options and checksum (RFC 9293 section 3.1)."""
        connection = self.connection[rows]
        isn = self.cast.isn[connection]
        seq = isn[:, int(server)] + self.play["seq"][rows] & 0xFFFFFFFF
        ack = isn[:, int(not server)] + self.play["ack"][rows] & 0xFFFFFFFF
        ack *= (self.play["flags"][rows] & ACK) > 0
        ports = np.array([each.port for each in SERVICES])[self.service[rows]]
        ports = [ports, self.cast.port[connection]]
        ms = (self.ns[rows] - self.play["age_ns"][rows]) // 10**6
        value = ms + isn[:, int(server)] & 0xFFFFFFFF
        echo = (ms - 10 + isn[:, int(not server)] & 0xFFFFFFFF) * (ack > 0)
        times = [value >> 16, value & 0xFFFF, echo >> 16, echo & 0xFFFF]
        if tcp_len == 40:
            mss = np.array([each.advertised_mss for each in SERVICES])[self.service[rows]]
            mss = mss if server else 1440 if v6 else 1460
            options = [0x0204, mss, 0x0402, 0x080A, *times, 0x0103, 0x0307]
        elif tcp_len == 44:
            left, right = (
                isn[:, 1] + self.play[name][rows] & 0xFFFFFFFF
                for name in ("sack_left", "sack_right")
            )
            block = [0x0101, 0x050A, left >> 16, left & 0xFFFF, right >> 16, right & 0xFFFF]
            options = [0x0101, 0x080A, *times, *block]
        else:
            options = [0x0101, 0x080A, *times]
        words = [
            *(ports if server else ports[::-1]),
            *(seq >> 16, seq & 0xFFFF, ack >> 16, ack & 0xFFFF),
            tcp_len << 10 | self.play["flags"][rows],
            *(502, 0, 0),
            *options,
        ]
        src, dst = self._ends(rows, server=server, v6=v6)
        segment = tcp_len + self.play["payload"][rows]
        words[8] = _fold(sum([*words, *src, *dst, segment, 6], start=0 * seq))
        return words


def generate(
    path: Path,
    packets: int,
    snaplen: int = 262144,
    seed: int = 1,
    *,
    half_open: int = 0,
    storm: int = 0,
    tunnelled: bool = False,
    also_bare: bool = False,
) -> dict[str, object]:
    """Write a nanosecond pcap of `packets` frames, and return what is in it and what is wrong.

    Beside them stand `half_open` connections of a SYN flood and `storm` ICMP errors; `tunnelled`
    packets are all in a tunnel, and `also_bare` ones are there a second time, without it.
    """
    random = np.random.default_rng(seed)
    cast = _cast(packets, random)
    play = _play(cast, packets)
    if storm:
        play = play.beside(_storm(cast, play, storm, random))
    if half_open:
        flood = _flood(half_open, cast.end_s, random)
        flooding = _play(flood, half_open * len(SCRIPTS[HALF_OPEN]))
        play = play.beside(replace(flooding, connection=flooding.connection + len(cast.script)))
        cast = _together(cast, flood)
    if also_bare:
        play = _also_bare(play)
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, snaplen, 1))
        for begin in range(0, len(play.ns), CHUNK):
            rows = slice(begin, begin + CHUNK)
            file.write(_Builder(cast, play, rows, snaplen, tunnelled=tunnelled).records())
    return {
        "file": path.name,
        "packets": len(play.ns),
        "connections": len(np.unique(play.connection)),
        "bytes": path.stat().st_size,
        "snaplen": snaplen,
        "half_open": half_open,
        "tunnelled": tunnelled,
        "icmp_errors": int((play.columns["icmp"] > 0).sum()),
        "fault": {
            "rule": "pmtud-blackhole",
            "service": f"{SERVICES[0].vip}:{SERVICES[0].port}",
            "clients": f"{STALLED_PREFIX}/24",
            "stalled_connections": int((cast.script == STALLS).sum()),
            "smallest_lost": MSS + 52,
            "largest_delivered": 300 + 52,
        },
    }


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-n", "--packets", type=int, default=1_000_000)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--snaplen", type=int, default=262144, help="96: headers only")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--syn-flood",
        type=int,
        default=0,
        metavar="N",
        help="N half-open connections beside the packets, three packets each",
    )
    parser.add_argument(
        "--icmp-storm",
        type=int,
        default=0,
        metavar="N",
        help=f"N ICMP errors of {STORM_ROUTERS} routers beside the packets, about them",
    )
    parser.add_argument(
        "--tunnelled", action="store_true", help="every packet in IPIP, or 6in4 where it is IPv6"
    )
    parser.add_argument(
        "--also-bare", action="store_true", help="every packet again, bare: twice as many in all"
    )
    asked = parser.parse_args()
    truth = generate(
        asked.output,
        asked.packets,
        asked.snaplen,
        asked.seed,
        half_open=asked.syn_flood,
        storm=asked.icmp_storm,
        tunnelled=asked.tunnelled or asked.also_bare,
        also_bare=asked.also_bare,
    )
    json.dump(truth, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
