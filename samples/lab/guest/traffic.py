"""What the clients ask and the servers answer: a small HTTP, a UDP echo, health checks.

One process plays all hosts of a scenario: a thread that makes a socket enters the host's namespace
for that moment. What a client saw of its connection is noted beside it.
"""

from __future__ import annotations

import errno
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from network import inside

if TYPE_CHECKING:
    from collections.abc import Sequence

    from network import Host

CHUNK = 16384
FILLER = b"The quick brown fox jumps over the lazy dog, and the dog sleeps on.\n"

Step = tuple[str, float]
"""("get", bytes), ("post", bytes), ("late", bytes that the server sends after LATE_S), ("pause",
seconds), over UDP ("ask", bytes) or ("leave",
bytes): go before the answer comes."""

LATE_S = 8.0
"""Time enough for a slow guest to take the client away."""
STILL_USED = {errno.EADDRINUSE, errno.EADDRNOTAVAIL}
"""What a host says of a port whose last connection ended less than a second ago, or has not yet."""


@dataclass
class Flow:
    """One connection that a client opens, and what became of it."""

    id: int
    label: str
    host: Host
    client: tuple[str, int]
    service: tuple[str, int]
    start_s: float
    steps: Sequence[Step]
    patience_s: float
    protocol: str = "tcp"
    realserver: str | None = None
    ok: bool = False
    error: str | None = None
    started: float = 0.0
    ended: float = 0.0
    socket: socket.socket | None = None

    def play(self) -> None:
        """Run the steps; a failed connection stays open until the captures end."""
        time.sleep(max(0.0, self.started - time.time()))
        self.started = time.time()
        try:
            self.socket = self._open_when_free()
            for word, amount in self.steps:
                if word == "pause":
                    time.sleep(amount)
                elif word == "ask":
                    self._ask(int(amount))
                elif word == "leave":
                    self.socket.send(body(int(amount)))
                else:
                    self._request(word, int(amount))
            self.ok = True
        except TimeoutError:
            self.error = "timeout"
        except OSError as error:
            self.error = (error.strerror or str(error)).lower()
        self.ended = time.time()
        if self.ok and self.socket:
            self.socket.close()

    def _open_when_free(self) -> socket.socket:
        patience_until = time.time() + self.patience_s
        while True:
            try:
                return self._open()
            except OSError as error:
                if error.errno not in STILL_USED or time.time() > patience_until:
                    raise
            time.sleep(0.5)

    def _open(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.service[0] else socket.AF_INET
        kind = socket.SOCK_DGRAM if self.protocol == "udp" else socket.SOCK_STREAM
        with inside(self.host.namespace):
            link = socket.socket(family, kind)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        link.bind(self.client)
        link.settimeout(self.patience_s)
        link.connect(self.service)
        return link

    def _request(self, word: str, amount: int) -> None:
        size = amount if word == "post" else 0
        self.socket.sendall(head(word, amount, size) + body(size))
        headers, got = read_message(self.socket, self.patience_s)
        self.realserver = headers["server"]
        if got != int(headers["content-length"]):
            raise ConnectionError("closed early")

    def _ask(self, amount: int) -> None:
        self.socket.send(body(amount))
        answer = self.socket.recv(65535)
        self.realserver = answer.split(b"\n", 1)[0].decode()


@dataclass
class Servers:
    """The realservers' programs."""

    accepted: dict[tuple[str, int], str] = field(default_factory=dict)
    _listening: list[socket.socket] = field(default_factory=list)

    def serve(self, host: Host, port: int, *, ipv6: bool = False) -> None:
        """Answer HTTP on a host; ready on return."""
        family = socket.AF_INET6 if ipv6 else socket.AF_INET
        with inside(host.namespace):
            listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("", port))
        listener.listen(128)
        self._listening.append(listener)
        threading.Thread(target=self._accept, args=(listener, host.name), daemon=True).start()

    def echo(self, host: Host, address: str, port: int) -> None:
        """Answer each datagram on a host with its name and as many bytes.

        An unconnected socket answers from the address it is bound to: behind DR that must be the
        VIP, or replies carry the RIP.
        """
        with inside(host.namespace):
            link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        link.bind((address, port))
        self._listening.append(link)
        threading.Thread(target=self._echo, args=(link, host.name), daemon=True).start()

    def _accept(self, listener: socket.socket, name: str) -> None:
        while True:
            link, peer = listener.accept()
            self.accepted[peer[0], peer[1]] = name
            threading.Thread(target=self._answer, args=(link, name), daemon=True).start()

    def _answer(self, link: socket.socket, name: str) -> None:
        try:
            while True:
                headers, _ = read_message(link, None)
                amount = "3" if headers["word"] == "POST" else headers["amount"]
                if headers["word"] == "LATE":
                    time.sleep(LATE_S)
                head = f"HTTP/1.1 200 OK\r\nServer: {name}\r\nContent-Length: {amount}\r\n\r\n"
                link.sendall(head.encode() + body(int(amount)))
        except OSError:
            link.close()

    def _echo(self, link: socket.socket, name: str) -> None:
        while True:
            data, peer = link.recvfrom(65535)
            self.accepted[peer[0], peer[1]] = name
            link.sendto((name.encode() + b"\n" + data)[: len(data)], peer)


def head(word: str, amount: int, size: int) -> bytes:
    """Return the head of a request with a body of `size` bytes."""
    return f"{word.upper()} /{amount} HTTP/1.1\r\nContent-Length: {size}\r\n\r\n".encode()


def body(size: int) -> bytes:
    """Return so many bytes that compress well."""
    return (FILLER * (size // len(FILLER) + 1))[:size]


def read_message(link: socket.socket, patience_s: float | None) -> tuple[dict[str, str], int]:
    """Read one HTTP message; return its headers and how much of the body came."""
    link.settimeout(patience_s)
    data = b""
    while b"\r\n\r\n" not in data:
        piece = link.recv(CHUNK)
        if not piece:
            raise ConnectionError("closed")
        data += piece
    head, rest = data.split(b"\r\n\r\n", 1)
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    headers["word"], headers["amount"] = first.split()[0], first.split()[1].lstrip("/")
    got = len(rest)
    while got < int(headers["content-length"]):
        piece = link.recv(CHUNK)
        if not piece:
            break
        got += len(piece)
    return headers, got


def check_health(director: Host, targets: list[tuple[str, int]], until: float) -> None:
    """Connect from the director to each realserver every few seconds, as a monitor does."""
    while time.time() < until:
        for target in targets:
            family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
            with inside(director.namespace):
                link = socket.socket(family, socket.SOCK_STREAM)
            link.settimeout(2)
            try:
                link.connect(target)
                link.sendall(b"GET /64 HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
                read_message(link, 2)
            except OSError:
                pass
            link.close()
        time.sleep(3)
