"""tshark's JSON layers as indented lines, under the names that its display filters use."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from pcapdiag.dissect.frame import MAX_LINES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_TITLES: Final = {
    "eth": "Ethernet II",
    "sll": "Linux cooked capture v1",
    "vlan": "802.1Q Virtual LAN",
    "arp": "Address Resolution Protocol",
    "ip": "Internet Protocol Version 4",
    "ipv6": "Internet Protocol Version 6",
    "icmp": "Internet Control Message Protocol",
    "icmpv6": "Internet Control Message Protocol v6",
    "tcp": "Transmission Control Protocol",
    "udp": "User Datagram Protocol",
    "sctp": "Stream Control Transmission Protocol",
    "gre": "Generic Routing Encapsulation",
    "vxlan": "Virtual eXtensible Local Area Network",
    "vrrp": "Virtual Router Redundancy Protocol",
}
_ENDS: Final = (("src", "dst"), ("srcport", "dstport"))

_LEFT_OUT: Final = re.compile(
    r"(_ws\..*|.*(_resolved|_raw|_calculated|_scalefactor)|[a-z0-9]+\.(version|dsfield\..*|rb)"
    r"|.*\.(addr|host|oui|lg|ig|port|src|dst|srcport|dstport|src_host|dst_host|stream|payload"
    r"|segment_data|padding|trailer|time_relative|time_delta|completeness|options|nop|option_kind"
    r"|option_len|nxtseq|pdu_size|window_size|urgent_pointer|str))\Z"
)
"""Fields that say again what another or the title says, or that need the whole conversation."""

_BIT: Final = re.compile(r".*\.flags\..*\Z")
_STATUS: Final = {"0": "bad", "1": "good", "2": "not verified", "3": "not present"}
"""Wireshark's proto_checksum_vals."""

_MAX_VALUE: Final = 120
_MAX_DEPTH: Final = 8


def lines(layers: Iterable[tuple[str, Any]]) -> list[str]:
    """Return (name, fields) layers as at most MAX_LINES lines, fields indented by their depth."""
    found: list[str] = []
    for name, fields in layers:
        for each in fields if isinstance(fields, list) else [fields]:
            found.extend(_layer(name, each, 0))
            if len(found) > MAX_LINES:
                return [*found[: MAX_LINES - 1], "..."]
    return found


def _layer(name: str, fields: Any, depth: int) -> Iterator[str]:
    title = _TITLES.get(name)
    if title is None:
        yield f"{'    ' * depth}{name}"
        return
    yield f"{'    ' * depth}{title}{_from_to(name, fields)}"
    if isinstance(fields, dict):
        yield from _fields(fields, depth + 1)


def _from_to(name: str, fields: Any) -> str:
    for source, target in _ENDS:
        if isinstance(fields, dict) and f"{name}.{source}" in fields:
            return f": {fields[f'{name}.{source}']} > {fields.get(f'{name}.{target}', '?')}"
    return ""


def _fields(fields: Mapping[str, Any], depth: int) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        return
    for key, value in fields.items():
        if _LEFT_OUT.match(key) or (_BIT.match(key) and value == "0"):
            continue
        if key in _TITLES:  # a packet inside the packet: what an ICMP error quotes
            yield from _layer(key, value, depth)
        elif isinstance(value, dict):
            if "." in key:  # a heading else, or a layer above the transport: payload
                yield from _fields(value, depth + 1)
        else:
            for each in value if isinstance(value, list) else [value]:
                if isinstance(each, str) and each:
                    text = _STATUS.get(each, each) if key.endswith(".checksum.status") else each
                    yield f"{'    ' * depth}{key}: {text[:_MAX_VALUE]}"
