"""What talks over the connections: a web server, scripted clients, checks, ping and traceroute."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from . import wire
from .clock import EPOCH_NS, MICROSECOND, MILLISECOND, SECOND, draw, seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .hosts import Host
    from .tcp import Socket

FILLER: Final = b"The quick brown fox jumps over the lazy dog. 0123456789 abcdefghijklmn\n"

STREAM_CHUNKS: Final = 60
STREAM_EVERY_NS: Final = 400 * MILLISECOND

Step = tuple[str, float]
"""What a client does next: ("get", bytes), ("post", bytes), ("stream", bytes a chunk, 60 of them),
("wait", seconds), ("keepalive", seconds until the probe)."""


@dataclass
class Flow:
    """A client's connection: its script, and what became of it."""

    id: int
    label: str
    client: tuple[str, int]
    service: tuple[str, int]
    start_s: float
    steps: Sequence[Step]
    ending: str = "client"  # who closes first: client, server; "open" leaves it open
    ok: bool = False
    error: str | None = None
    realserver: str | None = None
    started_ns: int = 0
    ended_ns: int | None = None
    socket: Socket | None = None


@dataclass
class WebServer:
    """One connection of a server that answers GET /bytes/N and POST."""

    host: Host
    accepted: Callable[[tuple[str, int], str], None]
    buffer: bytearray = field(default_factory=bytearray)
    closing: bool = False

    def established(self, socket: Socket) -> None:
        """Note who took the connection."""
        self.accepted(socket.remote, self.host.name)

    def received(self, socket: Socket, data: bytes) -> None:
        """Answer each complete request after a while."""
        self.buffer += data
        while True:
            head, mark, _ = bytes(self.buffer).partition(b"\r\n\r\n")
            if not mark:
                return
            length = re.search(rb"Content-Length: (\d+)", head)
            whole = len(head) + 4 + (int(length[1]) if length else 0)
            if len(self.buffer) < whole:
                return
            del self.buffer[:whole]
            wanted = re.match(rb"GET /bytes/(\d+)", head)
            stream = re.match(rb"GET /stream/(\d+)", head)
            if stream:
                self._stream(socket, int(stream[1]), STREAM_CHUNKS)
                return
            self.closing |= b"Connection: close" in head
            think = draw(800, 9000, self.host.name, socket.remote, head, "think")
            body = filler(int(wanted[1]) if wanted else 120)
            socket.clock.after(think * MICROSECOND, partial(self._answer, socket, body))

    def _head(self, length: int) -> bytes:
        return (
            f"HTTP/1.1 200 OK\r\nServer: {self.host.name}\r\nContent-Type: text/plain\r\n"
            f"Content-Length: {length}\r\n\r\n"
        ).encode()

    def _stream(self, socket: Socket, chunk: int, left: int) -> None:
        """Send a chunk now and the others one by one."""
        head = self._head(chunk * STREAM_CHUNKS) if left == STREAM_CHUNKS else b""
        socket.send(head + filler(chunk))
        if left > 1 and socket.state == "ESTABLISHED":
            again = partial(self._stream, socket, chunk, left - 1)
            socket.clock.after(STREAM_EVERY_NS, again)

    def _answer(self, socket: Socket, body: bytes) -> None:
        socket.send(self._head(len(body)) + body)
        if self.closing and not self.buffer:
            socket.close()

    def peer_closed(self, socket: Socket) -> None:
        """Close, too, a moment later."""
        socket.clock.after(300 * MICROSECOND, socket.close)

    def failed(self, socket: Socket, reason: str) -> None:
        """Nothing to clean up."""


@dataclass
class Browser:
    """A client that follows a flow's script."""

    flow: Flow
    at: int = 0
    expected: int | None = None
    buffer: bytearray = field(default_factory=bytearray)

    def established(self, socket: Socket) -> None:
        """Begin with the first step."""
        pause = draw(100, 900, self.flow.id, "begin") * MICROSECOND
        socket.clock.after(pause, lambda: self._next(socket))

    def _next(self, socket: Socket) -> None:
        if socket.state != "ESTABLISHED":
            return
        if self.at >= len(self.flow.steps):
            self._done(socket)
            return
        kind, value = self.flow.steps[self.at]
        self.at += 1
        last = self.at == len(self.flow.steps)
        close = "Connection: close\r\n" if last and self.flow.ending == "server" else ""
        common = f"Host: www.example.org\r\nUser-Agent: sample/{self.flow.id}\r\n{close}"
        if kind == "get":
            socket.send(f"GET /bytes/{int(value)} HTTP/1.1\r\n{common}\r\n".encode())
        elif kind == "stream":
            socket.send(f"GET /stream/{int(value)} HTTP/1.1\r\n{common}\r\n".encode())
        elif kind == "post":
            head = f"POST /form HTTP/1.1\r\n{common}Content-Length: {int(value)}\r\n\r\n"
            socket.send(head.encode() + filler(int(value)))
        else:
            if kind == "keepalive":
                socket.clock.after(seconds(value), socket.keepalive)
                value += 0.5
            socket.clock.after(seconds(value), lambda: self._next(socket))

    def received(self, socket: Socket, data: bytes) -> None:
        """Collect a response; the next step follows when it is complete."""
        self.buffer += data
        head, mark, body = bytes(self.buffer).partition(b"\r\n\r\n")
        if not mark:
            return
        found = re.search(rb"Content-Length: (\d+)", head)
        if found is None or len(body) < int(found[1]):
            return
        self.buffer.clear()
        pause = draw(200, 2500, self.flow.id, self.at, "read") * MICROSECOND
        socket.clock.after(pause, lambda: self._next(socket))

    def _done(self, socket: Socket) -> None:
        self.flow.ok = True
        self.flow.ended_ns = socket.clock.now
        if self.flow.ending == "client":
            socket.close()

    def peer_closed(self, socket: Socket) -> None:
        """Close when the server has."""
        self._done(socket) if self.at >= len(self.flow.steps) and not self.buffer else None
        socket.clock.after(200 * MICROSECOND, socket.close)

    def failed(self, socket: Socket, reason: str) -> None:
        """Remember why."""
        if not self.flow.ok:
            self.flow.error = reason
            self.flow.ended_ns = socket.clock.now


