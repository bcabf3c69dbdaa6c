"""From tshark's layers to the columns of schema.py: what each should hold, and why one is left out.

This is the one place where tshark's oddities stand. Values are those of Python: integers (MACs and
times too), `ipaddress` objects, strings for enumerations, None where there is nothing; of a table
with several rows a packet, tuples with one entry a row.

A column that cannot be compared is named in `excluded` with a reason of REASONS; it is counted.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from pcapdiag import schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tshark import Layer, Packet

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Value = int | bool | str | Address | None | tuple[int | Address | None, ...]

REASONS: Final = {
    "unopened-link": "tshark opened a link header that pcapdiag does not (MACsec, VN-Tag ...)",
    "rare-link": "a link type that pcapdiag asks scapy about: the link's own columns stay null",
    "rare-link-unknown": "a link type that scapy does not know either: nothing inside is decoded",
    "section": "tshark counts interfaces in each section of a pcapng, pcapdiag over all of them",
    "huge": "tshark shows no frame length above 2 GiB",
    "no-packet": "a pcapng block without a packet: tshark gives the block's size as the frame's",
    "cut-in-tunnel": "the frame ends inside a tunnel header: tshark shows the outer packet as the "
    "last one, pcapdiag says tunnelled and leaves the inside null",
    "cut": "a header that the capture cuts: one side shows a field more than the other",
    "bad-header": "tshark stops at an IP length below the header's, pcapdiag says so and reads on",
    "beyond-frame": "IP length beyond the frame on the wire: tshark believes the frame, pcapdiag "
    "the IP header",
    "length-zero": "IP length 0: tshark judges a checksum over a guessed length, pcapdiag does not",
    "quoted-tcp": "of a TCP header that a redirect quotes, or of which 8 bytes are quoted, tshark "
    "may stop behind the ports or the sequence number",
    "gue": "tshark 4.0 knows no GUE: the outer header is compared, the inside is not",
    "extensions": "IPv6 extension headers that are cut or more than pcapdiag follows: tshark names "
    "the last it saw",
}

NETWORK: Final = frozenset({"ip", "ipv6"})

OWN_LINKS: Final = frozenset({"eth", "sll", "raw", "null", "loop", "ppp", "pppoes", "chdlc"})
"""Link types with a decoder of their own (decode/link.py)."""

STEPPED_OVER: Final = OWN_LINKS | {"vlan", "ieee8021ad", "llc", "mpls"}
"""Link headers that it steps over."""

IN_TUNNELS: Final = frozenset({"eth", "vlan", "ppp", "mpls", "llc", "pppoes"})
"""What may stand between a tunnel header and the IP header inside (decode/tunnel.py)."""

GUE_PORT: Final = 6080

UDP_TUNNELS: Final = {"vxlan": 4789, "geneve": 6081}

CUT: Final = "_ws.short"
ENDS: Final = frozenset({CUT, "_ws.malformed", "_ws.unreassembled"})
"""What tshark puts in place of the rest: the capture ends, the packet does, a fragment does."""

IP_IN_IP: Final = {
    ("ip", "ip"): "ipip",
    ("ip", "ipv6"): "6in4",
    ("ipv6", "ip"): "4in6",
    ("ipv6", "ipv6"): "6in6",
}

VERDICTS: Final = {0: "bad", 1: "ok", 2: "unverifiable", 3: "unverifiable"}
"""Of tshark's checksum.status: bad, good, unverified, not present."""


@dataclass
class Chain:
    """IP headers from the outermost to the innermost, and what is behind the last."""

    networks: list[Layer] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    """Tunnel kinds, one for each step inward."""
    headers: list[Layer] = field(default_factory=list)
    """The tunnel headers that are no IP header: GRE, VXLAN, Geneve."""
    ports: Layer | None = None
    """The outermost tunnel's UDP header."""
    rest: list[Layer] = field(default_factory=list)
    cut: bool = False
    """The frame ends inside a tunnel header or the IP header behind it."""


