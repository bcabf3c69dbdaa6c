"""The column dictionary: every table that pcapdiag makes, one line a column.

A line gives name, dtype, unit, the Wireshark field the column must equal (with the occurrence to
take where the field repeats: 0 the first, -1 the last, "n/a" where Wireshark has no such field),
and the document that defines it. Addresses stand in tables as two UInt64 (`*_hi`, `*_lo`, see
addresses.py) and as one text column in exports; MACs as one UInt64 and as text.

`packets` has one row a frame, in file order. What few packets have stands in side tables whose
`row` (UInt32) is the packet's row number in `packets`: `tunnels`, `sacks`, `icmp`, `arp`, `vrrp`,
`ipvs_sync`. `pcapdiag packets` exports them joined.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

import polars as pl

from pcapdiag.decode_note import DecodeNote

if TYPE_CHECKING:
    from collections.abc import Mapping

VERDICTS: Final = pl.Enum(["ok", "bad", "unverifiable"])
"""Of a checksum. Unverifiable: bytes it covers were not kept, or it is one fragment of many."""

DIRECTIONS: Final = pl.Enum(["in", "out", "other"])
"""Of a frame at the capturing host, where the capture says so (SLL packet type, epb_flags)."""

TUNNELS: Final = pl.Enum(["ipip", "6in4", "4in6", "6in6", "gre", "gue", "vxlan", "geneve"])

NEIGHBOUR_OPS: Final = pl.Enum(["request", "reply", "solicitation", "advertisement"])

ORIGINATOR_SOURCES: Final = pl.Enum(["syn", "syn-ack", "port", "first"])
"""Why a side is the originator: its SYN, the other's SYN-ACK, the higher port, sent first."""


class Column(NamedTuple):
    """One column: what a reader of the table has to know."""

    name: str
    dtype: pl.DataType | type[pl.DataType]
    unit: str = ""
    wireshark: str = ""
    occurrence: int | str = 0
    source: str = ""
    meaning: str = ""


def _address(
    prefix: str, wireshark: str = "", occurrence: int | str = -1, meaning: str = ""
) -> tuple[Column, Column]:
    return (
        Column(f"{prefix}_hi", pl.UInt64, "", wireshark, occurrence, "RFC 4291", meaning),
        Column(f"{prefix}_lo", pl.UInt64, "", wireshark, occurrence, "RFC 4291", meaning),
    )


# fmt: off
_C = Column

