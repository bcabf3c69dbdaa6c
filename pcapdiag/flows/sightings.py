"""The same packet seen again at one vantage: forwarded, or captured twice. `copy_of` says which.

A director in DR mode sees every forwarded packet twice on one interface, with another MAC and a
TTL one lower; in TUN mode plain and then inside a tunnel; `-i any`, bridges, bonds and VLAN
parents show exact doubles; a routing loop shows one packet at every TTL. None of these is a
retransmission: a sender that repeats a segment sends a new packet, with a new IP ID (Linux counts
one per packet of a socket, RFC 6864 only forbids reuse) and mostly a new timestamp. Packets that
NAT rewrote have other five-tuples and are joined by cluster/.

Two packets are *alike* if everything is equal that forwarding leaves alone. Alike packets are
sights of one packet if they are at different *places* (TTL, MACs, VLAN, tunnel depth, interface,
capture), soon after one another, the n-th at one place with the n-th at the other. At one and
the same place they are one packet only if they are exact doubles within milliseconds, and, where
the IP ID names nothing (0, or IPv6), only if the capture doubles packets as a habit: two
duplicate ACKs may be equal to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import numpy as np

from pcapdiag.capture.frames import NO_TIME
from pcapdiag.flows.arrays import Columns, previous
from pcapdiag.flows.five_tuple import combine, mix, order_by, repeated

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

    from pcapdiag.flows.arrays import Rows
    from pcapdiag.flows.five_tuple import Keys

    Words = NDArray[np.uint64]

NAMED_FORWARD_NS: Final = 3_500_000_000
"""A forwarded packet with an IP ID may wait this long: Linux queues it while ARP asks three times,
one second apart, and the ID keeps it apart from a retransmission."""

UNNAMED_FORWARD_NS: Final = 100_000_000
"""The same without an IP ID: half the smallest RTO (200 ms), so that no repetition by timeout
passes for a copy, and long for a queue."""

DOUBLE_NS: Final = 10_000_000
"""Exact doubles at one place: two taps of one host see a packet within a scheduling delay. A real
director in a virtual machine took up to 2.9 ms to show a packet again; this is three times that."""

HABIT: Final = 0.8
"""A capture doubles packets as a habit if at least this share of its packets with an IP ID (or,
where none of those is doubled, of its packets with payload) belongs to an exact double. Bonds and
bridges double all or nearly none; a busy tap loses some sights."""

_PLACE: Final = (
    "ttl",
    "tunnel_depth",
    "eth_src",
    "eth_dst",
    "vlan",
    "vlan_inner",
    "interface",
    "capture",
)
"""With the direction, what tells where a packet was seen."""

_MESSAGE: Final = (
    "icmp_checksum_field",
    "icmp_len",
    "icmp_ident",
    "icmp_sequence",
    "next_hop_mtu",
    "quoted_ip_id",
    "quoted_tcp_seq",
    "quoted_src_port",
)
"""What tells ICMP messages apart, with or without an IP ID."""

_BLOCK: Final = 1 << 14  # rows hashed at once, for the cache
_K: Final = tuple(  # odd words without structure, as in five_tuple.py
    np.uint64(word)
    for word in (0x9FB21C651E98DF25, 0xA0761D6478BD642F, 0xE7037ED1A0B428DB, 0x8EBC6AF09C88C6E3)
)


@dataclass(frozen=True, slots=True)
class Tally:
    """How many packets there are, and exact doubles among them: arrays, one element a capture."""

    named: NDArray[np.int64]
    named_doubles: NDArray[np.int64]
    """With an IP ID."""
    carrying: NDArray[np.int64]
    carrying_doubles: NDArray[np.int64]
    """With payload."""

    @classmethod
    def of(cls, packets: Columns, doubled: Rows, captures: int) -> Self:
        """Count `packets`, of which the rows `doubled` follow an exact double of theirs."""
        capture = packets.values("capture")
        counts = []
        for tell in (packets.values("ip_id") != 0, packets.values("payload_len") > 0):
            counts.append(np.bincount(capture[tell], minlength=captures))
            counts.append(np.bincount(capture[doubled[tell[doubled]]], minlength=captures))
        return cls(*counts)

    def __add__(self, other: Tally) -> Tally:
        """Return the tally of two parts of one vantage."""
        return Tally(
            self.named + other.named,
            self.named_doubles + other.named_doubles,
            self.carrying + other.carrying,
            self.carrying_doubles + other.carrying_doubles,
        )

    def habit(self) -> NDArray[np.int64]:
        """Return, per capture, how often it shows most of its packets; mostly once."""
        counted, seconds = self.named, self.named_doubles
        if not seconds.any():
            counted, seconds = self.carrying, self.carrying_doubles
        if not seconds.any():
            return np.ones(len(counted), np.int64)
        times = np.rint(counted / np.maximum(counted - seconds, 1)).astype(np.int64)
        return np.where(2 * seconds >= HABIT * np.maximum(counted, 1), np.maximum(times, 2), 1)


def copy_of(
    packets: Columns,
    icmp: pl.DataFrame,
    keys: Keys,
    captures: int,
    habit: NDArray[np.int64] | None = None,
) -> tuple[Rows, Tally]:
    """Return, per row of `packets`, the row of the same packet's first sight, or -1: this is it.

    `keys` are five_tuple.keys_of(packets); `icmp` is the side table; `captures` is one more than
    the highest capture index. The first sight is the one in the lowest row. Frames that are not IP
    are never copies. `habit` is that of the whole vantage where `packets` are a part of it, else
    the one their own tally shows, which is returned as well.
    """
    copies = np.full(len(packets), -1, np.int64)
    ip = None if keys.has_addresses.all() else np.flatnonzero(keys.has_addresses)
    likeness = _likeness(packets, icmp, keys)
    rows, starts = repeated(likeness if ip is None else likeness[ip], ip)
    if not len(rows):
        return copies, Tally.of(packets, rows, captures)
    length = np.diff(starts, append=len(rows))
    pairs, longer = (
        _Repeats.among(packets, rows[np.repeat(wanted, length)], length[wanted])
        for wanted in (length == 2, length > 2)
    )
    in_pairs, in_longer = _pair_places(pairs), _run_places(longer)
    doubled = np.concatenate(
        (pairs.rows[1::2][in_pairs.double], longer.rows[in_longer.order[in_longer.double]])
    )
    tally = Tally.of(packets, doubled, captures)
    if habit is None:
        habit = tally.habit()
    for repeats, first in (
        (pairs, _first_of_pairs(pairs, in_pairs, habit)),
        (longer, _first_of_runs(longer, in_longer, habit)),
    ):
        later = repeats.rows != first
        copies[repeats.rows[later]] = first[later]
    return copies, tally


def _likeness(packets: Columns, icmp: pl.DataFrame, keys: Keys) -> Words:
    """Return a word per row over all that forwarding leaves alone.

    The checksum counts only where no IP ID names the packet: a host that forwards what it got
    from a virtual interface may complete the checksum on the way.
    """
    ip_id, checksum = packets.values("ip_id"), packets.values("transport_checksum")
    flags = packets.values("tcp_flags")
    seq, ack = packets.values("tcp_seq"), packets.values("tcp_ack")
    length, tsval = packets.values("ip_len"), packets.values("tcp_tsval")
    offset = None if packets.uniform("frag_offset") else packets.values("frag_offset")
    words = np.empty(len(packets), np.uint64)
    for start in range(0, len(packets), _BLOCK):
        part = slice(start, start + _BLOCK)
        total = keys.directed[part].copy()
        total += _pair(seq[part], ack[part]) * _K[0]
        total += _pair(length[part], tsval[part]) * _K[1]
        told = np.where(ip_id[part] == 0, checksum[part], flags.dtype.type(0))
        told = (told.astype(np.uint32) << np.uint32(16)) + flags[part]
        total += _pair(ip_id[part], told) * _K[2]
        if offset is not None:
            total += offset[part] * _K[3]
        words[part] = mix(total)
    if len(icmp):
        messages = Columns(icmp)
        rows = messages.values("row")
        words[rows] = combine(words[rows], *(messages.values(name) for name in _MESSAGE))
    return words


def _pair(upper: NDArray[Any], lower: NDArray[Any]) -> Words:
    """Return two columns of at most 32 bits as one of 64."""
    both = np.empty((len(upper), 2), np.uint32)
    both[:, 0], both[:, 1] = upper, lower
    return both.view(np.uint64)[:, 0]


class _Repeats(NamedTuple):
    """Alike packets, run by run in row order, with what tells their places apart."""

    rows: Rows
    run: Rows
    time: NDArray[np.int64]
    place: Words
    named: NDArray[np.bool_]
    capture: NDArray[Any]

    @classmethod
    def among(cls, packets: Columns, rows: Rows, length: Rows) -> Self:
        """Gather what is needed about `rows`, which stand in runs of the given lengths."""
        told = [packets.values(name)[rows] for name in _PLACE if not packets.uniform(name)]
        if not packets.uniform("direction"):
            told.append(packets.values("direction", 255)[rows])
        return cls(
            rows,
            np.repeat(np.arange(len(length)), length),
            packets.values("time_ns", NO_TIME)[rows],
            combine(*told) if told else np.zeros(len(rows), np.uint64),
            packets.values("ip_id")[rows] != 0,
            packets.values("capture")[rows],
        )


class _Places(NamedTuple):
    """Alike packets ordered by place, which of them follow another at the same place, how soon."""

    order: Rows
    same: NDArray[np.bool_]
    double: NDArray[np.bool_]
    """Follows another at the same place within DOUBLE_NS."""


def _apart(time: NDArray[np.int64], before: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how far two times are apart; 0 where one is unknown. Clocks may step backwards."""
    known = (time != NO_TIME) & (before != NO_TIME)
    return np.where(known, np.abs(time - np.where(known, before, time)), 0)


