"""TCP and UDP checksums that fail where packets arrive, and what became of such packets.

Checksums cover every byte, so that verifying them means reading the captures again. Small captures
are verified whole; of large ones only connections that repeat packets, or get no answer, as those
of bad checksums must.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import polars as pl

from pcapdiag import spool
from pcapdiag.capture.frames import NO_TIME
from pcapdiag.capture.reader import open_again
from pcapdiag.case.sides import TCP_IP_HEADERS
from pcapdiag.cluster.joined.places import place
from pcapdiag.decode import verify
from pcapdiag.errors import CaptureError, UnreadableCapture
from pcapdiag.protocols import IpProto, TcpFlag
from pcapdiag.schema import VERDICTS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pcapdiag.capture.frames import CaptureInfo, FrameBatch
    from pcapdiag.case.case import Case
    from pcapdiag.flows.vantage import VantageTables

VERIFY_ALL: Final = 100_000
"""Packets of a vantage up to which all are verified: a tenth of a second."""

MAX_VERIFIED: Final = 50_000
"""Packets that are verified at most of a larger one, the first ones: far more than a burst, in a
tenth of a second, besides reading the capture up to there."""

ETHERNET_MTU: Final = 1500

_RANKS: Final = {"client": 0, "router": 1, "director": 2, "realserver": 3}


class Verified(NamedTuple):
    """Verdicts of one vantage's packets, and why some captures could not be read again.

    `sums` has vantage, row, layer (transport | outer), verdict (VERDICTS), partial, residual.
    """

    sums: pl.DataFrame
    unread: tuple[str, ...]


def verified(vantage: VantageTables) -> Verified:
    """Verify the packets of a vantage that may have bad checksums."""
    wanted = _wanted(vantage)
    parts, unread = [_empty()], []
    for info, capture in zip(vantage.captures, vantage.capture_ids, strict=True):
        mine = wanted.filter(pl.col("capture") == capture)
        if mine.is_empty():
            continue
        try:
            parts.append(_read(info, mine))
        except (CaptureError, OSError) as error:
            unread.append(f"{vantage.name} cannot be read a second time ({type(error).__name__})")
    sums = pl.concat(parts).with_columns(pl.lit(vantage.index, pl.UInt16).alias("vantage"))
    return Verified(sums.sort("row", "layer"), tuple(dict.fromkeys(unread)))


def cut(case: Case) -> tuple[int, int]:
    """Return how many TCP and UDP packets that carry something are cut, and how many there are."""
    carries = (pl.col("payload_len") > 0) | (pl.col("tcp_flags") & int(TcpFlag.SYN) != 0)
    parts = [
        vantage.packets.lazy()
        .filter(
            pl.col("ip_proto").is_in([int(IpProto.TCP), int(IpProto.UDP)]),
            carries.fill_null(value=False),
            pl.col("copy_of").is_null(),
        )
        .select((pl.col("caplen") < pl.col("wire_len")).sum().alias("cut"), pl.len())
        for vantage in case.vantages
    ]
    cuts, carrying = pl.concat(pl.collect_all(parts)).sum().row(0)
    return int(cuts), int(carrying)


def frame(case: Case) -> pl.DataFrame:
    """Return one row per bad checksum at a place where the packet arrived.

    Columns: vantage, row, layer (transport | outer), residual, time_ns, ip_proto, src_hi, src_lo,
    dst_hi, dst_lo, eth_src, ip_len, flow, connection, sender (client | realserver), service_name,
    realserver_name, good_before (name of a vantage nearer to the sender where the same packet was
    right; null: none), accepted (the peer acknowledged all that was sent, without repetition).

    Left out are what leaves the capturing host, sums that a card was to complete, packets larger
    than any on the wire (merged: the first one's checksum stands), second sights, and packets that
    were right at a place further on.
    """
    every = pl.concat([item.sums for item in case.verified_sums])
    wrong = every.filter(pl.col("verdict") == "bad", ~pl.col("partial"))
    where = set(wrong["vantage"].unique()) or {0}
    parts = [_about(case, vantage, wrong) for vantage in case.vantages if vantage.index in where]
    bad = pl.concat(parts)
    if bad.is_empty():
        return bad.with_columns(
            pl.lit(None, pl.String).alias("good_before"), pl.lit(value=False).alias("accepted")
        )
    return _accepted(case, _elsewhere(case, bad, every)).sort("time_ns", "vantage", "row")


def _wanted(vantage: VantageTables) -> pl.DataFrame:
    """Return row, capture, frame and time_ns of the packets to verify, in file order."""
    packets = vantage.packets.lazy().with_row_index("row")
    ported = pl.col("ip_proto").is_in([int(IpProto.TCP), int(IpProto.UDP)])
    whole = pl.col("caplen") >= pl.col("wire_len")
    rows = packets.filter(ported, whole, pl.col("flow").is_not_null())
    if len(vantage.packets) > VERIFY_ALL:
        silent = (pl.col("orig_packets") == 0) != (pl.col("resp_packets") == 0)
        unheard = silent & (pl.col("orig_data_packets") + pl.col("resp_data_packets") == 0)
        tcp = pl.col("ip_proto") == int(IpProto.TCP)
        repeated = (pl.col("orig_timeouts") > 0) | (pl.col("resp_timeouts") > 0)
        troubled = vantage.flows.filter(pl.when(tcp).then(repeated | unheard).otherwise(silent))
        carries = (pl.col("payload_len") > 0) | (pl.col("tcp_flags") & int(TcpFlag.SYN) != 0)
        rows = (
            rows.filter(carries)
            .join(troubled.lazy().select("flow"), on="flow", how="semi", maintain_order="left")
            .head(MAX_VERIFIED)
        )
    return rows.select("row", "capture", "frame", "time_ns").collect()


def _empty() -> pl.DataFrame:
    return pl.DataFrame(
        schema={
            "row": pl.UInt32,
            "layer": pl.String,
            "verdict": VERDICTS,
            "partial": pl.Boolean,
            "residual": pl.UInt16,
        }
    )


def _read(info: CaptureInfo, wanted: pl.DataFrame) -> pl.DataFrame:
    """Return the verdicts of the wanted frames of one capture; stops behind the last of them.

    Raises UnreadableCapture where these are no longer the frames that were analysed.
    """
    ordered = wanted.sort("frame")
    frames, rows = ordered["frame"].to_numpy(), ordered["row"].to_numpy()
    times = ordered["time_ns"].fill_null(NO_TIME).to_numpy()
    parts = [_empty()]
    with open_again(info.path, ahead=pl.thread_pool_size() > 1) as reader:
        for batch in reader:
            first, last = int(batch.frame[0]), int(batch.frame[-1])
            here = slice(*np.searchsorted(frames, [first, last + 1]))
            if here.stop > here.start:
                at = frames[here].astype(np.int64) - first
                if (batch.time_ns[at] != times[here]).any():
                    raise UnreadableCapture(info.path, "is no longer what was analysed")
                parts.append(_verdicts(batch, frames[here], rows[here]))
            if last >= frames[-1]:
                break
    return pl.concat(parts)


def _verdicts(
    batch: FrameBatch, frames: NDArray[np.uint32], rows: NDArray[np.uint32]
) -> pl.DataFrame:
    at = np.searchsorted(batch.frame, frames)
    sums = verify.verify(batch, at)
    names = dict(enumerate(("", *VERDICTS.categories)))
    layers = (
        ("transport", sums.verdict, sums.partial, sums.residual),
        ("outer", sums.outer_verdict, sums.outer_partial, sums.outer_residual),
    )
    return pl.concat(
        [
            _empty(),
            *(
                pl.DataFrame(
                    {"row": rows, "code": verdict, "partial": partial, "residual": residual},
                    schema_overrides={"row": pl.UInt32},
                )
                .filter(pl.col("code") > 0)
                .select(
                    "row",
                    pl.lit(name).alias("layer"),
                    pl.col("code")
                    .replace_strict(names, return_dtype=pl.String)
                    .cast(VERDICTS)
                    .alias("verdict"),
                    "partial",
                    "residual",
                )
                for name, verdict, partial, residual in layers
                if verdict.any()
            ),
        ]
    )


def _about(case: Case, vantage: VantageTables, wrong: pl.DataFrame) -> pl.DataFrame:
    """Return the bad sums of packets that arrived at a vantage, and what they are."""
    bad = wrong.filter(pl.col("vantage") == vantage.index)
    own = sorted(case.topology.vantage_macs[vantage.index])
    names = (
        "time_ns", "ip_proto", "ip_version", "src_hi", "src_lo", "dst_hi", "dst_lo", "eth_src",
        "ip_len", "ip_id", "tcp_seq", "tcp_flags", "payload_len", "flow", "by_orig", "copy_of",
    )  # fmt: skip
    rows = spool.at(vantage.packets, bad["row"], *names, "eth_dst", "direction").select(
        *names, place(case.topology, vantage.index).alias("place")
    )
    limits = vantage.flows.select(
        "flow", pl.max_horizontal("orig_mss", "resp_mss").cast(pl.Int64).alias("mss")
    )
    headers = pl.col("ip_version").replace_strict(TCP_IP_HEADERS, default=60, return_dtype=pl.Int64)
    largest = pl.max_horizontal(pl.col("mss") + headers, pl.lit(ETHERNET_MTU))
    legs = case.connections.legs.filter(pl.col("vantage") == vantage.index)
    members = case.members.select(
        "connection", "service_name", "realserver_name", "client_hi", "client_lo"
    )
    return (
        bad.select("vantage", "row", "layer", "residual")
        .hstack(rows)
        .join(limits, on="flow", how="left")
        .join(legs.select("flow", "connection").unique("flow"), on="flow", how="left")
        .join(members, on="connection", how="left")
        .filter(
            pl.col("copy_of").is_null(),
            pl.col("place") != "out",
            ~pl.col("eth_src").is_in(own).fill_null(value=False),
            pl.col("ip_len") <= largest,
        )
        .with_columns(_SENDER)
        .drop("mss", "copy_of", "place", "client_hi", "client_lo", "ip_version")
    )


_SENDER: Final = (
    pl.when((pl.col("src_hi") == pl.col("client_hi")) & (pl.col("src_lo") == pl.col("client_lo")))
    .then(pl.lit("client"))
    .when(pl.col("connection").is_not_null())
    .then(pl.lit("realserver"))
    .alias("sender")
)


def kinds(case: Case) -> pl.DataFrame:
    """Return how many packets of each kind were verified at each vantage, second sights left out.

    Columns: vantage, service_name, sender, ip_proto, layer (as in `frame`), verified.
    """
    members = case.members.select("connection", "service_name", "client_hi", "client_lo")
    parts = []
    for vantage, item in zip(case.vantages, case.verified_sums, strict=True):
        sums = item.sums.filter(pl.col("verdict") != "unverifiable", ~pl.col("partial"))
        packets = spool.at(
            vantage.packets, sums["row"], "ip_proto", "src_hi", "src_lo", "flow", "copy_of"
        )
        parts.append(sums.select("vantage", "layer").hstack(packets))
    legs = case.connections.legs.select("vantage", "flow", "connection")
    return (
        pl.concat(parts)
        .filter(pl.col("copy_of").is_null())
        .join(legs.unique(["vantage", "flow"]), on=["vantage", "flow"], how="left")
        .join(members, on="connection", how="left")
        .with_columns(_SENDER)
        .group_by("vantage", "service_name", "sender", "ip_proto", "layer")
        .agg(pl.len().alias("verified"))
    )


_SAME: Final = ("connection", "sender", "layer", "ip_id", "tcp_seq", "payload_len")


def _elsewhere(case: Case, bad: pl.DataFrame, every: pl.DataFrame) -> pl.DataFrame:
    """Add good_before, and leave out what was right further on."""
    rank = {item.index: _RANKS.get(case.role(item.index), -1) for item in case.vantages}
    names = {item.index: item.name for item in case.vantages}
    suspects = bad.filter(pl.col("connection").is_not_null()).select("connection").unique()
    parts = []
    for vantage in case.vantages:
        good = every.filter(pl.col("vantage") == vantage.index, pl.col("verdict") == "ok")
        legs = case.connections.legs.filter(pl.col("vantage") == vantage.index).join(
            suspects, on="connection", how="semi"
        )
        rows = spool.at(vantage.packets, good["row"], "flow", "src_hi", "src_lo", *_SAME[3:])
        clients = case.members.select("connection", "client_hi", "client_lo")
        by_client = (pl.col("src_hi") == pl.col("client_hi")) & (
            pl.col("src_lo") == pl.col("client_lo")
        )
        parts.append(
            good.select("layer")
            .hstack(rows)
            .join(legs.select("flow", "connection").unique("flow"), on="flow")
            .join(clients, on="connection")
            .select(
                "connection",
                pl.when(by_client)
                .then(pl.lit("client"))
                .otherwise(pl.lit("realserver"))
                .alias("sender"),
                *_SAME[2:],
                pl.lit(rank[vantage.index]).alias("good_rank"),
                pl.lit(names[vantage.index]).alias("good_at"),
            )
            .unique()
        )
    ranks = pl.DataFrame(
        {"vantage": list(rank), "rank": list(rank.values())},
        schema={"vantage": pl.UInt16, "rank": pl.Int32},
    )
    along = pl.when(pl.col("sender") == "client").then(1).otherwise(-1)
    way = (pl.col("good_rank") - pl.col("rank")) * along
    found = (
        bad.join(ranks, on="vantage", how="left")
        .join(pl.concat(parts), on=list(_SAME), how="left", nulls_equal=True)
        .with_columns(way.alias("way"))
        .group_by("vantage", "row", "layer")
        .agg(
            (pl.col("way") > 0).any().alias("good_later"),
            pl.col("good_at")
            .filter(pl.col("way") < 0)
            .sort_by(pl.col("way").filter(pl.col("way") < 0))
            .last()
            .alias("good_before"),
        )
    )
    return (
        bad.join(found, on=["vantage", "row", "layer"], how="left", maintain_order="left")
        .filter(~pl.col("good_later").fill_null(value=False))
        .drop("good_later")
    )


def _accepted(case: Case, bad: pl.DataFrame) -> pl.DataFrame:
    """Add whether a bad packet's receiver took it: then the capture is wrong, not the packet.

    TCP: all that the side sent was acknowledged, and nothing was sent twice. UDP: there is an
    answer to each datagram.
    """
    parts = []
    for vantage in case.vantages:
        for side, peer, by_orig in (("orig", "resp", True), ("resp", "orig", False)):
            tcp = (
                (pl.col(f"{side}_acked") >= pl.col(f"{side}_sent"))
                & (pl.col(f"{side}_retransmitted") == 0)
                & ~pl.col(f"{peer}_rst")
            )
            udp = pl.col(f"{peer}_packets") >= pl.col(f"{side}_packets")
            parts.append(
                vantage.flows.select(
                    pl.lit(vantage.index, pl.UInt16).alias("vantage"),
                    "flow",
                    pl.lit(by_orig).alias("by_orig"),
                    pl.when(pl.col("ip_proto") == int(IpProto.TCP))
                    .then(tcp)
                    .otherwise(udp)
                    .fill_null(value=False)
                    .alias("accepted"),
                )
            )
    flows = bad.select("vantage", "flow").unique()
    known = pl.concat(parts).join(flows, on=["vantage", "flow"], how="semi")
    return bad.join(
        known, on=["vantage", "flow", "by_orig"], how="left", maintain_order="left"
    ).with_columns(pl.col("accepted").fill_null(value=False))