PACKETS: Final = (
    _C("capture", pl.UInt16, "", "", "n/a", "", "index of the capture within the case"),
    _C("frame", pl.UInt32, "", "frame.number", 0, "", "1-based"),
    _C("time_ns", pl.Int64, "ns UTC", "frame.time_epoch", 0, "", "null: the block has no time"),
    _C("interface", pl.UInt16, "", "frame.interface_id", 0, "", "within the capture, over all sections"),
    _C("linktype", pl.UInt16, "", "", "n/a", "", "LINKTYPE_ value"),
    _C("direction", DIRECTIONS, "", "sll.pkttype", 0, "", "where the capture tells"),
    _C("caplen", pl.UInt32, "bytes", "frame.cap_len", 0),
    _C("wire_len", pl.UInt32, "bytes", "frame.len", 0),
    _C("eth_src", pl.UInt64, "", "eth.src", 0, "IEEE 802.3", "SLL: the sender's address"),
    _C("eth_dst", pl.UInt64, "", "eth.dst", 0, "IEEE 802.3", "null for SLL, which has none"),
    _C("ethertype", pl.UInt16, "", "eth.type", -1, "IEEE 802", "behind VLAN tags"),
    _C("vlan", pl.UInt16, "", "vlan.id", 0, "IEEE 802.1Q", "outermost tag"),
    _C("vlan_inner", pl.UInt16, "", "vlan.id", 1, "IEEE 802.1ad", "second tag"),
    _C("tunnel", TUNNELS, "", "", "n/a", "", "outermost encapsulation; more in `tunnels`"),
    _C("tunnel_depth", pl.UInt8, "headers", "", "n/a", "", "0 where not tunnelled"),
    _C("ip_version", pl.UInt8, "", "ip.version", -1, "RFC 791, RFC 8200", "of the innermost packet, as all ip_ and transport columns"),
    *_address("src", "ip.src | ipv6.src", -1, "innermost packet"),
    *_address("dst", "ip.dst | ipv6.dst", -1, "innermost packet"),
    _C("ip_proto", pl.UInt8, "", "ip.proto | last ipv6.nxt", -1, "", "behind IPv6 extension headers"),
    _C("ip_len", pl.UInt32, "bytes", "ip.len | 40 + ipv6.plen", -1, "", "header included; 0 on the wire: the frame's length"),
    _C("ip_header_len", pl.UInt16, "bytes", "ip.hdr_len", -1, "", "IPv6: extension headers included"),
    _C("ip_id", pl.UInt32, "", "ip.id | ipv6.fraghdr.ident", -1, "RFC 6864", "IPv6: null without a Fragment header"),
    _C("ttl", pl.UInt8, "hops", "ip.ttl | ipv6.hlim", -1),
    _C("tos", pl.UInt8, "", "ip.dsfield | ipv6.tclass", -1, "RFC 2474, RFC 3168"),
    _C("df", pl.Boolean, "", "ip.flags.df", -1, "RFC 791", "IPv6: true, routers never fragment"),
    _C("mf", pl.Boolean, "", "ip.flags.mf | ipv6.fraghdr.more", -1),
    _C("frag_offset", pl.UInt16, "bytes", "ip.frag_offset | ipv6.fraghdr.offset", -1, "", "Wireshark counts 8-byte units"),
    _C("ip_checksum", VERDICTS, "", "ip.checksum.status", -1, "RFC 1071", "null for IPv6"),
    _C("src_port", pl.UInt16, "", "tcp.srcport | udp.srcport | sctp.srcport", -1),
    _C("dst_port", pl.UInt16, "", "tcp.dstport | udp.dstport | sctp.dstport", -1),
    _C("payload_len", pl.UInt32, "bytes", "tcp.len", -1, "", "behind the transport header, from the IP length"),
    _C("transport_checksum", pl.UInt16, "", "tcp.checksum | udp.checksum", -1, "", "as on the wire; verified on demand"),
    _C("tcp_seq", pl.UInt32, "", "tcp.seq_raw", 0, "RFC 9293 3.1"),
    _C("tcp_ack", pl.UInt32, "", "tcp.ack_raw", 0, "RFC 9293 3.1"),
    _C("tcp_flags", pl.UInt16, "", "tcp.flags", 0, "RFC 9293 3.1"),
    _C("tcp_window", pl.UInt16, "", "tcp.window_size_value", 0, "RFC 9293 3.1", "unscaled"),
    _C("tcp_mss", pl.UInt16, "bytes", "tcp.options.mss_val", 0, "RFC 9293 3.7.1"),
    _C("tcp_wscale", pl.UInt8, "bits", "tcp.options.wscale.shift", 0, "RFC 7323 2"),
    _C("tcp_sack_permitted", pl.Boolean, "", "tcp.options.sack_perm", 0, "RFC 2018 2"),
    _C("tcp_tsval", pl.UInt32, "", "tcp.options.timestamp.tsval", 0, "RFC 7323 3"),
    _C("tcp_tsecr", pl.UInt32, "", "tcp.options.timestamp.tsecr", 0, "RFC 7323 3"),
    _C("icmp_type", pl.UInt8, "", "icmp.type | icmpv6.type", 0, "RFC 792, RFC 4443"),
    _C("icmp_code", pl.UInt8, "", "icmp.code | icmpv6.code", 0),
    _C("decode_note", pl.UInt32, "", "", "n/a", "", "bits of DecodeNote"),
)

