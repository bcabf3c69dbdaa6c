"""The IPVS synchronisation protocol: which connections a director hands to its backup.

Layouts from the kernel's net/netfilter/ipvs/ip_vs_sync.c: struct ip_vs_sync_mesg and
ip_vs_sync_v4, ip_vs_sync_v6 (version 1), ip_vs_sync_mesg_v0 and ip_vs_sync_conn_v0 (version 0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from pcapdiag.addresses import V4_MAPPED
from pcapdiag.decode.columns import Columns
from pcapdiag.protocols import UDP_PORT_IPVS_SYNC, IpProto

if TYPE_CHECKING:
    from pcapdiag.decode.columns import U8, U16, U64, Bools, Indices, Offsets
    from pcapdiag.decode.fetch import Bytes, Window
    from pcapdiag.decode.network import Network
    from pcapdiag.decode.transport import Transport

METHODS: Final = ("nat", "local", "tun", "dr")
"""By the number in flags & IP_VS_CONN_F_FWD_MASK; a bypass (4) has none."""

_UDP_BYTES: Final = 8
_MAX_CONNECTIONS: Final = 255  # the count is one byte
_FORWARD_MASK: Final = 0x0007
_SEQ_MASK: Final = 0x0600  # IP_VS_CONN_F_SEQ_MASK: two ip_vs_seq follow in version 0
_V0_BYTES: Final = 24
_V0_SEQ_BYTES: Final = 24
_V4_BYTES: Final = 36
_V6_BYTES: Final = 72
_SIZE_MASK: Final = 0x0FFF  # SVER_MASK; the four bits above are the entry's version


@dataclass(slots=True)
class SyncEntries(Columns):
    """One row a connection."""

    row: Indices
    sync_id: U8
    proto: U8
    client_hi: U64
    client_lo: U64
    virtual_hi: U64
    virtual_lo: U64
    real_hi: U64
    real_lo: U64
    client_port: U16
    virtual_port: U16
    real_port: U16
    method: U8
    """Position in METHODS; beyond it where there is none."""
    state: U16


def decode(
    source: Bytes, network: Network, transport: Transport
) -> tuple[list[SyncEntries], Indices]:
    """Decode the messages to UDP port 8848.

    Returns tables of connections, as far as they were kept, and the rows of packets that were cut.
    A message whose size field differs from its datagram's is none, as for the kernel.
    """
    rows = np.flatnonzero(
        (transport.proto == IpProto.UDP)
        & (transport.kept >= _UDP_BYTES)
        & (transport.dst_port == UDP_PORT_IPVS_SYNC)
    )
    if not rows.size:
        return [], rows
    start, kept = network.payload[rows] + _UDP_BYTES, network.kept[rows]
    end = network.stop[rows]
    window = source.window(start, kept, 8)
    sized = (window.kept >= 4) & (window.u16(2) == end - start)
    v1 = sized & (window.u8(0) == 0) & (window.u8(5) == 1) & (window.u16(6) == 0)
    v0 = sized & ~v1
    lost = np.zeros(rows.size, dtype=np.bool_)
    lost |= window.kept < np.minimum(8, end - start)
    tables: list[SyncEntries] = []
    for mine, header, counts, reader in (
        (v1, 8, window.u8(4), _read_v1),
        (v0, 4, window.u8(0), _read_v0),
    ):
        which = np.flatnonzero(mine & ~lost)
        at = start[which] + header
        left = counts[which].astype(np.int64)
        sync_id = window.u8(1)
        for _ in range(_MAX_CONNECTIONS):
            on = left > 0
            which, at, left = which[on], at[on], left[on]
            if not which.size:
                break
            entry, size, good, cut = reader(source, at, kept[which], end[which])
            lost[which[cut]] = True
            which, at, left = which[good], at[good] + size[good], left[good] - 1
            entry = entry.take(np.flatnonzero(good))
            entry.row, entry.sync_id = rows[which], sync_id[which]
            tables.append(entry)
    return tables, rows[lost]


def _read_v1(
    source: Bytes, at: Offsets, kept: Offsets, end: Offsets
) -> tuple[SyncEntries, Offsets, Bools, Bools]:
    """Read one entry a row: (entries, sizes with padding, which are good, which were cut)."""
    window = source.window(at, kept, _V6_BYTES)
    six = window.u8(0) & 1 != 0
    size = (window.u16(2) & _SIZE_MASK).astype(np.int64)
    least = np.where(six, _V6_BYTES, _V4_BYTES)
    sane = (window.u16(2) & ~np.uint16(_SIZE_MASK) == 0) & (size >= least) & (at + size <= end)
    whole = window.kept >= np.where(window.kept < 4, 4, least)
    out = SyncEntries.blank(len(at))
    out.proto = window.u8(1)
    out.method = (window.u32(4) & _FORWARD_MASK).astype(np.uint8)
    out.state = window.u16(8)
    out.client_port, out.virtual_port = window.u16(10), window.u16(12)
    out.real_port = window.u16(14)
    out.client_hi, out.client_lo = _address(window, six, 24, 24)
    out.virtual_hi, out.virtual_lo = _address(window, six, 28, 40)
    out.real_hi, out.real_lo = _address(window, six, 32, 56)
    return out, (size + 3) & ~3, whole & sane, ~whole & (at + 4 <= end)


def _read_v0(
    source: Bytes, at: Offsets, kept: Offsets, end: Offsets
) -> tuple[SyncEntries, Offsets, Bools, Bools]:
    """Read one entry a row, as _read_v1 does."""
    window = source.window(at, kept, _V0_BYTES)
    flags = window.u16(20)
    size = np.where(flags & _SEQ_MASK != 0, _V0_BYTES + _V0_SEQ_BYTES, _V0_BYTES)
    whole = window.kept >= _V0_BYTES
    none = np.zeros(len(at), dtype=np.bool_)
    out = SyncEntries.blank(len(at))
    out.proto = window.u8(1)
    out.client_port, out.virtual_port = window.u16(2), window.u16(4)
    out.real_port = window.u16(6)
    out.client_hi, out.client_lo = _address(window, none, 8, 8)
    out.virtual_hi, out.virtual_lo = _address(window, none, 12, 12)
    out.real_hi, out.real_lo = _address(window, none, 16, 16)
    out.method = (flags & _FORWARD_MASK).astype(np.uint8)
    out.state = window.u16(22)
    return out, size.astype(np.int64), whole & (at + size <= end), ~whole & (at + _V0_BYTES <= end)


def _address(window: Window, six: Bools, offset_v4: int, offset_v6: int) -> tuple[U64, U64]:
    """Return an address as two halves, read at the offset of its family."""
    four = window.u32(offset_v4) | np.uint64(V4_MAPPED)
    if not six.any():
        return np.zeros(len(six), dtype=np.uint64), four
    hi, lo = window.u64(offset_v6), window.u64(offset_v6 + 8)
    return np.where(six, hi, np.uint64(0)), np.where(six, lo, four)
