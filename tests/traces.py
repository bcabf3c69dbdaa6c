"""Inline traces in a small notation, as decoded tables or as real capture files.

One line is one packet, in file order:

    0.000 c>s S seq=0 mss=1460
    0.001 s>c SA seq=0 ack=1
    0.002 c>s PA seq=1 ack=1 len=500 id=7 ttl=63 mac=d>rs
    0.002 copy 3 ttl=62 mac=rs>x          the packet of line 3 again, but for what is named
    0.003 c>s udp len=100
    0.004 r>s icmp 3/4 mtu=1400 quote=3   quotes the packet of line 3
    0.005 d>* arp request who=rs          asks for the MAC of rs; * is everybody
    0.006 rs>d arp reply is=rs            says who has it; `arp announce is=s` says it unasked
    0.007 d>* vrrp is=s vrid=51 prio=100  d speaks for the virtual address s
    -     c>s A seq=501 ack=1             no time

Times are seconds from `START_NS`. Names stand for hosts (`HOSTS`, or the `hosts` argument); a port
may be added: `c:40001>s`. Sequence and acknowledgement numbers are relative to `isn` of the
sender and the receiver. Words with a value:

    seq ack len win mss ws ts=VAL/ECR sack=10-20,30-40   TCP; `sackok` alone permits SACK
    id ttl tos df=0 mac=FROM>TO vlan if out|in           below TCP; MACs are named like hosts
    tun=ipip:FROM>TO                                      inside a tunnel
    frag=OFFSET mf                                        a fragment; no ports behind an offset
    mtu gw=NAME quote=LINE qlen=BYTES                     ICMP errors; type/code stand before
    cut                                                   the capture kept a part of its header
    blank                                                 the quote is nothing but zeros
    unseen                                                not captured, but may be quoted
    who=NAME is=NAME                                      ARP: asked for, told of
    sum=RESIDUAL|cut                     a bad ICMP checksum, off by so much; cut: unverifiable

IP IDs count up per sender, from 1; IPv6 hosts have none. A line that ends in `!` is marked.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from pcapdiag import schema
from pcapdiag.addresses import ip_text, mac_text, pack_ip
from pcapdiag.capture.frames import CaptureInfo
from pcapdiag.decode.packets import Decoded
from pcapdiag.decode_note import DecodeNote
from pcapdiag.flows import vantage

if TYPE_CHECKING:
    from pathlib import Path

    from pcapdiag.flows.vantage import VantageTables

START_NS: Final = 1_700_000_000_000_000_000

HOSTS: Final = {
    "c": "198.51.100.20:40000",
    "c2": "198.51.100.21:40000",
    "s": "203.0.113.10:80",
    "s2": "203.0.113.10:443",
    "d": "203.0.113.2:50000",
    "rs": "203.0.113.11:80",
    "rs2": "203.0.113.12:80",
    "r": "192.0.2.1:0",
    "x": "203.0.113.1:0",
    "c6": "[2001:db8::20]:40000",
    "s6": "[2001:db8:1::10]:80",
    "r6": "[2001:db8:2::1]:0",
}

ISN: Final = 1000

_FLAGS: Final = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16, "U": 32, "E": 64, "W": 128, ".": 0}
_ENDPOINT: Final = re.compile(r"\[?([0-9a-fA-F:.]+?)\]?:(\d+)\Z")
_TUNNEL_OVERHEAD: Final = {"ipip": 20, "gre": 24, "gue": 32}


@dataclass
class Packet:
    """One packet: columns of `packets`, and of the side tables where it has any."""

    columns: dict[str, Any]
    sacks: list[tuple[int, int]] = field(default_factory=list)
    icmp: dict[str, Any] | None = None
    tunnel: dict[str, Any] | None = None
    arp: dict[str, Any] | None = None
    vrrp: dict[str, Any] | None = None
    quoted: Packet | None = None
    captured: bool = True


@dataclass
class Trace:
    """Packets in file order; `marked` are the frame numbers of lines that end in `!`."""

    packets: list[Packet]
    marked: tuple[int, ...]

    def decoded(self, capture: int = 0) -> Decoded:
        """Return the tables that decoding such packets would make."""
        rows = [
            {**packet.columns, "capture": capture, "frame": number + 1}
            for number, packet in enumerate(self.packets)
        ]
        return Decoded(
            packets=_table("packets", rows),
            sacks=_table(
                "sacks",
                [
                    {"row": row, "block": block, "left": left, "right": right}
                    for row, packet in enumerate(self.packets)
                    for block, (left, right) in enumerate(packet.sacks)
                ],
            ),
            icmp=_table("icmp", _rows_of(self.packets, "icmp")),
            tunnels=_table("tunnels", _rows_of(self.packets, "tunnel")),
            arp=_table("arp", _rows_of(self.packets, "arp")),
            vrrp=_table("vrrp", _rows_of(self.packets, "vrrp")),
            ipvs_sync=schema.empty("ipvs_sync"),
        )

    def tables(self) -> VantageTables:
        """Return the tables of a vantage "v" that saw these packets."""
        return vantage.build(0, "v", None, [(self.info(), self.decoded())])

    def info(self) -> CaptureInfo:
        """Return what a reader would say of such a capture."""
        times = [packet.columns["time_ns"] for packet in self.packets]
        known = [time_ns for time_ns in times if time_ns is not None]
        return CaptureInfo(
            path="trace.pcap",
            format="pcap",
            packets=len(times),
            link_types=(1,),
            first_ns=min(known, default=None),
            last_ns=max(known, default=None),
            snaplen=None,
            dropped=None,
            cut_short=False,
            notes=(),
            interfaces=(),
            size=None,
            mtime_ns=None,
        )

    def write(self, path: Path) -> Path:
        """Write a nanosecond pcap file of these packets (scapy makes them); return its path."""
        with path.open("wb") as file:
            file.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1))
            for packet in self.packets:
                frame = _frame(packet)
                seconds, rest = divmod(packet.columns["time_ns"], 10**9)
                file.write(struct.pack("<IIII", seconds, rest, len(frame), len(frame)) + frame)
        return path


def trace(
    text: str, *, hosts: dict[str, str] | None = None, isn: dict[str, int] | None = None
) -> Trace:
    """Return the packets that the lines of `text` describe; ValueError names a line it cannot."""
    reader = _Reader({**HOSTS, **(hosts or {})}, isn or {})
    marked = []
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    for number, line in enumerate(filter(None, lines), 1):
        words = line.split()
        if words[-1] == "!":
            marked.append(number)
            words.pop()
        try:
            reader.read(words)
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"line {number}, {line!r}: {error}") from error
    seen = [number for number, packet in enumerate(reader.packets) if packet.captured]
    packets = [reader.packets[number] for number in seen]
    for row, packet in enumerate(packets):
        for told in (packet.icmp, packet.tunnel, packet.arp, packet.vrrp):
            if told is not None:
                told["row"] = row
    return Trace(packets, tuple(seen.index(number - 1) + 1 for number in marked))


class _Reader:
    def __init__(self, hosts: dict[str, str], isn: dict[str, int]) -> None:
        self.hosts = hosts
        self.isn = isn
        self.ids: dict[str, int] = {}
        self.packets: list[Packet] = []

    def read(self, words: list[str]) -> None:
        """Append the packet of one line."""
        time_ns = None if words[0] == "-" else START_NS + round(float(words[0]) * 1e9)
        if words[1] == "copy":
            original = self.packets[int(words[2]) - 1]
            packet = Packet(
                dict(original.columns), list(original.sacks), _copied(original.icmp), None
            )
            packet.quoted = original.quoted
            given = _given(words[3:])
        else:
            source, target = words[1].split(">")
            given = _given(words[2:])
            kind = given.get("kind")
            if kind == "arp":
                packet = self._arp(source, target, given)
            elif kind == "vrrp":
                packet = self._vrrp(source, given)
            else:
                packet = self._packet(source, target, given)
        packet.columns["time_ns"] = time_ns
        self._outside(packet, given)
        packet.captured = "unseen" not in given
        unknown = set(given) - _KNOWN
        if unknown:
            raise ValueError(f"unknown words {sorted(unknown)}")
        self.packets.append(packet)

    def _address(self, name: str) -> tuple[int, int, int, int]:
        """Return version, hi, lo and port of a host's name or name:port."""
        base, _, port = name.partition(":")
        match = _ENDPOINT.match(self.hosts[base])
        if match is None:
            raise ValueError(f"{self.hosts[base]!r} is no endpoint")
        hi, lo = pack_ip(match[1])
        return (6 if ":" in match[1] else 4), hi, lo, int(port or match[2])

    def _packet(self, source: str, target: str, given: dict[str, str]) -> Packet:
        version, src_hi, src_lo, src_port = self._address(source)
        _, dst_hi, dst_lo, dst_port = self._address(target)
        sender = source.partition(":")[0]
        columns: dict[str, Any] = {
            "interface": 0,
            "linktype": 1,
            "eth_src": self._mac(sender),
            "eth_dst": self._mac(target.partition(":")[0]),
            "ethertype": 0x0800 if version == 4 else 0x86DD,
            "tunnel_depth": 0,
            "ip_version": version,
            "src_hi": src_hi,
            "src_lo": src_lo,
            "dst_hi": dst_hi,
            "dst_lo": dst_lo,
            "ip_header_len": 20 if version == 4 else 40,
            "ttl": 64,
            "tos": 0,
            "df": True,
            "mf": False,
            "frag_offset": 0,
            "ip_checksum": "ok" if version == 4 else None,
            "decode_note": 0,
        }
        if version == 4:
            self.ids[sender] = self.ids.get(sender, 0) + 1
            columns["ip_id"] = self.ids[sender]
        packet = Packet(columns)
        kind = given.pop("kind")
        if kind == "icmp":
            self._icmp(packet, given, version)
        else:
            columns |= {"src_port": src_port, "dst_port": dst_port}
            columns["payload_len"] = int(given.get("len", 0))
            if kind == "udp":
                columns["ip_proto"] = 17
                header = 8
            else:
                columns["ip_proto"] = 6
                isns = self.isn.get(sender, ISN), self.isn.get(target.partition(":")[0], ISN)
                header = _tcp(packet, kind, given, isns)
            columns["ip_len"] = columns["ip_header_len"] + header + columns["payload_len"]
            if columns["frag_offset"] or int(given.get("frag", 0)):
                for name in ("src_port", "dst_port", "tcp_seq", "tcp_ack", "tcp_flags"):
                    columns.pop(name, None)
        if "transport_checksum" not in columns and columns["ip_proto"] in {6, 17}:
            columns["transport_checksum"] = _fingerprint(columns, packet.sacks)
        return packet

    def _arp(self, source: str, target: str, given: dict[str, str]) -> Packet:
        """Return an ARP message; the sender's MAC inside is the frame's."""
        given.pop("kind")
        op = given.pop("code")
        _, *sender, _ = self._address(given.get("is", source))
        asked = given.get("who", given.get("is", source) if op == "announce" else target)
        _, *wanted, _ = self._address(asked)
        mac = self._mac(given["mac"].split(">")[0] if "mac" in given else source)
        columns: dict[str, Any] = {
            "interface": 0,
            "linktype": 1,
            "eth_src": mac,
            "eth_dst": self._mac("*" if op == "announce" else target),
            "ethertype": 0x0806,
            "tunnel_depth": 0,
            "ip_len": 28,
            "decode_note": 0,
        }
        told = {
            "op": "reply" if op == "reply" else "request",
            "sender_mac": mac,
            "sender_hi": sender[0],
            "sender_lo": sender[1],
            "target_mac": 0,
            "target_hi": wanted[0],
            "target_lo": wanted[1],
            "gratuitous": sender == wanted,
            "eth_src": mac,
        }
        return Packet(columns, arp=told)

    def _vrrp(self, source: str, given: dict[str, str]) -> Packet:
        """Return a VRRP advertisement of one virtual address."""
        given.pop("kind")
        _, *virtual, _ = self._address(given["is"])
        _, *sender, _ = self._address(source)
        columns: dict[str, Any] = {
            "interface": 0,
            "linktype": 1,
            "eth_src": self._mac(source),
            "eth_dst": 0x0100_5E00_0012,
            "ethertype": 0x0800,
            "tunnel_depth": 0,
            "ip_version": 4,
            "ip_proto": 112,
            "ip_len": 40,
            "ip_header_len": 20,
            "src_hi": sender[0],
            "src_lo": sender[1],
            "dst_hi": 0,
            "dst_lo": pack_ip("224.0.0.18")[1],
            "ttl": 255,
            "decode_note": 0,
        }
        told = {
            "version": 2,
            "vrid": int(given.get("vrid", 51)),
            "priority": int(given.get("prio", 100)),
            "virtual_hi": virtual[0],
            "virtual_lo": virtual[1],
        }
        return Packet(columns, vrrp=told)

    def _mac(self, name: str) -> int:
        if name == "*":
            return 0xFFFF_FFFF_FFFF
        return 0x0200_0000_0000 + 1 + sorted(self.hosts).index(name)

    def _icmp(self, packet: Packet, given: dict[str, str], version: int) -> None:
        kind, _, code = given.pop("code").partition("/")
        columns = packet.columns
        columns |= {"ip_proto": 1 if version == 4 else 58, "df": version == 6}
        columns |= {"icmp_type": int(kind), "icmp_code": int(code or 0)}
        packet.quoted = self.packets[int(given["quote"]) - 1] if "quote" in given else None
        quoted = packet.quoted.columns if packet.quoted else None
        limit = int(given.get("qlen", 548 if version == 4 else 1232))
        outer = packet.quoted.tunnel if packet.quoted else None
        whole = outer["outer_ip_len"] if outer else quoted["ip_len"] if quoted else 0
        length = min(whole, limit)
        columns["ip_len"] = columns["ip_header_len"] + 8 + length
        told: dict[str, Any] = {
            "icmp_checksum": "ok",
            "icmp_residual": 0,
            "icmp_len": 8 + length,
            "next_hop_mtu": int(given["mtu"]) if "mtu" in given else None,
        }
        if given.get("sum") == "cut":
            told |= {"icmp_checksum": "unverifiable"}
        elif "sum" in given:
            told |= {"icmp_checksum": "bad", "icmp_residual": int(given["sum"])}
        if "gw" in given:
            _, told["gateway_hi"], told["gateway_lo"], _ = self._address(given["gw"])
        if quoted and "blank" in given:
            told |= {"quoted_len": length}
        elif quoted and outer:
            told |= _tunnel_quote(quoted, outer, length)
        elif quoted:
            told |= _quote(quoted, length)
        told["icmp_checksum_field"] = _fingerprint(columns, told)
        packet.icmp = told

    def _outside(self, packet: Packet, given: dict[str, str]) -> None:
        """Set what a forwarder changes: MACs, TTL, VLAN, interface, tunnel."""
        columns = packet.columns
        if "cut" in given:
            columns["decode_note"] |= int(DecodeNote.TRANSPORT_CUT)
        if "id" in given:
            columns["ip_id"] = int(given["id"])
        for word, name in (("ttl", "ttl"), ("tos", "tos"), ("vlan", "vlan"), ("if", "interface")):
            if word in given:
                columns[name] = int(given[word])
        if "df" in given:
            columns["df"] = given["df"] != "0"
        if "mf" in given:
            columns["mf"] = True
        if "frag" in given:
            columns["frag_offset"] = int(given["frag"])
        for word in ("in", "out"):
            if word in given:
                columns["direction"] = word
        if "mac" in given:
            source, target = given["mac"].split(">")
            columns |= {"eth_src": self._mac(source), "eth_dst": self._mac(target)}
        overhead = 0
        if "tun" in given:
            kind, _, ends = given["tun"].partition(":")
            source, target = ends.split(">")
            version, *outer_src, _ = self._address(source)
            _, *outer_dst, _ = self._address(target)
            overhead = _TUNNEL_OVERHEAD[kind]
            columns |= {"tunnel": kind, "tunnel_depth": 1}
            packet.tunnel = {
                "kind": kind,
                "depth": 1,
                "outer_src_hi": outer_src[0],
                "outer_src_lo": outer_src[1],
                "outer_dst_hi": outer_dst[0],
                "outer_dst_lo": outer_dst[1],
                "outer_ip_version": version,
                "outer_ip_len": columns["ip_len"] + overhead,
                "outer_ip_id": 0,
                "outer_ttl": columns["ttl"],
                "outer_tos": columns["tos"],
                "outer_df": True,
                "overhead": overhead,
            }
        elif columns.get("tunnel"):
            columns |= {"tunnel": None, "tunnel_depth": 0}
        columns["wire_len"] = columns["caplen"] = 14 + overhead + columns["ip_len"]