TUNNELS_TABLE: Final = (
    _C("row", pl.UInt32),
    _C("kind", TUNNELS, "", "", "n/a", "", "of the outermost tunnel header"),
    _C("depth", pl.UInt8, "headers"),
    *_address("outer_src", "ip.src | ipv6.src", 0, "outermost IP header"),
    *_address("outer_dst", "ip.dst | ipv6.dst", 0, "outermost IP header"),
    _C("outer_ip_version", pl.UInt8, "", "ip.version", 0),
    _C("outer_ip_len", pl.UInt32, "bytes", "ip.len", 0),
    _C("outer_ip_id", pl.UInt32, "", "ip.id", 0),
    _C("outer_ttl", pl.UInt8, "hops", "ip.ttl", 0),
    _C("outer_tos", pl.UInt8, "", "ip.dsfield", 0),
    _C("outer_df", pl.Boolean, "", "ip.flags.df", 0),
    _C("outer_src_port", pl.UInt16, "", "udp.srcport", 0, "", "GUE, VXLAN, Geneve"),
    _C("outer_dst_port", pl.UInt16, "", "udp.dstport", 0),
    _C("tunnel_key", pl.UInt32, "", "gre.key | vxlan.vni | geneve.vni", 0, "RFC 2890, RFC 7348, RFC 8926"),
    _C("overhead", pl.UInt16, "bytes", "", "n/a", "", "from the outermost to the innermost IP header"),
)

SACKS: Final = (
    _C("row", pl.UInt32),
    _C("block", pl.UInt8, "", "", "n/a", "RFC 2018 3", "0 is the first block"),
    _C("left", pl.UInt32, "", "tcp.options.sack_le", "a", "RFC 2018 3"),
    _C("right", pl.UInt32, "", "tcp.options.sack_re", "a", "RFC 2018 3"),
)

ICMP: Final = (
    _C("row", pl.UInt32),
    _C("icmp_checksum", VERDICTS, "", "icmp.checksum.status | icmpv6.checksum.status", 0, "RFC 1071"),
    _C("icmp_checksum_field", pl.UInt16, "", "icmp.checksum | icmpv6.checksum", 0),
    _C("icmp_residual", pl.UInt16, "", "", "n/a", "RFC 1624", "stored minus expected, one's complement; 0 where ok, null where unverifiable"),
    _C("icmp_len", pl.UInt32, "bytes", "", "n/a", "", "ICMP message, from the IP length"),
    _C("icmp_ident", pl.UInt16, "", "icmp.ident | icmpv6.echo.identifier", 0, "RFC 792", "echo only"),
    _C("icmp_sequence", pl.UInt16, "", "icmp.seq | icmpv6.echo.sequence_number", 0, "", "echo only"),
    _C("next_hop_mtu", pl.UInt32, "bytes", "icmp.mtu | icmpv6.mtu", 0, "RFC 1191 4, RFC 4443 3.2"),
    *_address("gateway", "icmp.redir_gw", 0, "redirects: RFC 792, RFC 4861 4.5"),
    _C("extension_offset", pl.UInt16, "bytes", "", "n/a", "RFC 4884 7", "of the extension header in the message; null without"),
    _C("quoted_version", pl.UInt8, "", "ip.version", 1, "", "null where the quote holds no IP header"),
    *_address("quoted_src", "ip.src | ipv6.src", 1),
    *_address("quoted_dst", "ip.dst | ipv6.dst", 1),
    _C("quoted_proto", pl.UInt8, "", "ip.proto | ipv6.nxt", 1),
    _C("quoted_ip_len", pl.UInt32, "bytes", "ip.len | 40 + ipv6.plen", 1),
    _C("quoted_ip_id", pl.UInt32, "", "ip.id", 1),
    _C("quoted_ttl", pl.UInt8, "hops", "ip.ttl | ipv6.hlim", 1),
    _C("quoted_tos", pl.UInt8, "", "ip.dsfield | ipv6.tclass", 1),
    _C("quoted_df", pl.Boolean, "", "ip.flags.df", 1),
    _C("quoted_frag_offset", pl.UInt16, "bytes", "ip.frag_offset", 1),
    _C("quoted_ip_checksum", VERDICTS, "", "ip.checksum.status", 1, "", "a bad one in a quote is harmless"),
    _C("quoted_src_port", pl.UInt16, "", "tcp.srcport | udp.srcport", 0),
    _C("quoted_dst_port", pl.UInt16, "", "tcp.dstport | udp.dstport", 0),
    _C("quoted_tcp_seq", pl.UInt32, "", "", "n/a", "", "Wireshark leaves tcp.seq_raw empty in quotes"),
    _C("quoted_tcp_ack", pl.UInt32, "", "", "n/a", "", "null where the quote ends before it"),
    _C("quoted_tcp_flags", pl.UInt16, "", "", "n/a", "", "null where the quote ends before it"),
    _C("quoted_payload_len", pl.UInt32, "bytes", "", "n/a", "", "of the offending packet, from its IP length; null where unknown"),
    _C("quoted_len", pl.UInt16, "bytes", "", "n/a", "", "how much of the packet was quoted, IP header on"),
    _C("quoted_transport_checksum", pl.UInt16, "", "", "n/a", "", "null where the quote ends before it"),
    _C("quoted_tunnel", TUNNELS, "", "", "n/a", "", "the quoted packet was tunnelled; the quoted_ columns are the innermost packet's"),
    *_address("quoted_outer_src", "", "n/a", "outer header of a tunnelled quote"),
    *_address("quoted_outer_dst", "", "n/a", "outer header of a tunnelled quote"),
)