@dataclass
class Expected:
    """What the columns of one frame should hold; keys are "table.column"."""

    values: dict[str, Value]
    excluded: dict[str, str] = field(default_factory=dict)
    rare: bool = False
    """Of a link type that has no decoder of its own."""
    cut: bool = False
    """Some header was not kept whole: what either side cannot say proves nothing."""

    def exclude(self, reason: str, *prefixes: str) -> None:
        """Leave the columns with these prefixes out; the first reason counts."""
        for key in self.values:
            if key.startswith(prefixes):
                self.excluded.setdefault(key, reason)


def columns() -> tuple[str, ...]:
    """Return the keys that are compared: all that tshark can tell of what a decoder makes."""
    return tuple(_BLANK)


def _keys(table: str) -> list[str]:
    found = []
    for column in schema.TABLES[table]:
        key = f"{table}.{column.name.removesuffix('_hi')}"
        named = column.wireshark or key in _ALSO_KNOWN
        if named and not column.name.endswith("_lo") and key not in _EXPORTED_ONCE:
            found.append(key)
    return found


_ALSO_KNOWN: Final = frozenset(
    {
        # no field of one occurrence, but the nesting of the layers tells
        *("packets.tunnel", "packets.tunnel_depth", "icmp.icmp_len", "icmp.quoted_tunnel"),
        *("icmp.quoted_outer_src", "icmp.quoted_outer_dst"),
        # empty in tcp.seq_raw, but there as tcp.seq when it is not relative
        *("icmp.quoted_tcp_seq", "icmp.quoted_tcp_ack", "icmp.quoted_tcp_flags"),
        "icmp.quoted_transport_checksum",
    }
)
_EXPORTED_ONCE: Final = frozenset({"arp.eth_src"})
"""Columns of side tables that the export has from `packets` already."""
_TABLES: Final = ("packets", "tunnels", "sacks", "icmp", "arp", "vrrp")
_BLANK: Final[dict[str, Value]] = {key: None for table in _TABLES for key in _keys(table)}


def expect(packet: Packet) -> Expected:
    """Return what pcapdiag's tables should hold of a frame."""
    out = Expected(dict(_BLANK))
    _frame(out, packet)
    out.cut = CUT in packet.names() and _is_cut(out)
    at = _network_at(packet.layers)
    link = packet.layers[:at]
    first = packet.layers[0] if packet.layers else None
    if first is not None:
        out.rare = first.pos > 0 or first.name not in OWN_LINKS | NETWORK | ENDS
    if out.rare:
        out.exclude("rare-link", *_OF_THE_LINK)
    else:
        _link(out, link)
    if {layer.name for layer in link} - STEPPED_OVER - ENDS and not out.rare:
        out.exclude("unopened-link", *INSIDE)
    if at == len(packet.layers):
        return out
    if packet.layers[at].name == "arp":
        _arp(out, packet.layers[at])
        return out
    chain = _follow(packet.layers[at:])
    _network(out, chain)
    if len(chain.networks) > 1 or chain.cut:
        _tunnel(out, chain)
    if _whole(chain.networks[-1]):
        _transport(out, chain)
    if out.values["packets.ip_proto"] == 17 and out.values["packets.dst_port"] == GUE_PORT:
        _outside_of_gue(out)
    if chain.cut:
        outer = tuple(key for key in INSIDE if key.startswith("tunnels.outer_ip"))
        out.exclude("cut-in-tunnel", *(key for key in INSIDE if key not in outer))
    return out


_OF_AN_OUTER_HEADER: Final = (
    *("src", "dst", "ip_version", "ip_len", "ip_id", "ttl", "tos", "df", "src_port", "dst_port"),
)


def _outside_of_gue(out: Expected) -> None:
    """Expect as the outer header what tshark takes for all there is."""
    for name in _OF_AN_OUTER_HEADER:
        out.values[f"tunnels.outer_{name}"] = out.values[f"packets.{name}"]
    told = tuple(key for key in INSIDE if key.startswith("tunnels.outer_"))
    out.exclude("gue", *(key for key in INSIDE if key not in told))