_KNOWN: Final = frozenset(("len", "seq", "ack", "win", "mss", "ws", "ts", "sack", "sackok")).union(
    ("id", "ttl", "tos", "df", "mac", "vlan", "if", "in", "out", "tun", "frag", "mf", "unseen"),
    ("mtu", "gw", "quote", "qlen", "sum", "cut", "blank", "who", "is", "vrid", "prio"),
)


def _given(words: list[str]) -> dict[str, str]:
    """Return the words of a line by name; the first, without a value, is the kind."""
    given: dict[str, str] = {}
    for number, word in enumerate(words):
        name, equals, value = word.partition("=")
        if equals:
            given[name] = value
        elif word in _KNOWN:
            given[word] = ""
        elif number == 0:
            given["kind"] = word
        elif given.get("kind") in {"icmp", "arp"} and "code" not in given:
            given["code"] = word
        else:
            raise ValueError(f"unexpected {word!r}")
    return given


def _tcp(packet: Packet, kind: str, given: dict[str, str], isns: tuple[int, int]) -> int:
    """Fill in TCP columns; return the header's length."""
    columns = packet.columns
    flags = sum(_FLAGS[letter] for letter in kind)
    columns |= {
        "tcp_flags": flags,
        "tcp_seq": (isns[0] + int(given.get("seq", 0))) % 2**32,
        "tcp_ack": (isns[1] + int(given["ack"])) % 2**32 if "ack" in given else 0,
        "tcp_window": int(given.get("win", 64240)),
        "tcp_sack_permitted": "sackok" in given,
    }
    options = 0
    if "mss" in given:
        columns["tcp_mss"] = int(given["mss"])
        options += 4
    if "ws" in given:
        columns["tcp_wscale"] = int(given["ws"])
        options += 3
    if "sackok" in given:
        options += 2
    if "ts" in given:
        value, echo = given["ts"].split("/")
        columns |= {"tcp_tsval": int(value), "tcp_tsecr": int(echo)}
        options += 10
    if "sack" in given:
        for block in given["sack"].split(","):
            left, right = block.split("-")
            packet.sacks.append(((isns[1] + int(left)) % 2**32, (isns[1] + int(right)) % 2**32))
        options += 2 + 8 * len(packet.sacks)
    return 20 + (options + 3) // 4 * 4