ARP: Final = (
    _C("row", pl.UInt32),
    _C("op", NEIGHBOUR_OPS, "", "arp.opcode | icmpv6.type", 0, "RFC 826, RFC 4861"),
    _C("sender_mac", pl.UInt64, "", "arp.src.hw_mac", 0, "", "ND: the link-layer address option"),
    *_address("sender", "arp.src.proto_ipv4", 0, "ND advertisement: the target, which it is about"),
    _C("target_mac", pl.UInt64, "", "arp.dst.hw_mac", 0),
    *_address("target", "arp.dst.proto_ipv4 | icmpv6.nd.ns.target_address", 0),
    _C("gratuitous", pl.Boolean, "", "", "n/a", "RFC 5227 3, RFC 4861 7.2.6", "sender equals target, or unsolicited"),
    _C("eth_src", pl.UInt64, "", "eth.src", 0),
)

VRRP: Final = (
    _C("row", pl.UInt32),
    _C("version", pl.UInt8, "", "vrrp.version", 0, "RFC 3768, RFC 9568"),
    _C("vrid", pl.UInt8, "", "vrrp.virt_rtr_id", 0),
    _C("priority", pl.UInt8, "", "vrrp.prio", 0),
    *_address("virtual", "vrrp.ip_addr | vrrp.ipv6_addr", "a", "one row an address"),
)

IPVS_SYNC: Final = (
    _C("row", pl.UInt32),
    _C("sync_id", pl.UInt8, "", "", "n/a", "struct ip_vs_sync_mesg"),
    _C("proto", pl.UInt8),
    *_address("client", "", "n/a"),
    *_address("virtual", "", "n/a"),
    *_address("real", "", "n/a"),
    _C("client_port", pl.UInt16),
    _C("virtual_port", pl.UInt16),
    _C("real_port", pl.UInt16),
    _C("method", pl.String, "", "", "n/a", "IP_VS_CONN_F_FWD_MASK", "nat, dr, tun or local"),
    _C("state", pl.UInt16),
)


