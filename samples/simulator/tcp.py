"""One end of a TCP connection, after Linux: SACK, RACK, tail loss probes, backoff, path MTU.

What is left out because no sample needs it: congestion avoidance, window probes, urgent data,
simultaneous open. Windows stay as Linux shows them for small transfers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from . import wire
from .clock import MILLISECOND, SECOND, draw

if TYPE_CHECKING:
    from collections.abc import Callable

    from .hosts import Host

INITIAL_WINDOW: Final = 10  # TCP_INIT_CWND, segments
INITIAL_RTO_NS: Final = SECOND  # TCP_TIMEOUT_INIT
MIN_RTO_NS: Final = 200 * MILLISECOND  # TCP_RTO_MIN
DELAYED_ACK_NS: Final = 40 * MILLISECOND  # TCP_DELACK_MIN
QUICK_ACKS: Final = 16  # TCP_MAX_QUICKACKS
SYN_WINDOW: Final = 64240
SYN_ACK_WINDOW: Final = 65160
WINDOW_SHIFT: Final = 7
TIMESTAMP_LEN: Final = 12
HEADERS: Final = {4: 40, 6: 60}
BASE_MSS: Final = 1024  # tcp_base_mss, of tcp_mtu_probing=1
PROBING_AFTER_NS: Final = 3 * SECOND  # tcp_retries1 = 3 as time


class App(Protocol):
    """What runs on a connection."""

    def established(self, socket: Socket) -> None:
        """Learn that the handshake is done."""

    def received(self, socket: Socket, data: bytes) -> None:
        """Take bytes, in order."""

    def peer_closed(self, socket: Socket) -> None:
        """Learn that the peer's FIN came."""

    def failed(self, socket: Socket, reason: str) -> None:
        """Learn that the connection is gone: reset, timed out or refused."""


@dataclass
class Sent:
    """A range of sequence space in flight."""

    seq: int
    end: int
    sent_ns: int
    first_ns: int
    times: int = 1
    sacked: bool = False
    lost: bool = False


@dataclass
class Stack:
    """The sockets of a host."""

    host: Host
    sockets: dict[tuple[str, int, str, int], Socket] = field(default_factory=dict)
    listeners: dict[int, tuple[Callable[[], App], int]] = field(default_factory=dict)
    mtu_probing: bool = False
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
            self._reset(header)

    def _reset(self, header: wire.Header) -> None:
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


