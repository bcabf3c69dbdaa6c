"""The TCP of a host: which socket a segment belongs to, and a reset where there is none."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from . import wire
from .tcp import App, Socket

if TYPE_CHECKING:
    from collections.abc import Callable

    from .hosts import Host


@dataclass
class Stack:
    """The sockets of a host."""

    host: Host
    sockets: dict[tuple[str, int, str, int], Socket] = field(default_factory=dict)
    listeners: dict[int, tuple[Callable[[], App], int]] = field(default_factory=dict)
    _next: int = 0

    def listen(self, port: int, app: Callable[[], App], *, advertised_mss: int = 0) -> None:
        """Accept connections to a port on every address; 0: MSS from the interface's MTU."""
        self.listeners[port] = (app, advertised_mss)

    def connect(self, local: tuple[str, int], remote: tuple[str, int], app: App) -> Socket:
        """Open a connection."""
        socket = Socket(self, local, remote, app, name=self._name(local, remote))
        self.sockets[*local, *remote] = socket
        socket.connect()
        return socket

    def _name(self, local: tuple[str, int], remote: tuple[str, int]) -> str:
        self._next += 1
        return f"{local}-{remote}-{self._next}"

    def owns(self, quoted: wire.Header) -> bool:
        """Whether a full socket, no half-open request, sent the quoted packet."""
        socket = self.sockets.get((quoted.src, quoted.sport, quoted.dst, quoted.dport))
        return socket is not None and socket.state != "SYN_RECV"

    def receive(self, header: wire.Header) -> None:
        """Deliver a segment to its socket, to a listener, or answer with a reset."""
        key = (header.dst, header.dport, header.src, header.sport)
        socket = self.sockets.get(key)
        if socket is not None and socket.state == "TIME_WAIT" and header.flags & wire.SYN:
            socket = None  # port reuse: the new SYN replaces the old connection
        if socket is not None:
            socket.segment(header)
        elif (
            header.flags & wire.SYN
            and not header.flags & wire.ACK
            and header.dport in self.listeners
        ):
            factory, mss = self.listeners[header.dport]
            local, remote = (header.dst, header.dport), (header.src, header.sport)
            socket = Socket(self, local, remote, factory(), name=self._name(local, remote))
            socket.advertised_mss = mss or socket.advertised_mss
            self.sockets[key] = socket
            socket.accept(header)
        elif not header.flags & wire.RST:
            self.reset(header)

    def reset(self, header: wire.Header) -> None:
        """Answer a segment nobody owns (tcp_v4_send_reset): IP ID 0."""
        if header.flags & wire.ACK:
            seq, ack, flags = header.ack, 0, wire.RST
        else:
            length = len(header.payload) + bool(header.flags & wire.SYN)
            seq, ack, flags = 0, header.seq + length, wire.RST | wire.ACK
        self.host.send(
            wire.tcp(
                (header.dst, header.dport),
                (header.src, header.sport),
                seq=seq,
                ack=ack,
                flags=flags,
                window=0,
                ident=0,
            )
        )

    def icmp(self, header: wire.Header, quoted: wire.Header) -> None:
        """Tell the socket that sent the quoted packet of an ICMP error."""
        socket = self.sockets.get((quoted.src, quoted.sport, quoted.dst, quoted.dport))
        if socket is not None:
            socket.icmp(header, quoted)