def _per_side(side: str) -> tuple[Column, ...]:
    """Columns of what one side of a TCP or UDP flow sent; `side` is orig or resp."""
    return (
        _C(f"{side}_packets", pl.UInt32, "packets", "", "n/a", "", "second sights left out"),
        _C(f"{side}_ip_bytes", pl.UInt64, "bytes"),
        _C(f"{side}_payload_bytes", pl.UInt64, "bytes", "", "n/a", "", "retransmissions counted again"),
        _C(f"{side}_syn", pl.Boolean, "", "", "n/a", "", "sent a SYN"),
        _C(f"{side}_fin", pl.Boolean),
        _C(f"{side}_rst", pl.Boolean),
        _C(f"{side}_mss", pl.UInt16, "bytes", "", "n/a", "RFC 9293 3.7.1", "it advertised"),
        _C(f"{side}_wscale", pl.UInt8, "bits", "", "n/a", "RFC 7323 2", "it advertised"),
        _C(f"{side}_sack_permitted", pl.Boolean),
        _C(f"{side}_seq_first", pl.UInt32, "", "", "n/a", "", "lowest sequence number it sent: the base of the offsets below"),
        _C(f"{side}_sent", pl.Int64, "bytes", "", "n/a", "", "highest sequence offset sent (end of segment, SYN and FIN count one)"),
        _C(f"{side}_acked", pl.Int64, "bytes", "", "n/a", "", "highest cumulative acknowledgement of it by the peer; null: none seen"),
        _C(f"{side}_sacked", pl.Int64, "bytes", "", "n/a", "RFC 2018", "highest right edge of a SACK block about it; null: none"),
        _C(f"{side}_data_packets", pl.UInt32, "packets", "", "n/a", "", "with payload"),
        _C(f"{side}_retransmitted", pl.UInt32, "packets", "", "n/a", "", "segments that begin below what was already sent and hold nothing new"),
        _C(f"{side}_retransmitted_bytes", pl.UInt64, "bytes"),
        _C(f"{side}_timeouts", pl.UInt16, "", "", "n/a", "RFC 6298", "same first byte again after at least the minimum RTO"),
        _C(f"{side}_max_ip_len", pl.UInt32, "bytes", "", "n/a", "", "largest packet"),
        _C(f"{side}_df", pl.Boolean, "", "", "n/a", "", "every data packet had DF"),
        _C(f"{side}_largest_acked", pl.UInt32, "bytes", "", "n/a", "", "IP length of the largest packet whose last byte was acknowledged or SACKed"),
        _C(f"{side}_smallest_unacked", pl.UInt32, "bytes", "", "n/a", "", "IP length of the smallest data packet never acknowledged though repeated; null: none"),
        _C(f"{side}_stuck_offset", pl.Int64, "bytes", "", "n/a", "", "sequence offset of the first byte never acknowledged though repeated; null: none"),
        _C(f"{side}_stuck_repeats", pl.UInt16, "", "", "n/a", "", "times a packet beginning at that byte was sent"),
        _C(f"{side}_stuck_first_ns", pl.Int64, "ns UTC"),
        _C(f"{side}_stuck_last_ns", pl.Int64, "ns UTC"),
        _C(f"{side}_stuck_len", pl.UInt32, "bytes", "", "n/a", "", "largest IP length with which that byte was sent"),
        _C(f"{side}_offload", pl.Boolean, "", "", "n/a", "", "a packet larger than the peer's MSS or any MTU: seen before segmentation or after merging"),
        _C(f"{side}_ttl", pl.UInt8, "hops", "", "n/a", "", "most common"),
        _C(f"{side}_eth_src", pl.UInt64, "", "", "n/a", "", "MAC its first packet came from"),
        _C(f"{side}_eth_dst", pl.UInt64, "", "", "n/a", "", "MAC its first packet went to"),
        _C(f"{side}_first_ns", pl.Int64, "ns UTC"),
        _C(f"{side}_last_ns", pl.Int64, "ns UTC"),
    )


FLOWS: Final = (
    _C("flow", pl.UInt32, "", "", "n/a", "", "number within the vantage; `packets` rows carry it"),
    _C("ip_version", pl.UInt8),
    _C("ip_proto", pl.UInt8),
    *_address("orig", "", "n/a", "originator"),
    _C("orig_port", pl.UInt16, "", "", "n/a", "", "null for ICMP and fragments without ports"),
    *_address("resp", "", "n/a", "responder"),
    _C("resp_port", pl.UInt16),
    _C("originator_source", ORIGINATOR_SOURCES),
    _C("tunnel", TUNNELS, "", "", "n/a", "", "encapsulation of any of its packets"),
    _C("first_row", pl.UInt32),
    _C("first_ns", pl.Int64, "ns UTC"),
    _C("last_ns", pl.Int64, "ns UTC"),
    _C("copies", pl.UInt32, "packets", "", "n/a", "", "second sights of packets of this flow"),
    _C("idle_ns", pl.Int64, "ns", "", "n/a", "", "longest gap between two of its packets"),
    _C("idle_end_ns", pl.Int64, "ns UTC", "", "n/a", "", "when that gap ended"),
    _C("closed_by", pl.Enum(["orig-fin", "resp-fin", "orig-rst", "resp-rst"]), "", "", "n/a", "", "the first FIN or RST; null: still open"),
    *_per_side("orig"),
    *_per_side("resp"),
)