_OF_THE_LINK: Final = tuple(
    f"packets.{name}" for name in ("eth_src", "eth_dst", "ethertype", "vlan", "vlan_inner")
)
_OF_THE_FRAME: Final = frozenset(_OF_THE_LINK) | {
    f"packets.{name}"
    for name in ("frame", "time_ns", "interface", "direction", "caplen", "wire_len")
}
INSIDE: Final = tuple(key for key in _BLANK if key not in _OF_THE_FRAME)
"""What stands in the network layer and above."""


def _is_cut(out: Expected) -> bool:
    kept, sent = out.values["packets.caplen"], out.values["packets.wire_len"]
    return isinstance(kept, int) and isinstance(sent, int) and kept < sent


def _network_at(layers: Sequence[Layer]) -> int:
    """Return where the link headers end: the first IP or ARP layer, or the end."""
    for index, layer in enumerate(layers):
        if layer.name in NETWORK or layer.name == "arp":
            return index
    return len(layers)


def _frame(out: Expected, packet: Packet) -> None:
    frame = packet.frame
    values = out.values
    values["packets.frame"] = frame.number("frame.number")
    stamp = frame.first("frame.time_epoch")
    time_ns = int(Decimal(stamp).scaleb(9)) if stamp else None
    beyond = time_ns is not None and abs(time_ns) >= 1 << 63
    values["packets.time_ns"] = None if beyond else time_ns
    values["packets.interface"] = frame.number("frame.interface_id") or 0  # none shown in pcap
    values["packets.tunnel_depth"] = 0
    if (frame.number("frame.section_number") or 1) > 1:
        out.exclude("section", "packets.interface")
    if frame.first("frame.cb_pen") or packet.names() == ["systemd_journal"]:
        out.exclude("no-packet", "packets.caplen", "packets.wire_len")
    values["packets.caplen"] = frame.number("frame.cap_len")
    values["packets.wire_len"] = frame.number("frame.len")
    if values["packets.wire_len"] == LARGEST_SHOWN:
        out.exclude("huge", "packets.wire_len", "packets.ip_len", "packets.payload_len")
    flags = frame.number("frame.packet_flags_direction")
    values["packets.direction"] = {1: "in", 2: "out"}.get(flags or 0)


ETHERTYPES: Final = (
    *("eth.type", "vlan.etype", "llc.type", "sll.etype", "chdlc.protocol"),
    "ieee8021ah.etype",  # so it is called in a header of 802.1ad
)
LARGEST_SHOWN: Final = (1 << 31) - 1


def _link(out: Expected, link: Sequence[Layer]) -> None:
    values = out.values
    tags: list[int] = []
    for layer in link:
        if layer.name not in STEPPED_OVER:
            break
        # what says the type of the next header: the last one holds, behind all tags
        kind = layer.number(*ETHERTYPES)
        if kind is not None:
            values["packets.ethertype"] = kind
        ident = layer.number("vlan.id", "ieee8021ad.id")
        tags += [] if ident is None else [ident]
        if layer.name == "mpls":
            break  # a pseudo-wire's frame behind labels is another network's
    if link and link[0].name == "eth":
        values["packets.eth_src"] = _mac(link[0].first("eth.src"))
        values["packets.eth_dst"] = _mac(link[0].first("eth.dst"))
    if link and link[0].name == "sll":
        values["packets.eth_src"] = _mac(link[0].first("sll.src.eth"))
        sent = link[0].number("sll.pkttype")
        if sent is not None:
            values["packets.direction"] = {0: "in", 1: "in", 2: "in", 3: "other", 4: "out"}.get(
                sent
            )
    values["packets.vlan"] = tags[0] if tags else None
    values["packets.vlan_inner"] = tags[1] if len(tags) > 1 else None


