"""What each vantage's captures are good for: what they lost, cut, merged, doubled or mistimed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag import schema, spool
from pcapdiag.decode_note import DecodeNote
from pcapdiag.protocols import IpProto

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pcapdiag.case.case import Case
    from pcapdiag.flows.vantage import VantageTables
    from pcapdiag.spool import Table

ROWS: Final = 5
"""Frames of a kind that are kept as examples."""

MIN_PACKETS: Final = 3
"""Packets of a TCP flow from which its silent side counts: one or two may be a scan's."""

BACK_NS: Final = 100_000_000
"""Half of Linux's least RTO (200 ms): smaller disorder comes from several queues or interfaces,
a larger step would put a retransmission before its original."""

ETHERNET_MTU: Final = 1500

LARGEST_FRAME: Final = 9216
"""Largest MTU of Ethernet equipment in use; taken where no MSS tells a smaller one."""

_PLACE: Final = ("ttl", "eth_src", "eth_dst", "vlan", "tunnel_depth")

_TOLD: Final = (
    *("caplen", "wire_len", "decode_note", "ip_len", "eth_src", "eth_dst", "time_ns", "ip_version"),
)
"""What kinds of packets are told by."""

_HEADER_CUT: Final = int(DecodeNote.TRANSPORT_CUT | DecodeNote.IP_CUT | DecodeNote.LINK_CUT)


@dataclass(frozen=True, slots=True)
class Kind:
    """How many frames are of a kind, and the rows of the first few."""

    count: int
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """One vantage. `dropped` is None where no capture says; offset_ns None: not aligned."""

    vantage: int
    packets: int
    dropped: int | None
    missing: int
    """Of `expected` packets, so many passed unseen: what TCP shows to have existed."""
    expected: int
    cut_files: int
    cut: Kind
    """Frames of which not all was kept."""
    headers_cut: Kind
    """Frames that end within their headers."""
    icmp: int
    icmp_cut: Kind
    """ICMP messages that are cut, so that nobody can verify them."""
    merged: Kind
    """Packets larger than any that may have been on the wire."""
    doubled: Kind
    """Frames that are exact doubles of another at the same place."""
    untimed: Kind
    back: Kind
    """Steps back in time by more than BACK_NS from one frame of a capture to the next."""
    back_ns: int
    """By how much in all."""
    one_sided: Kind
    """TCP flows, of `flows` that have packets enough, that show one direction only."""
    flows: int
    without_target: Kind
    """IP packets whose frames do not say which MAC they went to ("-i any")."""
    keeps_icmp: bool
    offset_ns: int | None
    clock_reason: str
    alone: bool
    """No other vantage was capturing at any time of this one, by their own clocks."""


def of(case: Case, vantage: VantageTables) -> Quality:
    """Return what the captures of a vantage are good for."""
    loss = case.coverage.loss(vantage.index)
    back, back_ns = _back(vantage)
    one_sided, flows = _one_sided(vantage)
    kinds = _kinds(
        _numbered(vantage.packets, *_TOLD),
        cut=pl.col("caplen") < pl.col("wire_len"),
        headers_cut=pl.col("decode_note") & _HEADER_CUT != 0,
        # On a loopback interface 65 kB is a packet.
        merged=(pl.col("ip_len") > _largest(vantage)) & (pl.col("eth_src") != 0),
        untimed=pl.col("time_ns").is_null(),
        without_target=pl.col("ip_version").is_not_null() & pl.col("eth_dst").is_null(),
    )
    return Quality(
        vantage=vantage.index,
        packets=len(vantage.packets),
        dropped=loss.dropped,
        missing=loss.missing,
        expected=loss.expected,
        cut_files=sum(info.cut_short for info in vantage.captures),
        icmp=vantage.icmp.height,
        icmp_cut=_icmp_cut(vantage),
        doubled=_doubled(vantage),
        back=back,
        back_ns=back_ns,
        one_sided=one_sided,
        flows=flows,
        keeps_icmp=case.coverage.could_see_icmp_at(vantage.index, None).ok,
        offset_ns=case.clocks.offset_ns[vantage.index],
        clock_reason=case.clocks.reasons[vantage.index],
        alone=_alone(case, vantage),
        **kinds,
    )


def _numbered(packets: Table, *names: str) -> Iterator[pl.DataFrame]:
    """Yield columns of the packets with their `row`, a file at a time."""
    begin = 0
    for frame in spool.frames(packets, *names):
        yield frame.with_row_index("row", begin)
        begin += len(frame)


