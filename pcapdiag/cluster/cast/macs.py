"""Who owns which MAC: the capturing host itself, ARP and neighbour discovery, TTLs.

In LVS-DR and LVS-TUN the VIP is configured on director and realservers alike, so that a MAC tells
hosts apart where an address does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag import spool
from pcapdiag.protocols import VRRP_MAC_V4, VRRP_MAC_V6, TcpFlag
from pcapdiag.schema import conform, empty

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcapdiag.flows.vantage import VantageTables

INITIAL_TTLS: Final = (64, 128, 255)
"""What Unix, Windows and network gear start with: a packet that still has one was not forwarded."""

LOWEST_FORWARDED_TTL: Final = 33
"""Below this a TTL may be a traceroute's own choice, so it does not prove that anyone forwarded."""

_OWN_SHARE: Final = 0.98
"""Share of unicast frames that name the capturing host. The rest is what a switch flooded to a
promiscuous interface while its table was empty; a mirror port is far below."""

MAX_ADDRESSES: Final = 256
"""Addresses of one MAC that are looked at: a host with more is a router or an attack."""

FAMILIES: Final = ((0, 0xFFFF_0000_0000), (0, 0))
"""An address of each family: 0.0.0.0 in its mapped form, and ::."""

_GROUP_BIT: Final = 1 << 40
"""The I/G bit of a MAC: broadcast and multicast have it."""

_HIGHEST_VRID: Final = 255


@dataclass(frozen=True)
class Macs:
    """What link layers say.

    own: per vantage the MACs of the capturing host; either: per vantage two MACs of which one is
    the
        capturing host's, where nothing tells which.
    claims: mac, hi, lo, answers (UInt32: replies, advertisements and gratuitous announcements),
    asks (UInt32:
        the address stood as the sender of a request).
    questions: mac (who asked), hi, lo (whom for), packets.
    sources: vantage, mac, hi, lo, ip_version, packets, fresh (with an initial TTL), forwarded
    (with a TTL
        that someone lowered); first sights outside tunnels only.
    """

    own: tuple[frozenset[int], ...]
    either: tuple[frozenset[int], ...]
    claims: pl.DataFrame
    questions: pl.DataFrame
    sources: pl.DataFrame


def is_virtual_router(mac: int) -> bool:
    """Whether a MAC is one of VRRP's, which moves between hosts (RFC 9568 section 7.3)."""
    return mac & ~_HIGHEST_VRID in {VRRP_MAC_V4, VRRP_MAC_V6}


def find(vantages: Sequence[VantageTables]) -> Macs:
    """Return what the link layers of all vantages say."""
    found = [_own(vantage) for vantage in vantages]
    arp = pl.concat([vantage.arp for vantage in vantages])
    return Macs(
        own=tuple(own for own, _ in found),
        either=tuple(either for _, either in found),
        claims=_claims(pl.concat([arp, *(_advertised(vantage) for vantage in vantages)])),
        questions=_questions(arp),
        sources=pl.concat([_sources(index, vantage) for index, vantage in enumerate(vantages)]),
    )


def is_v4(address: tuple[int, int]) -> bool:
    """Whether an address is an IPv4 one in its mapped form (addresses.py)."""
    return address[0] == 0 and address[1] >> 32 == 0xFFFF


def is_link_local(address: tuple[int, int]) -> bool:
    """Whether an address is of fe80::/10 (RFC 4291 section 2.5.6), which no service has."""
    return address[0] >> 54 == 0xFE80 >> 6


def addresses_of(macs: Macs, mac: int, like: tuple[int, int]) -> set[tuple[int, int]]:
    """Return the addresses that the owner of a MAC has, of the family of `like`.

    Those it stood for in ARP or neighbour discovery; where there is none, those it sent from with
    an initial TTL.
    """
    claimed = claimed_by(macs, mac, like)
    if claimed - {like}:
        return claimed
    sent = macs.sources.filter((pl.col("mac") == mac) & (pl.col("fresh") > 0))
    return claimed | _alike(sent.select("hi", "lo").unique(), like)


def claimed_by(macs: Macs, mac: int, like: tuple[int, int]) -> set[tuple[int, int]]:
    """Return the addresses that a MAC stood for in ARP or neighbour discovery."""
    return _alike(macs.claims.filter(pl.col("mac") == mac), like)


def _alike(rows: pl.DataFrame, like: tuple[int, int]) -> set[tuple[int, int]]:
    """Return the addresses of rows (hi, lo) of the family of `like` that are not link-local."""
    some = (rows.get_column(name).head(MAX_ADDRESSES) for name in ("hi", "lo"))
    return {
        address
        for address in zip(*some, strict=True)
        if is_v4(address) == is_v4(like) and not is_link_local(address)
    }