def _follow(layers: Sequence[Layer]) -> Chain:
    """Walk from the first IP header inward, as far as pcapdiag goes."""
    chain = Chain(networks=[layers[0]])
    at = 0
    while True:
        current, behind = layers[at], layers[at + 1 :]
        opened = [layer.name for layer in behind]
        kind, skip = None, 0
        if opened[:1] and opened[0] in NETWORK:
            kind = IP_IN_IP[current.name, opened[0]]
        elif opened[:1] == ["gre"]:
            kind, skip = "gre", 1
        elif opened[:1] == ["udp"] and len(opened) > 1 and opened[1] in UDP_TUNNELS:
            own_port = behind[0].number("udp.dstport") == UDP_TUNNELS[opened[1]]
            kind, skip = (opened[1], 2) if own_port else (None, 0)
        if kind is None:
            chain.rest = list(behind)
            chain.cut |= _cut_before_inside(current, behind)
            return chain
        inner = skip
        while inner < len(behind) and behind[inner].name in IN_TUNNELS:
            inner += 1
        if inner == len(behind) or behind[inner].name not in NETWORK:
            # something else inside, or the frame ends there: not a tunnel, or a cut one
            chain.rest = list(behind)
            chain.cut |= inner < len(behind) and behind[inner].name == CUT
            return chain
        if skip:
            chain.headers.append(behind[skip - 1])
        if skip == 2 and not chain.kinds:
            chain.ports = behind[0]
        chain.kinds.append(kind)
        at += 1 + inner
        chain.networks.append(layers[at])
        if not _whole(layers[at]):
            chain.cut = True


def _cut_before_inside(current: Layer, behind: Sequence[Layer]) -> bool:
    """Whether a tunnel header is due behind `current`, and the frame ends in or before it."""
    at = 0
    tunnelled = _proto(current) in {4, 41, 47}
    if behind and behind[0].name == "udp":
        at, tunnelled = 1, behind[0].number("udp.dstport") in UDP_TUNNELS.values()
    return tunnelled and len(behind) > at and behind[at].name == CUT


def _whole(network: Layer) -> bool:
    """Whether the fixed IP header was there: its last field was shown."""
    return network.first("ip.dst", "ipv6.dst") is not None


def _next_headers(network: Layer) -> list[str]:
    """Return the names of the next-header fields of an IPv6 header and its extensions, in order."""
    return [name for name in network.order if name.rpartition(".")[2] in {"nxt", "next_header"}]


def _proto(network: Layer) -> int | None:
    """Return the protocol; of IPv6 the one that the last extension header names."""
    if network.name == "ip":
        return network.number("ip.proto")
    values = {name: list(found) for name, found in network.fields.items()}
    last = None
    for name in _next_headers(network):
        last = values[name].pop(0)
    return int(last, 0) if last else None


def _ip_len(network: Layer) -> int | None:
    if network.name == "ip":
        return network.number("ip.len")
    length = network.number("ipv6.plen")
    return None if length is None else 40 + length


def _flag(network: Layer, name: str) -> bool:
    return network.first(name) in {"1", "True"}


def _network(out: Expected, chain: Chain) -> None:
    network = chain.networks[-1]
    if not _whole(network):
        if chain.rest[:1] and chain.rest[0].name == CUT:
            return
        out.exclude("bad-header", *INSIDE)
        return
    values = _ip(network)
    out.values.update({f"packets.{name}": value for name, value in values.items()})
    out.values["packets.tunnel"] = chain.kinds[0] if chain.kinds else None
    out.values["packets.tunnel_depth"] = len(chain.kinds)
    for layer in chain.networks:
        if set(layer.raw.get("ip.len", "") + layer.raw.get("ipv6.plen", "")) == {"0"}:
            out.exclude("length-zero", "icmp.icmp_checksum")
        if layer.first("ip.bogus_ip_length", "ipv6.plen_exceeds_framing") is not None:
            out.exclude("beyond-frame", "packets.payload_len", "icmp.icmp_checksum")
    if _extensions_unclear(chain):
        names = ("ip_proto", "ip_header_len", "mf", "frag_offset", "ip_id")
        out.exclude("extensions", *(f"packets.{name}" for name in names))
        if len(_next_headers(network)) > MAX_EXTENSIONS:
            out.exclude("extensions", *INSIDE)


