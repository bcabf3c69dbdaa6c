"""What a TCP sender has in flight, and what became of each piece."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(eq=False)
class Sent:
    """A range of sequence space that was sent `times` times, last at `sent_ns`."""

    seq: int
    end: int
    sent_ns: int
    times: int = 1
    sacked: bool = False
    lost: bool = False


@dataclass
class Flight:
    """The ranges that are not acknowledged, in order."""

    ranges: list[Sent] = field(default_factory=list)

    def __len__(self) -> int:
        """Return how many ranges there are, selectively acknowledged ones included."""
        return len(self.ranges)

    def add(self, seq: int, end: int, now: int) -> None:
        """Send a new range."""
        self.ranges.append(Sent(seq, end, now))

    def cut(self, sent: Sent, size: int) -> None:
        """Shorten a range to `size` bytes; the rest becomes a range of its own."""
        if sent.end - sent.seq > size:
            rest = Sent(sent.seq + size, sent.end, sent.sent_ns, sent.times, lost=sent.lost)
            sent.end = sent.seq + size
            self.ranges.insert(self.ranges.index(sent) + 1, rest)

    def acknowledge(self, ack: int) -> list[Sent]:
        """Take out and return what ends at or before `ack`."""
        done = [item for item in self.ranges if item.end <= ack]
        self.ranges = [item for item in self.ranges if item.end > ack]
        if self.ranges:
            self.ranges[0].seq = max(self.ranges[0].seq, ack)
        return done

    def sack(self, left: int, right: int) -> None:
        """Mark what lies within a SACK block."""
        for item in self.ranges:
            item.sacked |= left <= item.seq and item.end <= right

    def suspects(self) -> list[Sent]:
        """Return what was last sent before, or with, something that has arrived (RFC 8985)."""
        newest = max((item.sent_ns for item in self.ranges if item.sacked), default=-1)
        return [
            item
            for item in self.ranges
            if not item.sacked and not item.lost and item.sent_ns <= newest
        ]

    def lose_all(self) -> None:
        """Give up all that is not selectively acknowledged, as a timeout does."""
        for item in self.ranges:
            item.lost = not item.sacked

    def lose_longer_than(self, size: int) -> None:
        """Give up what can no longer be sent in one piece."""
        for item in self.ranges:
            item.lost |= not item.sacked and item.end - item.seq > size

    @property
    def lost(self) -> list[Sent]:
        """Return what was given up and not yet sent again."""
        return [item for item in self.ranges if item.lost]

    @property
    def flying(self) -> int:
        """Return how many ranges are on their way, as far as the sender knows."""
        return sum(not item.sacked and not item.lost for item in self.ranges)

    @property
    def head(self) -> Sent:
        """Return the first range that did not arrive."""
        return next(item for item in self.ranges if not item.sacked)

    @property
    def untroubled(self) -> bool:
        """Whether everything was sent once, and nothing arrived out of order."""
        return not any(item.sacked or item.lost or item.times > 1 for item in self.ranges)
