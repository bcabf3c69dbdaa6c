"""Cited frames in the words of the decoder: what every report can say without other programs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from pcapdiag import spool
from pcapdiag.addresses import endpoint_text, ip_text, mac_text
from pcapdiag.case.frames import locate
from pcapdiag.protocols import TcpFlag, icmp_name, proto_name
from pcapdiag.result import Dissection
from pcapdiag.schema import note_names

if TYPE_CHECKING:
    from pcapdiag.case.case import Case
    from pcapdiag.result import Finding

TOOL: Final = "pcapdiag"


def described(case: Case, finding: Finding) -> Finding:
    """Return `finding` with its cited frames decoded in words, where no dissector has said more."""
    places = locate(case, finding.evidence)
    words: dict[tuple[int, int], Dissection] = {}
    for vantage in {place[0] for place in places if place is not None}:
        rows = sorted({place[1] for place in places if place is not None and place[0] == vantage})
        tables = case.vantages[vantage]
        messages = tables.icmp.filter(pl.col("row").is_in(rows)).rows_by_key("row", named=True)
        for row, packet in zip(
            rows, spool.at(tables.packets, rows).iter_rows(named=True), strict=True
        ):
            message = messages[row][0] if row in messages else None
            words[vantage, row] = Dissection(tool=TOOL, lines=tuple(_lines(packet, message)))
    return replace(
        finding,
        evidence=tuple(
            item
            if place is None or item.dissection is not None
            else replace(item, dissection=words[place])
            for item, place in zip(finding.evidence, places, strict=True)
        ),
    )


def _lines(packet: dict[str, Any], message: dict[str, Any] | None) -> list[str]:
    """Return one line a header, the quoted packet's indented."""
    lines = [f"Frame: {packet['wire_len']} bytes on the wire, {packet['caplen']} kept"]
    if packet["eth_src"] is not None:
        target = "unknown" if packet["eth_dst"] is None else mac_text(packet["eth_dst"])
        vlan = "" if packet["vlan"] is None else f", VLAN {packet['vlan']}"
        lines.append(f"Link: {mac_text(packet['eth_src'])} > {target}{vlan}")
    if packet["tunnel"] is not None:
        lines.append(f"Tunnel: {packet['tunnel']}; what follows is inside")
    if packet["ip_version"] is not None:
        lines.append(_network(packet, "", packet["ip_checksum"]))
        lines += _transport(packet)
    if message is not None and packet["icmp_type"] is not None:
        lines += _message(packet, message)
    if packet["decode_note"]:
        lines.append(f"Notes: {note_names(packet['decode_note'])}")
    return lines


def _network(fields: dict[str, Any], prefix: str, checksum: str | None) -> str:
    version = fields["quoted_version" if prefix else "ip_version"]
    source = ip_text(fields[f"{prefix}src_hi"], fields[f"{prefix}src_lo"])
    target = ip_text(fields[f"{prefix}dst_hi"], fields[f"{prefix}dst_lo"])
    told = {
        "length": fields[f"{prefix}ip_len"],
        "ID": None if fields[f"{prefix}ip_id"] is None else f"0x{fields[f'{prefix}ip_id']:04x}",
        "TTL": fields[f"{prefix}ttl"],
        "fragment offset": fields[f"{prefix}frag_offset"] or None,
    }
    parts = [f"{name} {value}" for name, value in told.items() if value is not None]
    if version == 4 and fields[f"{prefix}df"]:
        parts.append("DF")
    if checksum is not None:
        parts.append(f"header checksum {checksum}")
    return f"IPv{version}: {source} > {target}, {', '.join(parts)}"


def _transport(packet: dict[str, Any]) -> list[str]:
    if packet["src_port"] is None:
        return []
    told = [f"{packet['src_port']} > {packet['dst_port']}"]
    if packet["tcp_seq"] is not None:
        told.append(f"seq {packet['tcp_seq']}, ack {packet['tcp_ack']}")
    if packet["tcp_flags"] is not None:
        flags = [str(flag.name) for flag in TcpFlag if packet["tcp_flags"] & flag]
        told.append(f"flags {' '.join(flags) or 'none'}, window {packet['tcp_window']}")
    if packet["tcp_mss"] is not None:
        told.append(f"MSS {packet['tcp_mss']}")
    if packet["payload_len"] is not None:
        told.append(f"{packet['payload_len']} bytes of data")
    return [f"{proto_name(packet['ip_proto']).upper()}: {', '.join(told)}"]


def _message(packet: dict[str, Any], message: dict[str, Any]) -> list[str]:
    name = icmp_name(packet["ip_version"], packet["icmp_type"], packet["icmp_code"])
    told = [name, f"checksum {message['icmp_checksum']}"]
    if message["next_hop_mtu"] is not None:
        told.append(f"next-hop MTU {message['next_hop_mtu']}")
    if message["gateway_hi"] is not None:
        told.append(f"gateway {ip_text(message['gateway_hi'], message['gateway_lo'])}")
    lines = [f"ICMP: {', '.join(told)}"]
    if message["quoted_version"] is None or message["quoted_src_hi"] is None:
        return lines
    lines.append(f"    quotes {_network(message, 'quoted_', message['quoted_ip_checksum'])}")
    if message["quoted_src_port"] is not None:
        source = endpoint_text(
            message["quoted_src_hi"], message["quoted_src_lo"], message["quoted_src_port"]
        )
        target = endpoint_text(
            message["quoted_dst_hi"], message["quoted_dst_lo"], message["quoted_dst_port"]
        )
        seq = message["quoted_tcp_seq"]
        tail = "" if seq is None else f", seq {seq}"
        proto = proto_name(message["quoted_proto"]).upper()
        lines.append(f"    quotes {proto}: {source} > {target}{tail}")
    return lines