EXTENSION_NUMBERS: Final = frozenset({0, 43, 44, 51, 60})

MAX_EXTENSIONS: Final = 9
"""Next-header fields up to which pcapdiag follows: the fixed header's and eight extensions'."""


def _extensions_unclear(chain: Chain) -> bool:
    """Whether the chain of IPv6 extension headers breaks off, or is longer than is followed."""
    network = chain.networks[-1]
    if network.name != "ipv6":
        return False
    named = _next_headers(network)
    interrupted = bool(chain.rest) and chain.rest[0].name in ENDS
    return (
        _proto(network) in EXTENSION_NUMBERS
        or (interrupted and len(named) > 1)
        or len(named) > MAX_EXTENSIONS
    )


def _ip(network: Layer) -> dict[str, Value]:
    """Return the columns of one IP header by the names they have in `packets`."""
    address = (network.first("ip.src", "ipv6.src"), network.first("ip.dst", "ipv6.dst"))
    shared: dict[str, Value] = {
        "ip_version": network.number("ip.version", "ipv6.version"),
        "src": _address(address[0]),
        "dst": _address(address[1]),
        "ip_proto": _proto(network),
        "ip_len": _ip_len(network),
        "ttl": network.number("ip.ttl", "ipv6.hlim"),
        "tos": network.number("ip.dsfield", "ipv6.tclass"),
    }
    if network.name == "ip":
        return shared | {
            "ip_header_len": network.number("ip.hdr_len"),
            "ip_id": network.number("ip.id"),
            "df": _flag(network, "ip.flags.df"),
            "mf": _flag(network, "ip.flags.mf"),
            "frag_offset": 8 * (network.number("ip.frag_offset") or 0),  # shown in 8-byte units
            "ip_checksum": VERDICTS.get(network.number("ip.checksum.status") or 0),
        }
    return shared | {
        "ip_header_len": network.end - network.pos,  # extension headers are nested in it
        "ip_id": network.number("ipv6.fraghdr.ident"),
        "df": True,  # no router fragments IPv6
        "mf": _flag(network, "ipv6.fraghdr.more"),
        "frag_offset": 8 * (network.number("ipv6.fraghdr.offset") or 0),
        "ip_checksum": None,
    }


def _tunnel(out: Expected, chain: Chain) -> None:
    outer = _ip(chain.networks[0])
    values = out.values
    values["tunnels.outer_src"], values["tunnels.outer_dst"] = outer["src"], outer["dst"]
    for name in ("ip_version", "ip_len", "ip_id", "ttl", "tos", "df"):
        values[f"tunnels.outer_{name}"] = outer[name]
    if chain.ports is not None:
        values["tunnels.outer_src_port"] = chain.ports.number("udp.srcport")
        values["tunnels.outer_dst_port"] = chain.ports.number("udp.dstport")
    if chain.headers and chain.headers[0].name == chain.kinds[0]:
        key = chain.headers[0].number("gre.key", "vxlan.vni", "geneve.vni")
        values["tunnels.tunnel_key"] = key


TRANSPORTS: Final = frozenset({"tcp", "udp", "sctp"})


def _transport(out: Expected, chain: Chain) -> None:
    if not chain.rest:
        return
    layer, network = chain.rest[0], chain.networks[-1]
    values = out.values
    if layer.name in TRANSPORTS:
        values["packets.src_port"] = layer.number(f"{layer.name}.srcport")
        values["packets.dst_port"] = layer.number(f"{layer.name}.dstport")
        values["packets.transport_checksum"] = layer.number("tcp.checksum", "udp.checksum")
        values["packets.payload_len"] = _payload_len(layer, network)
    if layer.name == "tcp":
        _tcp(out, layer)
    if layer.name in {"icmp", "icmpv6"}:
        _icmp(out, layer, network)
        _neighbour(out, layer, network)
    if layer.name == "vrrp":
        _vrrp(out, layer)


