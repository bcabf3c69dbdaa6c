"""A small LVS cluster that tests let packets run through; every vantage records what passes it.

client -- (ttl 64 -> 62) -- router -- director -- rs1, rs2. A packet has the columns of `packets`;
on its way it gets other MACs, TTLs, addresses (NAT) or a tunnel header, as IPVS gives it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from pcapdiag import schema
from pcapdiag.addresses import pack_ip, pack_mac
from pcapdiag.capture.frames import CaptureInfo, Interface
from pcapdiag.case import Case
from pcapdiag.decode.packets import Decoded
from pcapdiag.flows import vantage

if TYPE_CHECKING:
    from collections.abc import Callable

    from pcapdiag.site import Site

START_NS = 1_700_000_000_000_000_000
HOP_NS = 50_000

MACS = {
    "router": pack_mac("02:00:00:00:00:01"),
    "director": pack_mac("02:00:00:00:00:02"),
    "director-inside": pack_mac("02:00:00:00:00:03"),
    "rs1": pack_mac("02:00:00:00:00:11"),
    "rs2": pack_mac("02:00:00:00:00:12"),
}
V4 = {
    "router": "203.0.113.1",
    "director": "203.0.113.2",
    "vip": "203.0.113.10",
    "rs1": "203.0.113.11",
    "rs2": "203.0.113.12",
    "client": "198.51.100.20",
    "isp": "192.0.2.2",
}
V6 = {
    "router": "2001:db8:1::1",
    "director": "2001:db8:1::2",
    "vip": "2001:db8:1::10",
    "rs1": "2001:db8:1::11",
    "rs2": "2001:db8:1::12",
    "client": "2001:db8:2::20",
    "isp": "2001:db8:3::2",
}
VANTAGES = ("client", "router", "director", "rs1", "rs2")


@dataclass
class Recorder:
    """What one vantage captured."""

    any_interface: bool = False
    clock_ns: int = 0
    drift_ppm: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)
    icmp: list[dict[str, Any]] = field(default_factory=list)
    tunnels: list[dict[str, Any]] = field(default_factory=list)
    arp: list[dict[str, Any]] = field(default_factory=list)
    vrrp: list[dict[str, Any]] = field(default_factory=list)
    sync: list[dict[str, Any]] = field(default_factory=list)

    def without(self, gone: set[int]) -> None:
        """Forget some frames, and what the side tables say of them."""
        kept = [number for number in range(len(self.rows)) if number not in gone]
        place = {number: index for index, number in enumerate(kept)}
        self.rows = [self.rows[number] for number in kept]
        for name in ("icmp", "tunnels", "arp", "vrrp", "sync"):
            entries = [entry for entry in getattr(self, name) if entry["row"] in place]
            setattr(self, name, [{**entry, "row": place[entry["row"]]} for entry in entries])


@dataclass
class Cluster:
    """The cluster and its recorders; `method` is nat, dr or tun."""

    method: str = "dr"
    encapsulation: str = "ipip"
    v6: bool = False
    one_arm: bool = False
    rport: int = 80
    ttl_counts: bool = True
    recorders: dict[str, Recorder] = field(default_factory=dict)
    time_ns: int = START_NS
    _ids: Any = field(default_factory=lambda: itertools.count(1000))
    _ports: Any = field(default_factory=lambda: itertools.count(40000))

    def __post_init__(self) -> None:
        """Begin a recorder at each vantage."""
        self.recorders = {name: Recorder() for name in VANTAGES}
        self.address = {name: pack_ip(text) for name, text in (V6 if self.v6 else V4).items()}

    # What is on the wire.

    def packet(self, source: tuple, target: tuple, **columns: Any) -> dict[str, Any]:
        """Return a TCP packet between (address, port) pairs, with the next IP ID."""
        packet = {
            "ip_version": 6 if self.v6 else 4,
            "src_hi": source[0][0],
            "src_lo": source[0][1],
            "src_port": source[1],
            "dst_hi": target[0][0],
            "dst_lo": target[0][1],
            "dst_port": target[1],
            "ip_proto": 6,
            "ip_id": None if self.v6 else next(self._ids) & 0xFFFF,
            "ttl": 64,
            "df": True,
            "tcp_seq": 0,
            "tcp_ack": 0,
            "tcp_flags": 0x10,
            "payload_len": 0,
            "tcp_tsval": self.time_ns // 1_000_000 % 2**32,
            "tcp_tsecr": 0,
        }
        packet.update(columns)
        packet["ip_len"] = 52 + packet["payload_len"]
        return packet

    def seen(
        self, name: str, packet: dict[str, Any], src: str, dst: str, direction: str, **more: Any
    ) -> None:
        """Let a vantage record a frame from one host's MAC to another's."""
        recorder = self.recorders[name]
        drift = round((self.time_ns - START_NS) * recorder.drift_ppm / 1e6)
        row = {
            **{key: value for key, value in packet.items() if not key.startswith(("_", "quoted"))},
            "time_ns": self.time_ns + recorder.clock_ns + drift,
            "interface": int("director-inside" in {src, dst} and name == "director"),
            "linktype": 113 if recorder.any_interface else 1,
            "direction": direction if recorder.any_interface else None,
            "eth_src": MACS[src] if src in MACS else pack_mac("02:00:00:00:00:99"),
            "eth_dst": None
            if recorder.any_interface
            else MACS.get(dst, pack_mac("02:00:00:00:00:99")),
            "tunnel_depth": 0,
            "caplen": 60,
            "wire_len": 60,
            "decode_note": 0,
            **more.get("columns", {}),
        }
        number = len(recorder.rows)
        recorder.rows.append(row)
        if "tunnel" in more:
            outer = more["tunnel"]
            recorder.tunnels.append({"row": number, "depth": 1, **outer})
            row |= {"tunnel": outer["kind"], "tunnel_depth": 1}
        if packet.get("icmp_type") is not None:
            recorder.icmp.append({"row": number, **packet["_icmp"]})

    def wait(self, nanoseconds: int = HOP_NS) -> None:
        """Let time pass."""
        self.time_ns += nanoseconds

    def outer(self, realserver: str) -> dict[str, Any]:
        """Return the tunnel header from the director to a realserver."""
        source, target = self.address["director"], self.address[realserver]
        kind = {"ipip": "6in6" if self.v6 else "ipip"}.get(self.encapsulation, self.encapsulation)
        return {
            "kind": kind,
            "outer_src_hi": source[0],
            "outer_src_lo": source[1],
            "outer_dst_hi": target[0],
            "outer_dst_lo": target[1],
        }

    def request(self, packet: dict[str, Any], realserver: str, *, forwarded: bool = True) -> None:
        """Let a packet run from the client to a realserver, or only to the director."""
        self.seen("client", packet, "client", "cpe", "out")
        self.wait()
        near = {**packet, "ttl": 62}
        self.seen("router", near, "router", "director", "out")
        self.wait()
        self.seen("director", near, "router", "director", "in")
        if forwarded:
            self.wait()
            self.relay(near, realserver)

    def relay(self, packet: dict[str, Any], realserver: str, **changes: Any) -> None:
        """Let the director send a packet on as its method does."""
        away = {**packet, "ttl": packet["ttl"] - self.ttl_counts} | changes
        side = "director"
        if self.method == "nat":
            rip = self.address[realserver]
            away |= {"dst_hi": rip[0], "dst_lo": rip[1]}
            if "dst_port" in packet and packet.get("icmp_type") is None:
                away["dst_port"] = self.rport
            away |= changes
            side = "director" if self.one_arm else "director-inside"
        more = {"tunnel": self.outer(realserver)} if self.method == "tun" else {}
        self.seen("director", away, side, realserver, "out", **more)
        self.wait()
        self.seen(realserver, away, side, realserver, "in", **more)

    def reply(self, packet: dict[str, Any], realserver: str) -> None:
        """Let a realserver's packet run to the client; `packet` is as the client sees it."""
        if self.method == "nat":
            rip = self.address[realserver]
            inside = {**packet, "src_hi": rip[0], "src_lo": rip[1], "src_port": self.rport}
            side = "director" if self.one_arm else "director-inside"
            self.seen(realserver, inside, realserver, side, "out")
            self.wait()
            self.seen("director", inside, realserver, side, "in")
            self.wait()
            packet = {**packet, "ttl": 63}
            self.seen("director", packet, "director", "router", "out")
            self.wait()
            self.seen("router", packet, "director", "router", "in")
        else:
            self.seen(realserver, packet, realserver, "router", "out")
            self.wait()
            self.seen("router", packet, realserver, "router", "in")
        self.wait()
        self.seen("client", {**packet, "ttl": packet["ttl"] - 3}, "cpe", "client", "in")

    # What hosts do.

    def ends(self, port: int | None = None, vip_port: int = 80) -> tuple[tuple, tuple]:
        """Return client and service endpoints; a new client port unless one is given."""
        client = (self.address["client"], next(self._ports) if port is None else port)
        return client, (self.address["vip"], vip_port)

    def connect(self, realserver: str = "rs1", port: int | None = None, rounds: int = 2) -> dict:
        """Let a client open a connection, send `rounds` requests, and return its last reply."""
        client, service = self.ends(port)
        isn, back = next(self._ids) * 7919 % 2**32, next(self._ids) * 104729 % 2**32
        self.request(self.packet(client, service, tcp_seq=isn, tcp_flags=2), realserver)
        self.wait()
        answer = {"tcp_seq": back, "tcp_ack": isn + 1, "tcp_flags": 0x12, "ip_id": 0}
        if self.v6:
            answer["ip_id"] = None
        self.reply(self.packet(service, client, **answer), realserver)
        self.wait()
        self.request(self.packet(client, service, tcp_seq=isn + 1, tcp_ack=back + 1), realserver)
        last: dict = {}
        for number in range(rounds):
            self.wait(5_000_000)
            ask = {"tcp_seq": isn + 1 + 100 * number, "tcp_ack": back + 1 + 1000 * number}
            self.request(
                self.packet(client, service, **ask, payload_len=100, tcp_flags=0x18), realserver
            )
            self.wait()
            tell = {"tcp_seq": ask["tcp_ack"], "tcp_ack": ask["tcp_seq"] + 100}
            last = self.packet(service, client, **tell, payload_len=1000, tcp_flags=0x18)
            self.reply(last, realserver)
            self.wait()
        return last

    def health_check(self, realserver: str) -> None:
        """Let the director open a connection of its own to a realserver."""
        source = (self.address["director"], next(self._ports))
        target = (self.address[realserver], self.rport)
        side = "director-inside" if self.method == "nat" and not self.one_arm else "director"
        isn = next(self._ids) * 31337 % 2**32
        for packet, out in (
            (self.packet(source, target, tcp_seq=isn, tcp_flags=2), True),
            (self.packet(target, source, tcp_seq=5, tcp_ack=isn + 1, tcp_flags=0x12), False),
            (self.packet(source, target, tcp_seq=isn + 1, tcp_ack=6, tcp_flags=0x14), True),
        ):
            one, other = (side, realserver) if out else (realserver, side)
            first, second = ("director", realserver) if out else (realserver, "director")
            self.seen(first, packet, one, other, "out")
            self.wait()
            self.seen(second, packet, one, other, "in")

    def connect_plain(self, host: str, through: str | None = None) -> None:
        """Let a client speak to a host's own address, routed both ways through another if named."""
        client = (self.address["client"], next(self._ports))
        server = (self.address[host], 80)
        isn = next(self._ids) * 7919 % 2**32
        for packet, ask in (
            (self.packet(client, server, tcp_seq=isn, tcp_flags=2, ttl=62), True),
            (self.packet(server, client, tcp_seq=9, tcp_ack=isn + 1, tcp_flags=0x12), False),
            (self.packet(client, server, tcp_seq=isn + 1, tcp_ack=10, ttl=62), True),
            (self.packet(server, client, tcp_seq=10, tcp_ack=isn + 1, payload_len=50), False),
        ):
            way = ["router", through, host] if through else ["router", host]
            hops = list(itertools.pairwise(way if ask else way[::-1]))
            for number, (one, other) in enumerate(hops):
                hop = {**packet, "ttl": packet["ttl"] - number}
                self.seen(one, hop, one, other, "out")
                self.wait()
                self.seen(other, hop, one, other, "in")
                self.wait()

    def announce(self, name: str) -> None:
        """Let a VRRP master announce the VIP."""
        recorder = self.recorders[name]
        frame = {
            "time_ns": self.time_ns,
            "interface": 0,
            "linktype": 1,
            "eth_src": MACS[name],
            "eth_dst": pack_mac("01:00:5e:00:00:12"),
            "ip_version": 4,
            "ip_proto": 112,
            "ttl": 255,
            "decode_note": 0,
            "tunnel_depth": 0,
        }
        recorder.rows.append(frame)
        high, low = self.address["vip"]
        recorder.vrrp.append(
            {
                "row": len(recorder.rows) - 1,
                "version": 2,
                "vrid": 1,
                "priority": 100,
                "virtual_hi": high,
                "virtual_lo": low,
            }
        )

    def synchronise(self, realserver: str) -> None:
        """Let the director tell its backup of a connection."""
        recorder = self.recorders["director"]
        recorder.rows.append(
            {"time_ns": self.time_ns, "interface": 0, "linktype": 1, "decode_note": 0}
            | {"eth_src": MACS["director"], "eth_dst": pack_mac("01:00:5e:00:00:51")}
        )
        names = {"client": "client", "virtual": "vip", "real": realserver}
        ends = {
            f"{side}_{part}": value
            for side, name in names.items()
            for part, value in zip(("hi", "lo"), self.address[name], strict=True)
        }
        ports = {"client_port": 40000, "virtual_port": 80, "real_port": self.rport}
        recorder.sync.append(
            {"row": len(recorder.rows) - 1, "sync_id": 1, "proto": 6, "method": self.method}
            | ends
            | ports
        )

    def arp(self) -> None:
        """Let the router ask for the VIP, the director for the realservers, as at the beginning."""
        for asker, wanted, owner, vantages in (
            ("router", "vip", "director", ("router", "director")),
            ("director", "rs1", "rs1", ("director", "rs1")),
            ("director", "rs2", "rs2", ("director", "rs2")),
        ):
            for answer in (False, True):
                for name in reversed(vantages) if answer else vantages:
                    recorder = self.recorders[name]
                    recorder.arp.append(self._arp_row(recorder, asker, wanted, owner, answer))
                    self.wait(10_000)

    def _arp_row(
        self, recorder: Recorder, asker: str, wanted: str, owner: str, answer: bool
    ) -> dict[str, Any]:
        sender, target = (wanted, asker) if answer else (asker, wanted)
        mac = MACS[owner if answer else asker]
        frame = {
            "time_ns": self.time_ns + recorder.clock_ns,
            "interface": 0,
            "linktype": 1,
            "eth_src": mac,
            "eth_dst": MACS[asker] if answer else pack_mac("ff:ff:ff:ff:ff:ff"),
            "decode_note": 8,
            "tunnel_depth": 0,
        }
        recorder.rows.append(frame)
        words = ("advertisement", "solicitation") if self.v6 else ("reply", "request")
        return {
            "row": len(recorder.rows) - 1,
            "op": words[0] if answer else words[1],
            "sender_mac": mac,
            "sender_hi": self.address[sender][0],
            "sender_lo": self.address[sender][1],
            "target_hi": self.address[target][0],
            "target_lo": self.address[target][1],
            "gratuitous": False,
            "eth_src": mac,
        }

    def too_big(self, quoted: dict[str, Any], **columns: Any) -> dict[str, Any]:
        """Return a router's fragmentation needed (packet too big) about the packet `quoted`."""
        source = self.address["isp"]
        icmp = {
            "icmp_checksum": "ok",
            "icmp_checksum_field": 1,
            "icmp_residual": 0,
            "icmp_len": 556,
            "next_hop_mtu": 1400,
            "quoted_version": quoted["ip_version"],
            "quoted_src_hi": quoted["src_hi"],
            "quoted_src_lo": quoted["src_lo"],
            "quoted_src_port": quoted["src_port"],
            "quoted_dst_hi": quoted["dst_hi"],
            "quoted_dst_lo": quoted["dst_lo"],
            "quoted_dst_port": quoted["dst_port"],
            "quoted_proto": quoted["ip_proto"],
            "quoted_ip_len": quoted["ip_len"],
            "quoted_ip_id": quoted["ip_id"],
            "quoted_ttl": 62,
            "quoted_df": True,
            "quoted_tcp_seq": quoted["tcp_seq"],
            "quoted_tcp_ack": quoted["tcp_ack"],
            "quoted_len": 548,
            "quoted_transport_checksum": quoted["tcp_seq"] % 65535,
        }
        kind = {"icmp_type": 2, "icmp_code": 0} if self.v6 else {"icmp_type": 3, "icmp_code": 4}
        message = {
            "ip_version": quoted["ip_version"],
            "src_hi": source[0],
            "src_lo": source[1],
            "dst_hi": quoted["src_hi"],
            "dst_lo": quoted["src_lo"],
            "ip_proto": 58 if self.v6 else 1,
            "ip_id": None if self.v6 else next(self._ids) & 0xFFFF,
            "ip_len": 576,
            "ttl": 64,
            **kind,
            "_icmp": icmp,
        }
        message.update({key: columns.pop(key) for key in list(columns) if key in message})
        icmp.update(columns)
        return message

    def translated(self, message: dict[str, Any], realserver: str, **icmp: Any) -> dict[str, Any]:
        """Return what NAT makes of the quote of an error: the realserver's address and port."""
        rip = self.address[realserver]
        inner = {"quoted_src_hi": rip[0], "quoted_src_lo": rip[1], "quoted_src_port": self.rport}
        return {"_icmp": {**message["_icmp"], **inner, **icmp}}

    def error(self, message: dict[str, Any], realserver: str | None, **changes: Any) -> None:
        """Let an error reach the director and, unless `realserver` is None, be relayed."""
        near = {**message, "ttl": 62}
        self.seen("router", near, "router", "director", "out")
        self.wait()
        self.seen("director", near, "router", "director", "in")
        if realserver is None:
            return
        self.wait()
        if self.method == "nat":
            changes = self.translated(message, realserver) | changes
        self.relay(near, realserver, **changes)

    # What is made of it.

    def tables(
        self,
        *names: str,
        labels: bool = True,
        dropped: int | None = None,
        capture_filter: str | None = None,
    ) -> list[vantage.VantageTables]:
        """Return the tables of the named vantages, in this order."""
        made = []
        for index, name in enumerate(names):
            recorder = self.recorders[name]
            times = [row["time_ns"] for row in recorder.rows]
            info = CaptureInfo(
                path=f"{name}.pcap",
                format="pcap",
                packets=len(times),
                link_types=(1,),
                first_ns=min((item for item in times if item is not None), default=None),
                last_ns=max((item for item in times if item is not None), default=None),
                snaplen=262144,
                dropped=dropped,
                cut_short=False,
                notes=(),
                interfaces=(Interface(0, "eth0", None, 1, 262144, capture_filter, dropped, None),),
                size=None,
                mtime_ns=None,
            )
            role = "realserver" if name.startswith("rs") else name
            made.append(
                vantage.build(
                    index,
                    name if labels else f"v{index}",
                    role if labels else None,
                    [(info, decoded(recorder, index))],
                )
            )
        return made


