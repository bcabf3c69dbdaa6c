"""Structs of arrays to the polars tables of schema.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from pcapdiag import schema
from pcapdiag.decode import ipvs_sync
from pcapdiag.decode.checksum import Verdict
from pcapdiag.decode.link import Link
from pcapdiag.decode.network import Network
from pcapdiag.decode.sheet import Sheet
from pcapdiag.decode.tcp import Option
from pcapdiag.decode.transport import Transport
from pcapdiag.protocols import IpProto

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pcapdiag.decode.arp import Neighbours
    from pcapdiag.decode.columns import Bools
    from pcapdiag.decode.icmp import Icmp
    from pcapdiag.decode.ipvs_sync import SyncEntries
    from pcapdiag.decode.quoted import Quotes
    from pcapdiag.decode.tcp import Sacks
    from pcapdiag.decode.tunnel import Outer
    from pcapdiag.decode.vrrp import Vrrp


_LINK: Final = {
    name: name for name in ("direction", "eth_src", "eth_dst", "ethertype", "vlan", "vlan_inner")
}
_NETWORK: Final = {
    "version": "ip_version",
    **{name: name for name in ("src_hi", "src_lo", "dst_hi", "dst_lo")},
    "length": "ip_len",
    "ttl": "ttl",
    "tos": "tos",
    "df": "df",
    "proto": "ip_proto",
    "header_len": "ip_header_len",
    "mf": "mf",
    "frag_offset": "frag_offset",
    "ident": "ip_id",
    "checksum": "ip_checksum",
}
_TRANSPORT: Final = {
    "src_port": "src_port",
    "dst_port": "dst_port",
    "checksum": "transport_checksum",
    "payload_len": "payload_len",
    **{name: f"tcp_{name}" for name in ("seq", "ack", "flags", "window")},
    **{name: f"tcp_{name}" for name in ("mss", "wscale", "tsval", "tsecr")},
}
"""By field: the column of `packets` that it becomes."""


def headers(sheet: Sheet, rows: int) -> tuple[Link, Network, Transport]:
    """Return blank headers for a batch of `rows`, which write to the columns of `packets`."""
    return (
        Link.blank(rows, **{name: sheet.column(column) for name, column in _LINK.items()}),
        Network.blank(rows, **{name: sheet.column(column) for name, column in _NETWORK.items()}),
        Transport.blank(
            rows, **{name: sheet.column(column) for name, column in _TRANSPORT.items()}
        ),
    )


def put_link(sheet: Sheet, link: Link) -> None:
    """Add the link columns of `packets`."""
    sheet.put_codes("direction", link.direction)
    sheet.put(link.has_src, eth_src=link.eth_src)
    sheet.put(link.has_dst, eth_dst=link.eth_dst)
    sheet.put(link.has_type, ethertype=link.ethertype)
    sheet.put(link.tags > 0, vlan=link.vlan)
    sheet.put(link.tags > 1, vlan_inner=link.vlan_inner)


def put_network(sheet: Sheet, network: Network) -> None:
    """Add the IP columns of `packets`."""
    known = network.version > 0
    sheet.put(
        known,
        ip_version=network.version,
        src_hi=network.src_hi,
        src_lo=network.src_lo,
        dst_hi=network.dst_hi,
        dst_lo=network.dst_lo,
        ip_len=network.length,
        ttl=network.ttl,
        tos=network.tos,
        df=network.df,
    )
    sheet.put(
        network.chained & known,
        ip_proto=network.proto,
        ip_header_len=network.header_len,
        mf=network.mf,
        frag_offset=network.frag_offset,
    )
    sheet.put(network.has_ident & known, ip_id=network.ident)
    sheet.put_codes("ip_checksum", np.where(known, network.checksum, Verdict.NONE))


def put_transport(sheet: Sheet, transport: Transport) -> None:
    """Add the transport columns of `packets`."""
    sheet.put(transport.has_ports, src_port=transport.src_port, dst_port=transport.dst_port)
    sheet.put(transport.has_payload_len, payload_len=transport.payload_len)
    sheet.put(transport.has_checksum, transport_checksum=transport.checksum)
    tcp = np.where(transport.proto == IpProto.TCP, transport.kept, np.uint8(0))
    sheet.put(tcp >= 8, tcp_seq=transport.seq)
    sheet.put(tcp >= 12, tcp_ack=transport.ack)
    sheet.put(tcp >= 14, tcp_flags=transport.flags)
    sheet.put(tcp >= 16, tcp_window=transport.window)
    found = transport.options
    sheet.put(found & Option.MSS != 0, tcp_mss=transport.mss)
    sheet.put(found & Option.WINDOW_SCALE != 0, tcp_wscale=transport.wscale)
    permitted = found & Option.SACK_PERMITTED != 0
    sheet.put(permitted | (found & Option.READ != 0), tcp_sack_permitted=permitted)
    sheet.put(found & Option.TIMESTAMPS != 0, tcp_tsval=transport.tsval, tcp_tsecr=transport.tsecr)


def put_icmp(sheet: Sheet, message: Icmp, count: int) -> None:
    """Add the ICMP columns of `packets`, which has `count` rows."""
    columns = np.zeros((2, count), dtype=np.uint8)
    masks = np.zeros((2, count), dtype=np.bool_)
    columns[0, message.row], columns[1, message.row] = message.type, message.code
    masks[0, message.row], masks[1, message.row] = True, message.has_code
    sheet.put(masks[0], icmp_type=columns[0])
    sheet.put(masks[1], icmp_code=columns[1])


def tunnels(tunnel: Outer, outer: Network, inner: Network, row_base: int) -> pl.DataFrame:
    """Return the `tunnels` table; `tunnel.row` counts in `inner`, `outer` runs beside `tunnel`."""
    sheet = Sheet("tunnels", len(tunnel.row))
    sheet.put(
        None,
        row=tunnel.row + row_base,
        depth=tunnel.depth,
        outer_src_hi=outer.src_hi,
        outer_src_lo=outer.src_lo,
        outer_dst_hi=outer.dst_hi,
        outer_dst_lo=outer.dst_lo,
        outer_ip_version=outer.version,
        outer_ip_len=outer.length,
        outer_ttl=outer.ttl,
        outer_tos=outer.tos,
        outer_df=outer.df,
    )
    sheet.put_codes("kind", tunnel.kind)
    sheet.put(outer.has_ident, outer_ip_id=outer.ident)
    sheet.put(tunnel.has_ports, outer_src_port=tunnel.src_port, outer_dst_port=tunnel.dst_port)
    sheet.put(tunnel.has_key, tunnel_key=tunnel.key)
    overhead = np.clip(inner.start[tunnel.row] - outer.start, 0, 0xFFFF)
    sheet.put(inner.version[tunnel.row] > 0, overhead=overhead)
    return sheet.frame()


def sacks(found: Sacks, row_base: int) -> pl.DataFrame:
    """Return the `sacks` table."""
    sheet = Sheet("sacks", len(found.row))
    row = found.row.astype(np.int64) + row_base
    sheet.put(None, row=row, block=found.block, left=found.left, right=found.right)
    return sheet.frame()


def icmp(message: Icmp, quotes: Quotes, row_base: int) -> pl.DataFrame:
    """Return the `icmp` table: the messages, and what the errors among them quote."""
    sheet = Sheet("icmp", len(message.row))
    sheet.put(None, row=message.row + row_base, icmp_len=message.length)
    sheet.put_codes("icmp_checksum", message.verdict)
    sheet.put(message.has_field, icmp_checksum_field=message.field)
    verified = message.verdict != Verdict.UNVERIFIABLE
    sheet.put(verified, icmp_residual=message.residual)
    sheet.put(message.has_echo, icmp_ident=message.ident, icmp_sequence=message.sequence)
    sheet.put(message.has_mtu, next_hop_mtu=message.mtu)
    sheet.put(message.has_gateway, gateway_hi=message.gateway_hi, gateway_lo=message.gateway_lo)
    sheet.put(message.has_extension, extension_offset=message.extension_offset)
    if quotes.row.size or message.has_target.any():
        _put_quotes(sheet, message, quotes)
    return sheet.frame()


def _put_quotes(sheet: Sheet, message: Icmp, quotes: Quotes) -> None:
    count = len(message.row)

    def put(valid: Bools, **columns: NDArray[np.generic]) -> None:
        mask = np.zeros(count, dtype=np.bool_)
        mask[quotes.row] = valid
        spread = {name: np.zeros(count, dtype=values.dtype) for name, values in columns.items()}
        for name, values in columns.items():
            spread[name][quotes.row] = values
        sheet.put(mask, **spread)

    inner, carried = quotes.network, quotes.transport
    known = inner.version > 0
    put(
        known,
        quoted_version=inner.version,
        quoted_ttl=inner.ttl,
        quoted_tos=inner.tos,
        quoted_df=inner.df,
    )
    put(known & inner.chained, quoted_proto=inner.proto, quoted_frag_offset=inner.frag_offset)
    put(known & ~quotes.length_unknown, quoted_ip_len=inner.length)
    put(known & inner.has_ident, quoted_ip_id=inner.ident)
    put(quotes.length > 0, quoted_len=quotes.length)
    put(
        carried.has_ports,
        quoted_src_port=carried.src_port,
        quoted_dst_port=carried.dst_port,
    )
    tcp = np.where(carried.proto == IpProto.TCP, carried.kept, np.uint8(0))
    put(tcp >= 8, quoted_tcp_seq=carried.seq)
    put(tcp >= 12, quoted_tcp_ack=carried.ack)
    put(tcp >= 14, quoted_tcp_flags=carried.flags)
    put(
        carried.has_payload_len & ~quotes.length_unknown,
        quoted_payload_len=carried.payload_len,
    )
    put(carried.has_checksum, quoted_transport_checksum=carried.checksum)

    hi, lo = message.target_hi.copy(), message.target_lo.copy()
    rows = quotes.row[known]
    hi[rows], lo[rows] = inner.dst_hi[known], inner.dst_lo[known]
    named = message.has_target.copy()
    named[rows] = True
    sheet.put(named, quoted_dst_hi=hi, quoted_dst_lo=lo)
    put(known, quoted_src_hi=inner.src_hi, quoted_src_lo=inner.src_lo)

    verdict = np.zeros(count, dtype=np.uint8)
    verdict[rows] = inner.checksum[known]
    sheet.put_codes("quoted_ip_checksum", verdict)
    kind = np.zeros(count, dtype=np.uint8)
    tunnelled = np.zeros(len(quotes.row), dtype=np.bool_)
    tunnelled[quotes.tunnels.row] = True
    kind[quotes.row[quotes.tunnels.row]] = quotes.tunnels.kind
    sheet.put_codes("quoted_tunnel", kind)
    for half in ("src_hi", "src_lo", "dst_hi", "dst_lo"):
        values = np.zeros(len(quotes.row), dtype=np.uint64)
        values[quotes.tunnels.row] = getattr(quotes.outer, half)
        put(tunnelled, **{f"quoted_outer_{half}": values})


def arp(messages: Sequence[Neighbours], link: Link, row_base: int) -> pl.DataFrame:
    """Return the `arp` table of ARP and neighbour discovery messages, by row."""
    frames = [schema.empty("arp")]
    for found in messages:
        if not found.row.size:
            continue
        sheet = Sheet("arp", len(found.row))
        sheet.put(
            None,
            row=found.row + row_base,
            sender_hi=found.sender_hi,
            sender_lo=found.sender_lo,
            target_hi=found.target_hi,
            target_lo=found.target_lo,
            gratuitous=found.gratuitous,
        )
        sheet.put_codes("op", found.op)
        sheet.put(found.has_sender_mac, sender_mac=found.sender_mac)
        sheet.put(found.has_target_mac, target_mac=found.target_mac)
        sheet.put(link.has_src[found.row], eth_src=link.eth_src[found.row])
        frames.append(sheet.frame())
    if len(frames) == 1:
        return frames[0]
    return pl.concat(frames).sort("row", maintain_order=True)


def vrrp(found: Vrrp, row_base: int) -> pl.DataFrame:
    """Return the `vrrp` table."""
    sheet = Sheet("vrrp", len(found.row))
    sheet.put(
        None,
        row=found.row + row_base,
        version=found.version,
        vrid=found.vrid,
        priority=found.priority,
        virtual_hi=found.virtual_hi,
        virtual_lo=found.virtual_lo,
    )
    return sheet.frame()


def ipvs_sync_entries(entries: Sequence[SyncEntries], row_base: int) -> pl.DataFrame:
    """Return the `ipvs_sync` table, by row and place in the message."""
    frames = [schema.empty("ipvs_sync")]
    for found in entries:
        columns = {
            name: getattr(found, name) for name in schema.dtypes("ipvs_sync") if name != "method"
        }
        columns["row"] = found.row + row_base
        frame = schema.conform(pl.DataFrame(columns), "ipvs_sync")
        numbers = pl.Series(found.method).cast(pl.UInt8)
        names = numbers.replace_strict(
            dict(enumerate(ipvs_sync.METHODS)), default=None, return_dtype=pl.String
        )
        frames.append(frame.with_columns(method=names))
    if len(frames) == 1:
        return frames[0]
    return pl.concat(frames).sort("row", maintain_order=True)