def answers(vantage: VantageTables) -> pl.DataFrame:
    """Return who answered: flow, mac, packets; one row a flow and MAC.

    Counted are untunnelled packets from the responder whose TTL nobody lowered yet, so that the
    MAC is the answering host's own. A RST does not count: a director sends it for a realserver.
    """
    return (
        vantage.packets.lazy()
        .filter(
            pl.col("flow").is_not_null()
            & pl.col("by_orig").not_()
            & pl.col("eth_src").is_not_null()
            & pl.col("tunnel").is_null()
            & pl.col("ttl").is_in(INITIAL_TTLS)
            & ((pl.col("tcp_flags").fill_null(0) & int(TcpFlag.RST)) == 0)
        )
        .group_by("flow", pl.col("eth_src").alias("mac"))
        .agg(pl.len().alias("packets"))
        .collect(engine=spool.engine(vantage.packets))
    )


def _own(vantage: VantageTables) -> tuple[frozenset[int], frozenset[int]]:
    """Return the capturing host's MACs, and a pair where it is one of two."""
    pairs = (
        vantage.packets.lazy()
        .filter(pl.col("eth_src").is_not_null())
        .group_by("capture", "interface", "direction", "eth_src", "eth_dst")
        .agg(pl.len().alias("frames"))
        .collect(engine=spool.engine(vantage.packets))
    )
    sent = pairs.filter(pl.col("direction") == "out")
    taken = pairs.filter((pl.col("direction") == "in") & pl.col("eth_dst").is_not_null())
    unicast = (pl.col("eth_dst") & _GROUP_BIT) == 0
    named = set(sent.get_column("eth_src").to_list())
    named |= set(taken.filter(unicast).get_column("eth_dst").to_list())
    own, either = named, set[int]()
    silent = pairs.filter(pl.col("direction").is_null() & pl.col("eth_dst").is_not_null() & unicast)
    for part in silent.partition_by("capture", "interface"):
        found = _covering(part)
        hosts = [mac for mac in found if not is_virtual_router(mac)]
        if len(hosts) == 1:
            neighbour = _flooded_neighbour(vantage, part, hosts[0])
            if neighbour is not None:
                either |= {hosts[0], neighbour}
            else:
                own |= found
        else:
            either |= found
    if either & own:
        either = set()
    return frozenset(own - {0}), frozenset(either)


def _covering(pairs: pl.DataFrame) -> set[int]:
    """Return the MACs that nearly all frames of one interface come from or go to.

    One, or two of which either may be it; a virtual MAC stands beside its owner's.
    """
    total = int(pairs.get_column("frames").sum())
    ends = pl.concat(
        [
            pairs.select(pl.col("eth_src").alias("mac"), "frames"),
            pairs.filter(pl.col("eth_src") != pl.col("eth_dst")).select(
                pl.col("eth_dst").alias("mac"), "frames"
            ),
        ]
    )
    shares = ends.group_by("mac").agg(pl.col("frames").sum()).sort("frames", "mac", descending=True)
    covering = shares.filter(pl.col("frames") >= total * _OWN_SHARE).get_column("mac").to_list()
    if covering:
        return set(covering)
    virtual = {mac for mac in shares.get_column("mac").to_list() if is_virtual_router(mac)}
    if not virtual:
        return set()
    # A VRRP master answers for a virtual MAC beside its own: together they cover the interface.
    others = shares.filter(~pl.col("mac").is_in(list(virtual))).head(MAX_ADDRESSES)
    found = []
    for mac in others.get_column("mac").to_list():
        both = [*virtual, mac]
        covered = pairs.filter(pl.col("eth_src").is_in(both) | pl.col("eth_dst").is_in(both))
        if int(covered.get_column("frames").sum()) >= total * _OWN_SHARE:
            found.append(mac)
    return {*found, *virtual} if len(found) == 1 else set()


