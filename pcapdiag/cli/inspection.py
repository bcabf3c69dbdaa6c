"""What is in the captures, counted: pure functions of a case; `inspect` prints what they return."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import polars as pl

from pcapdiag.addresses import endpoint_text, ip_text, mac_text
from pcapdiag.decode_note import DecodeNote
from pcapdiag.protocols import EtherType, icmp_name, proto_name
from pcapdiag.site import METHODS, ROLES, Address, Site, SiteHost, SiteService
from pcapdiag.text import clean

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pcapdiag.capture.frames import CaptureInfo
    from pcapdiag.case import Case
    from pcapdiag.cluster.topology import HostInfo, ServiceInfo, Topology
    from pcapdiag.flows.vantage import VantageTables

MAX_ERRORS: Final = 200
"""ICMP errors of one vantage by message and sender: what a person reads; the rest is counted."""

MAX_MTUS: Final = 8
"""Next-hop MTUs listed of one sender: honest routers tell one or two."""

_ETHERTYPE_NAMES: Final = {
    EtherType.ARP: "arp",
    EtherType.MPLS: "mpls",
    EtherType.PPPOE_SESSION: "pppoe",
    0x8863: "pppoe discovery",
    0x88CC: "lldp",
    0x8809: "lacp",
    0x88F7: "ptp",
    0x88E5: "macsec",
}


class Count(NamedTuple):
    """How many packets of one kind."""

    name: str
    packets: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IcmpErrors:
    """The errors of one kind from one sender, each counted once however often it was captured."""

    message: str
    sender: str
    messages: int
    first_ns: int | None
    last_ns: int | None
    bad_checksums: int
    mtus: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class VantageSummary:
    """One place where captures were taken."""

    name: str
    role: str
    role_source: str
    role_reason: str
    role_confidence: str
    captures: tuple[CaptureInfo, ...]
    packets: int
    copies: int
    """Second sights: packets that were forwarded, or captured at two interfaces."""
    flows: int
    protocols: tuple[Count, ...]
    tunnels: tuple[Count, ...]
    decode_notes: tuple[Count, ...]
    icmp_errors: tuple[IcmpErrors, ...]
    icmp_errors_left_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSummary:
    """One virtual service."""

    name: str
    method: str
    realservers: tuple[str, ...]
    reason: str
    confidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSummary:
    """One host."""

    name: str
    role: str
    addresses: tuple[str, ...]
    macs: tuple[str, ...]
    reason: str
    confidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """Everything that `inspect` shows."""

    vantages: tuple[VantageSummary, ...]
    services: tuple[ServiceSummary, ...]
    hosts: tuple[HostSummary, ...]
    notes: tuple[str, ...]


def inspect(case: Case, notes: Sequence[str] = ()) -> Inspection:
    """Return what the captures of a case hold and what cluster they show.

    `notes` are what was decided about the inputs before they were read.
    """
    topology = case.topology
    return Inspection(
        vantages=tuple(_vantage(item, topology) for item in case.vantages),
        services=tuple(map(_service, topology.services)),
        hosts=tuple(map(_host, topology.hosts)),
        notes=(*notes, *topology.notes),
    )


def _vantage(tables: VantageTables, topology: Topology) -> VantageSummary:
    packets = (
        tables.packets.lazy()
        .select("copy_of", "tunnel", "decode_note", "ip_version", "ip_proto", "ethertype")
        .collect()
    )
    errors, errors_left_out = icmp_errors(tables.icmp_errors)
    role = topology.roles[tables.index]
    return VantageSummary(
        name=tables.name,
        role=role.role,
        role_source=role.source,
        role_reason=role.reason,
        role_confidence=role.confidence,
        captures=tables.captures,
        packets=packets.height,
        copies=packets["copy_of"].len() - packets["copy_of"].null_count(),
        flows=tables.flows.height,
        protocols=protocols(packets),
        tunnels=_counts(packets.filter(pl.col("tunnel").is_not_null())["tunnel"].cast(pl.String)),
        decode_notes=decode_notes(packets["decode_note"]),
        icmp_errors=errors,
        icmp_errors_left_out=errors_left_out,
    )


def protocols(packets: pl.DataFrame) -> tuple[Count, ...]:
    """Return how many packets of each protocol, most first; IPv6 is said, IPv4 is not.

    `packets` has the columns ip_version, ip_proto and ethertype of schema.PACKETS.
    """
    kinds = packets.group_by("ip_version", "ip_proto").len()
    counts: dict[str, int] = defaultdict(int)
    for version, proto, count in kinds.filter(pl.col("ip_version").is_not_null()).iter_rows():
        name = "unknown" if proto is None else proto_name(proto)
        counts[name if version == 4 or name == "icmpv6" else f"{name} over IPv6"] += count
    others = packets.filter(pl.col("ip_version").is_null()).group_by("ethertype").len()
    for ethertype, count in others.iter_rows():
        counts[_ethertype_name(ethertype)] += count
    return _ordered(counts)


def _ethertype_name(ethertype: int | None) -> str:
    if ethertype is None:
        return "no network layer"
    if ethertype < 0x0600:  # IEEE 802.3 section 3.2.6: a length, LLC follows
        return "llc"
    if ethertype in {EtherType.IPV4, EtherType.IPV6}:
        return "broken ip"
    return _ETHERTYPE_NAMES.get(ethertype, f"ethertype 0x{ethertype:04x}")


def decode_notes(notes: pl.Series) -> tuple[Count, ...]:
    """Return how many packets bear each bit of DecodeNote, named as `pcapdiag packets` names it.

    NOT_IP is left out: `protocols` says what those are.
    """
    counts: dict[str, int] = defaultdict(int)
    for bits, count in notes.value_counts().iter_rows():
        for note in DecodeNote:
            if bits is not None and bits & note & ~DecodeNote.NOT_IP and note.name:
                counts[note.name.lower().replace("_", "-")] += count
    return _ordered(counts)


def _counts(values: pl.Series) -> tuple[Count, ...]:
    return _ordered(dict(values.value_counts().iter_rows()))


def _ordered(counts: dict[str, int]) -> tuple[Count, ...]:
    by_count = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple(Count(name, count) for name, count in by_count)


def icmp_errors(errors: pl.DataFrame) -> tuple[tuple[IcmpErrors, ...], int]:
    """Return the errors of a vantage by message and sender, and how many messages were left out.

    `errors` is schema.ICMP_ERRORS. At most MAX_ERRORS kinds are returned, the most frequent first.
    """
    grouped = (
        errors.filter(pl.col("copy_of").is_null())
        .group_by("ip_version", "icmp_type", "icmp_code", "src_hi", "src_lo")
        .agg(
            pl.len().alias("messages"),
            pl.col("time_ns").min().alias("first_ns"),
            pl.col("time_ns").max().alias("last_ns"),
            (pl.col("icmp_checksum") == "bad").sum().alias("bad"),
            pl.col("next_hop_mtu").drop_nulls().unique().sort().head(MAX_MTUS).alias("mtus"),
        )
        .sort(
            "messages", "ip_version", "icmp_type", "icmp_code", "src_hi", "src_lo",
            descending=[True, False, False, False, False, False],
        )
    )  # fmt: skip
    shown = tuple(
        IcmpErrors(
            message=icmp_name(row["ip_version"], row["icmp_type"], row["icmp_code"]),
            sender=ip_text(row["src_hi"], row["src_lo"]),
            messages=row["messages"],
            first_ns=row["first_ns"],
            last_ns=row["last_ns"],
            bad_checksums=row["bad"],
            mtus=tuple(row["mtus"]),
        )
        for row in grouped.head(MAX_ERRORS).iter_rows(named=True)
    )
    return shown, int(grouped["messages"][MAX_ERRORS:].sum())


def _service(service: ServiceInfo) -> ServiceSummary:
    method = service.method or "unknown"
    return ServiceSummary(
        name=_service_name(service),
        method=f"{method} ({service.encapsulation})" if service.encapsulation else method,
        realservers=tuple(endpoint_text(hi, lo, port) for (hi, lo), port in _realservers(service)),
        reason=service.reason,
        confidence=service.confidence,
    )


def _service_name(service: ServiceInfo) -> str:
    mark = f"fwmark {service.fwmark}" if service.fwmark is not None else ""
    if service.vip is None:
        return mark or "any address"
    vip_hi, vip_lo = service.vip
    place = endpoint_text(vip_hi, vip_lo, service.port)
    return f"{proto_name(service.ip_proto)} {place} {mark}".rstrip()


def _realservers(service: ServiceInfo) -> tuple[tuple[Address, int | None], ...]:
    """Return the realservers with the ports that NAT gives them, None where it is the service's."""
    ports: dict[Address, list[int | None]] = {address: [] for address in service.realservers}
    for address, port in sorted(service.realserver_ports):
        if port != service.port:
            ports.setdefault(address, []).append(port)
    return tuple((address, port) for address in sorted(ports) for port in ports[address] or [None])