PACKETS_IN_FLOWS: Final = (
    _C("flow", pl.UInt32, "", "", "n/a", "", "null: no five-tuple (not IP, a later fragment, ICMP)"),
    _C("by_orig", pl.Boolean, "", "", "n/a", "", "sent by the flow's originator"),
    _C("copy_of", pl.UInt32, "", "", "n/a", "", "row of the first sight of this packet at this vantage: it was forwarded or captured twice; null: this is the first"),
)

ICMP_ERRORS: Final = (
    _C("row", pl.UInt32, "", "", "n/a", "", "in `packets` of the vantage"),
    _C("capture", pl.UInt16),
    _C("frame", pl.UInt32),
    _C("time_ns", pl.Int64, "ns UTC"),
    _C("direction", DIRECTIONS),
    _C("copy_of", pl.UInt32, "", "", "n/a", "", "row of the first sight of the same message; null: this is the first"),
    _C("eth_src", pl.UInt64),
    _C("eth_dst", pl.UInt64),
    _C("tunnel", TUNNELS),
    *_address("tunnel_src", "", "n/a", "outer header, where the error itself was tunnelled"),
    *_address("tunnel_dst", "", "n/a", "outer header, where the error itself was tunnelled"),
    _C("ip_version", pl.UInt8),
    *_address("src", "", "n/a", "who sent the error"),
    *_address("dst", "", "n/a", "who is told"),
    _C("ttl", pl.UInt8),
    _C("ip_id", pl.UInt32),
    _C("ip_len", pl.UInt32),
    _C("icmp_type", pl.UInt8),
    _C("icmp_code", pl.UInt8),
    *(column for column in ICMP if column.name not in {"row", "icmp_ident", "icmp_sequence"}),
    _C("flow", pl.UInt32, "", "", "n/a", "", "the flow the quoted packet belongs to, at this vantage"),
    _C("quoted_by_orig", pl.Boolean, "", "", "n/a", "", "the quoted packet was sent by that flow's originator"),
    _C("quoted_row", pl.UInt32, "", "", "n/a", "", "the quoted packet itself, where this vantage saw exactly one such"),
)


METHODS: Final = pl.Enum(["nat", "dr", "tun"])

ENCAPSULATIONS: Final = pl.Enum(["ipip", "gre", "gue"])

LEG_KINDS: Final = pl.Enum(["front", "back"])
"""Front: client and VIP. Back: client and realserver, behind the director's translation (NAT)."""

CONNECTION_STATES: Final = pl.Enum(["opening", "open", "closing", "closed", "reset"])
"""Of TCP, at the end of the captures. Closing: one side sent its FIN. LVS-DR and LVS-TUN hide the
realserver's half from the director: there a healthy close stays "closing"."""

WAITS_FOR: Final = pl.Enum(["client", "realserver", "both"])

PLACES: Final = pl.Enum(["in", "out", "at"])
"""Of a sighting: arriving at the capturing host, leaving it, or at an endpoint or unknown."""

QUOTED_SENDERS: Final = pl.Enum(["client", "realserver"])

CONTRACT_VERDICTS: Final = pl.Enum(
    [
        "forwarded",
        "swallowed",
        "wrong-realserver",
        "wrong-translation",
        "answered",
        "local",
        "unknown",
    ]
)