def _flooded_neighbour(vantage: VantageTables, pairs: pl.DataFrame, mac: int) -> int | None:
    """Return the MAC whose capture it may be as well as that of `mac`, which is on all frames.

    A switch floods what is for a host that it does not hear, one whose link is down, to all its
    ports. So what `mac` sends to hosts that say nothing here may be no more than what a promiscuous
    neighbour got besides its own conversations with `mac`. Not where a conversation goes to both:
    a host that sends on, or answers another way than it was asked, has both neighbours.
    """
    talking = pairs.filter(pl.col("eth_src") != mac).get_column("eth_src").unique()
    heard = pairs.filter((pl.col("eth_src") == mac) & pl.col("eth_dst").is_in(talking.implode()))
    if len(talking) != 1 or heard.is_empty():
        return None
    neighbour = int(talking.item())
    silent = pairs.filter(~pl.col("eth_dst").is_in([mac, neighbour]))
    flooded = int(silent.get_column("frames").sum())
    if flooded == 0 or 2 * flooded >= int(pairs.get_column("frames").sum()):
        return None
    with_neighbour = (pl.col("eth_src") == neighbour) | (pl.col("eth_dst") == neighbour)
    to_silent = pl.col("eth_dst").is_in(silent.get_column("eth_dst").unique().implode())
    shared = (
        vantage.packets.lazy()
        .filter(pl.col("flow").is_not_null() & (with_neighbour | to_silent))
        .group_by("flow")
        .agg((with_neighbour.any() & to_silent.any()).alias("both"))
        .select(pl.col("both").any())
    )
    return None if shared.collect().item() else neighbour


def _advertised(vantage: VantageTables) -> pl.DataFrame:
    """Return the addresses that VRRP masters announce, as rows of the arp table.

    Priority 0 is a master that resigns (RFC 9568 section 5.2.4).
    """
    if vantage.vrrp.is_empty():
        return empty("arp")
    live = vantage.vrrp.filter((pl.col("priority") > 0) & pl.col("virtual_lo").is_not_null())
    senders = spool.at(vantage.packets, live.get_column("row"), "eth_src")
    return conform(
        live.hstack(senders)
        .filter(pl.col("eth_src").is_not_null())
        .select(
            "row",
            pl.lit("reply").alias("op"),
            pl.col("eth_src").alias("sender_mac"),
            pl.col("virtual_hi").alias("sender_hi"),
            pl.col("virtual_lo").alias("sender_lo"),
            pl.lit(True).alias("gratuitous"),
            "eth_src",
        ),
        "arp",
    )


def _claims(arp: pl.DataFrame) -> pl.DataFrame:
    """Return who claimed which address how often, see Macs."""
    answer = pl.col("op").is_in(["reply", "advertisement"]) | pl.col("gratuitous").fill_null(False)
    return (
        arp.filter(
            _usable("sender") & pl.col("sender_mac").is_not_null() & (pl.col("sender_mac") > 0)
        )
        .group_by(
            pl.col("sender_mac").alias("mac"),
            pl.col("sender_hi").alias("hi"),
            pl.col("sender_lo").alias("lo"),
        )
        .agg(
            answer.sum().cast(pl.UInt32).alias("answers"),
            (~answer).sum().cast(pl.UInt32).alias("asks"),
        )
        .sort("mac", "hi", "lo")
    )


def _questions(arp: pl.DataFrame) -> pl.DataFrame:
    """Return who asked for which address, see Macs; announcements and probes are no questions."""
    return (
        arp.filter(
            pl.col("op").is_in(["request", "solicitation"])
            & ~pl.col("gratuitous").fill_null(False)
            & _usable("sender")
            & _usable("target")
            & pl.col("sender_mac").is_not_null()
        )
        .group_by(
            pl.col("sender_mac").alias("mac"),
            pl.col("target_hi").alias("hi"),
            pl.col("target_lo").alias("lo"),
        )
        .agg(pl.len().alias("packets"))
        .sort("mac", "hi", "lo")
    )


def _usable(side: str) -> pl.Expr:
    """Whether an address is one: not null, not :: and not 0.0.0.0 (an ARP probe, RFC 5227)."""
    low = pl.col(f"{side}_lo")
    nothing = (pl.col(f"{side}_hi") == 0) & low.is_in([0, 0xFFFF_0000_0000])
    return low.is_not_null() & ~nothing


def _sources(index: int, vantage: VantageTables) -> pl.DataFrame:
    """Return the source addresses behind each MAC of a vantage, see Macs."""
    ttl = pl.col("ttl")
    fresh = ttl.is_in(INITIAL_TTLS)
    lowered = (ttl >= LOWEST_FORWARDED_TTL) & ~fresh
    return (
        vantage.packets.lazy()
        .filter(
            pl.col("eth_src").is_not_null()
            & pl.col("src_lo").is_not_null()
            & pl.col("copy_of").is_null()
            & pl.col("tunnel").is_null()
        )
        .group_by(
            pl.col("eth_src").alias("mac"),
            pl.col("src_hi").alias("hi"),
            pl.col("src_lo").alias("lo"),
            "ip_version",
        )
        .agg(
            pl.len().alias("packets"),
            fresh.sum().cast(pl.UInt32).alias("fresh"),
            lowered.sum().cast(pl.UInt32).alias("forwarded"),
        )
        .select(pl.lit(index, pl.UInt16).alias("vantage"), pl.all())
        .collect(engine=spool.engine(vantage.packets))
    )
