"""ICMP messages whose checksum fails, without those that only look so where they were captured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag.addresses import ip_text
from pcapdiag.cluster.cast.macs import INITIAL_TTLS

if TYPE_CHECKING:
    from typing import Any

    from pcapdiag.case.case import Case

SAME_NS: Final = 5_000_000_000
"""Within which two frames of one IP ID are one message: longer than any queue, shorter than a
sender takes to use 65536 IDs up."""

_PACKET: Final = (
    "time_ns",
    "ip_version",
    "src_hi",
    "src_lo",
    "dst_hi",
    "dst_lo",
    "ip_id",
    "ttl",
    "eth_src",
    "icmp_type",
    "icmp_code",
    "copy_of",
)
_MESSAGE: Final = (
    "icmp_residual",
    "icmp_len",
    "next_hop_mtu",
    "quoted_version",
    "quoted_src_hi",
    "quoted_src_lo",
    "quoted_dst_hi",
    "quoted_dst_lo",
    "quoted_src_port",
    "quoted_dst_port",
    "quoted_tos",
    "quoted_ttl",
    "quoted_ip_id",
    "quoted_ip_len",
    "quoted_ip_checksum",
    "quoted_tcp_seq",
)

_NAMED: Final = {
    "next_hop_mtu": "next-hop MTU",
    "quoted_tos": "quoted TOS",
    "quoted_ttl": "quoted TTL",
    "quoted_ip_id": "quoted IP ID",
    "quoted_ip_len": "quoted IP length",
    "quoted_src_port": "quoted source port",
    "quoted_dst_port": "quoted destination port",
    "quoted_tcp_seq": "quoted sequence number",
    "quoted_src": "quoted source address",
    "quoted_dst": "quoted destination address",
}
"""What can be told to have changed between a good and a bad sight, in words."""


def frame(case: Case) -> pl.DataFrame:
    """Return one row per bad ICMP or ICMPv6 message and vantage, second sights left out.

    Columns: vantage, row, common_ns (on the common clock), connection, and of the packet and its
    quote those of `_PACKET` and `_MESSAGE`; good_vantage, good_row, good_ttl (another sight of the
    same message whose checksum is right, nearest in hops; null: none).

    Left out are messages that leave the capturing host, or may do so, as it may leave their sum to
    the network card, and messages that are seen in order as far on their way or further: what is
    bad at one tap and good behind it was never bad.
    """
    parts = [_of_vantage(case, vantage.index, "bad") for vantage in case.vantages]
    bad = pl.concat(pl.collect_all(parts)).sort("vantage", "row")
    if bad.is_empty():
        return bad.with_columns(_NO_PAIR)
    pairs = _pairs(case, bad)
    artefacts = pairs.filter(pl.col("good_ttl") <= pl.col("ttl")).select("vantage", "row")
    upstream = (
        pairs.filter(pl.col("good_ttl") > pl.col("ttl"))
        .sort("good_ttl", "good_vantage", "good_row")
        .unique(["vantage", "row"], keep="first", maintain_order=True)
        .drop("ttl")
    )
    return bad.join(artefacts, on=["vantage", "row"], how="anti").join(
        upstream, on=["vantage", "row"], how="left", maintain_order="left"
    )


def may_be_sent(case: Case) -> int:
    """Return how many bad messages `frame` leaves out only because a host may have sent them.

    Its network card may make their sum later, or it passed them on as they are: where they arrive
    would tell. Not counted is what was seen in order as far on its way, or further.
    """
    parts = [_of_vantage(case, vantage.index, "bad", sent=True) for vantage in case.vantages]
    sent = pl.concat(pl.collect_all(parts))
    if sent.is_empty():
        return 0
    pairs = _pairs(case, sent).filter(pl.col("good_ttl") <= pl.col("ttl"))
    return sent.join(pairs, on=["vantage", "row"], how="anti").height


_NO_PAIR: Final = (
    pl.lit(None, dtype=pl.UInt16).alias("good_vantage"),
    pl.lit(None, dtype=pl.UInt32).alias("good_row"),
    pl.lit(None, dtype=pl.UInt8).alias("good_ttl"),
)


def _of_vantage(case: Case, index: int, verdict: str, *, sent: bool = False) -> pl.LazyFrame:
    """Return the messages of a vantage with one verdict, as `frame` has them.

    Of bad ones those that arrive, or those that the capturing host may have `sent`.
    """
    vantage = case.vantages[index]
    packets = vantage.packets.lazy().with_row_index("row").select("row", *_PACKET, "direction")
    links = vantage.icmp_errors.lazy().select(
        "row", "flow", pl.col("copy_of").alias("error_copy_of")
    )
    legs = (
        case.connections.legs.lazy().filter(pl.col("vantage") == index).select("flow", "connection")
    )
    found = (
        vantage.icmp.lazy()
        .filter(pl.col("icmp_checksum") == verdict)
        .select("row", *_MESSAGE)
        .join(packets, on="row")
        .join(links, on="row", how="left")
        .join(legs, on="flow", how="left")
        .with_columns(pl.coalesce("copy_of", "error_copy_of").alias("again"))
    )
    leaves = (pl.col("direction") == "out").fill_null(value=False) | _may_leave(case, index)
    if sent:
        # A second sight is bad and the first was not: the host passed it on so.
        bad = vantage.icmp.filter(pl.col("icmp_checksum") == verdict)["row"]
        passed_on = ~pl.col("again").is_in(bad.implode())
        found = found.filter(pl.when(pl.col("again").is_null()).then(leaves).otherwise(passed_on))
        found = found.sort("row").unique(
            pl.coalesce("again", "row"), keep="first", maintain_order=True
        )
    else:
        found = found.filter(pl.col("again").is_null(), (verdict != "bad") | ~leaves)
    return found.with_columns(
        pl.lit(index, dtype=pl.UInt16).alias("vantage"),
        case.clocks.common_time(index).alias("common_ns"),
    ).drop("flow", "copy_of", "error_copy_of", "again", "direction")


def _may_leave(case: Case, vantage: int) -> pl.Expr:
    """Return whether the capturing host may have made the message itself.

    Where its MAC may be either of two, that holds for both, unless a router lowered the TTL.
    """
    own, either = case.topology.vantage_macs[vantage], case.topology.observed.macs.either[vantage]
    made = pl.col("eth_src").is_in(sorted(own or either))
    if not own:
        made &= pl.col("ttl").is_in(INITIAL_TTLS)
    return made.fill_null(value=False)


def _pairs(case: Case, bad: pl.DataFrame) -> pl.DataFrame:
    """Return vantage, row, ttl of bad sights with good_vantage, good_row, good_ttl of good ones.

    Known again by sender, type and IP ID, or as one message by what it quotes (errors, IPv6).
    """
    key = ["src_hi", "src_lo", "ip_id", "icmp_type", "icmp_code"]
    good = pl.concat(
        pl.collect_all(
            [
                _of_vantage(case, vantage.index, "ok").select(
                    *key,
                    pl.col("vantage").alias("good_vantage"),
                    pl.col("row").alias("good_row"),
                    pl.col("ttl").alias("good_ttl"),
                    pl.col("common_ns").alias("good_ns"),
                )
                for vantage in case.vantages
            ]
        )
    )
    named = ("vantage", "row", "ttl", "good_vantage", "good_row", "good_ttl")
    by_id = (
        bad.filter(pl.col("ip_id") != 0)
        .join(good, on=key)
        .filter(((pl.col("common_ns") - pl.col("good_ns")).abs() < SAME_NS).fill_null(value=True))
        .filter(pl.len().over("vantage", "row", "good_vantage") == 1)
        .select(named)
    )
    sights = case.errors.sightings.select("message", "vantage", "row", "ttl")
    seen = sights.join(
        good.select(
            pl.col("good_vantage").alias("vantage"), pl.col("good_row").alias("row")
        ).unique(),
        on=["vantage", "row"],
        how="semi",
    )
    by_quote = (
        bad.select("vantage", "row", "ttl")
        .join(sights.drop("ttl"), on=["vantage", "row"])
        .join(
            seen.select(
                "message",
                pl.col("vantage").alias("good_vantage"),
                pl.col("row").alias("good_row"),
                pl.col("ttl").alias("good_ttl"),
            ),
            on="message",
        )
        .select(named)
    )
    return pl.concat([by_id, by_quote]).unique(maintain_order=True)


def changes(case: Case, bad: pl.DataFrame) -> tuple[int, dict[str, str], int | None]:
    """Return what differs between the good and the bad sight in *all* messages seen both ways.

    `bad` are rows of `frame`. Returned are how many were seen both ways; what differs in every one
    of them, as field -> sentence (field "icmp_len": the message was cut); and the MAC of the host
    that changed it, where it is the only hop between (null otherwise).
    """
    both = bad.filter(pl.col("good_row").is_not_null())
    if both.is_empty():
        return 0, {}, None
    parts = []
    for (vantage,), rows in both.partition_by("good_vantage", as_dict=True).items():
        fields = case.vantages[int(vantage)].icmp.select(
            pl.col("row").alias("good_row"),
            *(pl.col(name).alias(f"was_{name}") for name in _MESSAGE if name != "icmp_residual"),
        )
        parts.append(rows.join(fields, on="good_row", maintain_order="left"))
    pairs = pl.concat(parts)
    found: dict[str, str] = {}
    if (pairs["icmp_len"] < pairs["was_icmp_len"]).all():
        longest, shortest = pairs["was_icmp_len"].max(), pairs["icmp_len"].max()
        found["icmp_len"] = f"the message was cut from up to {longest} to {shortest} bytes"  # type: ignore[str-bytes-safe]
    else:
        for field, words in _NAMED.items():
            told = _changed(pairs, field)
            if told:
                found[field] = f"the {words} was changed{told}"
    hops = pairs["good_ttl"].cast(pl.Int16) - pairs["ttl"].cast(pl.Int16)
    macs = pairs["eth_src"].drop_nulls().unique()
    one_hop = bool((hops == 1).all()) and len(macs) == 1
    return pairs.height, found, int(macs[0]) if one_hop else None


def _changed(pairs: pl.DataFrame, field: str) -> str | None:
    """Return " from A to B" where a field differs in all pairs, "" in the middle, None if not."""
    parts = [f"{field}_hi", f"{field}_lo"] if field in {"quoted_src", "quoted_dst"} else [field]
    differs = pl.any_horizontal([pl.col(f"was_{part}") != pl.col(part) for part in parts])
    if not pairs.select(differs.fill_null(value=False).all()).item():
        return None
    old = pairs.select(f"was_{part}" for part in parts).unique()
    new = pairs.select(parts).unique()

    def shown(values: pl.DataFrame) -> str:
        row: tuple[Any, ...] = values.row(0)
        return ip_text(*row) if len(row) > 1 else str(row[0])

    before = f" from {shown(old)}" if old.height == 1 else ""
    after = f" to {shown(new)}" if new.height == 1 else ""
    return before + after or ", each time otherwise"
