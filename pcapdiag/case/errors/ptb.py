"""Fragmentation needed (ICMP 3/4) and packet too big (ICMPv6 2): who was told, who never heard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag.case import sights
from pcapdiag.cluster.coverage import MARGIN_NS
from pcapdiag.protocols import FRAG_NEEDED, IPV4_MIN_MTU, IPV6_MIN_MTU, IcmpType, Icmpv6Type
from pcapdiag.schema import VERDICTS, dtypes

if TYPE_CHECKING:
    from pcapdiag.case.case import Case

IS_PTB = (
    (pl.col("ip_version") == 4)
    & (pl.col("icmp_type") == int(IcmpType.UNREACHABLE))
    & (pl.col("icmp_code") == FRAG_NEEDED)
) | ((pl.col("ip_version") == 6) & (pl.col("icmp_type") == int(Icmpv6Type.PACKET_TOO_BIG)))

_JUDGED: Final = {
    {"vantage": "director_vantage"}.get(name, name): dtype
    for name, dtype in dtypes("contract").items()
    if name != "message"
}

_FATE: Final = {"at_director": pl.Boolean, **_JUDGED, "reached_sender": pl.Boolean}
"""What with_fate adds to sights.with_first."""


def frame(case: Case) -> pl.DataFrame:
    """Return one row per message about a packet of a known connection: see `with_fate`.

    icmp_checksum is "bad" also where the message was in order here and spoilt further on.
    """
    messages = case.errors.messages.filter(IS_PTB & pl.col("connection").is_not_null())
    found = with_fate(case, messages)
    if messages.is_empty():
        return found
    return found.with_columns(
        pl.when(pl.col("message").is_in(_spoilt_later(case).implode()))
        .then(pl.lit("bad", VERDICTS))
        .otherwise("icmp_checksum")
        .alias("icmp_checksum")
    )


def _spoilt_later(case: Case) -> pl.Series:
    """Return the messages that some capture holds in order and one behind it does not."""
    before = case.bad_checksums.select(
        pl.col("good_vantage").alias("vantage"), pl.col("good_row").alias("row")
    ).drop_nulls()
    sights = case.errors.sightings.join(before, on=["vantage", "row"], how="semi")
    return sights["message"].unique()


def with_fate(case: Case, messages: pl.DataFrame) -> pl.DataFrame:
    """Return error messages with what became of them.

    Adds the columns of sights.with_first, and at_director (some director's capture holds it),
    verdict, reason, director_vantage, in_row, out_row (of the contract), reached_sender (true: seen
    arriving at a capture of the host that sent the quoted packet; false: not, though that capture
    keeps ICMP and goes on then; null: there is no such capture).
    """
    if messages.is_empty():
        fate = (pl.lit(None, dtype).alias(name) for name, dtype in _FATE.items())
        return sights.with_first(case, messages).with_columns(fate)
    every_message = [
        visible and not left_out
        for visible, left_out in zip(case.icmp_visible, case.coverage.icmp_left_out, strict=True)
    ]
    roles = sights.roles(case).with_columns(
        pl.Series("every_message", every_message, dtype=pl.Boolean)
    )
    seen = case.errors.sightings.join(messages.select("message"), on="message", how="semi").join(
        roles, on="vantage", how="left", maintain_order="left"
    )
    at_director = seen.group_by("message").agg(
        (pl.col("role") == "director").any().alias("at_director")
    )
    judged = (
        case.contract.sort(pl.col("verdict") == "unknown", "message", "vantage")
        .group_by("message", maintain_order=True)
        .first()
        .rename({"vantage": "director_vantage"})
    )
    return (
        sights.with_first(case, messages)
        .join(at_director, on="message", how="left", maintain_order="left")
        .join(judged, on="message", how="left", maintain_order="left")
        .join(
            _reached(case, messages, seen, roles), on="message", how="left", maintain_order="left"
        )
    )


def fates(case: Case) -> pl.DataFrame:
    """Return, per connection and sender, what became of the messages about its packets.

    Columns: connection, sender, ptb_messages (UInt32), ptb_mtu (the least that one of them named),
    and how many were ptb_bad or ptb_unverified (checksum), ptb_unusable (an MTU of 0, below the
    protocol's least, or not below the quoted length), ptb_swallowed, ptb_misdelivered (wrong
    realserver or wrong translation), ptb_forwarded, ptb_at_director, ptb_reached and ptb_missed (at
    the sender's own capture), ptb_reached_bad (of those that reached it, their checksum bad),
    ptb_sound_onward (not bad, and seen at a director or at the sender's).
    """
    least = pl.when(pl.col("ip_version") == 4).then(IPV4_MIN_MTU).otherwise(IPV6_MIN_MTU)
    unusable = (pl.col("next_hop_mtu") < least) | (
        pl.col("next_hop_mtu") >= pl.col("quoted_ip_len")
    )
    verdict = pl.col("verdict").cast(pl.String)
    return case.too_big.group_by("connection", pl.col("quoted_sender").alias("sender")).agg(
        pl.len().alias("ptb_messages"),
        pl.col("next_hop_mtu").min().alias("ptb_mtu"),
        (pl.col("icmp_checksum") == "bad").sum().alias("ptb_bad"),
        (pl.col("icmp_checksum") == "unverifiable").sum().alias("ptb_unverified"),
        unusable.sum().alias("ptb_unusable"),
        (verdict == "swallowed").sum().alias("ptb_swallowed"),
        verdict.is_in(["wrong-realserver", "wrong-translation"]).sum().alias("ptb_misdelivered"),
        (verdict == "forwarded").sum().alias("ptb_forwarded"),
        pl.col("at_director").sum().alias("ptb_at_director"),
        (
            (pl.col("icmp_checksum") != "bad")
            & (pl.col("at_director") | pl.col("reached_sender").fill_null(value=False))
        )
        .sum()
        .alias("ptb_sound_onward"),
        (pl.col("reached_sender") == True).sum().alias("ptb_reached"),  # noqa: E712 - null is neither
        ((pl.col("reached_sender") == True) & (pl.col("icmp_checksum") == "bad"))  # noqa: E712
        .sum()
        .alias("ptb_reached_bad"),
        (pl.col("reached_sender") == False).sum().alias("ptb_missed"),  # noqa: E712 - likewise
    )


def strangers(case: Case) -> int:
    """Return how many messages came to a director about packets of which no connection is known.

    One of them may be any message that was seen before the director, its quote rewritten on the
    way, or cut off by the capture.
    """
    directors = [vantage.index for vantage in case.vantages_of("director")]
    about_nobody = case.errors.messages.filter(IS_PTB & pl.col("connection").is_null())
    return (
        case.errors.sightings.filter(pl.col("vantage").is_in(directors))
        .join(about_nobody.select("message"), on="message", how="semi")
        .get_column("message")
        .n_unique()
    )


def _reached(
    case: Case, messages: pl.DataFrame, seen: pl.DataFrame, roles: pl.DataFrame
) -> pl.DataFrame:
    # The sender's own capture is one of its role that holds a leg of the quoted connection.
    own = (
        messages.select("message", "connection", "quoted_sender", "first_ns")
        .join(case.connections.legs.select("connection", "vantage"), on="connection")
        .join(roles, on="vantage")
        .filter(pl.col("role") == pl.col("quoted_sender").cast(pl.String), pl.col("every_message"))
        .select("message", "vantage", "first_ns")
        .unique()
    )
    lasting = case.coverage.capturing(own, "first_ns", after_ns=MARGIN_NS)
    own = own.select("message", "vantage", lasting.alias("lasting"))
    arrived = seen.filter(pl.col("place") != "out").select("message", "vantage").unique()
    return (
        own.join(arrived.with_columns(arrived=pl.lit(True)), on=["message", "vantage"], how="left")
        .with_columns(pl.coalesce("arrived", pl.when("lasting").then(pl.lit(False))).alias("there"))
        .group_by("message")
        .agg(pl.col("there").any(ignore_nulls=False).alias("reached_sender"))
    )