CONNECTIONS: Final = (
    _C("connection", pl.UInt32),
    _C("ip_version", pl.UInt8),
    _C("ip_proto", pl.UInt8),
    *_address("client", "", "n/a"),
    _C("client_port", pl.UInt16),
    *_address("vip", "", "n/a"),
    _C("vip_port", pl.UInt16),
    *_address("realserver", "", "n/a", "null: not known from these captures"),
    _C("realserver_port", pl.UInt16),
    _C("realserver_mac", pl.UInt64, "", "", "n/a", "", "where its packets go to or come from on the cluster's LAN"),
    _C("realserver_name", pl.String, "", "", "n/a", "", "host name from a label, site.toml, or its address"),
    _C("method", METHODS, "", "", "n/a", "", "null: not known"),
    _C("encapsulation", ENCAPSULATIONS),
    _C("service", pl.UInt16, "", "", "n/a", "", "index into Topology.services; null: no known service"),
    _C("first_ns", pl.Int64, "ns UTC", "", "n/a", "", "on the common clock"),
    _C("last_ns", pl.Int64, "ns UTC", "", "n/a", "", "on the common clock"),
    _C("ambiguous", pl.Boolean, "", "", "n/a", "", "more than one realserver could own it; realserver columns are null"),
    _C("state", CONNECTION_STATES, "", "", "n/a", "", "at the end; null: not TCP"),
    _C("waits_for", WAITS_FOR, "", "", "n/a", "", "whose acknowledgement of what was sent is outstanding at the end; null: nobody's, or not visible"),
    _C("idle_ns", pl.Int64, "ns", "", "n/a", "", "longest pause between two of its packets"),
    _C("idle_end_ns", pl.Int64, "ns UTC", "", "n/a", "", "when that pause ended, on the common clock"),
    _C("earlier", pl.UInt32, "", "", "n/a", "", "the connection that had the same endpoints before; null: none"),
)

LEGS: Final = (
    _C("connection", pl.UInt32),
    _C("vantage", pl.UInt16, "", "", "n/a", "", "index of the vantage in the case"),
    _C("flow", pl.UInt32, "", "", "n/a", "", "within that vantage"),
    _C("kind", LEG_KINDS),
    _C("client_is_orig", pl.Boolean, "", "", "n/a", "", "false: this vantage took the server for the originator"),
)

ERROR_MESSAGES: Final = (
    _C("message", pl.UInt32, "", "", "n/a", "", "one ICMP error, however often it was seen"),
    _C("ip_version", pl.UInt8),
    _C("icmp_type", pl.UInt8),
    _C("icmp_code", pl.UInt8),
    _C("next_hop_mtu", pl.UInt32, "bytes"),
    *_address("gateway", "", "n/a"),
    *_address("src", "", "n/a", "outer source at the first sight"),
    *_address("dst", "", "n/a", "outer destination at the first sight"),
    _C("quoted_proto", pl.UInt8),
    _C("quoted_ip_len", pl.UInt32, "bytes"),
    _C("quoted_ip_id", pl.UInt32),
    _C("quoted_tcp_seq", pl.UInt32),
    _C("quoted_len", pl.UInt16, "bytes"),
    _C("icmp_checksum", VERDICTS, "", "", "n/a", "", "bad where any sight of it was bad"),
    _C("connection", pl.UInt32, "", "", "n/a", "", "the quoted packet's; null: none known"),
    _C("quoted_sender", QUOTED_SENDERS, "", "", "n/a", "", "which end sent the quoted packet"),
    _C("first_ns", pl.Int64, "ns UTC", "", "n/a", "", "on the common clock"),
)

ERROR_SIGHTINGS: Final = (
    _C("message", pl.UInt32),
    _C("vantage", pl.UInt16),
    _C("row", pl.UInt32, "", "", "n/a", "", "in `packets` of that vantage"),
    _C("capture", pl.UInt16),
    _C("frame", pl.UInt32),
    _C("time_ns", pl.Int64, "ns UTC", "", "n/a", "", "as captured, not aligned"),
    _C("place", PLACES),
    _C("eth_src", pl.UInt64),
    _C("eth_dst", pl.UInt64),
    _C("translated", pl.Boolean, "", "", "n/a", "", "the quote is in realserver terms (NAT)"),
    _C("tunnelled", pl.Boolean),
    _C("ttl", pl.UInt8, "hops", "", "n/a", "", "of the error itself; falls from sight to sight along its way"),
)

CONTRACT: Final = (
    _C("message", pl.UInt32),
    _C("vantage", pl.UInt16, "", "", "n/a", "", "of the director"),
    _C("verdict", CONTRACT_VERDICTS),
    _C("reason", pl.String, "", "", "n/a", "", "a code that says why this verdict, see contract.py"),
    _C("in_row", pl.UInt32, "", "", "n/a", "", "where it came in"),
    _C("out_row", pl.UInt32, "", "", "n/a", "", "where it, or what replaced it, went out; null: nothing did"),
)