def _pair_places(pairs: _Repeats) -> _Places:
    """Return, per pair, whether the second is at the place of the first, and an exact double."""
    same = pairs.place[0::2] == pairs.place[1::2]
    soon = _apart(pairs.time[1::2], pairs.time[0::2]) <= DOUBLE_NS
    return _Places(np.arange(len(same)), same, same & soon)


def _first_of_pairs(pairs: _Repeats, places: _Places, habit: NDArray[np.int64]) -> Rows:
    """Return the row of the first sight of each element, where runs have two elements each."""
    named = pairs.named[1::2]
    limit = np.where(named, NAMED_FORWARD_NS, UNNAMED_FORWARD_NS)
    forwarded = ~places.same & (_apart(pairs.time[1::2], pairs.time[0::2]) <= limit)
    again = forwarded | (places.double & (named | (habit[pairs.capture[1::2]] > 1)))
    first = pairs.rows.copy()
    first[1::2][again] = pairs.rows[0::2][again]
    return first


def _run_places(runs: _Repeats) -> _Places:
    """Order longer runs by place."""
    order, starts = order_by(combine(runs.run, runs.place))
    same = np.ones(len(order), np.bool_)
    same[starts] = False
    time = runs.time[order]
    return _Places(order, same, same & (_apart(time, previous(time, NO_TIME)) <= DOUBLE_NS))