def decoded(recorder: Recorder, capture: int) -> Decoded:
    """Return the tables that decoding what was recorded would make."""
    rows = [
        {
            **{key: value for key, value in row.items() if key != "_icmp"},
            "capture": capture,
            "frame": number + 1,
        }
        for number, row in enumerate(recorder.rows)
    ]
    parts = {
        "packets": rows,
        "icmp": recorder.icmp,
        "arp": recorder.arp,
        "tunnels": recorder.tunnels,
        "vrrp": recorder.vrrp,
        "ipvs_sync": recorder.sync,
    }
    made = {
        name: schema.conform(pl.DataFrame(part, infer_schema_length=None), name)
        if part
        else schema.empty(name)
        for name, part in parts.items()
    }
    return Decoded(**made, sacks=schema.empty("sacks"))


@pytest.fixture
def cluster() -> type[Cluster]:
    """Return the cluster to build; call it with what is to be otherwise."""
    return Cluster


@pytest.fixture
def address() -> dict[str, tuple[int, int]]:
    """Return the IPv4 addresses of the cluster by name."""
    return {name: pack_ip(text) for name, text in V4.items()}


@pytest.fixture
def mac() -> dict[str, int]:
    """Return the MACs of the cluster by name."""
    return MACS


class Analysis(Case):
    """All that the cluster floor says of some vantages, each part made when first asked for."""

    def verdicts(self) -> list[tuple[str, str]]:
        """Return (verdict, reason) of each judged message, in order."""
        return self.contract.select("verdict", "reason").rows()

    def realservers(self) -> list[tuple[int, int] | None]:
        """Return the realserver's address of each connection, in order."""
        rows = self.connections.connections.select("realserver_hi", "realserver_lo").rows()
        return [None if low is None else (high, low) for high, low in rows]

    def methods(self) -> list[str | None]:
        """Return the method of each service, in order."""
        return [service.method for service in self.topology.services]

    def roles(self) -> list[str]:
        """Return "role/source" of each vantage."""
        return [f"{role.role}/{role.source}" for role in self.topology.roles]


@pytest.fixture
def analyse() -> Callable[..., Analysis]:
    """Return the function that takes vantages and answers with an Analysis."""

    def analysed(vantages: list[vantage.VantageTables], site: Site | None = None) -> Analysis:
        found = Analysis(tuple(vantages), site)
        assert found.contract is not None  # it rests on all the rest, so that all was made
        return found

    return analysed