class HealthCheck:
    """A check of a realserver by the director: GET, answer, close."""

    def established(self, socket: Socket) -> None:
        """Ask."""
        socket.send(b"GET /bytes/2 HTTP/1.0\r\nUser-Agent: checker\r\nConnection: close\r\n\r\n")

    def received(self, socket: Socket, data: bytes) -> None:
        """Any answer will do."""

    def peer_closed(self, socket: Socket) -> None:
        """Close, too."""
        socket.clock.after(200 * MICROSECOND, socket.close)

    def failed(self, socket: Socket, reason: str) -> None:
        """Leave it to the next check."""


def filler(length: int) -> bytes:
    """Return readable text of that length."""
    return (FILLER * (length // len(FILLER) + 1))[:length]


def answer(host: Host, size: int, asked: wire.Header) -> None:
    """Answer a datagram with one of `size` bytes."""
    host.send(
        wire.udp((asked.dst, asked.dport), (asked.src, asked.sport), filler(size), ident=0, df=True)
    )


def ask(
    host: Host, local: tuple[str, int], remote: tuple[str, int], size: int, *, at_s: float
) -> None:
    """Send a datagram of `size` bytes, which may be cut to pieces on the way; ignore answers."""
    host.udp_ports[local[1]] = lambda _answer: None
    ident = draw(1, 0xFFFF, host.name, *local, at_s, "ident")
    packet = wire.udp(local, remote, filler(size), ident=ident, df=False)
    host.clock.at(EPOCH_NS + seconds(at_s), lambda: host.send(packet))


def ping(
    host: Host, src: str, dst: str, *, start_s: float, count: int, every_s: float = 1.0
) -> None:
    """Send echo requests as ping does."""
    number = draw(1, 0xFFFF, host.name, src, dst, "ping")
    base = host.clock.now
    for index in range(count):
        request = wire.echo(
            src,
            dst,
            reply=False,
            number=(number, index + 1),
            payload=bytes(range(16, 72)),
            ident=draw(0, 0xFFFF, host.name, src, start_s, "ping id") + index & 0xFFFF,
        )
        when = base + seconds(start_s + index * every_s)
        host.clock.at(when, partial(host.send, request))


def traceroute(
    host: Host, src: str, vip: str, *, start_s: float, hops: int, port: int = 33434
) -> None:
    """Send UDP probes with growing TTL, three a hop, as traceroute does."""
    base = host.clock.now
    sport = draw(33000, 60000, host.name, src, "traceroute")
    for index in range(hops * 3):
        probe = wire.udp(
            (src, sport),
            (vip, port + index),
            bytes(range(64, 96)),
            ident=draw(1, 0xFFFF, src, index, "probe"),
            df=False,
            ttl=index // 3 + 1,
        )
        when = base + seconds(start_s) + index * 60 * MILLISECOND
        host.clock.at(when, partial(host.send, probe))


def tcp_traceroute(
    host: Host, src: str, vip: tuple[str, int], *, start_s: float, hops: int
) -> None:
    """Send SYNs with growing TTL (traceroute -T): hops answer 11/0, the realserver SYN-ACK."""
    base = host.clock.now
    for index in range(hops):
        probe = wire.tcp(
            (src, draw(33000, 60000, src, "tcptraceroute") + index),
            vip,
            seq=draw(0, 2**32 - 1, src, index, "tcptraceroute"),
            ack=0,
            flags=wire.SYN,
            window=5840,
            ident=draw(1, 0xFFFF, src, index, "tcptraceroute id"),
            options=[("MSS", 1460), ("SAckOK", b""), ("NOP", None), ("NOP", None)],
            ttl=index + 1,
        )
        when = base + seconds(start_s) + index * SECOND // 2
        host.clock.at(when, partial(host.send, probe))