def _kinds(frames: Iterable[pl.DataFrame], **wanted: pl.Expr) -> dict[str, Kind]:
    """Return the kinds of rows by name, in one pass."""
    kinds = dict.fromkeys(wanted, Kind(0, ()))
    for frame in frames:
        found = frame.select(
            [
                column
                for name, expr in wanted.items()
                for column in (
                    expr.sum().alias(name),
                    pl.col("row").filter(expr).head(ROWS).implode().alias(f"{name}_rows"),
                )
            ]
        )
        for name, kind in kinds.items():
            rows = (*kind.rows, *found.item(0, f"{name}_rows"))[:ROWS]
            kinds[name] = Kind(kind.count + int(found.item(0, name) or 0), rows)
    return kinds


def _icmp_cut(vantage: VantageTables) -> Kind:
    unverifiable = vantage.icmp.filter(pl.col("icmp_checksum") == "unverifiable").select("row")
    if unverifiable.is_empty():
        return Kind(0, ())
    frames = spool.at(vantage.packets, unverifiable["row"], "caplen", "wire_len")
    cut = pl.col("caplen") < pl.col("wire_len")
    return _kinds([unverifiable.hstack(frames)], cut=cut)["cut"]


def _largest(vantage: VantageTables) -> int:
    """Return the largest IP length that may have been on a wire: jumbo frames where MSS say so."""
    mss = vantage.packets.lazy().select(pl.col("tcp_mss").max()).collect().item()
    return max(ETHERNET_MTU, 60 + mss) if isinstance(mss, int) else LARGEST_FRAME


def _doubled(vantage: VantageTables) -> Kind:
    same = pl.all_horizontal(pl.col(name).eq_missing(pl.col(f"first_{name}")) for name in _PLACE)
    return _kinds(_seen_twice(vantage.packets), same=same)["same"]


def _seen_twice(packets: Table) -> Iterator[pl.DataFrame]:
    """Yield second sights beside the first ones, a file at a time."""
    for frame in _numbered(packets, "copy_of", *_PLACE):
        seconds = frame.filter(pl.col("copy_of").is_not_null())
        firsts = spool.at(packets, seconds["copy_of"], *_PLACE)
        yield seconds.hstack(firsts.rename(lambda name: f"first_{name}"))


def _back(vantage: VantageTables) -> tuple[Kind, int]:
    frames = _numbered(vantage.packets, "capture", "frame", "time_ns")
    if len(vantage.captures) > 1:  # one capture stays in file order, several are merged by time
        frames = iter([pl.concat(frames).sort("capture", "frame")])
    steps: list[pl.DataFrame] = []
    last = schema.empty("packets").select("capture", "time_ns")
    for frame in frames:
        timed = pl.concat([last, frame.drop_nulls("time_ns")], how="diagonal")
        last = timed.select("capture", "time_ns").tail(1)
        steps.append(
            timed.select(
                "row",
                (pl.col("capture") == pl.col("capture").shift(1)).alias("same"),
                (pl.col("time_ns") - pl.col("time_ns").shift(1)).alias("step"),
            ).filter(pl.col("same") & (pl.col("step") < -BACK_NS))
        )
    back = pl.concat(steps)
    return Kind(back.height, tuple(back["row"].head(ROWS))), -int(back["step"].sum())


def _one_sided(vantage: VantageTables) -> tuple[Kind, int]:
    enough = pl.col("orig_packets") + pl.col("resp_packets") >= MIN_PACKETS
    told = ("ip_proto", "first_row", "orig_packets", "resp_packets", "orig_sent", "orig_syn")
    flows = vantage.flows.select(told).filter(pl.col("ip_proto") == int(IpProto.TCP), enough)
    # A SYN that is repeated has no answer; what goes on after it does, somewhere.
    went_on = (pl.col("orig_sent") > 1) | ~pl.col("orig_syn")
    silent = flows.filter((pl.col("orig_packets") == 0) | ((pl.col("resp_packets") == 0) & went_on))
    return Kind(silent.height, tuple(silent["first_row"].head(ROWS))), flows.height


def _alone(case: Case, vantage: VantageTables) -> bool:
    def span(tables: VantageTables) -> tuple[int, int] | None:
        times = [
            time
            for info in tables.captures
            for time in (info.first_ns, info.last_ns)
            if time is not None
        ]
        return (min(times), max(times)) if times else None

    mine = span(vantage)
    others = [span(item) for item in case.vantages if item.index != vantage.index]
    known = [item for item in others if item is not None]
    if mine is None or not known:
        return False
    return all(other[0] > mine[1] or other[1] < mine[0] for other in known)
