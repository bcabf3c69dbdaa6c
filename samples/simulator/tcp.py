"""One end of a TCP connection, after Linux: SACK, RACK, tail loss probes, backoff, path MTU.

What is left out because no sample needs it: congestion avoidance, window probes, urgent data,
simultaneous open. Windows stay as Linux shows them for small transfers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from . import wire
from .clock import MILLISECOND, SECOND, draw
from .flight import Flight
from .receiver import Receiver

if TYPE_CHECKING:
    from .flight import Sent
    from .receiver import Taken
    from .stack import Stack

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
        self.una = self.iss
        self.nxt = self.iss
        self.receiver = Receiver()
        self.outbox = bytearray()
        self.fin_at: int | None = None
        self.flight = Flight()
        self.cwnd = INITIAL_WINDOW
        self.srtt: int | None = None
        self.backoff = 0
        self._ts_recent = 0
        self._unacked = 0
        self._quick = QUICK_ACKS
        self._timer = 0
        self._ack_timer = 0
        self._probe_sent = False
        self._syn_window = SYN_WINDOW
        self._shown_window = 502

    # --- opening and closing

    def connect(self) -> None:
        """Send the SYN."""
        self.state = "SYN_SENT"
        self.nxt = self.iss + 1
        self.flight.add(self.iss, self.nxt, self.clock.now)
        self._emit(wire.SYN, self.iss)
        self._arm()

    def accept(self, header: wire.Header) -> None:
        """Answer a SYN."""
        self.state = "SYN_RECV"
        self._syn_window, self._shown_window = SYN_ACK_WINDOW, 509
        self._read_syn(header)
        self.receiver.next = header.seq + 1
        self.nxt = self.iss + 1
        self.flight.add(self.iss, self.nxt, self.clock.now)
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
        options = wire.tcp_options(header.options)
        self.peer_mss = options.get("mss", 536)
        self._ts_recent = options.get("tsval", 0)

    # --- sending

    @property
    def mss(self) -> int:
        """Payload bytes of a full segment: the peer's MSS and the path MTU, less timestamps."""
        path = self.host.mtu_to(self.remote[0]) - HEADERS[self.version]
        return min(self.peer_mss, path) - TIMESTAMP_LEN

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
        self.flight.add(self.nxt, end, self.clock.now)
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
            ack=self.receiver.next if flags & wire.ACK else 0,
            flags=flags,
            window=window,
            ident=0 if syn_ack else self._ident,
            options=options,
            payload=payload,
            df=self.remote[0] not in self.host.without_df,
        )
        self.host.send(packet)

    def _resend(self, sent: Sent) -> None:
        """Retransmit a range, cut again where the path MTU has shrunk since."""
        if sent.seq > self.iss and sent.seq != self.fin_at:
            self.flight.cut(sent, self.mss)
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
        if (
            self.flight.untroubled
            and self.srtt is not None
            and not self.backoff
            and not self._probe_sent
        ):
            alone = len(self.flight) == 1
            probe = 2 * self.srtt + (MIN_RTO_NS if alone else 2 * MILLISECOND)
            if probe < due:
                due, action = probe, self._probe
        self.clock.after(due, lambda: action() if mine == self._timer else None)

    def _probe(self) -> None:
        self._probe_sent = True
        self._resend(self.flight.ranges[-1])
        self._arm()

    def _timed_out(self) -> None:
        self.backoff += 1
        if self.state == "SYN_SENT" and self.backoff > 6:
            self._fail("timeout")
            return
        self.flight.lose_all()
        self.cwnd = 1
        self._resend(self.flight.head)
        self._arm()

    # --- receiving

    def segment(self, header: wire.Header) -> None:
        """Take a segment."""
        if header.flags & wire.RST:
            if self.state != "CLOSED":
                self._fail("reset")
            return
        if self.state == "CLOSED":
            self.stack.reset(header)
            return
        options = wire.tcp_options(header.options)
        if self.state == "SYN_SENT":
            if header.flags & (wire.SYN | wire.ACK) == wire.SYN | wire.ACK:
                self._read_syn(header)
                self.receiver.next = header.seq + 1
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
        if "tsval" in options and wire.unwrap(header.seq, self.receiver.next) <= self.receiver.next:
            self._ts_recent = options["tsval"]
        if header.flags & wire.ACK:
            ack = wire.unwrap(header.ack, self.una)
            if self.state == "SYN_RECV" and ack > self.iss:
                self.state = "ESTABLISHED"
                self.app.established(self)
            self._acknowledged(ack, options)
        self._take(header)

    def _acknowledged(self, ack: int, options: dict[str, Any]) -> None:
        if ack > self.una:
            done = self.flight.acknowledge(ack)
            fresh = [item for item in done if item.times == 1]
            if fresh:
                rtt = self.clock.now - fresh[-1].sent_ns
                self.srtt = rtt if self.srtt is None else (7 * self.srtt + rtt) // 8
            self.una = ack
            self.cwnd += len(done)
            self.backoff = 0
            self._probe_sent = False
            self._arm()
        for left, right in options.get("sack", ()):
            self.flight.sack(wire.unwrap(left, self.una), wire.unwrap(right, self.una))
        self._find_losses()
        if ack >= self.una:
            self._resend_lost()
            self._push()
        if self.fin_at is not None and self.una > self.fin_at and self.receiver.closed:
            self.state = "TIME_WAIT"

    def _find_losses(self) -> None:
        """RACK (RFC 8985): what was sent before something that arrived is lost, a bit later."""
        suspects = self.flight.suspects()
        if not suspects:
            return

        def give_up() -> None:
            late = [item for item in self.flight.suspects() if item in suspects]
            for item in late:
                item.lost = True
            if late:  # PRR (RFC 6937) lets one go now and one more with each that is delivered
                self.cwnd = 1 + self.flight.flying
                self._resend_lost()
                self._arm()

        self.clock.after((self.srtt or MIN_RTO_NS) // 4, give_up)

    def _resend_lost(self) -> None:
        if self.backoff and self.cwnd == 1:
            return  # after a timeout only an advance of the window lets more go
        for item in self.flight.lost:
            if self.flight.flying >= self.cwnd:
                break
            self._resend(item)

    def _take(self, header: wire.Header) -> None:
        """Put payload and FIN in order, hand it on, acknowledge."""
        receiver = self.receiver
        taken = receiver.take(header)
        if taken is None:
            if wire.unwrap(header.seq, receiver.next) < receiver.next:
                self._emit(wire.ACK, self.nxt)  # a keepalive probe
            return
        self._acknowledge(taken)
        if taken.fresh:
            self.app.received(self, taken.fresh)
        if taken.closed:
            self.app.peer_closed(self)

    def _acknowledge(self, taken: Taken) -> None:
        """Acknowledge: at once for the first segments and for any disorder, else every other."""
        self._unacked += 1
        if taken.in_order and self._quick <= 0 and self._unacked < 2:
            self._ack_timer += 1
            mine = self._ack_timer
            self.clock.after(
                DELAYED_ACK_NS,
                lambda: self._emit(wire.ACK, self.nxt) if mine == self._ack_timer else None,
            )
            return
        self._quick -= 1
        self._emit(wire.ACK, self.nxt, sack=self.receiver.sack_blocks(taken.duplicate))

    # --- errors

    def icmp(self, header: wire.Header, quoted: wire.Header) -> None:
        """React to an ICMP error as tcp_v4_err and tcp_v6_err do."""
        seq = wire.unwrap(quoted.seq, self.una)
        if self.state == "CLOSED" or not self.una <= seq <= self.nxt:
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
        due = max(self.flight.head.sent_ns + (self.rto << self.backoff), self.clock.now)
        self.clock.at(due, lambda: self._timed_out() if mine == self._timer else None)

    def _shrink(self, mtu: int) -> None:
        """Take a smaller path MTU and resend at once what was too large (tcp_simple_retransmit)."""
        if mtu >= self.host.mtu_to(self.remote[0]):
            return
        self.host.learn_mtu(self.remote[0], mtu)
        self.flight.lose_longer_than(self.mss)
        while self.flight.lost:
            self._resend(self.flight.lost[0])
        self._arm()

    def _fail(self, reason: str) -> None:
        self.state = "CLOSED"
        self._timer += 1
        self._ack_timer += 1
        self.app.failed(self, reason)
