"""The receiving half of a TCP connection: bytes into order, and what to acknowledge."""

from __future__ import annotations

from dataclasses import dataclass, field

from . import wire


@dataclass(frozen=True, slots=True)
class Taken:
    """What a segment brought: bytes in order, all of them expected; or a repetition; the FIN."""

    fresh: bytes = b""
    in_order: bool = False
    duplicate: tuple[int, int] | None = None
    closed: bool = False


@dataclass
class Receiver:
    """What has come and what is expected next; sequence numbers are unwrapped."""

    next: int = 0
    closed: bool = False
    _early: dict[int, bytes] = field(default_factory=dict)
    _order: list[int] = field(default_factory=list)
    _fin_at: int | None = None

    def take(self, header: wire.Header) -> Taken | None:
        """Take a segment; None where it has neither payload nor FIN."""
        seq = wire.unwrap(header.seq, self.next)
        end = seq + len(header.payload)
        fin = bool(header.flags & wire.FIN)
        if not header.payload and not fin:
            return None
        if end + fin <= self.next:
            return Taken(duplicate=(seq, end + fin))
        if header.payload:
            self._early[seq] = header.payload
            self._order.insert(0, seq)
        if fin:
            self._fin_at = end
        fresh = self._in_order()
        closed = self._fin_at == self.next and not self.closed
        if closed:
            self.next += 1
            self.closed = True
            self._fin_at = None
        return Taken(fresh, in_order=bool(fresh) and not self._early, closed=closed)

    def _in_order(self) -> bytes:
        """Return the bytes that are next, and expect what follows them."""
        fresh = bytearray()
        for start in sorted(self._early):
            if start > self.next:
                break
            payload = self._early.pop(start)
            fresh += payload[self.next - start :]
            self.next = max(self.next, start + len(payload))
        return bytes(fresh)

    def sack_blocks(self, duplicate: tuple[int, int] | None) -> list[int]:
        """Return the edges of up to three blocks, the latest first, a duplicate before all.

        RFC 2018 section 4; RFC 2883 for the duplicate.
        """
        blocks: list[list[int]] = []
        for start in sorted(self._early):
            end = start + len(self._early[start])
            if blocks and blocks[-1][1] >= start:
                blocks[-1][1] = max(end, blocks[-1][1])
            else:
                blocks.append([start, end])
        if blocks and self._fin_at == blocks[-1][1]:
            blocks[-1][1] += 1
        latest = next((seq for seq in self._order if seq in self._early), None)
        blocks.sort(key=lambda block: latest is None or not block[0] <= latest < block[1])
        if duplicate:
            blocks.insert(0, list(duplicate))
        return [edge & 0xFFFFFFFF for block in blocks[:3] for edge in block]
