"""ICMP (RFC 792) and ICMPv6 (RFC 4443) messages; what errors quote is read by `quoted`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from pcapdiag.addresses import V4_MAPPED
from pcapdiag.decode import checksum, nd
from pcapdiag.decode.checksum import Verdict
from pcapdiag.decode.columns import Columns, mark
from pcapdiag.decode_note import DecodeNote
from pcapdiag.protocols import (
    FRAG_NEEDED,
    ICMP_ERRORS,
    ICMPV6_ERROR_LIMIT,
    IcmpType,
    Icmpv6Type,
    IpProto,
)

if TYPE_CHECKING:
    from pcapdiag.decode.columns import U8, U16, U32, U64, Bools, Indices, Offsets
    from pcapdiag.decode.fetch import Bytes, Window
    from pcapdiag.decode.network import Network

HEADER_BYTES: Final = 8
_SHORTEST: Final = 4  # type, code, checksum

_EXTENSION_VERSION: Final = 2  # RFC 4884 section 7
_OLD_EXTENSION_AT: Final = 8 + 128
"""Senders from before RFC 4884 quote 128 bytes and say no length (RFC 4884 section 5)."""

_V4_WITH_EXTENSIONS: Final = (
    IcmpType.UNREACHABLE,
    IcmpType.TIME_EXCEEDED,
    IcmpType.PARAMETER_PROBLEM,
)
_V6_WITH_EXTENSIONS: Final = (Icmpv6Type.UNREACHABLE, Icmpv6Type.TIME_EXCEEDED)


@dataclass(slots=True)
class Icmp(Columns):
    """ICMP messages of either version, one row each."""

    row: Indices
    """Of the packet in the network's columns."""
    version: U8
    type: U8
    code: U8
    has_code: Bools
    field: U16
    has_field: Bools
    verdict: U8
    residual: U16
    length: U32
    has_echo: Bools
    ident: U16
    sequence: U16
    has_mtu: Bools
    mtu: U32
    has_gateway: Bools
    gateway_hi: U64
    gateway_lo: U64
    has_target: Bools
    """An ICMPv6 redirect names the destination it is about beside any quote."""
    target_hi: U64
    target_lo: U64
    has_extension: Bools
    extension_offset: U16
    is_error: Bools
    """A message that quotes; the quote lies from `quote` to `quote_stop`."""
    quote: Offsets
    quote_stop: Offsets
    note: U32


def decode(source: Bytes, network: Network) -> Icmp:
    """Decode the ICMP messages among the packets; a row for each whose type was kept.

    Where not even that was, the packet's own note says so.
    """
    proto = np.where(network.version == 4, np.uint8(IpProto.ICMP), np.uint8(IpProto.ICMPV6))
    due = network.readable & (network.proto == proto)
    some = network.kept > network.payload
    mark(network.note, due & ~some, DecodeNote.TRANSPORT_CUT)
    rows = np.flatnonzero(due & some)
    out = Icmp.blank(rows.size)
    if not rows.size:
        return out
    start, kept, stop = network.payload[rows], network.kept[rows], network.stop[rows]
    window = source.window(start, kept, HEADER_BYTES)
    out.row, out.version = rows, network.version[rows]
    out.type, out.code, out.field = window.u8(0), window.u8(1), window.u16(2)
    out.has_code = window.kept >= 2
    out.has_field = window.kept >= _SHORTEST
    out.length[:] = stop - start
    mark(out.note, window.kept < HEADER_BYTES, DecodeNote.TRANSPORT_CUT)
    _verify(source, network, out, start, stop, kept)

    v4 = out.version == 4
    whole = window.kept >= HEADER_BYTES
    errors = np.isin(out.type, list(ICMP_ERRORS))
    out.is_error = np.where(v4, errors, out.type < ICMPV6_ERROR_LIMIT)
    out.quote = start + HEADER_BYTES
    out.quote_stop = stop.copy()
    _echo(out, window, whole, v4)
    _mtu_and_gateway(out, window, whole, v4)
    _extensions(source, out, window, start, kept)
    _redirect_v6(source, out, start, kept)
    return out