def _quote(quoted: dict[str, Any], length: int) -> dict[str, Any]:
    """Return the quoted_ columns of an error about `quoted`, of which `length` bytes are there."""
    told = {
        "quoted_version": quoted["ip_version"],
        "quoted_proto": quoted["ip_proto"],
        "quoted_len": length,
        "quoted_payload_len": quoted.get("payload_len"),
        "quoted_transport_checksum": quoted.get("transport_checksum"),
        "quoted_ip_checksum": quoted["ip_checksum"],
    }
    for name in ("ip_len", "ip_id", "ttl", "tos", "df", "frag_offset"):
        told[f"quoted_{name}"] = quoted.get(name)
    for name in ("src_hi", "src_lo", "dst_hi", "dst_lo"):
        told[f"quoted_{name}"] = quoted[name]
    behind = length - quoted["ip_header_len"]
    if behind >= 4:
        told |= {f"quoted_{name}": quoted.get(name) for name in ("src_port", "dst_port")}
    if behind >= 8:
        told["quoted_tcp_seq"] = quoted.get("tcp_seq")
    if behind >= 14:
        told |= {f"quoted_{name}": quoted.get(name) for name in ("tcp_ack", "tcp_flags")}
    return told


def _tunnel_quote(quoted: dict[str, Any], outer: dict[str, Any], length: int) -> dict[str, Any]:
    """Return the quoted_ columns of an error about a tunnel packet, of which `length` are there."""
    if length >= outer["overhead"] + quoted["ip_header_len"]:
        told = _quote(quoted, length - outer["overhead"])
        told |= {"quoted_tunnel": outer["kind"], "quoted_len": length}
        ends = ("src_hi", "src_lo", "dst_hi", "dst_lo")
        return told | {f"quoted_outer_{end}": outer[f"outer_{end}"] for end in ends}
    names = ("src_hi", "src_lo", "dst_hi", "dst_lo", "ip_len", "ip_id", "ttl", "tos", "df")
    told = {f"quoted_{name}": outer[f"outer_{name}"] for name in names}
    return told | {"quoted_version": 4, "quoted_proto": 4, "quoted_len": length}