def _payload_len(layer: Layer, network: Layer) -> int | None:
    if layer.name == "tcp":
        return layer.number("tcp.len")
    length, header = _ip_len(network), _ip(network)["ip_header_len"]
    if length is None or not isinstance(header, int):
        return None
    return max(length - header - {"udp": 8, "sctp": 12}[layer.name], 0)


def _tcp(out: Expected, layer: Layer) -> None:
    values = out.values
    values["packets.tcp_seq"] = layer.number("tcp.seq_raw", "tcp.seq")
    values["packets.tcp_ack"] = layer.number("tcp.ack_raw", "tcp.ack")
    values["packets.tcp_flags"] = layer.number("tcp.flags")
    values["packets.tcp_window"] = layer.number("tcp.window_size_value")
    values["packets.tcp_mss"] = layer.number("tcp.options.mss_val")
    values["packets.tcp_wscale"] = layer.number("tcp.options.wscale.shift")
    permitted = bool(layer.every("tcp.options.sack_perm"))
    values["packets.tcp_sack_permitted"] = permitted
    values["packets.tcp_tsval"] = layer.number("tcp.options.timestamp.tsval")
    values["packets.tcp_tsecr"] = layer.number("tcp.options.timestamp.tsecr")
    for side in ("left", "right"):
        edges = layer.every(f"tcp.options.sack_{side[0]}e")
        values[f"sacks.{side}"] = tuple(int(edge, 0) for edge in edges) or None


ERRORS: Final = {"icmp": frozenset({3, 4, 5, 11, 12}), "icmpv6": frozenset({*range(128), 137})}


def _icmp(out: Expected, layer: Layer, network: Layer) -> None:
    values = out.values
    values["packets.icmp_type"] = kind = layer.number(f"{layer.name}.type")
    values["packets.icmp_code"] = layer.number(f"{layer.name}.code")
    status = layer.number("icmp.checksum.status", "icmpv6.checksum.status")
    values["icmp.icmp_checksum"] = "unverifiable" if status is None else VERDICTS[status]
    values["icmp.icmp_checksum_field"] = layer.number("icmp.checksum", "icmpv6.checksum")
    length, header = _ip_len(network), _ip(network)["ip_header_len"]
    if length is not None and isinstance(header, int):
        values["icmp.icmp_len"] = length - header
    if kind in {"icmp": {0, 8}, "icmpv6": {128, 129}}[layer.name]:
        values["icmp.icmp_ident"] = layer.number("icmp.ident", "icmpv6.echo.identifier")
        values["icmp.icmp_sequence"] = layer.number("icmp.seq", "icmpv6.echo.sequence_number")
    values["icmp.next_hop_mtu"] = layer.number("icmp.mtu", "icmpv6.mtu")
    values["icmp.gateway"] = _address(layer.first("icmp.redir_gw", "icmpv6.nd.rd.target_address"))
    if kind not in ERRORS[layer.name]:
        return
    # of a redirect the destination it is about, quote or none
    values["icmp.quoted_dst"] = _address(layer.first("icmpv6.rd.na.destination_address"))
    at = _network_at(layer.quoted)
    if at < len(layer.quoted) and _whole(layer.quoted[at]):
        _quote(out, _follow(layer.quoted[at:]), redirect=kind in {5, 137})


