"""Frames in, tables out: what the tests of every decoder share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scapy.config import conf
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether

from pcapdiag.capture.frames import FrameBatch
from pcapdiag.decode.packets import Decoded, decode_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

GARBAGE = b"\xa5" * 80
"""Lies between frames: a decoder that reads beyond one gets values that no test expects."""


def make_batch(
    frames: Sequence[object],
    *,
    linktype: int | Sequence[int] = 1,
    wire_len: Sequence[int] | None = None,
    fcs_len: int = 0,
    direction: int = 0,
    note: int = 0,
    garbage: bytes = GARBAGE,
) -> FrameBatch:
    """Return a batch of frames, which may be bytes or scapy packets."""
    pieces = [bytes(frame) for frame in frames]
    count = len(pieces)
    caplen = np.array([len(piece) for piece in pieces], dtype=np.uint32)
    start = np.cumsum(caplen.astype(np.int64) + len(garbage)) - caplen - len(garbage)
    data = b"".join(piece + garbage for piece in pieces)
    return FrameBatch(
        data=np.frombuffer(data, dtype=np.uint8),
        start=start.astype(np.int64),
        caplen=caplen,
        wire_len=caplen if wire_len is None else np.array(wire_len, dtype=np.uint32),
        time_ns=np.arange(count, dtype=np.int64),
        linktype=np.broadcast_to(np.array(linktype, dtype=np.uint16), count),
        fcs_len=np.full(count, fcs_len, dtype=np.uint8),
        interface=np.zeros(count, dtype=np.uint16),
        frame=np.arange(1, count + 1, dtype=np.uint32),
        direction=np.full(count, direction, dtype=np.uint8),
        note=np.full(count, note, dtype=np.uint32),
    )


@pytest.fixture(scope="session", autouse=True)
def nobody_is_asked() -> Iterator[None]:
    """Address frames that name no MAC to all: scapy would ask the network, and wait for answers."""
    asking = dict(conf.neighbor.resolvers)
    for network in (IP, IPv6, ARP):
        conf.neighbor.register_l3(Ether, network, lambda _link, _network: "ff:ff:ff:ff:ff:ff")
    yield
    conf.neighbor.resolvers.update(asking)


@pytest.fixture(scope="session")
def batch() -> Callable[..., FrameBatch]:
    """Return the maker of batches, see make_batch."""
    return make_batch


@pytest.fixture(scope="session")
def decoded() -> Callable[..., Decoded]:
    """Return a function that decodes frames; its keywords are make_batch's and `gue_ports`."""

    def decode(*frames: object, gue_ports: frozenset[int] = frozenset({6080}), **more) -> Decoded:
        return decode_batch(make_batch(frames, **more), 0, gue_ports=gue_ports)

    return decode


@pytest.fixture(scope="session")
def packet(decoded: Callable[..., Decoded]) -> Callable[..., dict[str, object]]:
    """Return a function that decodes one frame to its row of `packets`."""

    def row(frame: object, **more) -> dict[str, object]:
        return decoded(frame, **more).packets.row(0, named=True)

    return row