def _verify(
    source: Bytes, network: Network, out: Icmp, start: Offsets, stop: Offsets, kept: Offsets
) -> None:
    """Verify checksums over the IP length and not a byte more.

    Unverifiable are messages of which bytes are missing, first fragments, and wrong ones whose
    length (0 in the header) or pseudo-header (final destination in a Routing header) is a guess.
    """
    out.verdict[:] = Verdict.UNVERIFIABLE
    some = np.flatnonzero((kept >= stop) & (stop - start >= _SHORTEST) & ~network.mf[out.row])
    if not some.size:
        return
    rows, length = out.row[some], (stop - start)[some]
    total = source.words_summed(start[some], length)
    v6 = np.flatnonzero(out.version[some] == 6)
    if v6.size:
        of = rows[v6]
        total[v6] += checksum.pseudo_header_sum(
            network.src_hi[of],
            network.src_lo[of],
            network.dst_hi[of],
            network.dst_lo[of],
            length[v6],
            IpProto.ICMPV6,
        )
    guessed = network.routed[rows] | (network.note[rows] & DecodeNote.IP_LENGTH_ZERO != 0)
    verdict = checksum.verdicts(total, np.ones(some.size, dtype=np.bool_))
    verdict[guessed & (verdict == Verdict.BAD)] = Verdict.UNVERIFIABLE
    out.verdict[some] = verdict
    out.residual[some] = checksum.residuals(total)


def _echo(out: Icmp, window: Window, whole: Bools, v4: Bools) -> None:
    echo_v4 = (out.type == IcmpType.ECHO_REQUEST) | (out.type == IcmpType.ECHO_REPLY)
    echo_v6 = (out.type == Icmpv6Type.ECHO_REQUEST) | (out.type == Icmpv6Type.ECHO_REPLY)
    out.has_echo = whole & np.where(v4, echo_v4, echo_v6)
    out.ident, out.sequence = window.u16(4), window.u16(6)


def _mtu_and_gateway(out: Icmp, window: Window, whole: Bools, v4: Bools) -> None:
    """Take the next-hop MTU (RFC 1191 section 4, RFC 4443 section 3.2) or the gateway."""
    needed = v4 & (out.type == IcmpType.UNREACHABLE) & (out.code == FRAG_NEEDED)
    too_big = ~v4 & (out.type == Icmpv6Type.PACKET_TOO_BIG)
    out.has_mtu = whole & (needed | too_big)
    out.mtu = np.where(needed, window.u16(6), window.u32(4))
    out.has_gateway = whole & v4 & (out.type == IcmpType.REDIRECT)
    out.gateway_lo = window.u32(4) | np.uint64(V4_MAPPED)


def _extensions(source: Bytes, out: Icmp, window: Window, start: Offsets, kept: Offsets) -> None:
    """Find the extension header of RFC 4884, which ends the quote.

    Where a length is said and the capture ends before the header, the quote ends there all the
    same. That a capture which is cut hides an extension of the old kind is not assumed.
    """
    v4 = out.version == 4
    may = np.where(
        v4, np.isin(out.type, _V4_WITH_EXTENSIONS), np.isin(out.type, _V6_WITH_EXTENSIONS)
    )
    said = np.where(v4, window.u8(5).astype(np.int64) * 4, window.u8(4).astype(np.int64) * 8)
    length = out.length.astype(np.int64)
    offset = np.where(said > 0, HEADER_BYTES + said, _OLD_EXTENSION_AT)
    rows = np.flatnonzero(may & (offset + _SHORTEST <= length))
    if not rows.size:
        return
    at = start[rows] + offset[rows]
    header = source.window(at, kept[rows], 8)
    found = (header.kept >= _SHORTEST) & (header.u8(0) >> 4 == _EXTENSION_VERSION)
    old = np.flatnonzero(found & (said[rows] == 0))
    if old.size:
        end = start[rows[old]] + length[rows[old]]
        whole = kept[rows[old]] >= end
        found[old] = False
        old, end = old[whole], end[whole]
        total = source.words_summed(at[old], end - at[old])
        found[old] = checksum.verdicts(total, np.ones(old.size, dtype=np.bool_)) == Verdict.OK
    ends = found | ((header.kept < _SHORTEST) & (said[rows] > 0))
    out.quote_stop[rows[ends]] = at[ends]
    out.has_extension[rows[found]] = True
    out.extension_offset[rows[found]] = offset[rows[found]]


def _redirect_v6(source: Bytes, out: Icmp, start: Offsets, kept: Offsets) -> None:
    """Read ICMPv6 redirects (RFC 4861 section 4.5), whose quote stands in an option."""
    rows = np.flatnonzero((out.version == 6) & (out.type == Icmpv6Type.REDIRECT))
    if not rows.size:
        return
    window = source.window(start[rows], kept[rows], 40)
    out.has_gateway[rows] = window.kept >= 24
    out.gateway_hi[rows], out.gateway_lo[rows] = window.u64(8), window.u64(16)
    out.has_target[rows] = window.kept >= 40
    out.target_hi[rows], out.target_lo[rows] = window.u64(24), window.u64(32)
    found, at, size = nd.find_option(source, start[rows] + 40, kept[rows], nd.REDIRECTED_HEADER)
    out.quote[rows] = at + 8
    stop = np.minimum(at + size, out.quote_stop[rows])
    out.quote_stop[rows] = np.where(found, np.maximum(stop, at + 8), at + 8)
    out.is_error[rows[found]] = True