class Socket:
    """One end of a connection. Sequence numbers are kept unwrapped, from the initial one up."""

    def __init__(
        self, stack: Stack, local: tuple[str, int], remote: tuple[str, int], app: App, *, name: str
    ) -> None:
        self.stack = stack
        self.host = stack.host
        self.clock = stack.host.clock
        self.local = local
        self.remote = remote
        self.app = app
        self.state = "CLOSED"
        self.version = 6 if ":" in local[0] else 4
        self.advertised_mss = self.host.mtu_to(remote[0]) - HEADERS[self.version]
        self.peer_mss = 536
        self.iss = draw(1 << 20, (1 << 32) - (1 << 24), name, "iss")
        self._ident = draw(0, 0xFFFF, name, "id")
        self._timestamp_base = draw(1 << 24, 1 << 31, self.host.name, remote[0], "ts")
        self._mss_clamp = 0xFFFF
        self.una = self.iss
        self.nxt = self.iss
        self.rcv_nxt = 0
        self.outbox = bytearray()
        self.fin_at: int | None = None
        self.flight: list[Sent] = []
        self.cwnd = INITIAL_WINDOW
        self.srtt: int | None = None
        self.backoff = 0
        self.fin_received = False
        self._ts_recent = 0
        self._early: dict[int, bytes] = {}
        self._early_fin: int | None = None
        self._sack_order: list[int] = []
        self._unacked = 0
        self._quick = QUICK_ACKS
        self._timer = 0
        self._ack_timer = 0
        self._probe_sent = False
        self._stalled_since: int | None = None
        self._syn_window = SYN_WINDOW
        self._shown_window = 502

    # --- opening and closing

    def connect(self) -> None:
        """Send the SYN."""
        self.state = "SYN_SENT"
        self.nxt = self.iss + 1
        self.flight = [Sent(self.iss, self.nxt, self.clock.now, self.clock.now)]
        self._emit(wire.SYN, self.iss)
        self._arm()

    def accept(self, header: wire.Header) -> None:
        """Answer a SYN."""
        self.state = "SYN_RECV"
        self._syn_window, self._shown_window = SYN_ACK_WINDOW, 509
        self._read_syn(header)
        self.rcv_nxt = header.seq + 1
        self.nxt = self.iss + 1
        self.flight = [Sent(self.iss, self.nxt, self.clock.now, self.clock.now)]
        self._emit(wire.SYN | wire.ACK, self.iss)
        self._arm()

    def send(self, data: bytes) -> None:
        """Queue data and send what the window allows."""
        self.outbox += data
        self._push()

    def close(self) -> None:
        """Send a FIN after all data."""
        if self.fin_at is None and self.state in {"ESTABLISHED", "SYN_RECV"}:
            self.fin_at = self.iss + 1 + len(self.outbox)
            self._push()

    def forget(self) -> None:
        """Vanish without a word, as a host does that lost its power."""
        self.state = "CLOSED"
        self._timer += 1
        self._ack_timer += 1

    def keepalive(self) -> None:
        """Send a keepalive probe: one byte before what the peer expects, no data."""
        self._emit(wire.ACK, self.una - 1)

    def _read_syn(self, header: wire.Header) -> None:
        options = _options(header.options)
        self.peer_mss = options.get("mss", 536)
        self._ts_recent = options.get("tsval", 0)

    # --- sending

    @property
    def mss(self) -> int:
        """Payload bytes of a full segment: the peer's MSS and the path MTU, less timestamps."""
        path = self.host.mtu_to(self.remote[0]) - HEADERS[self.version]
        return min(self.peer_mss, path, self._mss_clamp) - TIMESTAMP_LEN

    def _push(self) -> None:
        if self.state != "ESTABLISHED":
            return
        end = self.iss + 1 + len(self.outbox)
        first, idle = self.nxt, not self.flight
        while self.nxt < end and len(self.flight) < self.cwnd:
            stop = min(end, self.nxt + self.mss)
            self._send_new(stop, wire.ACK | (wire.PSH if stop == end else 0))
        if self.fin_at == self.nxt and len(self.flight) < self.cwnd + 1:
            self._send_new(self.nxt + 1, wire.FIN | wire.ACK)
        if self.nxt > first and (idle or not self.backoff):
            self._arm()  # tcp_event_new_data_sent; a running backoff is left alone

    def _send_new(self, end: int, flags: int) -> None:
        self.flight.append(Sent(self.nxt, end, self.clock.now, self.clock.now))
        self._emit(flags, self.nxt, self._bytes(self.nxt, end))
        self.nxt = end

    def _bytes(self, seq: int, end: int) -> bytes:
        start = seq - self.iss - 1
        return bytes(self.outbox[start : end - self.iss - 1])

    def _emit(
        self, flags: int, seq: int, payload: bytes = b"", *, sack: list[Any] | None = None
    ) -> None:
        now_ms = self.clock.now // MILLISECOND
        stamp = ((self._timestamp_base + now_ms) & 0xFFFFFFFF, self._ts_recent)
        window = self._shown_window
        if flags & wire.SYN:
            options = [
                ("MSS", self.advertised_mss),
                ("SAckOK", b""),
                ("Timestamp", stamp),
                ("NOP", None),
                ("WScale", WINDOW_SHIFT),
            ]
            window = self._syn_window
        else:
            options = [("NOP", None), ("NOP", None), ("Timestamp", stamp)]
            if sack:
                options += [("NOP", None), ("NOP", None), ("SAck", tuple(sack))]
        syn_ack = flags & wire.SYN and flags & wire.ACK
        if not syn_ack:
            self._ident = (self._ident + 1) & 0xFFFF
        if flags & wire.ACK:
            self._unacked = 0
            self._ack_timer += 1
        packet = wire.tcp(
            self.local,
            self.remote,
            seq=seq,
            ack=self.rcv_nxt if flags & wire.ACK else 0,
            flags=flags,
            window=window,
            ident=0 if syn_ack else self._ident,
            options=options,
            payload=payload,
        )
        self.host.send(packet)

    def _resend(self, sent: Sent) -> None:
        """Retransmit a range, cut again where the path MTU has shrunk since."""
        index = self.flight.index(sent)
        is_data = sent.seq > self.iss and sent.seq != self.fin_at
        if is_data and sent.end - sent.seq > self.mss:
            rest = Sent(sent.seq + self.mss, sent.end, sent.sent_ns, sent.first_ns, sent.times)
            rest.lost = sent.lost
            sent.end = sent.seq + self.mss
            self.flight.insert(index + 1, rest)
        sent.times += 1
        sent.sent_ns = self.clock.now
        sent.lost = False
        if sent.seq == self.iss:
            self._emit(wire.SYN if self.state == "SYN_SENT" else wire.SYN | wire.ACK, sent.seq)
        elif sent.seq == self.fin_at:
            self._emit(wire.FIN | wire.ACK, sent.seq)
        else:
            last = sent.end == self.iss + 1 + len(self.outbox)
            flags = wire.ACK | (wire.PSH if last else 0)
            self._emit(flags, sent.seq, self._bytes(sent.seq, sent.end))

    # --- timers

    @property
    def rto(self) -> int:
        """Return the retransmission timeout before backoff (RFC 6298 as Linux rounds it)."""
        return INITIAL_RTO_NS if self.srtt is None else self.srtt + MIN_RTO_NS

    def _arm(self) -> None:
        """Set the one timer: a tail loss probe where one is due, else the RTO."""
        self._timer += 1
        mine = self._timer
        if not self.flight or self.state == "CLOSED":
            return
        due = self.rto << self.backoff
        action = self._timed_out
        quiet = not any(item.sacked or item.lost or item.times > 1 for item in self.flight)
        if quiet and self.srtt is not None and not self.backoff and not self._probe_sent:
            alone = len(self.flight) == 1
            probe = 2 * self.srtt + (MIN_RTO_NS if alone else 2 * MILLISECOND)
            if probe < due:
                due, action = probe, self._probe
        self.clock.after(due, lambda: action() if mine == self._timer else None)

    def _probe(self) -> None:
        self._probe_sent = True
        self._resend(self.flight[-1])
        self._arm()

    def _timed_out(self) -> None:
        if self._stalled_since is None:
            self._stalled_since = self.clock.now
        elif (
            self.stack.mtu_probing
            and self.clock.now - self._stalled_since > PROBING_AFTER_NS
            and self._mss_clamp > BASE_MSS
        ):
            self._mss_clamp = BASE_MSS
        self.backoff += 1
        if self.state == "SYN_SENT" and self.backoff > 6:
            self._fail("timeout")
            return
        for item in self.flight:
            item.lost = not item.sacked
        self.cwnd = 1
        self._resend(next(item for item in self.flight if not item.sacked))
        self._arm()

    # --- receiving

    def segment(self, header: wire.Header) -> None:
        """Take a segment."""
        if header.flags & wire.RST:
            if self.state != "CLOSED":
                self._fail("reset")
            return
        if self.state == "CLOSED":
            self.stack._reset(header)  # noqa: SLF001 - a stack and its sockets are one thing
            return
        options = _options(header.options)
        if self.state == "SYN_SENT":
            if header.flags & (wire.SYN | wire.ACK) == wire.SYN | wire.ACK:
                self._read_syn(header)
                self.rcv_nxt = header.seq + 1
                self._acknowledged(self.iss + 1, options)
                self.state = "ESTABLISHED"
                self._emit(wire.ACK, self.nxt)
                self.app.established(self)
            return
        if header.flags & wire.SYN:
            if self.state == "SYN_RECV":
                self._emit(wire.SYN | wire.ACK, self.iss)
            else:
                self._emit(wire.ACK, self.nxt)
            return
        if "tsval" in options and self._unwrap(header.seq, self.rcv_nxt) <= self.rcv_nxt:
            self._ts_recent = options["tsval"]
        if header.flags & wire.ACK:
            ack = self._unwrap(header.ack, self.una)
            if self.state == "SYN_RECV" and ack > self.iss:
                self.state = "ESTABLISHED"
                self.app.established(self)
            self._acknowledged(ack, options)
        self._take(header)

    @staticmethod
    def _unwrap(value: int, near: int) -> int:
        """Return `value` plus the multiple of 2^32 that brings it next to `near`."""
        return near + ((value - near + (1 << 31)) % (1 << 32)) - (1 << 31)

    def _acknowledged(self, ack: int, options: dict[str, Any]) -> None:
        if ack > self.una:
            done = [item for item in self.flight if item.end <= ack]
            self.flight = [item for item in self.flight if item.end > ack]
            if self.flight and self.flight[0].seq < ack:
                self.flight[0].seq = ack
            fresh = [item for item in done if item.times == 1]
            if fresh:
                rtt = self.clock.now - fresh[-1].sent_ns
                self.srtt = rtt if self.srtt is None else (7 * self.srtt + rtt) // 8
            self.una = ack
            self.cwnd += len(done)
            self.backoff = 0
            self._probe_sent = False
            self._stalled_since = None
            self._arm()
        for left, right in options.get("sack", ()):
            low, high = self._unwrap(left, self.una), self._unwrap(right, self.una)
            for item in self.flight:
                item.sacked |= low <= item.seq and item.end <= high
        self._find_losses()
        if ack >= self.una:
            self._resend_lost()
            self._push()
        if self.fin_at is not None and self.una > self.fin_at and self.fin_received:
            self.state = "TIME_WAIT"

    def _find_losses(self) -> None:
        """RACK (RFC 8985): what was sent before something that arrived is lost, a bit later."""
        sacked = [item.sent_ns for item in self.flight if item.sacked]
        waiting = [item for item in self.flight if not item.sacked and not item.lost]
        suspects = [item for item in waiting if sacked and item.sent_ns <= max(sacked)]
        if not suspects:
            return
        patience = (self.srtt or MIN_RTO_NS) // 4

        def give_up() -> None:
            late = [
                item
                for item in suspects
                if item in self.flight and not item.sacked and item.sent_ns <= max(sacked)
            ]
            for item in late:
                item.lost = True
            if late:  # PRR (RFC 6937) lets one go now and one more with each that is delivered
                self.cwnd = 1 + sum(not item.lost and not item.sacked for item in self.flight)
                self._resend_lost()
                self._arm()

        self.clock.after(patience, give_up)

    def _resend_lost(self) -> None:
        if self.backoff and self.cwnd == 1:
            return  # after a timeout only an advance of the window lets more go
        lost = [item for item in self.flight if item.lost]
        flying = sum(not item.sacked and not item.lost for item in self.flight)
        for item in lost:
            if flying >= self.cwnd:
                break
            self._resend(item)
            flying += 1

    def _take(self, header: wire.Header) -> None:
        """Put payload and FIN in order, hand it on, acknowledge."""
        seq = self._unwrap(header.seq, self.rcv_nxt)
        end = seq + len(header.payload)
        fin = bool(header.flags & wire.FIN)
        if not header.payload and not fin:
            if seq < self.rcv_nxt:
                self._emit(wire.ACK, self.nxt)  # a keepalive probe
            return
        if end + fin <= self.rcv_nxt:
            self._acknowledge(duplicate=(seq, end + fin))
            return
        if header.payload:
            self._early[seq] = header.payload
            self._sack_order.insert(0, seq)
        if fin:
            self._early_fin = end
        fresh = bytearray()
        advanced = True
        while advanced:
            advanced = False
            for start in sorted(self._early):
                payload = self._early[start]
                if start <= self.rcv_nxt:
                    fresh += payload[self.rcv_nxt - start :]
                    self.rcv_nxt = max(self.rcv_nxt, start + len(payload))
                    del self._early[start]
                    advanced = True
        if self._early_fin == self.rcv_nxt and not self.fin_received:
            self.rcv_nxt += 1
            self.fin_received = True
        self._acknowledge(in_order=bool(fresh) and not self._early)
        if fresh:
            self.app.received(self, bytes(fresh))
        if self.fin_received and self._early_fin is not None:
            self._early_fin = None
            self.app.peer_closed(self)

    def _acknowledge(
        self, *, in_order: bool = False, duplicate: tuple[int, int] | None = None
    ) -> None:
        """Acknowledge: at once for the first segments and for any disorder, else every other."""
        self._unacked += 1
        if in_order and self._quick <= 0 and self._unacked < 2:
            self._ack_timer += 1
            mine = self._ack_timer
            self.clock.after(
                DELAYED_ACK_NS,
                lambda: self._emit(wire.ACK, self.nxt) if mine == self._ack_timer else None,
            )
            return
        self._quick -= 1
        self._emit(wire.ACK, self.nxt, sack=self._sack_blocks(duplicate))

    def _sack_blocks(self, duplicate: tuple[int, int] | None) -> list[int]:
        """Return up to three blocks, the latest first, a duplicate before all (RFC 2883)."""
        blocks: list[list[int]] = []
        for start in sorted(self._early):
            end = start + len(self._early[start])
            if blocks and blocks[-1][1] >= start:
                blocks[-1][1] = max(end, blocks[-1][1])
            else:
                blocks.append([start, end])
        if blocks and self._early_fin == blocks[-1][1]:
            blocks[-1][1] += 1
        latest = next((seq for seq in self._sack_order if seq in self._early), None)
        blocks.sort(key=lambda block: latest is None or not block[0] <= latest < block[1])
        if duplicate:
            blocks.insert(0, list(duplicate))
        return [edge & 0xFFFFFFFF for block in blocks[:3] for edge in block]

    # --- errors

    def icmp(self, header: wire.Header, quoted: wire.Header) -> None:
        """React to an ICMP error as tcp_v4_err and tcp_v6_err do."""
        seq = self._unwrap(quoted.seq, self.una)
        if not self.una <= seq <= self.nxt:
            return  # OutOfWindowIcmps
        kind = (header.icmp_type, header.icmp_code)
        too_big = kind == (3, 4) if self.version == 4 else kind[0] == 2
        if too_big:
            self._shrink(header.icmp_word & (0xFFFF if self.version == 4 else 0xFFFFFFFF))
        elif self.state == "SYN_SENT":
            self._fail(f"icmp {kind[0]}/{kind[1]}")
        elif kind in {(3, 0), (3, 1)} and self.backoff and seq == self.una:
            self.backoff -= 1  # tcp_ld_RTO_revert, RFC 6069
            self._rearm_from_last()

    def _rearm_from_last(self) -> None:
        self._timer += 1
        mine = self._timer
        head = next(item for item in self.flight if not item.sacked)
        due = max(head.sent_ns + (self.rto << self.backoff), self.clock.now)
        self.clock.at(due, lambda: self._timed_out() if mine == self._timer else None)

    def _shrink(self, mtu: int) -> None:
        """Take a smaller path MTU and resend at once what was too large (tcp_simple_retransmit)."""
        if mtu >= self.host.mtu_to(self.remote[0]):
            return
        self.host.path_mtu[self.remote[0]] = mtu
        for item in self.flight:
            item.lost |= not item.sacked and item.end - item.seq > self.mss
        while True:
            lost = [item for item in self.flight if item.lost]
            if not lost:
                break
            self._resend(lost[0])
        self._arm()

    def _fail(self, reason: str) -> None:
        self.state = "CLOSED"
        self._timer += 1
        self._ack_timer += 1
        self.app.failed(self, reason)


def _options(data: bytes) -> dict[str, Any]:
    """Return the TCP options that matter: mss, tsval, tsecr, sack."""
    found: dict[str, Any] = {}
    at = 0
    while at < len(data) and data[at]:
        if data[at] == 1:
            at += 1
            continue
        body = data[at + 2 : at + data[at + 1]]
        if data[at] == 2:
            found["mss"] = int.from_bytes(body, "big")
        elif data[at] == 8:
            found["tsval"] = int.from_bytes(body[:4], "big")
            found["tsecr"] = int.from_bytes(body[4:], "big")
        elif data[at] == 5:
            edges = [int.from_bytes(body[i : i + 4], "big") for i in range(0, len(body), 4)]
            found["sack"] = list(zip(edges[::2], edges[1::2], strict=True))
        at += data[at + 1]
    return found