def _quote(out: Expected, chain: Chain, *, redirect: bool) -> None:
    network = _ip(chain.networks[-1])
    values = out.values
    values["icmp.quoted_version"] = network["ip_version"]
    values["icmp.quoted_proto"] = network["ip_proto"]
    for name in ("src", "dst", "ip_len", "ip_id", "ttl", "tos", "df", "frag_offset", "ip_checksum"):
        values[f"icmp.quoted_{name}"] = network[name]
    if chain.kinds:
        outer = _ip(chain.networks[0])
        values["icmp.quoted_tunnel"] = chain.kinds[0]
        values["icmp.quoted_outer_src"] = outer["src"]
        values["icmp.quoted_outer_dst"] = outer["dst"]
    if chain.cut:
        out.exclude("cut-in-tunnel", "icmp.quoted_")
    if _extensions_unclear(chain):
        out.exclude("extensions", "icmp.quoted_proto", "icmp.quoted_frag_offset")
    if not chain.rest or chain.rest[0].name not in TRANSPORTS:
        return
    layer = chain.rest[0]
    values["icmp.quoted_src_port"] = layer.number(f"{layer.name}.srcport")
    values["icmp.quoted_dst_port"] = layer.number(f"{layer.name}.dstport")
    values["icmp.quoted_transport_checksum"] = layer.number("tcp.checksum", "udp.checksum")
    if layer.name == "tcp":
        values["icmp.quoted_tcp_seq"] = layer.number("tcp.seq_raw", "tcp.seq")
        values["icmp.quoted_tcp_ack"] = layer.number("tcp.ack_raw", "tcp.ack")
        values["icmp.quoted_tcp_flags"] = layer.number("tcp.flags")
        for name in ("tcp_seq", "tcp_ack", "tcp_flags", "transport_checksum"):
            missing = values[f"icmp.quoted_{name}"] is None
            if missing and (redirect or layer.end - layer.pos < 20):
                out.exclude("quoted-tcp", f"icmp.quoted_{name}")


def _arp(out: Expected, layer: Layer) -> None:
    """Expect requests and replies that map IPv4 to 48-bit addresses; the schema has no others."""
    op = {1: "request", 2: "reply"}.get(layer.number("arp.opcode") or 0)
    macs = [_mac(layer.first(f"arp.{side}.hw_mac")) for side in ("src", "dst")]
    hosts = [_address(layer.first(f"arp.{side}.proto_ipv4")) for side in ("src", "dst")]
    if op is None or None in macs or None in hosts:
        return
    values = out.values
    values["arp.op"] = op
    values["arp.sender_mac"], values["arp.target_mac"] = macs
    values["arp.sender"], values["arp.target"] = hosts


def _neighbour(out: Expected, layer: Layer, network: Layer) -> None:
    """Solicitations and advertisements (RFC 4861); of the options the sender's MAC."""
    kind = layer.number("icmpv6.type")
    asked = _address(layer.first("icmpv6.nd.ns.target_address"))
    told = _address(layer.first("icmpv6.nd.na.target_address"))
    ends = _ip(network)
    values = out.values
    if kind == 135 and asked is not None:
        values["arp.op"] = "solicitation"
        values["arp.sender"], values["arp.target"] = ends["src"], asked
    elif kind == 136 and told is not None:
        values["arp.op"] = "advertisement"
        values["arp.sender"], values["arp.target"] = told, ends["dst"]
    else:
        return
    option = layer.first("icmpv6.opt.src_linkaddr" if kind == 135 else "icmpv6.opt.target_linkaddr")
    values["arp.sender_mac"] = _mac(option)


def _vrrp(out: Expected, layer: Layer) -> None:
    found = [*layer.every("vrrp.ip_addr"), *layer.every("vrrp.ipv6_addr")]
    if not found or layer.number("vrrp.type") != 1:
        return
    values = out.values
    values["vrrp.virtual"] = tuple(_address(text) for text in found)
    for name, source in (("version", "version"), ("vrid", "virt_rtr_id"), ("priority", "prio")):
        values[f"vrrp.{name}"] = (layer.number(f"vrrp.{source}"),) * len(found)


def _mac(text: str | None) -> int | None:
    return int(text.replace(":", ""), 16) if text and text.count(":") == 5 else None


def _address(text: str | None) -> Address | None:
    return ipaddress.ip_address(text) if text else None