CROSSINGS: Final = (
    _C("packet", pl.UInt32, "", "", "n/a", "", "one packet, however often it was seen"),
    _C("part_of", pl.UInt32, "", "", "n/a", "", "the packet this is a piece of: offload merges segments or cuts them"),
    _C("connection", pl.UInt32),
    _C("by_client", pl.Boolean, "", "", "n/a", "", "sent by the client"),
    _C("vantage", pl.UInt16),
    _C("row", pl.UInt32, "", "", "n/a", "", "in `packets` of that vantage"),
    _C("time_ns", pl.Int64, "ns UTC", "", "n/a", "", "on the common clock"),
    _C("place", PLACES),
    _C("kind", LEG_KINDS),
    _C("eth_src", pl.UInt64),
    _C("eth_dst", pl.UInt64),
    _C("ttl", pl.UInt8, "hops", "", "n/a", "", "falls from sight to sight along its way"),
    _C("tunnelled", pl.Boolean),
    _C("doubled", pl.Boolean, "", "", "n/a", "", "an exact double of an earlier sight at the same place"),
)

PACKET_CONTRACT: Final = (
    _C("packet", pl.UInt32, "", "", "n/a", "", "as in `crossings`"),
    _C("connection", pl.UInt32),
    _C("by_client", pl.Boolean),
    _C("vantage", pl.UInt16, "", "", "n/a", "", "of the director"),
    _C("time_ns", pl.Int64, "ns UTC", "", "n/a", "", "when it came in, on the common clock"),
    _C("in_row", pl.UInt32, "", "", "n/a", "", "where it came in"),
    _C("verdict", CONTRACT_VERDICTS),
    _C("reason", pl.String, "", "", "n/a", "", "a code that says why this verdict, see packet_contract.py"),
    _C("out_vantage", pl.UInt16, "", "", "n/a", "", "of the frame that it left in, arrived in, or was answered by"),
    _C("out_row", pl.UInt32, "", "", "n/a", "", "that frame; null: there is none"),
)

# fmt: on

TABLES: Final[Mapping[str, tuple[Column, ...]]] = {
    "packets": PACKETS,
    "tunnels": TUNNELS_TABLE,
    "sacks": SACKS,
    "icmp": ICMP,
    "arp": ARP,
    "vrrp": VRRP,
    "ipvs_sync": IPVS_SYNC,
    "packets_in_flows": PACKETS_IN_FLOWS,
    "flows": FLOWS,
    "icmp_errors": ICMP_ERRORS,
    "connections": CONNECTIONS,
    "legs": LEGS,
    "error_messages": ERROR_MESSAGES,
    "error_sightings": ERROR_SIGHTINGS,
    "contract": CONTRACT,
    "crossings": CROSSINGS,
    "packet_contract": PACKET_CONTRACT,
}


def dtypes(table: str) -> dict[str, pl.DataType | type[pl.DataType]]:
    """Return name -> dtype of a table's columns, in order; KeyError for an unknown table."""
    return {column.name: column.dtype for column in TABLES[table]}


def empty(table: str) -> pl.DataFrame:
    """Return the table without rows."""
    return _empty(table).clone()


@cache  # polars takes a third of a millisecond for 80 columns, and most side tables are empty
def _empty(table: str) -> pl.DataFrame:
    return pl.DataFrame(schema=dtypes(table))


def conform(frame: pl.DataFrame, table: str) -> pl.DataFrame:
    """Return `frame` with exactly the table's columns, in order and dtype, missing ones null."""
    if frame.is_empty():
        return empty(table)
    wanted = dtypes(table)
    return frame.select(
        (pl.col(name) if name in frame.columns else pl.lit(None)).cast(dtype).alias(name)
        for name, dtype in wanted.items()
    )


def note_names(bits: int) -> str:
    """Return the names of a `decode_note`, lower case, ";" between; "" for 0."""
    return ";".join(
        note.name.lower().replace("_", "-") for note in DecodeNote if bits & note and note.name
    )