def _host(host: HostInfo) -> HostSummary:
    return HostSummary(
        name=host.name,
        role=host.role,
        addresses=tuple(ip_text(*address) for address in sorted(host.addresses)),
        macs=tuple(mac_text(mac) for mac in sorted(host.macs)),
        reason=host.reason,
        confidence=host.confidence,
    )


def site_of(topology: Topology) -> Site:
    """Return what was inferred in the form that --site takes, hosts of one name put together."""
    hosts: dict[str, list[HostInfo]] = defaultdict(list)
    for host in topology.hosts:
        hosts[host.name].append(host)
    return Site(
        services=tuple(
            SiteService(
                ip_proto=service.ip_proto,
                vip=service.vip,
                port=service.port,
                fwmark=service.fwmark,
                method=service.method if service.method in METHODS else None,
                encapsulation=service.encapsulation,
                realservers=_realservers(service),
            )
            for service in topology.services
        ),
        hosts=tuple(_site_host(name, same) for name, same in sorted(hosts.items())),
    )


def _site_host(name: str, same: Sequence[HostInfo]) -> SiteHost:
    roles = {host.role for host in same} & set(ROLES)
    return SiteHost(
        name=name,
        role=roles.pop() if len(roles) == 1 else None,
        addresses=tuple(sorted({address for host in same for address in host.addresses})),
        macs=tuple(sorted({mac for host in same for mac in host.macs})),
    )


def site_comments(topology: Topology) -> str:
    """Return the reasons as TOML comments, so that whoever corrects the file knows them."""
    reasons: Iterable[tuple[str, str]] = (
        *((_service_name(service), service.reason) for service in topology.services),
        *((host.name, host.reason) for host in topology.hosts),
    )
    lines = [
        "Written by `pcapdiag inspect --write-site`: inferred from captures, not known.",
        "Correct it, then give it to `pcapdiag analyze --site`.",
        *(f"{name}: {reason}" for name, reason in reasons if reason),
    ]
    return "".join(f"# {clean(line, 400)}\n" for line in lines) + "\n"
