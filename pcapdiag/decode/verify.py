"""TCP and UDP checksums of chosen frames, and those of the UDP headers that tunnels begin with.

Decoding leaves them alone: they cover every byte of every packet, and few packets are suspected.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from pcapdiag.decode import checksum, extent, tags, transport, tunnel
from pcapdiag.decode.checksum import Verdict
from pcapdiag.decode.columns import Columns
from pcapdiag.decode.fetch import Bytes
from pcapdiag.decode.network import Network
from pcapdiag.decode.packets import GUE_PORTS
from pcapdiag.decode.transport import Transport
from pcapdiag.decode_note import DecodeNote
from pcapdiag.protocols import IpProto

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pcapdiag.capture.frames import FrameBatch
    from pcapdiag.decode.columns import U8, U16, Bools, Indices, Offsets

_CHECKSUM_AT: Final = {IpProto.TCP: 16, IpProto.UDP: 6}
_SHORTEST: Final = {IpProto.TCP: 20, IpProto.UDP: 8}
_ONES: Final = np.uint64(0xFFFF)


@dataclass(slots=True)
class Sums(Columns):
    """One row a frame; verdicts are checksum.Verdict codes, NONE where there is no checksum.

    `partial`: the field holds the pseudo-header's sum, which a network card was to complete
    (CHECKSUM_PARTIAL): such a packet was never on a wire like this. `residual`: stored minus
    expected. `outer_*` are about the UDP header around a tunnelled packet.
    """

    verdict: U8
    partial: Bools
    residual: U16
    outer_verdict: U8
    outer_partial: Bools
    outer_residual: U16


def verify(batch: FrameBatch, rows: Indices, *, gue_ports: frozenset[int] = GUE_PORTS) -> Sums:
    """Verify the frames at `rows` of a batch; never raises for their bytes."""
    chosen = _chosen(batch, rows)
    source, out = Bytes(chosen.data), Sums.blank(len(chosen))
    kept = chosen.start + chosen.caplen.astype(np.int64)
    stop = chosen.start + np.maximum(chosen.wire_len, chosen.caplen).astype(np.int64)
    header = extent.links(source, chosen, kept)
    version = np.where(header.version >= 4, header.version, np.uint8(0))
    version[header.version == tags.ARP] = 0
    inner, carried = Network.blank(len(chosen)), Transport.blank(len(chosen))
    tunnels, outer = tunnel.innermost(
        source, inner, version, header.start, kept, stop, tunnel.Ports(gue_ports)
    )
    transport.decode(source, inner, carried)
    out.verdict, out.partial, out.residual = _sums(source, inner)
    if tunnels.row.size:
        found = _sums(source, outer)
        udp = outer.proto == IpProto.UDP
        at = tunnels.row[udp]
        out.outer_verdict[at], out.outer_partial[at], out.outer_residual[at] = (
            part[udp] for part in found
        )
    return out


def _chosen(batch: FrameBatch, rows: Indices) -> FrameBatch:
    """Return a batch of only these frames, over the same bytes."""
    columns = {
        item.name: getattr(batch, item.name)[rows] for item in fields(batch) if item.name != "data"
    }
    return replace(batch, **columns)


def _sums(source: Bytes, network: Network) -> tuple[U8, Bools, U16]:
    """Return verdict, partial and residual of what stands behind IP headers."""
    count = len(network.version)
    verdict = np.zeros(count, dtype=np.uint8)
    partial = np.zeros(count, dtype=np.bool_)
    residual = np.zeros(count, dtype=np.uint16)
    for proto in (IpProto.TCP, IpProto.UDP):
        due = np.flatnonzero((network.version > 0) & (network.proto == proto) & network.readable)
        if not due.size:
            continue
        start, room = network.payload[due], network.stop[due] - network.payload[due]
        window = source.window(start, network.kept[due], 24)
        length, field = room.copy(), window.u16(_CHECKSUM_AT[proto])
        if proto == IpProto.UDP:
            length = window.u16(4).astype(np.int64)
        whole = (
            (network.kept[due] >= network.stop[due])
            & ~network.mf[due]
            & (length >= _SHORTEST[proto])
            & (length <= room)
            & (network.note[due] & DecodeNote.IP_LENGTH_ZERO == 0)
        )
        none = (proto == IpProto.UDP) & (field == 0) & (window.kept >= 8)
        verdict[due] = np.where(none, np.uint8(Verdict.NONE), np.uint8(Verdict.UNVERIFIABLE))
        some = np.flatnonzero(whole & ~none)
        if not some.size:
            continue
        at = due[some]
        pseudo = _pseudo(network, at, length[some], proto)
        total = source.words_summed(start[some], length[some]) + pseudo
        found = checksum.verdicts(total, np.ones(some.size, dtype=np.bool_))
        found[network.routed[at] & (found == Verdict.BAD)] = Verdict.UNVERIFIABLE
        verdict[at], residual[at] = found, checksum.residuals(total)
        partial[at] = field[some] == _folded(pseudo)
    return verdict, partial, residual


def _pseudo(network: Network, at: Indices, length: Offsets, proto: int) -> NDArray[np.uint64]:
    return checksum.pseudo_header_sum(
        network.src_hi[at], network.src_lo[at], network.dst_hi[at], network.dst_lo[at],
        length, proto,
    )  # fmt: skip


def _folded(total: NDArray[np.uint64]) -> U16:
    """Return little-endian sums as they would stand in a checksum field, not complemented."""
    return (total % _ONES * np.uint64(256) % _ONES).astype(np.uint16)
