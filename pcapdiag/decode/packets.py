"""Batches of frames to tables: every decoder, in order."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import polars as pl

from pcapdiag import memory, schema
from pcapdiag.capture.frames import NO_TIME
from pcapdiag.decode import (
    arp,
    icmp,
    ipvs_sync,
    link,
    quoted,
    tables,
    tags,
    transport,
    tunnel,
    vrrp,
)
from pcapdiag.decode.columns import ALL_ROWS, mark, rows_where
from pcapdiag.decode.fetch import Bytes
from pcapdiag.decode.network import Network
from pcapdiag.decode.rare_link import RareLinks
from pcapdiag.decode.sheet import Sheet
from pcapdiag.decode.tcp import Sacks
from pcapdiag.decode.tunnel import Outer, Ports
from pcapdiag.decode_note import DecodeNote
from pcapdiag.protocols import UDP_PORT_GUE
from pcapdiag.spool import CHUNK_ROWS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pcapdiag.capture.frames import FrameBatch
    from pcapdiag.decode.columns import Offsets
    from pcapdiag.decode.link import Link
    from pcapdiag.decode.transport import Transport
    from pcapdiag.spool import Table

GUE_PORTS: Final = frozenset({UDP_PORT_GUE})
"""UDP destination ports taken for GUE unless the caller names others."""

HEADERS_AT_ONCE: Final = 1 << 15
"""Frames whose headers are decoded together: what one pass over them fetched is still in the
processor's cache for the next. Less, and the passes' own overhead shows."""


LARGE: Final = 1 << 19
"""Rows from which on the pieces of a column, once joined, are worth handing back one by one: the
joined columns would else stand beside all the pieces."""


SPOOLED: Final = ("packets", "tunnels", "sacks")
"""The tables of Decoded that can have rows for every packet there is."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """The decoded tables, exactly as in schema.py; `row` of the others counts in `packets`.

    Where a capture is spooled, the tables named in SPOOLED are; the others are in memory always.
    """

    packets: Table
    tunnels: Table
    sacks: Table
    icmp: pl.DataFrame
    arp: pl.DataFrame
    vrrp: pl.DataFrame
    ipvs_sync: pl.DataFrame

    def kept(self, how: Callable[[Table], Table]) -> Decoded:
        """Return it with the tables named in SPOOLED kept as `how` keeps them."""
        tables: dict[str, Any] = {name: how(getattr(self, name)) for name in SPOOLED}
        return replace(self, **tables)


def decode_capture(
    reader: Iterable[FrameBatch],
    capture: int,
    *,
    gue_ports: frozenset[int] = GUE_PORTS,
) -> Decoded:
    """Return what decode_parts() yields as one, in memory."""
    return concat(list(decode_parts(reader, capture, gue_ports=gue_ports)))


def decode_parts(
    reader: Iterable[FrameBatch],
    capture: int,
    *,
    gue_ports: frozenset[int] = GUE_PORTS,
    rows: int = CHUNK_ROWS,
    room: int = 0,
) -> Iterator[Decoded]:
    """Decode a capture; `capture` is its index within the case.

    Yields parts of `rows` packets, or up to a batch more, and a last one of fewer. `room`: how many
    are expected, which spares columns to grow. Raises what the reader raises, and nothing else
    whatever the frames hold.

    One batch after the other: numpy's calls are so short here, and pass the interpreter's lock so
    often, that two threads took no less time than one.
    """
    rare = RareLinks()
    ports = Ports(gue_ports)
    base = 0
    sheet: Sheet | None = None
    sides: list[Decoded] = []
    for batch in reader:
        if sheet is None:
            sheet = Sheet("packets", len(batch), room)
        else:
            sheet.go_on(len(batch))
        sides.append(_decode(batch, sheet, capture, ports, base, rare))
        base += len(batch)
        if len(sheet) >= rows:
            yield replace(concat(sides), packets=sheet.frame())
            sheet = None
    if sheet is not None:
        yield replace(concat(sides), packets=sheet.frame())


def concat(parts: list[Decoded]) -> Decoded:
    """Join parts end to end; their `row` columns are kept, so they must carry their row_base.

    `parts` is emptied, so that the memory of a part can be freed column by column.
    """
    names = [item.name for item in fields(Decoded)]
    tables = {name: [getattr(part, name) for part in parts] for name in names}
    parts.clear()
    return Decoded(**{name: _stacked(frames, name) for name, frames in tables.items()})


def _stacked(frames: list[pl.DataFrame], table: str) -> pl.DataFrame:
    """Return frames as one, each column in one piece, as it is read by row many times."""
    large = sum(len(frame) for frame in frames) > LARGE
    frames[:] = [frame for frame in frames if len(frame)]
    if len(frames) < 2:
        return frames.pop() if frames else schema.empty(table)
    columns = [frame.get_columns() for frame in frames]
    frames.clear()
    whole = []
    for _ in schema.dtypes(table):
        whole.append(pl.concat([part.pop(0) for part in columns], rechunk=True))
        if large:
            memory.give_back()
    return pl.DataFrame(whole)


def decode_batch(
    batch: FrameBatch, capture: int, *, gue_ports: frozenset[int] = GUE_PORTS
) -> Decoded:
    """Decode one batch: a row of `packets` for each frame, in order; never raises for its bytes.

    Nothing of the batch is kept. `gue_ports`: UDP destination ports that carry GUE.
    """
    sheet = Sheet("packets", len(batch))
    sides = _decode(batch, sheet, capture, Ports(gue_ports), 0, RareLinks())
    return replace(sides, packets=sheet.frame())


def _decode(
    batch: FrameBatch, sheet: Sheet, capture: int, ports: Ports, row_base: int, rare: RareLinks
) -> Decoded:
    """Decode a batch into `sheet`, which has begun it, and return the side tables.

    `row_base`: rows of the capture before this batch, what `row` counts from.
    """
    source = Bytes(batch.data)
    kept, stop = _bounds(batch)
    headers = _headers(source, batch, sheet, kept, stop, ports, rare)
    header, inner, carried = headers.link, headers.network, headers.transport
    tunnels = headers.tunnels
    message = icmp.decode(source, inner)
    quotes = quoted.decode(source, message, inner, ports)
    asking = np.flatnonzero(header.version == tags.ARP)
    neighbours, arp_note = arp.decode_arp(source, asking, header.start[asking], kept[asking])
    advertised, vrrp_cut = vrrp.decode(source, inner)
    synced, sync_cut = ipvs_sync.decode(source, inner, carried)

    note = batch.note | header.note | inner.note | carried.note
    note[message.row] |= message.note
    note[message.row[quotes.row]] |= quotes.note
    note[asking] |= arp_note
    mark(note, vrrp_cut, DecodeNote.TRANSPORT_CUT)
    mark(note, sync_cut, DecodeNote.TRANSPORT_CUT)
    _put_frames(sheet, batch, capture)
    tables.put_link(sheet, header)
    kind, depth = np.zeros((2, len(batch)), dtype=np.uint8)
    kind[tunnels.row], depth[tunnels.row] = tunnels.kind, tunnels.depth
    sheet.put_codes("tunnel", kind)
    tables.put_network(sheet, inner)
    tables.put_transport(sheet, carried)
    tables.put_icmp(sheet, message, len(batch))
    sheet.put(None, tunnel_depth=depth, decode_note=note)
    return Decoded(
        packets=schema.empty("packets"),
        tunnels=tables.tunnels(tunnels, headers.outer, inner, row_base),
        sacks=tables.sacks(headers.sacks, row_base),
        icmp=tables.icmp(message, quotes, row_base),
        arp=tables.arp((neighbours, arp.decode_nd(source, message, inner)), header, row_base),
        vrrp=tables.vrrp(advertised, row_base),
        ipvs_sync=tables.ipvs_sync_entries(synced, row_base),
    )


def _bounds(batch: FrameBatch) -> tuple[Offsets, Offsets]:
    """Return where each frame's believable bytes end, and where it ended on the wire.

    The frame check sequence is neither; a file that keeps more than was on the wire is believed.
    """
    stop = np.maximum(batch.wire_len, batch.caplen) + batch.start
    kept = batch.caplen + batch.start
    if batch.fcs_len.any():
        stop = np.maximum(stop - batch.fcs_len, batch.start)
        kept = np.minimum(kept, stop)
    return kept, stop


class _Headers(NamedTuple):
    """What every packet has: one row a frame, but for tunnels, their headers and SACK blocks."""

    link: Link
    network: Network
    transport: Transport
    tunnels: Outer
    outer: Network
    sacks: Sacks


def _headers(
    source: Bytes,
    batch: FrameBatch,
    sheet: Sheet,
    kept: Offsets,
    stop: Offsets,
    ports: Ports,
    rare: RareLinks,
) -> _Headers:
    """Decode link, network and transport headers, HEADERS_AT_ONCE frames at a time."""
    count = len(batch)
    links, networks, transports = tables.headers(sheet, count)
    tunnels: list[Outer] = []
    outers: list[Network] = []
    sacks: list[Sacks] = []
    for first in range(0, count, HEADERS_AT_ONCE):
        rows = slice(first, min(first + HEADERS_AT_ONCE, count))
        header, inner, carried = links.part(rows), networks.part(rows), transports.part(rows)
        _link(source, batch, rows, kept, header, rare)
        version = np.where(header.version >= 4, header.version, np.uint8(0))
        found, outer = tunnel.innermost(
            source, inner, version, header.start, kept[rows], stop[rows], ports
        )
        blocks = transport.decode(source, inner, carried)
        found.row += first
        blocks.row += np.uint32(first)
        tunnels.append(found)
        outers.append(outer)
        sacks.append(blocks)
    return _Headers(
        links, networks, transports, Outer.join(tunnels), Network.join(outers), Sacks.join(sacks)
    )


def _link(
    source: Bytes, batch: FrameBatch, rows: slice, kept: Offsets, out: Link, rare: RareLinks
) -> None:
    """Decode the link headers of `rows`, one link type after the other; most captures have one."""
    known = batch.direction[rows] <= link.OUT
    out.direction[:] = np.where(known, batch.direction[rows], np.uint8(0))
    held = batch.note[rows] & DecodeNote.NO_PACKET == 0
    linktypes = batch.linktype[rows]
    start, end = batch.start[rows], kept[rows]
    one = held.all() and (linktypes == linktypes[0]).all()
    for linktype in [int(linktypes[0])] if one else np.unique(linktypes[held]).tolist():
        mine = ALL_ROWS if one else rows_where(held & (linktypes == linktype))
        if not link.decode(source, out, linktype, mine, start[mine], end[mine]):
            places = np.arange(len(start))[mine]
            rare.decode(source, out, linktype, places, start[mine], end[mine])


def _put_frames(sheet: Sheet, batch: FrameBatch, capture: int) -> None:
    """Add what the capture file says of each frame."""
    sheet.put(
        None,
        capture=np.full(1, capture, dtype=np.uint16),
        frame=batch.frame,
        interface=batch.interface,
        linktype=batch.linktype,
        caplen=batch.caplen,
        wire_len=batch.wire_len,
    )
    sheet.put(batch.time_ns != NO_TIME, time_ns=batch.time_ns)