def _fingerprint(*parts: Any) -> int:
    """Return 16 bits that stand for a checksum: equal for equal contents."""
    left_alone = [
        {
            k: v
            for k, v in part.items()
            if k not in {"time_ns", "ttl", "ip_id", "eth_src", "eth_dst"}
        }
        if isinstance(part, dict)
        else part
        for part in parts
    ]
    return zlib.crc32(repr(left_alone).encode()) & 0xFFFF


def _copied(told: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if told is None else dict(told)


def _rows_of(packets: list[Packet], side: str) -> list[dict[str, Any]]:
    return [told for packet in packets if (told := getattr(packet, side)) is not None]


def _table(name: str, rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=schema.dtypes(name)) if rows else schema.empty(name)


def _frame(packet: Packet) -> bytes:
    """Return the bytes of one packet, built by scapy; tunnels are not made."""
    from scapy.layers.inet import IP, TCP, UDP
    from scapy.layers.inet6 import IPv6
    from scapy.layers.l2 import Ether
    from scapy.packet import Raw
    from scapy.utils import checksum

    columns = packet.columns
    source = ip_text(columns["src_hi"], columns["src_lo"])
    target = ip_text(columns["dst_hi"], columns["dst_lo"])
    if columns["ip_version"] == 4:
        flags = 2 * columns["df"] + columns["mf"]
        given = {"id": columns["ip_id"], "ttl": columns["ttl"], "tos": columns["tos"]}
        network = IP(src=source, dst=target, flags=flags, proto=columns["ip_proto"], **given)
    else:
        network = IPv6(
            src=source,
            dst=target,
            hlim=columns["ttl"],
            tc=columns["tos"],
            nh=columns["ip_proto"],
        )
    if columns["ip_proto"] == 6:
        transport = TCP(
            sport=columns["src_port"],
            dport=columns["dst_port"],
            seq=columns["tcp_seq"],
            ack=columns["tcp_ack"],
            flags=columns["tcp_flags"],
            window=columns["tcp_window"],
            options=_options(packet),
        )
        transport /= Raw(bytes(columns["payload_len"]))
    elif columns["ip_proto"] == 17:
        transport = UDP(sport=columns["src_port"], dport=columns["dst_port"])
        transport /= Raw(bytes(columns["payload_len"]))
    else:
        if packet.quoted is None or columns["ip_version"] == 6:
            raise NotImplementedError("only ICMP errors for IPv4 are made as bytes")
        quote = _frame(packet.quoted)[14:][: packet.icmp["quoted_len"]]
        rest = struct.pack("!I", packet.icmp["next_hop_mtu"] or 0)
        head = struct.pack("!BB", columns["icmp_type"], columns["icmp_code"])
        total = checksum(head + bytes(2) + rest + quote)
        transport = Raw(head + struct.pack("!H", total) + rest + quote)
    ethernet = Ether(src=mac_text(columns["eth_src"]), dst=mac_text(columns["eth_dst"]))
    return bytes(ethernet / network / transport)


def _options(packet: Packet) -> list[tuple[str, Any]]:
    """Return TCP options as scapy wants them."""
    columns = packet.columns
    options: list[tuple[str, Any]] = []
    if "tcp_mss" in columns:
        options.append(("MSS", columns["tcp_mss"]))
    if "tcp_wscale" in columns:
        options.append(("WScale", columns["tcp_wscale"]))
    if columns["tcp_sack_permitted"]:
        options.append(("SAckOK", b""))
    if "tcp_tsval" in columns:
        options.append(("Timestamp", (columns["tcp_tsval"], columns["tcp_tsecr"])))
    if packet.sacks:
        options.append(("SAck", tuple(edge for block in packet.sacks for edge in block)))
    return options