def _first_of_runs(runs: _Repeats, places: _Places, habit: NDArray[np.int64]) -> Rows:
    """Return the row of the first sight of each element, for runs of any length.

    Within an episode (no gap longer than forwarding may take) the n-th at one place is the n-th
    at every other.
    """
    limit = np.where(runs.named, NAMED_FORWARD_NS, UNNAMED_FORWARD_NS)
    pause = _apart(runs.time, previous(runs.time, NO_TIME)) > limit
    episode = np.cumsum(pause | (runs.run != previous(runs.run, -1)))

    order = places.order
    named, times = runs.named[order], habit[runs.capture[order]]
    inside = places.same & (episode[order] == previous(episode[order], -1))
    double = inside & places.double & (named | (times > 1))
    # Without an IP ID, the capture's habit tells how many sights are one packet's.
    index = np.arange(len(order))
    nth = index - np.maximum.accumulate(np.where(double, 0, index))
    steps = np.cumsum(inside & (~double | (~named & (nth % times == 0))))
    heads = np.flatnonzero(~inside)
    number = np.empty(len(order), np.int64)
    number[order] = steps - np.repeat(steps[heads], np.diff(heads, append=len(order)))

    together, starts = order_by(combine(episode, number))
    first = np.empty(len(order), np.int64)
    first[together] = np.repeat(runs.rows[together[starts]], np.diff(starts, append=len(order)))
    return first


def recut_copies(packets: Columns, rows: Rows, originals: Rows) -> tuple[Rows, Rows]:
    """Return which repetitions are pieces of a larger segment that was forwarded.

    A host may take a segment that was merged on receipt and cut it again where it leaves, so that
    the pieces are not alike with it. `rows` repeat bytes that `originals` held first. A piece is
    smaller, comes at once, and was forwarded: a TTL lower, another tunnel depth, or sent by whom
    the segment was sent to. Returns the pieces' rows and, for each, the segment's.
    """
    size = packets.values("payload_len")
    chosen = np.flatnonzero(size[rows] < size[originals])
    rows, originals = rows[chosen], originals[chosen]
    time = packets.values("time_ns", NO_TIME)
    chosen = np.flatnonzero(_apart(time[rows], time[originals]) <= DOUBLE_NS)
    rows, originals = rows[chosen], originals[chosen]
    ttl, depth = packets.values("ttl"), packets.values("tunnel_depth")
    source, target = packets.values("eth_src"), packets.values("eth_dst")
    handed_on = (source[rows] == target[originals]) & (source[rows] != 0)
    forwarded = (ttl[rows] < ttl[originals]) | (depth[rows] != depth[originals]) | handed_on
    return rows[forwarded], originals[forwarded]
