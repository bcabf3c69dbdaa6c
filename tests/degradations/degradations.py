"""What happens to captures before anybody analyses them, as named transformations of a set.

A lossless one leaves all there is to know, so the findings must be identical. A lossy one may turn
a finding into a weaker one or into *not examined*, never into a wrong one.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from captures import Capture, Frame

    Captures = Sequence[Capture]
    Change = Callable[[Captures], Captures]

DRIFT_PPM = 100
"""The worst that a crystal may do; NTP keeps below 500."""

KEPT_OF_100 = 95
COPY_NS = 1_000
"""A bridge and its port see a frame within the same microsecond or the next."""

ETHERNET, COOKED, COOKED_V2 = 1, 113, 276
TYPE_AT = {ETHERNET: 12, COOKED: 14, COOKED_V2: 0}
"""Offset of the EtherType in the link header, by LINKTYPE_."""
HEADER_LEN = {ETHERNET: 14, COOKED: 16, COOKED_V2: 20}
IPV4, IPV6 = 0x0800, 0x86DD
ICMP, ICMPV6 = 1, 58


@dataclass(frozen=True, slots=True)
class Degradation:
    """One way to spoil a set of captures; `kind` is `name` without what it was done to."""

    name: str
    kind: str
    lossless: bool
    change: Change


def of(scenario: str, captures: Captures) -> Iterator[Degradation]:
    """Yield every degradation of a sample's captures.

    Clocks are changed on one host, which scenario and degradation choose.
    """
    for shift_s in (0.5, -0.5, 3600, -3600):
        kind = f"clock{shift_s:+g}s"
        host = _chosen(scenario + kind, captures)
        yield Degradation(f"{kind}@{host}", kind, True, partial(shift, host=host, by_s=shift_s))
    kind = f"drift{DRIFT_PPM}ppm"
    host = _chosen(scenario + kind, captures)
    yield Degradation(f"{kind}@{host}", kind, True, partial(drift, host=host))
    for kind, change in (
        ("doubled-frames", double),
        ("labels-removed", remove_labels),
        ("file-order", reverse_files),
        ("other-format", other_format),
        ("compressed", compress),
    ):
        yield Degradation(kind, kind, True, change)
    for capture in captures if len(captures) > 1 else ():
        name = f"without-{capture.file.split('.')[0]}"
        yield Degradation(name, "one-removed", False, partial(without, file=capture.file))
    for kind, change in (
        ("snaplen96", partial(cut, snaplen=96)),
        ("snaplen68", partial(cut, snaplen=68)),
        ("dropped5percent", partial(drop, seed=scenario)),
        ("only-icmp", only_icmp),
        ("first-half", partial(half, last=False)),
        ("last-half", partial(half, last=True)),
    ):
        yield Degradation(kind, kind, False, change)
    swapped = [
        next((item.label for item in captures if item.label.startswith(words)), None)
        for words in (("director", "lb"), ("rs", "real"))
    ]
    if None not in swapped:
        change = partial(swap_labels, labels=swapped)
        yield Degradation("labels-swapped", "labels-swapped", False, change)


def _chosen(key: str, captures: Captures) -> str:
    hosts = sorted({capture.host for capture in captures})
    return hosts[zlib.crc32(key.encode()) % len(hosts)]


def shift(captures: Captures, *, host: str, by_s: float) -> Captures:
    """Set the clock of a host forward."""
    return _on_clock(captures, host, lambda time_ns: time_ns + round(by_s * 1e9))


def drift(captures: Captures, *, host: str) -> Captures:
    """Let the clock of a host run fast from the first frame on."""
    own = [item for item in captures if item.host == host]
    start = min((frame.time_ns for item in own for frame in item.frames), default=0)
    return _on_clock(captures, host, lambda ns: ns + (ns - start) * DRIFT_PPM // 1_000_000)


def _on_clock(captures: Captures, host: str, clock: Callable[[int], int]) -> Captures:
    return [
        _with(item, [replace(frame, time_ns=clock(frame.time_ns)) for frame in item.frames])
        if item.host == host
        else item
        for item in captures
    ]


def _with(capture: Capture, frames: Sequence[Frame]) -> Capture:
    return replace(capture, frames=tuple(frames))


def double(captures: Captures) -> Captures:
    """Let every frame be seen twice, as on a bridge and on its port."""

    def doubled(frames: Sequence[Frame]) -> list[Frame]:
        copies = [replace(frame, time_ns=frame.time_ns + COPY_NS) for frame in frames]
        both = [frame for pair in zip(frames, copies, strict=True) for frame in pair]
        return sorted(both, key=lambda frame: frame.time_ns)

    return [_with(item, doubled(item.frames)) for item in captures]


def remove_labels(captures: Captures) -> Captures:
    """Name vantages and files so that nothing is told but which files belong together.

    The new names sort as the old ones did.
    """
    labels = sorted({item.label for item in captures})
    return [
        replace(item, label=f"place-{labels.index(item.label):02}", stem=f"taken-{number}")
        for number, item in enumerate(captures)
    ]


def reverse_files(captures: Captures) -> Captures:
    """Give the files in another order."""
    return captures[::-1]


def other_format(captures: Captures) -> Captures:
    """Write pcap as pcapng and pcapng as pcap."""
    return [replace(item, pcapng=not item.pcapng) for item in captures]


def compress(captures: Captures) -> Captures:
    """Compress every file."""
    return [replace(item, packed=True) for item in captures]


def without(captures: Captures, *, file: str) -> Captures:
    """Leave out one capture."""
    return [item for item in captures if item.file != file]


def cut(captures: Captures, *, snaplen: int) -> Captures:
    """Keep the first bytes of each frame only."""
    return [
        replace(
            item,
            snaplen=min(item.snaplen, snaplen),
            frames=tuple(replace(frame, data=frame.data[:snaplen]) for frame in item.frames),
        )
        for item in captures
    ]


def drop(captures: Captures, *, seed: str) -> Captures:
    """Lose five frames of a hundred, as a busy capture does; nobody counts them."""
    chance = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    return [
        _with(item, [frame for frame in item.frames if chance.randrange(100) < KEPT_OF_100])
        for item in captures
    ]


def only_icmp(captures: Captures) -> Captures:
    """Keep what `tcpdump icmp or icmp6` keeps."""
    return [
        _with(item, [frame for frame in item.frames if _is_icmp(item.linktype, frame.data)])
        for item in captures
    ]


def _is_icmp(linktype: int, data: bytes) -> bool:
    at, packet = TYPE_AT[linktype], data[HEADER_LEN[linktype] :]
    ethertype = int.from_bytes(data[at : at + 2], "big")
    if ethertype == IPV4:
        return packet[9:10] == bytes([ICMP])
    return ethertype == IPV6 and packet[6:7] == bytes([ICMPV6])


def half(captures: Captures, *, last: bool) -> Captures:
    """Keep the first or the last half of each capture's frames."""
    return [
        _with(
            item,
            item.frames[len(item.frames) // 2 :] if last else item.frames[: len(item.frames) // 2],
        )
        for item in captures
    ]


def swap_labels(captures: Captures, *, labels: Sequence[str]) -> Captures:
    """Confuse two labels; the file names tell nothing."""
    given = dict(zip(labels, reversed(labels), strict=True))
    return [
        replace(item, label=given.get(item.label, item.label), stem=f"taken-{number}")
        for number, item in enumerate(captures)
    ]
